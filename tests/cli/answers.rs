//! Answers in the form that a server sends.

use mayfly::pb::mayfly::v1 as pb;
use prost_types::{Duration, Timestamp};

pub const TASK: &str = "task_aaaaaaaaaaaaaaaaaaaaaaaaaa";
pub const CHILD: &str = "task_baaaaaaaaaaaaaaaaaaaaaaaaa";
pub const CREDENTIAL: &str = "cred_aaaaaaaaaaaaaaaaaaaaaaaaaa";

/// `seconds` after 2026-11-20T08:00:00Z.
pub fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_795_161_600 + seconds, nanos: 0 })
}

pub fn workload(id: &str) -> Option<pb::Identity> {
    Some(pb::Identity { identity: Some(pb::identity::Identity::SpiffeId(id.to_owned())) })
}

pub fn uid(uid: u32) -> Option<pb::Identity> {
    Some(pb::Identity { identity: Some(pb::identity::Identity::LocalUid(uid)) })
}

pub fn hits(credentials: u64, tasks: u64, callers: u64) -> Option<pb::Hits> {
    Some(pb::Hits { credentials, tasks, callers, overlapping: false, tasks_ended: 0 })
}

pub fn target(target: pb::target::Target) -> Option<pb::Target> {
    Some(pb::Target { target: Some(target) })
}

pub fn caller(id: &str) -> Option<pb::Target> {
    target(pb::target::Target::Caller(id.to_owned()))
}

pub fn task() -> pb::Task {
    let terms = pb::TaskTerms {
        purpose: "nightly \u{1b}[31mdeploy\u{202e}".to_owned(),
        upstreams: vec![pb::Allowance {
            upstream: "github".to_owned(),
            scopes: vec!["repo:read".to_owned(), "issues:read".to_owned()],
        }],
        tools: vec!["deploy".to_owned()],
        heartbeat_interval: Some(Duration { seconds: 30, nanos: 0 }),
        ..pb::TaskTerms::default()
    };
    pb::Task {
        task_id: CHILD.to_owned(),
        state: pb::TaskState::Active.into(),
        terms: Some(terms),
        path: vec![TASK.to_owned(), CHILD.to_owned()],
        owner: workload("spiffe://example.org/ci/nightly"),
        opener: workload("spiffe://example.org/ci/nightly"),
        environment: "prod".to_owned(),
        depth: 1,
        opened_at: at(0),
        deadline: at(3600),
        max_deadline: at(7200),
        heartbeat_due: at(30),
        live_credentials: 2,
        issued_credentials: 5,
        seq: 41,
        decision_revision: 40,
        ..pb::Task::default()
    }
}

pub fn credential() -> pb::Credential {
    pb::Credential {
        credential_id: CREDENTIAL.to_owned(),
        kind: pb::CredentialKind::Jwt.into(),
        state: pb::CredentialState::Active.into(),
        task_id: CHILD.to_owned(),
        task_path: vec![TASK.to_owned(), CHILD.to_owned()],
        caller: "spiffe://example.org/ci/nightly".to_owned(),
        environment: "prod".to_owned(),
        upstream: "github".to_owned(),
        scopes: vec!["repo:read".to_owned()],
        tool: "deploy".to_owned(),
        arguments_sha256: vec![0xab; 32].into(),
        purpose: "nightly".to_owned(),
        issued_at: at(0),
        expires_at: at(300),
        seq: 42,
        decision_revision: 41,
        policy_version: 3,
        signing_key: "k1".to_owned(),
        upstream_state: pb::UpstreamState::None.into(),
        ..pb::Credential::default()
    }
}

pub fn echo() -> pb::Upstream {
    let scope = |scope: &str, sensitive| pb::UpstreamScope { scope: scope.to_owned(), sensitive };
    pb::Upstream {
        upstream: "echo".to_owned(),
        version: 2,
        state: pb::RegistrationState::Active.into(),
        environment: "dev".to_owned(),
        owner: "team-a".to_owned(),
        purpose: "shows what it sees".to_owned(),
        audience: "https://echo.example.org".to_owned(),
        base_url: "http://127.0.0.1:7780".to_owned(),
        kinds: vec![pb::CredentialKind::Jwt.into(), pb::CredentialKind::Reference.into()],
        scopes: vec![scope("echo:admin", true), scope("echo:read", false), scope("echo:write", false)],
        max_ttl: Some(Duration { seconds: 3600, nanos: 0 }),
        seq: 7,
        ..pb::Upstream::default()
    }
}

pub fn issued(token: &str) -> pb::Issued {
    let token = pb::BearerToken {
        token: token.to_owned(),
        header_name: "authorization".to_owned(),
        scheme: "Bearer".to_owned(),
        base_url: "http://127.0.0.1:7780".to_owned(),
    };
    pb::Issued {
        answer: Some(pb::issued::Answer::BearerToken(token)),
        credential_id: CREDENTIAL.to_owned(),
        task_id: TASK.to_owned(),
        kind: pb::CredentialKind::Jwt.into(),
        issued_at: at(0),
        expires_at: at(300),
        scopes: vec!["echo:read".to_owned()],
        bound: pb::LifeBound::Asked.into(),
        seq: 42,
        decision_revision: 41,
        novelty: pb::Novelty::New.into(),
        upstream: "echo".to_owned(),
        ..pb::Issued::default()
    }
}

pub fn follower(name: &str, applied_seq: u64) -> pb::Follower {
    pb::Follower {
        follower: name.to_owned(),
        identity: workload("spiffe://example.org/gateway"),
        upstreams: vec!["echo".to_owned()],
        applied_seq,
        connected: true,
        last_seen: at(1),
        sent_seq: 50,
    }
}
