//! How connectors reach their upstreams: the addresses that may be connected to, TLS, and mayfly's own secrets.
//!
//! - [`address`]: resolves the host of a registration and refuses addresses that no upstream has.
//! - [`secrets`]: the files with the secrets by which mayfly itself logs in.
//! - [`tls`]: the roots that verify an upstream.
//! - [`vault`]: the sealed secrets of upstreams in the server's own store.
//! - [`https`]: the HTTPS calls of connectors. [`http1`]: one request over a connection.

pub mod address;
pub mod http1;
pub mod https;
pub mod secrets;
pub mod tls;
pub mod vault;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_base::system::System;
use secrets::SecretError;
use vault::VaultSlot;

/// Access to upstreams, shared by the connectors of a server: secrets, roots and time.
#[derive(Clone)]
pub struct UpstreamAccess {
    secrets_dir: Option<Arc<Path>>,
    system: System,
    vault: VaultSlot,
}

impl UpstreamAccess {
    /// `secrets_dir`: the directory with the files of [`secrets`], if one is configured.
    pub fn new(secrets_dir: Option<PathBuf>, system: System) -> UpstreamAccess {
        UpstreamAccess { secrets_dir: secrets_dir.map(Arc::from), system, vault: VaultSlot::default() }
    }

    /// The clock, and randomness.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// The sealed secrets of upstreams.
    pub fn vault(&self) -> &VaultSlot {
        &self.vault
    }

    /// The directory with the secrets.
    pub fn secrets_dir(&self) -> Result<&Path, SecretError> {
        self.secrets_dir.as_deref().ok_or(SecretError::NoDirectory)
    }
}
