//! A policy set: Cedar policies, roles and environments, validated at construction and immutable afterwards.
//!
//! A record keeps [`PolicySet::to_text`]; [`PolicySet::from_text`] gives the same set with the same digest.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use cedar_policy::Schema;
use serde::{Deserialize, Serialize};

use super::SCHEMA_VERSION;
use super::action::{Action, OperatorAction};
use super::applicable_policies::{ActionPolicies, SliceCache};
use super::attribute_reads::AttributeReads;
use super::attributes::ResolvedQuestion;
use super::break_glass_rights::BreakGlassRights;
use super::cedar::{EvaluationInput, PolicyVerdict, SchemaTypes, ask, sides};
use super::compile::{self, Compiler, EnumeratedAttribute, applies, parts};
use super::dual_control::{self, OperatorDomains};
use super::governance::GovernanceRules;
use super::nesting;
use super::question::Question;
use super::roles::Roles;
use super::unpermitted_actions;
use mayfly_base::document::{Diagnostic, SourceFile, sha256};
use mayfly_base::limits;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::upstream::registry::Kind;

/// A compiled, validated policy set.
pub struct PolicySet {
    text: String,
    digest: [u8; 32],
    types: SchemaTypes,
    roles: Roles,
    parts: Vec<ActionPolicies>,
    slices: SliceCache,
    schema: Schema,
    policies: cedar_policy::PolicySet,
    upstreams: Vec<String>,
    compared: Vec<(EnumeratedAttribute, String)>,
    ids: Vec<String>,
    warnings: Vec<Diagnostic>,
    /// Analysis results about operators and second persons.
    two: DualControl,
    operators: OnceLock<Vec<String>>,
}

struct DualControl {
    domains: OperatorDomains,
    forbidden_alone: Vec<OperatorAction>,
    people: Vec<String>,
    nobody_may: Vec<OperatorAction>,
}

/// The text form in a record. Fields in this order, without whitespace, so one set has exactly one text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedText {
    schema: u8,
    policies: Vec<SourceFile>,
    roles: SourceFile,
}

/// The policy files and the roles file of a recorded set. Nothing is compiled.
pub fn files(recorded: &str) -> Result<(Vec<SourceFile>, SourceFile), String> {
    let recorded: RecordedText = serde_json::from_str(recorded).map_err(|e| e.to_string())?;
    Ok((recorded.policies, recorded.roles))
}

/// Runs code that calls itself for each level of a policy: Cedar's parser, validator and conversions use much more stack for a level than its
/// evaluator does, and a recorded set has no bound on its levels.
fn on_a_large_stack<T>(run: impl FnOnce() -> T) -> T {
    stacker::grow(limits::POLICY_STACK_BYTES, run)
}

impl PolicySet {
    /// Compiles policy files (in this order) and a roles file. The error lists everything that is wrong with them.
    pub fn compile(policies: Vec<SourceFile>, roles: SourceFile) -> Result<PolicySet, Vec<Diagnostic>> {
        PolicySet::from_files(RecordedText { schema: SCHEMA_VERSION, policies, roles }, false)
    }

    /// Compiles a set from its text in a record.
    pub fn from_text(text: &str) -> Result<PolicySet, Vec<Diagnostic>> {
        let wrong = |what: String| vec![Diagnostic::about("recorded policy set", what, "")];
        let recorded: RecordedText = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if recorded.schema != SCHEMA_VERSION {
            return Err(wrong(format!("schema {}, this version reads {SCHEMA_VERSION}", recorded.schema)));
        }
        PolicySet::from_files(recorded, true)
    }

    /// A recorded set has no bound on its depth: it must stay loadable, or no server would start on that ledger.
    fn from_files(set: RecordedText, recorded: bool) -> Result<PolicySet, Vec<Diagnostic>> {
        let deep: Vec<Diagnostic> = set.policies.iter().filter(|_| !recorded).filter_map(nesting::complaint).collect();
        if !deep.is_empty() {
            return Err(deep);
        }
        on_a_large_stack(|| PolicySet::build(set, recorded))
    }

    fn build(set: RecordedText, recorded: bool) -> Result<PolicySet, Vec<Diagnostic>> {
        let text = serde_json::to_string(&set).unwrap_or_default();
        if text.len() > limits::POLICY_BYTES {
            let what = format!("policies and roles have {} bytes in their recorded form", text.len());
            return Err(vec![Diagnostic::about(&set.roles.file, what, format!("at most {} bytes", limits::POLICY_BYTES))]);
        }
        let mut complaints = Vec::new();
        let mut parsed = Vec::with_capacity(set.policies.len());
        for source in &set.policies {
            match compile::parse(source) {
                Ok(policies) => parsed.push((source, policies)),
                Err(wrong) => complaints.extend(wrong),
            }
        }
        // A recorded set may have more: it must stay loadable.
        let count: usize = parsed.iter().map(|(_, policies)| policies.num_of_policies()).sum();
        if count > limits::POLICIES && !recorded {
            let what = format!("the policy set has {count} policies: at most {}", limits::POLICIES);
            let remedy = "compare with a set of names, or give a role to the callers, instead of a policy for each";
            return Err(vec![Diagnostic::about("policies", what, remedy)]);
        }
        let roles = Roles::parse(&set.roles).unwrap_or_else(|wrong| {
            complaints.extend(wrong);
            Roles::default()
        });
        let known = complaints.is_empty().then_some(&roles);
        let mut compiler = Compiler::new(known, recorded).map_err(|what| vec![Diagnostic::about("shipped schema", what, "")])?;
        for (source, policies) in &parsed {
            compiler.add(source, policies);
        }
        complaints.append(&mut compiler.complaints);
        if complaints.is_empty() {
            let list = if recorded { &mut compiler.warnings } else { &mut complaints };
            list.extend(dual_control::complaints(&compiler.policies, &roles));
        }
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let Compiler { types, validator, policies, mut upstreams, mut compared, warnings, .. } = compiler;
        compared.sort_unstable();
        compared.dedup();
        upstreams.extend(roles.rights().values().flat_map(|rights| rights.upstreams.iter().map(|(name, _)| name.clone())));
        upstreams.sort_unstable();
        upstreams.dedup();
        let parts = parts(&types, &policies).map_err(|what| vec![Diagnostic::about("policies", what, "")])?;
        let ids = policies.keys().cloned().collect();
        let policies = cedar_policy::PolicySet::from_policies(policies.into_values())
            .map_err(|e| vec![Diagnostic::about("policies", e.to_string(), "")])?;
        let digest = sha256(text.as_bytes());
        let schema = validator.schema().clone();
        let (slices, operators) = (SliceCache::new(), OnceLock::new());
        let two = DualControl {
            domains: OperatorDomains::of(&policies, &roles),
            forbidden_alone: dual_control::forbidden_alone(&policies),
            people: dual_control::people_named(&policies),
            nobody_may: unpermitted_actions::nobody_may(&policies, &roles),
        };
        Ok(PolicySet {
            text,
            digest,
            types,
            roles,
            parts,
            slices,
            schema,
            policies,
            upstreams,
            compared,
            ids,
            warnings,
            two,
            operators,
        })
    }

    /// Scopes and kinds that policies compare with and that no request can have; most likely mistyped names. `scopes`: whether a registered
    /// upstream has a scope.
    pub fn never_asked_for(&self, scopes: impl Fn(&str) -> bool) -> Vec<String> {
        let kind = |name: &str| Kind::ALL.iter().any(|kind| kind.as_str() == name);
        let unknown = self.compared.iter().filter_map(|(attribute, text)| match attribute {
            EnumeratedAttribute::Scopes if !scopes(text) => Some(format!("scope {text:?}, which no registered upstream has")),
            EnumeratedAttribute::Kind if !kind(text) => Some(format!("kind {text:?}, which is no kind of credential")),
            EnumeratedAttribute::Scopes | EnumeratedAttribute::Kind => None,
        });
        unknown.collect()
    }

    /// The canonical text for a record; at most `limits::POLICY_BYTES` long.
    pub fn to_text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the canonical text.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Ids of the policies that `other` also has, with the same meaning.
    pub(super) fn kept_in(&self, other: &PolicySet) -> BTreeSet<String> {
        let same = |p: &cedar_policy::Policy, o: &cedar_policy::Policy| match (p.to_json(), o.to_json()) {
            (Ok(one), Ok(two)) => one == two,
            _ => p.to_string() == o.to_string(),
        };
        on_a_large_stack(|| {
            let kept = self.policies.policies().filter(|p| other.policies.policy(p.id()).is_some_and(|o| same(p, o)));
            kept.map(|p| p.id().to_string()).collect()
        })
    }

    /// Ids of the policies that can permit an action.
    pub fn permits(&self, action: Action) -> impl Iterator<Item = String> {
        let permit = |p: &&cedar_policy::Policy| p.effect() == cedar_policy::Effect::Permit;
        self.policies.policies().filter(permit).filter(move |p| applies(p, action)).map(|p| p.id().to_string())
    }

    /// The trust domains whose ids may act as operators, or may join and review break-glass tasks.
    pub fn operator_domains(&self) -> &OperatorDomains {
        &self.two.domains
    }

    /// Whether some policy forbids this operator's action when there is no approval.
    pub fn forbids_alone(&self, action: OperatorAction) -> bool {
        self.two.forbidden_alone.contains(&action)
    }

    /// The operators' actions that an environment cannot be without ([`unpermitted_actions`]) and that the set permits to nobody.
    pub fn nobody_may(&self) -> &[OperatorAction] {
        &self.two.nobody_may
    }

    /// Names in policies about operators that `context.approvals.people` may be compared with.
    pub fn people_named(&self) -> &[String] {
        &self.two.people
    }

    /// The governing part of the set.
    pub fn governing(&self) -> GovernanceRules {
        on_a_large_stack(|| GovernanceRules::of(&self.policies, &self.roles))
    }

    /// Valid but suspicious constructs: policies that can never apply, texts that look alike.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Ids of all policies, sorted.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Names of all roles, sorted.
    pub fn role_names(&self) -> &[String] {
        self.roles.names()
    }

    /// Names of all environments, sorted.
    pub fn environments(&self) -> &[String] {
        self.roles.environments()
    }

    /// The break-glass rights of an environment, by name.
    pub fn rights<'a>(&'a self, environment: &'a str) -> impl Iterator<Item = (&'a str, &'a BreakGlassRights)> {
        let all = self.roles.rights().iter().filter(move |(_, rights)| rights.environment == environment);
        all.map(|(name, rights)| (name.as_str(), rights))
    }

    /// Names of the upstreams that policies and break-glass rights mention, sorted. A name that is not registered may be mistyped.
    pub fn upstreams_named(&self) -> &[String] {
        &self.upstreams
    }

    /// The caller's roles, sorted.
    pub fn roles_of(&self, caller: &SpiffeId) -> Vec<&str> {
        self.roles.of(caller).roles
    }

    /// The environment that a workload belongs to; `None` where no entry of the roles file covers the workload.
    pub fn environment_of(&self, caller: &SpiffeId) -> Option<&str> {
        self.roles.environment_of(caller)
    }

    /// Whether the roles file puts callers under a prefix of whole segments into an environment.
    pub fn has_members_under(&self, environment: &str, prefix: &str) -> bool {
        self.roles.has_members_under(environment, prefix)
    }

    /// Whether an operator named by a policy, through a role or by SPIFFE ID, is this id or covers this id; with `exact` unset, also
    /// whether an operator is below this prefix.
    pub fn operators_at(&self, id: &str, exact: bool) -> bool {
        let named = self.operators.get_or_init(|| on_a_large_stack(|| super::governance::operators(&self.policies, &self.roles)));
        named.iter().any(|member| match member.strip_suffix("/*") {
            Some(under) => within(id, under) || (!exact && within(under, id)),
            None => member == id || (!exact && within(member, id)),
        })
    }

    /// The attributes that the policies applicable to an action read.
    pub fn reads(&self, action: Action) -> &AttributeReads {
        static NOTHING: std::sync::LazyLock<AttributeReads> = std::sync::LazyLock::new(AttributeReads::default);
        self.part(action).map_or(&NOTHING, |part| &part.reads)
    }

    /// Cedar's verdict, evaluated anew. [`super::VerdictCache`] caches verdicts.
    pub fn verdict(&self, question: &Question<'_>) -> PolicyVerdict {
        self.evaluate(&self.case(question))
    }

    /// The same verdict with every policy and every attribute, validated against the schema. Reference for tests of the faster paths.
    pub fn verdict_of_everything(&self, question: &Question<'_>) -> PolicyVerdict {
        let case = self.case(question);
        let (schema, (entity, context)) = (Some(&self.schema), AttributeReads::of_everything().split());
        let written = |action| sides(&self.types, &self.types.action(action)?, &entity, &case, schema);
        match written(question.action()) {
            Ok(sides) => ask(&EvaluationInput { policies: &self.policies, sides: &sides, context: &context }, &case, schema),
            Err(what) => PolicyVerdict::EngineError { what },
        }
    }

    /// The same verdict from all policies of the action, without slicing and without a cache.
    pub fn verdict_unsliced(&self, question: &Question<'_>) -> PolicyVerdict {
        let case = self.case(question);
        self.part(question.action()).map_or_else(no_such_action, |part| part.evaluate_whole(&self.types, &case))
    }

    pub(super) fn case<'a>(&'a self, question: &Question<'a>) -> ResolvedQuestion<'a> {
        ResolvedQuestion { question: *question, member: self.roles.of(question.caller) }
    }

    pub(super) fn evaluate(&self, case: &ResolvedQuestion<'_>) -> PolicyVerdict {
        self.part(case.question.action()).map_or_else(no_such_action, |part| self.slices.evaluate(&self.types, part, case))
    }

    #[cfg(test)]
    pub(super) fn sliced_ids(&self, case: &ResolvedQuestion<'_>) -> Vec<String> {
        self.part(case.question.action()).map_or_else(Vec::new, |part| self.slices.ids(&self.types, part, case))
    }

    fn part(&self, action: Action) -> Option<&ActionPolicies> {
        self.parts.get(usize::from(action.number()))
    }
}

/// Whether an id or a prefix equals `prefix` or is below it, by whole segments.
pub(super) fn within(id: &str, prefix: &str) -> bool {
    id.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn no_such_action() -> PolicyVerdict {
    PolicyVerdict::EngineError { what: "the set has no such action".to_owned() }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicySet({} policies)", self.ids.len())
    }
}
