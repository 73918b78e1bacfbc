//! The targets of revocations and locks as policies read them, and policies of the greatest permitted depth.

use mayfly::cli::dev::{DevEngine, DevSettings};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::revocation::Target;
use mayfly::serve::wire::target_to_pb;

use super::kit::{Up, reason, world};
use super::policy_rig::Rig;

/// Operators revoke and lock tasks and upstreams and nothing wider; a service locks one caller by a permission for that target alone.
const BY_TARGET: &str = r#"
@id("nothing-wide")
forbid (principal in Role::"operator", action in [Action::"Revoke", Action::"Lock"], resource)
unless { context has target_kind && ["task", "upstream"].contains(context.target_kind) };

@id("one-caller")
permit (principal == Workload::"spiffe://dev.mayfly.internal/service/echo", action == Action::"Lock", resource)
when { context has target_kind && context.target_kind == "caller" && context has target &&
       context.target == "spiffe://dev.mayfly.internal/agent/demo" };
"#;

fn up(policy: &str) -> (Up, tempfile::TempDir) {
    let (dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    let path = world.dir().join("policy/policy.cedar");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + policy).unwrap();
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    (Up::of(running, world), dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_about_targets_decides_revocations_and_locks() {
    let (up, _dir) = up(BY_TARGET);
    let caller = |name: &str| Target::parse(&format!("caller:spiffe://dev.mayfly.internal/{name}")).unwrap();
    let lock = async |who: &str, targets: &[Target]| {
        let channel = up.world.channel(who, up.admin()).await.unwrap();
        let targets = targets.iter().map(target_to_pb).collect();
        let request = pb::AddLockRequest { targets, reason: "a test".into(), ..pb::AddLockRequest::default() };
        RevocationServiceClient::new(channel).add_lock(request).await.map_err(|no| reason(&no))
    };
    let revoke = async |target: Target| {
        let request = pb::RevokeRequest {
            targets: vec![target_to_pb(&target)],
            issued_only: true,
            reason: "a test".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..pb::RevokeRequest::default()
        };
        let channel = up.world.channel("operator/you", up.admin()).await.unwrap();
        RevocationServiceClient::new(channel).revoke(request).await.map_err(|no| reason(&no))
    };
    let mut tasks = pb::task_service_client::TaskServiceClient::new(up.channel("agent/demo").await);
    let terms = pb::TaskTerms {
        purpose: "a test".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
        any_tool: true,
        ..pb::TaskTerms::default()
    };
    let open = pb::OpenTaskRequest { terms: Some(terms), ..pb::OpenTaskRequest::default() };
    let task = tasks.open_task(open).await.unwrap().into_inner().task.unwrap().task_id;
    let task = Target::Task(task.parse().unwrap());
    for wide in [Target::Everything, caller("agent/demo")] {
        assert_eq!(lock("operator/you", std::slice::from_ref(&wide)).await.unwrap_err(), "DENIED_BY_POLICY", "{wide}");
        assert_eq!(revoke(wide.clone()).await.unwrap_err(), "DENIED_BY_POLICY", "{wide}");
    }
    // A request with one refused target among several is refused.
    let upstream = Target::Upstream("echo".into());
    assert_eq!(lock("operator/you", &[upstream.clone(), caller("agent/demo")]).await.unwrap_err(), "DENIED_BY_POLICY");
    revoke(task).await.unwrap();
    let seq = lock("operator/you", &[upstream]).await.unwrap().into_inner().seq;
    let lift = async |who: &str, seq: u64| {
        let channel = up.world.channel(who, up.admin()).await.unwrap();
        let request = pb::LiftLockRequest { seq, reason: "a test".into(), ..pb::LiftLockRequest::default() };
        RevocationServiceClient::new(channel).lift_lock(request).await.map(drop).map_err(|no| reason(&no))
    };
    assert_eq!(lift("service/echo", seq).await.unwrap_err(), "DENIED_BY_POLICY");
    lift("operator/you", seq).await.unwrap();
    // A permission for one target is one for that target.
    assert_eq!(lock("service/echo", &[caller("agent/other")]).await.unwrap_err(), "DENIED_BY_POLICY");
    let seq = lock("service/echo", &[caller("agent/demo")]).await.unwrap().into_inner().seq;
    assert_eq!(lift("operator/you", seq).await.unwrap_err(), "DENIED_BY_POLICY");
    lift("service/echo", seq).await.unwrap();
}

/// The conversions of a policy call themselves for each of its levels, and threads that answer have small stacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_as_deep_as_may_be_is_compared_and_changed() {
    let rig = Rig::new();
    for operator in ["&&", "||"] {
        let condition = vec!["principal has environment"; 110].join(&format!(" {operator} "));
        let deep = move |text: String| {
            let text = text.split("\n@id(\"deep\")").next().unwrap().to_owned();
            format!(
                "{text}\n@id(\"deep\") forbid (principal, action == Action::\"Observe\", resource) unless {{ {condition} }};\n"
            )
        };
        // A policy about operators takes two of them, and is compared with the one in effect first.
        let no = rig.put(&deep).await.unwrap_err();
        assert_eq!(reason(&no), "APPROVAL_NEEDED", "{operator}: {no:?}");
    }
}
