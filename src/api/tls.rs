//! TLS 1.3 with X509-SVIDs instead of names: the server's end. The client's is [`client_config`].
//!
//! - Identity comes from the TLS session only: [`MtlsAcceptor::accept`] hands out the stream and the [`VerifiedSvid`] together.
//! - No tickets and no session storage: resumption would skip the certificate verifier.
//! - The hybrid post-quantum key exchange comes first, by rustls's feature `prefer-post-quantum`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, InvalidMessage, OtherError, PeerIncompatible,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use mayfly_authority::metrics::handshakes::{HandshakeClause, TlsDefect};
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_base::system::System;
use mayfly_config::https::TlsClock;
use mayfly_identity::path::PathDefect;
use mayfly_identity::profile;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_identity::svid::{self, PeerChain, SvidDefect, VerifiedSvid};

pub use super::tls_client::{ServerIdentityError, client_config, server_identity_error};

pub use mayfly_client::tls::{CurrentBundles, CurrentCertificate};

pub(super) const ALPN_GRPC: &[&[u8]] = &[b"h2"];
const ALPN_PUBLIC: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Why a peer got no connection.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The peer's certificate is no acceptable X509-SVID. The second value is the SPIFFE ID in the certificate, if it has a canonical form;
    /// the ID is not authenticated.
    #[error("{0}")]
    Svid(SvidDefect, Option<SpiffeId>),
    /// Another defect of the TLS handshake: no certificate, another protocol, a bad signature, a connection that ended.
    /// The second value is the cause in the words of the TLS library; empty if there is none.
    #[error("TLS: {}", .0.clause())]
    Tls(TlsDefect, String),
}

impl PeerError {
    /// The clause that refused the peer.
    pub fn clause(&self) -> HandshakeClause {
        match self {
            PeerError::Svid(defect, _) => HandshakeClause::Svid(*defect),
            PeerError::Tls(defect, _) => HandshakeClause::Tls(*defect),
        }
    }

    /// The SPIFFE ID that the peer claims. Safe to print: a canonical SPIFFE ID has only letters, digits, `.`, `-`, `_` and `/`.
    pub fn claimed(&self) -> Option<&SpiffeId> {
        match self {
            PeerError::Svid(_, claimed) => claimed.as_ref(),
            PeerError::Tls(..) => None,
        }
    }

    /// The cause in the words of the TLS library, for the log. It names no text that the peer chose.
    pub fn cause(&self) -> &str {
        match self {
            PeerError::Svid(..) => "",
            PeerError::Tls(_, cause) => cause,
        }
    }

    /// The refusal to be recorded. The peer itself only gets a TLS alert.
    pub fn refusal(&self) -> Refusal {
        let no = Refusal::new(Reason::NotAuthenticated, self.to_string());
        match self {
            PeerError::Svid(defect, _) => no.by(defect.code()),
            PeerError::Tls(..) => no,
        }
    }
}

/// Accepts the mTLS connections of workloads and admins. ALPN is `h2`.
#[derive(Clone)]
pub struct MtlsAcceptor {
    provider: Arc<CryptoProvider>,
    own: CurrentCertificate,
    bundles: CurrentBundles,
    system: System,
    max_ttl_ms: u64,
}

impl MtlsAcceptor {
    /// `max_ttl_ms` is `svid.max_ttl`.
    pub fn new(own: CurrentCertificate, bundles: CurrentBundles, system: System, max_ttl_ms: u64) -> MtlsAcceptor {
        MtlsAcceptor { provider: provider(), own, bundles, system, max_ttl_ms }
    }

    /// Performs a handshake. Returns the stream and the verified peer. The caller bounds the time (`limits::HANDSHAKE_MS`).
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, VerifiedSvid), PeerError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // A verifier for this connection alone: its verdict belongs to this peer, and the chain is verified once, not twice.
        let verifier = Arc::new(SvidVerifier {
            bundles: self.bundles.clone(),
            system: self.system.clone(),
            max_ttl_ms: self.max_ttl_ms,
            algorithms: self.provider.signature_verification_algorithms,
            verdict: OnceLock::new(),
        });
        let config = server_config(&self.provider, &self.system, verifier.clone(), &self.own, ALPN_GRPC);
        let config = config.map_err(|e| PeerError::Tls(TlsDefect::Internal, e.to_string()))?;
        let accepted = TlsAcceptor::from(Arc::new(config)).accept(io).await;
        match (accepted, verifier.verdict.get()) {
            (_, Some(Err((defect, claimed)))) => Err(PeerError::Svid(*defect, claimed.clone())),
            (Err(error), _) => Err(PeerError::Tls(defect_of(&error), error.to_string())),
            (Ok(stream), Some(Ok(svid))) if is_of(svid, &stream) => Ok((stream, svid.clone())),
            // No certificate of the session was verified.
            (Ok(_), _) => Err(PeerError::Tls(TlsDefect::Internal, String::new())),
        }
    }
}

/// The clause of a handshake error.
pub(super) fn defect_of(error: &std::io::Error) -> TlsDefect {
    use std::io::ErrorKind;
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected => TlsDefect::Closed,
            ErrorKind::TimedOut => TlsDefect::TooSlow,
            ErrorKind::InvalidData => TlsDefect::Protocol,
            _ => TlsDefect::Internal,
        };
    };
    match tls {
        Error::NoCertificatesPresented => TlsDefect::NoCertificate,
        Error::InvalidCertificate(CertificateError::BadSignature) => TlsDefect::Signature,
        Error::NoApplicationProtocol => TlsDefect::Alpn,
        Error::AlertReceived(_) => TlsDefect::RefusedByPeer,
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => TlsDefect::Version,
        Error::PeerIncompatible(_) => TlsDefect::Algorithms,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion | InvalidMessage::InvalidEmptyPayload,
        ) => TlsDefect::NotTls,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError
        | Error::InvalidCertificate(_) => TlsDefect::Protocol,
        _ => TlsDefect::Internal,
    }
}

/// Whether the session's own certificate is the one that was verified.
fn is_of<IO>(svid: &VerifiedSvid, stream: &TlsStream<IO>) -> bool {
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    leaf.is_some_and(|leaf| mayfly_identity::sha256(leaf) == svid.evidence().leaf_sha256)
}

/// The public listener's configuration: no client certificates, ALPN `h2` and `http/1.1`.
pub fn public_config(own: &CurrentCertificate, system: &System) -> Result<ServerConfig, Error> {
    server_config(&provider(), system, Arc::new(NoClientAuth), own, ALPN_PUBLIC)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    system: &System,
    verifier: Arc<dyn ClientCertVerifier>,
    own: &CurrentCertificate,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_details(provider.clone(), Arc::new(TlsClock(system.clone())))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(CertificateResolver(own.clone())));
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

struct SvidVerifier {
    bundles: CurrentBundles,
    system: System,
    max_ttl_ms: u64,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: OnceLock<Result<VerifiedSvid, (SvidDefect, Option<SpiffeId>)>>,
}

impl ClientCertVerifier for SvidVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        let verdict = svid::verify(&chain, &self.bundles.load(), self.system.wall(), self.max_ttl_ms);
        let answer = match &verdict {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(defect) => Err(Error::InvalidCertificate(alert(*defect))),
        };
        let verdict = verdict.map_err(|defect| (defect, profile::check(&chain).ok().map(|says| says.id)));
        // A second certificate on one connection would be post-handshake authentication, which rustls does not do.
        self.verdict.set(verdict).map_err(|_| Error::General("a second certificate on one connection".to_owned()))?;
        answer
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

/// The alert for the peer: it gives away no more than the kind of defect.
fn alert(defect: SvidDefect) -> CertificateError {
    match defect {
        SvidDefect::Expired | SvidDefect::Path(PathDefect::Expired) => CertificateError::Expired,
        SvidDefect::NotYetValid | SvidDefect::Path(PathDefect::NotYetValid) => CertificateError::NotValidYet,
        SvidDefect::NoBundle | SvidDefect::Path(PathDefect::UnknownAuthority) => CertificateError::UnknownIssuer,
        SvidDefect::Malformed | SvidDefect::Path(PathDefect::Malformed) => CertificateError::BadEncoding,
        _ => CertificateError::Other(OtherError(Arc::new(defect))),
    }
}

pub(super) fn chain(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> PeerChain {
    PeerChain::new(std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect())
}

/// Presents the certificate that is current at each handshake.
pub(super) struct CertificateResolver(pub(super) CurrentCertificate);

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        /// rustls requires the implementation; the value has nothing to print.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque!(SvidVerifier, CertificateResolver);
