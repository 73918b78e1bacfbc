//! The claims of a mayfly token.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::identity::spiffe_id::trust_domain_of;
use crate::revocation::{Facts, SvidFacts};
use crate::seq::{CredentialId, Seq, TaskId};

/// The claims of a token. Other claims are ignored (RFC 7519, section 4).
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Claims {
    /// The issuer, a URL.
    pub iss: String,
    /// The subject. Meaningful only together with [`MayflyClaims::sub_iss`].
    pub sub: String,
    /// The audience.
    pub aud: String,
    /// The expiry, seconds since 1970.
    pub exp: u64,
    /// The time of the decision, seconds since 1970.
    pub iat: u64,
    /// Not valid before this time, seconds since 1970.
    pub nbf: u64,
    /// The credential's id.
    #[serde(deserialize_with = "text")]
    pub jti: CredentialId,
    /// The SPIFFE ID of the caller that the token was issued to.
    pub client_id: String,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// Rich authorization details (RFC 9396).
    #[serde(default)]
    pub authorization_details: Option<serde_json::Value>,
    /// The actor chain, where `sub` is not the caller. Only the outermost actor counts for access control (RFC 8693, section 4.1).
    #[serde(default)]
    pub act: Option<Box<Act>>,
    /// The key whose possession the holder must prove.
    #[serde(default)]
    pub cnf: Option<Cnf>,
    /// mayfly's own claims.
    #[serde(rename = "https://mayfly.dev/claims")]
    pub own: MayflyClaims,
}

/// An actor, and the actors before it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Act {
    /// The actor.
    pub sub: String,
    /// The actor's issuer.
    pub iss: String,
    /// The actor before this one.
    #[serde(default)]
    pub act: Option<Box<Act>>,
}

/// The key that a token is bound to; exactly one of the fields is set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Cnf {
    /// SHA-256 of a certificate in base64url (RFC 8705).
    #[serde(rename = "x5t#S256", default)]
    pub x5t: Option<String>,
    /// SHA-256 thumbprint of a JWK in base64url (RFC 9449).
    #[serde(default)]
    pub jkt: Option<String>,
}

/// mayfly's own claims.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MayflyClaims {
    /// Version of these claims.
    pub v: u32,
    /// The decision revision. A revocation with a higher sequence number covers the token.
    #[serde(deserialize_with = "seq")]
    pub r: Seq,
    /// The environment.
    pub environment: String,
    /// Version of the environment's policy set.
    pub policy_version: u64,
    /// The upstream.
    pub upstream: String,
    /// The binding; empty for none.
    #[serde(default)]
    pub binding: String,
    /// The tool that the token is restricted to; empty for any.
    #[serde(default)]
    pub tool: String,
    /// SHA-256 of the arguments (RFC 8785) that the token is restricted to; empty for any.
    #[serde(default, deserialize_with = "hex")]
    pub arguments: Vec<u8>,
    /// The caller's trust domain.
    pub trust_domain: String,
    /// The task path, root first.
    pub tasks: Vec<TaskClaim>,
    /// The issuer of `sub`, where `sub` is not the caller.
    #[serde(default)]
    pub sub_iss: Option<String>,
    /// The subject token that the credential depends on.
    #[serde(default)]
    pub subject_token: Option<SubjectTokenClaim>,
    /// The credentials that this one depends on, the first credential of its renewal chain first.
    #[serde(default)]
    pub ancestors: Vec<AncestorClaim>,
    /// The SVID that the credential depends on.
    #[serde(default)]
    pub svid: Option<SvidClaim>,
    /// The other grants that the credential depends on (the openings of its tasks, and its ancestors), as far as no other claim names what
    /// can revoke them.
    #[serde(default)]
    pub rests_on: Vec<GroundClaim>,
}

/// A grant that a credential depends on, with everything by which the grant can be revoked. A field that does not apply is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct GroundClaim {
    /// The ids of the grant's credential and of its ancestors.
    #[serde(default, deserialize_with = "texts")]
    pub credentials: Vec<CredentialId>,
    /// The grant's tasks.
    #[serde(default, deserialize_with = "texts")]
    pub tasks: Vec<TaskId>,
    /// The grant's caller, subject, actors and owners, by issuer and subject.
    #[serde(default)]
    pub parties: Vec<OwnerClaim>,
    /// The grant's upstream.
    #[serde(default)]
    pub upstream: String,
    /// The grant's scopes, separated by spaces.
    #[serde(default)]
    pub scope: String,
    /// The name of the registry binding that permitted the grant; empty if none did.
    #[serde(default)]
    pub binding: String,
    /// The grant's tool.
    #[serde(default)]
    pub tool: String,
    /// The grant's environment.
    #[serde(default)]
    pub environment: String,
    /// Version of that environment's policy set.
    #[serde(default)]
    pub policy_version: u64,
    /// The key that signed the grant's credential.
    #[serde(default)]
    pub kid: String,
    /// The trust domain of the grant's SVID.
    #[serde(default)]
    pub trust_domain: String,
    /// The grant's SVID.
    #[serde(default)]
    pub svid: Option<SvidClaim>,
    /// The grant's subject token.
    #[serde(default)]
    pub subject_token: Option<SubjectTokenClaim>,
}

impl GroundClaim {
    fn facts(&self, revision: Seq) -> Facts<'_> {
        Facts {
            revision,
            credentials: self.credentials.clone(),
            tasks: self.tasks.clone(),
            identities: self.parties.iter().map(|p| (&*p.iss, &*p.sub)).collect(),
            upstream: &self.upstream,
            scopes: words(&self.scope).collect(),
            binding: &self.binding,
            tool: &self.tool,
            environment: &self.environment,
            policy: self.policy_version,
            key: &self.kid,
            svid: self.svid.as_ref().map(|svid| svid_facts(&self.trust_domain, svid)),
            subject_token: self.subject_token.as_ref().map(|t| (&*t.iss, &*t.id)),
            rests_on: Vec::new(),
        }
    }
}

/// A task on the task path.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TaskClaim {
    /// The task's id.
    #[serde(deserialize_with = "text")]
    pub id: TaskId,
    /// The task's owner.
    pub owner: OwnerClaim,
}

/// An identity by issuer and subject.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OwnerClaim {
    /// Issuer: a URL, or the trust domain of a SPIFFE ID.
    pub iss: String,
    /// The subject at that issuer.
    pub sub: String,
}

/// A subject token.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SubjectTokenClaim {
    /// The token's issuer.
    pub iss: String,
    /// The token's id.
    pub id: String,
}

/// A credential that another one depends on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct AncestorClaim {
    /// The credential's id.
    #[serde(deserialize_with = "text")]
    pub id: CredentialId,
    /// The SPIFFE ID of the caller that the credential was issued to.
    pub caller: String,
}

/// An SVID.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SvidClaim {
    /// SHA-256 of the trust anchor's certificate.
    #[serde(deserialize_with = "hex")]
    pub trust_anchor: Vec<u8>,
    /// SHA-256 of the key that signed the SVID.
    #[serde(deserialize_with = "hex")]
    pub issuing_key: Vec<u8>,
    /// The SVID's serial number, big endian.
    #[serde(deserialize_with = "hex")]
    pub serial: Vec<u8>,
}

impl Claims {
    /// The scopes, one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        words(&self.scope)
    }

    /// The issuer of `sub`.
    pub fn subject_issuer(&self) -> &str {
        self.own.sub_iss.as_deref().unwrap_or(&self.own.trust_domain)
    }

    /// The facts that revocation rules match: `Rules::covers` on them says whether the token is revoked. `kid` is that of the token's
    /// header, as checked by [`verify`](super::verify()).
    pub fn facts<'a>(&'a self, kid: &'a str) -> Facts<'a> {
        let own = &self.own;
        let mut facts = Facts {
            revision: own.r,
            credentials: std::iter::once(self.jti).chain(own.ancestors.iter().map(|a| a.id)).collect(),
            tasks: own.tasks.iter().map(|t| t.id).collect(),
            identities: vec![(&own.trust_domain, &self.client_id), (self.subject_issuer(), &self.sub)],
            upstream: &own.upstream,
            scopes: self.scopes().collect(),
            binding: &own.binding,
            tool: &own.tool,
            environment: &own.environment,
            policy: own.policy_version,
            key: kid,
            svid: own.svid.as_ref().map(|svid| svid_facts(&own.trust_domain, svid)),
            subject_token: own.subject_token.as_ref().map(|t| (&*t.iss, &*t.id)),
            rests_on: own.rests_on.iter().map(|ground| ground.facts(own.r)).collect(),
        };
        // The server collects the same facts. A credential that depends on a presented credential only through its task does not list it as
        // an ancestor.
        facts.credentials.extend(own.subject_token.as_ref().and_then(|t| t.id.parse::<CredentialId>().ok()));
        facts.identities.extend(own.tasks.iter().map(|t| (&*t.owner.iss, &*t.owner.sub)));
        facts.identities.extend(own.ancestors.iter().map(|a| (trust_domain_of(&a.caller), &*a.caller)));
        let actors = std::iter::successors(self.act.as_deref(), |a| a.act.as_deref());
        facts.identities.extend(actors.map(|a| (&*a.iss, &*a.sub)));
        facts
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

fn svid_facts<'a>(trust_domain: &'a str, svid: &'a SvidClaim) -> SvidFacts<'a> {
    SvidFacts { trust_domain, anchor: &svid.trust_anchor, issuing_key: &svid.issuing_key, serial: &svid.serial }
}

fn texts<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(d: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<String>::deserialize(d)?;
    all.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(d: D) -> Result<T, D::Error> {
    String::deserialize(d)?.parse().map_err(D::Error::custom)
}

fn hex<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    data_encoding::HEXLOWER.decode(String::deserialize(d)?.as_bytes()).map_err(D::Error::custom)
}

fn seq<'de, D: Deserializer<'de>>(d: D) -> Result<Seq, D::Error> {
    Seq::from_u64(u64::deserialize(d)?).ok_or_else(|| D::Error::custom("a seq is below 2^53"))
}
