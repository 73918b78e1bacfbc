//! JSON and table forms of a blast radius.

use serde::Serialize;

use super::{Hits, shown_word, time};
use crate::out::{Noun, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A blast radius, as `blast-radius` prints it.
#[derive(Serialize, Debug)]
pub struct BlastRadius {
    pub hits: Hits,
    pub made_elsewhere: u64,
    pub last_ends_at: Option<String>,
    pub sorts: Vec<Sort>,
}

/// The hits of one kind.
#[derive(Serialize, Debug)]
pub struct Sort {
    pub of: String,
    pub count: u64,
    pub items: Vec<Item>,
}

/// One hit.
#[derive(Serialize, Debug, Clone)]
pub struct Item {
    pub of: String,
    pub name: String,
    pub credentials: u64,
}

impl From<pb::BlastRadiusResponse> for BlastRadius {
    fn from(r: pb::BlastRadiusResponse) -> BlastRadius {
        let sort = |s: pb::BlastSort| {
            let of = shown_word!(pb::BlastOf, "BLAST_OF_", s.of);
            let item = |i: pb::BlastItem| Item { of: of.clone(), name: i.name, credentials: i.credentials };
            Sort { count: s.count, items: s.items.into_iter().map(item).collect(), of: of.clone() }
        };
        BlastRadius {
            hits: r.hits.into(),
            made_elsewhere: r.made_elsewhere,
            last_ends_at: time(r.last_ends_at),
            sorts: r.sorts.into_iter().map(sort).collect(),
        }
    }
}

impl BlastRadius {
    /// All hits, one row each.
    pub fn rows(&self) -> Vec<Item> {
        self.sorts.iter().flat_map(|sort| sort.items.iter().cloned()).collect()
    }
}

impl Noun for BlastRadius {
    fn name(&self) -> String {
        self.rows().iter().map(Noun::name).collect::<Vec<_>>().join("\n")
    }
}

impl Noun for Item {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Item {
    const COLUMNS: &'static [&'static str] = &["WHAT", "NAME", "CREDENTIALS"];

    fn cells(&self) -> Vec<String> {
        vec![self.of.clone(), self.name.clone(), self.credentials.to_string()]
    }
}
