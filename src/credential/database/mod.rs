//! What the connectors of databases share: the place of a target, mayfly's own password, the name and the answer of a login.
//!
//! - [`problem`]: an error of a database, with what would mend it. [`settings`]: the keys that the sections of several kinds have.
//!   [`access`]: the grants of scopes, and the access that they give.

pub mod access;
pub mod problem;
pub mod settings;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use self::problem::DatabaseProblem;
use crate::access::UpstreamAccess;
use crate::access::address::UpstreamAddress;
use crate::connector::{MakeError, MintOrder, UpstreamCredential};
use crate::{CredentialKind, CredentialMaterial};
use mayfly_verify::seq::CredentialId;

/// The step that reads the file with mayfly's own password.
pub const OWN_PASSWORD: &str = "reading mayfly's own password";

/// An answer of mayfly itself: nothing was made.
pub fn refused(why: impl std::fmt::Display) -> MakeError {
    MakeError::Refused(why.to_string())
}

/// The name of a credential's account: the prefix, and 26 characters that need no quotes.
pub fn account_of(prefix: &str, credential: CredentialId) -> String {
    format!("{prefix}{}", data_encoding::BASE32_NOPAD.encode(credential.as_bytes()).to_ascii_lowercase())
}

/// The section of a kind in the registration of an order.
pub fn section_of<T: DeserializeOwned>(order: &MintOrder<'_>, kind: CredentialKind) -> Result<T, MakeError> {
    order.settings.read(kind.name()).map_err(refused)
}

/// The terms of a lease.
pub fn terms_of<T: DeserializeOwned>(terms: &str) -> Result<T, String> {
    serde_json::from_str(terms).map_err(|e| format!("its terms: {e}"))
}

/// The password by which mayfly logs in at `target`.
pub async fn own_password<C>(
    access: &UpstreamAccess,
    upstream: &str,
    target: &str,
) -> Result<Zeroizing<String>, DatabaseProblem<C>> {
    let (access, upstream, target) = (access.clone(), upstream.to_owned(), target.to_owned());
    let read = tokio::task::spawn_blocking(move || access.secret(&upstream, &target, "password")).await;
    Ok(read.map_err(|e| DatabaseProblem::new(OWN_PASSWORD, e.to_string()))??)
}

/// Address and database of a target, `SCHEME://HOST:PORT/DATABASE`. `port`: that of a target without one.
pub fn place_of<'t>(target: &'t str, scheme: &str, port: u16, longest_name: usize) -> Option<(UpstreamAddress, &'t str)> {
    let rest = target.strip_prefix(scheme)?.strip_prefix("://")?;
    let (_, database) = rest.split_once('/')?;
    let plain = !database.is_empty() && database.len() <= longest_name && !database.contains('/');
    Some((UpstreamAddress::of(target, port)?, database)).filter(|_| plain)
}

/// Where a login is used.
pub struct LoginPlace<'a> {
    /// The address of the server.
    pub address: UpstreamAddress,
    /// The database.
    pub database: &'a str,
    /// The server takes no TLS.
    pub plaintext: bool,
}

/// The login of a credential, with its derived password and the roots that verify the server.
pub fn login(access: &UpstreamAccess, order: &MintOrder<'_>, place: LoginPlace<'_>) -> Result<UpstreamCredential, MakeError> {
    let roots = access.roots(&order.issued.upstream).map_err(refused)?;
    let answer = CredentialMaterial::Database {
        host: place.address.host,
        port: place.address.port,
        database: place.database.to_owned(),
        user: order.handle.to_owned(),
        password: order.password()?,
        server_ca_pem: roots.filter(|_| !place.plaintext).unwrap_or_default(),
        plaintext: place.plaintext,
    };
    Ok(UpstreamCredential { answer, irrevocable: false, ends_at: None })
}
