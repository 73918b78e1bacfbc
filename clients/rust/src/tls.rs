//! The client's side of TLS 1.3. A mayfly server is identified by its SPIFFE ID, not by a DNS name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mayfly_verify::clock::Clock;
use mayfly_verify::identity::bundle::Bundles;
use mayfly_verify::identity::spiffe_id::SpiffeId;
use mayfly_verify::identity::svid::{self, PeerChain, SvidDefect};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible, SignatureScheme};

/// The trust bundles in effect. A change applies from the next handshake.
pub type CurrentBundles = Arc<ArcSwap<Bundles>>;

/// The client's certificate and key in effect. A change applies from the next handshake.
pub type CurrentCertificate = Arc<ArcSwap<CertifiedKey>>;

/// The TLS configuration of a client that calls a mayfly server: ALPN `h2`, and the server must have the SPIFFE ID `expected`, verified
/// with the bundle of its trust domain. The connection's host name is not compared. `own` is the client's certificate, if it presents one.
pub fn client_config(
    own: Option<CurrentCertificate>,
    bundles: CurrentBundles,
    expected: SpiffeId,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = ServerVerifier { bundles, expected, clock: clock.clone(), algorithms };
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(ClientCertResolver(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the verification of the server.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Why the server is not the expected one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ServerIdentityError {
    /// The server's certificate is not a valid X509-SVID under the current bundle.
    #[error("the server's certificate was refused: {0}")]
    Svid(SvidDefect),
    /// The server has another SPIFFE ID.
    #[error("the server is {found}, expected {expected}")]
    OtherId {
        /// The expected SPIFFE ID.
        expected: SpiffeId,
        /// The server's SPIFFE ID.
        found: SpiffeId,
    },
}

/// Finds the reason in an error of a connection attempt, at any depth of its sources. rustls itself shows only the debug form.
pub fn server_identity_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a ServerIdentityError> {
    if let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) = error.downcast_ref::<Error>() {
        return inner.downcast_ref();
    }
    // The source of an io::Error skips the error that it carries, so the carried error is checked separately.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(carried) => server_identity_error(carried),
        None => error.source().and_then(server_identity_error),
    }
}

struct ServerVerifier {
    bundles: CurrentBundles,
    expected: SpiffeId,
    clock: Arc<dyn Clock>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    fn check(&self, chain: &PeerChain) -> Result<(), ServerIdentityError> {
        let server = svid::verify_server(chain, &self.bundles.load(), self.clock.wall()).map_err(ServerIdentityError::Svid)?;
        if *server.id() == self.expected {
            return Ok(());
        }
        Err(ServerIdentityError::OtherId { expected: self.expected.clone(), found: server.id().clone() })
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
        let chain = std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        self.check(&PeerChain::new(chain)).map_err(no)?;
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

/// Presents the certificate that is current at each handshake.
struct ClientCertResolver(CurrentCertificate);

impl ResolvesClientCert for ClientCertResolver {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let own = self.0.load_full();
        own.key.choose_scheme(schemes).map(|_| own)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.wall().seconds())))
    }
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        /// Required by rustls; there is nothing to show.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque!(ServerVerifier, ClientCertResolver, Time);
