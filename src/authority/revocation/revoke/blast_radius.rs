//! The names that a revocation would affect: upstreams, workloads, owners, tasks, tools, environments.

use std::collections::BTreeMap;

use super::RevocationHits;
use super::hits::HitCounter;
use crate::authority::Authority;
use mayfly_base::refusal::Error;
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::{LiveCredential, Task};
use mayfly_verify::seq::Millis;

/// The sorts of affected names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AffectedKind {
    /// Upstreams.
    Upstream,
    /// Workloads.
    Caller,
    /// Owners of tasks, including those of parent tasks.
    Owner,
    /// Tasks.
    Task,
    /// Tools.
    Tool,
    /// Environments.
    Environment,
}

/// The affected callers, upstreams and other objects by name, with the number of live credentials of each.
#[derive(Clone, Debug, Default)]
pub struct RevocationRadius {
    /// The totals.
    pub hits: RevocationHits,
    /// By sort and name.
    pub by: BTreeMap<AffectedKind, BTreeMap<Box<str>, u64>>,
    /// When the last of these credentials expires.
    pub ends: Option<Millis>,
}

impl RevocationRadius {
    pub(super) fn add(&mut self, live: &LiveCredential<'_>, task: &Task) {
        let id = task.terms.id.to_string();
        let mut names = vec![
            (AffectedKind::Upstream, live.upstream()),
            (AffectedKind::Caller, live.caller()),
            (AffectedKind::Task, &*id),
            (AffectedKind::Environment, live.environment()),
        ];
        if !live.tool().is_empty() {
            names.push((AffectedKind::Tool, live.tool()));
        }
        let mut owners: Vec<String> = task.terms.owners.iter().map(mayfly_ledger::record::Principal::name).collect();
        owners.sort_unstable();
        owners.dedup();
        names.extend(owners.iter().map(|name| (AffectedKind::Owner, name.as_str())));
        for (of, name) in names {
            let names = self.by.entry(of).or_default();
            match names.get_mut(name) {
                Some(count) => *count += 1,
                None => drop(names.insert(name.into(), 1)),
            }
        }
        self.ends = self.ends.max(Some(live.expires_at()));
    }

    /// The number of names of a sort, and the names with the most credentials first.
    pub fn most(&self, of: AffectedKind, most: usize) -> (u64, Vec<(&str, u64)>) {
        let Some(names) = self.by.get(&of) else { return (0, Vec::new()) };
        let mut all: Vec<(&str, u64)> = names.iter().map(|(name, count)| (&**name, *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all.truncate(most);
        (names.len() as u64, all)
    }
}

impl Authority {
    /// The objects that a revocation of these targets would affect, by name. Visits the live credentials in pieces, so that issuing goes
    /// on.
    pub async fn blast_radius(&self, targets: &[Target]) -> Result<RevocationRadius, Error> {
        let count = self.walked(HitCounter::ahead(targets).with_radius()).await?;
        let (hits, radius) = count.radius();
        Ok(RevocationRadius { hits, ..radius })
    }
}
