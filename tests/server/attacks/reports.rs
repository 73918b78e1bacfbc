//! Use reports with made-up tools.

use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;

use super::{Rig, exchange, terms};
use crate::kit::{PATIENCE, reason};
use mayfly::cli::dev::DevSettings;

fn used(issued: &pb::Issued, tool: String) -> pb::Use {
    let now = mayfly::system::System::real().wall().0;
    pb::Use {
        credential_id: issued.credential_id.clone(),
        tool,
        outcome: pb::UseOutcome::Accepted.into(),
        at: Some(prost_types::Timestamp { seconds: (now / 1000) as i64, nanos: 0 }),
        count: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_makes_up_tools_stops_neither_reports_of_others_nor_signs_of_life() {
    let rig = Rig::new(DevSettings::default());
    let address = rig.child.addresses().workload;
    let channel = async |name: &'static str| rig.world.channel(name, address).await.unwrap();
    let issued = exchange(channel("ci/demo").await).await;
    let others = rig.others();
    let mut greedy = AuditServiceClient::new(channel("mcp/echo").await);
    let mut problems = Vec::new();
    let refused = 'full: loop {
        for call in 0..40 {
            let uses = (0..limits::USES_PER_REPORT).map(|n| used(&issued, format!("made-up-{call}-{n}"))).collect();
            match greedy.report_use(pb::ReportUseRequest { uses }).await {
                Ok(answer) => problems.extend(answer.into_inner().problems),
                Err(no) => break 'full no,
            }
        }
    };
    assert_eq!(reason(&refused), "LIMIT_REACHED", "a rate of its own: {refused:?}");
    let own = |p: &pb::UseProblem| p.problem.as_ref().is_some_and(|no| no.rule == "uses_waiting_per_server");
    assert!(!problems.is_empty() && problems.iter().all(own), "{:?}", problems.first());
    // Reports of another server of the same upstream are accepted.
    let mut other = AuditServiceClient::new(channel("service/echo").await);
    let answer = other.report_use(pb::ReportUseRequest { uses: vec![used(&issued, "search".into())] }).await.unwrap();
    assert!(answer.into_inner().problems.is_empty());
    // Heartbeats are still written meanwhile.
    let mut tasks = TaskServiceClient::new(channel("agent/demo").await);
    let heartbeat_interval = Some(prost_types::Duration { seconds: 5, nanos: 0 });
    let request = pb::OpenTaskRequest { terms: Some(pb::TaskTerms { heartbeat_interval, ..terms() }), ..Default::default() };
    let task_id = tasks.open_task(request).await.unwrap().into_inner().task.unwrap().task_id;
    for _ in 0..3 {
        let beat = tasks.heartbeat_task(pb::HeartbeatTaskRequest { task_id: task_id.clone() });
        tokio::time::timeout(PATIENCE, beat).await.unwrap().unwrap();
    }
    others.saw("made-up tools").await;
}
