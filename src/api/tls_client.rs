//! The client side of TLS: the client crate's configuration with this process's clock.

use std::sync::Arc;

use rustls::{ClientConfig, Error};

pub use mayfly_client::tls::{ServerIdentityError, server_identity_error};

use super::tls::{CurrentBundles, CurrentCertificate};
use mayfly_base::system::System;
use mayfly_identity::spiffe_id::SpiffeId;

/// The configuration of a client that calls a mayfly server ([`mayfly_client::tls::client_config`]).
pub fn client_config(
    own: Option<CurrentCertificate>,
    bundles: CurrentBundles,
    expected: SpiffeId,
    system: &System,
) -> Result<ClientConfig, Error> {
    mayfly_client::tls::client_config(own, bundles, expected, Arc::new(system.clone()))
}
