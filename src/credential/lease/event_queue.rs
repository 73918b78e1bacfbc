//! Notes which records concern leases. Noting runs on the writer's thread and must not wait; the undoing task processes the notes.

use parking_lot::Mutex;

use mayfly_base::limits;
use mayfly_ledger::record::{Event, Record};
use mayfly_ledger::revocation::Target;
use mayfly_verify::seq::{CredentialId, LeaseId, TaskId};

/// The events since the notes were last taken.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct LeaseEvents {
    /// Leases that were opened.
    pub opened: Vec<LeaseId>,
    /// Leases that were closed.
    pub closed: Vec<LeaseId>,
    /// Leases whose credential was issued.
    pub issued: Vec<LeaseId>,
    /// Credentials that were released, or revoked by id.
    pub credentials: Vec<CredentialId>,
    /// Tasks that were closed, or revoked by id.
    pub tasks: Vec<TaskId>,
    /// Something was revoked that any lease may depend on.
    pub all: bool,
    /// There were more events than are noted; the leases must be read from the state.
    pub read_again: bool,
}

impl LeaseEvents {
    /// Notes a record. Returns whether the record ends something, so that the undoing task should be woken.
    fn note(&mut self, record: &Record) -> bool {
        let Some(event) = &record.event else { return false };
        match event {
            Event::LeaseOpened(e) => self.opened.extend(LeaseId::from_slice(&e.lease)),
            Event::LeaseClosed(e) => self.closed.extend(LeaseId::from_slice(&e.lease)),
            Event::Issued(e) if e.lease.is_empty() => return false,
            Event::Issued(e) => self.issued.extend(LeaseId::from_slice(&e.lease)),
            Event::Released(e) => self.credentials.extend(CredentialId::from_slice(&e.credential)),
            Event::TaskClosed(e) => self.tasks.extend(TaskId::from_slice(&e.task)),
            Event::Revoked(e) => e.targets.iter().for_each(|target| match Target::from_record(target) {
                Ok(Target::Credential(id)) => self.credentials.push(id),
                Ok(Target::Task(id)) => self.tasks.push(id),
                _ => self.all = true,
            }),
            Event::KeyChanged(_) | Event::GenerationBegun(_) => self.all = true,
            _ => return false,
        }
        let ends = !matches!(event, Event::LeaseOpened(_) | Event::LeaseClosed(_) | Event::Issued(_));
        self.bound();
        ends
    }

    /// Above the limit the individual notes are replaced by a check of all leases.
    fn bound(&mut self) {
        if self.credentials.len() + self.tasks.len() > limits::LEASE_NEWS {
            (self.credentials, self.tasks, self.all) = (Vec::new(), Vec::new(), true);
        }
        if self.opened.len() + self.closed.len() + self.issued.len() > limits::LEASE_NEWS {
            (self.opened, self.closed, self.issued) = (Vec::new(), Vec::new(), Vec::new());
            (self.all, self.read_again) = (true, true);
        }
    }
}

/// The notes, shared between the writer and the undoing task.
pub(super) struct EventQueue {
    news: Mutex<PendingEvents>,
}

struct PendingEvents {
    news: LeaseEvents,
    /// An open lease is known. Otherwise records that end something are ignored.
    any: bool,
}

impl Default for EventQueue {
    /// The state has not been read yet.
    fn default() -> EventQueue {
        let news = LeaseEvents { read_again: true, ..LeaseEvents::default() };
        EventQueue { news: Mutex::new(PendingEvents { news, any: true }) }
    }
}

impl EventQueue {
    /// Notes durable records, in order. Returns whether a record ended something.
    pub fn note<'a>(&self, records: impl Iterator<Item = &'a Record>) -> bool {
        let mut noted = self.news.lock();
        let mut ended = false;
        for record in records {
            match &record.event {
                Some(Event::LeaseOpened(_)) => noted.any = true,
                _ if !noted.any => continue,
                _ => {}
            }
            ended |= noted.news.note(record);
        }
        ended
    }

    /// Takes the notes.
    pub fn take(&self) -> LeaseEvents {
        std::mem::take(&mut self.news.lock().news)
    }

    /// The state was not read completely and must be read again.
    pub fn read_again(&self) {
        let mut noted = self.news.lock();
        (noted.news.all, noted.news.read_again, noted.any) = (true, true, true);
    }

    /// No lease is open after everything that was taken.
    pub fn rest(&self) {
        let mut noted = self.news.lock();
        noted.any = noted.news != LeaseEvents::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_ledger::record::{
        Author, CredentialIssued, CredentialReleased, KeyChanged, LeaseClosed, LeaseOpened, TargetsRevoked, TaskClosed, TaskHeld,
    };

    fn record(event: Event) -> Record {
        Record::new(Author::LocalUid(0), event)
    }

    fn opened(n: u8) -> Record {
        record(Event::LeaseOpened(LeaseOpened { lease: vec![n; 16], ..Default::default() }))
    }

    fn released(n: u8) -> Record {
        record(Event::Released(CredentialReleased { credential: vec![n; 16], ..Default::default() }))
    }

    fn revoked(targets: &[Target]) -> Record {
        let targets = targets.iter().map(Target::to_record).collect();
        record(Event::Revoked(TargetsRevoked { targets, ..Default::default() }))
    }

    #[test]
    fn each_record_concerns_what_it_names() {
        let inbox = EventQueue::default();
        assert!(inbox.take().read_again, "nobody has read the state yet");
        let issued = |lease: Vec<u8>| record(Event::Issued(CredentialIssued { lease, ..Default::default() }.into()));
        let closed = record(Event::LeaseClosed(LeaseClosed { lease: vec![2; 16], ..Default::default() }));
        let held = record(Event::TaskHeld(TaskHeld { task: vec![9; 16], ..Default::default() }));
        assert!(!inbox.note([opened(1), closed, issued(vec![3; 16]), issued(vec![]), held].iter()), "nothing ended");
        let over = record(Event::TaskClosed(TaskClosed { task: vec![5; 16], ..Default::default() }));
        let both = revoked(&[Target::Credential(CredentialId::from_bytes([6; 16])), Target::Task(TaskId::from_bytes([7; 16]))]);
        assert!(inbox.note([released(4), over, both].iter()));
        let credential = |n: u8| CredentialId::from_bytes([n; 16]);
        let expected = LeaseEvents {
            opened: vec![LeaseId::from_bytes([1; 16])],
            closed: vec![LeaseId::from_bytes([2; 16])],
            issued: vec![LeaseId::from_bytes([3; 16])],
            credentials: vec![credential(4), credential(6)],
            tasks: vec![TaskId::from_bytes([5; 16]), TaskId::from_bytes([7; 16])],
            ..LeaseEvents::default()
        };
        assert_eq!(inbox.take(), expected);
        assert_eq!(inbox.take(), LeaseEvents::default());
        for all in [revoked(&[Target::Upstream("echo".into())]), record(Event::KeyChanged(KeyChanged::default()))] {
            assert!(inbox.note([all].iter()) && inbox.take().all);
        }
    }

    #[test]
    fn without_an_open_lease_nothing_is_noted() {
        let inbox = EventQueue::default();
        inbox.take();
        inbox.rest();
        assert!(!inbox.note([released(1)].iter()));
        assert_eq!(inbox.take(), LeaseEvents::default());
        // A lease that opens between `take` and `rest` is not missed.
        inbox.note([opened(1)].iter());
        inbox.rest();
        assert!(inbox.note([released(2)].iter()));
    }

    #[test]
    fn what_is_noted_is_bounded_and_nothing_is_lost_by_that() {
        let inbox = EventQueue::default();
        inbox.take();
        let many = limits::LEASE_NEWS + 1;
        inbox.note((0..many).map(|_| released(1)).collect::<Vec<_>>().iter());
        let news = inbox.take();
        assert!(news.all && !news.read_again && news.credentials.len() <= limits::LEASE_NEWS);
        inbox.note((0..many).map(|_| opened(1)).collect::<Vec<_>>().iter());
        let news = inbox.take();
        assert!(news.all && news.read_again && news.opened.len() <= limits::LEASE_NEWS);
    }
}
