//! Making credentials under a lease.

use std::sync::Arc;
use std::time::Duration;

use super::upstream_health::{UpstreamCall, UpstreamOutcome};
use super::worker_queue::{CreationGuard, CreationResult};
use super::{LeaseDriver, LeaseLedger, brief};
use crate::connector::{MakeError, MintOrder, UpstreamConnector, UpstreamCredential, UpstreamHandle};
use crate::keyring::LoadedKey;
use crate::kind::{CredentialKind, records, summary};
use crate::minted::OutcomeReporter;
use crate::{CredentialMaterial, MintedCredential, Novelty};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_ledger::record::{Author, CredentialIssued, Event, KeyPurpose, LeaseOpened, Record};
use mayfly_ledger::state::id_for;
use mayfly_policy::grant::{Grant, GrantParts};
use mayfly_policy::lifetime::LifetimeBound;
use mayfly_verify::seq::{CredentialId, LeaseId};

/// Refuses an irrevocable credential of a kind that is always revocable; an upstream's answer must not change that.
pub(super) fn fitting(kind: CredentialKind, made: UpstreamCredential) -> Result<UpstreamCredential, Fault> {
    match made.irrevocable && !kind.entry().may_be_irrevocable {
        true => Err(Fault::new(format!("an upstream made an irrevocable credential of kind {}", kind.name()))),
        false => Ok(made),
    }
}

pub(super) fn failed(kind: CredentialKind, why: &str) -> Error {
    let no = Refusal::new(
        Reason::UpstreamFailed,
        format!("the upstream did not give a credential of kind {}: {}", kind.name(), brief(why)),
    );
    Error::Refusal(no.retry(Duration::from_secs(1)))
}

/// Why a credential was not made. The request is not worth repeating before an operator has acted, if the connector says so.
pub(super) fn not_made(kind: CredentialKind, why: &MakeError) -> Error {
    match why {
        MakeError::NotReleased(what) => {
            let no = Refusal::new(Reason::NotServed, brief(what)).by("the registration of the upstream and its stored secret");
            Error::Refusal(no.way_out("mayfly secret list shows what an operator has to do"))
        }
        MakeError::Busy(what) => {
            Error::Refusal(Refusal::new(Reason::NotReady, brief(what)).retry(Duration::from_millis(limits::OAUTH_WAIT_MS)))
        }
        other => failed(kind, &other.to_string()),
    }
}

impl<D: LeaseLedger> LeaseDriver<D> {
    /// Makes a credential of a kind that an upstream makes. The lease is durable before the upstream is asked. `group`: the number that
    /// ties the credential's records together.
    ///
    /// Dropping this future, or the returned [`MintedCredential`], undoes what was made.
    ///
    /// Refused: NOT_SERVED, UPSTREAM_FAILED, LIMIT_REACHED, and as the ledger refuses the lease.
    pub async fn mint(&self, grant: Grant, group: u32) -> Result<MintedCredential, Error> {
        let mut parts = grant.into_parts();
        let kind =
            CredentialKind::from_number(parts.draft.kind).ok_or_else(|| Fault::new("a grant of an unknown credential kind"))?;
        let remote = self.maker(kind)?.clone();
        let credential = id_for(parts.request_key().as_ref(), self.system.random16());
        let lease = LeaseId::from_bytes(self.system.random16());
        parts.draft.credential = credential.as_bytes().to_vec();
        parts.draft.lease = lease.as_bytes().to_vec();
        let key = match remote.derives() {
            true => Some(self.password_key(&parts.draft.environment)?),
            false => None,
        };
        parts.draft.key = key.as_ref().map_or_else(String::new, |key| key.id().to_owned());
        let named = remote.name(&order(credential, lease, None, &parts)).map_err(|e| not_made(kind, &e))?;
        if parts.draft.key.is_empty() {
            parts.draft.key = remote.signing_key(&named.terms);
        }

        let place = self.making.enter(&parts.draft.upstream)?;
        self.health.admit(&parts.draft.upstream, self.system.steady())?;
        let system = self.system.clone();
        let mut making = self.queue.making(lease, move || system.steady());
        self.open(lease, &named, &parts.draft, &parts.author).await?;
        let keeper = self.keeper(&*remote, lease);
        let order = order(credential, lease, Some(&named), &parts);
        let order = MintOrder { passwords: key.as_deref(), keeper: keeper.as_ref(), ..order };
        let made = self.ask(&*remote, &order, &mut making).await;
        drop(place);
        let made = fitting(kind, made.map_err(|e| not_made(kind, &e))?)?;
        // So that the token is found again by its text or its digest. A static secret may be short, and its digest would give it away.
        if let CredentialMaterial::Bearer { token, .. } = &made.answer
            && kind != CredentialKind::Secret
        {
            parts.draft.token_digest = token.digest().to_vec();
        }
        if let Some(ends_at) = made.ends_at.filter(|end| end.0 < parts.draft.expires_at) {
            parts.draft.expires_at = ends_at.0;
            parts.draft.bound = LifetimeBound::Upstream as u32;
            if ends_at.0 < parts.draft.issued_at.saturating_add(limits::CREDENTIAL_LIFE_LEFT_MS) {
                return Err(Error::Refusal(Refusal::new(
                    Reason::NoLifeLeft,
                    "the upstream's credential ends in less than a second",
                )));
            }
        }
        let novelty = if parts.draft.replaces.is_empty() { Novelty::New } else { Novelty::Replaced };
        let summary = summary(&parts.draft, credential, kind, parts.revision, novelty, made.irrevocable)?;
        let summary = summary.ending_upstream(named.ends_at);
        let lapse = OutcomeReporter::new(move |outcome| making.end(outcome));
        Ok(MintedCredential::new(records(parts, group), summary, made.answer, lapse))
    }

    /// The key that derives passwords in an environment.
    pub(super) fn password_key(&self, environment: &str) -> Result<Arc<LoadedKey>, Error> {
        self.keyring.active(KeyPurpose::Password, environment).ok_or_else(|| {
            let no = Refusal::new(Reason::NotReady, format!("environment {environment} has no active key for passwords yet"));
            Error::Refusal(no.retry(Duration::from_secs(1)))
        })
    }

    /// Makes the lease durable. If that takes too long the exchange is refused, because another replica could consider the lease left
    /// behind while the credential is still being made.
    pub(super) async fn open(
        &self,
        lease: LeaseId,
        named: &UpstreamHandle,
        issued: &CredentialIssued,
        author: &Author,
    ) -> Result<(), Error> {
        if named.terms.len() > limits::LEASE_TERMS_BYTES {
            let no = format!("the terms of a lease of kind {} have {} bytes", issued.kind, named.terms.len());
            return Err(Fault::new(no).into());
        }
        let opened = LeaseOpened {
            lease: lease.as_bytes().to_vec(),
            credential: issued.credential.clone(),
            task: issued.task.clone(),
            upstream: issued.upstream.clone(),
            kind: issued.kind,
            handle: named.handle.clone(),
            ends_at: named.ends_at.0,
            terms: named.terms.clone(),
        };
        let began = self.system.steady();
        self.durable.commit(vec![Record::new(author.clone(), Event::LeaseOpened(opened))]).await?;
        let took = self.system.steady().saturating_sub(began);
        if took.saturating_add(self.timing().make_ms) >= self.timing().left_ms {
            let no = Refusal::new(Reason::NotReady, format!("the ledger took {took} ms to commit the lease, which is too long"));
            return Err(Error::Refusal(no.retry(Duration::from_secs(1))));
        }
        Ok(())
    }

    pub(super) async fn ask(
        &self,
        remote: &dyn UpstreamConnector,
        order: &MintOrder<'_>,
        making: &mut CreationGuard,
    ) -> Result<UpstreamCredential, MakeError> {
        // From here on a credential may appear upstream, even if this future is dropped while it waits.
        making.fate = CreationResult::Unknown;
        let (limit, began) = (Duration::from_millis(self.timing().make_ms), self.system.steady());
        let made = match tokio::time::timeout(limit, remote.make(order)).await {
            Ok(made) => made,
            Err(_) => Err(MakeError::Unknown(format!("it took longer than {} ms", self.timing().make_ms))),
        };
        let made = match made {
            Ok(_) if remote.undoes_by_secret() && order.keeper.is_some_and(|keeper| !keeper.has_kept()) => {
                Err(MakeError::Unknown("the secret that undoes the credential was not sealed".to_owned()))
            }
            made => made,
        };
        match &made {
            Ok(_) => making.fate = CreationResult::Made,
            Err(MakeError::Refused(_) | MakeError::NotReleased(_) | MakeError::Busy(_)) => {
                making.fate = CreationResult::NeverMade;
            }
            Err(MakeError::Unknown(_)) => {}
        }
        self.note_made(&order.issued.upstream, &made, began);
        made
    }

    /// Notes the outcome of making for the circuit breaker and the metrics. `began`: when the upstream was called.
    fn note_made(&self, upstream: &str, made: &Result<UpstreamCredential, MakeError>, began: u64) {
        let now = self.system.steady();
        let (outcome, why) = match made {
            Ok(_) => (UpstreamOutcome::Done, String::new()),
            // Nothing was made, since the upstream was not reached within the time for connecting.
            Err(no @ MakeError::Refused(_)) if now.saturating_sub(began) >= limits::UPSTREAM_CONNECT_MS => {
                (UpstreamOutcome::Unanswered, no.to_string())
            }
            Err(MakeError::Busy(_)) => return,
            Err(MakeError::Refused(_) | MakeError::NotReleased(_)) => (UpstreamOutcome::Refused, String::new()),
            Err(no @ MakeError::Unknown(_)) => (UpstreamOutcome::Unanswered, no.to_string()),
        };
        self.health.note(upstream, UpstreamCall::Make, outcome, &why, now);
    }
}

/// `named`: once the credential is identified.
fn order<'a>(
    credential: CredentialId,
    lease: LeaseId,
    named: Option<&'a UpstreamHandle>,
    parts: &'a GrantParts,
) -> MintOrder<'a> {
    let (handle, terms) = named.map_or(("", ""), |named| (named.handle.as_str(), named.terms.as_str()));
    let (audience, base_url, settings) = (&*parts.audience, &*parts.base_url, &*parts.settings);
    MintOrder {
        credential,
        lease,
        handle,
        issued: &parts.draft,
        audience,
        base_url,
        settings,
        terms,
        passwords: None,
        keeper: None,
    }
}
