//! The interface of a credential kind that an upstream makes.
//!
//! Everything made upstream has a lease that is durable before the upstream is asked (docs/invariants.md, 5), so that a crash leaves a lease to
//! clean up and never an orphan. [`upstream::lease`](crate::lease) drives the interface; a kind only makes, undoes and checks.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::access::vault::VaultSlot;
use super::assertion::AssertionIssuers;
use super::certificates;
use super::keyring::{AssertionKeys, LoadedKey};
use super::lease::{SealedValues, UndoCause, UndoSecretKeeper};
use super::sign_in::UpstreamSignIn;
use super::{CredentialKind, CredentialMaterial};
use mayfly_ledger::record;
use mayfly_ledger::state::Lease;
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, DescribeAccess, GrantedAccess};
use mayfly_ledger::upstream::settings::KindSettings;
use mayfly_verify::seq::{CredentialId, LeaseId, Millis};

/// A boxed future returned by a kind.
pub type ConnectorFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The order to make a credential.
pub struct MintOrder<'a> {
    /// The credential's id.
    pub credential: CredentialId,
    /// The lease's id.
    pub lease: LeaseId,
    /// The lease's handle, as returned by [`UpstreamConnector::name`]. Empty during the call of `name`.
    pub handle: &'a str,
    /// The issuance record: caller, upstream, scopes, details, expiry. Its key is empty.
    pub issued: &'a record::CredentialIssued,
    /// The upstream's audience.
    pub audience: &'a str,
    /// The upstream's base URL.
    pub base_url: &'a str,
    /// The sections of the registration. Empty for a repeat: the registration may have changed since the credential was made.
    pub settings: &'a KindSettings,
    /// The terms of the lease, as returned by [`UpstreamConnector::name`]. Empty during the call of `name`.
    pub terms: &'a str,
    /// The key for [`MintOrder::password`]. `None` unless the kind [derives](UpstreamConnector::derives).
    pub passwords: Option<&'a LoadedKey>,
    /// Seals what undoing will read. `None` unless the kind [needs](UpstreamConnector::undoes_by_secret) or
    /// [uses](UpstreamConnector::undoes_with_note) that, and for a repeat.
    pub keeper: Option<&'a UndoSecretKeeper>,
}

impl MintOrder<'_> {
    /// The password of the credential: the same for each repeat of the request, and known to nobody without the sealed key. It has 43
    /// characters of the URL-safe base64 alphabet.
    pub fn password(&self) -> Result<Zeroizing<String>, MakeError> {
        let mac = self.passwords.and_then(LoadedKey::mac);
        let mac = mac.ok_or_else(|| MakeError::Refused("mayfly has no key for deriving passwords".to_owned()))?;
        let mut context = hmac::Context::with_key(mac);
        context.update(self.kind_name().as_bytes());
        context.update(b"\0");
        context.update(self.credential.as_bytes());
        let tag = context.sign();
        let mut text = Zeroizing::new(String::with_capacity(PASSWORD_CHARACTERS));
        URL_SAFE_NO_PAD.encode_string(tag.as_ref(), &mut text);
        Ok(text)
    }

    /// Separates the passwords of different kinds.
    fn kind_name(&self) -> &'static str {
        CredentialKind::from_number(self.issued.kind).map_or("", CredentialKind::name)
    }
}

/// Base64 without padding of the 32 bytes of an HMAC-SHA256.
const PASSWORD_CHARACTERS: usize = 43;

/// The order to undo or to check what was made under a lease.
pub struct UndoOrder<'a> {
    /// The lease's id.
    pub id: LeaseId,
    /// The lease.
    pub lease: &'a Lease,
    /// The terms of the lease, as returned by [`UpstreamConnector::name`] when it was opened, perhaps by an earlier version.
    pub terms: &'a str,
    /// Why it is undone. `None`: it was made for a test.
    pub cause: Option<UndoCause>,
    /// The bytes that were sealed when the credential was made. `Some` for a kind that [needs it](UpstreamConnector::undoes_by_secret).
    pub secret: Option<&'a [u8]>,
    /// Seals something else in its place. As for [`MintOrder::keeper`].
    pub keeper: Option<&'a UndoSecretKeeper>,
}

/// The credential to be made, identified before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamHandle {
    /// The identifier that undoing needs, without a secret: a role's name, a tag. It must find the credential even if the upstream's answer
    /// was lost, so it is derived from the order's ids and never returned by the upstream.
    pub handle: String,
    /// When the credential ends by itself at the upstream, wherever between now and the end of `make` it is made; 0 if it never does. A kind
    /// that [undoes by a secret](UpstreamConnector::undoes_by_secret) is not asked to undo after that.
    pub ends_at: Millis,
    /// Everything else that undoing needs, without a secret: the address and the choices of the registration, which may be changed or
    /// retired by then. At most `limits::LEASE_TERMS_BYTES`.
    pub terms: String,
}

/// A credential that was made.
pub struct UpstreamCredential {
    /// The credential.
    pub answer: CredentialMaterial,
    /// The credential cannot be revoked before its expiry. Allowed only where the registration consents.
    pub irrevocable: bool,
    /// When the credential ends by itself, if the upstream decides that: a credential is never said to live longer. `None`: not before the
    /// expiry that was asked for.
    pub ends_at: Option<Millis>,
}

/// Why a credential was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// Nothing was made, and nothing will be until an operator changes something.
    #[error("{0}")]
    NotReleased(String),
    /// Another request is in the way: nothing was made, and the upstream was not asked. It can be tried again soon.
    #[error("{0}")]
    Busy(String),
    /// The upstream refused: nothing was made, and nothing will be.
    #[error("the upstream refused: {0}")]
    Refused(String),
    /// The upstream gave no answer: a credential may have been made.
    #[error("the upstream did not answer: {0}")]
    Unknown(String),
}

/// Why an undo or a check failed. The credential may still exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UndoError(pub String);

/// The answer to a repeat of the request.
pub enum RepeatResponse {
    /// The same credential: it is derived, or the upstream returned it again.
    Same(UpstreamCredential),
    /// The upstream cannot return the credential again: it is to be undone and another one issued.
    Replace,
}

/// A kind whose credential an upstream makes.
///
/// - Only [`make`](UpstreamConnector::make) makes something. It may have made the credential even if its future is dropped.
/// - [`undo`](UpstreamConnector::undo) may be called at any time, repeatedly, for credentials that were never made, and by several replicas
///   at once.
/// - After `undo` succeeded and [`settles_ms`](UpstreamConnector::settles_ms) have passed since `make` ended, nothing can appear under the
///   handle.
/// - Errors hold no secret: they are listed and logged.
pub trait UpstreamConnector: Send + Sync + 'static {
    /// The kind.
    fn kind(&self) -> CredentialKind;

    /// Identifies the credential that will be made. Refuses an order that the upstream cannot express.
    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError>;

    /// The access that a credential of these scopes gives at its upstream: what policy decides about, approvers see and records keep.
    ///
    /// Reads the same settings, by the same functions, as [`make`](UpstreamConnector::make), and refuses what `make` would refuse to grant.
    /// A right whose effect is not known is [`AccessLevel::Unknown`](mayfly_ledger::upstream::access::AccessLevel::Unknown).
    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError>;

    /// Whether a request may ask for a part of what its scopes give, by authorization details ([`AccessQuery::details`] of `describe`, `details`
    /// of [`MintOrder::issued`]). `make` then grants that part only.
    fn narrows(&self) -> bool {
        false
    }

    /// Makes the credential. Bounded by `limits::LEASE_MAKE_MS`.
    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>>;

    /// Undoes the credential. Afterwards it opens nothing, and sessions that it opened are ended.
    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>>;

    /// Whether the credential no longer exists. A lease closes only after `true`.
    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>>;

    /// How long after giving up on `make` its request may still take effect upstream, in milliseconds.
    fn settles_ms(&self) -> u64;

    /// The answer to a repeat of the request, for a live credential.
    fn again<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>>;

    /// Whether the kind derives its passwords with [`MintOrder::password`]. The environments of its upstreams then have a key for that.
    fn derives(&self) -> bool {
        false
    }

    /// Whether undoing needs a secret that only the upstream's answer has, such as a token that deletes itself.
    ///
    /// [`make`](UpstreamConnector::make) then hands the secret to [`MintOrder::keeper`] before it returns, and [`UndoOrder::secret`] has it
    /// until the lease is closed. `make` asks the upstream and seals the answer in a task of its own (`tokio::spawn`), since its future is
    /// dropped if the caller disconnects. If the answer is lost all the same, `undo` is not called: the lease stays listed until
    /// [`UpstreamHandle::ends_at`].
    fn undoes_by_secret(&self) -> bool {
        false
    }

    /// Whether the kind may seal a note for its undoing, by the same keeper. Unlike a [secret](UpstreamConnector::undoes_by_secret), a note may
    /// be missing: undoing is called without one then.
    fn undoes_with_note(&self) -> bool {
        false
    }

    /// The keys for the assertions by which mayfly identifies the caller, or itself, to the upstream. `None`: it needs none.
    fn assertion_keys(&self, _settings: &KindSettings) -> Option<AssertionKeys> {
        None
    }

    /// The id of the key that signs, by the terms of the lease, so that revoking the key revokes the credential. Empty: there is none.
    fn signing_key(&self, _terms: &str) -> String {
        String::new()
    }

    /// Gives the connector the issuers of assertions, once, before anything else is asked.
    fn begin(&self, _issuers: &AssertionIssuers) {}

    /// Gives the connector the server's store for values of its own, once, before anything else is asked.
    fn keep_in(&self, _values: &Arc<SealedValues>) {}

    /// The part for upstreams that a person connects once, by signing in there.
    fn sign_in(&self) -> Option<&dyn UpstreamSignIn> {
        None
    }

    /// Whether a credential of these terms cannot be revoked, so that undoing is to wait until [`UpstreamHandle::ends_at`]. Only where the
    /// registration consents.
    fn is_irrevocable(&self, _terms: &str) -> bool {
        false
    }

    /// Uses a credential that was made for a test of the upstream, in the least way. Returns what was done, in words.
    fn use_once<'a>(
        &'a self,
        _order: &'a MintOrder<'a>,
        _answer: &'a CredentialMaterial,
    ) -> ConnectorFuture<'a, Result<String, MakeError>> {
        Box::pin(std::future::ready(Err(MakeError::Refused("this kind has no way to use a credential by itself".to_owned()))))
    }
}

/// The remote kinds that the server supports.
#[derive(Clone, Default)]
pub struct UpstreamConnectors {
    by_kind: BTreeMap<CredentialKind, Arc<dyn UpstreamConnector>>,
    vault: VaultSlot,
}

impl UpstreamConnectors {
    /// No kinds, over the slot of the sealed secrets that their connectors share.
    pub fn over(vault: VaultSlot) -> UpstreamConnectors {
        UpstreamConnectors { by_kind: BTreeMap::new(), vault }
    }

    /// Where the server puts its sealed secrets once it has them.
    pub fn vault(&self) -> &VaultSlot {
        &self.vault
    }

    /// Adds a kind, replacing an earlier implementation of the same kind.
    pub fn with(mut self, remote: Arc<dyn UpstreamConnector>) -> UpstreamConnectors {
        self.by_kind.insert(remote.kind(), remote);
        self
    }

    /// As [`UpstreamConnector::keep_in`], for all kinds.
    pub fn keep_in(&self, values: &Arc<SealedValues>) {
        self.by_kind.values().for_each(|connector| connector.keep_in(values));
    }

    /// The parts for upstreams that people connect.
    pub fn sign_ins(&self) -> impl Iterator<Item = &dyn UpstreamSignIn> {
        self.by_kind.values().filter_map(|connector| connector.sign_in())
    }

    /// Whether a kind needs secrets for undoing.
    pub fn any_seals(&self) -> bool {
        self.by_kind.values().any(|connector| connector.undoes_by_secret() || connector.undoes_with_note())
    }

    /// As [`UpstreamConnector::begin`], for all kinds.
    pub fn begin(&self, issuers: &AssertionIssuers) {
        self.by_kind.values().for_each(|connector| connector.begin(issuers));
    }

    /// As [`UpstreamConnector::assertion_keys`], of a kind.
    pub fn assertion_keys(&self, kind: CredentialKind, settings: &KindSettings) -> Option<AssertionKeys> {
        self.of(kind)?.assertion_keys(settings)
    }

    /// Whether a kind derives its passwords.
    pub fn derives(&self, kind: CredentialKind) -> bool {
        self.of(kind).is_some_and(|connector| connector.derives())
    }

    /// The implementation of a kind.
    pub fn of(&self, kind: CredentialKind) -> Option<&Arc<dyn UpstreamConnector>> {
        self.by_kind.get(&kind)
    }
}

impl DescribeAccess for UpstreamConnectors {
    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        let not_narrowed = || {
            let what = format!("is not served for kind {}: leave it out, and ask for the scopes that are needed", query.kind);
            AccessError::Details { field: "authorization_details".to_owned(), what }
        };
        if let Some(described) = certificates::describe(query) {
            return if query.details.is_empty() { described } else { Err(not_narrowed()) };
        }
        let kind = CredentialKind::from_number(query.kind.tag().into());
        let connector = kind.and_then(|kind| self.of(kind)).ok_or(AccessError::NotServed)?;
        if !query.details.is_empty() && !connector.narrows() {
            return Err(not_narrowed());
        }
        connector.describe(query)
    }
}
