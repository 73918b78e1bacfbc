//! Static secrets of upstreams: operators store them, grants hand them out, hooks rotate them.
//!
//! - [`vault`]: the sealed values, and what connectors see of them. [`hook`]: the programs that make, verify and revoke secrets at vendors;
//!   [`rotation`]: when they run.
//!
//! The ledger says which versions exist, which one is handed out and what is due ([`mayfly_ledger::state::ManagedSecret`]). A value is sealed
//! in the store's named values (`secret/<id>`) and durable before the record that names it; it is deleted after the record that ends its
//! version. Values without a live version, such as those of a process that was killed in between, are swept.
//!
//! A value is never in a record, a log line, an error or an answer to an operator. Records hold a digest under a key of mayfly.

pub mod hook;
mod rotation;
pub mod vault;

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use crate::admission::Admitted;
use crate::authority::Authority;
use crate::tasks::{IdempotencyKey, request_of};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, Event, Record, SecretChanged, SecretStep, SecretStored};
use mayfly_ledger::state::{ManagedSecret, SecretState};
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_policy::admin;
use mayfly_store::Position;
use mayfly_verify::seq::Seq;
pub use rotation::SecretRotations;
use vault::SealedSecret;

/// The failed attempts of a step, since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationProgress {
    /// The number of failed attempts.
    pub attempts: u32,
    /// The error of the last one.
    pub last: String,
    /// Time until the next one, milliseconds.
    pub next_in_ms: u64,
}

/// An upstream with the section of a stored secret.
struct SecretUpstream {
    upstream: Upstream,
    admitted: Admitted<admin::ManageUpstreams>,
}

/// The result of removing a secret.
#[derive(Clone, Debug)]
pub struct SecretRemoval {
    /// The record.
    pub seq: Seq,
    /// The versions that may still be valid at the vendor.
    pub versions: Vec<u64>,
}

/// A secret as operators see it: no value.
#[derive(Clone, Debug)]
pub struct ListedSecret {
    /// The upstream.
    pub upstream: String,
    /// The state of the secret. `None`: no secret was stored yet.
    pub secret: Option<ManagedSecret>,
    /// The registration, if there is one.
    pub registration: Option<std::sync::Arc<Upstream>>,
}

/// The rule of refusals by what a registration says.
const REGISTRATION: &str = "the upstream's registration";

fn of_another_kind(name: &str) -> Refusal {
    let no = Refusal::new(Reason::NotServed, format!("upstream {name} is not of kind secret, so it has no stored secret"));
    no.way_out("mayfly upstream template secret")
}

/// Where the secret of an upstream is read from, in words, if mayfly does not keep it.
fn source_of(upstream: &Upstream) -> Option<String> {
    mayfly_credential::secret::stored_settings(&upstream.settings)?.source
}

/// Checks a secret before it is stored.
fn check(value: &[u8], upstream: &Upstream) -> Result<(), Refusal> {
    if value.is_empty() || value.len() > limits::STATIC_SECRET_BYTES {
        let what = format!("has {} bytes, must have 1 to {}", value.len(), limits::STATIC_SECRET_BYTES);
        return Err(Refusal::field("value", what));
    }
    let settings = mayfly_credential::secret::stored_settings(&upstream.settings);
    if settings.is_some_and(|s| s.in_header) && !mayfly_credential::secret::fits_a_header(value) {
        let what = "is sent in a header, so it must be visible ASCII without spaces or line breaks at its ends";
        return Err(Refusal::field("value", what));
    }
    Ok(())
}

impl Authority {
    /// The upstream of a secret, for an operator who may manage it.
    async fn secret_upstream(&self, operator: &Operator, name: &str) -> Result<SecretUpstream, Error> {
        let found = self.standing_of(name).await?;
        let environment = found.as_ref().map(|(upstream, _)| upstream.environment.clone());
        // An operator who may manage no upstreams must not learn which upstreams exist.
        let admitted = self.admit_to_found::<admin::ManageUpstreams>(operator, environment.as_deref())?;
        let (Some(admitted), Some((upstream, version))) = (admitted, found) else {
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no upstream {name}"))));
        };
        if version.retired {
            return Err(Error::Refusal(Refusal::new(Reason::UpstreamNotActive, format!("upstream {name} was retired"))));
        }
        Ok(SecretUpstream { upstream, admitted })
    }

    /// Stores a new version of an upstream's secret, which is handed out from then on. The version before is over, unless a hook can revoke it
    /// at the vendor after the overlap.
    ///
    /// Refused: NOT_FOUND, UPSTREAM_NOT_ACTIVE, NOT_SERVED, INVALID_FIELD, LIMIT_REACHED, REQUEST_ID_REUSED.
    pub async fn put_secret(
        &self,
        operator: &Operator,
        name: &str,
        value: Zeroizing<Vec<u8>>,
        named: &IdempotencyKey,
    ) -> Result<(u64, Seq), Error> {
        let SecretUpstream { upstream, admitted } = self.secret_upstream(operator, name).await?;
        if !upstream.issues(Kind::Secret) {
            let no =
                Refusal::new(Reason::NotServed, format!("upstream {name} is not of kind secret, so it has no stored secret"));
            return Err(Error::Refusal(no.way_out("mayfly upstream template secret")));
        }
        if let Some(source) = source_of(&upstream) {
            let no = format!("the secret of upstream {name} is read at each grant ({source}), so none is stored");
            let no = Refusal::new(Reason::NotServed, no);
            return Err(Error::Refusal(
                no.by(REGISTRATION).way_out("replace it there, or remove [secret.source] from the registration"),
            ));
        }
        check(&value, &upstream)?;
        let who = admitted.who();
        let _one = self.changing.lock().await;
        if let Some(before) = self.remembered(&who.name(), named).await? {
            return self.stored_before(before.at, named);
        }
        let sealed = SealedSecret { value: value.to_vec(), id: String::new() };
        let ends_previous = !self.rotations.has_hook(name);
        let stored = self.keep_secret(&upstream, sealed, None).await?;
        let version = stored.version;
        let event = Event::SecretStored(SecretStored { current: true, ends_previous, ..stored });
        let record = Record::new(who.clone(), event).for_request(request_of(&who.name(), named));
        let seq = self.ledger.commit(ProposalKind::Change, vec![record]).await?.seq();
        self.sweep_secrets_now().await;
        Ok((version, seq))
    }

    fn stored_before(&self, at: Position, named: &IdempotencyKey) -> Result<(u64, Seq), Error> {
        let records = self.ledger.records_at(at)?;
        let mine = |r: &&Record| r.request.as_ref().map(|r| &r.id) == named.as_ref().map(|(id, _)| id);
        let reused =
            || Error::Refusal(Refusal::new(Reason::RequestIdReused, "that request_id was used before for another request"));
        match records.iter().find(mine).map(|r| &r.event) {
            Some(Some(Event::SecretStored(stored))) => {
                let seq = self.ledger.peek(|s| seq_of(s.secrets.get(stored.upstream.as_str()).map(|s| &**s), stored.version));
                Ok((stored.version, seq))
            }
            Some(Some(Event::SecretChanged(changed))) => {
                let seq = self.ledger.peek(|s| seq_of(s.secrets.get(changed.upstream.as_str()).map(|s| &**s), changed.version));
                Ok((changed.version, seq))
            }
            _ => Err(reused()),
        }
    }

    /// Requests that the version in use is rotated by the hook of the upstream.
    ///
    /// Refused: NOT_FOUND, UPSTREAM_NOT_ACTIVE, NOT_READY where no secret is stored or no hook is configured, REQUEST_ID_REUSED.
    pub async fn rotate_secret(
        &self,
        operator: &Operator,
        name: &str,
        reason: &str,
        named: &IdempotencyKey,
    ) -> Result<(u64, Seq), Error> {
        let SecretUpstream { upstream, admitted } = self.secret_upstream(operator, name).await?;
        let who = admitted.who();
        if let Some(before) = self.remembered(&who.name(), named).await? {
            return self.stored_before(before.at, named);
        }
        if let Some(source) = source_of(&upstream) {
            let no = format!("the secret of upstream {name} is read at each grant ({source}), and mayfly does not rotate it");
            return Err(Error::Refusal(Refusal::new(Reason::NotServed, no).by(REGISTRATION).way_out("rotate it there")));
        }
        if !self.rotations.has_hook(name) {
            let no = Refusal::new(Reason::NotReady, format!("no hook is configured that rotates the secret of upstream {name}"));
            let way_out = format!("make a new key at the vendor and store it: mayfly secret put {name}; or configure a hook");
            return Err(Error::Refusal(no.by("the hooks of the server's configuration").way_out(way_out)));
        }
        let current =
            self.ledger.settled(|s| s.secrets.get(name).and_then(|s| Some((s.current()?.version, s.requested.clone()))));
        let Some((version, requested)) = current.await? else {
            let no =
                Refusal::new(Reason::NotReady, format!("no secret of upstream {name} is stored, so there is nothing to rotate"));
            return Err(Error::Refusal(no.by("the stored secrets").way_out(format!("mayfly secret put {name}"))));
        };
        if requested.is_some() {
            // What the operator wants is under way; it is tried at once.
            self.rotations.try_now(name);
            return Ok((version, self.ledger.durable()));
        }
        let event = requested_step(&upstream.name, &upstream.environment, version, reason, false);
        let seq = self.change(who, ProposalKind::Change, event, named).await?;
        self.rotations.try_now(name);
        Ok((version, seq))
    }

    /// Ends all versions of an upstream's secret, also of an upstream that was retired, and deletes their values.
    ///
    /// Refused: NOT_FOUND, REQUEST_ID_REUSED.
    pub async fn remove_secret(
        &self,
        operator: &Operator,
        name: &str,
        reason: &str,
        named: &IdempotencyKey,
    ) -> Result<SecretRemoval, Error> {
        let found = self.ledger.settled(|s| s.secrets.get(name).cloned()).await?;
        // An upstream without a secret says so to its own operators only.
        let registered = self.standing_of(name).await?.map(|(upstream, _)| upstream);
        let of = registered.as_ref().map(|upstream| upstream.environment.as_str());
        let environment = found.as_ref().map(|secret| &*secret.environment).or(of);
        let admitted = self.admit_to_found::<admin::ManageUpstreams>(operator, environment)?;
        let (Some(admitted), Some(secret)) = (admitted, found) else {
            return Err(match registered.filter(|upstream| !upstream.issues(Kind::Secret)) {
                Some(_) => Error::Refusal(of_another_kind(name)),
                None => Error::Refusal(Refusal::new(Reason::NotFound, format!("upstream {name} has no stored secret"))),
            });
        };
        let who = admitted.who();
        if let Some(before) = self.remembered(&who.name(), named).await? {
            return Ok(SecretRemoval { seq: before.seq, versions: Vec::new() });
        }
        let removed = SecretChanged {
            upstream: name.to_owned(),
            environment: secret.environment.to_string(),
            version: secret.current().map_or(0, |v| v.version),
            step: SecretStep::Removed as i32,
            reason: reason.to_owned(),
            ..SecretChanged::default()
        };
        let versions = secret.live().map(|v| v.version).collect();
        let seq = self.change(who, ProposalKind::Change, Event::SecretChanged(removed), named).await?;
        let _one = self.changing.lock().await;
        self.sweep_secrets_now().await;
        Ok(SecretRemoval { seq, versions })
    }

    /// The number of secrets whose rotation was requested, or is overdue by the schedule.
    pub fn secrets_to_rotate(&self) -> usize {
        let (compiled, now) = (self.catalog.now(), self.system.wall());
        let due = |name: &str, secret: &ManagedSecret| {
            let rotation = compiled.upstream(name).and_then(|r| r.upstream.rotation);
            let overdue = secret.current().zip(rotation).is_some_and(|(v, s)| v.stored_at.plus(s.saturating_mul(1000)) <= now);
            secret.requested.is_some() || overdue
        };
        self.ledger.peek(|s| s.secrets.iter().filter(|(name, secret)| due(name, secret)).count())
    }

    /// The secrets of all upstreams of kind `secret`, and of those that are not registered any more and still have one, by upstream.
    pub async fn secrets(&self) -> Result<Vec<ListedSecret>, Error> {
        let stored = self.ledger.settled(|s| s.secrets.clone()).await?;
        let compiled = self.catalog.now();
        let registered = compiled.upstreams().filter(|r| r.upstream.issues(Kind::Secret)).map(|r| r.upstream.name.clone());
        let gone = stored.iter().filter(|(_, secret)| secret.live().next().is_some()).map(|(name, _)| name.to_string());
        let names: BTreeSet<String> = registered.chain(gone).collect();
        let listed = names.into_iter().map(|name| ListedSecret {
            secret: stored.get(name.as_str()).map(|secret| ManagedSecret::clone(secret)),
            registration: compiled.upstream(&name).map(|r| r.upstream.clone()),
            upstream: name,
        });
        Ok(listed.collect())
    }
}

fn seq_of(secret: Option<&ManagedSecret>, version: u64) -> Seq {
    secret.and_then(|s| s.version(version)).map_or(Seq::ZERO, |v| v.seq)
}

/// The event that requests the rotation of a version.
pub(crate) fn requested_step(upstream: &str, environment: &str, version: u64, reason: &str, at_once: bool) -> Event {
    Event::SecretChanged(SecretChanged {
        upstream: upstream.to_owned(),
        environment: environment.to_owned(),
        version,
        step: SecretStep::RotationRequested as i32,
        reason: reason.to_owned(),
        at_once,
        ..SecretChanged::default()
    })
}

impl ListedSecret {
    /// The environment.
    pub fn environment(&self) -> &str {
        let registered = self.registration.as_ref().map(|r| r.environment.as_str());
        registered.or(self.secret.as_ref().map(|s| &*s.environment)).unwrap_or_default()
    }

    /// When the version in use is due to be rotated by its schedule.
    pub fn due_at(&self) -> Option<mayfly_verify::seq::Millis> {
        let current = self.secret.as_ref()?.current()?;
        Some(current.stored_at.plus(self.registration.as_ref()?.rotation?.saturating_mul(1000)))
    }

    /// What stands, and what an operator has to do, in words.
    pub fn status(&self, now: mayfly_verify::seq::Millis, has_hook: bool) -> String {
        let name = &self.upstream;
        let mut parts = Vec::new();
        let current = self.secret.as_ref().and_then(ManagedSecret::current);
        if let Some(source) = self.registration.as_deref().and_then(source_of) {
            parts.push(format!("read at each grant: {source}"));
            if let Some(v) = current {
                let remedy = format!("mayfly secret remove {name} --reason TEXT");
                parts.push(format!("version {} is still stored, and is not handed out: {remedy}", v.version));
            }
            return parts.join("; ");
        }
        match (current, &self.registration) {
            (None, Some(_)) => parts.push(format!("no secret is stored: mayfly secret put {name}")),
            (Some(v), Some(registered)) if *v.target != registered.target => parts.push(format!(
                "it was stored for {} and is not handed out for {}: mayfly secret put {name}",
                v.target, registered.target
            )),
            (_, None) => {
                parts.push(format!("the upstream is not registered any more: mayfly secret remove {name} --reason TEXT"))
            }
            _ => {}
        }
        let requested = self.secret.as_ref().and_then(|s| s.requested.as_ref());
        let by_hand = format!("make a new key at the vendor, revoke the old one, and: mayfly secret put {name}");
        match requested {
            Some(asked) if has_hook => parts.push(format!("version {} is to be rotated", asked.version)),
            Some(asked) => parts.push(format!("version {} is to be rotated: {by_hand}", asked.version)),
            None if self.due_at().is_some_and(|due| due <= now) && !has_hook => {
                parts.push(format!("its rotation is overdue: {by_hand}"));
            }
            None => {}
        }
        let of = |state| self.secret.iter().flat_map(|s| &s.versions).filter(move |v| v.state == state);
        parts.extend(of(SecretState::Candidate).map(|v| format!("version {} waits for its verification", v.version)));
        parts.extend(of(SecretState::Retiring).map(|v| format!("version {} is to be revoked at the vendor", v.version)));
        if parts.is_empty() { "in use".to_owned() } else { parts.join("; ") }
    }
}

/// The author of steps that mayfly takes by itself.
pub(crate) fn by_schedule(cause: &str) -> Author {
    Author::Mayfly(cause.to_owned())
}

/// A fault of the store or the sealing key.
fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Fault(Fault::new(format!("{what}: {error}")))
}
