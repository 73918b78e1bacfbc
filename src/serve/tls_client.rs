//! The client's end of TLS: a mayfly server is known by its SPIFFE ID, not by a DNS name.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible, SignatureScheme};

use super::tls::{ALPN_GRPC, BundlesInForce, Own, OwnCertificate, chain, opaque, provider};
use crate::identity::spiffe_id::SpiffeId;
use crate::identity::svid::{self, PeerChain, SvidDefect};
use crate::sources::https::Time;
use crate::system::System;

/// The configuration of a client that calls a mayfly server: ALPN `h2`, the server is who `expected` says, by the bundle of that id's trust
/// domain. The name that the connection is made for is not compared. `own` is what it shows of itself, where it shows anything.
pub fn client_config(
    own: Option<OwnCertificate>,
    bundles: BundlesInForce,
    expected: SpiffeId,
    system: &System,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = ServerVerifier { bundles, expected, system: system.clone(), algorithms };
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(system.clone())))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Own(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = ALPN_GRPC.iter().map(|p| p.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Why the server that answered is not the one that was called.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotThatServer {
    /// Its certificate is no X509-SVID by the bundle at hand.
    #[error("the server's certificate was refused: {0}")]
    Svid(SvidDefect),
    /// It is somebody else.
    #[error("the server is {found}, expected {expected}")]
    OtherId {
        /// Who was called.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
}

/// Finds the reason in whatever a connection attempt ended with, however deep it lies: rustls itself only shows its debug form.
pub fn not_that_server<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a NotThatServer> {
    if let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) = error.downcast_ref::<Error>() {
        return inner.downcast_ref();
    }
    // An io::Error's source is what comes after the error that it carries, so that one is asked for itself.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(carried) => not_that_server(carried),
        None => error.source().and_then(not_that_server),
    }
}

struct ServerVerifier {
    bundles: BundlesInForce,
    expected: SpiffeId,
    system: System,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    fn check(&self, chain: &PeerChain) -> Result<(), NotThatServer> {
        let server = svid::verify_server(chain, &self.bundles.load(), self.system.wall()).map_err(NotThatServer::Svid)?;
        if *server.id() == self.expected {
            return Ok(());
        }
        Err(NotThatServer::OtherId { expected: self.expected.clone(), found: server.id().clone() })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let no = |defect| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(defect))));
        self.check(&chain(end_entity, intermediates)).map_err(no)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

opaque!(ServerVerifier);
