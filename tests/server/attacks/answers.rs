//! Answers that the client does not read.

use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use prost::Message as _;

use super::{Rig, ask, terms};
use crate::kit::PATIENCE;
use mayfly::cli::dev::DevSettings;

const JWKS: &str = "/mayfly.v1.KeyService/GetJwks";
const TASKS: &str = "/mayfly.v1.TaskService/ListTasks";

/// Connections with as many calls as one may have, whose answers are never read. The client's HTTP/2 layer answers pings.
async fn unread(rig: &Rig, connections: usize, path: &str, message: &[u8]) -> Vec<h2::client::SendRequest<bytes::Bytes>> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut send = rig.shut("agent/demo", 0).await;
        let mut asked = Vec::new();
        for _ in 0..limits::CONNECTION_STREAMS - 1 {
            // A call beyond the server's limit waits here.
            let Ok(Ok(ready)) = tokio::time::timeout(PATIENCE, send.clone().ready()).await else { break };
            send = ready;
            match ask(&mut send, path, message) {
                Ok((answer, body)) => asked.push((answer, body)),
                Err(_) => break,
            }
        }
        tokio::spawn(async move {
            let mut held = Vec::new();
            for (answer, body) in asked {
                // Headers are read, bodies are not.
                held.push((answer.await, body));
            }
            std::future::pending::<()>().await;
            drop(held);
        });
        open.push(send);
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_on_many_connections_that_are_never_read_are_bounded_and_ended() {
    let rig = Rig::new(DevSettings::default());
    let before = rig.memory();
    let others = rig.others();
    let message = pb::GetJwksRequest { of: Some(pb::get_jwks_request::Of::Environment("dev".into())) }.encode_to_vec();
    let held = unread(&rig, 40, JWKS, &message).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let grown = rig.peak().saturating_sub(before);
    others.saw("unread keys").await;
    // Without a limit, 40,000 answers cost 10 KB each. The counted bytes are a part of the real cost.
    let most = 3 * limits::UNREAD_BYTES_PER_CALLER as u64 / (1024 * 1024);
    assert!(grown < most, "{grown} MiB");
    // Connections whose peer does not read are ended, though pings are answered. A connection all of whose calls were refused holds
    // nothing, and stays.
    let mut held = held;
    let ended = async {
        loop {
            for send in &mut held {
                let ready = std::future::poll_fn(|cx| send.poll_ready(cx));
                if matches!(tokio::time::timeout(std::time::Duration::from_millis(20), ready).await, Ok(Err(_))) {
                    return;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let within = std::time::Duration::from_millis(6 * limits::SWEEP_MS);
    tokio::time::timeout(within, ended).await.expect("a connection whose answers are never read is ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_never_read_are_pages_of_bounded_bytes_within_a_callers_share() {
    let rig = Rig::new(DevSettings::default());
    let channel = rig.world.channel("agent/demo", rig.child.addresses().workload).await.unwrap();
    let mut tasks = TaskServiceClient::new(channel);
    for n in 0..400 {
        let tools = (0..64).map(|tool| format!("{tool:03}-{n:03}-{}", "x".repeat(240))).collect();
        let request = pb::OpenTaskRequest { terms: Some(pb::TaskTerms { tools, ..terms() }), ..Default::default() };
        tasks.open_task(request).await.unwrap();
    }
    let before = rig.memory();
    let others = rig.others();
    let message = pb::ListTasksRequest { page_size: 1_000, ..Default::default() }.encode_to_vec();
    let _held = unread(&rig, 4, TASKS, &message).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let grown = rig.peak().saturating_sub(before);
    others.saw("unread lists").await;
    // Without a limit, 4,000 answers of 6 MB each.
    let most = 4 * limits::UNREAD_BYTES_PER_CALLER as u64 / (1024 * 1024);
    assert!(grown < most, "{grown} MiB");
}
