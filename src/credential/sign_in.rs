//! Upstreams that a person connects once: somebody signs in at the upstream's authorization server, and mayfly keeps the grant.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::connector::ConnectorFuture;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::Millis;

/// How somebody signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInWay {
    /// With a browser that is redirected to this address, on the operator's own machine.
    Browser {
        /// A loopback address (RFC 8252, section 7.3).
        redirect_uri: String,
    },
    /// With a code that is typed on any machine (RFC 8628).
    Device,
}

/// A sign-in that begins.
pub struct SignInOrder<'a> {
    /// The registration.
    pub upstream: &'a Upstream,
    /// How.
    pub way: SignInWay,
    /// The operator.
    pub by: String,
}

/// What somebody has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInPrompt {
    /// Identifies the sign-in in the next call. The client of an operator keeps it to itself.
    pub id: String,
    /// The page to open.
    pub url: String,
    /// The code that the page shows or asks for; empty for a browser.
    pub user_code: String,
    /// How long to wait before each question whether it is done, seconds; 0 for a browser.
    pub interval: u64,
    /// The `iss` that the redirect must name, if it names one (RFC 9207). Empty: there is none to compare.
    pub issuer: String,
    /// `state`: the redirect has the same.
    pub state: String,
}

/// How far a sign-in is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInProgress {
    /// The grant is kept.
    Connected,
    /// Nobody has signed in yet: to be asked again after so many seconds.
    Pending(u64),
}

/// Why a sign-in, or a disconnect, did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// The upstream takes no sign-in, or the registration is not for one.
    #[error("{0}")]
    NotForThis(String),
    /// There is a grant already.
    #[error("{0}")]
    Exists(String),
    /// There is no such grant, or no such sign-in.
    #[error("{0}")]
    NotFound(String),
    /// The authorization server refused, or was not reached.
    #[error("{0}")]
    Failed(String),
    /// Too many at once.
    #[error("{0}")]
    Busy(String),
}

/// What became of a grant that was disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnected {
    /// The grant is revoked at the server.
    Revoked,
    /// The grant is no longer used; revoking it is tried until it works. The error of the first attempt.
    Later(String),
    /// The grant is no longer used. The server cannot revoke it, or had ended it.
    Forgotten(String),
}

/// Where the grant of an upstream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nobody has signed in.
    None,
    /// The grant can be used.
    Connected,
    /// The server ended it: somebody has to sign in again.
    SignInAgain,
    /// The grant was disconnected and is being revoked.
    Ending,
}

/// The grant of an upstream, without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConnection {
    /// The upstream.
    pub upstream: String,
    /// The environment of the upstream.
    pub environment: String,
    /// Where it stands.
    pub state: ConnectionState,
    /// When somebody signed in.
    pub connected_at: Millis,
    /// The operator who did.
    pub connected_by: String,
    /// When it was last refreshed.
    pub refreshed_at: Millis,
    /// The last error, if the last attempt failed.
    pub trouble: String,
    /// Since when.
    pub trouble_since: Millis,
}

/// The part of a connector whose upstreams people sign in to.
pub trait UpstreamSignIn: Send + Sync {
    /// Begins a sign-in.
    fn begin<'a>(&'a self, order: SignInOrder<'a>) -> ConnectorFuture<'a, Result<SignInPrompt, SignInError>>;

    /// Goes on with a sign-in. `code`: what the browser was redirected with; `None` for a device.
    fn proceed<'a>(
        &'a self,
        id: &'a str,
        code: Option<Zeroizing<String>>,
    ) -> ConnectorFuture<'a, Result<SignInProgress, SignInError>>;

    /// The upstream of a sign-in that has begun.
    fn upstream_of(&self, id: &str) -> Option<String>;

    /// Ends a grant. It is not used any more from the moment at which the future first waits for the server.
    fn disconnect<'a>(&'a self, upstream: &'a str) -> ConnectorFuture<'a, Result<Disconnected, SignInError>>;

    /// All grants.
    fn connections(&self) -> ConnectorFuture<'_, Result<Vec<UpstreamConnection>, SignInError>>;

    /// Whether a registration needs somebody to sign in.
    fn wants_sign_in(&self, upstream: &Upstream) -> bool;

    /// Refreshes the grants that their server would end for want of use, and revokes those that were disconnected, or whose upstream is not
    /// among these any more. Called again and again.
    fn tend(&self, upstreams: Vec<Arc<Upstream>>) -> ConnectorFuture<'_, ()>;
}
