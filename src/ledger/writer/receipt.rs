//! Receipts: proof that records are durable, in order, and found valid by the fold.

use std::sync::Arc;

use crate::commit::EncodedRecord;
use crate::record::{Event, Record};
use mayfly_store::Position;
use mayfly_verify::seq::{CredentialId, Millis, Seq};

/// The ledger's receipt for a group of records, given after its durable commit. An answer can be made of nothing else, and a receipt allows
/// only the answer that belongs to its records.
#[derive(Debug)]
pub struct Receipt {
    first: Seq,
    issues: IssuedIds,
    position: Position,
    time: Millis,
}

/// The credential that each record of a group issues, if any.
#[derive(Debug, Clone)]
pub(crate) enum IssuedIds {
    One(Option<CredentialId>),
    Each(Arc<[Option<CredentialId>]>),
}

pub(crate) fn issued_by(record: &Record) -> Option<CredentialId> {
    match &record.event {
        Some(Event::Issued(issued)) => CredentialId::from_slice(&issued.credential),
        _ => None,
    }
}

impl IssuedIds {
    pub(crate) fn of(group: &[EncodedRecord]) -> IssuedIds {
        match group {
            [one] => IssuedIds::One(one.issues()),
            _ => IssuedIds::Each(group.iter().map(EncodedRecord::issues).collect()),
        }
    }

    fn as_slice(&self) -> &[Option<CredentialId>] {
        match self {
            IssuedIds::One(one) => std::slice::from_ref(one),
            IssuedIds::Each(all) => all,
        }
    }
}

impl Receipt {
    pub(crate) fn new(first: Seq, issues: IssuedIds, position: Position, time: Millis) -> Receipt {
        Receipt { first, issues, position, time }
    }

    /// The seq of the group's first record.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The seq of the group's last record.
    pub fn seq(&self) -> Seq {
        self.seq_of(usize::MAX)
    }

    /// The seq of the group's record number `n`, from 0; of the last one if `n` is too large.
    pub fn seq_of(&self, n: usize) -> Seq {
        let n = n.min(self.issues.as_slice().len().saturating_sub(1));
        // The records of one group are consecutive in one commit of one generation.
        Seq::from_u64(self.first.as_u64() + n as u64).unwrap_or(self.first)
    }

    /// The receipt of the group's record number `n` alone.
    pub fn of(&self, n: usize) -> Receipt {
        let issues = IssuedIds::One(self.issues.as_slice().get(n).copied().flatten());
        Receipt { first: self.seq_of(n), issues, position: self.position, time: self.time }
    }

    /// The credential that the group's last record issues.
    pub fn issued(&self) -> Option<CredentialId> {
        self.issues.as_slice().last().copied().flatten()
    }

    /// The position of the commit.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The time of the commit.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// A receipt made without a ledger, for tests.
    #[cfg(any(test, debug_assertions, feature = "testing"))]
    pub fn for_test(first: Seq, records: &[Record]) -> Receipt {
        Receipt::new(first, IssuedIds::Each(records.iter().map(issued_by).collect()), 1, Millis(0))
    }

    /// The receipt of an issuance, for tests.
    #[cfg(any(test, debug_assertions, feature = "testing"))]
    pub fn of_test(issued: CredentialId) -> Receipt {
        Receipt::new(Seq::ZERO, IssuedIds::One(Some(issued)), 1, Millis(0))
    }
}
