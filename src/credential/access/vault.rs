//! The sealed secrets of upstreams in the server's own store, as connectors see them.
//!
//! Connectors are built before the ledger is open, so they share a slot that the server fills when it has the secrets.

use std::sync::{Arc, OnceLock, Weak};

use zeroize::Zeroizing;

use crate::connector::ConnectorFuture;

/// A version of an upstream's secret in the clear.
pub struct OpenedSecret {
    /// The version.
    pub version: u64,
    /// The only target that it may be handed out for.
    pub target: String,
    /// The secret.
    pub value: Zeroizing<Vec<u8>>,
}

/// What stands of a version that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretStanding {
    /// The version is handed out.
    InUse,
    /// The version is handed out, and is to be rotated.
    ToBeRotated,
    /// The version was replaced, and is still valid at the vendor.
    Retiring,
    /// The version is over.
    Over,
}

/// The versions of an upstream's secret.
pub trait SecretVault: Send + Sync {
    /// The version that is handed out; `None` if no secret is stored.
    fn current_version(&self, upstream: &str) -> Option<u64>;

    /// Opens a version; `None` if it is over.
    fn open<'a>(&'a self, upstream: &'a str, version: u64) -> ConnectorFuture<'a, Result<Option<OpenedSecret>, String>>;

    /// What stands of a version. The answer is durable.
    fn standing<'a>(&'a self, upstream: &'a str, version: u64) -> ConnectorFuture<'a, Result<SecretStanding, String>>;

    /// Notes durably that a version is to be rotated. Does nothing if it is no longer handed out, or if that is noted already.
    fn request_rotation<'a>(
        &'a self,
        upstream: &'a str,
        version: u64,
        reason: &'a str,
    ) -> ConnectorFuture<'a, Result<(), String>>;
}

/// The place of the secrets, shared by the connectors of a server.
#[derive(Clone, Default)]
pub struct VaultSlot(Arc<OnceLock<Weak<dyn SecretVault>>>);

impl VaultSlot {
    /// Gives the secrets to the connectors. Only the first call has an effect. The slot does not keep them alive.
    pub fn fill(&self, vault: Weak<dyn SecretVault>) {
        let _ = self.0.set(vault);
    }

    /// The secrets. The error says that the server is starting or stopping.
    pub fn get(&self) -> Result<Arc<dyn SecretVault>, String> {
        self.0.get().and_then(Weak::upgrade).ok_or_else(|| "the server has not opened its sealed secrets".to_owned())
    }
}
