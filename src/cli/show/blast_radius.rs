//! The hits of a blast radius.

use serde::Serialize;

use super::printed;
use crate::out::tree::OrderedJson;

/// One hit.
#[derive(Serialize)]
pub struct BlastHit(OrderedJson);

impl BlastHit {
    /// The hits of a blast radius, by kind of target.
    pub fn all(radius: &OrderedJson) -> Vec<BlastHit> {
        radius.at("sorts.items").into_iter().flat_map(OrderedJson::elements).cloned().map(BlastHit).collect()
    }

    fn json(&self) -> &OrderedJson {
        &self.0
    }
}

printed!(BlastHit, hit, "name", ["WHAT": "of", "NAME": "name", "CREDENTIALS": "credentials"], []);
