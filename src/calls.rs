//! An operator's call that waits for a second person: policy forbids it to one alone (`context.approvals`), or it changes what governs.
//!
//! What a change of policy, bindings, registrations and trust waits for takes effect with the approval ([`crate::changes`]). Every other call is
//! sent once more when its approval was given, which is the one use of it: an approval is for one request of one operator, word by word. What
//! is done in an incident waits for nobody.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::approvals::{Decision, place_of};
use crate::authority::Authority;
use crate::changes::given;
use crate::identity::caller::Caller;
use crate::identity::spiffe_id::SpiffeId;
use crate::ledger::Lane;
use crate::ledger::commit::sha256;
use crate::ledger::record::{ApprovalAsked, ApprovalOf, Event, Identity, Record, UsedOnce, Who};
use crate::ledger::state::{Approval, State, refused_by};
use crate::limits;
use crate::policy::request::ApprovalFacts;
use crate::policy::{Act, Action, Admin};
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::revocation::Facts;
use crate::seq::ApprovalId;

/// How a call stands to approvals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// It never waits: what an incident takes, and what approvals themselves are looked at and decided with.
    Never,
    /// Its change waits, and takes effect with the approval.
    WithItsChange,
    /// It is asked for, and sent once more.
    ToBeSentAgain,
}

/// Calls that never wait, whatever policy says: `Service.Method`.
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

/// Calls whose change takes effect with the approval.
const CHANGES: &[&str] = &[
    "PolicyService.SetPolicy",
    "UpstreamService.SetBinding",
    "UpstreamService.SetUpstream",
    "TrustDomainService.AddBundle",
    "TrustDomainService.SetBundle",
];

impl Waits {
    /// Of a call, by `Service.Method`. One that no list names is asked for where policy wants an approval.
    pub fn of(rpc: &str) -> Waits {
        match rpc {
            rpc if NEVER.contains(&rpc) => Waits::Never,
            rpc if CHANGES.contains(&rpc) => Waits::WithItsChange,
            _ => Waits::ToBeSentAgain,
        }
    }

    /// Every call that a list names.
    pub fn named() -> impl Iterator<Item = &'static str> {
        NEVER.iter().chain(CHANGES).copied()
    }
}

/// What an approval is needed for.
#[derive(Clone, Debug)]
struct Asks {
    /// What takes a second person, in words.
    why: String,
    action: Admin,
    /// The environment; `None` for all.
    environment: Option<String>,
}

/// An operator's call, as admission knows it while it is served.
#[derive(Debug)]
pub struct Call {
    rpc: String,
    waits: Waits,
    /// It only says what would be done.
    dry_run: bool,
    /// SHA-256 of the request and its author.
    digest: [u8; 32],
    /// The request for people.
    text: String,
    /// Who approved it.
    approved: Option<String>,
    asks: Mutex<Option<Asks>>,
}

tokio::task_local! {
    static CALL: Arc<Call>;
}

impl Call {
    /// A call by `Service.Method`, its request as it is told to people, and as bytes without what makes a repeat safe.
    pub fn new(rpc: &str, author: &str, (bytes, text, dry_run): (&[u8], String, bool)) -> Call {
        let mut whole = format!("mayfly call 1\n{}\n{author}\n{rpc}\n", author.len()).into_bytes();
        whole.extend_from_slice(bytes);
        let (digest, waits) = (sha256(&whole), Waits::of(rpc));
        Call { rpc: rpc.to_owned(), waits, dry_run, digest, text, approved: None, asks: Mutex::default() }
    }

    /// The call that is served now, where it is an operator's.
    pub fn current() -> Option<Arc<Call>> {
        CALL.try_with(Clone::clone).ok()
    }

    /// How it stands to approvals.
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// Whether it never waits, or only says what it would do.
    pub(crate) fn goes_on(&self) -> bool {
        self.waits == Waits::Never || self.dry_run
    }

    /// Who approved it.
    pub(crate) fn approved_by(&self) -> Option<&str> {
        self.approved.as_deref()
    }

    /// Notes that it takes an approval, and answers so. Whoever serves the call asks for it.
    pub(crate) fn asks_for(&self, action: Admin, environment: Option<&str>, why: String) -> No {
        let no = Refusal::new(Reason::ApprovalNeeded, format!("another operator has to approve this call first: {why}"));
        let environment = environment.map(str::to_owned);
        self.asks.lock().get_or_insert(Asks { why, action, environment });
        No::Refusal(no.by("two people"))
    }

    /// Whether its answer says that it takes an approval.
    pub fn is_asked_for(&self) -> bool {
        self.asks.lock().is_some()
    }
}

/// Serves something as part of a call.
pub async fn within<F: Future>(call: Option<Arc<Call>>, served: F) -> F::Output {
    match call {
        Some(call) => CALL.scope(call, served).await,
        None => served.await,
    }
}

/// The same on a thread of its own.
pub fn within_sync<T>(call: Option<Arc<Call>>, served: impl FnOnce() -> T) -> T {
    match call {
        Some(call) => CALL.sync_scope(call, served),
        None => served(),
    }
}

fn unknown(action: &str) -> No {
    No::Fault(Fault::new(format!("an approval of a call that wants {action}, which is no action of an operator")))
}

fn identity_of(who: &Who) -> Option<Identity> {
    match who {
        Who::Person(person) => Some(person.clone()),
        Who::SpiffeId(id) => SpiffeId::parse(id).ok().map(|id| Identity::workload(&id)),
        Who::LocalUid(_) | Who::Mayfly(_) => None,
    }
}

/// The action that an approval of a call is for.
fn action_of(asked: &ApprovalAsked) -> Result<Admin, No> {
    let name = asked.policies.first().map_or("", String::as_str);
    let named = Action::ALL.into_iter().find(|action| action.name() == name);
    match named {
        Some(Action::Admin(admin)) => Ok(admin),
        _ => Err(unknown(name)),
    }
}

impl Authority {
    /// The call with its approval, where one was given: it is used up, durably, before anything is done. So a call that was approved is done
    /// once at the most, whatever becomes of it.
    pub async fn with_approval(&self, caller: &Caller, mut call: Call) -> Result<Call, No> {
        if call.waits != Waits::ToBeSentAgain || call.dry_run {
            return Ok(call);
        }
        let (name, now) = (Who::of(caller).name(), self.system.wall());
        let own = |a: &&Approval| {
            a.asked.of() == ApprovalOf::Call && a.asked.caller == name && a.asked.digest == call.digest && a.usable(now).is_some()
        };
        let usable = |s: &State| {
            let found = s.approvals.iter().find(|(_, a)| own(a));
            found.map(|(id, a)| (*id, a.expires_at(), a.decided.clone()))
        };
        // Nearly no call has an approval. Those without one, `status` among them, are answered while the ledger cannot be written.
        if self.ledger.peek(usable).is_none() {
            return Ok(call);
        }
        let Some((id, until, Some(decided))) = self.ledger.settled(usable).await? else { return Ok(call) };
        let by = decided.by.as_deref().cloned().ok_or_else(|| Fault::new("an approval that nobody gave"))?;
        // What was revoked since it was given revokes it, like any other approval.
        let approver = identity_of(&by);
        let hit = self.ledger.settled(|s| {
            let identities = approver.iter().map(|one| (one.issuer.as_str(), one.sub.as_str())).collect();
            s.rules.blocks(&Facts { revision: decided.revision, identities, ..Facts::default() })
        });
        if let Some(hit) = hit.await? {
            return Err(No::Refusal(refused_by(&hit, "this approval")));
        }
        let digest = sha256(format!("mayfly approval of a call 1\n{id}").as_bytes()).to_vec();
        let used = UsedOnce { digest, until: until.plus(limits::REQUEST_ID_KEPT_MS).0, approval: id.as_bytes().to_vec() };
        let view = self.ledger.view();
        let record = Record::new(Who::of(caller), Event::UsedOnce(used)).decided_at(view.revision());
        self.ledger.commit(Lane::Change, vec![record]).await?;
        call.approved = Some(by.name());
        Ok(call)
    }

    /// Asks another operator for what a call waits for: once for the same request. The refusal that says so.
    pub async fn ask_for_call(&self, caller: &Caller, call: &Call) -> No {
        let Some(asks) = call.asks.lock().clone() else { return No::Fault(Fault::new("a call that waits for nothing")) };
        match self.asked_for_call(caller, call, &asks).await {
            Ok(id) => {
                let what = format!("another operator has to approve this call first: {}", asks.why);
                let way_out = format!(
                    "another operator whom policy lets (ApproveChange): mayfly approval give {id}; then send the same again"
                );
                No::Refusal(Refusal::new(Reason::ApprovalNeeded, what).by("two people").approval(id.to_string()).way_out(way_out))
            }
            Err(no) => no,
        }
    }

    async fn asked_for_call(&self, caller: &Caller, call: &Call, asks: &Asks) -> Result<ApprovalId, No> {
        let (who, now) = (Who::of(caller), self.system.wall());
        let name = who.name();
        let same = |a: &Approval| a.asked.of() == ApprovalOf::Call && a.asked.caller == name && a.asked.digest == call.digest;
        let known = |s: &State| {
            let mut alike = s.approvals.iter().filter(|(_, a)| same(a) && !a.used && a.expires_at() > now);
            alike.find(|(_, a)| a.decided.as_ref().is_none_or(|d| !d.given)).map(|(id, a)| (*id, a.decided.clone()))
        };
        match self.ledger.settled(known).await? {
            Some((id, None)) => return Ok(id),
            Some((id, Some(refused))) => {
                let by = refused.by.as_deref().map_or_else(String::new, Who::name);
                let what = format!("approval {id} of this call was refused by {by}: {}", refused.reason);
                return Err(No::Refusal(Refusal::new(Reason::DeniedByPolicy, what).by("two people")));
            }
            None => {}
        }
        let (id, view) = (ApprovalId::from_bytes(self.system.id16()), self.ledger.view());
        let record = ApprovalAsked {
            approval: id.as_bytes().to_vec(),
            digest: call.digest.to_vec(),
            caller: name,
            expires_at: now.plus(limits::APPROVAL_TTL_DEFAULT_MS).0,
            of: ApprovalOf::Call as i32,
            environment: asks.environment.clone().unwrap_or_default(),
            tool: call.rpc.clone(),
            purpose: call.text.clone(),
            policies: vec![Action::Admin(asks.action).name().to_owned()],
            ..ApprovalAsked::default()
        };
        let record = Record::new(who, Event::ApprovalAsked(record.into())).decided_at(view.revision());
        self.ledger.commit(Lane::Change, vec![record]).await?;
        Ok(id)
    }

    /// Lets another operator's call through, once.
    pub(crate) async fn let_call_through(&self, caller: &Caller, asked: &ApprovalAsked, decision: &Decision) -> Result<(), No> {
        let who = self.may_approve_change(caller, asked, ("call", &asked.tool))?;
        let name = who.name();
        let approvals = ApprovalFacts { count: 1, people: &[&name] };
        self.author_still_may(
            asked,
            action_of(asked)?,
            &Act { environment: place_of(asked), approvals, now: self.system.wall(), ..Act::default() },
        )?;
        let event = Event::ApprovalDecided(given(decision, caller));
        self.change(who, Lane::Grant, event, &decision.terms.named).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_incident_takes_never_waits_and_what_is_new_does() {
        for rpc in ["RevocationService.Revoke", "RevocationService.AddLock", "TaskService.HoldTask", "KeyService.CompromiseKey"] {
            assert_eq!(Waits::of(rpc), Waits::Never, "{rpc}");
        }
        assert_eq!(Waits::of("PolicyService.SetPolicy"), Waits::WithItsChange);
        assert_eq!(Waits::of("SomeService.NeverHeardOf"), Waits::ToBeSentAgain);
    }

    #[test]
    fn a_call_is_its_author_its_name_and_its_request() {
        let digest = |rpc, author, bytes: &[u8]| Call::new(rpc, author, (bytes, String::new(), false)).digest;
        let one = digest("KeyService.RotateKey", "spiffe://td/a", b"x");
        assert_eq!(one, digest("KeyService.RotateKey", "spiffe://td/a", b"x"));
        assert_ne!(one, digest("KeyService.RotateKey", "spiffe://td/b", b"x"));
        assert_ne!(one, digest("KeyService.RetireKey", "spiffe://td/a", b"x"));
        assert_ne!(one, digest("KeyService.RotateKey", "spiffe://td/a", b"y"));
    }
}
