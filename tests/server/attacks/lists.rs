//! Tasks with long terms.

use std::process::Command;

use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;

use super::{Rig, terms};
use crate::kit::{MAYFLY, reason};
use mayfly::cli::dev::DevSettings;

/// 64 callers and 64 tools, each as long as a name may be, and different from those of every other task.
fn long(n: usize) -> pb::OpenTaskRequest {
    let name = |of: &str, at: usize| format!("{of}{n:05}-{at:02}-{}", "x".repeat(limits::NAME_BYTES - 50));
    let callers = (0..64).map(|at| format!("spiffe://dev.mayfly.internal/agent/{}", name("c", at))).collect();
    let tools = (0..64).map(|at| name("t", at)).collect();
    pb::OpenTaskRequest { terms: Some(pb::TaskTerms { callers, tools, ..terms() }), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_with_long_terms_are_bounded_in_bytes_and_listed_page_by_page() {
    let rig = Rig::new(DevSettings::default().with("limits.task_bytes_per_caller", "\"16MiB\""));
    let others = rig.others();
    let before = rig.memory();
    let address = rig.child.addresses().workload;
    let mut tasks = TaskServiceClient::new(rig.world.channel("agent/demo", address).await.unwrap());
    let mut opened = 0;
    let refused = loop {
        match tasks.open_task(long(opened)).await {
            Ok(_) => opened += 1,
            Err(no) => break no,
        }
    };
    assert_eq!(reason(&refused), "LIMIT_REACHED", "{refused:?}");
    assert!(refused.message().contains("task_bytes_per_caller"), "{refused:?}");
    assert!((400..600).contains(&opened), "{opened}");
    // Tasks of usual size count nothing against the byte limit, so the caller can continue its work.
    tasks.open_task(pb::OpenTaskRequest { terms: Some(terms()), ..Default::default() }).await.unwrap();
    let (mut seen, mut token, mut pages) = (0, String::new(), 0);
    loop {
        let request = pb::ListTasksRequest { page_size: 1_000, page_token: token, ..Default::default() };
        let answer = tasks.list_tasks(request).await.unwrap().into_inner();
        let bytes: usize = answer.tasks.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes <= limits::PAGE_BYTES, "{bytes}");
        (seen, token, pages) = (seen + answer.tasks.len(), answer.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert!(seen > opened && pages > 10, "{seen} in {pages}");
    // The command line follows the pages.
    let context = rig.world.write_context("operator/you", rig.child.addresses().admin).unwrap();
    let listed = tokio::task::spawn_blocking(move || {
        Command::new(MAYFLY)
            .arg("--config")
            .arg(context)
            .args(["task", "list", "-o", "name", "--limit", "1000"])
            .output()
            .unwrap()
    });
    let listed = listed.await.unwrap();
    let lines = String::from_utf8_lossy(&listed.stdout).lines().count();
    assert!(listed.status.success() && lines > opened, "{lines}: {}", String::from_utf8_lossy(&listed.stderr));
    let grown = rig.peak().saturating_sub(before);
    others.saw("long terms").await;
    assert!(grown < 250, "{grown} MiB");
}
