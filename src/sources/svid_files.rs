//! Our own certificate and key from files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use zeroize::{Zeroize, Zeroizing};

use super::files::{self, ContentDigest, FileProblem};
use crate::identity::spiffe_id::SpiffeId;
use crate::identity::svid::{PeerChain, PemDefect, SvidDefect, looks_like_pem};
use crate::identity::{anchor::TrustAnchor, profile};
use crate::limits;

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
        if chain.certificates().len() > limits::CHAIN_CERTIFICATES {
            return Err(PairDefect::ChainTooLong);
        }
        if chain.certificates().iter().any(|der| TrustAnchor::from_der(der).is_none()) {
            return Err(PairDefect::CertificateMalformed);
        }
        let mut der = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
            pem::Error::NoItemsFound if looks_like_pem(key) => PairDefect::NoKey,
            pem::Error::NoItemsFound => PairDefect::KeyNotPem,
            _ => PairDefect::KeyMalformed,
        })?;
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

/// The two files of a certificate and its key, and what was last seen in them.
pub struct SvidFiles {
    certificates: PathBuf,
    key: PathBuf,
    seen: Option<[ContentDigest; 2]>,
    said: Option<FileProblem>,
}

impl SvidFiles {
    /// Paths of two PEM files, which may be the same file.
    pub fn new(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> SvidFiles {
        SvidFiles { certificates: certificates.into(), key: key.into(), seen: None, said: None }
    }

    /// Reads both now.
    pub fn load(&mut self) -> Result<OwnPair, FileProblem> {
        let (certificates, key, digests) = self.read()?;
        let pair = self.pair(&certificates, &key)?;
        self.seen = Some(digests);
        self.said = None;
        Ok(pair)
    }

    /// Reads both again: `None` where nothing changed, or where the same problem was told before. After a problem the old pair stays in use.
    pub fn poll(&mut self) -> Option<Result<OwnPair, FileProblem>> {
        let outcome = self.read().and_then(|(certificates, key, digests)| {
            if self.seen == Some(digests) {
                return Ok(None);
            }
            // Read between the two halves of a change, the files do not match; the next poll sees both.
            let pair = self.pair(&certificates, &key)?;
            self.seen = Some(digests);
            Ok(Some(pair))
        });
        match outcome {
            Ok(pair) => {
                self.said = None;
                pair.map(Ok)
            }
            Err(problem) if self.said.as_ref() == Some(&problem) => None,
            Err(problem) => {
                self.said = Some(problem.clone());
                Some(Err(problem))
            }
        }
    }

    /// Polls for ever, telling `each` of new pairs and of problems. Drop the future to stop.
    pub async fn watch(mut self, every: Duration, mut each: impl FnMut(Result<OwnPair, FileProblem>)) {
        loop {
            tokio::time::sleep(every).await;
            let polled = tokio::task::spawn_blocking(move || {
                let found = self.poll();
                (self, found)
            });
            // The runtime is going down.
            let Ok((back, found)) = polled.await else { return };
            self = back;
            if let Some(found) = found {
                each(found);
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "the two texts and their digests, used in this file only")]
    fn read(&self) -> Result<(Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>, [ContentDigest; 2]), FileProblem> {
        let (certificates, a) = files::read(&self.certificates, limits::PEM_FILE_BYTES)?;
        let (key, b) = files::read(&self.key, limits::PEM_FILE_BYTES)?;
        Ok((certificates, key, [a, b]))
    }

    fn pair(&self, certificates: &[u8], key: &[u8]) -> Result<OwnPair, FileProblem> {
        OwnPair::from_pem(certificates, key).map_err(|defect| {
            let (path, remedy): (&Path, _) = match defect {
                PairDefect::Certificates(_) | PairDefect::CertificateMalformed | PairDefect::ChainTooLong => {
                    (&self.certificates, "it holds the certificate and the CAs between it and the trust bundle, in PEM")
                }
                PairDefect::KeyMismatch => (&self.key, "write the key that the certificate was made for, or both anew"),
                _ => (&self.key, "it holds one private key in PEM"),
            };
            FileProblem::new(path, defect, remedy)
        })
    }
}
