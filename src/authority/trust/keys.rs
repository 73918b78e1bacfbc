//! The life cycle of signing keys, driven by operators and by time. The plan of each step is made in [`mayfly_credential::keyring`].

use std::collections::{BTreeMap, BTreeSet};

use crate::admission::Admitted;
use crate::authority::Authority;
use crate::revocation::revoke::{RevocationConfirmation, RevocationHits, confirm_needed};
use crate::tasks::{IdempotencyKey, request_of};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_credential::CredentialKind;
use mayfly_credential::certificates::is_upstream_ca;
use mayfly_credential::keyring::{self, AssertionKeys, ES256, Keyring, RotationPlan, RotationSchedule, value_name};
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, Event, KeyAdded, KeyPurpose, KeyState, Record, upstream_path};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::{ManagedKey, State};
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_policy::admin;
use mayfly_verify::seq::Seq;

/// The purposes for which each environment has a key in this version.
pub const PURPOSES: [KeyPurpose; 2] = [KeyPurpose::AccessToken, KeyPurpose::Reference];

/// The maximum number of planned steps of one purpose (remove, activate, make) until no more are due.
const STEPS: usize = 4;

/// All keys, by id.
pub type KeyTable = BTreeMap<Box<str>, ManagedKey>;

/// The removal of a key.
#[derive(Clone, Debug)]
pub struct KeyRemoval {
    /// The id of the key.
    pub key: String,
    /// The reason.
    pub reason: String,
    /// Only report what would be hit.
    pub dry_run: bool,
    /// The confirmed number of credentials.
    pub confirm: RevocationConfirmation,
    /// The request id, if there is one.
    pub named: IdempotencyKey,
}

/// The result of removing a key.
#[derive(Clone, Debug)]
pub struct KeyRemovalResult {
    /// The sequence number of the revocation rule; `None` for a dry run.
    pub seq: Option<Seq>,
    /// The live credentials that the key had signed.
    pub hits: RevocationHits,
    /// The key in use now, if the removed key was in use.
    pub replacement: Option<String>,
}

impl Authority {
    /// Makes a new key. `ahead_ms`: how long it is published before it is used, 0 for at once; `None` for the default of its purpose.
    ///
    /// Returns its id, and the id of the key that it succeeds. Refused: KEY_STATE while a rotation is in progress, LIMIT_REACHED.
    pub async fn rotate_key(
        &self,
        operator: &Admitted<admin::ManageKeys>,
        (purpose, environment): (KeyPurpose, &str),
        ahead_ms: Option<u64>,
        named: &IdempotencyKey,
    ) -> Result<(String, Option<String>), Error> {
        let _one = self.changing.lock().await;
        let name = operator.who().name();
        if let Some(before) = self.remembered(&name, named).await? {
            return self.rotated_before(before.at, named);
        }
        let keys = self.ledger.peek(|s| s.keys.clone());
        let ahead = ahead_ms.unwrap_or(RotationSchedule::of(purpose).ahead_ms);
        let plan = keyring::rotate(&keys, purpose, environment, ahead)?;
        let previous = in_use(&keys, purpose, environment);
        let made = match plan.make {
            Some(state) => self.make_key(purpose, environment, state, ahead_ms.unwrap_or(0)).await?,
            None => return Err(Error::Fault(Fault::new("a rotation without a new key"))),
        };
        let id = made.key.clone();
        let mut records = plan.records(Some(made), &operator.who(), 0);
        if let Some(last) = records.last_mut() {
            last.request = request_of(&name, named);
        }
        self.ledger.commit(ProposalKind::Change, records).await?;
        Ok((id, previous))
    }

    fn rotated_before(&self, at: mayfly_store::Position, named: &IdempotencyKey) -> Result<(String, Option<String>), Error> {
        let records = self.ledger.records_at(at)?;
        let mine = |r: &&Record| r.request.as_ref().map(|r| &r.id) == named.as_ref().map(|(id, _)| id);
        match records.iter().find(mine).map(|r| &r.event) {
            Some(Some(Event::KeyAdded(added))) => {
                let purpose = KeyPurpose::try_from(added.purpose).unwrap_or(KeyPurpose::Unspecified);
                let keys = self.ledger.peek(|s| s.keys.clone());
                let others = in_use(&keys, purpose, &added.environment).filter(|id| *id != added.key);
                Ok((added.key.clone(), others))
            }
            _ => {
                Err(Error::Refusal(Refusal::new(Reason::RequestIdReused, "that request_id was used before for another request")))
            }
        }
    }

    /// Removes a key that no longer signs, ahead of schedule.
    pub async fn retire_key(
        &self,
        operator: &Admitted<admin::ManageKeys>,
        going: &KeyRemoval,
    ) -> Result<KeyRemovalResult, Error> {
        self.end_key(operator, going, keyring::retire, false).await
    }

    /// Revokes a compromised key: in one group of records it leaves the JWKS, its revocation rule takes effect and a replacement is made.
    pub async fn compromise_key(
        &self,
        operator: &Admitted<admin::ManageKeys>,
        going: &KeyRemoval,
    ) -> Result<KeyRemovalResult, Error> {
        self.end_key(operator, going, keyring::compromise, true).await
    }

    async fn end_key(
        &self,
        operator: &Admitted<admin::ManageKeys>,
        going: &KeyRemoval,
        end: RemovalPlanner,
        replace: bool,
    ) -> Result<KeyRemovalResult, Error> {
        let _one = self.changing.lock().await;
        let who = operator.who();
        let name = who.name();
        let targets = [Target::SigningKey(going.key.as_str().into())];
        let keys = self.ledger.peek(|s| s.keys.clone());
        if let Some(before) = self.remembered(&name, &going.named).await? {
            let hits = self.hit_since(&targets, before.seq).await?;
            return Ok(KeyRemovalResult { seq: Some(before.seq), hits, replacement: replacement(&keys, &going.key) });
        }
        let now = self.system.wall();
        let mut records = end(&keys, &going.key, &going.reason, now, &who, 0)?;
        let mut hits = RevocationHits::default();
        if going.dry_run || going.confirm != RevocationConfirmation::All {
            hits = self.hits(&targets).await?.0;
        }
        if going.dry_run {
            return Ok(KeyRemovalResult { seq: None, hits, replacement: None });
        }
        if !going.confirm.allows(hits.credentials) {
            return Err(confirm_needed(&hits, going.confirm));
        }
        if let Some(rule) = records.first_mut() {
            rule.request = request_of(&name, &going.named);
        }
        if replace {
            records.extend(self.following(&keys, &going.key, &who).await);
        }
        let seq = self.ledger.commit(ProposalKind::Revoke, records).await?.first();
        if going.confirm == RevocationConfirmation::All {
            // An emergency does not wait for the count; the credentials are counted afterwards.
            hits = self.hit_since(&targets, seq).await?;
        }
        self.feed.hit(seq, hits);
        self.shred_keys().await;
        let keys = self.ledger.settled(|s| s.keys.clone()).await?;
        Ok(KeyRemovalResult { seq: Some(seq), hits, replacement: if replace { replacement(&keys, &going.key) } else { None } })
    }

    /// The records of a replacement for a compromised key. Empty if it cannot be made: the revocation does not wait for it, and
    /// [`run_key_maintenance`] tries again.
    async fn following(&self, keys: &KeyTable, going: &str, who: &Author) -> Vec<Record> {
        let mut after = keys.clone();
        let Some(key) = after.get_mut(going).filter(|k| k.state == KeyState::Active) else { return Vec::new() };
        key.state = KeyState::Compromised;
        let (purpose, environment) = (key.purpose, key.environment.clone());
        let needed = match purpose {
            KeyPurpose::Federation => self.assertion_keys_at(&environment).is_ok(),
            _ if is_upstream_ca(purpose) => self.upstream_ca_is_needed(purpose, &environment),
            _ => true,
        };
        if !needed {
            return Vec::new();
        }
        let plan = keyring::due(&after, purpose, &environment, self.system.wall());
        match self.carry_out(plan, purpose, &environment, who).await {
            Ok(records) => records,
            Err(no) => {
                tracing::error!(%no, key = going, "no replacement could be made for a compromised key");
                Vec::new()
            }
        }
    }

    pub(super) async fn carry_out(
        &self,
        plan: RotationPlan,
        purpose: KeyPurpose,
        environment: &str,
        who: &Author,
    ) -> Result<Vec<Record>, Error> {
        let made = match plan.make {
            Some(state) => Some(self.make_key(purpose, environment, state, 0).await?),
            None => None,
        };
        Ok(plan.records(made, who, 0))
    }

    /// Makes a key, and stores its private part sealed and durable before any record names the key.
    async fn make_key(&self, purpose: KeyPurpose, environment: &str, state: KeyState, ahead_ms: u64) -> Result<KeyAdded, Error> {
        let algorithm = match purpose {
            KeyPurpose::Federation => self.assertion_keys_at(environment)?.algorithm,
            _ => ES256,
        };
        let (store, sealer, system) = (self.ledger.store(), self.sealer.clone(), self.system.clone());
        let environment = environment.to_owned();
        let ahead_ms = if state == KeyState::Next { ahead_ms } else { 0 };
        let made = tokio::task::spawn_blocking(move || {
            let new = keyring::generate_with(algorithm, purpose, &environment, state, &*sealer, &system)?;
            new.published_ahead(ahead_ms).keep(&*store).map_err(Error::Fault)
        });
        made.await.map_err(|e| Fault::new(format!("making a key: {e}")))?
    }

    /// Deletes the private parts of removed keys.
    async fn shred_keys(&self) {
        let (store, keys) = (self.ledger.store(), self.ledger.peek(|s| s.keys.clone()));
        let done = tokio::task::spawn_blocking(move || {
            let kept = store.list("key/").map_err(|e| Fault::new(format!("listing keys: {e}")))?;
            let kept: KeyTable = keys.into_iter().filter(|(id, _)| kept.contains(&value_name(id))).collect();
            Keyring::shred(&kept, &*store)
        });
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::error!(%fault, "the private part of a removed key could not be deleted from the store"),
            Err(error) => tracing::error!(%error, "the private part of a removed key could not be deleted from the store"),
        }
    }

    /// Makes the first key for passwords in an environment whose upstreams need one, and keeps to its schedule afterwards.
    pub(crate) async fn tend_passwords(&self, environment: &str) -> Result<(), Error> {
        let derives = |kind: &Kind| CredentialKind::from_number(u32::from(kind.tag())).is_some_and(|k| self.leases.derives(k));
        let compiled = self.catalog.now();
        let here = |u: &Upstream| u.environment == environment && u.kinds.iter().any(&derives);
        // A key that exists keeps to its schedule, whatever became of the registrations.
        let has = || in_use(&self.ledger.peek(|s| s.keys.clone()), KeyPurpose::Password, environment).is_some();
        let needed = compiled.upstreams().any(|r| here(&r.upstream)) || has();
        drop(compiled);
        if needed { self.rotate_due_keys(KeyPurpose::Password, environment).await } else { Ok(()) }
    }

    /// The keys that an upstream needs for its assertions, and their issuer path. `None` if it needs none, or can have none.
    pub fn assertion_keys(&self, upstream: &Upstream) -> Option<(String, AssertionKeys)> {
        let kinds = upstream.kinds.iter().filter_map(|kind| CredentialKind::from_number(u32::from(kind.tag())));
        let needed = kinds.filter_map(|kind| self.leases.assertion_keys(kind, &upstream.settings)).next()?;
        Some((upstream_path(&upstream.environment, &upstream.name)?, needed))
    }

    /// As [`Authority::assertion_keys`], by the issuer path. Refused: NOT_FOUND where no registration needs keys there, or none any more.
    fn assertion_keys_at(&self, path: &str) -> Result<AssertionKeys, Refusal> {
        let compiled = self.catalog.now();
        let retired = |name: &str| self.ledger.peek(|s| s.upstreams.get(name).is_none_or(|version| version.retired));
        let all = compiled.upstreams().filter(|r| !retired(&r.upstream.name)).filter_map(|r| self.assertion_keys(&r.upstream));
        let found = all.filter(|(own, _)| own == path).map(|(_, needed)| needed).next();
        found.ok_or_else(|| Refusal::new(Reason::NotFound, format!("no upstream needs keys for the issuer path {path}")))
    }

    /// Makes the first keys of the issuers of assertions in an environment, and keeps to their schedules afterwards.
    pub(crate) async fn tend_assertions(&self, environment: &str) -> Result<(), Error> {
        let compiled = self.catalog.now();
        let here = compiled.upstreams().filter(|r| r.upstream.environment == environment);
        let upstreams: Vec<_> =
            here.filter_map(|r| self.assertion_keys(&r.upstream).map(|needed| (r.upstream.name.clone(), needed))).collect();
        drop(compiled);
        let read = |s: &State| {
            let mine =
                |k: &ManagedKey| k.purpose == KeyPurpose::Federation && k.purpose.environment_of(&k.environment) == environment;
            let mut issuers: BTreeMap<Box<str>, KeyTable> = BTreeMap::new();
            for (id, key) in s.keys.iter().filter(|(_, k)| mine(k)) {
                issuers.entry(key.environment.clone()).or_default().insert(id.clone(), key.clone());
            }
            let retired = |name: &String| s.upstreams.get(name.as_str()).is_none_or(|version| version.retired);
            let retired: BTreeSet<String> =
                upstreams.iter().map(|(name, _)| name).filter(|name| retired(name)).cloned().collect();
            (issuers, retired)
        };
        let (mut issuers, retired) = self.ledger.peek(read);
        let mut paths: BTreeMap<String, Option<AssertionKeys>> = issuers.keys().map(|path| (path.to_string(), None)).collect();
        for (name, (path, needed)) in upstreams {
            // Undoing what is left of a retired upstream may need assertions.
            let over = retired.contains(&name)
                && (!issuers.contains_key(path.as_str())
                    || self.ledger.peek(|s| s.leases.values().all(|l| *l.upstream != *name)));
            paths.insert(path, (!over).then_some(needed));
        }
        for (path, needed) in paths {
            let mut keys = issuers.remove(path.as_str()).unwrap_or_default();
            for _ in 0..STEPS {
                let plan = keyring::assertions_due(&keys, &path, needed, self.system.wall());
                if plan.is_empty() {
                    break;
                }
                let records = self.carry_out(plan, KeyPurpose::Federation, &path, &Author::Mayfly("key schedule".into())).await?;
                self.ledger.commit(ProposalKind::Change, records).await?;
                let mine = |k: &ManagedKey| k.purpose == KeyPurpose::Federation && *k.environment == *path;
                keys =
                    self.ledger.peek(|s| s.keys.iter().filter(|(_, k)| mine(k)).map(|(id, k)| (id.clone(), k.clone())).collect());
            }
        }
        Ok(())
    }

    async fn rotate_due_keys(&self, purpose: KeyPurpose, environment: &str) -> Result<(), Error> {
        for _ in 0..STEPS {
            let keys = self.ledger.peek(|s| s.keys.clone());
            let plan = keyring::due(&keys, purpose, environment, self.system.wall());
            if plan.is_empty() {
                return Ok(());
            }
            let records = self.carry_out(plan, purpose, environment, &Author::Mayfly("key schedule".into())).await?;
            self.ledger.commit(ProposalKind::Change, records).await?;
        }
        Ok(())
    }
}

type RemovalPlanner = fn(&KeyTable, &str, &str, mayfly_verify::seq::Millis, &Author, u32) -> Result<Vec<Record>, Refusal>;

/// Takes the steps that are due by time in every environment: makes first keys, activates and removes keys, makes the daily keys. Called
/// once a minute and at the start.
pub async fn run_key_maintenance(authority: &Authority) {
    // After a step of the clock, keys would be activated or removed too early.
    if authority.ledger.stopped().is_some() {
        return;
    }
    let compiled = authority.catalog.now();
    let _one = authority.changing.lock().await;
    for (environment, _) in compiled.environments().filter(|(name, _)| authority.decider.serves(name)) {
        for purpose in PURPOSES {
            if let Err(error) = authority.rotate_due_keys(purpose, environment).await {
                tracing::error!(%error, environment, purpose = keyring::purpose_name(purpose), "key rotation failed");
            }
        }
        if let Err(error) = authority.tend_passwords(environment).await {
            tracing::error!(%error, environment, purpose = keyring::purpose_name(KeyPurpose::Password), "key rotation failed");
        }
        if let Err(error) = authority.tend_assertions(environment).await {
            tracing::error!(%error, environment, purpose = keyring::purpose_name(KeyPurpose::Federation), "key rotation failed");
        }
        if let Err(error) = authority.tend_upstream_cas(environment).await {
            tracing::error!(%error, environment, "the CAs of upstreams could not be made or rotated");
        }
    }
    // Keys of no environment: those of the ledger, and of the server's own trust domain.
    if let Err(error) = authority.rotate_due_keys(KeyPurpose::Checkpoint, "").await {
        tracing::error!(%error, "rotation of the checkpoint key failed");
    }
    if authority.own_domain.is_some()
        && let Err(error) = authority.rotate_due_keys(KeyPurpose::X509Ca, "").await
    {
        tracing::error!(%error, "rotation of the own CA's key failed");
    }
    authority.shred_keys().await;
    authority.sweep_secrets_now().await;
    drop(_one);
    if let Err(error) = authority.update_own_bundle().await {
        tracing::error!(%error, "the bundle of the own trust domain could not be updated with its keys");
    }
}

fn in_use(keys: &KeyTable, purpose: KeyPurpose, environment: &str) -> Option<String> {
    let mut of = keys.iter().filter(|(_, k)| k.purpose == purpose && *k.environment == *environment);
    of.find(|(_, k)| k.state == KeyState::Active).map(|(id, _)| id.to_string())
}

/// The key in use that replaces a removed one.
fn replacement(keys: &KeyTable, gone: &str) -> Option<String> {
    let key = keys.get(gone)?;
    in_use(keys, key.purpose, &key.environment).filter(|id| id != gone)
}
