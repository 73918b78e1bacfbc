//! Verification of the server's own ledger: the chain of headers, the roots, and that the tree contains each commit.

use std::collections::BTreeMap;

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Refusal};
use mayfly_ledger::Ledger;
use mayfly_ledger::commit::{EncodedCommit, Hash, WriterHead, sha256};
use mayfly_ledger::reader::history::ScanEnd;
use mayfly_ledger::reader::history_query::CancelFlag;
use mayfly_ledger::reader::log_reader::{LogCursor, last_seq_of};
use mayfly_verify::seq::{Millis, Seq};

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerVerification {
    /// The number of verified records.
    pub records: u64,
    /// The sequence number up to which was verified.
    pub to: Seq,
    /// The first sequence number that cannot be trusted, and the error there.
    pub broken: Option<(Seq, String)>,
    /// The durable head at the beginning.
    pub head: Seq,
}

impl Authority {
    /// Verifies from one sequence number to another; zero stands for the oldest that is kept and for the head. One call reads a bounded
    /// amount.
    pub async fn verify(&self, from: Seq, to: Seq) -> Result<LedgerVerification, Error> {
        let permit = self.one_question().await?;
        let (end, removed) =
            self.ledger.settled(|s| (LogCursor { position: s.position + 1, seq: s.head }, s.removed.clone())).await?;
        if from > end.seq {
            return Err(Error::Refusal(Refusal::field("from_seq", format!("is beyond the head, which is {}", end.seq))));
        }
        let to = if to == Seq::ZERO { end.seq } else { to };
        if to < from {
            return Err(Error::Refusal(Refusal::field("to_seq", "is before from_seq")));
        }
        let (ledger, (stop, _waiting)) = (self.ledger.clone(), CancelFlag::waiting());
        let verified = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let oldest = removed.oldest();
            let before = Seq::from_u64(from.as_u64().saturating_sub(1)).unwrap_or(Seq::ZERO);
            let place = if before <= oldest.seq {
                if from > Seq::ZERO && from < oldest.seq {
                    return Err(super::gone(before, ScanEnd::Removed(oldest.seq)));
                }
                oldest
            } else {
                match ledger.place_of(before, end)? {
                    Ok(place) => place,
                    Err(ScanEnd::Beginning) => oldest,
                    Err(reached) => return Err(super::gone(before, reached)),
                }
            };
            let chains = if place == oldest { removed.chains } else { BTreeMap::new() };
            let begins = place.position == 1;
            let mut walk = Walk {
                ledger: &ledger,
                stop,
                place,
                chains,
                begins,
                out: LedgerVerification { to: place.seq, head: end.seq, ..LedgerVerification::default() },
            };
            walk.run(to, end.position)?;
            Ok(walk.out)
        });
        verified.await.map_err(|e| Fault::new(format!("verifying: {e}")))?
    }
}

struct Walk<'a> {
    ledger: &'a Ledger,
    stop: CancelFlag,
    place: LogCursor,
    chains: BTreeMap<u32, WriterHead>,
    /// Verification starts at the very first commit, where the chain begins.
    begins: bool,
    out: LedgerVerification,
}

impl Walk<'_> {
    fn run(&mut self, to: Seq, end: u64) -> Result<(), Fault> {
        let store = self.ledger.store();
        let mut read = 0;
        while self.place.position < end && self.place.seq < to && read < limits::VERIFY_CALL_BYTES && !self.stop.stopped() {
            let failed = |e| Fault::new(format!("reading commit {}: {e}", self.place.position));
            let entries = match store.read(self.place.position, limits::READER_BYTES) {
                Ok(entries) => entries,
                Err(mayfly_store::StoreError::Damaged { what, .. }) => return self.broken(what),
                Err(error) => return Err(failed(error)),
            };
            if entries.is_empty() {
                return self.broken(format!("commit {} is missing", self.place.position));
            }
            for entry in entries {
                if self.place.position >= end || self.place.seq >= to {
                    break;
                }
                read += entry.bytes.len();
                if let Err(what) = self.one(entry.at, &entry.bytes) {
                    return self.broken(what);
                }
            }
        }
        Ok(())
    }

    /// Records that nothing from here on can be trusted. That is a result, not a failure.
    fn broken(&mut self, what: String) -> Result<(), Fault> {
        let next = self.place.seq.next().unwrap_or(self.place.seq);
        self.out.broken = Some((next, what));
        Ok(())
    }

    fn one(&mut self, at: u64, bytes: &bytes::Bytes) -> Result<(), String> {
        let place = self.place.position;
        if at != place {
            return Err(format!("commit {place} is missing"));
        }
        let named = |e| format!("commit {place}: {e}");
        let commit = EncodedCommit::from_bytes(bytes).map_err(named)?;
        let header = &commit.header;
        let known = self.chains.get(&header.writer).copied().or(self.begins.then_some(WriterHead::START));
        if let Some(after) = known.filter(|after| header.number != after.number + 1 || header.previous != after.hash) {
            return Err(format!("commit {place}: it does not continue commit {} of writer {}", after.number, header.writer));
        }
        for n in 0..commit.records.len() {
            commit.record(n).map_err(named)?;
        }
        let leaf: Option<Hash> = self.ledger.tree(|tree| tree.node((0, place - 1)).ok()).unwrap_or(None);
        if leaf.is_some_and(|leaf| leaf != commit.leaf()) {
            return Err(format!("commit {place}: it is not the one that the tree of checkpoints has"));
        }
        let hash = sha256(&commit.header_bytes);
        self.chains.insert(header.writer, WriterHead { number: header.number, hash, time: Millis(header.time) });
        let last = last_seq_of(&commit, self.place.seq).map_err(named)?;
        self.place = LogCursor { position: place + 1, seq: last };
        self.out.records += commit.records.len() as u64;
        self.out.to = last;
        Ok(())
    }
}
