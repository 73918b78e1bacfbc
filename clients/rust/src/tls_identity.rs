//! A certificate chain with its private key, for TLS.

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

/// Why a chain and a key cannot be used together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsIdentityDefect {
    /// The PEM text of the certificates is invalid.
    #[error("{0}")]
    Certificates(PemDefect),
    /// A certificate cannot be parsed.
    #[error("has a certificate that cannot be read")]
    CertificateMalformed,
    /// The chain is longer than a peer would accept.
    #[error("has more than {} certificates", limits::CHAIN_CERTIFICATES)]
    ChainTooLong,
    /// The key's text is not PEM.
    #[error("is not PEM: expected -----BEGIN PRIVATE KEY-----")]
    KeyNotPem,
    /// The PEM text contains no private key.
    #[error("has no private key in it (PKCS#8, SEC1 or PKCS#1)")]
    NoKey,
    /// The key cannot be parsed, or its type is not supported.
    #[error("has a private key that cannot be read, or that is not ECDSA P-256/384/521, Ed25519 or RSA")]
    KeyMalformed,
    /// The key belongs to another certificate.
    #[error("has a private key that does not belong to the first certificate")]
    KeyMismatch,
}

/// A chain and its private key. `Debug` is not implemented, so that the key cannot be printed.
#[derive(Clone)]
pub struct TlsIdentity {
    chain: PeerChain,
    key: Arc<CertifiedKey>,
}

impl TlsIdentity {
    /// Parses two PEM texts, which may be the same. The key must belong to the first certificate.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<TlsIdentity, TlsIdentityDefect> {
        let chain = PeerChain::from_pem(certificates).map_err(TlsIdentityDefect::Certificates)?;
        let der = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
            pem::Error::NoItemsFound if looks_like_pem(key) => TlsIdentityDefect::NoKey,
            pem::Error::NoItemsFound => TlsIdentityDefect::KeyNotPem,
            _ => TlsIdentityDefect::KeyMalformed,
        });
        TlsIdentity::of(chain, der)
    }

    /// Parses concatenated DER certificates and a PKCS #8 key in DER, as the Workload API sends them.
    pub fn from_der(certificates: &[u8], key: &[u8]) -> Result<TlsIdentity, TlsIdentityDefect> {
        let chain = PeerChain::from_der(certificates).ok_or(TlsIdentityDefect::CertificateMalformed)?;
        TlsIdentity::of(chain, PrivateKeyDer::try_from(key.to_vec()).map_err(|_| TlsIdentityDefect::KeyMalformed))
    }

    fn of(chain: PeerChain, key: Result<PrivateKeyDer<'static>, TlsIdentityDefect>) -> Result<TlsIdentity, TlsIdentityDefect> {
        if chain.certificates().len() > limits::CHAIN_CERTIFICATES {
            return Err(TlsIdentityDefect::ChainTooLong);
        }
        if chain.certificates().iter().any(|der| TrustAnchor::from_der(der).is_none()) {
            return Err(TlsIdentityDefect::CertificateMalformed);
        }
        let mut der = key?;
        let signer = any_supported_type(&der);
        der.zeroize();
        let pair = CertifiedKey::new(chain.certificates().to_vec(), signer.map_err(|_| TlsIdentityDefect::KeyMalformed)?);
        match pair.keys_match() {
            Ok(()) => Ok(TlsIdentity { chain, key: Arc::new(pair) }),
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsIdentityDefect::KeyMismatch),
            Err(_) => Err(TlsIdentityDefect::CertificateMalformed),
        }
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &PeerChain {
        &self.chain
    }

    /// The form that rustls uses.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The SPIFFE ID in the leaf, or the clause that it violates. The public listener may use a certificate that is not an SVID.
    pub fn spiffe_id(&self) -> Result<SpiffeId, SvidDefect> {
        profile::check(&self.chain).map(|says| says.id)
    }

    /// Whether the leaf has a DNS name. Many gRPC clients refuse a server certificate without one.
    pub fn has_dns_name(&self) -> bool {
        profile::has_dns_name(&self.chain)
    }
}
