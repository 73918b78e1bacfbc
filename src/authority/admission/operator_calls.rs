//! Operators' calls that need a second person, because policy forbids them to one operator alone (`context.approvals`) or because they
//! change what governs.
//!
//! A change of policy, bindings, registrations or trust takes effect with its approval ([`crate::registry::changes`]). Every other call has
//! to be sent again after the approval, and uses it up: an approval is for one exact request of one operator. Calls that an incident needs
//! never wait.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::authority::Authority;
use crate::people::approvals::{ApproverDecision, place_of};
use crate::registry::changes::given;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::{ApprovalKind, ApprovalRequested, Author, Event, Principal, Record, UsedOnce};
use mayfly_ledger::revocation::Facts;
use mayfly_ledger::state::{Approval, State, refused_by};
use mayfly_policy::question::ApprovalFacts;
use mayfly_policy::{Action, OperatorAction, OperatorContext};
use mayfly_verify::seq::ApprovalId;

/// How a call is affected by approvals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApprovalMode {
    /// The call never waits: an incident needs it, or it serves to inspect and decide approvals.
    Never,
    /// The change waits, and takes effect with its approval.
    WithItsChange,
    /// An approval is requested, and the call has to be sent again.
    ToBeSentAgain,
}

/// The calls that never wait, whatever policy says: `Service.Method`.
const NEVER: &[&str] = &[
    "RevocationService.Revoke",
    "RevocationService.GetRevocation",
    "RevocationService.BlastRadius",
    "RevocationService.ListRules",
    "RevocationService.AddLock",
    "RevocationService.ListLocks",
    "RevocationService.WatchRevocations",
    "RevocationService.AcknowledgeRevocations",
    "RevocationService.WaitForRevocation",
    "RevocationService.ListFollowers",
    "TaskService.HoldTask",
    "TaskService.CancelTask",
    "TaskService.CompleteTask",
    "KeyService.CompromiseKey",
    "TrustDomainService.RemoveTrustAnchor",
    "TrustDomainService.RemoveTrustDomain",
    "BreakGlassService.CloseBreakGlass",
    "ApprovalService.ListApprovals",
    "ApprovalService.GetApproval",
    "ApprovalService.DecideApproval",
    "ApprovalService.WatchApprovals",
    "TokenService.Whoami",
];

/// The calls whose change takes effect with the approval.
const CHANGES: &[&str] = &[
    "PolicyService.SetPolicy",
    "UpstreamService.SetBinding",
    "UpstreamService.SetUpstream",
    "TrustDomainService.AddBundle",
    "TrustDomainService.SetBundle",
];

impl ApprovalMode {
    /// The class of a call, by `Service.Method`. A call on no list needs an approval if policy requires one.
    pub fn of(rpc: &str) -> ApprovalMode {
        match rpc {
            rpc if NEVER.contains(&rpc) => ApprovalMode::Never,
            rpc if CHANGES.contains(&rpc) => ApprovalMode::WithItsChange,
            _ => ApprovalMode::ToBeSentAgain,
        }
    }

    /// Every call that is on a list.
    pub fn named() -> impl Iterator<Item = &'static str> {
        NEVER.iter().chain(CHANGES).copied()
    }
}

/// The approval that a call needs.
#[derive(Clone, Debug)]
struct CallApproval {
    /// Why a second person is needed, in words.
    why: String,
    action: OperatorAction,
    /// The environment; `None` for all environments.
    environment: Option<String>,
}

/// The context of an operator's call, which admission reads while the call is served.
#[derive(Debug)]
pub struct OperatorCall {
    rpc: String,
    waits: ApprovalMode,
    /// Whether the call is a dry run.
    dry_run: bool,
    /// SHA-256 of the request and its author.
    digest: [u8; 32],
    /// The text of the request for people.
    text: String,
    /// The approver, if the call is approved.
    approved: Option<String>,
    asks: Mutex<Option<CallApproval>>,
}

tokio::task_local! {
    static CALL: Arc<OperatorCall>;
}

impl OperatorCall {
    /// A call by `Service.Method`, with its request as text for people and as bytes without the request id.
    pub fn new(rpc: &str, author: &str, (bytes, text, dry_run): (&[u8], String, bool)) -> OperatorCall {
        let mut whole = format!("mayfly call 1\n{}\n{author}\n{rpc}\n", author.len()).into_bytes();
        whole.extend_from_slice(bytes);
        let (digest, waits) = (sha256(&whole), ApprovalMode::of(rpc));
        OperatorCall { rpc: rpc.to_owned(), waits, dry_run, digest, text, approved: None, asks: Mutex::default() }
    }

    /// The operator's call that is being served on this task or thread, if there is one.
    pub fn current() -> Option<Arc<OperatorCall>> {
        CALL.try_with(Clone::clone).ok()
    }

    /// The class of the call.
    pub fn waits(&self) -> ApprovalMode {
        self.waits
    }

    /// Whether the call proceeds without an approval: it never waits, or is a dry run.
    pub(crate) fn goes_on(&self) -> bool {
        self.waits == ApprovalMode::Never || self.dry_run
    }

    /// The approver of the call.
    pub(crate) fn approved_by(&self) -> Option<&str> {
        self.approved.as_deref()
    }

    /// Notes that the call needs an approval, and returns the refusal. The service then requests the approval.
    pub(crate) fn asks_for(&self, action: OperatorAction, environment: Option<&str>, why: String) -> Error {
        let no = Refusal::new(Reason::ApprovalNeeded, format!("another operator has to approve this call first: {why}"));
        let environment = environment.map(str::to_owned);
        self.asks.lock().get_or_insert(CallApproval { why, action, environment });
        Error::Refusal(no.by("two people"))
    }

    /// Whether the call was found to need an approval.
    pub fn is_asked_for(&self) -> bool {
        self.asks.lock().is_some()
    }
}

/// Runs a future as part of a call.
pub async fn within<F: Future>(call: Option<Arc<OperatorCall>>, served: F) -> F::Output {
    match call {
        Some(call) => CALL.scope(call, served).await,
        None => served.await,
    }
}

/// Runs a closure on this thread as part of a call.
pub fn within_sync<T>(call: Option<Arc<OperatorCall>>, served: impl FnOnce() -> T) -> T {
    match call {
        Some(call) => CALL.sync_scope(call, served),
        None => served(),
    }
}

fn unknown(action: &str) -> Error {
    Error::Fault(Fault::new(format!("an approval of a call that wants {action}, which is no action of an operator")))
}

fn identity_of(who: &Author) -> Option<Principal> {
    match who {
        Author::Person(person) => Some(person.clone()),
        Author::SpiffeId(id) => SpiffeId::parse(id).ok().map(|id| Principal::workload(&id)),
        Author::LocalUid(_) | Author::Mayfly(_) => None,
    }
}

/// The action that an approval of a call is for.
fn action_of(asked: &ApprovalRequested) -> Result<OperatorAction, Error> {
    let name = asked.policies.first().map_or("", String::as_str);
    let named = Action::ALL.into_iter().find(|action| action.name() == name);
    match named {
        Some(Action::Admin(admin)) => Ok(admin),
        _ => Err(unknown(name)),
    }
}

impl Authority {
    /// Attaches the call's approval, if one was given. The approval is durably used up before the call does anything, so an approved call
    /// is carried out at most once.
    pub async fn with_approval(&self, caller: &Caller, mut call: OperatorCall) -> Result<OperatorCall, Error> {
        if call.waits != ApprovalMode::ToBeSentAgain || call.dry_run {
            return Ok(call);
        }
        let (name, now) = (Author::of(caller).name(), self.system.wall());
        let own = |a: &&Approval| {
            a.asked.of() == ApprovalKind::Call
                && a.asked.caller == name
                && a.asked.digest == call.digest
                && a.usable(now).is_some()
        };
        let usable = |s: &State| {
            let found = s.approvals.iter().find(|(_, a)| own(a));
            found.map(|(id, a)| (*id, a.expires_at(), a.decided.clone()))
        };
        // Most calls have no approval. They, `status` among them, must be answered while the ledger cannot be written.
        if self.ledger.peek(usable).is_none() {
            return Ok(call);
        }
        let Some((id, until, Some(decided))) = self.ledger.settled(usable).await? else { return Ok(call) };
        let by = decided.by.as_deref().cloned().ok_or_else(|| Fault::new("an approval without an approver"))?;
        // A revocation since the approval was given also revokes the approval.
        let approver = identity_of(&by);
        let hit = self.ledger.settled(|s| {
            let identities = approver.iter().map(|one| (one.issuer.as_str(), one.sub.as_str())).collect();
            s.rules.blocks(&Facts { revision: decided.revision, identities, ..Facts::default() })
        });
        if let Some(hit) = hit.await? {
            return Err(Error::Refusal(refused_by(&hit, "this approval")));
        }
        let digest = sha256(format!("mayfly approval of a call 1\n{id}").as_bytes()).to_vec();
        let used = UsedOnce { digest, until: until.plus(limits::REQUEST_ID_KEPT_MS).0, approval: id.as_bytes().to_vec() };
        let view = self.ledger.view();
        let record = Record::new(Author::of(caller), Event::UsedOnce(used)).decided_at(view.revision());
        self.ledger.commit(ProposalKind::Change, vec![record]).await?;
        call.approved = Some(by.name());
        Ok(call)
    }

    /// Requests another operator's approval for a call; the same request shares one approval. Returns the refusal that says so.
    pub async fn ask_for_call(&self, caller: &Caller, call: &OperatorCall) -> Error {
        let Some(asks) = call.asks.lock().clone() else { return Error::Fault(Fault::new("a call that needs no approval")) };
        match self.asked_for_call(caller, call, &asks).await {
            Ok(id) => {
                let what = format!("another operator has to approve this call first: {}", asks.why);
                let way_out = format!(
                    "another operator whom policy lets (ApproveChange): mayfly approval give {id} --reason TEXT; then send the same again"
                );
                Error::Refusal(
                    Refusal::new(Reason::ApprovalNeeded, what).by("two people").approval(id.to_string()).way_out(way_out),
                )
            }
            Err(no) => no,
        }
    }

    async fn asked_for_call(&self, caller: &Caller, call: &OperatorCall, asks: &CallApproval) -> Result<ApprovalId, Error> {
        let (who, now) = (Author::of(caller), self.system.wall());
        let name = who.name();
        let same = |a: &Approval| a.asked.of() == ApprovalKind::Call && a.asked.caller == name && a.asked.digest == call.digest;
        let known = |s: &State| {
            let mut alike = s.approvals.iter().filter(|(_, a)| same(a) && !a.used && a.expires_at() > now);
            alike.find(|(_, a)| a.decided.as_ref().is_none_or(|d| !d.given)).map(|(id, a)| (*id, a.decided.clone()))
        };
        match self.ledger.settled(known).await? {
            Some((id, None)) => return Ok(id),
            Some((id, Some(refused))) => {
                let by = refused.by.as_deref().map_or_else(String::new, Author::name);
                let what = format!("approval {id} of this call was refused by {by}: {}", refused.reason);
                return Err(Error::Refusal(Refusal::new(Reason::DeniedByPolicy, what).by("two people")));
            }
            None => {}
        }
        let (id, view) = (ApprovalId::from_bytes(self.system.id16()), self.ledger.view());
        let record = ApprovalRequested {
            approval: id.as_bytes().to_vec(),
            digest: call.digest.to_vec(),
            caller: name,
            expires_at: now.plus(limits::APPROVAL_TTL_DEFAULT_MS).0,
            of: ApprovalKind::Call as i32,
            environment: asks.environment.clone().unwrap_or_default(),
            tool: call.rpc.clone(),
            purpose: call.text.clone(),
            policies: vec![Action::Admin(asks.action).name().to_owned()],
            ..ApprovalRequested::default()
        };
        let record = Record::new(who, Event::ApprovalAsked(record.into())).decided_at(view.revision());
        self.ledger.commit(ProposalKind::Change, vec![record]).await?;
        Ok(id)
    }

    /// Approves another operator's call, for one use.
    pub(crate) async fn let_call_through(
        &self,
        caller: &Caller,
        asked: &ApprovalRequested,
        decision: &ApproverDecision,
    ) -> Result<(), Error> {
        let who = self.may_approve_change(caller, asked, ("call", &asked.tool))?;
        let name = who.name();
        let approvals = ApprovalFacts { count: 1, people: &[&name] };
        self.author_still_may(
            asked,
            action_of(asked)?,
            &OperatorContext { environment: place_of(asked), approvals, now: self.system.wall(), ..OperatorContext::default() },
        )?;
        let event = Event::ApprovalDecided(given(decision, caller));
        self.change(who, ProposalKind::Grant, event, &decision.terms.named).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_incident_takes_never_waits_and_what_is_new_does() {
        for rpc in ["RevocationService.Revoke", "RevocationService.AddLock", "TaskService.HoldTask", "KeyService.CompromiseKey"] {
            assert_eq!(ApprovalMode::of(rpc), ApprovalMode::Never, "{rpc}");
        }
        assert_eq!(ApprovalMode::of("PolicyService.SetPolicy"), ApprovalMode::WithItsChange);
        assert_eq!(ApprovalMode::of("SomeService.NeverHeardOf"), ApprovalMode::ToBeSentAgain);
    }

    #[test]
    fn a_call_is_its_author_its_name_and_its_request() {
        let digest = |rpc, author, bytes: &[u8]| OperatorCall::new(rpc, author, (bytes, String::new(), false)).digest;
        let one = digest("KeyService.RotateKey", "spiffe://td/a", b"x");
        assert_eq!(one, digest("KeyService.RotateKey", "spiffe://td/a", b"x"));
        assert_ne!(one, digest("KeyService.RotateKey", "spiffe://td/b", b"x"));
        assert_ne!(one, digest("KeyService.RetireKey", "spiffe://td/a", b"x"));
        assert_ne!(one, digest("KeyService.RotateKey", "spiffe://td/a", b"y"));
    }
}
