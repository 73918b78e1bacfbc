//! X509-SVIDs: the chain of a peer, and the functions that verify it.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::anchor::AnchorId;
use super::bundle::Bundles;
use super::path::{self, PathDefect, Purpose};
use super::spiffe_id::{IdDefect, SpiffeId, TrustDomain};
use super::{profile, sha256};
use crate::seq::Millis;

/// The certificates that a peer presented, leaf first. Nothing about them is verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerChain(Vec<CertificateDer<'static>>);

/// Why a text contains no certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PemDefect {
    /// The text has no PEM section.
    #[error("is not PEM: expected -----BEGIN CERTIFICATE-----")]
    NotPem,
    /// A section is cut off or not base64.
    #[error("has a PEM section that is cut off or is not base64")]
    BadSection,
    /// The PEM text contains no certificate.
    #[error("has no certificate in it")]
    NoCertificate,
}

impl PeerChain {
    /// A chain from DER certificates, leaf first.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> PeerChain {
        PeerChain(certificates)
    }

    /// Parses concatenated DER certificates. `None` where the input is empty or contains anything else.
    pub fn from_der(mut bytes: &[u8]) -> Option<PeerChain> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (rest, _) = x509_parser::parse_x509_certificate(bytes).ok()?;
            all.push(CertificateDer::from(bytes[..bytes.len() - rest.len()].to_vec()));
            bytes = rest;
        }
        (!all.is_empty()).then(|| PeerChain::new(all))
    }

    /// The certificates of a PEM text, in its order. Other sections, such as keys, are ignored.
    pub fn from_pem(text: &[u8]) -> Result<PeerChain, PemDefect> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let certificates = found.map_err(|_| PemDefect::BadSection)?;
        match certificates.is_empty() {
            false => Ok(PeerChain(certificates)),
            true if looks_like_pem(text) => Err(PemDefect::NoCertificate),
            true => Err(PemDefect::NotPem),
        }
    }

    /// The certificates, leaf first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

pub fn looks_like_pem(text: &[u8]) -> bool {
    text.windows(11).any(|w| w == b"-----BEGIN ")
}

/// The evidence for a caller's identity, for records, claims and revocation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// The trust domain whose bundle vouched for the chain.
    pub trust_domain: TrustDomain,
    /// The trust anchor at the end of the path.
    pub trust_anchor: AnchorId,
    /// SHA-256 of the SubjectPublicKeyInfo of the certificate that signed the leaf.
    pub issuing_key: [u8; 32],
    /// The leaf's serial number: big endian, 1 to 20 bytes, without the zero byte that DER puts before a high bit.
    pub serial: Vec<u8>,
    /// The leaf's notBefore.
    pub not_before: Millis,
    /// How long the whole chain is valid: the earliest notAfter of the leaf, the CAs above it and the anchor.
    pub not_after: Millis,
    /// SHA-256 of the leaf: `x5t#S256` (RFC 8705, section 3.1).
    pub leaf_sha256: [u8; 32],
}

/// A SPIFFE ID that a trust bundle vouched for. Only [`verify`] and [`verify_server`] construct one.
///
/// ```compile_fail,E0451
/// use mayfly_verify::identity::svid::VerifiedSvid;
/// let forged = VerifiedSvid { id: "spiffe://example.org/admin".parse().unwrap(), evidence: todo!() };
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedSvid {
    id: SpiffeId,
    evidence: Arc<Evidence>,
}

impl VerifiedSvid {
    /// The verified SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The evidence for the SPIFFE ID.
    pub fn evidence(&self) -> &Arc<Evidence> {
        &self.evidence
    }
}

/// Verifies the chain of a calling peer. The error says which clause refuses it.
///
/// `max_ttl_ms`: an SVID whose notAfter is further away than this is refused.
pub fn verify(chain: &PeerChain, bundles: &Bundles, at: Millis, max_ttl_ms: u64) -> Result<VerifiedSvid, SvidDefect> {
    verify_for(chain, bundles, at, max_ttl_ms, Purpose::Client)
}

/// Verifies the chain of a called server. The caller must compare the SPIFFE ID with the expected one.
pub fn verify_server(chain: &PeerChain, bundles: &Bundles, at: Millis) -> Result<VerifiedSvid, SvidDefect> {
    verify_for(chain, bundles, at, u64::MAX, Purpose::Server)
}

fn verify_for(
    chain: &PeerChain,
    bundles: &Bundles,
    at: Millis,
    max_ttl_ms: u64,
    purpose: Purpose,
) -> Result<VerifiedSvid, SvidDefect> {
    let says = profile::check(chain)?;
    let bundle = bundles.get(says.id.trust_domain()).ok_or(SvidDefect::NoBundle)?;
    if at.seconds() < says.not_before.seconds() {
        return Err(SvidDefect::NotYetValid);
    }
    if at.seconds() > says.not_after.seconds() {
        return Err(SvidDefect::Expired);
    }
    if says.not_after.since(at) > max_ttl_ms {
        return Err(SvidDefect::LivesTooLong);
    }
    let (leaf, intermediates) = chain.certificates().split_first().ok_or(SvidDefect::EmptyChain)?;
    let path = path::build(leaf, intermediates, bundle.roots(), at, purpose).map_err(SvidDefect::Path)?;
    let evidence = Evidence {
        trust_domain: bundle.trust_domain().clone(),
        trust_anchor: path.anchor,
        issuing_key: path.issuing_key,
        serial: says.serial,
        not_before: says.not_before,
        not_after: says.not_after.min(path.issuers_not_after),
        leaf_sha256: sha256(leaf),
    };
    Ok(VerifiedSvid { id: says.id, evidence: Arc::new(evidence) })
}

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident => $code:literal, $clause:literal;)*) => {
        /// Why a chain is not accepted as an X509-SVID: a closed list with one clause each.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum SvidDefect {
            $($(#[$doc])* $name,)*
            /// The URI SAN is not a SPIFFE ID.
            Id(IdDefect),
            /// No path of signatures leads to the bundle.
            Path(PathDefect),
        }

        impl SvidDefect {
            /// All defects except those of the SPIFFE ID and the path, which have lists of their own.
            pub const ALL: &'static [SvidDefect] = &[$(SvidDefect::$name,)*];

            /// A stable, machine-readable name of the defect.
            pub const fn code(self) -> &'static str {
                match self {
                    $(SvidDefect::$name => $code,)*
                    SvidDefect::Id(defect) => defect.code(),
                    SvidDefect::Path(defect) => defect.code(),
                }
            }

            /// The clause that refuses the chain, with its place in the standard.
            pub const fn clause(self) -> &'static str {
                match self {
                    $(SvidDefect::$name => $clause,)*
                    SvidDefect::Id(_) => "the URI SAN is a SPIFFE ID in its canonical form (SPIFFE-ID 2; X509-SVID 2)",
                    SvidDefect::Path(defect) => defect.clause(),
                }
            }
        }
    };
}

defects! {
    /// The chain has no certificate.
    EmptyChain => "empty_chain", "a caller presents its certificate (X509-SVID 5.1)";
    /// More than `limits::CHAIN_CERTIFICATES` certificates.
    ChainTooLong => "chain_too_long", "a chain has at most 8 certificates (limit CHAIN_CERTIFICATES)";
    /// A certificate is larger than `limits::CERTIFICATE_BYTES`.
    CertificateTooLarge => "certificate_too_large", "a certificate has at most 16384 bytes (limit CERTIFICATE_BYTES)";
    /// A certificate or one of its extensions cannot be parsed.
    Malformed => "malformed", "each certificate is well-formed DER (RFC 5280, 4.1)";
    /// No URI among the subject alternative names.
    NoUriSan => "no_uri_san", "the leaf has exactly one URI SAN: this one has none (X509-SVID 2)";
    /// More than one URI among the subject alternative names.
    MoreThanOneUriSan => "more_than_one_uri_san", "the leaf has exactly one URI SAN: this one has more (X509-SVID 2)";
    /// The URI is not text.
    UriNotText => "uri_not_text", "a URI SAN is ASCII text (RFC 5280, 4.2.1.6)";
    /// The id of the trust domain itself.
    IdWithoutPath => "id_without_path", "a leaf's SPIFFE ID has a non-root path (X509-SVID 3.1, 5.2)";
    /// More than `limits::SPIFFE_ID_SEGMENTS` segments.
    TooManySegments => "too_many_segments", "a caller's SPIFFE ID has at most 16 path segments (limit SPIFFE_ID_SEGMENTS)";
    /// The Subject is empty and the SAN is not critical.
    SanNotCritical => "san_not_critical", "with an empty Subject, the SAN is critical (RFC 5280, 4.1.2.6)";
    /// The leaf has cA true.
    LeafIsCa => "leaf_is_ca", "a CA certificate is never a caller: cA is false (X509-SVID 4.1, 5.2)";
    /// No keyUsage, in the leaf or in a signing certificate.
    KeyUsageAbsent => "key_usage_absent", "keyUsage is present (X509-SVID 4.3)";
    /// keyUsage is not critical, in the leaf or in a signing certificate.
    KeyUsageNotCritical => "key_usage_not_critical", "keyUsage is critical (X509-SVID 4.3)";
    /// The leaf has no digitalSignature.
    LeafNoDigitalSignature => "leaf_no_digital_signature", "the leaf has keyUsage digitalSignature (X509-SVID 4.3)";
    /// The leaf has keyCertSign.
    LeafKeyCertSign => "leaf_key_cert_sign", "the leaf has no keyUsage keyCertSign (X509-SVID 4.3, 5.2)";
    /// The leaf has cRLSign.
    LeafCrlSign => "leaf_crl_sign", "the leaf has no keyUsage cRLSign (X509-SVID 4.3, 5.2)";
    /// extendedKeyUsage without both purposes.
    ExtendedKeyUsage => "extended_key_usage", "extendedKeyUsage, where present, has serverAuth and clientAuth (X509-SVID 4.4)";
    /// The serial number is zero, negative or longer than 20 bytes.
    Serial => "serial", "a serial number is positive and at most 20 bytes long (RFC 5280, 4.1.2.2)";
    /// A further certificate of the chain is not a CA.
    IntermediateNotCa => "intermediate_not_ca", "each certificate above the leaf has cA true (X509-SVID 4.1)";
    /// A further certificate of the chain may not sign certificates.
    IntermediateNoKeyCertSign => "intermediate_no_key_cert_sign", "each certificate above the leaf has keyUsage keyCertSign (X509-SVID 4.3)";
    /// A CA with a workload's SPIFFE ID.
    SignerIdHasPath => "signer_id_has_path", "the SPIFFE ID of a certificate that signs has no path (X509-SVID 3.2)";
    /// More than `limits::CHAIN_SAME_SUBJECT` CAs with the same Subject.
    SameSubject => "same_subject", "at most 3 certificates above the leaf have the same Subject (limit CHAIN_SAME_SUBJECT)";
    /// There is no bundle for the trust domain.
    NoBundle => "no_bundle", "the SVID's own trust domain has a bundle here, and no other bundle is used (X509-SVID 5.2)";
    /// The time is before notBefore.
    NotYetValid => "not_yet_valid", "notBefore has passed (RFC 5280, 4.1.2.5)";
    /// The time is after notAfter.
    Expired => "expired", "notAfter has not passed (RFC 5280, 4.1.2.5)";
    /// The remaining lifetime exceeds the configured `svid_max_ttl`.
    LivesTooLong => "lives_too_long", "an SVID has at most svid.max_ttl of life left (mayfly, identity)";
}

impl PathDefect {
    /// Every defect there is.
    pub const ALL: &'static [PathDefect] = &[
        PathDefect::UnknownAuthority,
        PathDefect::Expired,
        PathDefect::NotYetValid,
        PathDefect::LeafIsCa,
        PathDefect::IssuerNotCa,
        PathDefect::PathLength,
        PathDefect::NameConstraint,
        PathDefect::UnknownCriticalExtension,
        PathDefect::ExtendedKeyUsage,
        PathDefect::SignatureAlgorithm,
        PathDefect::TooComplex,
        PathDefect::Malformed,
    ];

    /// A stable, machine-readable name of the defect.
    pub const fn code(self) -> &'static str {
        match self {
            PathDefect::UnknownAuthority => "unknown_authority",
            PathDefect::Expired => "issuer_expired",
            PathDefect::NotYetValid => "issuer_not_yet_valid",
            PathDefect::LeafIsCa => "leaf_is_ca",
            PathDefect::IssuerNotCa => "intermediate_not_ca",
            PathDefect::PathLength => "path_length",
            PathDefect::NameConstraint => "name_constraint",
            PathDefect::UnknownCriticalExtension => "unknown_critical_extension",
            PathDefect::ExtendedKeyUsage => "issuer_extended_key_usage",
            PathDefect::SignatureAlgorithm => "signature_algorithm",
            PathDefect::TooComplex => "too_complex",
            PathDefect::Malformed => "malformed",
        }
    }

    /// The clause that refuses the chain, with its place in the standard.
    pub const fn clause(self) -> &'static str {
        match self {
            PathDefect::UnknownAuthority => {
                "signatures lead to an authority of the trust domain's own bundle (X509-SVID 5.1, 5.2)"
            }
            PathDefect::Expired => "each authority above the leaf has not passed its notAfter (RFC 5280, 6.1.3)",
            PathDefect::NotYetValid => "each authority above the leaf has passed its notBefore (RFC 5280, 6.1.3)",
            PathDefect::LeafIsCa => "a CA certificate is never a caller: cA is false (X509-SVID 4.1, 5.2)",
            PathDefect::IssuerNotCa => "what signs a certificate is a CA (RFC 5280, 6.1.4)",
            PathDefect::PathLength => "no CA has more CAs below it than its pathLenConstraint allows (RFC 5280, 4.2.1.9)",
            PathDefect::NameConstraint => "names lie within the name constraints above them, and none is on URIs (X509-SVID 4.2)",
            PathDefect::UnknownCriticalExtension => "every critical extension is known (RFC 5280, 4.2)",
            PathDefect::ExtendedKeyUsage => "each certificate above the leaf is good for this purpose (RFC 5280, 4.2.1.12)",
            PathDefect::SignatureAlgorithm => "signatures are ECDSA P-256/384/521, Ed25519, ML-DSA or RSA of 2048 bits and more",
            PathDefect::TooComplex => "the path is found within the search's budget (100 signatures)",
            PathDefect::Malformed => "each certificate is well-formed DER (RFC 5280, 4.1)",
        }
    }
}

impl fmt::Display for SvidDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SvidDefect::Id(defect) => write!(f, "{}: {defect}", self.clause()),
            _ => f.write_str(self.clause()),
        }
    }
}

impl std::error::Error for SvidDefect {}
