//! The grants in the store: reading them, changing them by compare-and-swap, and the turns of this process at refreshing them.
//!
//! The value of a grant is readable, so that its state can be shown, except for the refresh token, which is sealed for exactly its upstream,
//! grant and generation. Nothing but a refresh and a revocation opens it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::grant::StoredGrant;
use crate::keyring::Sealer;
use crate::lease::SealedValues;
use mayfly_base::document::sha256;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_store::{Precondition, Store, StoreError};

/// The beginning of the names of grants.
const PREFIX: &str = "oauth/grant/";
/// The purpose of sealed refresh tokens.
const PURPOSE: &str = "oauth-grant";

/// What becomes of the value of a grant.
pub enum GrantChange {
    /// The value is replaced, or made.
    Put(StoredGrant),
    /// The value is replaced, with a new refresh token of its generation.
    PutToken(StoredGrant, Zeroizing<String>),
    /// The value is deleted.
    Delete,
    /// The value stays.
    Keep,
}

/// The grants of a server.
#[derive(Default)]
pub struct GrantVault {
    values: OnceLock<Arc<SealedValues>>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Upstreams' names have characters that a named value's must not have.
fn name_of(upstream: &str) -> String {
    format!("{PREFIX}{}", data_encoding::HEXLOWER.encode(&sha256(upstream.as_bytes())))
}

fn parse(name: &str, bytes: &[u8]) -> Result<StoredGrant, Fault> {
    StoredGrant::parse(bytes).map_err(|what| Fault::new(format!("{name}: {what}")))
}

fn seal(grant: &mut StoredGrant, token: &str, sealer: &dyn Sealer) -> Result<(), Fault> {
    let sealed = sealer.seal(PURPOSE, &grant.environment, &grant.sealed_name(grant.generation), token.as_bytes())?;
    grant.sealed = STANDARD.encode(sealed);
    Ok(())
}

impl GrantVault {
    /// Gives the vault its store. Only the first call has an effect.
    pub fn begin(&self, values: Arc<SealedValues>) {
        let _ = self.values.set(values);
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store, &dyn Sealer) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let values = self.values.get().ok_or_else(|| Fault::new("the server has not opened its store"))?;
        values.with(work).await
    }

    /// Waits for the turn of this process at a grant: its refreshes run one by one, in the order in which they were asked for.
    pub async fn turn(&self, upstream: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            // Turns that nobody waits for are forgotten, so that the map does not grow with names that are gone.
            if turns.len() >= limits::OAUTH_METADATA_KEPT {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(upstream.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// The grant of an upstream.
    pub async fn read(&self, upstream: &str) -> Result<Option<StoredGrant>, Fault> {
        let name = name_of(upstream);
        self.with(move |store, _| {
            let found = store.named(&name).map_err(|e| Fault::new(format!("reading {name}: {e}")))?;
            found.map(|bytes| parse(&name, &bytes)).transpose()
        })
        .await
    }

    /// All grants.
    pub async fn all(&self) -> Result<Vec<StoredGrant>, Fault> {
        self.with(|store, _| {
            let names = store.list(PREFIX).map_err(|e| Fault::new(format!("listing grants: {e}")))?;
            let mut all = Vec::with_capacity(names.len());
            for name in names {
                // The value may have been deleted meanwhile.
                if let Some(bytes) = store.named(&name).map_err(|e| Fault::new(format!("reading {name}: {e}")))? {
                    all.push(parse(&name, &bytes)?);
                }
            }
            Ok(all)
        })
        .await
    }

    /// Changes a grant by compare-and-swap, durably. `step` gets the value as it is, and is asked again if the value changed meanwhile; its
    /// second result is returned.
    pub async fn change<T: Send + 'static>(
        &self,
        upstream: &str,
        mut step: impl FnMut(Option<&StoredGrant>) -> (GrantChange, T) + Send + 'static,
    ) -> Result<T, Fault> {
        let name = name_of(upstream);
        self.with(move |store, sealer| {
            loop {
                let found = store.named(&name).map_err(|e| Fault::new(format!("reading {name}: {e}")))?;
                let grant = found.as_deref().map(|bytes| parse(&name, bytes)).transpose()?;
                let expect = found.as_deref().map_or(Precondition::Absent, Precondition::Value);
                let (change, told) = step(grant.as_ref());
                let done = match change {
                    GrantChange::Keep => Ok(()),
                    GrantChange::Put(next) => store.put(&name, &next.to_bytes(), expect),
                    GrantChange::PutToken(mut next, token) => {
                        seal(&mut next, &token, sealer)?;
                        store.put(&name, &next.to_bytes(), expect)
                    }
                    GrantChange::Delete => store.delete(&name, expect),
                };
                match done {
                    Ok(()) => return Ok(told),
                    // Somebody was faster; each round, somebody gets on.
                    Err(StoreError::Conflict { .. }) => {}
                    Err(e) => return Err(Fault::new(format!("writing {name}: {e}"))),
                }
            }
        })
        .await
    }

    /// Opens the refresh token of a grant; `None` if it has none.
    pub async fn open(&self, grant: &StoredGrant) -> Result<Option<Zeroizing<String>>, Fault> {
        if grant.sealed.is_empty() {
            return Ok(None);
        }
        let grant = grant.clone();
        self.with(move |_, sealer| {
            let name = grant.sealed_name(grant.generation);
            let bad = |what: &str| Fault::new(format!("{name}: {what}"));
            let sealed = STANDARD.decode(&grant.sealed).map_err(|_| bad("its sealed token is no base64"))?;
            let plain = sealer.open(PURPOSE, &grant.environment, &name, &sealed)?;
            let text = std::str::from_utf8(&plain).map_err(|_| bad("its sealed token is no text"))?;
            Ok(Some(Zeroizing::new(text.to_owned())))
        })
        .await
    }
}
