//! Renewals: a new decision, and a new credential in the renewal chain of an earlier one.

use crate::authority::Authority;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_base::trace;
use mayfly_credential::IssuedCredential;
use mayfly_identity::caller::Caller;
use mayfly_ledger::record::{Ancestor, CredentialIssued as Issuance, Event, Record};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_policy::exchange_request::{ExchangeRequest, RequestedCertificateKey, RequestedKeyBinding, TaskChoice};
use mayfly_policy::lifetime::LifetimeBound;
use mayfly_verify::seq::{CredentialId, Millis};

impl Authority {
    /// Renews a credential: a new decision, whose expiry never exceeds the bound fixed at the first issuance. The first credential of the
    /// renewal chain becomes an ancestor. `certified`: a new key for a certificate; `None` for the key of the old one.
    pub async fn renew(
        &self,
        caller: &Caller,
        id: CredentialId,
        ttl_ms: Option<u64>,
        request: Option<(String, [u8; 32])>,
        certified: Option<RequestedCertificateKey>,
    ) -> Result<IssuedCredential, Error> {
        self.still_stands(caller)?;
        let record = self.own_issuance(caller, id).await?;
        let Some(Event::Issued(old)) = &record.event else {
            return Err(Error::Fault(Fault::new("an issuance without its record")));
        };
        let task = mayfly_verify::seq::TaskId::from_slice(&old.task).ok_or_else(|| Fault::new("an issuance without a task"))?;
        let kind = u8::try_from(old.kind).ok().and_then(Kind::from_tag);
        let of_task = self.ledger.peek(|s| s.tasks.get(&task)?.terms.behalf.as_ref()?.token.clone());
        if old.subject.is_some() || old.subject_token != of_task {
            // The subject's rights came from the subject token, which is not presented again.
            let no = Refusal::new(
                Reason::NoLifeLeft,
                format!("credential {id} was issued on behalf of a subject and cannot be renewed"),
            );
            return Err(Error::Refusal(no.way_out("exchange the subject token again")));
        }
        let (request_id, digest) = request.map_or((None, [0; 32]), |(id, digest)| (Some(id), digest));
        let key = match (&old.x5t[..], &old.jkt[..]) {
            ([], []) => RequestedKeyBinding::Unasked,
            ([], jkt) => {
                RequestedKeyBinding::Thumbprint(jkt.try_into().map_err(|_| Fault::new("a thumbprint that is not 32 bytes"))?)
            }
            _ => RequestedKeyBinding::CallerSvid,
        };
        let want = ExchangeRequest {
            task: TaskChoice::Named(task),
            upstream: old.upstream.as_str().into(),
            scopes: old.scopes.as_slice().into(),
            kind,
            ttl_ms: ttl_ms.or_else(|| life_asked_for(old)),
            tool: (&old.tool).into(),
            purpose: (&old.purpose).into(),
            arguments: old.arguments.as_slice().try_into().ok(),
            request_id: request_id.map(Into::into),
            digest,
            key,
            certified: certified.or_else(|| recorded_key(old)).map(Box::new),
            binding: None,
            details: (!old.details.is_empty()).then(|| old.details.as_str().into()),
            replaces: None,
            behalf: None,
            asking: None,
            traced: trace::current(),
            renews: Some(Box::new(mayfly_policy::exchange_request::RenewedCredential {
                id,
                first: first_of_chain(old),
                until: Millis(old.renewable_until),
                approval: !old.approval.is_empty(),
            })),
        };
        let end = self.exchange(caller, &want).await;
        self.exchange_metrics.count(&want.upstream, &end);
        end
    }

    /// The issuance of a credential of this caller. For other callers the credential does not exist.
    async fn own_issuance(&self, caller: &Caller, id: CredentialId) -> Result<Record, Error> {
        let found = self.ledger.peek(|state| {
            let live = state.credentials.get(&id).filter(|l| l.caller() == caller.id().as_str())?;
            Some((live.at(), live.seq()))
        });
        let Some((at, seq)) = found else {
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("you hold no credential {id}"))));
        };
        self.ledger.wait_durable(seq).await?;
        self.issuance_at(at, id)
    }
}

/// The requested lifetime of a credential, as far as its record tells: `None` if none was requested and the upstream's default applied. If
/// another bound shortened it, the result is the granted lifetime, which is at most the requested one; in whole seconds, like requests,
/// since a signed credential expires at a whole second.
fn life_asked_for(old: &Issuance) -> Option<u64> {
    (old.bound != LifetimeBound::Upstream as u32).then(|| old.expires_at.saturating_sub(old.issued_at).div_ceil(1_000) * 1_000)
}

/// The key of the certificate that is renewed.
fn recorded_key(old: &Issuance) -> Option<RequestedCertificateKey> {
    let key = old.certified_key.as_slice();
    (!key.is_empty()).then(|| RequestedCertificateKey::Recorded(key.into()))
}

/// The first credential of a renewal chain: the credential being renewed or, if that is a renewal itself, the first of its ancestors.
fn first_of_chain(old: &Issuance) -> Ancestor {
    let itself = || Ancestor { credential: old.credential.clone(), caller: old.caller.clone() };
    let first = old.ancestors.first().filter(|_| !old.renews.is_empty());
    first.cloned().unwrap_or_else(itself)
}
