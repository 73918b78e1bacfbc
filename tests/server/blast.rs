//! The preview of a revocation: which credentials and callers it would affect.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use tonic::Status;

use crate::kit::reason;
use crate::policy_rig::Rig;

async fn radius(rig: &Rig, targets: Vec<pb::target::Target>, most: i32) -> Result<pb::BlastRadiusResponse, Status> {
    let mut service = RevocationServiceClient::new(rig.up.world.channel("operator/you", rig.up.admin()).await.unwrap());
    let targets = targets.into_iter().map(|target| pb::Target { target: Some(target) }).collect();
    service.blast_radius(pb::BlastRadiusRequest { targets, most }).await.map(tonic::Response::into_inner)
}

fn names(answer: &pb::BlastRadiusResponse, of: pb::BlastOf) -> Vec<(String, u64)> {
    let sort = answer.sorts.iter().find(|sort| sort.of() == of);
    sort.map_or_else(Vec::new, |sort| sort.items.iter().map(|item| (item.name.clone(), item.credentials)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_names_all_that_a_revocation_then_hits_and_does_nothing() {
    let rig = Rig::new();
    let mut issued = Vec::new();
    for (caller, scope) in [("agent/demo", "echo:read"), ("agent/demo", "echo:write"), ("mcp/echo", "echo:read")] {
        issued.push(rig.exchange(caller, "echo", scope).await.unwrap());
    }
    rig.exchange("agent/demo", "repos", "repo:read").await.unwrap();
    let id = |name: &str| format!("spiffe://dev.mayfly.internal/{name}");
    let of_echo = radius(&rig, vec![pb::target::Target::Upstream("echo".into())], 0).await.unwrap();
    let hits = of_echo.hits.unwrap();
    assert_eq!((hits.credentials, hits.tasks, hits.callers), (3, 3, 2));
    assert_eq!(names(&of_echo, pb::BlastOf::Caller), [(id("agent/demo"), 2), (id("mcp/echo"), 1)], "the most first");
    assert_eq!(names(&of_echo, pb::BlastOf::Owner), [(id("agent/demo"), 2), (id("mcp/echo"), 1)]);
    assert_eq!(names(&of_echo, pb::BlastOf::Upstream), [("echo".to_owned(), 3)]);
    assert_eq!(names(&of_echo, pb::BlastOf::Environment), [("dev".to_owned(), 3)]);
    assert_eq!(names(&of_echo, pb::BlastOf::Task).len(), 3);
    assert!(of_echo.last_ends_at.is_some() && names(&of_echo, pb::BlastOf::Tool).is_empty());
    let one = radius(&rig, vec![pb::target::Target::CredentialId(issued[0].credential_id.clone())], 0).await.unwrap();
    assert_eq!((one.hits.unwrap().credentials, names(&one, pb::BlastOf::Task)), (1, vec![(issued[0].task_id.clone(), 1)]));
    let both = vec![pb::target::Target::Caller(id("agent/demo")), pb::target::Target::Upstream("echo".into())];
    let both = radius(&rig, both, 1).await.unwrap();
    assert_eq!(both.hits.unwrap().credentials, 4, "each once");
    assert_eq!(names(&both, pb::BlastOf::Upstream), [("echo".to_owned(), 3)], "as many names as were asked for");
    assert_eq!(both.sorts.iter().find(|s| s.of() == pb::BlastOf::Upstream).unwrap().count, 2);
    for held in &issued {
        assert!(rig.good(held).await, "nothing is done");
    }
    let nothing = radius(&rig, vec![pb::target::Target::Tool("none".into())], 0).await.unwrap();
    assert!(nothing.sorts.is_empty() && nothing.last_ends_at.is_none());
    for (targets, most) in
        [(Vec::new(), 0), (vec![pb::target::Target::Tool("x".into())], 1_001), (vec![pb::target::Target::Tool("x".into())], -1)]
    {
        assert_eq!(reason(&radius(&rig, targets, most).await.unwrap_err()), "INVALID_FIELD");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_revocation_hit_is_what_it_hit_whatever_was_revoked_since() {
    let rig = Rig::new();
    for scope in ["echo:read", "echo:write"] {
        rig.exchange("agent/demo", "echo", scope).await.unwrap();
    }
    let mut service = RevocationServiceClient::new(rig.up.world.channel("operator/you", rig.up.admin()).await.unwrap());
    let revoke = |target: pb::target::Target, request_id: &str| pb::RevokeRequest {
        targets: vec![pb::Target { target: Some(target) }],
        reason: "test".into(),
        request_id: request_id.into(),
        issued_only: true,
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    let caller = revoke(pb::target::Target::Caller("spiffe://dev.mayfly.internal/agent/demo".into()), "first");
    let first = service.revoke(caller.clone()).await.unwrap().into_inner();
    assert_eq!(first.hits.unwrap().credentials, 2);
    let second = service.revoke(revoke(pb::target::Target::Environment("dev".into()), "second")).await.unwrap().into_inner();
    assert_eq!(second.hits.unwrap().credentials, 0, "they were revoked before");
    let repeated = service.revoke(caller).await.unwrap().into_inner();
    assert_eq!((repeated.seq, repeated.hits.unwrap().credentials), (first.seq, 2));
}
