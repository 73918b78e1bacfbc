//! A certificate chain and its private key, as TLS shows them.

use std::sync::Arc;

use mayfly_verify::identity::anchor::TrustAnchor;
use mayfly_verify::identity::profile;
use mayfly_verify::identity::spiffe_id::SpiffeId;
use mayfly_verify::identity::svid::{PeerChain, PemDefect, SvidDefect, looks_like_pem};
use mayfly_verify::limits;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use zeroize::Zeroize;

/// Why a chain and a key are not a pair to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PairDefect {
    /// The certificates' text.
    #[error("{0}")]
    Certificates(PemDefect),
    /// A certificate that cannot be read.
    #[error("has a certificate that cannot be read")]
    CertificateMalformed,
    /// More than a peer would accept.
    #[error("has more than {} certificates", limits::CHAIN_CERTIFICATES)]
    ChainTooLong,
    /// The key's text is not PEM.
    #[error("is not PEM: expected -----BEGIN PRIVATE KEY-----")]
    KeyNotPem,
    /// PEM, but no private key in it.
    #[error("has no private key in it (PKCS#8, SEC1 or PKCS#1)")]
    NoKey,
    /// A key that cannot be read, or of a kind that is not supported.
    #[error("has a private key that cannot be read, or that is not ECDSA P-256/384/521, Ed25519 or RSA")]
    KeyMalformed,
    /// A key of another certificate.
    #[error("has a private key that does not belong to the first certificate")]
    KeyMismatch,
}

/// A chain and its private key. It has no Debug output of the key.
#[derive(Clone)]
pub struct OwnPair {
    chain: PeerChain,
    key: Arc<CertifiedKey>,
}

impl OwnPair {
    /// From two PEM texts, which may be the same. The key belongs to the first certificate.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<OwnPair, PairDefect> {
        let chain = PeerChain::from_pem(certificates).map_err(PairDefect::Certificates)?;
        let der = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
            pem::Error::NoItemsFound if looks_like_pem(key) => PairDefect::NoKey,
            pem::Error::NoItemsFound => PairDefect::KeyNotPem,
            _ => PairDefect::KeyMalformed,
        });
        OwnPair::of(chain, der)
    }

    /// From certificates one after the other and a PKCS #8 key, DER: as the Workload API gives them.
    pub fn from_der(certificates: &[u8], key: &[u8]) -> Result<OwnPair, PairDefect> {
        let chain = PeerChain::from_der(certificates).ok_or(PairDefect::CertificateMalformed)?;
        OwnPair::of(chain, PrivateKeyDer::try_from(key.to_vec()).map_err(|_| PairDefect::KeyMalformed))
    }

    fn of(chain: PeerChain, key: Result<PrivateKeyDer<'static>, PairDefect>) -> Result<OwnPair, PairDefect> {
        if chain.certificates().len() > limits::CHAIN_CERTIFICATES {
            return Err(PairDefect::ChainTooLong);
        }
        if chain.certificates().iter().any(|der| TrustAnchor::from_der(der).is_none()) {
            return Err(PairDefect::CertificateMalformed);
        }
        let mut der = key?;
        let signer = any_supported_type(&der);
        der.zeroize();
        let pair = CertifiedKey::new(chain.certificates().to_vec(), signer.map_err(|_| PairDefect::KeyMalformed)?);
        match pair.keys_match() {
            Ok(()) => Ok(OwnPair { chain, key: Arc::new(pair) }),
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(PairDefect::KeyMismatch),
            Err(_) => Err(PairDefect::CertificateMalformed),
        }
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &PeerChain {
        &self.chain
    }

    /// What TLS shows.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The SPIFFE ID in the leaf, or the clause that it breaks: the public listener may show a certificate that is no SVID.
    pub fn spiffe_id(&self) -> Result<SpiffeId, SvidDefect> {
        profile::check(&self.chain).map(|says| says.id)
    }

    /// Whether the leaf has a DNS name; many gRPC clients refuse a server certificate without one.
    pub fn has_dns_name(&self) -> bool {
        profile::has_dns_name(&self.chain)
    }
}
