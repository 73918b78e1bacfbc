//! Seals the private parts of a server's keys with the sealing key.

use zeroize::Zeroizing;

use mayfly_base::refusal::Fault;
use mayfly_base::system::System;
use mayfly_credential::keyring::Sealer;
use mayfly_store::sealing::{SealingContext, SealingKey};
use mayfly_verify::seq::StoreId;

/// The sealing key, bound to one store.
pub struct StoreSealer {
    key: SealingKey,
    store: StoreId,
    system: System,
}

impl StoreSealer {
    /// A sealer for the values of one store.
    pub fn new(key: SealingKey, store: StoreId, system: System) -> StoreSealer {
        StoreSealer { key, store, system }
    }

    /// A key's value is written once under its name, so its version is always the first.
    fn context<'a>(&self, purpose: &'a str, environment: &'a str, name: &'a str) -> SealingContext<'a> {
        SealingContext { store: self.store, environment, purpose, name, version: 1 }
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

    fn digest(&self, secret: &[u8]) -> Vec<u8> {
        self.key.digest(self.store, secret).to_vec()
    }

    fn fingerprint(&self) -> Option<[u8; 32]> {
        Some(*self.key.fingerprint())
    }
}
