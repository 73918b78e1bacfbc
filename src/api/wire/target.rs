//! Targets of revocations on the wire.

use bytes::Bytes;

use super::{subject_from_pb, subject_to_pb};
use mayfly_base::refusal::Refusal;
use mayfly_ledger::record::Principal;
use mayfly_ledger::revocation::Target;
use mayfly_ledger::revocation::target::BadTarget;
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::target::Target as Wire;

/// The target that a request names, or the refusal. `field` is its path in the request.
pub fn target_from_pb(field: &'static str, target: &pb::Target) -> Result<Target, Refusal> {
    let Some(aim) = &target.target else {
        return Err(Refusal::field(field, "is empty, or of a sort that this version does not know"));
    };
    let found = match aim {
        Wire::CredentialId(id) => Target::Credential(exchange_request::id(field, id)?),
        Wire::TaskId(id) => Target::Task(exchange_request::id(field, id)?),
        Wire::Caller(id) => Target::Caller(id.as_str().into()),
        Wire::SpiffeIdPrefix(id) => Target::Prefix(id.as_str().into()),
        Wire::TrustDomain(name) => Target::TrustDomain(name.as_str().into()),
        // A root is identified by its digest alone; the trust domain in the message is informational.
        Wire::TrustAnchor(t) => Target::TrustAnchor(digest(field, "sha256", &t.sha256)?),
        Wire::Subject(subject) => {
            let Principal { issuer, sub } = subject_from_pb(subject);
            Target::Subject(issuer.into(), sub.into())
        }
        Wire::Upstream(name) => Target::Upstream(name.as_str().into()),
        Wire::UpstreamScope(t) => Target::UpstreamScope(t.upstream.as_str().into(), t.scope.as_str().into()),
        Wire::Binding(name) => Target::Binding(name.as_str().into()),
        Wire::Tool(name) => Target::Tool(name.as_str().into()),
        Wire::Environment(name) => Target::Environment(name.as_str().into()),
        Wire::PolicyBelow(t) => Target::PolicyBelow(t.environment.as_str().into(), t.version),
        Wire::SigningKey(key) => Target::SigningKey(key.as_str().into()),
        Wire::Svid(t) => {
            let key = digest(field, "issuing_key_sha256", &t.issuing_key_sha256)?;
            Target::Svid(t.trust_domain.as_str().into(), key, t.serial.as_ref().into())
        }
        Wire::SubjectToken(t) => Target::SubjectToken(t.issuer.as_str().into(), t.id.as_str().into()),
        Wire::Everything(_) => Target::Everything,
    };
    // The persisted form checks lengths and canonical names: a target that it refuses would match nothing.
    Target::from_record(&found.to_record()).map_err(|BadTarget(what)| Refusal::field(field, what))
}

fn digest(field: &'static str, part: &str, bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    bytes.try_into().map_err(|_| Refusal::field(field, format!("{part} has {} bytes, a SHA-256 has 32", bytes.len())))
}

/// A target on the wire. The trust domain of a root is left empty, since the rule stores only the root.
pub fn target_to_pb(target: &Target) -> pb::Target {
    let sha256 = |digest: &[u8]| Bytes::copy_from_slice(digest);
    let wire = match target {
        Target::Credential(id) => Wire::CredentialId(id.to_string()),
        Target::Task(id) => Wire::TaskId(id.to_string()),
        Target::Caller(id) => Wire::Caller(id.to_string()),
        Target::Prefix(id) => Wire::SpiffeIdPrefix(id.to_string()),
        Target::TrustDomain(name) => Wire::TrustDomain(name.to_string()),
        Target::TrustAnchor(digest) => {
            Wire::TrustAnchor(pb::TrustAnchorTarget { trust_domain: String::new(), sha256: sha256(digest) })
        }
        Target::Subject(issuer, sub) => {
            Wire::Subject(subject_to_pb(&Principal { issuer: issuer.to_string(), sub: sub.to_string() }))
        }
        Target::Upstream(name) => Wire::Upstream(name.to_string()),
        Target::UpstreamScope(upstream, scope) => {
            Wire::UpstreamScope(pb::UpstreamScopeTarget { upstream: upstream.to_string(), scope: scope.to_string() })
        }
        Target::Binding(name) => Wire::Binding(name.to_string()),
        Target::Tool(name) => Wire::Tool(name.to_string()),
        Target::Environment(name) => Wire::Environment(name.to_string()),
        Target::PolicyBelow(environment, version) => {
            Wire::PolicyBelow(pb::PolicyBelowTarget { environment: environment.to_string(), version: *version })
        }
        Target::SigningKey(key) => Wire::SigningKey(key.to_string()),
        Target::Svid(domain, key, serial) => Wire::Svid(pb::SvidTarget {
            trust_domain: domain.to_string(),
            issuing_key_sha256: sha256(key),
            serial: sha256(serial),
        }),
        Target::SubjectToken(issuer, id) => {
            Wire::SubjectToken(pb::SubjectTokenTarget { issuer: issuer.to_string(), id: id.to_string() })
        }
        Target::Everything => Wire::Everything(pb::EverythingTarget {}),
    };
    pb::Target { target: Some(wire) }
}
