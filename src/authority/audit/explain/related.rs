//! Selects the records that belong to the story of an object.

use super::UnreadHistory;
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_ledger::reader::history::HistoryRecord;
use mayfly_ledger::reader::history_query::HistoryQuery;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{CredentialIssued, Event, NameKind, Record, main_objects};
use mayfly_ledger::revocation::{Facts, Rules, Target, TargetKinds};
use mayfly_ledger::state::{SupportingGrant, facts_of_record};
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, Millis, Seq, TaskId};

/// The object of a story. Unknown parts stay empty.
#[derive(Clone, Debug, Default)]
pub(super) struct ExplainScope {
    /// The issued credential, and its decision revision.
    pub credential: Option<(CredentialIssued, Seq)>,
    /// The tasks of the path, root first.
    pub path: Vec<TaskId>,
    /// An approval, 16 bytes.
    pub approval: Vec<u8>,
    /// The approvals that a task was opened or extended with, as they are found.
    pub used: Vec<Vec<u8>>,
    /// A lease, 16 bytes.
    pub lease: Vec<u8>,
    /// The task whose refusals belong to the story.
    pub refusals_of: String,
    /// The other grants that the credential depends on, each with the relevant decision revision: a revocation of one of them belongs to
    /// the story.
    pub grounds: Vec<(SupportingGrant, Seq)>,
    /// The sequence number of the record where the story begins.
    pub from: Seq,
}

impl ExplainScope {
    fn is_credential(&self, id: &[u8]) -> bool {
        self.credential.as_ref().is_some_and(|(issued, _)| issued.credential == id)
    }

    fn has_task(&self, id: &[u8]) -> bool {
        self.path.iter().any(|t| t.as_bytes()[..] == *id)
    }

    /// Whether the story is about that task itself, and not about a credential of it.
    fn is_about(&self, task: &[u8]) -> bool {
        self.credential.is_none() && self.path.last().is_some_and(|t| t.as_bytes()[..] == *task)
    }

    /// Collects the approvals that a record used. History is read backwards, so the use of an approval comes before the approval's own
    /// records.
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
        ExplainScope::has(&self.approval, id) || self.used.iter().any(|used| used == id)
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
            // A recovery revokes everything before it.
            Some(Event::GenerationBegun(e)) if e.generation > 1 => self.credential.is_some() || !self.path.is_empty(),
            Some(Event::ApprovalAsked(e)) => self.has_approval(&e.approval) || (e.terms.is_some() && self.is_about(&e.task)),
            Some(Event::ApprovalDecided(e)) => self.has_approval(&e.approval),
            Some(Event::LeaseOpened(e)) => ExplainScope::has(&self.lease, &e.lease) || self.is_credential(&e.credential),
            Some(Event::LeaseClosed(e)) => ExplainScope::has(&self.lease, &e.lease),
            Some(Event::Refused(e)) => !self.refusals_of.is_empty() && e.task == self.refusals_of,
            _ => false,
        }
    }

    /// Removes the beginnings of generations before the object: a generation revokes what was issued before it, and the object came later.
    fn drop_earlier_generations(&self, records: &mut Vec<HistoryRecord>) {
        let opens = |past: &HistoryRecord| matches!(&past.record.event, Some(Event::TaskOpened(e)) if self.is_about(&e.task));
        let began = match self.from {
            Seq::ZERO => records.iter().find(|past| opens(past)).map(|past| past.seq),
            from => Some(from),
        };
        let Some(began) = began else { return };
        records.retain(|past| past.seq > began || !matches!(&past.record.event, Some(Event::GenerationBegun(_))));
    }

    /// The facts that revocation rules are matched against.
    fn facts(&self) -> Option<Facts<'_>> {
        match &self.credential {
            Some((issued, revision)) => Some(facts_of_record(issued, *revision, &self.path)),
            None if !self.path.is_empty() => Some(Facts { tasks: self.path.clone(), ..Facts::default() }),
            None => None,
        }
    }

    /// Whether a revocation at `seq` covers the object.
    fn hit_by(&self, targets: impl Iterator<Item = Target>, seq: Seq) -> bool {
        let Some(facts) = self.facts() else { return false };
        let mut rules = Rules::default();
        for target in targets {
            rules.add(&target, Some(seq), None, Millis(u64::MAX));
        }
        rules.covers(&facts).is_some() || self.grounds.iter().any(|(ground, r)| rules.covers(&ground.facts(*r)).is_some())
    }

    /// The names to search for: every record of the story has one of these.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.path.iter().map(main_objects::id).collect();
        if let Some((issued, _)) = &self.credential {
            names.extend(CredentialId::from_slice(&issued.credential).map(main_objects::id));
            names.push(main_objects::key(&issued.key));
        }
        if let Some(facts) = self.facts() {
            rules_of(&facts, &mut names);
            names.push(main_objects::GENERATION.to_owned());
        }
        for (ground, revision) in &self.grounds {
            rules_of(&ground.facts(*revision), &mut names);
        }
        names.sort_unstable();
        names.dedup();
        names.extend(approval(&self.approval));
        names.extend(LeaseId::from_slice(&self.lease).map(main_objects::id));
        names
    }

    /// The records of a story, oldest first, at most `limits::EXPLAIN_RECORDS`: the newest, and those where it began.
    fn story(mut self, look: &HistoryQuery) -> Result<(Vec<HistoryRecord>, UnreadHistory), Error> {
        // The beginning has at most the records of a credential and of the tasks of one path.
        let most = limits::EXPLAIN_RECORDS - limits::TASK_DEPTH - 1;
        let mut filters = filters_of(self.names());
        filters.extend(self.credential.as_ref().map(|_| HistoryFilter { seq: Some(self.from), ..HistoryFilter::default() }));
        let mut records = look.newest(&filters, most, |past| self.concerns(&past.record, past.seq))?;
        records.iter().filter_map(|past| past.record.event.as_ref()).for_each(|event| self.notes(event));
        // The approvals that the task was opened or extended with are known only after the first search.
        let used = self.used.iter().filter_map(|id| approval(id)).collect::<Vec<_>>();
        if !used.is_empty() {
            let more = look.newest(&filters_of(used), most, |past| self.concerns(&past.record, past.seq))?;
            records.extend(more);
        }
        let mut whole = true;
        for task in &self.path {
            let opens =
                |past: &HistoryRecord| matches!(&past.record.event, Some(Event::TaskOpened(e)) if e.task == task.as_bytes());
            if !records.iter().any(opens) {
                let opened = look.first(&filters_of(vec![main_objects::id(task)]), opens)?;
                whole &= opened.is_some();
                records.extend(opened);
            }
        }
        if self.credential.is_some() && !records.iter().any(|past| past.seq == self.from) {
            records.extend(look.at(self.from)?);
        }
        records.sort_by_key(|past| past.seq);
        records.dedup_by_key(|past| past.seq);
        self.drop_earlier_generations(&mut records);
        whole &= self.path.is_empty() || look.unseen().is_none();
        let asked = |past: &HistoryRecord| matches!(&past.record.event, Some(Event::ApprovalAsked(_) | Event::LeaseOpened(_)));
        whole &= !self.path.is_empty() || records.iter().any(asked);
        Ok((records, UnreadHistory { removed: look.removed().filter(|_| !whole), unseen: look.unseen() }))
    }
}

/// Adds the names of every rule that can cover these facts.
fn rules_of(facts: &Facts<'_>, names: &mut Vec<String>) {
    facts.each(TargetKinds::ALL, &mut |probe| {
        names.push(main_objects::rule(&probe));
        false
    });
}

fn approval(id: &[u8]) -> Option<String> {
    ApprovalId::from_slice(id).map(main_objects::id)
}

/// One filter for each name.
fn filters_of(names: Vec<String>) -> Vec<HistoryFilter> {
    names.into_iter().map(|name| HistoryFilter::named(Some(NameKind::About), name)).collect()
}

impl Authority {
    /// The records of a story, oldest first, at most `limits::EXPLAIN_RECORDS`: the newest, and those where it began. If none were found
    /// and not all of history was searched, the request is refused, since the object may exist.
    pub(super) async fn story(&self, about: ExplainScope, what: String) -> Result<(Vec<HistoryRecord>, UnreadHistory), Error> {
        self.question(move |look| {
            let (records, seen) = about.story(look)?;
            if records.is_empty() {
                look.saw_all(&what)?;
            }
            Ok((records, seen))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use mayfly_ledger::record::{Author, GenerationBegun, TaskOpened};

    use super::*;

    fn past(seq: u64, event: Event) -> HistoryRecord {
        let record = Record::new(Author::Mayfly("test".into()), event);
        HistoryRecord { seq: Seq::from_u64(seq).unwrap(), at: Millis(0), position: seq, record }
    }

    /// A restore revoked what came before it. Of an object of the new generation it says nothing.
    #[test]
    fn a_generation_that_began_before_the_object_is_no_part_of_its_story() {
        let id = TaskId::from_bytes([7; 16]);
        let begun = |seq, generation| past(seq, Event::GenerationBegun(GenerationBegun { generation, ..Default::default() }));
        let opened = past(20, Event::TaskOpened(Box::new(TaskOpened { task: id.as_bytes().to_vec(), ..Default::default() })));
        for from in [Seq::ZERO, Seq::from_u64(20).unwrap()] {
            let mut records = vec![begun(10, 2), opened.clone(), begun(30, 3)];
            ExplainScope { path: vec![id], from, ..ExplainScope::default() }.drop_earlier_generations(&mut records);
            assert_eq!(records.iter().map(|past| past.seq.as_u64()).collect::<Vec<_>>(), [20, 30]);
        }
        // Without the beginning of the object nothing is left out.
        let mut records = vec![begun(10, 2)];
        ExplainScope { path: vec![id], ..ExplainScope::default() }.drop_earlier_generations(&mut records);
        assert_eq!(records.len(), 1);
    }
}
