//! Keys of a server: sealed with its sealing key, made when there are none, followed by others when it is time.

use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::credential::keyring::{Sealer, due, generate, purpose_name};
use crate::ledger::Lane;
use crate::ledger::record::{KeyPurpose, Record, Who};
use crate::refusal::{Fault, No};
use crate::sealing::{Context, SealingKey};
use crate::seq::{Millis, StoreId};
use crate::system::System;

/// The purposes that every environment has a key for: those of the kinds that are issued here.
const PURPOSES: &[KeyPurpose] = &[KeyPurpose::AccessToken, KeyPurpose::Reference];

/// Changes in a row after which a schedule should have come to rest.
const ROUNDS: usize = 8;

/// The sealing key, bound to the store that it seals for.
pub struct StoreSealer {
    key: SealingKey,
    store: StoreId,
    system: System,
}

impl StoreSealer {
    /// For the values of one store.
    pub fn new(key: SealingKey, store: StoreId, system: System) -> StoreSealer {
        StoreSealer { key, store, system }
    }

    /// A key's value is written once under its name, so its version is always the first.
    fn context<'a>(&self, purpose: &'a str, environment: &'a str, name: &'a str) -> Context<'a> {
        Context { store: self.store, environment, purpose, name, version: 1 }
    }
}

impl Sealer for StoreSealer {
    fn seal(&self, purpose: &str, environment: &str, name: &str, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        let sealed = self.key.seal(&self.context(purpose, environment, name), plain, &self.system);
        sealed.map_err(|e| Fault::new(e.to_string()))
    }

    fn open(&self, purpose: &str, environment: &str, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        self.key.open(&self.context(purpose, environment, name), sealed).map_err(|e| Fault::new(e.to_string()))
    }
}

/// Makes the first keys of each environment, before anybody is served. Blocks.
pub fn first_keys(authority: &Authority, environments: &[String]) -> Result<(), No> {
    for environment in environments {
        for purpose in PURPOSES {
            for _ in 0..ROUNDS {
                let Some(records) = next(authority, *purpose, environment)? else { break };
                super::import::commit(&authority.ledger, Lane::Change, records)?;
            }
        }
    }
    Ok(())
}

/// Does what is due by schedule: publishes the next key, lets it take over, takes out what has served its time. Writes to the store.
pub async fn tend(authority: &Authority, environments: &[String]) -> Result<(), No> {
    for environment in environments {
        for purpose in PURPOSES {
            for _ in 0..ROUNDS {
                let Some(records) = tokio::task::block_in_place(|| next(authority, *purpose, environment))? else { break };
                authority.ledger.commit(Lane::Change, records).await?;
            }
        }
    }
    Ok(())
}

/// The records of what is due for one purpose in one environment; a new key's private part is kept durably before.
fn next(authority: &Authority, purpose: KeyPurpose, environment: &str) -> Result<Option<Vec<Record>>, No> {
    let (plan, time) = authority.ledger.peek(|state| (due(&state.keys, purpose, environment, state.time), state.time));
    if plan.is_empty() {
        return Ok(None);
    }
    let made = match plan.make {
        Some(state) => {
            let key = generate(purpose, environment, state, &*authority.sealer, &authority.system)?;
            Some(key.keep(&*authority.ledger.store())?)
        }
        None => None,
    };
    log(purpose, environment, time);
    let author = Who::Mayfly("keys follow their schedule".to_owned());
    Ok(Some(plan.records(made, &author, authority.ledger.new_group())))
}

fn log(purpose: KeyPurpose, environment: &str, time: Millis) {
    tracing::info!(purpose = purpose_name(purpose), environment, %time, "keys change");
}
