//! Slices: the policies that can apply to a caller and a resource. Cedar evaluates every policy that it is given; of two hundred policies,
//! a caller's roles and the resource typically leave a few.
//!
//! Cedar itself selects the slice by evaluating the scope conditions of all policies of the action. The slice is cached under the
//! attributes that these conditions read. The Cedar entities of caller and resource are cached as well, under all attributes that the
//! action's policies read of them. A policy is left out only if its scope conditions are false without an error. Such a policy is false
//! itself, so it contributes neither a reason nor an error to the verdict.

use std::sync::Arc;

use cedar_policy::{Entity, Policy, PolicyId, PolicySet};
use moka::sync::Cache;

use super::ADMIN;
use super::attribute_reads::{AttributeRead, AttributeReads};
use super::attributes::ResolvedQuestion;
use super::cedar::{EvaluationInput, PolicyVerdict, RequestEntities, SchemaTypes, ask, satisfied_policies, sides};
use super::scope_conditions::ScopeConditions;
use super::verdict_cache::{write_facts, write_text};
use mayfly_base::limits;

/// The policies that can apply to one action, and the attributes that they read.
pub(super) struct ActionPolicies {
    action: Entity,
    pub reads: AttributeReads,
    held: Vec<AnalyzedPolicy>,
    whole: Arc<PolicySlice>,
    scopes: ScopeConditions,
    /// The attributes of caller and resource that the scopes read. Stems read no other attributes.
    scope_reads: Vec<AttributeRead>,
}

/// A policy and the attributes that it reads.
struct AnalyzedPolicy {
    id: PolicyId,
    policy: Policy,
    reads: AttributeReads,
}

/// Some policies of a part, and the attributes that they read of caller and resource and of the context.
struct PolicySlice {
    policies: PolicySet,
    entity: Vec<AttributeRead>,
    context: Vec<AttributeRead>,
}

impl PolicySlice {
    fn of<'h>(held: impl Iterator<Item = &'h AnalyzedPolicy>) -> Result<(PolicySlice, AttributeReads), String> {
        let (mut policies, mut reads) = (Vec::new(), AttributeReads::default());
        for one in held {
            policies.push(one.policy.clone());
            reads.join(&one.reads);
        }
        let policies = PolicySet::from_policies(policies).map_err(|e| e.to_string())?;
        let (entity, context) = reads.split();
        Ok((PolicySlice { policies, entity, context }, reads))
    }
}

impl ActionPolicies {
    /// A part made of the policies of an action.
    pub fn new<'p>(action: Entity, policies: impl Iterator<Item = &'p Policy>) -> Result<ActionPolicies, String> {
        let (mut held, mut scopes) = (Vec::new(), ScopeConditions::default());
        for policy in policies {
            let (id, tree, mut reads) =
                (policy.id().clone(), policy.to_pst().map_err(|e| e.to_string())?, AttributeReads::default());
            reads.add(tree.body());
            scopes.add(&id, tree.body());
            held.push(AnalyzedPolicy { id, policy: policy.clone(), reads });
        }
        let (whole, reads) = PolicySlice::of(held.iter())?;
        let (scope_reads, _) = scopes.reads.split();
        Ok(ActionPolicies { action, reads, held, whole: Arc::new(whole), scopes, scope_reads })
    }

    /// Evaluates all policies of the part.
    pub fn evaluate_whole(&self, types: &SchemaTypes, case: &ResolvedQuestion<'_>) -> PolicyVerdict {
        match self.ready(types, self.whole.clone(), case) {
            Ok(ready) => ready.ask(case),
            Err(what) => PolicyVerdict::EngineError { what },
        }
    }

    fn ready(&self, types: &SchemaTypes, slice: Arc<PolicySlice>, case: &ResolvedQuestion<'_>) -> Result<PreparedSlice, String> {
        let sides = sides(types, &self.action, &slice.entity, case, None)?;
        Ok(PreparedSlice { slice, sides })
    }

    /// The policies whose scope conditions hold or fail with an error, and the policies without scope conditions.
    fn slice(&self, types: &SchemaTypes, case: &ResolvedQuestion<'_>) -> Result<PolicySlice, String> {
        let sides = sides(types, &self.action, &self.scope_reads, case, None)?;
        let kept = satisfied_policies(&EvaluationInput { policies: &self.scopes.policies, sides: &sides, context: &[] }, case)?;
        let of = self.held.iter().filter(|held| kept.contains(&held.id) || self.scopes.without.contains(&held.id));
        PolicySlice::of(of).map(|(slice, _)| slice)
    }
}

/// A slice together with the entities that it is evaluated for.
struct PreparedSlice {
    slice: Arc<PolicySlice>,
    sides: RequestEntities,
}

impl PreparedSlice {
    fn ask(&self, case: &ResolvedQuestion<'_>) -> PolicyVerdict {
        ask(&EvaluationInput { policies: &self.slice.policies, sides: &self.sides, context: &self.slice.context }, case, None)
    }
}

type Key = Box<[u8]>;

/// The slice cache of one set.
pub(super) struct SliceCache {
    /// By the attributes that the scopes read.
    slices: Cache<Key, Arc<PolicySlice>>,
    /// By the names of caller and resource and all attributes of them that the part reads, which include those of its scopes and of every
    /// slice.
    ready: Cache<Key, Arc<PreparedSlice>>,
}

impl SliceCache {
    pub fn new() -> SliceCache {
        #[allow(clippy::borrowed_box, reason = "moka hands out its key as it is stored")]
        let slice = |key: &Key, slice: &Arc<PolicySlice>| {
            let policies = slice.policies.num_of_policies() + 1;
            u32::try_from(key.len() + policies * limits::SLICE_POLICY_BYTES).unwrap_or(u32::MAX)
        };
        #[allow(clippy::borrowed_box, reason = "moka hands out its key as it is stored")]
        let ready = |key: &Key, _: &Arc<PreparedSlice>| u32::try_from(2 * key.len() + limits::SIDES_BYTES).unwrap_or(u32::MAX);
        SliceCache {
            slices: Cache::builder().max_capacity(limits::SLICE_CACHE_BYTES).weigher(slice).build(),
            ready: Cache::builder().max_capacity(limits::SIDES_CACHE_BYTES).weigher(ready).build(),
        }
    }

    /// Evaluates the policies that can apply.
    pub fn evaluate(&self, types: &SchemaTypes, part: &ActionPolicies, case: &ResolvedQuestion<'_>) -> PolicyVerdict {
        match self.ready(types, part, case) {
            Ok(ready) => ready.ask(case),
            Err(what) => PolicyVerdict::EngineError { what },
        }
    }

    /// Ids of the policies that can apply, sorted.
    #[cfg(test)]
    pub fn ids(&self, types: &SchemaTypes, part: &ActionPolicies, case: &ResolvedQuestion<'_>) -> Vec<String> {
        let ready = self.ready(types, part, case).unwrap_or_else(|what| panic!("{what}"));
        let mut ids: Vec<String> = ready.slice.policies.policies().map(|policy| policy.id().to_string()).collect();
        ids.sort_unstable();
        ids
    }

    fn ready(
        &self,
        types: &SchemaTypes,
        part: &ActionPolicies,
        case: &ResolvedQuestion<'_>,
    ) -> Result<Arc<PreparedSlice>, String> {
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

    fn slice(&self, types: &SchemaTypes, part: &ActionPolicies, case: &ResolvedQuestion<'_>) -> Result<Arc<PolicySlice>, String> {
        let key = key(part.scope_reads.iter(), case);
        if key.len() > limits::VERDICT_KEY_BYTES {
            // A slice with so long a key would not be cached, and computing the slice costs as much as it saves.
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

fn key<'r>(reads: impl Iterator<Item = &'r AttributeRead>, case: &ResolvedQuestion<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(256);
    key.push(case.question.action().number());
    write_facts(&mut key, reads, case);
    key
}

#[cfg(test)]
mod tests {
    use super::super::{PolicySet as Set, Question, WorkloadAction, WorkloadContext, sample};

    #[test]
    fn of_two_hundred_policies_a_caller_and_an_upstream_leave_a_few() {
        let (policies, roles) = sample::some(200);
        let set = Set::compile(policies, roles).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        let (upstream, ask) = (sample::upstream("billing").unwrap(), WorkloadContext::default());
        let ids = |team: &str| {
            let caller = sample::agent(team, 1).unwrap();
            let case = set.case(&Question::work(&caller, WorkloadAction::Exchange, &upstream, &ask));
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
