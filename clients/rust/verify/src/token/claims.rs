//! The claims of a token of ours, read back.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::identity::spiffe_id::trust_domain_of;
use crate::revocation::{Facts, SvidFacts};
use crate::seq::{CredentialId, Seq, TaskId};

/// Claims of a token. Those of other names are not ours and mean nothing to us (RFC 7519, section 4).
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Claims {
    /// Who issued it: a URL.
    pub iss: String,
    /// On whose behalf it acts. Means something only together with [`Own::sub_iss`].
    pub sub: String,
    /// Whom it is for.
    pub aud: String,
    /// Its end, seconds since 1970.
    pub exp: u64,
    /// When it was decided, seconds since 1970.
    pub iat: u64,
    /// Not good before, seconds since 1970.
    pub nbf: u64,
    /// Its id.
    #[serde(deserialize_with = "text")]
    pub jti: CredentialId,
    /// Whom it was issued to, by SPIFFE ID.
    pub client_id: String,
    /// The scopes with a space between.
    pub scope: String,
    /// Rich authorization details (RFC 9396).
    #[serde(default)]
    pub authorization_details: Option<serde_json::Value>,
    /// Through whom it acts, where `sub` is not the caller. Only the outermost counts for access control (RFC 8693, section 4.1).
    #[serde(default)]
    pub act: Option<Box<Act>>,
    /// The key that its holder has to prove.
    #[serde(default)]
    pub cnf: Option<Cnf>,
    /// Our own.
    #[serde(rename = "https://mayfly.dev/claims")]
    pub own: Own,
}

/// One actor, and the one before it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Act {
    /// The actor.
    pub sub: String,
    /// Its issuer.
    pub iss: String,
    /// Through whom it acts itself.
    #[serde(default)]
    pub act: Option<Box<Act>>,
}

/// The key that a token is bound to. One of the two.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Cnf {
    /// SHA-256 of a certificate in base64url (RFC 8705).
    #[serde(rename = "x5t#S256", default)]
    pub x5t: Option<String>,
    /// SHA-256 thumbprint of a JWK in base64url (RFC 9449).
    #[serde(default)]
    pub jkt: Option<String>,
}

/// The product's own claims.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Own {
    /// Their version.
    pub v: u32,
    /// Decision revision: a revocation at a higher seq covers it.
    #[serde(deserialize_with = "seq")]
    pub r: Seq,
    /// The environment.
    pub environment: String,
    /// Version of the environment's policy set.
    pub policy_version: u64,
    /// The upstream.
    pub upstream: String,
    /// The binding. Empty for none.
    #[serde(default)]
    pub binding: String,
    /// The tool that it serves for. Empty for any.
    #[serde(default)]
    pub tool: String,
    /// SHA-256 of the arguments that it serves for (RFC 8785). Empty for any.
    #[serde(default, deserialize_with = "hex")]
    pub arguments: Vec<u8>,
    /// The caller's trust domain.
    pub trust_domain: String,
    /// The task path, root first.
    pub tasks: Vec<TaskClaim>,
    /// The issuer of `sub`, where that is not the caller.
    #[serde(default)]
    pub sub_iss: Option<String>,
    /// The subject token that it rests on.
    #[serde(default)]
    pub subject_token: Option<SubjectTokenClaim>,
    /// Credentials that it rests on, the first of its line first.
    #[serde(default)]
    pub ancestors: Vec<AncestorClaim>,
    /// The SVID that it rests on.
    #[serde(default)]
    pub svid: Option<SvidClaim>,
    /// The other grants that it rests on, as far as no other claim names what revokes them: the openings of its tasks, and its ancestors.
    #[serde(default)]
    pub rests_on: Vec<GroundClaim>,
}

/// A grant that a credential rests on, with everything by which that can be revoked. What there is none of is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct GroundClaim {
    /// Credentials: its own id and its ancestors'.
    #[serde(default, deserialize_with = "texts")]
    pub credentials: Vec<CredentialId>,
    /// Its tasks.
    #[serde(default, deserialize_with = "texts")]
    pub tasks: Vec<TaskId>,
    /// Its caller, subject, actors and owners, by issuer and subject.
    #[serde(default)]
    pub parties: Vec<OwnerClaim>,
    /// Its upstream.
    #[serde(default)]
    pub upstream: String,
    /// Its scopes with a space between.
    #[serde(default)]
    pub scope: String,
    /// Its binding.
    #[serde(default)]
    pub binding: String,
    /// Its tool.
    #[serde(default)]
    pub tool: String,
    /// Its environment.
    #[serde(default)]
    pub environment: String,
    /// Version of that environment's policy set.
    #[serde(default)]
    pub policy_version: u64,
    /// The key that signed it.
    #[serde(default)]
    pub kid: String,
    /// The trust domain of its SVID.
    #[serde(default)]
    pub trust_domain: String,
    /// Its SVID.
    #[serde(default)]
    pub svid: Option<SvidClaim>,
    /// Its subject token.
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

/// A task on the path.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TaskClaim {
    /// Its id.
    #[serde(deserialize_with = "text")]
    pub id: TaskId,
    /// Who owns it.
    pub owner: OwnerClaim,
}

/// Somebody by issuer and subject.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OwnerClaim {
    /// Issuer: a URL, or the trust domain of a SPIFFE ID.
    pub iss: String,
    /// Subject in that issuer.
    pub sub: String,
}

/// A subject token.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SubjectTokenClaim {
    /// Its issuer.
    pub iss: String,
    /// Its id.
    pub id: String,
}

/// A credential that another rests on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct AncestorClaim {
    /// Its id.
    #[serde(deserialize_with = "text")]
    pub id: CredentialId,
    /// Whom it was issued to.
    pub caller: String,
}

/// An SVID.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SvidClaim {
    /// SHA-256 of the trust anchor's certificate.
    #[serde(deserialize_with = "hex")]
    pub trust_anchor: Vec<u8>,
    /// SHA-256 of the key that signed it.
    #[serde(deserialize_with = "hex")]
    pub issuing_key: Vec<u8>,
    /// Its serial, big endian.
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

    /// What the revocation rules can ask: `Rules::covers` on these facts says whether the token is revoked. `kid` is that of its header,
    /// as [`verify`](super::verify()) has checked it.
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
        // As the server gathers them: what rests on a credential by its task alone has it as no ancestor.
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
