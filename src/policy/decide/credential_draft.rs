//! Settles the properties of a credential: its scopes, kind, lifetime and key binding, and builds the draft of its record.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::task_context::TaskContext;
use super::{Decider, ExchangeDecision, denied, svid_of};
use crate::catalog::{BindingInForce, CompiledCatalog, RegisteredUpstream};
use crate::exchange_request::{ExchangeRequest, RenewedCredential, RequestedCertificateKey, RequestedKeyBinding};
use crate::lifetime::{BoundedExpiry, LifetimeBound};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{Ancestor, CredentialIssued};
use mayfly_ledger::upstream::registry::{Alg, Kind, ProofOfPossession, Upstream};
use mayfly_verify::seq::Millis;

impl Decider {
    /// The lifetime: the earliest of all bounds, with the bound that set it.
    pub(super) fn life(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        upstream: &Upstream,
        place: &TaskContext,
        now: Millis,
    ) -> Result<BoundedExpiry, Error> {
        let ttl = &upstream.ttl;
        let life = match want.ttl_ms {
            Some(ms) if ms < (ttl.min * 1000).max(limits::CREDENTIAL_TTL_MIN_MS) => {
                let least = ttl.min.max(limits::CREDENTIAL_TTL_MIN_MS / 1000);
                let what = format!("{} ms, and upstream {} issues for at least {least} s", ms, upstream.name);
                return Err(Error::Refusal(Refusal::field("ttl", what)));
            }
            Some(ms) => BoundedExpiry::until(now.plus(ms), LifetimeBound::Asked),
            None => BoundedExpiry::until(now.plus(ttl.default * 1000), LifetimeBound::Upstream),
        };
        let life = life
            .within(now.plus(ttl.max * 1000), LifetimeBound::Upstream)
            .within(upstream.expires, LifetimeBound::UpstreamExpiry)
            // Applied before the task's deadline, so that it wins the tie when the task was opened with this token and ends with it.
            .within(want.subject().map_or(Millis(u64::MAX), |s| Millis(s.token().expires_at)), LifetimeBound::SubjectToken)
            .within(place.deadline, if place.break_glass.is_some() { LifetimeBound::BreakGlass } else { LifetimeBound::Task })
            .within(caller.evidence().not_after, LifetimeBound::Svid)
            .within(now.plus(self.longest_ms.load(Relaxed)), LifetimeBound::Server);
        let life = match &want.renews {
            Some(renews) if renews.approval => {
                return Err(denied(
                    Reason::ApprovalNeeded,
                    "a credential that used up an approval is not renewed: ask for a new one",
                ));
            }
            Some(renews) => life.within(renews.until, LifetimeBound::Renewal),
            None => life,
        };
        if life.end() < now.plus(limits::CREDENTIAL_LIFE_LEFT_MS) {
            return Err(denied(
                Reason::NoLifeLeft,
                format!("nothing is left of its life: {:?} ends it at {}", life.by(), life.end()),
            ));
        }
        Ok(life)
    }

    pub(super) fn key_binding(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        (upstream, kind): (&Upstream, Kind),
        place: &TaskContext,
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        if !kind.is_token() {
            return match want.key {
                // A certificate is for a key by its nature.
                RequestedKeyBinding::Unasked if kind.is_certificate() => Ok((Vec::new(), Vec::new())),
                RequestedKeyBinding::Unasked if place.allowance().key_bound => Err(Error::Refusal(Refusal::field(
                    "kind",
                    format!("is {kind}, which is bound to no key: the task wants every credential bound to a key"),
                ))),
                RequestedKeyBinding::Unasked => Ok((Vec::new(), Vec::new())),
                _ => {
                    let what = format!("cannot be for a credential of kind {kind}, which is no token; leave it out");
                    Err(Error::Refusal(Refusal::field("key_binding", what)))
                }
            };
        }
        let must = upstream.proof_of_possession == ProofOfPossession::X5t;
        match want.key {
            RequestedKeyBinding::CallerSvid => Ok((caller.evidence().leaf_sha256.to_vec(), Vec::new())),
            RequestedKeyBinding::Unasked if must => Ok((caller.evidence().leaf_sha256.to_vec(), Vec::new())),
            RequestedKeyBinding::Thumbprint(_) if must => Err(Error::Refusal(Refusal::field(
                "key_binding",
                format!("upstream {} takes the caller's certificate only", upstream.name),
            ))),
            RequestedKeyBinding::Thumbprint(jkt) => Ok((Vec::new(), jkt.to_vec())),
            RequestedKeyBinding::Unasked if place.allowance().key_bound => {
                Err(Error::Refusal(Refusal::field("key_binding", "is missing: the task wants every credential bound to a key")))
            }
            RequestedKeyBinding::Unasked => Ok((Vec::new(), Vec::new())),
        }
    }

    /// The draft of the issuance record, without tool, purpose and arguments.
    pub(super) fn draft(&self, caller: &Caller, want: &ExchangeRequest, decided: &ExchangeDecision<'_>) -> Box<CredentialIssued> {
        let ExchangeDecision { registered, policy, place, kind, scopes, life, bound: (x5t, jkt), policies, now, .. } = decided;
        let upstream: &Arc<Upstream> = &registered.upstream;
        let renewed = want.renews.as_ref();
        let mut draft = Box::new(CredentialIssued {
            task: place.id.as_bytes().to_vec(),
            kind: kind.tag().into(),
            caller: caller.id().as_str().to_owned(),
            upstream: upstream.name.clone(),
            scopes: scopes.clone(),
            details: want.details.as_deref().unwrap_or_default().to_owned(),
            environment: upstream.environment.clone(),
            issued_at: now.0,
            expires_at: life.end().0,
            renewable_until: renewed.map_or_else(|| place.max_deadline.min(upstream.expires), |r| r.until).0,
            bound: life.by() as u32,
            svid: Some(svid_of(caller)),
            x5t: x5t.clone(),
            jkt: jkt.clone(),
            policy_version: policy.version,
            upstream_version: registered.version,
            policies: policies.clone(),
            binding: decided.binding.map_or_else(String::new, |b| b.binding.name.clone()),
            binding_version: decided.binding.map_or(0, |b| b.version),
            approval: decided.approval.as_ref().map_or_else(Vec::new, |given| given.id.as_bytes().to_vec()),
            renews: renewed.map_or_else(Vec::new, |r| r.id.as_bytes().to_vec()),
            ancestors: ancestors(caller, renewed.map(|l| &**l), place),
            replaces: want.replaces.map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            shown: caller.ancestor().map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            break_glass: place.break_glass.is_some(),
            access: decided.access.as_ref().map_or_else(Vec::new, |access| access.words()),
            ..CredentialIssued::default()
        });
        super::subject::write(&mut draft, caller, want.subject(), place);
        draft
    }
}

/// The credentials that this one depends on: the first of its renewal chain, the logins of people who opened its tasks, and the caller's
/// own SVID, newest last.
fn ancestors(caller: &Caller, renewed: Option<&RenewedCredential>, place: &TaskContext) -> Vec<Ancestor> {
    let shown = caller.ancestor().map(|id| Ancestor { credential: id.as_bytes().to_vec(), caller: caller.id().to_string() });
    let mut all: Vec<Ancestor> = renewed.into_iter().map(|r| r.first.clone()).collect();
    for one in place.behind().iter().cloned().chain(shown) {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

pub(super) fn active(registered: &RegisteredUpstream, now: Millis) -> Result<(), Error> {
    let name = &registered.upstream.name;
    if !registered.active {
        return Err(denied(Reason::UpstreamNotActive, format!("upstream {name} is disabled or retired")));
    }
    if registered.owner_left {
        return Err(Error::Refusal(
            Refusal::new(
                Reason::UpstreamNotActive,
                format!("the owner of {name}, {}, has left, and the upstream has no new owner", registered.upstream.owner),
            )
            .way_out("an operator can name a new owner: mayfly upstream change FILE"),
        ));
    }
    if registered.upstream.expires <= now {
        return Err(Error::Refusal(
            Refusal::new(
                Reason::UpstreamNotActive,
                format!("the registration of {name} ended at {}", registered.upstream.expires),
            )
            .way_out(format!("its owner {} renews the registration", registered.upstream.owner)),
        ));
    }
    Ok(())
}

/// The requested scopes; each must be registered.
pub(super) fn scopes_of(upstream: &Upstream, asked: &[String]) -> Result<Vec<String>, Error> {
    match asked.iter().find(|name| upstream.scope(name).is_none()) {
        Some(name) => Err(denied(Reason::OutsideUpstream, format!("upstream {} has no scope {name}", upstream.name))),
        None => Ok(asked.to_vec()),
    }
}

/// The binding that covers the request. A binding named by the caller must cover it; otherwise the covering binding with the first name is
/// used, if any covers the request.
pub(super) fn binding_of<'a>(
    compiled: &'a CompiledCatalog,
    caller: &SpiffeId,
    want: &ExchangeRequest,
    scopes: &[String],
) -> Result<Option<&'a BindingInForce>, Error> {
    let all = compiled.bindings(&want.upstream);
    let Some(name) = &want.binding else { return Ok(all.and_then(|all| all.covering(caller, &want.tool, scopes))) };
    let Some(bound) = all.and_then(|all| all.named(name)) else {
        let no = Refusal::new(Reason::NotFound, format!("upstream {} has no binding {name} in force", want.upstream));
        let way_out = "leave the binding out: the first in force that covers the request is used; an operator sees them with mayfly binding list";
        return Err(Error::Refusal(no.by("bindings of the upstream").way_out(way_out)));
    };
    match bound.binding.covers(caller, &want.tool, scopes.iter().map(String::as_str)) {
        true => Ok(Some(bound)),
        false => {
            let tool = if want.tool.is_empty() { "no tool".to_owned() } else { format!("tool {}", want.tool) };
            let what = format!("binding {name} does not give {caller} {} with {tool}", scopes.join(", "));
            Err(Error::Refusal(
                Refusal::new(Reason::OutsideUpstream, what).by(format!("binding {name}")).way_out("mayfly binding show NAME"),
            ))
        }
    }
}

/// Checks that a key was sent for a certificate, and none for another kind. `Authorize` issues nothing, so it takes none.
pub(super) fn certified_key(want: &ExchangeRequest, kind: Kind) -> Result<(), Error> {
    use RequestedCertificateKey::{CertificateRequest, Recorded, Ssh};
    let field = match (kind, want.certified.as_deref()) {
        (Kind::X509, Some(CertificateRequest(_) | Recorded(_))) | (Kind::Ssh, Some(Ssh(_) | Recorded(_))) => return Ok(()),
        (Kind::X509 | Kind::Ssh, None) if want.is_action() => return Ok(()),
        (Kind::X509, _) => ("certificate_request", "is missing: a certificate of kind x509 is for the key of a PKCS #10 request"),
        (Kind::Ssh, _) => ("ssh_public_key", "is missing: a certificate of kind ssh is for a public key in OpenSSH's form"),
        (_, None) => return Ok(()),
        (_, Some(key)) => {
            let what = format!("is for kinds x509 and ssh; a credential of kind {kind} is for no key");
            return Err(Error::Refusal(Refusal::field(key.field(), what)));
        }
    };
    Err(Error::Refusal(Refusal::field(field.0, field.1)))
}

pub(super) fn kind_of(upstream: &Upstream, asked: Option<Kind>) -> Result<Kind, Error> {
    let kind = asked.or_else(|| upstream.kinds.first().copied());
    let kind = kind.filter(|k| upstream.issues(*k)).ok_or_else(|| {
        let of = upstream.kinds.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ");
        denied(Reason::OutsideUpstream, format!("upstream {} issues {of}", upstream.name))
    })?;
    if kind == Kind::Jwt && upstream.alg != Alg::Es256 {
        return Err(Error::Refusal(Refusal::new(Reason::NotServed, format!("this version does not sign {}", upstream.alg))));
    }
    Ok(kind)
}
