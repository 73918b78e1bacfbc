//! JSON and table forms of a blast radius.

use serde::Serialize;

use super::{HitsView, shown_word, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A blast radius, as `blast-radius` prints it.
#[derive(Serialize, Debug)]
pub struct BlastRadius {
    pub hits: HitsView,
    pub made_elsewhere: u64,
    pub last_ends_at: Option<String>,
    pub sorts: Vec<HitGroupView>,
}

/// The hits of one kind.
#[derive(Serialize, Debug)]
pub struct HitGroupView {
    pub of: String,
    pub count: u64,
    pub items: Vec<HitView>,
}

/// One hit.
#[derive(Serialize, Debug, Clone)]
pub struct HitView {
    pub of: String,
    pub name: String,
    pub credentials: u64,
}

impl From<pb::BlastRadiusResponse> for BlastRadius {
    fn from(r: pb::BlastRadiusResponse) -> BlastRadius {
        let sort = |s: pb::BlastSort| {
            let of = shown_word!(pb::BlastOf, "BLAST_OF_", s.of);
            let item = |i: pb::BlastItem| HitView { of: of.clone(), name: i.name, credentials: i.credentials };
            HitGroupView { count: s.count, items: s.items.into_iter().map(item).collect(), of: of.clone() }
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
    pub fn rows(&self) -> Vec<HitView> {
        self.sorts.iter().flat_map(|sort| sort.items.iter().cloned()).collect()
    }
}

impl Printable for BlastRadius {
    fn name(&self) -> String {
        self.rows().iter().map(Printable::name).collect::<Vec<_>>().join("\n")
    }
}

impl Printable for HitView {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for HitView {
    const COLUMNS: &'static [&'static str] = &["WHAT", "NAME", "CREDENTIALS"];

    fn cells(&self) -> Vec<String> {
        vec![self.of.clone(), self.name.clone(), self.credentials.to_string()]
    }
}
