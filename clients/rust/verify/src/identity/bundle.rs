//! Trust bundles: what each trust domain vouches with. Bundles of different domains are never pooled.

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

/// Why a document is no trust bundle. The whole document is refused: half a bundle would vouch for half a domain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleDefect {
    /// Above `limits::BUNDLE_BYTES`.
    #[error("has more than {} bytes", limits::BUNDLE_BYTES)]
    TooLarge,
    /// Above `limits::BUNDLE_AUTHORITIES`.
    #[error("has more than {} authorities", limits::BUNDLE_AUTHORITIES)]
    TooManyAuthorities,
    /// Neither PEM nor JSON.
    #[error("is neither PEM nor a SPIFFE bundle in JSON")]
    NotPem,
    /// A PEM section that is cut off or not base64.
    #[error("has a PEM section that is cut off or is not base64")]
    BadSection,
    /// Not JSON, or a name stands twice in an object.
    #[error("is not JSON as it must be: {0}")]
    NotJson(String),
    /// No `keys`.
    #[error("has no array \"keys\": a bundle that trusts nobody says \"keys\": []")]
    NoKeysMember,
    /// A member that is not what it must be.
    #[error("{0}")]
    Member(&'static str),
    /// A key that is no object with `kty`.
    #[error("keys[{0}] is no object with a \"kty\"")]
    NotAKey(usize),
    /// An x509-svid key with `kid`.
    #[error("keys[{0}]: an x509-svid key has no \"kid\"")]
    X509WithKid(usize),
    /// An x509-svid key without exactly one certificate.
    #[error("keys[{0}]: an x509-svid key has exactly one certificate in \"x5c\"")]
    X5cNotOne(usize),
    /// A jwt-svid key without `kid`.
    #[error("keys[{0}]: a jwt-svid key has a \"kid\"")]
    JwtWithoutKid(usize),
    /// Two jwt-svid keys with one `kid`.
    #[error("keys[{0}]: its \"kid\" stands at another key too")]
    KidTwice(usize),
    /// A certificate that is none.
    #[error("certificate {0} cannot be read, or has more than {max} bytes", max = limits::CERTIFICATE_BYTES)]
    Certificate(usize),
}

/// A key that signs JWT-SVIDs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtAuthority {
    kid: String,
    jwk: Value,
    key: Result<VerifyingKey, KeyDefect>,
}

impl JwtAuthority {
    /// A JWK by its name. One that cannot be used is kept, as [`JwtAuthority::key`] tells: the others of its bundle are as good as before.
    pub fn new(kid: String, jwk: Value) -> JwtAuthority {
        let key = jwk.as_object().map_or(Err(KeyDefect::Type), VerifyingKey::from_jwk);
        JwtAuthority { kid, jwk, key }
    }

    /// Its name in the bundle.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWK as it stood there.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The key, or why it vouches for nothing.
    pub fn key(&self) -> Result<&VerifyingKey, KeyDefect> {
        self.key.as_ref().map_err(|defect| *defect)
    }
}

/// What one trust domain vouches with. Immutable.
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

/// What a document says, before it belongs to a trust domain.
#[derive(Default)]
pub(super) struct Contents {
    pub sequence: Option<u64>,
    pub refresh_hint_s: Option<u64>,
    pub anchors: Vec<TrustAnchor>,
    pub jwt: Vec<JwtAuthority>,
    pub ignored_keys: usize,
}

impl Bundle {
    /// From a document of either form: SPIFFE JWKS where it begins with `{`, else PEM.
    pub fn parse(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, BundleDefect> {
        let begins = document.iter().find(|b| !b.is_ascii_whitespace());
        if begins == Some(&b'{') { Bundle::from_jwks(trust_domain, document) } else { Bundle::from_pem(trust_domain, document) }
    }

    /// From the certificates of a PEM text. An empty text is an empty bundle.
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

    /// From a SPIFFE bundle document (SPIFFE-Trust-Domain-and-Bundle, section 4).
    pub fn from_jwks(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, BundleDefect> {
        check_size(document)?;
        Ok(Bundle::new(trust_domain, jwks::contents(document)?))
    }

    /// From a plain JWK set, as the Workload API gives a trust domain's JWT bundle: its keys sign JWT-SVIDs though no `use` says so.
    pub fn from_jwt_bundle(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, BundleDefect> {
        check_size(document)?;
        Ok(Bundle::new(trust_domain, jwks::jwt_contents(document)?))
    }

    fn new(trust_domain: TrustDomain, contents: Contents) -> Bundle {
        let Contents { sequence, refresh_hint_s, anchors, jwt, ignored_keys } = contents;
        let roots = Roots::new(&anchors);
        Bundle { trust_domain, sequence, refresh_hint_s, anchors, jwt, ignored_keys, roots }
    }

    /// Whose bundle it is.
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

    /// The X.509 authorities, also those that cannot vouch ([`TrustAnchor::standing`]).
    pub fn x509_authorities(&self) -> &[TrustAnchor] {
        &self.anchors
    }

    /// The JWT authorities.
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt
    }

    /// The JWT authority of that name.
    pub fn jwt_authority(&self, kid: &str) -> Option<&JwtAuthority> {
        self.jwt.iter().find(|authority| authority.kid == kid)
    }

    /// Keys of a JWKS that were passed by, for a `use` that is absent or not known here.
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

/// Equal where they say the same.
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

/// Why one bundle may not take the place of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuccessorDefect {
    /// Bundles of two trust domains.
    #[error("is a bundle of another trust domain")]
    OtherTrustDomain,
    /// The sequence goes down: an old bundle, replayed.
    #[error("has sequence {new}, and {seen} was seen: a sequence never goes down")]
    SequenceWentDown {
        /// The highest that was seen.
        seen: u64,
        /// What the new bundle has.
        new: u64,
    },
    /// The sequence is gone.
    #[error("has no sequence, and {seen} was seen: a sequence never goes missing")]
    SequenceMissing {
        /// The highest that was seen.
        seen: u64,
    },
}

/// Whether `new` may take the place of `old`. Ask it of the ledger's bundle, so that it holds across a restart.
pub fn check_successor(old: &Bundle, new: &Bundle) -> Result<(), SuccessorDefect> {
    if old.trust_domain != new.trust_domain {
        return Err(SuccessorDefect::OtherTrustDomain);
    }
    sequence_may_follow(old.sequence, new.sequence)
}

/// The rule on sequences alone: `seen` is the highest that was ever in force.
pub fn sequence_may_follow(seen: Option<u64>, new: Option<u64>) -> Result<(), SuccessorDefect> {
    match (seen, new) {
        (Some(seen), None) => Err(SuccessorDefect::SequenceMissing { seen }),
        (Some(seen), Some(new)) if new < seen => Err(SuccessorDefect::SequenceWentDown { seen, new }),
        _ => Ok(()),
    }
}

/// What changes for those whom a trust domain vouches for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BundleDiff {
    /// Anchors that are new.
    pub added: Vec<AnchorId>,
    /// Anchors that are gone: what they vouched for is revoked.
    pub removed: Vec<AnchorId>,
}

/// Anchors added and removed from `old` to `new`; an absent bundle has none.
pub fn diff(old: Option<&Bundle>, new: Option<&Bundle>) -> BundleDiff {
    let ids = |bundle: Option<&Bundle>| bundle.map(Bundle::anchor_ids).unwrap_or_default();
    let (before, after) = (ids(old), ids(new));
    BundleDiff { added: after.difference(&before).copied().collect(), removed: before.difference(&after).copied().collect() }
}

/// The bundles in force, by trust domain. Immutable: a change makes a new map that shares the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles(BTreeMap<TrustDomain, Arc<Bundle>>);

impl Bundles {
    /// A map of bundles; `None` above `limits::TRUST_DOMAINS`. Of two bundles of one domain the later counts.
    pub fn new(bundles: impl IntoIterator<Item = Arc<Bundle>>) -> Option<Bundles> {
        let map: BTreeMap<_, _> = bundles.into_iter().map(|b| (b.trust_domain.clone(), b)).collect();
        if map.len() > limits::TRUST_DOMAINS { None } else { Some(Bundles(map)) }
    }

    /// The bundle of a trust domain, by its name without scheme.
    pub fn get(&self, trust_domain: &str) -> Option<&Arc<Bundle>> {
        self.0.get(trust_domain)
    }

    /// With this bundle in the place of its domain's; `None` above `limits::TRUST_DOMAINS`.
    pub fn with(&self, bundle: Arc<Bundle>) -> Option<Bundles> {
        Bundles::new(self.0.values().cloned().chain([bundle]))
    }

    /// Without a trust domain.
    pub fn without(&self, trust_domain: &str) -> Bundles {
        let mut map = self.0.clone();
        map.remove(trust_domain);
        Bundles(map)
    }

    /// All bundles, by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.0.values()
    }

    /// Whether the anchor that vouched is still in its domain's bundle. Where not, the connection ends.
    pub fn still_vouch_for(&self, evidence: &Evidence) -> bool {
        let bundle = self.get(evidence.trust_domain.as_str());
        bundle.is_some_and(|b| b.anchors.iter().any(|a| a.id() == evidence.trust_anchor))
    }
}
