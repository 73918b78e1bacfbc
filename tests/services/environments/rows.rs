//! Every rpc of the descriptors, called on the objects of an environment.

use super::Row::{Each, Environment, NotOperators, Server};
use super::*;

fn workloads() -> Row {
    NotOperators("workloads call it, on their own listener")
}

/// Every rpc, by its name in the service descriptor.
pub fn all() -> Vec<(&'static str, Row)> {
    let of_services = [
        approval(),
        audit(),
        break_glass(),
        credential(),
        key(),
        policy(),
        revocation(),
        revocation_2(),
        server(),
        task(),
        token(),
        trust_domain(),
        upstream(),
        upstream_2(),
    ];
    of_services.into_iter().flatten().collect()
}

fn approval() -> Vec<(&'static str, Row)> {
    vec![
        (
            "ApprovalService.ListApprovals",
            Environment(call!(approval::ApprovalApi, list_approvals, _t => pb::ListApprovalsRequest::default())),
        ),
        (
            "ApprovalService.GetApproval",
            Environment(
                call!(approval::ApprovalApi, get_approval, t => pb::GetApprovalRequest { approval_id: t.approval.clone() }),
            ),
        ),
        (
            "ApprovalService.DecideApproval",
            Environment(call!(approval::ApprovalApi, decide_approval, t => pb::DecideApprovalRequest {
                approval_id: t.approval.clone(),
                request_sha256: t.digest.clone().into(),
                decision: pb::ApprovalDecision::Refuse.into(),
                reason: "no".into(),
                ..Default::default()
            })),
        ),
        (
            "ApprovalService.WatchApprovals",
            Environment(stream!(approval::ApprovalApi, watch_approvals, _t => pb::WatchApprovalsRequest::default())),
        ),
    ]
}

fn audit() -> Vec<(&'static str, Row)> {
    vec![
        (
            "AuditService.Explain",
            Environment(call!(audit::AuditApi, explain, t => pb::ExplainRequest {
                of: Some(pb::explain_request::Of::CredentialId(t.credential.clone())),
            })),
        ),
        (
            "AuditService.Explain",
            Environment(
                call!(audit::AuditApi, explain, t => pb::ExplainRequest { of: Some(pb::explain_request::Of::TaskId(t.task.clone())) }),
            ),
        ),
        (
            "AuditService.Explain",
            Environment(
                call!(audit::AuditApi, explain, t => pb::ExplainRequest { of: Some(pb::explain_request::Of::Seq(t.rule)) }),
            ),
        ),
        (
            "AuditService.Explain",
            Environment(call!(audit::AuditApi, explain, t => pb::ExplainRequest {
                of: Some(pb::explain_request::Of::ApprovalId(t.approval.clone())),
            })),
        ),
        (
            "AuditService.Explain",
            Environment(
                call!(audit::AuditApi, explain, t => pb::ExplainRequest { of: Some(pb::explain_request::Of::LeaseId(t.lease.clone())) }),
            ),
        ),
        (
            "AuditService.SearchRecords",
            Environment(
                call!(audit::AuditApi, search_records, _t => pb::SearchRecordsRequest { page_size: 100, ..Default::default() }),
            ),
        ),
        (
            "AuditService.SearchRecords",
            Environment(
                call!(audit::AuditApi, search_records, t => pb::SearchRecordsRequest { filter: only(t.environment), ..Default::default() }),
            ),
        ),
        (
            "AuditService.TailRecords",
            Environment(
                stream!(audit::AuditApi, tail_records, _t => pb::TailRecordsRequest { resume_after: Some(1 << 45), ..Default::default() }),
            ),
        ),
        ("AuditService.GetCheckpoint", Server(call!(audit::AuditApi, get_checkpoint, _t => pb::GetCheckpointRequest::default()))),
        (
            "AuditService.ExportRecords",
            Environment(
                stream!(audit::AuditApi, export_records, t => pb::ExportRecordsRequest { filter: only(t.environment), ..Default::default() }),
            ),
        ),
        ("AuditService.ExportRecords", Each(stream!(audit::AuditApi, export_records, _t => pb::ExportRecordsRequest::default()))),
        (
            "AuditService.VerifyLedger",
            Server(call!(audit::AuditApi, verify_ledger, t => pb::VerifyLedgerRequest { from_seq: t.lock, to_seq: t.rule })),
        ),
        ("AuditService.ReportUse", workloads()),
    ]
}

fn break_glass() -> Vec<(&'static str, Row)> {
    let named = || NotOperators("whom the rights or the registration name decide, not operators");
    vec![
        ("BreakGlassService.OpenBreakGlass", named()),
        ("BreakGlassService.ReviewBreakGlass", named()),
        (
            "BreakGlassService.CloseBreakGlass",
            Environment(call!(break_glass::BreakGlassApi, close_break_glass, t => pb::CloseBreakGlassRequest {
                task_id: t.glass.clone(),
                reason: "done".into(),
            })),
        ),
        (
            "BreakGlassService.ListBreakGlass",
            Environment(call!(break_glass::BreakGlassApi, list_break_glass, _t => pb::ListBreakGlassRequest::default())),
        ),
        (
            "BreakGlassService.GetBreakGlass",
            Environment(
                call!(break_glass::BreakGlassApi, get_break_glass, t => pb::GetBreakGlassRequest { task_id: t.glass.clone() }),
            ),
        ),
    ]
}

fn credential() -> Vec<(&'static str, Row)> {
    vec![
        (
            "CredentialService.GetCredential",
            Environment(
                call!(credential::CredentialApi, get_credential, t => pb::GetCredentialRequest { credential_id: t.credential.clone() }),
            ),
        ),
        (
            "CredentialService.ListCredentials",
            Environment(call!(credential::CredentialApi, list_credentials, _t => pb::ListCredentialsRequest::default())),
        ),
        (
            "CredentialService.ListCredentials",
            Environment(call!(credential::CredentialApi, list_credentials, t => pb::ListCredentialsRequest {
                filter: Some(pb::CredentialFilter { environment: t.environment.into(), ..Default::default() }),
                ..Default::default()
            })),
        ),
        (
            "CredentialService.WatchCredentials",
            Environment(stream!(credential::CredentialApi, watch_credentials, t => pb::WatchCredentialsRequest {
                resume_after: Some(t.lock.min(t.rule) - 8),
                ..Default::default()
            })),
        ),
        (
            "CredentialService.LookupToken",
            Environment(call!(credential::CredentialApi, lookup_token, t => pb::LookupTokenRequest {
                by: Some(pb::lookup_token_request::By::Token(t.token.clone())),
            })),
        ),
    ]
}

fn key() -> Vec<(&'static str, Row)> {
    vec![
        ("KeyService.GetJwks", NotOperators("the public keys are for everybody")),
        ("KeyService.GetUpstreamCa", NotOperators("the certificate authorities are for everybody")),
        ("KeyService.ListKeys", Environment(call!(key::KeyApi, list_keys, _t => pb::ListKeysRequest::default()))),
        (
            "KeyService.RotateKey",
            Environment(call!(key::KeyApi, rotate_key, t => pb::RotateKeyRequest {
                purpose: pb::KeyPurpose::AccessToken.into(),
                environment: t.environment.into(),
                ..Default::default()
            })),
        ),
        (
            "KeyService.RotateKey",
            Each(
                call!(key::KeyApi, rotate_key, _t => pb::RotateKeyRequest { purpose: pb::KeyPurpose::Checkpoint.into(), ..Default::default() }),
            ),
        ),
        (
            "KeyService.RetireKey",
            Environment(call!(key::KeyApi, retire_key, t => pb::RetireKeyRequest {
                key_id: t.key.clone(),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
        (
            "KeyService.CompromiseKey",
            Environment(call!(key::KeyApi, compromise_key, t => pb::CompromiseKeyRequest {
                key_id: t.key.clone(),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
    ]
}

fn policy() -> Vec<(&'static str, Row)> {
    vec![
        (
            "PolicyService.GetPolicy",
            Environment(
                call!(policy::PolicyApi, get_policy, t => pb::GetPolicyRequest { environment: t.environment.into(), ..Default::default() }),
            ),
        ),
        (
            "PolicyService.ValidatePolicy",
            Environment(
                call!(policy::PolicyApi, validate_policy, t => pb::ValidatePolicyRequest { environment: t.environment.into(), set: in_force() }),
            ),
        ),
        (
            "PolicyService.ExplainPolicy",
            Environment(call!(policy::PolicyApi, explain_policy, t => pb::ExplainPolicyRequest {
                environment: t.environment.into(),
                set: None,
                situation: Some(pb::Situation {
                    caller: t.agent.clone(),
                    upstream: t.upstream.clone(),
                    ..Default::default()
                }),
            })),
        ),
        (
            "PolicyService.DiffPolicy",
            Environment(call!(policy::PolicyApi, diff_policy, t => pb::DiffPolicyRequest {
                environment: t.environment.into(),
                set: in_force(),
                since: None,
            })),
        ),
        (
            "PolicyService.SetPolicy",
            Environment(call!(policy::PolicyApi, set_policy, t => pb::SetPolicyRequest {
                environment: t.environment.into(),
                mode: pb::PolicyMode::Enforce.into(),
                set: in_force(),
                read_version: 1,
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
    ]
}

fn revocation() -> Vec<(&'static str, Row)> {
    vec![
        (
            "RevocationService.Revoke",
            Environment(
                call!(revocation::RevocationApi, revoke, t => revoke(&[Target::Credential(t.credential.parse().unwrap())], false)),
            ),
        ),
        (
            "RevocationService.Revoke",
            Environment(call!(revocation::RevocationApi, revoke, t => revoke(&[Target::Task(t.task.parse().unwrap())], false))),
        ),
        (
            "RevocationService.Revoke",
            Environment(call!(revocation::RevocationApi, revoke, t => revoke(&[
                Target::Caller(t.agent.as_str().into()),
                Target::Prefix(format!("spiffe://{DOMAIN}/{}/x", t.environment).as_str().into()),
                Target::UpstreamScope(t.upstream.as_str().into(), "echo:admin".into()),
                Target::PolicyBelow(t.environment.into(), 1),
            ], false))),
        ),
        (
            "RevocationService.Revoke",
            Environment(call!(revocation::RevocationApi, revoke, t => pb::RevokeRequest {
                dry_run: true,
                ..revoke(&[Target::Environment(t.environment.into())], false)
            })),
        ),
        (
            "RevocationService.Revoke",
            Each(
                call!(revocation::RevocationApi, revoke, _t => pb::RevokeRequest { dry_run: true, ..revoke(&[Target::Everything], false) }),
            ),
        ),
        (
            "RevocationService.Revoke",
            Each(call!(revocation::RevocationApi, revoke, _t => revoke(&[Target::Tool("no-such-tool".into())], true))),
        ),
        (
            "RevocationService.Revoke",
            Each(call!(revocation::RevocationApi, revoke, _t => pb::RevokeRequest {
                dry_run: true,
                ..revoke(&[Target::Caller(format!("spiffe://{DOMAIN}/operator/all").as_str().into())], true)
            })),
        ),
        (
            "RevocationService.Revoke",
            Each(call!(revocation::RevocationApi, revoke, _t => pb::RevokeRequest {
                dry_run: true,
                ..revoke(&[Target::Environment("prod".into()), Target::Environment("stage".into())], true)
            })),
        ),
        (
            "RevocationService.GetRevocation",
            Environment(call!(revocation::RevocationApi, get_revocation, t => pb::GetRevocationRequest { seq: t.rule })),
        ),
        (
            "RevocationService.BlastRadius",
            Environment(call!(revocation::RevocationApi, blast_radius, t => pb::BlastRadiusRequest {
                targets: vec![target_to_pb(&Target::Upstream(t.upstream.as_str().into()))],
                ..Default::default()
            })),
        ),
        (
            "RevocationService.ListRules",
            Environment(call!(revocation::RevocationApi, list_rules, _t => pb::ListRulesRequest::default())),
        ),
        (
            "RevocationService.AddLock",
            Environment(call!(revocation::RevocationApi, add_lock, t => lock(&[Target::Caller(t.agent.as_str().into())]))),
        ),
        (
            "RevocationService.AddLock",
            Each(call!(revocation::RevocationApi, add_lock, _t => lock(&[Target::Tool("no-such-tool".into())]))),
        ),
        (
            "RevocationService.ListLocks",
            Environment(call!(revocation::RevocationApi, list_locks, _t => pb::ListLocksRequest::default())),
        ),
        (
            "RevocationService.LiftLock",
            Environment(
                call!(revocation::RevocationApi, lift_lock, t => pb::LiftLockRequest { seq: t.lock, reason: "a test".into(), ..Default::default() }),
            ),
        ),
    ]
}

fn revocation_2() -> Vec<(&'static str, Row)> {
    vec![
        (
            "RevocationService.WatchRevocations",
            Environment(stream!(revocation::RevocationApi, watch_revocations, t => pb::WatchRevocationsRequest {
                follower: "one".into(),
                upstreams: vec![t.upstream.clone()],
                ..Default::default()
            })),
        ),
        (
            "RevocationService.WatchRevocations",
            Each(
                stream!(revocation::RevocationApi, watch_revocations, _t => pb::WatchRevocationsRequest { follower: "all".into(), ..Default::default() }),
            ),
        ),
        (
            "RevocationService.AcknowledgeRevocations",
            NotOperators("it speaks for the follower of whoever calls, and for no other"),
        ),
        (
            "RevocationService.WaitForRevocation",
            Server(
                call!(revocation::RevocationApi, wait_for_revocation, t => pb::WaitForRevocationRequest { seq: t.rule, timeout: None }),
            ),
        ),
        (
            "RevocationService.ListFollowers",
            Environment(call!(revocation::RevocationApi, list_followers, _t => pb::ListFollowersRequest::default())),
        ),
    ]
}

fn server() -> Vec<(&'static str, Row)> {
    vec![
        ("ServerService.GetStatus", Environment(call!(server::ServerApi, get_status, _t => pb::GetStatusRequest {}))),
        ("ServerService.ListWebhooks", Environment(call!(server::ServerApi, list_webhooks, _t => pb::ListWebhooksRequest {}))),
        (
            "ServerService.TestWebhook",
            Environment(call!(server::ServerApi, test_webhook, t => pb::TestWebhookRequest { name: t.upstream.clone() })),
        ),
        (
            "ServerService.Backup",
            Each(Box::new(|l: &Land, _: &Things, who: &Peer| {
                l.w.run(async {
                    server::ServerApi(l.w.authority().clone())
                        .backup(ask(who, pb::BackupRequest::default()))
                        .await
                        .map(|_| String::new())
                })
            })),
        ),
    ]
}

fn task() -> Vec<(&'static str, Row)> {
    vec![
        ("TaskService.OpenTask", workloads()),
        ("TaskService.DelegateTask", workloads()),
        ("TaskService.ExtendTask", workloads()),
        ("TaskService.HeartbeatTask", workloads()),
        ("TaskService.GetTask", Environment(call!(task::TaskApi, get_task, t => pb::GetTaskRequest { task_id: t.task.clone() }))),
        ("TaskService.ListTasks", Environment(call!(task::TaskApi, list_tasks, _t => pb::ListTasksRequest::default()))),
        (
            "TaskService.HoldTask",
            Environment(
                call!(task::TaskApi, hold_task, t => pb::HoldTaskRequest { task_id: t.task.clone(), reason: "a test".into(), ..Default::default() }),
            ),
        ),
        (
            "TaskService.ResumeTask",
            Environment(
                call!(task::TaskApi, resume_task, t => pb::ResumeTaskRequest { task_id: t.task.clone(), reason: "a test".into(), ..Default::default() }),
            ),
        ),
        (
            "TaskService.CompleteTask",
            Environment(
                call!(task::TaskApi, complete_task, t => pb::CompleteTaskRequest { task_id: t.task.clone(), reason: "a test".into() }),
            ),
        ),
        (
            "TaskService.CancelTask",
            Environment(
                call!(task::TaskApi, cancel_task, t => pb::CancelTaskRequest { task_id: t.task.clone(), reason: "a test".into() }),
            ),
        ),
        (
            "TaskService.ListTaskCredentials",
            Environment(
                call!(task::TaskApi, list_task_credentials, t => pb::ListTaskCredentialsRequest { task_id: t.task.clone(), ..Default::default() }),
            ),
        ),
    ]
}

fn token() -> Vec<(&'static str, Row)> {
    vec![
        ("TokenService.Exchange", workloads()),
        ("TokenService.BatchExchange", workloads()),
        ("TokenService.StreamExchange", workloads()),
        ("TokenService.Renew", workloads()),
        ("TokenService.Release", workloads()),
        ("TokenService.Authorize", workloads()),
        (
            "TokenService.Introspect",
            Environment(call!(tokens::TokenApi, introspect, t => pb::IntrospectRequest { token: t.token.clone() })),
        ),
        ("TokenService.Whoami", Environment(call!(tokens::TokenApi, whoami, _t => pb::WhoamiRequest {}))),
    ]
}

fn trust_domain() -> Vec<(&'static str, Row)> {
    vec![
        (
            "TrustDomainService.ListTrustDomains",
            Server(call!(trust_domain::TrustDomainApi, list_trust_domains, _t => pb::ListTrustDomainsRequest::default())),
        ),
        (
            "TrustDomainService.GetBundle",
            Server(call!(trust_domain::TrustDomainApi, get_bundle, _t => pb::GetBundleRequest { trust_domain: DOMAIN.into() })),
        ),
        (
            "TrustDomainService.AddBundle",
            Each(call!(trust_domain::TrustDomainApi, add_bundle, _t => pb::AddBundleRequest {
                trust_domain: "other.example".into(),
                bundle: Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::SpiffeJwks(JWT_BUNDLE.into())) }),
                ..Default::default()
            })),
        ),
        (
            "TrustDomainService.SetBundle",
            Each(call!(trust_domain::TrustDomainApi, set_bundle, _t => pb::SetBundleRequest {
                trust_domain: DOMAIN.into(),
                bundle: Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::SpiffeJwks(JWT_BUNDLE.into())) }),
                dry_run: true,
                ..Default::default()
            })),
        ),
        (
            "TrustDomainService.RemoveTrustAnchor",
            Each(call!(trust_domain::TrustDomainApi, remove_trust_anchor, _t => pb::RemoveTrustAnchorRequest {
                trust_domain: DOMAIN.into(),
                sha256: vec![7; 32].into(),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
        (
            "TrustDomainService.RemoveTrustDomain",
            Each(call!(trust_domain::TrustDomainApi, remove_trust_domain, _t => pb::RemoveTrustDomainRequest {
                trust_domain: DOMAIN.into(),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
    ]
}

fn upstream() -> Vec<(&'static str, Row)> {
    vec![
        (
            "UpstreamService.GetUpstream",
            Environment(call!(upstream::UpstreamApi, get_upstream, t => pb::GetUpstreamRequest { upstream: t.upstream.clone() })),
        ),
        (
            "UpstreamService.ListUpstreams",
            Environment(call!(upstream::UpstreamApi, list_upstreams, _t => pb::ListUpstreamsRequest::default())),
        ),
        (
            "UpstreamService.SetUpstream",
            Environment(Box::new(|l: &Land, t: &Things, who: &Peer| {
                let service = upstream::UpstreamApi(l.w.authority().clone());
                let get = service.get_upstream(ask(&ROOT, pb::GetUpstreamRequest { upstream: t.upstream.clone() }));
                let upstream = ok(l.w.run(get)).upstream.map(|u| pb::Upstream { purpose: "another one".into(), ..u });
                let set =
                    service.set_upstream(ask(who, pb::SetUpstreamRequest { upstream, dry_run: true, ..Default::default() }));
                l.w.run(set).map(|answer| format!("{answer:?}"))
            })),
        ),
        (
            "UpstreamService.SetUpstreamState",
            Environment(call!(upstream::UpstreamApi, set_upstream_state, t => pb::SetUpstreamStateRequest {
                upstream: t.upstream.clone(),
                state: pb::RegistrationState::Disabled.into(),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
        (
            "UpstreamService.Offboard",
            Environment(call!(upstream::UpstreamApi, offboard, t => pb::OffboardRequest {
                owner: format!("you-{}", t.environment),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
        (
            "UpstreamService.Offboard",
            Each(call!(upstream::UpstreamApi, offboard, _t => pb::OffboardRequest {
                owner: "you-prod".into(),
                person: Some(pb::Subject { issuer: "https://idp.test".into(), sub: "ada".into() }),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
        (
            "UpstreamService.ReturnOwner",
            Environment(Box::new(|l: &Land, t: &Things, who: &Peer| {
                let service = upstream::UpstreamApi(l.w.authority().clone());
                let (owner, reason) = (format!("you-{}", t.environment), "a test".to_owned());
                let confirmation = Some(pb::Confirmation { all: true, ..Default::default() });
                let leaves =
                    pb::OffboardRequest { owner: owner.clone(), reason: reason.clone(), confirmation, ..Default::default() };
                ok(l.w.run(service.offboard(ask(&ROOT, leaves))));
                let back = pb::ReturnOwnerRequest { owner, reason, ..Default::default() };
                let answer = l.w.run(service.return_owner(ask(who, back.clone()))).map(|a| format!("{:?}", a.into_inner()));
                // A refused operator leaves the upstream for the following calls.
                let _ = l.w.run(service.return_owner(ask(&ROOT, back)));
                answer
            })),
        ),
        (
            "UpstreamService.TestUpstream",
            Environment(
                call!(upstream::UpstreamApi, test_upstream, t => pb::TestUpstreamRequest { upstream: t.upstream.clone() }),
            ),
        ),
        (
            "UpstreamService.ConnectUpstream",
            Environment(call!(upstream::UpstreamApi, connect_upstream, t => pb::ConnectUpstreamRequest {
                upstream: t.upstream.clone(),
                redirect_uri: String::new(),
            })),
        ),
        ("UpstreamService.CompleteConnection", NotOperators("its sign-in names the upstream, whose environment is asked")),
        (
            "UpstreamService.DisconnectUpstream",
            Environment(
                call!(upstream::UpstreamApi, disconnect_upstream, t => pb::DisconnectUpstreamRequest { upstream: t.upstream.clone() }),
            ),
        ),
        (
            "UpstreamService.PutSecret",
            Environment(call!(upstream::UpstreamApi, put_secret, t => pb::PutSecretRequest {
                upstream: t.upstream.clone(),
                secret: Some(pb::put_secret_request::Secret::Value("a secret".into())),
                ..Default::default()
            })),
        ),
        (
            "UpstreamService.ListSecrets",
            Environment(call!(upstream::UpstreamApi, list_secrets, _t => pb::ListSecretsRequest::default())),
        ),
        (
            "UpstreamService.RemoveSecret",
            Environment(call!(upstream::UpstreamApi, remove_secret, t => pb::RemoveSecretRequest {
                upstream: t.upstream.clone(),
                reason: "a test".into(),
                ..Default::default()
            })),
        ),
        (
            "UpstreamService.ListBindings",
            Environment(call!(upstream::UpstreamApi, list_bindings, _t => pb::ListBindingsRequest::default())),
        ),
        (
            "UpstreamService.SetBinding",
            Environment(call!(upstream::UpstreamApi, set_binding, t => pb::SetBindingRequest {
                binding: Some(pb::Binding {
                    binding: format!("b-{}", t.environment),
                    upstream: t.upstream.clone(),
                    callers: vec![t.agent.clone()],
                    scopes: vec!["echo:read".into()],
                    any_tool: true,
                    ..Default::default()
                }),
                reason: "a test".into(),
                dry_run: true,
                ..Default::default()
            })),
        ),
        (
            "UpstreamService.ListLeases",
            Environment(call!(upstream::UpstreamApi, list_leases, _t => pb::ListLeasesRequest::default())),
        ),
    ]
}

fn upstream_2() -> Vec<(&'static str, Row)> {
    vec![
        (
            "UpstreamService.GetLease",
            Environment(call!(upstream::UpstreamApi, get_lease, t => pb::GetLeaseRequest { lease_id: t.lease.clone() })),
        ),
        (
            "UpstreamService.RetryLease",
            Environment(call!(upstream::UpstreamApi, retry_lease, t => pb::RetryLeaseRequest { lease_id: t.lease.clone() })),
        ),
        (
            "UpstreamService.AbandonLease",
            Environment(call!(upstream::UpstreamApi, abandon_lease, t => pb::AbandonLeaseRequest {
                lease_id: t.lease.clone(),
                reason: "a test".into(),
                ..Default::default()
            })),
        ),
    ]
}

/// A bundle with one authority for JWT-SVIDs (RFC 7517, appendix A.1).
const JWT_BUNDLE: &str = r#"{"keys":[{"use":"jwt-svid","kty":"EC","crv":"P-256","kid":"1",
"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

fn in_force() -> Option<pb::PolicySource> {
    Some(pb::PolicySource { from: Some(pb::policy_source::From::InForce(true)) })
}
