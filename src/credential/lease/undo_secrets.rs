//! The secrets that undoing needs: for credentials that can be undone only by who has them, such as a token that deletes itself. Each is a
//! sealed named value of the store, `lease/<id>`, from before the credential is handed out until its lease is closed.
//!
//! Failure analysis.
//! - *Killed between the upstream's answer and sealing.* The credential exists, nobody has it, and it cannot be undone. Its lease stays listed
//!   until the credential ends by itself ([`UpstreamHandle::ends_at`](crate::connector::UpstreamHandle::ends_at)).
//! - *The caller disconnects meanwhile.* The connector asks the upstream and seals the answer in a task of its own, which goes on, so undoing
//!   finds the secret.
//! - *Killed between closing the lease and deleting the value.* The next start deletes values whose leases are not open. A lease is opened
//!   before its secret is sealed, so such a value is never needed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use crate::keyring::Sealer;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_store::{Precondition, Store};
use mayfly_verify::seq::LeaseId;

/// The purpose of the sealed values.
const PURPOSE: &str = "lease";
/// The beginning of their names.
const PREFIX: &str = "lease/";

/// The store at present: it may have been opened again.
type PresentStore = Box<dyn Fn() -> Arc<dyn Store> + Send + Sync>;

/// Named values of the store, with what seals and opens them.
pub struct SealedValues {
    store: PresentStore,
    sealer: Arc<dyn Sealer>,
}

impl SealedValues {
    /// Works on the store without blocking the runtime. Once begun, the work is completed even if the future is dropped.
    pub async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&dyn Store, &dyn Sealer) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let values = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&*(values.store)(), &*values.sealer)).await;
        done.map_err(|e| Fault::new(format!("sealed values: {e}")))?
    }
}

/// The sealed secrets of open leases. The default has no store: nothing can be sealed, so no credential that needs a secret is handed out.
#[derive(Clone, Default)]
pub struct UndoSecrets {
    values: Option<Arc<SealedValues>>,
}

fn name_of(lease: LeaseId) -> String {
    format!("{PREFIX}{lease}")
}

impl UndoSecrets {
    /// The secrets in a store, sealed by `sealer`. `store` returns the store that is open at present.
    pub fn new(store: impl Fn() -> Arc<dyn Store> + Send + Sync + 'static, sealer: Arc<dyn Sealer>) -> UndoSecrets {
        UndoSecrets { values: Some(Arc::new(SealedValues { store: Box::new(store), sealer })) }
    }

    /// The store and its sealer, for sealed values of connectors.
    pub fn values(&self) -> Option<&Arc<SealedValues>> {
        self.values.as_ref()
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store, &dyn Sealer) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let values = self.values.as_ref().ok_or_else(|| Fault::new("there is no store for the secrets of leases"))?;
        values.with(work).await
    }

    async fn keep(&self, lease: LeaseId, secret: Zeroizing<Vec<u8>>) -> Result<(), Fault> {
        if secret.len() > limits::LEASE_SECRET_BYTES {
            return Err(Fault::new(format!("the secret of lease {lease} has {} bytes", secret.len())));
        }
        self.with(move |store, sealer| {
            let name = name_of(lease);
            let sealed = sealer.seal(PURPOSE, "", &name, &secret)?;
            store.put(&name, &sealed, Precondition::Any).map_err(|e| Fault::new(format!("writing {name}: {e}")))
        })
        .await
    }

    /// The secret of a lease, if it has one.
    pub(super) async fn of(&self, lease: LeaseId) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        self.with(move |store, sealer| {
            let name = name_of(lease);
            let sealed = store.named(&name).map_err(|e| Fault::new(format!("reading {name}: {e}")))?;
            sealed.map(|sealed| sealer.open(PURPOSE, "", &name, &sealed)).transpose()
        })
        .await
    }

    /// Deletes the secrets of leases that are closed.
    pub(super) async fn forget(&self, leases: Vec<LeaseId>) -> Result<(), Fault> {
        self.with(move |store, _| {
            leases.into_iter().map(name_of).try_for_each(|name| {
                store.delete(&name, Precondition::Any).map_err(|e| Fault::new(format!("deleting {name}: {e}")))
            })
        })
        .await
    }

    /// The leases that have a secret.
    pub(super) async fn leases(&self) -> Result<Vec<LeaseId>, Fault> {
        self.with(|store, _| {
            let names = store.list(PREFIX).map_err(|e| Fault::new(format!("listing the secrets of leases: {e}")))?;
            Ok(names.iter().filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect())
        })
        .await
    }
}

/// Seals the secret that undoing one credential needs.
#[derive(Clone)]
pub struct UndoSecretKeeper {
    secrets: UndoSecrets,
    lease: LeaseId,
    kept: Arc<AtomicBool>,
}

impl UndoSecretKeeper {
    pub(super) fn new(secrets: UndoSecrets, lease: LeaseId) -> UndoSecretKeeper {
        UndoSecretKeeper { secrets, lease, kept: Arc::default() }
    }

    /// Seals the secret, durably. A credential is handed out only after that. If it fails, the connector undoes the credential at once, with
    /// the secret that it has in memory.
    pub async fn keep(&self, secret: Zeroizing<Vec<u8>>) -> Result<(), Fault> {
        self.secrets.keep(self.lease, secret).await?;
        self.kept.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether the secret is sealed.
    pub(super) fn has_kept(&self) -> bool {
        self.kept.load(Ordering::SeqCst)
    }
}
