//! The answer of an exchange. It can be made from a [`IssuedCredential`] only.

use super::super::super::status::problem;
use super::super::super::wire::timestamp;
use mayfly_base::refusal::Error;
use mayfly_credential::minted::CredentialDetails;
use mayfly_credential::{CredentialMaterial, CredentialSummary, IssuedCredential, Novelty};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::Millis;

/// The answer to the caller.
pub fn issued_to_pb(issued: IssuedCredential) -> pb::Issued {
    let (seq, CredentialSummary { credential, about }, answer) = issued.into_parts();
    pb::Issued {
        answer: Some(answer_to_pb(answer)),
        credential_id: credential.to_text(),
        seq: seq.as_u64(),
        ..about_to_pb(&about)
    }
}

/// The result of one exchange of a batch.
pub fn result_to_pb(end: Result<IssuedCredential, Error>) -> pb::ExchangeResult {
    use pb::exchange_result::Result as Outcome;
    pb::ExchangeResult {
        result: Some(match end {
            Ok(issued) => Outcome::Issued(issued_to_pb(issued)),
            Err(no) => Outcome::Problem(problem(no)),
        }),
    }
}

/// The part of the answer that is the same for all credentials of a batch: everything but the credential itself, its id and its sequence
/// number.
pub fn about_to_pb(about: &CredentialDetails) -> pb::Issued {
    let bound = i32::try_from(about.bound).ok().and_then(|n| pb::LifeBound::try_from(n).ok());
    let bound = bound.unwrap_or(pb::LifeBound::Unspecified);
    pb::Issued {
        task_id: about.task.to_text(),
        kind: i32::try_from(about.kind.number()).unwrap_or_default(),
        expires_at: Some(timestamp(about.expires_at)),
        issued_at: Some(timestamp(about.issued_at)),
        scopes: about.scopes.clone(),
        authorization_details: about.details.clone(),
        bound: bound.into(),
        bound_by: words(bound).to_owned(),
        decision_revision: about.revision.as_u64(),
        renewable_until: (about.renewable_until > Millis(0)).then(|| timestamp(about.renewable_until)),
        irrevocable: about.irrevocable,
        novelty: match about.novelty {
            Novelty::New => pb::Novelty::New,
            Novelty::Same => pb::Novelty::Same,
            Novelty::Replaced => pb::Novelty::Replaced,
        }
        .into(),
        upstream: about.upstream.clone(),
        approval_id: about.approval.map_or_else(String::new, |id| id.to_string()),
        upstream_ends_at: (about.upstream_ends_at > about.expires_at).then(|| timestamp(about.upstream_ends_at)),
        ..pb::Issued::default()
    }
}

/// The bound that determined the credential's life, in words.
pub const fn words(bound: pb::LifeBound) -> &'static str {
    match bound {
        pb::LifeBound::Unspecified => "",
        pb::LifeBound::Asked => "as asked",
        pb::LifeBound::Policy => "a policy",
        pb::LifeBound::Upstream => "the upstream's registration",
        pb::LifeBound::UpstreamExpiry => "the end of the upstream's registration",
        pb::LifeBound::Task => "the task's deadline",
        pb::LifeBound::Svid => "the end of the caller's SVID",
        pb::LifeBound::ParentCredential => "the credential that it rests on",
        pb::LifeBound::SubjectToken => "the subject token",
        pb::LifeBound::Approval => "the approval",
        pb::LifeBound::BreakGlass => "break-glass",
        pb::LifeBound::Renewal => "the bound fixed at first issue",
        pb::LifeBound::Server => "the longest that this server issues",
    }
}

fn answer_to_pb(answer: CredentialMaterial) -> pb::issued::Answer {
    use mayfly_proto::mayfly::v1::issued::Answer as A;
    match answer {
        CredentialMaterial::Bearer { token, header, scheme, base_url } => A::BearerToken(pb::BearerToken {
            token: token.into_text(),
            header_name: header.into(),
            scheme: scheme.into(),
            base_url: (*base_url).to_owned(),
        }),
        CredentialMaterial::Database { host, port, database, user, mut password, server_ca_pem, plaintext } => {
            A::DatabaseLogin(pb::DatabaseLogin {
                host,
                port: port.into(),
                database,
                user,
                password: std::mem::take(&mut *password),
                server_ca_pem,
                plaintext,
            })
        }
        CredentialMaterial::Certificate { chain, root, crl_url } => {
            A::Certificate(pb::Certificate { chain: chain.into_iter().map(Into::into).collect(), root: root.into(), crl_url })
        }
        CredentialMaterial::SshCertificate { certificate, authority, principals, krl_url } => {
            A::SshCertificate(pb::SshCertificate { certificate, authority, principals, krl_url })
        }
        CredentialMaterial::AwsKeys { access_key_id, mut secret_access_key, mut session_token, region } => {
            A::AwsKeys(pb::AwsKeys {
                access_key_id,
                secret_access_key: std::mem::take(&mut *secret_access_key),
                session_token: std::mem::take(&mut *session_token),
                region,
            })
        }
        CredentialMaterial::Secret(mut value) => A::StaticSecret(pb::StaticSecret { value: std::mem::take(&mut *value).into() }),
    }
}
