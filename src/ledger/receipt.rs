//! Proof that records are durable, in order, and found valid by the fold.

use crate::seq::{Millis, Seq};
use crate::store::Position;

/// What the ledger gives for a group of records after its durable commit. Nothing else makes an answer.
#[derive(Debug)]
pub struct Receipt {
    first: Seq,
    count: u32,
    position: Position,
    time: Millis,
}

impl Receipt {
    pub(in crate::ledger) fn new(first: Seq, count: u32, position: Position, time: Millis) -> Receipt {
        Receipt { first, count, position, time }
    }

    /// The seq of the group's first record.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The seq of the group's last record.
    pub fn seq(&self) -> Seq {
        self.seq_of(self.count.saturating_sub(1))
    }

    /// The seq of the group's record number `n`, from 0; of the last one for a number beyond.
    pub fn seq_of(&self, n: u32) -> Seq {
        let n = n.min(self.count.saturating_sub(1));
        // Records of one group are neighbours in one commit of one generation.
        Seq::from_u64(self.first.as_u64() + u64::from(n)).unwrap_or(self.first)
    }

    /// The receipt of the group's record number `n` alone.
    pub fn of(&self, n: usize) -> Receipt {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        Receipt { first: self.seq_of(n), count: 1, position: self.position, time: self.time }
    }

    /// The place of the commit.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The time of the commit.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// A receipt without a ledger, for tests of what comes after one.
    #[cfg(test)]
    pub(crate) fn for_test(first: Seq, count: u32) -> Receipt {
        Receipt::new(first, count, 1, Millis(0))
    }
}
