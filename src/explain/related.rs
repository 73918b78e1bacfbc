//! Which records tell the story of one thing.

use std::ops::ControlFlow;

use crate::authority::Authority;
use crate::ledger::history::{Past, Reached};
use crate::ledger::record::{Event, Issued, Record};
use crate::ledger::state::{Ground, facts_of_record};
use crate::limits;
use crate::refusal::No;
use crate::revocation::{Facts, Rules, Target};
use crate::seq::{Millis, Seq, TaskId};

/// What a story is about. What is not known stays empty.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// The credential: what was issued, and its decision revision.
    pub credential: Option<(Issued, Seq)>,
    /// The tasks of the path, root first.
    pub path: Vec<TaskId>,
    /// An approval, 16 bytes.
    pub approval: Vec<u8>,
    /// Approvals that a task was opened or extended with, as they are seen.
    pub used: Vec<Vec<u8>>,
    /// A lease, 16 bytes.
    pub lease: Vec<u8>,
    /// Refusals that name this task.
    pub refusals_of: String,
    /// The other grants that it rests on, each with the decision revision that counts: a revocation of one of them belongs to the story.
    pub grounds: Vec<(Ground, Seq)>,
    /// The record where the story begins: no need to look further back, but for tasks that were not seen.
    pub from: Seq,
}

impl About {
    fn is_credential(&self, id: &[u8]) -> bool {
        self.credential.as_ref().is_some_and(|(issued, _)| issued.credential == id)
    }

    fn has_task(&self, id: &[u8]) -> bool {
        self.path.iter().any(|t| t.as_bytes()[..] == *id)
    }

    /// Whether it is about that task itself, and no credential of it.
    fn is_about(&self, task: &[u8]) -> bool {
        self.credential.is_none() && self.path.last().is_some_and(|t| t.as_bytes()[..] == *task)
    }

    /// Looking back, what used an approval comes before what is said of it.
    fn notes(&mut self, event: &Event) {
        let approval = match event {
            Event::TaskExtended(e) => &e.approval,
            Event::TaskOpened(e) => &e.approval,
            _ => return,
        };
        if !approval.is_empty() && self.used.len() < limits::EXPLAIN_RECORDS {
            self.used.push(approval.clone());
        }
    }

    fn has_approval(&self, id: &[u8]) -> bool {
        About::has(&self.approval, id) || self.used.iter().any(|used| used == id)
    }

    fn has(given: &[u8], found: &[u8]) -> bool {
        !given.is_empty() && given == found
    }

    /// Whether a record belongs to the story.
    pub fn concerns(&self, record: &Record, seq: Seq) -> bool {
        match &record.event {
            Some(Event::Issued(e)) => self.is_credential(&e.credential),
            Some(Event::Released(e)) => self.is_credential(&e.credential),
            Some(Event::Authorized(e)) => {
                self.is_credential(&e.credential) || e.decided.as_ref().is_some_and(|d| self.is_about(&d.task))
            }
            Some(Event::UsesReported(e)) => self.is_credential(&e.credential) || self.is_about(&e.task),
            Some(Event::TaskOpened(e)) => self.has_task(&e.task),
            Some(Event::TaskClosed(e)) => self.has_task(&e.task),
            Some(Event::TaskHeld(e)) => self.has_task(&e.task),
            Some(Event::TaskResumed(e)) => self.has_task(&e.task),
            Some(Event::TaskExtended(e)) => self.has_task(&e.task),
            Some(Event::Revoked(e)) if !e.lock_only => {
                let targets = e.targets.iter().filter_map(|t| Target::from_record(t).ok());
                self.hit_by(targets, seq)
            }
            Some(Event::KeyChanged(e)) => self.credential.as_ref().is_some_and(|(issued, _)| issued.key == e.key),
            // A recovery revokes all that was before it.
            Some(Event::GenerationBegun(e)) if e.generation > 1 => self.credential.is_some() || !self.path.is_empty(),
            Some(Event::ApprovalAsked(e)) => self.has_approval(&e.approval) || (e.terms.is_some() && self.is_about(&e.task)),
            Some(Event::ApprovalDecided(e)) => self.has_approval(&e.approval),
            Some(Event::LeaseOpened(e)) => About::has(&self.lease, &e.lease) || self.is_credential(&e.credential),
            Some(Event::LeaseClosed(e)) => About::has(&self.lease, &e.lease),
            Some(Event::Refused(e)) => !self.refusals_of.is_empty() && e.task == self.refusals_of,
            _ => false,
        }
    }

    /// Whether a revocation at `seq` covers it.
    fn hit_by(&self, targets: impl Iterator<Item = Target>, seq: Seq) -> bool {
        let facts = match &self.credential {
            Some((issued, revision)) => facts_of_record(issued, *revision, &self.path),
            None if !self.path.is_empty() => Facts { tasks: self.path.clone(), ..Facts::default() },
            None => return false,
        };
        let mut rules = Rules::default();
        for target in targets {
            rules.add(&target, Some(seq), None, Millis(u64::MAX));
        }
        rules.covers(&facts).is_some() || self.grounds.iter().any(|(ground, r)| rules.covers(&ground.facts(*r)).is_some())
    }
}

struct Story {
    about: About,
    records: Vec<Past>,
    /// Tasks of the path that are still to be seen.
    missing: usize,
}

impl Authority {
    /// The records of a story, oldest first, at most `limits::EXPLAIN_RECORDS`: the newest and where it began.
    pub(super) async fn story(&self, about: About) -> Result<(Vec<Past>, Reached), No> {
        let missing = about.path.len();
        let (story, reached) = self
            .look_back(Story { about, records: Vec::new(), missing }, |story, past| {
                if story.about.concerns(&past.record, past.seq) {
                    past.record.event.iter().for_each(|event| story.about.notes(event));
                    let opens = matches!(past.record.event, Some(Event::TaskOpened(_)));
                    story.missing = story.missing.saturating_sub(usize::from(opens));
                    let begins = opens || matches!(past.record.event, Some(Event::Issued(_)));
                    // The beginning is kept in any case: it is at most a credential and the tasks of one path.
                    if begins || story.records.len() < limits::EXPLAIN_RECORDS - limits::TASK_DEPTH - 1 {
                        story.records.push(past.clone());
                    }
                }
                let whole = story.missing == 0 && past.seq <= story.about.from;
                if whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .await?;
        let mut records = story.records;
        records.reverse();
        Ok((records, reached))
    }
}
