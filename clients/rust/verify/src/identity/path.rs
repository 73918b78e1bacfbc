//! Path validation: finds a chain of signatures from the leaf to an anchor of one bundle, using rustls-webpki with aws-lc-rs.
//!
//! webpki 0.103 does not check KeyUsage (see `profile`), and of an anchor it checks only name, key and name constraints (see `anchor` and
//! the closure below). Its own budgets bound the search: 100 signatures, 200,000 steps, 250,000 name comparisons.

use rustls_pki_types::{CertificateDer, TrustAnchor as PathAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, VerifiedPath};

use super::anchor::{AnchorId, TrustAnchor};
use super::{profile, sha256};
use crate::seq::Millis;

/// The usable anchors of one bundle, prepared for webpki.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    anchors: Vec<PathAnchor<'static>>,
    facts: Vec<Facts>,
}

#[derive(Clone, Copy, Debug)]
struct Facts {
    id: AnchorId,
    key: [u8; 32],
    not_before: Millis,
    not_after: Millis,
}

impl Roots {
    /// Leaves out anchors that cannot vouch ([`TrustAnchor::standing`]).
    pub fn new(anchors: &[TrustAnchor]) -> Roots {
        let mut roots = Roots::default();
        for anchor in anchors.iter().filter(|a| a.standing().is_ok()) {
            if let Ok(parsed) = webpki::anchor_from_trusted_cert(anchor.der()) {
                roots.anchors.push(parsed.to_owned());
                roots.facts.push(Facts {
                    id: anchor.id(),
                    key: *anchor.key(),
                    not_before: anchor.not_before(),
                    not_after: anchor.not_after(),
                });
            }
        }
        roots
    }

    /// The facts about the anchor of a path. It is found by its address in memory, since names and keys may repeat.
    fn facts_of(&self, anchor: &PathAnchor<'_>) -> Option<&Facts> {
        let place = std::ptr::from_ref(anchor).addr();
        let at = self.anchors.iter().position(|ours| std::ptr::from_ref(ours).addr() == place)?;
        self.facts.get(at)
    }
}

/// The extended key usage that the leaf needs, and that each CA above it must allow if it limits its purposes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The peer is a client that called.
    Client,
    /// The peer is a server that was called.
    Server,
}

/// A valid path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificatePath {
    /// The anchor at its end.
    pub anchor: AnchorId,
    /// SHA-256 of the SubjectPublicKeyInfo of the certificate that signed the leaf.
    pub issuing_key: [u8; 32],
    /// The earliest notAfter above the leaf: of the intermediates on the path and the anchor.
    pub issuers_not_after: Millis,
}

/// Why there is no valid path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PathDefect {
    /// No signatures lead to an authority of the bundle.
    UnknownAuthority,
    /// A certificate on the path has expired.
    Expired,
    /// A certificate on the path is not valid yet.
    NotYetValid,
    /// The leaf is a CA.
    LeafIsCa,
    /// A certificate that signed another one is not a CA.
    IssuerNotCa,
    /// More CAs below a CA than its pathLenConstraint allows, or than webpki follows.
    PathLength,
    /// A name outside the name constraints of a CA above it, or constraints on URIs, which are always refused.
    NameConstraint,
    /// An unknown critical extension.
    UnknownCriticalExtension,
    /// A certificate on the path does not allow this purpose.
    ExtendedKeyUsage,
    /// A signature algorithm that is not accepted.
    SignatureAlgorithm,
    /// The search exceeded its budget.
    TooComplex,
    /// A certificate on the path cannot be parsed.
    Malformed,
}

/// Searches a path from `leaf` to one of `roots` at the time `at`. `intermediates` may be in any order.
pub fn build(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    at: Millis,
    purpose: Purpose,
) -> Result<CertificatePath, PathDefect> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(defect)?;
    let usage = match purpose {
        Purpose::Client => KeyUsage::client_auth(),
        Purpose::Server => KeyUsage::server_auth(),
    };
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.seconds()));
    let anchor_is_valid = |path: &VerifiedPath<'_>| {
        let facts = roots.facts_of(path.anchor()).ok_or(Error::UnknownIssuer)?;
        if at.seconds() < facts.not_before.seconds() {
            return Err(Error::CertNotValidYet { time, not_before: unix(facts.not_before) });
        }
        if at.seconds() > facts.not_after.seconds() {
            return Err(Error::CertExpired { time, not_after: unix(facts.not_after) });
        }
        Ok(())
    };
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    let path = end_entity
        .verify_for_usage(algorithms, &roots.anchors, intermediates, time, usage, None, Some(&anchor_is_valid))
        .map_err(defect)?;
    describe(&path, roots)
}

fn describe(path: &VerifiedPath<'_>, roots: &Roots) -> Result<CertificatePath, PathDefect> {
    let facts = roots.facts_of(path.anchor()).ok_or(PathDefect::UnknownAuthority)?;
    let mut issuing_key = None;
    let mut issuers_not_after = facts.not_after;
    for issuer in path.intermediate_certificates() {
        issuing_key = issuing_key.or_else(|| Some(sha256(issuer.subject_public_key_info().as_ref())));
        let not_after = profile::not_after(&issuer.der()).ok_or(PathDefect::Malformed)?;
        issuers_not_after = issuers_not_after.min(not_after);
    }
    Ok(CertificatePath { anchor: facts.id, issuing_key: issuing_key.unwrap_or(facts.key), issuers_not_after })
}

fn unix(at: Millis) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.seconds()))
}

#[allow(deprecated, reason = "older variants of the same causes, still matched so that none falls through")]
fn defect(error: Error) -> PathDefect {
    match error {
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => PathDefect::UnknownAuthority,
        Error::CertExpired { .. } => PathDefect::Expired,
        Error::CertNotValidYet { .. } => PathDefect::NotYetValid,
        Error::CaUsedAsEndEntity => PathDefect::LeafIsCa,
        Error::EndEntityUsedAsCa => PathDefect::IssuerNotCa,
        Error::PathLenConstraintViolated | Error::MaximumPathDepthExceeded => PathDefect::PathLength,
        Error::NameConstraintViolation | Error::MalformedNameConstraint | Error::UnsupportedNameType => {
            PathDefect::NameConstraint
        }
        Error::UnsupportedCriticalExtension => PathDefect::UnknownCriticalExtension,
        Error::RequiredEkuNotFound | Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            PathDefect::ExtendedKeyUsage
        }
        Error::UnsupportedSignatureAlgorithm
        | Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKey
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PathDefect::SignatureAlgorithm,
        Error::MaximumSignatureChecksExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => PathDefect::TooComplex,
        // Everything else is a certificate that webpki cannot parse, or an error about CRLs, which are not used here.
        _ => PathDefect::Malformed,
    }
}
