//! The sealed values of static secrets, and what connectors see of them.

use std::collections::BTreeSet;

use prost::Message;
use zeroize::{Zeroize as _, Zeroizing};

use super::{by_schedule, failed, requested_step};
use crate::authority::Authority;
use mayfly_base::refusal::{Error, Reason};
use mayfly_credential::access::vault::{OpenedSecret, SecretStanding, SecretVault};
use mayfly_credential::connector::ConnectorFuture;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::SecretStored;
use mayfly_ledger::state::{SecretState, SecretVersion, State};
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_store::Precondition;

/// The purpose of the seal.
const PURPOSE: &str = "secret";
/// Prefix of the named values.
const PREFIX: &str = "secret/";

/// What is sealed.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct SealedSecret {
    /// The secret.
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
    /// The vendor's name of it, as a hook returned it. May be empty.
    #[prost(string, tag = "2")]
    pub id: String,
}

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealedSecret")
    }
}

impl Drop for SealedSecret {
    fn drop(&mut self) {
        self.value.zeroize();
        self.id.zeroize();
    }
}

fn value_name(id: &[u8]) -> String {
    format!("{PREFIX}{}", data_encoding::HEXLOWER.encode(id))
}

impl Authority {
    /// Seals a secret and makes it durable under a new id. Returns the record of its version, to be completed; until that is committed, the
    /// value belongs to nobody. The caller holds the lock of changes.
    pub(crate) async fn keep_secret(
        &self,
        upstream: &Upstream,
        secret: SealedSecret,
        attempt: Option<[u8; 16]>,
    ) -> Result<SecretStored, Error> {
        let version = self.ledger.peek(|s| s.secrets.get(upstream.name.as_str()).map_or(0, |s| s.last)) + 1;
        let id = self.system.random16();
        let name = value_name(&id);
        let plain = Zeroizing::new(secret.encode_to_vec());
        let sealed = self.sealer.seal(PURPOSE, &upstream.environment, &name, &plain)?;
        let digest = self.sealer.digest(&secret.value);
        let store = self.ledger.store();
        let kept = tokio::task::spawn_blocking(move || store.put(&name, &sealed, Precondition::Absent));
        kept.await.map_err(|e| failed("storing a secret", e))?.map_err(|e| failed("storing a secret", e))?;
        Ok(SecretStored {
            upstream: upstream.name.clone(),
            environment: upstream.environment.clone(),
            version,
            value: id.to_vec(),
            target: upstream.target.clone(),
            digest,
            attempt: attempt.map(Vec::from).unwrap_or_default(),
            ..SecretStored::default()
        })
    }

    /// Opens a version.
    pub(crate) async fn open_secret(&self, environment: &str, version: &SecretVersion) -> Result<SealedSecret, Error> {
        let name = value_name(&version.value);
        let (store, asked) = (self.ledger.store(), name.clone());
        let sealed = tokio::task::spawn_blocking(move || store.named(&asked));
        let sealed = sealed.await.map_err(|e| failed("reading a secret", e))?.map_err(|e| failed("reading a secret", e))?;
        let missing = || failed("reading a secret", format!("the store has no value of version {}", version.version));
        let plain = self.sealer.open(PURPOSE, environment, &name, &sealed.ok_or_else(missing)?)?;
        SealedSecret::decode(&plain[..]).map_err(|_| failed("reading a secret", "a sealed value of another version of mayfly"))
    }

    /// Deletes the values of versions that are over, and those that no record names. The caller holds the lock of changes, under which values
    /// are stored and recorded.
    pub(crate) async fn sweep_secrets_now(&self) {
        if let Err(no) = self.swept().await {
            tracing::error!(%no, "the values of secrets that are over could not be deleted from the store yet");
        }
    }

    async fn swept(&self) -> Result<(), Error> {
        let live: BTreeSet<String> =
            self.ledger.settled(|s| s.secrets.values().flat_map(|s| s.live()).map(|v| value_name(&v.value)).collect()).await?;
        let store = self.ledger.store();
        let swept = tokio::task::spawn_blocking(move || {
            let kept = store.list(PREFIX)?;
            kept.iter().filter(|name| !live.contains(*name)).try_for_each(|name| store.delete(name, Precondition::Any))
        });
        swept.await.map_err(|e| failed("sweeping secrets", e))?.map_err(|e| failed("sweeping secrets", e))
    }

    /// As [`Authority::sweep_secrets_now`], for callers that hold no lock: at the start, and once a minute.
    pub async fn sweep_secrets(&self) {
        let _one = self.changing.lock().await;
        self.sweep_secrets_now().await;
    }
}

fn standing(state: &State, upstream: &str, version: u64) -> SecretStanding {
    let Some(secret) = state.secrets.get(upstream) else { return SecretStanding::Over };
    match secret.version(version).map(|v| v.state) {
        None | Some(SecretState::Ended) => SecretStanding::Over,
        Some(SecretState::Retiring | SecretState::Candidate) => SecretStanding::Retiring,
        Some(SecretState::Current) if secret.requested.is_some() => SecretStanding::ToBeRotated,
        Some(SecretState::Current) => SecretStanding::InUse,
    }
}

impl SecretVault for Authority {
    fn current_version(&self, upstream: &str) -> Option<u64> {
        self.ledger.peek(|s| s.secrets.get(upstream)?.current().map(|v| v.version))
    }

    fn open<'a>(&'a self, upstream: &'a str, version: u64) -> ConnectorFuture<'a, Result<Option<OpenedSecret>, String>> {
        Box::pin(async move {
            let found = |s: &State| {
                let secret = s.secrets.get(upstream)?;
                let version =
                    secret.version(version).filter(|v| matches!(v.state, SecretState::Current | SecretState::Retiring))?;
                Some((secret.environment.clone(), version.clone()))
            };
            let found = self.ledger.settled(found).await.map_err(|no| no.to_string())?;
            let Some((environment, found)) = found else { return Ok(None) };
            let mut opened = self.open_secret(&environment, &found).await.map_err(|no| no.to_string())?;
            let value = Zeroizing::new(std::mem::take(&mut opened.value));
            Ok(Some(OpenedSecret { version, target: found.target.to_string(), value }))
        })
    }

    fn standing<'a>(&'a self, upstream: &'a str, version: u64) -> ConnectorFuture<'a, Result<SecretStanding, String>> {
        Box::pin(async move { self.ledger.settled(|s| standing(s, upstream, version)).await.map_err(|no| no.to_string()) })
    }

    fn request_rotation<'a>(
        &'a self,
        upstream: &'a str,
        version: u64,
        reason: &'a str,
    ) -> ConnectorFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let read = |s: &State| (standing(s, upstream, version), s.secrets.get(upstream).map(|s| s.environment.to_string()));
            let (standing, environment) = self.ledger.settled(read).await.map_err(|no| no.to_string())?;
            let (SecretStanding::InUse, Some(environment)) = (standing, environment) else { return Ok(()) };
            let event = requested_step(upstream, &environment, version, reason, true);
            match self.change(by_schedule("a credential ended"), ProposalKind::Change, event, &None).await {
                Ok(_) => self.rotations.try_now(upstream),
                // Another lease of the same version was first, or the version was replaced meanwhile.
                Err(Error::Refusal(no)) if matches!(no.reason, Reason::AlreadyExists | Reason::DecidedOnOldState) => {}
                Err(no) => return Err(no.to_string()),
            }
            Ok(())
        })
    }
}
