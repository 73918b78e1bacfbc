//! Authorization of one action, such as a tool call: the same decision as for an exchange, without issuing a credential. The decision
//! is counted (`context.counts.authorized_in_task`), and its record is durable before the caller is answered.

use crate::authority::Authority;
use crate::people::approvals::needs_approval;
use crate::redecide::{DecisionAttempts, is_void};
use crate::tasks::{IdempotencyKey, request_of};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::record::{ActionAuthorized, Author, Event, Record};
use mayfly_ledger::state::RememberedRequest;
use mayfly_ledger::{ProposalKind, View};
use mayfly_policy::decide::CredentialSnapshot;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_verify::seq::{Millis, Seq};

/// A permitted action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionPermit {
    /// The sequence number of the decision's record.
    pub seq: Seq,
    /// The decision revision: the decision saw everything up to this sequence number.
    pub revision: Seq,
    /// The action must begin before this time.
    pub until: Millis,
}

/// The current state of a credential that was presented to a server.
pub struct PresentedCredential {
    held: CredentialSnapshot,
}

impl PresentedCredential {
    /// The task and the upstream of the credential.
    pub fn names(&self) -> (String, String) {
        (self.held.task().to_string(), self.held.upstream.to_string())
    }
}

/// The refusal of a token that is invalid or that the caller may not know of; both get the same answer.
fn not_active() -> Error {
    let no = Refusal::new(Reason::CredentialNotActive, "the token is not a valid credential for an upstream that you serve");
    Error::Refusal(no.way_out("the client that presented the token has to get a new credential"))
}

impl Authority {
    /// Looks up a token that was presented to a server of its upstream, and checks that it is valid.
    pub async fn shown(&self, caller: &Caller, token: &str) -> Result<PresentedCredential, Error> {
        self.still_stands(caller)?;
        let id = self.identify(token)?.ok_or_else(not_active)?;
        let now = self.system.wall();
        let held = self.ledger.settled(|s| {
            let live = s.credentials.get(&id)?;
            s.evidence_alive(&id, now).ok()?;
            Some(CredentialSnapshot::of(s, &live, s.tasks.at(live.task())?))
        });
        let mut held = held.await?.ok_or_else(not_active)?;
        if !self.serves(caller, &held.upstream) {
            return Err(not_active());
        }
        self.with_record(&mut held).await?;
        Ok(PresentedCredential { held })
    }

    /// Loads the details that only the issuance record has: the arguments that the credential serves for, and its approvers.
    async fn with_record(&self, held: &mut CredentialSnapshot) -> Result<(), Error> {
        let found = self.issuance(held.id).await?.ok_or_else(not_active)?;
        let issued = found.issued()?;
        let approval = mayfly_verify::seq::ApprovalId::from_slice(&issued.approval);
        let by = approval.and_then(|id| self.ledger.peek(|s| s.approvals.get(&id)?.decided.as_ref()?.by.clone()));
        held.with_record(issued, by.map(|by| by.name()));
        Ok(())
    }

    /// Decides an action of the caller's own, or one with a credential that was presented to the caller.
    pub async fn authorize(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        shown: Option<&PresentedCredential>,
    ) -> Result<ActionPermit, Error> {
        let who = caller.id().as_str();
        let named: IdempotencyKey = want.request_id.as_ref().map(|id| (id.to_string(), want.digest));
        let mut waited = false;
        let mut attempts = DecisionAttempts::default();
        loop {
            self.still_stands(caller)?;
            if let Some(before) = self.remembered(who, &named).await? {
                return self.authorized_before(&before, &named);
            }
            let view = self.ledger.view();
            let compiled = self.catalog.now();
            let mut part = want.traced.span("decide");
            let decided = part.of(match shown {
                None => self.decider.authorize(&view, &compiled, caller, want),
                Some(shown) => self.decider.authorize_held(&view, &compiled, &shown.held, want),
            });
            drop(part);
            let decided = match decided {
                Err(no) if needs_approval(&no) && shown.is_none() => {
                    self.approved(&view, (caller, want), no, &mut waited).await?;
                    continue;
                }
                decided => decided?,
            };
            let until = Millis(decided.expires_at).min(view.now().plus(limits::AUTHORIZATION_MS));
            let authorized = ActionAuthorized {
                credential: shown.map_or_else(Vec::new, |shown| shown.held.id.as_bytes().to_vec()),
                tool: decided.tool.clone(),
                arguments: decided.arguments.clone(),
                policy_version: decided.policy_version,
                decided: Some(decided),
                good_until: until.0,
            };
            match self.note_authorized(&view, who, authorized, &named).await {
                Ok(seq) => return Ok(ActionPermit { seq, revision: view.revision(), until }),
                Err(no) => self.redecide(&mut attempts, no, is_void).await?,
            }
        }
    }

    async fn note_authorized(
        &self,
        view: &View,
        who: &str,
        authorized: ActionAuthorized,
        named: &IdempotencyKey,
    ) -> Result<Seq, Error> {
        let under_way = self.ledger.minting(1);
        let record = Record::new(Author::SpiffeId(who.to_owned()), Event::Authorized(authorized))
            .decided_at(view.revision())
            .for_request(request_of(who, named));
        let receipt = self.ledger.commit(ProposalKind::Grant, vec![record]).await;
        drop(under_way);
        Ok(receipt?.seq())
    }

    /// Handles a repeated request: returns the earlier permission if it is still valid and not revoked.
    fn authorized_before(&self, before: &RememberedRequest, named: &IdempotencyKey) -> Result<ActionPermit, Error> {
        let (at, seq) = (before.at, before.seq);
        let no_such = || Error::Fault(Fault::new(format!("commit {at} does not hold the authorization at seq {seq}")));
        let records = self.ledger.records_at(at)?;
        let own = |r: &&Record| {
            let id = r.request.as_ref().map(|request| &request.id);
            r.requester() == Some(&*before.caller) && id == named.as_ref().map(|(id, _)| id)
        };
        let record = records.iter().find(own).ok_or_else(no_such)?;
        let Some(Event::Authorized(e)) = &record.event else { return Err(no_such()) };
        let revision = record.revision();
        let now = self.system.wall();
        self.ledger.peek(|s| s.still_authorized(e, revision, now))?;
        Ok(ActionPermit { seq, revision, until: Millis(e.good_until) })
    }
}
