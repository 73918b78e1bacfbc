//! What a kind must give whose credential is made elsewhere.
//!
//! Whatever is made upstream has a lease that is durable before anything is done (design, section 7), so that a crash leaves something to
//! clean up and never an orphan. [`upstream::lease`](crate::upstream::lease) drives this; a kind only makes, undoes and looks.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Answer, Kind};
use crate::ledger::record;
use crate::ledger::state::Lease;
use crate::seq::{CredentialId, LeaseId, Millis};

/// A future that a kind gives.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is to be made.
pub struct Order<'a> {
    /// The credential's id.
    pub credential: CredentialId,
    /// The lease.
    pub lease: LeaseId,
    /// The lease's handle, as [`Remote::name`] gave it. Empty while it is asked for.
    pub handle: &'a str,
    /// The record to be: caller, upstream, scopes, details, ends. Its key is empty.
    pub issued: &'a record::Issued,
    /// The upstream's audience.
    pub audience: &'a str,
    /// Where the upstream answers.
    pub base_url: &'a str,
}

/// What will be made, named before it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What undoing needs, without a secret: a role's name, a tag. It must find what was made even where the answer was lost, so it is
    /// chosen here, from the order's ids, and never given by the upstream.
    pub handle: String,
    /// When it ends by itself; 0 where it never does.
    pub ends_at: Millis,
}

/// What was made.
pub struct Made {
    /// The credential.
    pub answer: Answer,
    /// It cannot be revoked before its end. Only where the registration consents.
    pub irrevocable: bool,
}

/// Why nothing is handed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// The upstream said no: nothing was made, and nothing will be.
    #[error("the upstream refused: {0}")]
    Refused(String),
    /// Whether something was made is not known.
    #[error("the upstream did not answer: {0}")]
    Unknown(String),
}

/// Why something may still stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UndoError(pub String);

/// What a repeat of the request gets.
pub enum Again {
    /// The same credential: it is derived, or the upstream gives it again.
    Same(Made),
    /// The upstream cannot give it again: the first is to be undone and another issued.
    Replace,
}

/// A kind whose credential is made elsewhere.
///
/// - Nothing is made but by [`make`](Remote::make). A future that is dropped may have made it.
/// - [`undo`](Remote::undo) may be called at any time, more than once, also for what was never made, and at once by several replicas.
/// - After `undo` has succeeded and [`settles_ms`](Remote::settles_ms) have passed since `make` ended, nothing can appear under the handle.
/// - Errors hold no secret: they are listed and logged.
pub trait Remote: Send + Sync + 'static {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// Names what will be made. Refused: what this upstream has no form for.
    fn name(&self, order: &Order<'_>) -> Result<Named, MakeError>;

    /// Makes it. Bounded by `limits::LEASE_MAKE_MS`.
    fn make<'a>(&'a self, order: &'a Order<'a>) -> Boxed<'a, Result<Made, MakeError>>;

    /// Undoes it: afterwards it opens nothing, sessions that it opened included.
    fn undo<'a>(&'a self, id: LeaseId, lease: &'a Lease) -> Boxed<'a, Result<(), UndoError>>;

    /// Looks whether it is gone. A lease ends only on a yes.
    fn is_gone<'a>(&'a self, id: LeaseId, lease: &'a Lease) -> Boxed<'a, Result<bool, UndoError>>;

    /// How long after `make` was given up a request of it may still take effect upstream, milliseconds.
    fn settles_ms(&self) -> u64;

    /// What a repeat of the request gets, for a credential that is live.
    fn again<'a>(&'a self, order: &'a Order<'a>) -> Boxed<'a, Result<Again, MakeError>>;
}

/// The remote kinds that are served.
#[derive(Clone, Default)]
pub struct Remotes {
    by_kind: BTreeMap<Kind, Arc<dyn Remote>>,
}

impl Remotes {
    /// Adds a kind, in place of what served it before.
    pub fn with(mut self, remote: Arc<dyn Remote>) -> Remotes {
        self.by_kind.insert(remote.kind(), remote);
        self
    }

    /// Nothing is made elsewhere.
    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    /// Who serves a kind.
    pub fn of(&self, kind: Kind) -> Option<&Arc<dyn Remote>> {
        self.by_kind.get(&kind)
    }
}
