//! Why a task takes no grants: it is held, or over.

use serde::{Deserialize, Serialize};

use crate::ledger::record::{HoldRank, Outcome, Who};
use crate::seq::{Millis, Seq};

/// Why a task is held, one per rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who holds it.
    pub rank: HoldRank,
    /// Why.
    pub reason: Box<str>,
    /// The seq of its record.
    pub seq: Seq,
    /// Its author.
    pub by: Option<Box<Who>>,
    /// Since when.
    pub since: Millis,
}

impl Hold {
    /// Whether a resumption by this rank, decided on a view up to `revision`, ends it: never one that it did not see.
    pub fn lifted_by(&self, rank: HoldRank, revision: Seq) -> bool {
        self.rank <= rank && self.seq <= revision
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// How.
    pub outcome: Outcome,
    /// Why.
    pub reason: Box<str>,
    /// When.
    pub at: Millis,
    /// The seq of its record.
    pub seq: Seq,
    /// Who ended it.
    pub by: Option<Box<Who>>,
}
