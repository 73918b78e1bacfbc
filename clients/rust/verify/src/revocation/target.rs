//! Validated revocation targets.

use serde::{Deserialize, Serialize};

use super::facts::Probe;
use super::record::{Aim, Identity, PolicyBelow, SvidTarget, TargetRecord};
use super::sort::Sort;
use crate::limits;
use crate::seq::{CredentialId, TaskId};

/// A revocation target. A revocation covers everything below its target (design, section 2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Target {
    /// A credential, and every credential that names it as an ancestor.
    Credential(CredentialId),
    /// A task, and everything whose task path contains it.
    Task(TaskId),
    /// A workload by SPIFFE ID, anywhere in the chain.
    Caller(Box<str>),
    /// Workloads whose SPIFFE ID begins with these whole segments.
    Prefix(Box<str>),
    /// All workloads of a trust domain.
    TrustDomain(Box<str>),
    /// Everything that a trust anchor vouched for: SHA-256 of its certificate.
    TrustAnchor([u8; 32]),
    /// An identity by issuer and subject.
    Subject(Box<str>, Box<str>),
    /// An upstream.
    Upstream(Box<str>),
    /// One scope of an upstream.
    UpstreamScope(Box<str>, Box<str>),
    /// A binding.
    Binding(Box<str>),
    /// A tool.
    Tool(Box<str>),
    /// An environment.
    Environment(Box<str>),
    /// Everything permitted by an environment's policy sets below a version.
    PolicyBelow(Box<str>, u64),
    /// A signing key of mayfly, by `kid`.
    SigningKey(Box<str>),
    /// An SVID by trust domain, SHA-256 of the key that signed it, and serial number.
    Svid(Box<str>, [u8; 32], Box<[u8]>),
    /// A subject token by issuer and id.
    SubjectToken(Box<str>, Box<str>),
    /// Everything.
    Everything,
}

/// Why a target is invalid, and what would be valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTarget(pub String);

pub(super) fn bad(what: impl Into<String>) -> BadTarget {
    BadTarget(what.into())
}

fn name(what: &'static str, text: &str) -> Result<Box<str>, BadTarget> {
    if text.is_empty() || text.len() > limits::SPIFFE_ID_BYTES {
        return Err(bad(format!("a {what} is 1 to {} bytes, this one is {}", limits::SPIFFE_ID_BYTES, text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(bad(format!("a {what} has no control characters")));
    }
    Ok(text.into())
}

fn hash(what: &'static str, bytes: &[u8]) -> Result<[u8; 32], BadTarget> {
    bytes.try_into().map_err(|_| bad(format!("a {what} is 32 bytes of SHA-256, this one is {}", bytes.len())))
}

fn pair(what: &'static str, p: &Identity) -> Result<(Box<str>, Box<str>), BadTarget> {
    Ok((name(what, &p.issuer)?, name(what, &p.sub)?))
}

impl Target {
    /// The target's sort.
    pub const fn sort(&self) -> Sort {
        match self {
            Target::Credential(_) => Sort::Credential,
            Target::Task(_) => Sort::Task,
            Target::Caller(_) => Sort::Caller,
            Target::Prefix(_) => Sort::Prefix,
            Target::TrustDomain(_) => Sort::TrustDomain,
            Target::TrustAnchor(_) => Sort::TrustAnchor,
            Target::Subject(..) => Sort::Subject,
            Target::Upstream(_) => Sort::Upstream,
            Target::UpstreamScope(..) => Sort::UpstreamScope,
            Target::Binding(_) => Sort::Binding,
            Target::Tool(_) => Sort::Tool,
            Target::Environment(_) => Sort::Environment,
            Target::PolicyBelow(..) => Sort::PolicyBelow,
            Target::SigningKey(_) => Sort::SigningKey,
            Target::Svid(..) => Sort::Svid,
            Target::SubjectToken(..) => Sort::SubjectToken,
            Target::Everything => Sort::Everything,
        }
    }

    /// The question that matches this target.
    pub fn probe(&self) -> Probe<'_> {
        let sort = self.sort();
        match self {
            Target::Credential(id) => Probe::Credential(*id),
            Target::Task(id) => Probe::Task(*id),
            Target::Caller(n)
            | Target::Prefix(n)
            | Target::TrustDomain(n)
            | Target::Upstream(n)
            | Target::Binding(n)
            | Target::Tool(n)
            | Target::Environment(n)
            | Target::SigningKey(n) => Probe::Name(sort, n),
            Target::Subject(a, b) | Target::UpstreamScope(a, b) | Target::SubjectToken(a, b) => Probe::Pair(sort, a, b),
            Target::TrustAnchor(h) => Probe::TrustAnchor(h),
            Target::PolicyBelow(e, v) => Probe::Policy(e, *v),
            Target::Svid(td, key, serial) => Probe::Svid(td, key, serial),
            Target::Everything => Probe::Everything,
        }
    }

    /// Validates the persisted form.
    pub fn from_record(record: &TargetRecord) -> Result<Target, BadTarget> {
        let aim = record.aim.as_ref().ok_or_else(|| bad("a target of a sort that this version does not know"))?;
        Ok(match aim {
            Aim::Credential(id) => {
                Target::Credential(CredentialId::from_slice(id).ok_or_else(|| bad("a credential id is 16 bytes"))?)
            }
            Aim::Task(id) => Target::Task(TaskId::from_slice(id).ok_or_else(|| bad("a task id is 16 bytes"))?),
            Aim::Caller(id) => Target::Caller(spiffe(id)?),
            Aim::Prefix(id) => Target::Prefix(spiffe(id)?),
            Aim::TrustDomain(td) => Target::TrustDomain(trust_domain(td)?),
            Aim::TrustAnchor(h) => Target::TrustAnchor(hash("trust anchor", h)?),
            Aim::Subject(p) => pair("subject", p).map(|(i, s)| Target::Subject(i, s))?,
            Aim::Upstream(n) => Target::Upstream(name("upstream", n)?),
            Aim::UpstreamScope(p) => pair("scope", p).map(|(u, s)| Target::UpstreamScope(u, s))?,
            Aim::Binding(n) => Target::Binding(name("binding", n)?),
            Aim::Tool(n) => Target::Tool(name("tool", n)?),
            Aim::Environment(n) => Target::Environment(name("environment", n)?),
            Aim::PolicyBelow(p) => Target::PolicyBelow(name("environment", &p.environment)?, p.version),
            Aim::SigningKey(n) => Target::SigningKey(name("signing key", n)?),
            Aim::Svid(s) => {
                Target::Svid(trust_domain(&s.trust_domain)?, hash("issuing key", &s.issuing_key)?, serial(&s.serial)?)
            }
            Aim::SubjectToken(p) => pair("subject token", p).map(|(i, s)| Target::SubjectToken(i, s))?,
            Aim::Everything(true) => Target::Everything,
            Aim::Everything(false) => return Err(bad("everything is true or not a target")),
        })
    }

    /// The persisted form.
    pub fn to_record(&self) -> TargetRecord {
        let two = |a: &str, b: &str| Identity { issuer: a.to_owned(), sub: b.to_owned() };
        let aim = match self {
            Target::Credential(id) => Aim::Credential(id.as_bytes().to_vec()),
            Target::Task(id) => Aim::Task(id.as_bytes().to_vec()),
            Target::Caller(id) => Aim::Caller(id.to_string()),
            Target::Prefix(id) => Aim::Prefix(id.to_string()),
            Target::TrustDomain(td) => Aim::TrustDomain(td.to_string()),
            Target::TrustAnchor(h) => Aim::TrustAnchor(h.to_vec()),
            Target::Subject(i, s) => Aim::Subject(two(i, s)),
            Target::Upstream(n) => Aim::Upstream(n.to_string()),
            Target::UpstreamScope(u, s) => Aim::UpstreamScope(two(u, s)),
            Target::Binding(n) => Aim::Binding(n.to_string()),
            Target::Tool(n) => Aim::Tool(n.to_string()),
            Target::Environment(n) => Aim::Environment(n.to_string()),
            Target::PolicyBelow(e, v) => Aim::PolicyBelow(PolicyBelow { environment: e.to_string(), version: *v }),
            Target::SigningKey(n) => Aim::SigningKey(n.to_string()),
            Target::Svid(td, key, serial) => {
                Aim::Svid(SvidTarget { trust_domain: td.to_string(), issuing_key: key.to_vec(), serial: serial.to_vec() })
            }
            Target::SubjectToken(i, s) => Aim::SubjectToken(two(i, s)),
            Target::Everything => Aim::Everything(true),
        };
        TargetRecord { aim: Some(aim) }
    }
}

/// A SPIFFE ID or prefix as in a claim. A form that is not canonical is refused, since it would match nothing.
fn spiffe(text: &str) -> Result<Box<str>, BadTarget> {
    crate::identity::spiffe_id::SpiffeId::parse(text).map_err(|e| bad(format!("{text:?} is no SPIFFE ID: {e}")))?;
    Ok(text.into())
}

fn trust_domain(text: &str) -> Result<Box<str>, BadTarget> {
    crate::identity::spiffe_id::TrustDomain::parse(text).map_err(|e| bad(format!("{text:?} is no trust domain: {e}")))?;
    Ok(text.into())
}

fn serial(bytes: &[u8]) -> Result<Box<[u8]>, BadTarget> {
    // RFC 5280, section 4.1.2.2: at most 20 octets.
    if bytes.is_empty() || bytes.len() > 20 {
        return Err(bad(format!("a serial is 1 to 20 bytes, this one is {}", bytes.len())));
    }
    Ok(bytes.into())
}

#[cfg(test)]
pub(crate) fn one_of_each() -> Vec<Target> {
    vec![
        Target::Credential(CredentialId::from_bytes([1; 16])),
        Target::Task(TaskId::from_bytes([2; 16])),
        Target::Caller("spiffe://a.example/ci/x".into()),
        Target::Prefix("spiffe://a.example/ci".into()),
        Target::TrustDomain("a.example".into()),
        Target::TrustAnchor([3; 32]),
        Target::Subject("https://idp.example".into(), "ada".into()),
        Target::Upstream("github".into()),
        Target::UpstreamScope("github".into(), "repo:write".into()),
        Target::Binding("b".into()),
        Target::Tool("create_issue".into()),
        Target::Environment("prod".into()),
        Target::PolicyBelow("prod".into(), 7),
        Target::SigningKey("k1".into()),
        Target::Svid("a.example".into(), [4; 32], vec![5, 6].into()),
        Target::SubjectToken("https://idp.example".into(), "t-1".into()),
        Target::Everything,
    ]
}
