//! Trust bundles: the authorities of each trust domain. Bundles of different domains are never pooled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::anchor::{AnchorId, TrustAnchor};
use super::jwk::{KeyDefect, VerifyingKey};
use super::jwks;
use super::path::Roots;
use super::spiffe_id::TrustDomain;
use super::svid::{Evidence, PeerChain, PemDefect};
use crate::limits;

/// Why a document is not a valid trust bundle. The whole document is refused, since half a bundle would vouch for half a domain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleDefect {
    /// Larger than `limits::BUNDLE_BYTES`.
    #[error("has more than {} bytes", limits::BUNDLE_BYTES)]
    TooLarge,
    /// More than `limits::BUNDLE_AUTHORITIES` authorities.
    #[error("has more than {} authorities", limits::BUNDLE_AUTHORITIES)]
    TooManyAuthorities,
    /// Neither PEM nor JSON.
    #[error("is neither PEM nor a SPIFFE bundle in JSON")]
    NotPem,
    /// A PEM section is cut off or not base64.
    #[error("has a PEM section that is cut off or is not base64")]
    BadSection,
    /// Not JSON, or a duplicate member name.
    #[error("is not JSON as it must be: {0}")]
    NotJson(String),
    /// No array `keys`.
    #[error("has no array \"keys\": a bundle that trusts nobody says \"keys\": []")]
    NoKeysMember,
    /// A member has an invalid value.
    #[error("{0}")]
    Member(&'static str),
    /// A key is not an object with `kty`.
    #[error("keys[{0}] is no object with a \"kty\"")]
    NotAKey(usize),
    /// An x509-svid key has a `kid`.
    #[error("keys[{0}]: an x509-svid key has no \"kid\"")]
    X509WithKid(usize),
    /// An x509-svid key does not have exactly one certificate.
    #[error("keys[{0}]: an x509-svid key has exactly one certificate in \"x5c\"")]
    X5cNotOne(usize),
    /// A jwt-svid key has no `kid`.
    #[error("keys[{0}]: a jwt-svid key has a \"kid\"")]
    JwtWithoutKid(usize),
    /// Two jwt-svid keys have the same `kid`.
    #[error("keys[{0}]: its \"kid\" stands at another key too")]
    KidTwice(usize),
    /// A certificate cannot be parsed or is too large.
    #[error("certificate {0} cannot be read, or has more than {max} bytes", max = limits::CERTIFICATE_BYTES)]
    Certificate(usize),
}

/// A JWT authority: a key that signs JWT-SVIDs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtAuthority {
    kid: String,
    jwk: Value,
    key: Result<VerifyingKey, KeyDefect>,
}

impl JwtAuthority {
    /// A JWK with its `kid`. An unusable key is kept, with the reason in [`JwtAuthority::key`], so that the other keys of its bundle stay
    /// usable.
    pub fn new(kid: String, jwk: Value) -> JwtAuthority {
        let key = jwk.as_object().map_or(Err(KeyDefect::Type), VerifyingKey::from_jwk);
        JwtAuthority { kid, jwk, key }
    }

    /// The authority's `kid`.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWK, unchanged.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The key, or why it cannot be used.
    pub fn key(&self) -> Result<&VerifyingKey, KeyDefect> {
        self.key.as_ref().map_err(|defect| *defect)
    }
}

/// The authorities of one trust domain. Immutable.
#[derive(Clone, Debug)]
pub struct Bundle {
    trust_domain: TrustDomain,
    sequence: Option<u64>,
    refresh_hint_s: Option<u64>,
    anchors: Vec<TrustAnchor>,
    jwt: Vec<JwtAuthority>,
    ignored_keys: usize,
    roots: Roots,
}

/// The content of a document, before it is assigned to a trust domain.
#[derive(Default)]
pub(super) struct Contents {
    pub sequence: Option<u64>,
    pub refresh_hint_s: Option<u64>,
    pub anchors: Vec<TrustAnchor>,
    pub jwt: Vec<JwtAuthority>,
    pub ignored_keys: usize,
}

impl Bundle {
    /// Parses a document of either form: SPIFFE JWKS where it begins with `{`, else PEM.
    pub fn parse(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, BundleDefect> {
        let begins = document.iter().find(|b| !b.is_ascii_whitespace());
        if begins == Some(&b'{') { Bundle::from_jwks(trust_domain, document) } else { Bundle::from_pem(trust_domain, document) }
    }

    /// Parses the certificates of a PEM text. An empty text is an empty bundle.
    pub fn from_pem(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, BundleDefect> {
        check_size(document)?;
        let certificates = match PeerChain::from_pem(document) {
            Ok(chain) => chain.certificates().to_vec(),
            Err(PemDefect::BadSection) => return Err(BundleDefect::BadSection),
            Err(_) if document.iter().all(u8::is_ascii_whitespace) => Vec::new(),
            Err(_) => return Err(BundleDefect::NotPem),
        };
        if certificates.len() > limits::BUNDLE_AUTHORITIES {
            return Err(BundleDefect::TooManyAuthorities);
        }
        let anchors = certificates.iter().enumerate();
        let anchors = anchors.map(|(at, der)| TrustAnchor::from_der(der).ok_or(BundleDefect::Certificate(at)));
        Ok(Bundle::new(trust_domain, Contents { anchors: anchors.collect::<Result<_, _>>()?, ..Contents::default() }))
    }

    /// Parses a SPIFFE bundle document (SPIFFE-Trust-Domain-and-Bundle, section 4).
    pub fn from_jwks(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, BundleDefect> {
        check_size(document)?;
        Ok(Bundle::new(trust_domain, jwks::contents(document)?))
    }

    /// Parses a plain JWK set, as the Workload API sends a trust domain's JWT bundle. Its keys sign JWT-SVIDs even without `use`.
    pub fn from_jwt_bundle(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, BundleDefect> {
        check_size(document)?;
        Ok(Bundle::new(trust_domain, jwks::jwt_contents(document)?))
    }

    fn new(trust_domain: TrustDomain, contents: Contents) -> Bundle {
        let Contents { sequence, refresh_hint_s, anchors, jwt, ignored_keys } = contents;
        let roots = Roots::new(&anchors);
        Bundle { trust_domain, sequence, refresh_hint_s, anchors, jwt, ignored_keys, roots }
    }

    /// The trust domain of the bundle.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// `spiffe_sequence`; PEM has none.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint`, seconds.
    pub fn refresh_hint_s(&self) -> Option<u64> {
        self.refresh_hint_s
    }

    /// The X.509 authorities, including those that cannot vouch ([`TrustAnchor::standing`]).
    pub fn x509_authorities(&self) -> &[TrustAnchor] {
        &self.anchors
    }

    /// The JWT authorities.
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt
    }

    /// The JWT authority with this `kid`.
    pub fn jwt_authority(&self, kid: &str) -> Option<&JwtAuthority> {
        self.jwt.iter().find(|authority| authority.kid == kid)
    }

    /// The number of keys in the JWKS that were ignored because `use` is absent or unknown.
    pub fn ignored_keys(&self) -> usize {
        self.ignored_keys
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    fn anchor_ids(&self) -> BTreeSet<AnchorId> {
        self.anchors.iter().map(TrustAnchor::id).collect()
    }
}

/// Bundles are equal where their content is equal.
impl PartialEq for Bundle {
    fn eq(&self, other: &Bundle) -> bool {
        self.trust_domain == other.trust_domain
            && self.sequence == other.sequence
            && self.refresh_hint_s == other.refresh_hint_s
            && self.anchors == other.anchors
            && self.jwt == other.jwt
    }
}
impl Eq for Bundle {}

fn check_size(document: &[u8]) -> Result<(), BundleDefect> {
    if document.len() > limits::BUNDLE_BYTES { Err(BundleDefect::TooLarge) } else { Ok(()) }
}

/// Why a bundle may not replace another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuccessorDefect {
    /// The bundles are of different trust domains.
    #[error("is a bundle of another trust domain")]
    OtherTrustDomain,
    /// The sequence decreases, as when an old bundle is replayed.
    #[error("has sequence {new}, and {seen} was seen: a sequence never goes down")]
    SequenceWentDown {
        /// The highest sequence seen.
        seen: u64,
        /// The sequence of the new bundle.
        new: u64,
    },
    /// The sequence is missing.
    #[error("has no sequence, and {seen} was seen: a sequence never goes missing")]
    SequenceMissing {
        /// The highest sequence seen.
        seen: u64,
    },
}

/// Whether `new` may replace `old`. Call it with the ledger's bundle as `old`, so that the rule holds across a restart.
pub fn check_successor(old: &Bundle, new: &Bundle) -> Result<(), SuccessorDefect> {
    if old.trust_domain != new.trust_domain {
        return Err(SuccessorDefect::OtherTrustDomain);
    }
    sequence_may_follow(old.sequence, new.sequence)
}

/// The rule on sequences alone. `seen` is the highest sequence that was ever in force.
pub fn sequence_may_follow(seen: Option<u64>, new: Option<u64>) -> Result<(), SuccessorDefect> {
    match (seen, new) {
        (Some(seen), None) => Err(SuccessorDefect::SequenceMissing { seen }),
        (Some(seen), Some(new)) if new < seen => Err(SuccessorDefect::SequenceWentDown { seen, new }),
        _ => Ok(()),
    }
}

/// The difference between two bundles in their X.509 authorities.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BundleDiff {
    /// Added anchors.
    pub added: Vec<AnchorId>,
    /// Removed anchors. Everything that they vouched for is revoked.
    pub removed: Vec<AnchorId>,
}

/// The anchors added and removed from `old` to `new`. An absent bundle has none.
pub fn diff(old: Option<&Bundle>, new: Option<&Bundle>) -> BundleDiff {
    let ids = |bundle: Option<&Bundle>| bundle.map(Bundle::anchor_ids).unwrap_or_default();
    let (before, after) = (ids(old), ids(new));
    BundleDiff { added: after.difference(&before).copied().collect(), removed: before.difference(&after).copied().collect() }
}

/// The bundles in force, by trust domain. Immutable: a change creates a new map that shares the unchanged bundles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles(BTreeMap<TrustDomain, Arc<Bundle>>);

impl Bundles {
    /// A map of bundles; `None` above `limits::TRUST_DOMAINS`. Of two bundles of one domain the later one is used.
    pub fn new(bundles: impl IntoIterator<Item = Arc<Bundle>>) -> Option<Bundles> {
        let map: BTreeMap<_, _> = bundles.into_iter().map(|b| (b.trust_domain.clone(), b)).collect();
        if map.len() > limits::TRUST_DOMAINS { None } else { Some(Bundles(map)) }
    }

    /// The bundle of a trust domain, by its name without a scheme.
    pub fn get(&self, trust_domain: &str) -> Option<&Arc<Bundle>> {
        self.0.get(trust_domain)
    }

    /// A map with this bundle in place of its domain's; `None` above `limits::TRUST_DOMAINS`.
    pub fn with(&self, bundle: Arc<Bundle>) -> Option<Bundles> {
        Bundles::new(self.0.values().cloned().chain([bundle]))
    }

    /// A map without a trust domain.
    pub fn without(&self, trust_domain: &str) -> Bundles {
        let mut map = self.0.clone();
        map.remove(trust_domain);
        Bundles(map)
    }

    /// All bundles, by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.0.values()
    }

    /// Whether the anchor that vouched is still in its domain's bundle. If not, the connection ends.
    pub fn still_vouch_for(&self, evidence: &Evidence) -> bool {
        let bundle = self.get(evidence.trust_domain.as_str());
        bundle.is_some_and(|b| b.anchors.iter().any(|a| a.id() == evidence.trust_anchor))
    }
}
