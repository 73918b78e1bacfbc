//! Tasks in a tree, and parts of tasks.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Shown, joined};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// The upstreams and scopes that a task may get credentials for.
pub fn allowances<'a>(of: impl IntoIterator<Item = &'a pb::Allowance>) -> String {
    joined(of.into_iter().map(|a| format!("{}={}", a.upstream, a.scopes.join(","))), " ")
}

/// The id of the task above a task; empty if there is none.
pub fn parent(task: &pb::Task) -> &str {
    task.path.iter().rev().nth(1).map_or("", String::as_str)
}

/// A task in a tree of tasks.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Branch {
    task: Shown<pb::Task>,
    /// The depth below the first task.
    #[serde(skip)]
    below: usize,
}

impl Branch {
    /// Sorts each task below its parent, and siblings by age, oldest first.
    pub fn sorted(mut tasks: Vec<pb::Task>) -> Vec<Branch> {
        let seqs: BTreeMap<String, u64> = tasks.iter().map(|t| (t.task_id.clone(), t.seq)).collect();
        // The place of a parent that is not listed is unknown; its children are still kept next to each other.
        let place = |t: &pb::Task| -> Vec<(u64, String)> {
            t.path.iter().map(|id| (seqs.get(id).copied().unwrap_or(0), id.clone())).collect()
        };
        tasks.sort_by_cached_key(place);
        let top = tasks.iter().map(|t| t.path.len()).min().unwrap_or(0);
        tasks.into_iter().map(|task| Branch { below: task.path.len().saturating_sub(top), task: Shown(task) }).collect()
    }
}

impl Printable for Branch {
    fn name(&self) -> String {
        self.task.name()
    }
}

impl Row for Branch {
    const COLUMNS: &'static [&'static str] = Shown::<pb::Task>::COLUMNS;
    const WIDE: &'static [&'static str] = Shown::<pb::Task>::WIDE;

    fn cells(&self) -> Vec<String> {
        let mut cells = self.task.cells();
        if let Some(first) = cells.first_mut().filter(|_| self.below > 0) {
            *first = format!("{}└ {first}", "  ".repeat(self.below - 1));
        }
        cells
    }
}
