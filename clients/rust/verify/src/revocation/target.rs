//! Validated revocation targets.

use serde::{Deserialize, Serialize};

use super::facts::Probe;
use super::record::{PolicyBelow, Principal, RecordedTarget, SvidTarget, TargetRecord};
use super::target_kind::TargetKind;
use crate::limits;
use crate::seq::{CredentialId, TaskId};

/// A revocation target. A revocation covers everything below its target: a task's child tasks and credentials,
/// a credential's descendants.
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

fn pair(what: &'static str, p: &Principal) -> Result<(Box<str>, Box<str>), BadTarget> {
    Ok((name(what, &p.issuer)?, name(what, &p.sub)?))
}

impl Target {
    /// The target's sort.
    pub const fn sort(&self) -> TargetKind {
        match self {
            Target::Credential(_) => TargetKind::Credential,
            Target::Task(_) => TargetKind::Task,
            Target::Caller(_) => TargetKind::Caller,
            Target::Prefix(_) => TargetKind::Prefix,
            Target::TrustDomain(_) => TargetKind::TrustDomain,
            Target::TrustAnchor(_) => TargetKind::TrustAnchor,
            Target::Subject(..) => TargetKind::Subject,
            Target::Upstream(_) => TargetKind::Upstream,
            Target::UpstreamScope(..) => TargetKind::UpstreamScope,
            Target::Binding(_) => TargetKind::Binding,
            Target::Tool(_) => TargetKind::Tool,
            Target::Environment(_) => TargetKind::Environment,
            Target::PolicyBelow(..) => TargetKind::PolicyBelow,
            Target::SigningKey(_) => TargetKind::SigningKey,
            Target::Svid(..) => TargetKind::Svid,
            Target::SubjectToken(..) => TargetKind::SubjectToken,
            Target::Everything => TargetKind::Everything,
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
            RecordedTarget::Credential(id) => {
                Target::Credential(CredentialId::from_slice(id).ok_or_else(|| bad("a credential id is 16 bytes"))?)
            }
            RecordedTarget::Task(id) => Target::Task(TaskId::from_slice(id).ok_or_else(|| bad("a task id is 16 bytes"))?),
            RecordedTarget::Caller(id) => Target::Caller(spiffe(id)?),
            RecordedTarget::Prefix(id) => Target::Prefix(spiffe(id)?),
            RecordedTarget::TrustDomain(td) => Target::TrustDomain(trust_domain(td)?),
            RecordedTarget::TrustAnchor(h) => Target::TrustAnchor(hash("trust anchor", h)?),
            RecordedTarget::Subject(p) => pair("subject", p).map(|(i, s)| Target::Subject(i, s))?,
            RecordedTarget::Upstream(n) => Target::Upstream(name("upstream", n)?),
            RecordedTarget::UpstreamScope(p) => pair("scope", p).map(|(u, s)| Target::UpstreamScope(u, s))?,
            RecordedTarget::Binding(n) => Target::Binding(name("binding", n)?),
            RecordedTarget::Tool(n) => Target::Tool(name("tool", n)?),
            RecordedTarget::Environment(n) => Target::Environment(name("environment", n)?),
            RecordedTarget::PolicyBelow(p) => Target::PolicyBelow(name("environment", &p.environment)?, p.version),
            RecordedTarget::SigningKey(n) => Target::SigningKey(name("signing key", n)?),
            RecordedTarget::Svid(s) => {
                Target::Svid(trust_domain(&s.trust_domain)?, hash("issuing key", &s.issuing_key)?, serial(&s.serial)?)
            }
            RecordedTarget::SubjectToken(p) => pair("subject token", p).map(|(i, s)| Target::SubjectToken(i, s))?,
            RecordedTarget::Everything(true) => Target::Everything,
            RecordedTarget::Everything(false) => return Err(bad("everything is true or not a target")),
        })
    }

    /// The persisted form.
    pub fn to_record(&self) -> TargetRecord {
        let two = |a: &str, b: &str| Principal { issuer: a.to_owned(), sub: b.to_owned() };
        let aim = match self {
            Target::Credential(id) => RecordedTarget::Credential(id.as_bytes().to_vec()),
            Target::Task(id) => RecordedTarget::Task(id.as_bytes().to_vec()),
            Target::Caller(id) => RecordedTarget::Caller(id.to_string()),
            Target::Prefix(id) => RecordedTarget::Prefix(id.to_string()),
            Target::TrustDomain(td) => RecordedTarget::TrustDomain(td.to_string()),
            Target::TrustAnchor(h) => RecordedTarget::TrustAnchor(h.to_vec()),
            Target::Subject(i, s) => RecordedTarget::Subject(two(i, s)),
            Target::Upstream(n) => RecordedTarget::Upstream(n.to_string()),
            Target::UpstreamScope(u, s) => RecordedTarget::UpstreamScope(two(u, s)),
            Target::Binding(n) => RecordedTarget::Binding(n.to_string()),
            Target::Tool(n) => RecordedTarget::Tool(n.to_string()),
            Target::Environment(n) => RecordedTarget::Environment(n.to_string()),
            Target::PolicyBelow(e, v) => RecordedTarget::PolicyBelow(PolicyBelow { environment: e.to_string(), version: *v }),
            Target::SigningKey(n) => RecordedTarget::SigningKey(n.to_string()),
            Target::Svid(td, key, serial) => RecordedTarget::Svid(SvidTarget {
                trust_domain: td.to_string(),
                issuing_key: key.to_vec(),
                serial: serial.to_vec(),
            }),
            Target::SubjectToken(i, s) => RecordedTarget::SubjectToken(two(i, s)),
            Target::Everything => RecordedTarget::Everything(true),
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
