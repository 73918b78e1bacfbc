//! The policies that can say something about a caller and a resource. Cedar looks at every policy that it is given; of two hundred, a
//! caller's roles and the resource leave a few.
//!
//! Which they are is asked of Cedar itself, with the stems of all policies of the action, and remembered under what stems read. What Cedar
//! then needs of the caller and the resource is remembered too, under all that the action's policies read of them. A policy is left out
//! only if its stem is false without an error: then it is false itself, so it is no reason, no error, and no part of a verdict.

use std::sync::Arc;

use cedar_policy::{Entity, Policy, PolicyId, PolicySet};
use moka::sync::Cache;

use super::ADMIN;
use super::cache::{write_facts, write_text};
use super::cedar::{Asked, Sides, Types, Verdict, ask, holding, sides};
use super::facts::Case;
use super::reads::{Read, Reads};
use super::stem::Stems;
use crate::limits;

/// The policies that can apply to one action, and what they read.
pub(super) struct Part {
    action: Entity,
    pub reads: Reads,
    held: Vec<Held>,
    whole: Arc<Slice>,
    stems: Stems,
    /// What stems read of the caller and the resource, and of nothing else.
    stem_reads: Vec<Read>,
}

/// A policy, and what it reads.
struct Held {
    id: PolicyId,
    policy: Policy,
    reads: Reads,
}

/// Some policies of a part, and what they read of caller and resource, and of the context.
struct Slice {
    policies: PolicySet,
    entity: Vec<Read>,
    context: Vec<Read>,
}

impl Slice {
    fn of<'h>(held: impl Iterator<Item = &'h Held>) -> Result<(Slice, Reads), String> {
        let (mut policies, mut reads) = (Vec::new(), Reads::default());
        for one in held {
            policies.push(one.policy.clone());
            reads.join(&one.reads);
        }
        let policies = PolicySet::from_policies(policies).map_err(|e| e.to_string())?;
        let (entity, context) = reads.split();
        Ok((Slice { policies, entity, context }, reads))
    }
}

impl Part {
    /// From the policies of an action.
    pub fn new<'p>(action: Entity, policies: impl Iterator<Item = &'p Policy>) -> Result<Part, String> {
        let (mut held, mut stems) = (Vec::new(), Stems::default());
        for policy in policies {
            let (id, tree, mut reads) = (policy.id().clone(), policy.to_pst().map_err(|e| e.to_string())?, Reads::default());
            reads.add(tree.body());
            stems.add(&id, tree.body());
            held.push(Held { id, policy: policy.clone(), reads });
        }
        let (whole, reads) = Slice::of(held.iter())?;
        let (stem_reads, _) = stems.reads.split();
        Ok(Part { action, reads, held, whole: Arc::new(whole), stems, stem_reads })
    }

    /// Asks Cedar about every policy.
    pub fn evaluate_whole(&self, types: &Types, case: &Case<'_>) -> Verdict {
        match self.ready(types, self.whole.clone(), case) {
            Ok(ready) => ready.ask(case),
            Err(what) => Verdict::EngineError { what },
        }
    }

    fn ready(&self, types: &Types, slice: Arc<Slice>, case: &Case<'_>) -> Result<Ready, String> {
        let sides = sides(types, &self.action, &slice.entity, case, None)?;
        Ok(Ready { slice, sides })
    }

    /// The policies whose stem holds or fails, and those without one.
    fn slice(&self, types: &Types, case: &Case<'_>) -> Result<Slice, String> {
        let sides = sides(types, &self.action, &self.stem_reads, case, None)?;
        let kept = holding(&Asked { policies: &self.stems.policies, sides: &sides, context: &[] }, case)?;
        let of = self.held.iter().filter(|held| kept.contains(&held.id) || self.stems.without.contains(&held.id));
        Slice::of(of).map(|(slice, _)| slice)
    }
}

/// A slice with the caller and the resource that it is asked about.
struct Ready {
    slice: Arc<Slice>,
    sides: Sides,
}

impl Ready {
    fn ask(&self, case: &Case<'_>) -> Verdict {
        ask(&Asked { policies: &self.slice.policies, sides: &self.sides, context: &self.slice.context }, case, None)
    }
}

type Key = Box<[u8]>;

/// Slices of one set, remembered.
pub(super) struct Slices {
    /// Under what stems read.
    slices: Cache<Key, Arc<Slice>>,
    /// Under the names of caller and resource, and all that the part reads of them: more than its stems, and than any slice.
    ready: Cache<Key, Arc<Ready>>,
}

impl Slices {
    pub fn new() -> Slices {
        #[allow(clippy::borrowed_box, reason = "moka hands out its key as it is stored")]
        let slice = |key: &Key, slice: &Arc<Slice>| {
            let policies = slice.policies.num_of_policies() + 1;
            u32::try_from(key.len() + policies * limits::SLICE_POLICY_BYTES).unwrap_or(u32::MAX)
        };
        #[allow(clippy::borrowed_box, reason = "moka hands out its key as it is stored")]
        let ready = |key: &Key, _: &Arc<Ready>| u32::try_from(2 * key.len() + limits::SIDES_BYTES).unwrap_or(u32::MAX);
        Slices {
            slices: Cache::builder().max_capacity(limits::SLICE_CACHE_BYTES).weigher(slice).build(),
            ready: Cache::builder().max_capacity(limits::SIDES_CACHE_BYTES).weigher(ready).build(),
        }
    }

    /// Asks Cedar about the policies that can say something.
    pub fn evaluate(&self, types: &Types, part: &Part, case: &Case<'_>) -> Verdict {
        match self.ready(types, part, case) {
            Ok(ready) => ready.ask(case),
            Err(what) => Verdict::EngineError { what },
        }
    }

    /// Ids of the policies that can say something, sorted.
    #[cfg(test)]
    pub fn ids(&self, types: &Types, part: &Part, case: &Case<'_>) -> Vec<String> {
        let ready = self.ready(types, part, case).unwrap_or_else(|what| panic!("{what}"));
        let mut ids: Vec<String> = ready.slice.policies.policies().map(|policy| policy.id().to_string()).collect();
        ids.sort_unstable();
        ids
    }

    fn ready(&self, types: &Types, part: &Part, case: &Case<'_>) -> Result<Arc<Ready>, String> {
        let mut key = key(part.whole.entity.iter(), case);
        write_text(&mut key, case.question.caller.as_str());
        write_text(&mut key, case.question.upstream().map_or(ADMIN, |upstream| &upstream.name));
        if let Some(known) = self.ready.get(key.as_slice()) {
            return Ok(known);
        }
        let ready = Arc::new(part.ready(types, self.slice(types, part, case)?, case)?);
        if key.len() <= limits::VERDICT_KEY_BYTES {
            self.ready.insert(key.into_boxed_slice(), ready.clone());
        }
        Ok(ready)
    }

    fn slice(&self, types: &Types, part: &Part, case: &Case<'_>) -> Result<Arc<Slice>, String> {
        let key = key(part.stem_reads.iter(), case);
        if key.len() > limits::VERDICT_KEY_BYTES {
            // It could not be remembered, and making one costs what it saves.
            return Ok(part.whole.clone());
        }
        if let Some(known) = self.slices.get(key.as_slice()) {
            return Ok(known);
        }
        let slice = Arc::new(part.slice(types, case)?);
        self.slices.insert(key.into_boxed_slice(), slice.clone());
        Ok(slice)
    }
}

fn key<'r>(reads: impl Iterator<Item = &'r Read>, case: &Case<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(256);
    key.push(case.question.action().number());
    write_facts(&mut key, reads, case);
    key
}

#[cfg(test)]
mod tests {
    use super::super::{Ask, PolicySet as Set, Question, Work, sample};

    #[test]
    fn of_two_hundred_policies_a_caller_and_an_upstream_leave_a_few() {
        let (policies, roles) = sample::some(200);
        let set = Set::compile(policies, roles).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        let (upstream, ask) = (sample::upstream("billing").unwrap(), Ask::default());
        let ids = |team: &str| {
            let caller = sample::agent(team, 1).unwrap();
            let case = set.case(&Question::work(&caller, Work::Exchange, &upstream, &ask));
            set.sliced_ids(&case)
        };
        let general = ["agents-list-billing", "billing-admin-is-for-leads", "no-sensitive-scope-without-a-tool"];
        let mut own = [&general[..], &["billing-reads", "billing-writes-with-a-tool"]].concat();
        own.sort_unstable();
        assert_eq!(ids("billing"), own);
        assert_eq!(ids("search"), general);
        assert_eq!(ids("billing"), own, "another caller's slice is not ours");
    }
}
