//! Everything that one replica shares: the ledger, what is compiled from it, and what decisions are made with.
//!
//! The stories (`exchange`, `tasks`, `revoke`) are functions of this; `serve` calls them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::identity::bundle::Bundles;
use crate::ledger::Ledger;
use crate::policy::catalog::Catalog;
use crate::policy::decide::Decider;
use crate::seq::{CredentialId, TaskId};
use crate::system::System;

/// One replica of the issuing authority.
pub struct Authority {
    /// The ledger.
    pub ledger: Ledger,
    /// Policy sets and registrations, compiled.
    pub catalog: Catalog,
    /// What decisions share.
    pub decider: Decider,
    /// The bundles in force. Changed only after a record of the change is durable.
    pub bundles: Arc<ArcSwap<Bundles>>,
    /// Time and randomness.
    pub system: System,
    /// Local users who may act as operators over the Unix socket.
    pub admin_uids: Vec<u32>,
}

impl Authority {
    /// An authority over an open ledger. What is compiled follows the ledger from here on.
    pub fn new(
        ledger: Ledger,
        decider: Decider,
        bundles: Arc<ArcSwap<Bundles>>,
        system: System,
        admin_uids: Vec<u32>,
    ) -> Arc<Authority> {
        let catalog = Catalog::default();
        let authority = Arc::new(Authority { ledger, catalog, decider, bundles, system, admin_uids });
        authority.ledger.peek(|state| authority.catalog.sync(state));
        let weak = Arc::downgrade(&authority);
        authority.ledger.observe(move |batch| {
            if let Some(authority) = weak.upgrade()
                && batch.records.iter().any(|c| Catalog::concerns(&c.record))
            {
                authority.ledger.peek(|state| authority.catalog.sync(state));
            }
        });
        authority
    }

    /// A fresh task id.
    pub fn new_task_id(&self) -> TaskId {
        TaskId::from_bytes(self.system.random16())
    }

    /// A fresh credential id.
    pub fn new_credential_id(&self) -> CredentialId {
        CredentialId::from_bytes(self.system.random16())
    }
}
