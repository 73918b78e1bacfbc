//! Records reads of the audit in the audit itself.
//!
//! A read is answered once its record is durable, so that nobody reads the audit unseen. While the ledger accepts no records (its disk is
//! full or stalled, or it cannot be written), a read is answered all the same, since operators have to investigate then. The read is
//! counted (`mayfly_audit_reads_unrecorded`) and logged instead.
//!
//! The rate is bounded. The first few different questions of one reader and one kind in a minute have a record each. Repeated questions,
//! such as the next page, and all further questions share one record, which is written when the minute is over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::authority::Authority;
use mayfly_base::document::terminal_text::{cut, stripped};
use mayfly_base::limits;
use mayfly_base::refusal::Reason;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{AuditRead, AuditReadKind, Author, Event, Record};
use mayfly_verify::seq::Millis;

/// Reads of one kind by one reader in a minute.
struct Minute {
    who: Author,
    of: AuditReadKind,
    number: u64,
    /// Questions that have a record of their own.
    recorded: Vec<String>,
    /// Reads that are counted and not yet recorded.
    counted: AuditRead,
}

/// The audit reads of a server.
#[derive(Default)]
pub struct AuditReads {
    minutes: Mutex<HashMap<(String, AuditReadKind), Minute>>,
    unrecorded: AtomicU64,
}

impl Minute {
    fn new(who: Author, of: AuditReadKind, number: u64) -> Minute {
        Minute { who, of, number, recorded: Vec::new(), counted: AuditRead::default() }
    }

    /// Counts a read. Returns whether the read gets its own record.
    fn read(&mut self, asked: &str, returned: u64, now: Millis) -> bool {
        if self.recorded.len() < limits::AUDIT_READS_RECORDED && !self.recorded.iter().any(|known| known == asked) {
            self.recorded.push(asked.to_owned());
            return true;
        }
        let counted = &mut self.counted;
        if counted.since == 0 {
            counted.since = now.0;
        }
        counted.reads += 1;
        counted.returned += returned;
        if counted.asked.len() < limits::AUDIT_READS_RECORDED && !counted.asked.iter().any(|known| known == asked) {
            counted.asked.push(asked.to_owned());
        }
        false
    }

    /// The record of the counted reads, if there are any.
    fn into_record(self) -> Option<Record> {
        let counted = AuditRead { of: self.of as i32, ..self.counted };
        (counted.reads > 0 || counted.returned > 0).then(|| Record::new(self.who, Event::AuditRead(counted)))
    }
}

impl AuditReads {
    /// The number of reads since the server started that have no record.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Relaxed)
    }

    /// Notes a read. Returns the records to be written, and whether the last of them is the read's own record.
    fn note(&self, (who, of): (&Author, AuditReadKind), asked: &str, returned: u64, now: Millis) -> (Vec<Record>, bool) {
        let (number, key) = (now.0 / 60_000, (who.name(), of));
        let mut minutes = self.minutes.lock();
        let mut due = Vec::new();
        let over = minutes.get(&key).is_some_and(|minute| minute.number != number);
        let full = minutes.len() >= limits::AUDIT_READERS && !minutes.contains_key(&key);
        let gone = if over {
            minutes.remove(&key)
        } else if full {
            // The minute that began first makes room for the new reader.
            let oldest = minutes.iter().min_by_key(|(_, minute)| minute.number).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| minutes.remove(&oldest))
        } else {
            None
        };
        due.extend(gone.and_then(Minute::into_record));
        let minute = minutes.entry(key).or_insert_with(|| Minute::new(who.clone(), of, number));
        let own = minute.read(asked, returned, now);
        if own {
            let read = AuditRead { of: of as i32, asked: vec![asked.to_owned()], reads: 1, returned, since: now.0 };
            due.push(Record::new(who.clone(), Event::AuditRead(read)));
        }
        (due, own)
    }

    /// Adds the number of records of a read that took its time and was counted when it began.
    fn note_end(&self, (who, of): (&Author, AuditReadKind), returned: u64, now: Millis) {
        let mut minutes = self.minutes.lock();
        let key = (who.name(), of);
        // Another minute, and its place is taken: the number belongs to no record any more.
        if minutes.len() >= limits::AUDIT_READERS && !minutes.contains_key(&key) {
            return;
        }
        let minute = minutes.entry(key).or_insert_with(|| Minute::new(who.clone(), of, now.0 / 60_000));
        if minute.counted.since == 0 {
            minute.counted.since = now.0;
        }
        minute.counted.returned += returned;
    }

    /// The records of reads that were counted in minutes that are over.
    fn over(&self, now: Millis) -> Vec<Record> {
        let number = now.0 / 60_000;
        let mut minutes = self.minutes.lock();
        let over: Vec<_> = minutes.iter().filter(|(_, minute)| minute.number != number).map(|(key, _)| key.clone()).collect();
        over.iter().filter_map(|key| minutes.remove(key)?.into_record()).collect()
    }
}

impl Authority {
    /// Notes a read of the audit. Its record is durable when this call returns, if the ledger accepts records. `asked` is the question,
    /// which never contains a token. The result says whether the read has a record of its own.
    pub async fn audit_read(&self, who: &Author, of: AuditReadKind, asked: &str, returned: u64) -> bool {
        let asked = cut(&stripped(asked), limits::AUDIT_ASKED_BYTES);
        let (mut due, own) = self.audit_reads.note((who, of), &asked, returned, self.system.wall());
        let last = if own { due.pop() } else { None };
        due.into_iter().for_each(|record| self.propose_read(record));
        if let Some(last) = last {
            self.write_read(last).await;
        }
        own
    }

    /// Notes the number of records that a long read returned: in a record, if the read has one of its own, otherwise with the counts.
    pub fn audit_read_over(&self, who: &Author, of: AuditReadKind, asked: &str, returned: u64, own: bool) {
        let now = self.system.wall();
        if !own {
            return self.audit_reads.note_end((who, of), returned, now);
        }
        let asked = vec![cut(&stripped(asked), limits::AUDIT_ASKED_BYTES)];
        let read = AuditRead { of: of as i32, asked, reads: 0, returned, since: now.0 };
        self.propose_read(Record::new(who.clone(), Event::AuditRead(read)));
    }

    /// Writes the counts of the minutes that are over. Called every second.
    pub fn write_audit_reads(&self) {
        self.audit_reads.over(self.system.wall()).into_iter().for_each(|record| self.propose_read(record));
    }

    /// Writes all counts, also of the current minute, when the server stops.
    pub fn write_last_audit_reads(&self) {
        self.audit_reads.over(Millis(u64::MAX)).into_iter().for_each(|record| self.propose_read(record));
    }

    /// Gives a record of counted reads to the writer. Nobody waits for it.
    fn propose_read(&self, record: Record) {
        let proposed = match self.takes_notes() {
            Ok(()) => self.ledger.propose(ProposalKind::Note, vec![record.clone()]).map(drop).map_err(|no| no.to_string()),
            Err(why) => Err(why),
        };
        if let Err(why) = proposed {
            self.unrecorded(&record, &why);
        }
    }

    /// Commits the record of a read within a bounded time, or counts and logs the read.
    async fn write_read(&self, record: Record) {
        if let Err(why) = self.note_in_time(record.clone()).await {
            self.unrecorded(&record, &why);
        }
    }

    fn unrecorded(&self, record: &Record, why: &str) {
        let Some(Event::AuditRead(read)) = &record.event else { return };
        self.audit_reads.unrecorded.fetch_add(read.reads.max(1), Relaxed);
        let (reader, asked, reads) = (record.author_text(), read.asked.join("; "), read.reads);
        tracing::warn!(reader, asked, reads, why, "the audit log was read, and the ledger accepts no record of the read");
    }

    /// Whether the ledger accepts records of reads and backups: the remaining space of a full disk is reserved for revocations.
    fn takes_notes(&self) -> Result<(), String> {
        let stopped = self.ledger.stopped().filter(|no| matches!(no.reason, Reason::DiskReserve | Reason::NotReady));
        stopped.map_or(Ok(()), |no| Err(no.to_string()))
    }

    /// Commits the record of an audit read or a backup within a bounded time, if the ledger accepts records.
    pub async fn note_in_time(&self, record: Record) -> Result<(), String> {
        self.takes_notes()?;
        let within = Duration::from_millis(limits::AUDIT_READ_MS);
        match tokio::time::timeout(within, self.ledger.commit(ProposalKind::Change, vec![record])).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(no)) => Err(no.to_string()),
            Err(_) => Err("it was not durable in time, and may yet be".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(record: &Record) -> AuditRead {
        match &record.event {
            Some(Event::AuditRead(read)) => read.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn different_questions_have_records_and_the_same_again_is_counted_until_the_minute_is_over() {
        let (reads, who) = (AuditReads::default(), Author::LocalUid(1000));
        let at = |ms: u64| Millis(600_000 + ms);
        let note = |asked: &str, ms: u64| reads.note((&who, AuditReadKind::Search), asked, 5, at(ms));
        let (due, own) = note("event=revoked", 0);
        assert!(own && due.len() == 1 && read(&due[0]).asked == ["event=revoked"]);
        for page in 1..4 {
            assert_eq!(note("event=revoked", page), (Vec::new(), false), "the next page");
        }
        assert!(note("names=x", 10).1, "another question");
        assert!(reads.note((&who, AuditReadKind::Explain), "seq 4", 1, at(11)).1, "another sort");
        assert!(reads.over(at(59_000)).is_empty());
        let over: Vec<AuditRead> = reads.over(at(60_000)).iter().map(read).collect();
        let counted = AuditRead {
            of: AuditReadKind::Search as i32,
            asked: vec!["event=revoked".into()],
            reads: 3,
            returned: 15,
            since: at(1).0,
        };
        assert_eq!(over, [counted]);
        assert!(note("event=revoked", 60_001).1, "another minute");
    }

    #[test]
    fn a_reader_that_asks_without_end_makes_a_bounded_number_of_records_and_none_is_lost() {
        let (reads, who) = (AuditReads::default(), Author::LocalUid(1000));
        let mut written: Vec<Record> = Vec::new();
        for n in 0..1_000u64 {
            written.extend(reads.note((&who, AuditReadKind::Explain), &format!("seq {n}"), 1, Millis(1_000 + n)).0);
        }
        assert_eq!(written.len(), limits::AUDIT_READS_RECORDED);
        written.extend(reads.over(Millis(60_000)));
        assert_eq!(written.len(), limits::AUDIT_READS_RECORDED + 1);
        let counted = read(written.last().unwrap());
        assert_eq!(
            (counted.asked.len(), written.iter().map(|r| read(r).reads).sum::<u64>()),
            (limits::AUDIT_READS_RECORDED, 1_000)
        );
        // A looped export has one record at its beginning, one at its end, and one for all others of the minute.
        let reads = AuditReads::default();
        let all: Vec<bool> = (0..100).map(|_| reads.note((&who, AuditReadKind::Export), "everything", 0, Millis(1)).1).collect();
        assert_eq!(all.iter().filter(|own| **own).count(), 1);
        all.iter().filter(|own| !**own).for_each(|_| reads.note_end((&who, AuditReadKind::Export), 7, Millis(2)));
        let over: Vec<_> = reads.over(Millis(60_000)).iter().map(|record| (read(record).reads, read(record).returned)).collect();
        assert_eq!(over, [(99, 99 * 7)]);
        // Many readers do not exceed the limit either: the counted reads of the oldest one are written.
        let reads = AuditReads::default();
        let mut written = 0;
        for n in 0..2 * limits::AUDIT_READERS as u32 {
            for _ in 0..2 {
                written += reads.note((&Author::LocalUid(n), AuditReadKind::Search), "all", 1, Millis(1)).0.len();
            }
        }
        assert_eq!(reads.minutes.lock().len(), limits::AUDIT_READERS);
        assert_eq!(written + reads.over(Millis(60_000)).len(), 4 * limits::AUDIT_READERS);
    }
}
