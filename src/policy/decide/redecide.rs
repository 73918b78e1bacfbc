//! Decides again about issued credentials: whether a policy set or a registration would still permit them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::seconds;
use super::task_context::{TaskContext, TaskLists};
use crate::action::{Action, WorkloadAction};
use crate::cedar::PolicyVerdict;
use crate::question::{self, Question};
use crate::set::PolicySet;
use crate::verdict_cache::VerdictCache;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{CredentialIssued, Principal};
use mayfly_ledger::state::{LiveCredential, State, Task};
use mayfly_ledger::upstream::access::{self, AccessError, AccessQuery, DescribeAccess, GrantedAccess};
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_store::Position;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

/// A live credential, in the form of a new request for it.
pub struct CredentialSnapshot {
    /// The credential's id.
    pub id: CredentialId,
    /// The sequence number of its issuance record.
    pub seq: Seq,
    /// The position of its commit.
    pub at: Position,
    /// The caller that the credential was issued to.
    pub caller: Box<str>,
    /// The upstream.
    pub upstream: Box<str>,
    /// The scopes that the credential carries.
    pub scopes: Vec<Box<str>>,
    /// The tool that the credential is restricted to; empty for none.
    pub tool: Box<str>,
    /// The binding that permitted the credential; empty for none.
    pub binding: Box<str>,
    /// The credential kind, by its persisted number.
    pub kind: u8,
    /// The credential's expiry.
    pub expires_at: Millis,
    /// The credential renewed another one.
    renewal: bool,
    /// The subject and the actors before the caller.
    subject: Option<(Principal, Vec<String>)>,
    place: TaskContext,
    /// The part that is only in the issuance record; `None` until [`CredentialSnapshot::with_record`].
    own: Option<RecordedDetails>,
}

/// The part of a credential that is only in its issuance record.
struct RecordedDetails {
    purpose: String,
    arguments: Vec<u8>,
    /// The part of what the scopes give that the credential has; empty for everything.
    details: String,
    /// The groups of the subject.
    groups: Vec<String>,
    /// The person who approved the issuance, if one did.
    approved_by: Option<String>,
}

impl CredentialSnapshot {
    /// The credential as it is in a state.
    pub fn of(state: &State, live: &LiveCredential<'_>, task: &Task) -> CredentialSnapshot {
        let boxed = |text: &str| Box::from(text);
        CredentialSnapshot {
            id: live.id(),
            seq: live.seq(),
            at: live.at(),
            caller: live.caller().into(),
            upstream: live.upstream().into(),
            scopes: live.scopes().into_iter().map(boxed).collect(),
            tool: live.tool().into(),
            binding: live.binding().into(),
            kind: live.kind(),
            expires_at: live.expires_at(),
            renewal: live.lineage().is_some_and(|l| l.renewal),
            subject: live.lineage().and_then(|l| Some((l.subject.clone()?, before(live.caller(), &l.actors)))),
            place: TaskContext::open(state, task, live.caller()),
            own: None,
        }
    }

    /// Adds the part that is only in the issuance record.
    pub fn with_record(&mut self, issued: &CredentialIssued, approved_by: Option<String>) {
        let (purpose, arguments) = (issued.purpose.clone(), issued.arguments.clone());
        let details = issued.details.clone();
        let groups = issued.subject_claims.as_ref().map_or_else(Vec::new, |claims| claims.groups.clone());
        self.own = Some(RecordedDetails { purpose, arguments, details, groups, approved_by });
    }

    /// The use that the credential was issued for.
    fn doing(&self) -> IntendedUse<'_> {
        IntendedUse {
            scopes: self.scopes.iter().map(|s| &**s).collect(),
            tool: &self.tool,
            purpose: self.own.as_ref().map_or_else(|| self.place.purpose(), |own| &own.purpose),
            arguments: self.arguments(),
            binding: (!self.binding.is_empty()).then_some(&*self.binding),
            access: None,
        }
    }

    /// The access that a credential for the same scopes would give under this registration.
    fn access(&self, from: &dyn DescribeAccess, upstream: &Upstream) -> Result<Option<GrantedAccess>, AccessError> {
        let scopes: Vec<String> = self.scopes.iter().map(|scope| scope.to_string()).collect();
        let kind = Kind::from_tag(self.kind).ok_or(AccessError::NotServed)?;
        access::of_credential(from, &AccessQuery { upstream, kind, scopes: &scopes, details: self.details() })
    }

    /// SHA-256 of the arguments that the credential is restricted to; `None` without such a restriction or before the record was added.
    pub(super) fn arguments(&self) -> Option<&[u8; 32]> {
        self.own.as_ref().and_then(|own| <&[u8; 32]>::try_from(&own.arguments[..]).ok())
    }

    /// The authorization details that narrow the credential; empty for none or before the record was added.
    pub(super) fn details(&self) -> &str {
        self.own.as_ref().map_or("", |own| &own.details)
    }

    /// The id of the credential's task.
    pub fn task(&self) -> TaskId {
        self.place.id
    }

    /// The credential's task.
    pub(super) fn place(&self) -> &TaskContext {
        &self.place
    }

    /// Whether the credential fits an upstream's registration: its kind, its scopes and its remaining lifetime.
    pub fn within(&self, upstream: &Upstream, now: Millis) -> bool {
        Kind::from_tag(self.kind).is_some_and(|kind| upstream.issues(kind))
            && self.scopes.iter().all(|scope| upstream.scope(scope).is_some())
            && self.expires_at <= upstream.expires
            && self.expires_at.since(now) <= upstream.ttl.max.saturating_mul(1000)
    }
}

/// The actor chain, without the caller.
fn before(caller: &str, actors: &[Principal]) -> Vec<String> {
    actors.iter().map(Principal::name).filter(|name| name != caller).collect()
}

/// Whether deciding again needs the part that is only in records.
pub fn reads_records(set: &PolicySet) -> bool {
    let reads = set.reads(Action::Work(WorkloadAction::Exchange));
    !reads.understood() || reads.reads_own() || reads.reads_approvals() || reads.may_read_below("context.access")
}

/// Whether a set permits a held credential at this time. Checks the environment wall and Cedar, but no time bounds.
pub fn still_permits(
    by: (&VerdictCache, &dyn DescribeAccess),
    set: &PolicySet,
    upstream: &Upstream,
    held: &CredentialSnapshot,
    now: Millis,
) -> bool {
    verdict(by, set, upstream, held, now).is_some_and(|verdict| verdict.permits())
}

/// The verdict of a set on a held credential at this time. `None`: the environment wall refuses it, or the registration does not grant the
/// access that the set looks at.
fn verdict(
    (verdicts, access): (&VerdictCache, &dyn DescribeAccess),
    set: &PolicySet,
    upstream: &Upstream,
    held: &CredentialSnapshot,
    now: Millis,
) -> Option<Arc<PolicyVerdict>> {
    let caller = SpiffeId::parse(&held.caller).ok()?;
    if set.environment_of(&caller) != Some(&upstream.environment) {
        return None;
    }
    let looks = set.reads(Action::Work(WorkloadAction::Exchange)).may_read_below("context.access");
    let access = if looks { held.access(access, upstream).ok()? } else { None };
    let doing = IntendedUse { access: access.as_ref(), ..held.doing() };
    Some(question(&caller, upstream, held, &doing, now, |question| verdicts.verdict(set, question)))
}

/// The use that a held credential is asked to serve for.
pub(super) struct IntendedUse<'a> {
    pub scopes: Vec<&'a str>,
    pub tool: &'a str,
    pub purpose: &'a str,
    pub arguments: Option<&'a [u8; 32]>,
    pub binding: Option<&'a str>,
    /// The access at the upstream.
    pub access: Option<&'a GrantedAccess>,
}

/// Asks whether a held credential would be issued now for the given use.
pub(super) fn question<T>(
    caller: &SpiffeId,
    upstream: &Upstream,
    held: &CredentialSnapshot,
    doing: &IntendedUse<'_>,
    now: Millis,
    ask_it: impl FnOnce(&Question<'_>) -> T,
) -> T {
    let (mut digest, mut id) = ([0; 43], [0; TaskId::TEXT]);
    let people: Vec<&str> = held.own.iter().filter_map(|own| own.approved_by.as_deref()).collect();
    let lists = TaskLists::of(&held.place);
    let groups: Vec<&str> = held.own.iter().flat_map(|own| &own.groups).map(String::as_str).collect();
    let (subject, chain) = held.subject.as_ref().map_or((None, &[][..]), |(who, before)| (Some(who), &before[..]));
    let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
    let ask = question::WorkloadContext {
        environment: &upstream.environment,
        intent: question::DeclaredIntent {
            purpose: doing.purpose,
            tool: (!doing.tool.is_empty()).then_some(doing.tool),
            arguments_digest: doing.arguments.map(|d| question::digest_text(d, &mut digest)),
            kind: Kind::from_tag(held.kind),
            scopes: &doing.scopes,
            binding: doing.binding,
            access: doing.access,
        },
        ttl_seconds: seconds(held.expires_at.since(now)),
        renewal: held.renewal,
        break_glass: held.place.break_glass.is_some(),
        act_chain: &chain,
        subject: subject.map(|s| question::SubjectFacts { issuer: &s.issuer, id: &s.sub, groups: &groups }),
        task: lists.facts(&held.place, &upstream.environment, Some(held.place.id.write(&mut id))),
        counts: held.place.counts,
        approvals: question::ApprovalFacts { count: i64::from(!people.is_empty()), people: &people },
        now,
        ..question::WorkloadContext::default()
    };
    ask_it(&Question::work(caller, WorkloadAction::Exchange, upstream, &ask))
}

/// Compares a new policy set with the set that it replaces: finds credentials that only the new set refuses.
///
/// A credential that the old set would also refuse by now (for example because a counter has grown) does not count as refused by the
/// change, as long as both sets refuse it by the same unchanged policies.
pub struct PolicyComparison {
    old: Option<Arc<PolicySet>>,
    new: Arc<PolicySet>,
    /// Ids of the policies that are the same in both sets.
    kept: BTreeSet<String>,
    /// The policies that permit exchanging are the same in both sets.
    same_permits: bool,
}

impl PolicyComparison {
    /// Without the old set, everything that the new set refuses counts as refused by the change.
    pub fn new(old: Option<Arc<PolicySet>>, new: Arc<PolicySet>) -> PolicyComparison {
        let kept = old.as_ref().map(|old| old.kept_in(&new)).unwrap_or_default();
        let permits = |set: &PolicySet| set.permits(Action::Work(WorkloadAction::Exchange)).all(|id| kept.contains(&id));
        let same_permits = old.as_ref().is_some_and(|old| permits(old) && permits(&new));
        PolicyComparison { old, new, kept, same_permits }
    }

    /// Whether the new set refuses a held credential that the old set did not refuse.
    pub fn refuses(
        &self,
        by: (&VerdictCache, &dyn DescribeAccess),
        upstream: &Upstream,
        held: &CredentialSnapshot,
        now: Millis,
    ) -> bool {
        let said = match verdict(by, &self.new, upstream, held, now) {
            None => return true,
            Some(said) if said.permits() => return false,
            Some(said) => said,
        };
        let Some(old) = &self.old else { return true };
        let before = match verdict(by, old, upstream, held, now) {
            Some(before) if !before.permits() => before,
            _ => return true,
        };
        match &*said {
            PolicyVerdict::EngineError { .. } => said != before,
            _ if said.by().is_empty() => {
                let roles =
                    |set: &PolicySet| SpiffeId::parse(&held.caller).is_ok_and(|id| set.roles_of(&id) == self.new.roles_of(&id));
                !(self.same_permits && roles(old))
            }
            _ => !said.by().iter().all(|id| self.kept.contains(id) && before.by().contains(id)),
        }
    }
}
