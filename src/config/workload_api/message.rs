//! The content of one message of a Workload API agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_client::pb::workload::{JwtBundlesResponse, X509Svid, X509SvidResponse};
use serde_json::Value;

use super::{AgentError, AgentErrorReason, AgentRequest};
use crate::svid_files::TlsIdentity;
use mayfly_base::limits;
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::bundle::{Bundle, BundleDefect, Bundles, JwtAuthority};
use mayfly_identity::bundle_document::BundleDocument;
use mayfly_identity::spiffe_id::{TrustDomain, trust_domain_of};
use mayfly_identity::svid::{self, PeerChain};
use mayfly_verify::seq::Millis;

/// The roots of a trust domain, or their defect.
type Roots = Result<Vec<TrustAnchor>, String>;
/// The keys of a trust domain's JWT-SVIDs, or their defect.
type JwtKeys = Result<Vec<JwtAuthority>, String>;

/// The content of one message. Each message is complete and replaces earlier ones.
#[derive(Clone)]
pub struct AgentMessage {
    /// The server's SVID, or why there is none to use.
    pub svid: Result<TlsIdentity, AgentError>,
    /// The server's own trust domain: a message without its bundle does not mean that no member is trusted any more.
    own: TrustDomain,
    /// Whether the message has any SVID. A message without one violates the standard and revokes nothing.
    whole: bool,
    roots: BTreeMap<TrustDomain, Roots>,
    /// `None` until the JWT bundles are known.
    jwt: Option<BTreeMap<TrustDomain, JwtKeys>>,
}

impl AgentMessage {
    /// Checks the whole message.
    pub(super) fn read(
        wanted: &AgentRequest,
        said: &X509SvidResponse,
        jwt: Option<&JwtBundlesResponse>,
        now: Millis,
    ) -> AgentMessage {
        let mut roots: BTreeMap<TrustDomain, Roots> = BTreeMap::new();
        for (id, der) in &said.federated_bundles {
            if let Ok(domain) = TrustDomain::parse(trust_domain_of(id)) {
                roots.insert(domain, anchors(der));
            }
        }
        // The chosen SVID is processed last: if two SVIDs have bundles of one trust domain, the bundle of the chosen SVID is used.
        let chosen = choose(wanted, said);
        for svid in said.svids.iter().take(limits::WORKLOAD_API_SVIDS).rev().chain(chosen.as_ref().ok().copied()) {
            if let Ok(domain) = TrustDomain::parse(trust_domain_of(&svid.spiffe_id)) {
                let own = anchors(&svid.bundle).and_then(|roots| match roots.is_empty() {
                    // An SVID without roots in its own bundle is an error of the agent.
                    true => Err("is empty".to_owned()),
                    false => Ok(roots),
                });
                roots.insert(domain, own);
            }
        }
        let svid = chosen.and_then(|svid| usable(wanted, svid, roots.get(&wanted.trust_domain), now));
        AgentMessage { svid, own: wanted.trust_domain.clone(), whole: !said.svids.is_empty(), roots, jwt: jwt.map(keys) }
    }

    /// The current bundle of a trust domain. A federated trust domain that is not in the message has no roots; if the keys of JWT-SVIDs are
    /// not known yet, those of the bundle in effect are kept.
    pub fn bundle(&self, domain: &TrustDomain, in_force: Option<&Bundle>) -> Result<Arc<Bundle>, String> {
        let none = (Vec::new(), Vec::new());
        let roots = match self.roots.get(domain) {
            Some(roots) => roots.as_ref().map_err(Clone::clone)?,
            None if !self.whole || *domain == self.own => return Err("is not in what the agent gives".to_owned()),
            None => &none.0,
        };
        let jwt = match &self.jwt {
            None => in_force.map_or(&[][..], Bundle::jwt_authorities),
            Some(known) => known.get(domain).map_or(Ok(&none.1), Result::as_ref).map_err(Clone::clone)?,
        };
        bundle_of(domain, roots, jwt).map(Arc::new).map_err(|defect| defect.to_string())
    }

    /// Whether the message has a bundle of this trust domain at all.
    pub fn names(&self, domain: &TrustDomain) -> bool {
        self.roots.contains_key(domain)
    }
}

/// A bundle of these authorities.
pub fn bundle_of(domain: &TrustDomain, roots: &[TrustAnchor], jwt: &[JwtAuthority]) -> Result<Bundle, BundleDefect> {
    let document =
        BundleDocument { sequence: None, refresh_hint_s: None, anchors: roots.iter().collect(), jwt: jwt.iter().collect() };
    Bundle::from_jwks(domain.clone(), document.to_text().as_bytes())
}

/// Chooses by SPIFFE ID, by hint, or the first SVID, which is the default (Workload API, section 4.4).
fn choose<'a>(wanted: &AgentRequest, said: &'a X509SvidResponse) -> Result<&'a X509Svid, AgentError> {
    let all = || said.svids.iter().take(limits::WORKLOAD_API_SVIDS);
    let is = |svid: &&X509Svid| {
        wanted.id.as_ref().is_none_or(|id| id.as_str() == svid.spiffe_id)
            && wanted.hint.as_ref().is_none_or(|hint| *hint == svid.hint)
    };
    all().find(is).ok_or_else(|| {
        let shown: Vec<String> = all().map(|s| format!("{:?} (hint {:?})", s.spiffe_id, s.hint)).collect();
        let what = match shown.is_empty() {
            true => "it gives no SVID".to_owned(),
            false => format!("none of its SVIDs is the one that workload_api names: it gives {}", shown.join(", ")),
        };
        wanted.no(
            AgentErrorReason::Unusable,
            what,
            "mend workload_api.spiffe_id or workload_api.hint, or the entries: spire-server entry show",
        )
    })
}

/// Checks the SVID for everything that a start and its callers would refuse.
fn usable(wanted: &AgentRequest, svid: &X509Svid, roots: Option<&Roots>, now: Millis) -> Result<TlsIdentity, AgentError> {
    let name = format!("{:?}", svid.spiffe_id);
    let bad =
        |what: String| wanted.no(AgentErrorReason::Unusable, format!("the SVID {name} {what}"), "look at what the agent logs");
    let pair = TlsIdentity::from_der(&svid.x509_svid, &svid.x509_svid_key).map_err(|defect| bad(defect.to_string()))?;
    let id = pair.spiffe_id().map_err(|defect| bad(format!("is no X.509-SVID: {defect}")))?;
    if id.as_str() != svid.spiffe_id {
        return Err(bad(format!("is {id} by its certificate")));
    }
    if id.trust_domain() != wanted.trust_domain.as_str() {
        let what = format!("it gives {id}, which is not of {}", wanted.trust_domain);
        let remedy = "mend server.trust_domain, or name the agent of that trust domain under workload_api.socket";
        return Err(wanted.no(AgentErrorReason::OtherDomain, what, remedy));
    }
    let roots = match roots {
        Some(Ok(roots)) => roots,
        Some(Err(defect)) => return Err(bad(format!("comes with a bundle that {defect}"))),
        None => return Err(bad("comes without a bundle".to_owned())),
    };
    let bundle =
        bundle_of(&wanted.trust_domain, roots, &[]).map_err(|defect| bad(format!("comes with a bundle that {defect}")))?;
    let bundles = Bundles::new([Arc::new(bundle)]).unwrap_or_default();
    let vouched = svid::verify_server(pair.chain(), &bundles, now);
    vouched.map_err(|defect| bad(format!("would be refused by every caller: {defect}")))?;
    Ok(pair)
}

fn anchors(der: &[u8]) -> Roots {
    if der.is_empty() {
        return Ok(Vec::new());
    }
    let unreadable = || "has a certificate that cannot be read".to_owned();
    let chain = PeerChain::from_der(der).ok_or_else(unreadable)?;
    if chain.certificates().len() > limits::BUNDLE_AUTHORITIES {
        return Err(format!("has more than {} authorities", limits::BUNDLE_AUTHORITIES));
    }
    chain.certificates().iter().map(|der| TrustAnchor::from_der(der).ok_or_else(unreadable)).collect()
}

fn keys(said: &JwtBundlesResponse) -> BTreeMap<TrustDomain, JwtKeys> {
    let each = said.bundles.iter().filter_map(|(id, document)| {
        let domain = TrustDomain::parse(trust_domain_of(id)).ok()?;
        let read = Bundle::from_jwt_bundle(domain.clone(), document).map_err(|defect| format!("of JWT-SVIDs {defect}"));
        Some((domain, read.map(|bundle| bundle.jwt_authorities().iter().map(with_use).collect())))
    });
    each.collect()
}

/// Adds the `use` member that a trust bundle has and a plain JWK set lacks.
fn with_use(authority: &JwtAuthority) -> JwtAuthority {
    let mut jwk = authority.jwk().clone();
    if let Value::Object(members) = &mut jwk {
        members.insert("use".to_owned(), "jwt-svid".into());
    }
    JwtAuthority::new(authority.kid().to_owned(), jwk)
}
