//! SVIDs that rotate under load, from files and from the Workload API, with calls and with a stream. No call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mayfly_client::{Identity, Mayfly, Settings};

use super::agent::Agent;
use super::kit::{Up, until};

/// Exchanges as fast as eight tasks can, while `rotate` runs; returns how many were made.
async fn load(up: &Up, mayfly: &Mayfly, mut rotate: impl FnMut(usize)) -> usize {
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let task = up.task().await;
    let workers: Vec<_> = (0..8)
        .map(|n| {
            let (mayfly, stop, made, task) = (mayfly.clone(), stop.clone(), made.clone(), task.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Arguments make each one a separate exchange.
                    let ask = mayfly.credential("echo").scope("echo:read").tool("read").task(task.clone());
                    let credential = ask.arguments(&serde_json::json!({"n": n})).get().await.map_err(|e| e.to_string())?;
                    credential.release().await.map_err(|e| e.to_string())?;
                    made.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for n in 0..4 {
        rotate(n);
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    made.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_svids_of_files_rotate() {
    for streaming in [false, true] {
        let up = Up::new();
        let mayfly = Mayfly::connect(Settings { streaming, ..up.settings("agent/demo") }).await.unwrap();
        let renewals = mayfly.link().renewals();
        // Each SVID lives for six seconds: without the new ones, the connection would end in between.
        let made = load(&up, &mayfly, |_| drop(up.world.issue("agent/demo", 6_000).unwrap())).await;
        assert!(made > 50, "{made} exchanges");
        assert!(*renewals.borrow() >= 3, "{} new connections", *renewals.borrow());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_svids_of_the_workload_api_rotate() {
    let up = Up::new();
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::begin(&up.world, "agent/demo", dir.path());
    let identity = Identity::WorkloadApi { socket: agent.socket.clone() };
    let mayfly = Mayfly::connect(Settings { identity, ..up.settings("agent/demo") }).await.unwrap();
    let renewals = mayfly.link().renewals();
    let made = load(&up, &mayfly, |_| {
        up.world.issue("agent/demo", 6_000).unwrap();
        agent.tell(&up.world, "agent/demo");
    });
    let made = made.await;
    assert!(made > 50, "{made} exchanges");
    until("each rotation made a new connection", || async { *renewals.borrow() >= 4 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_in_the_middle_of_a_rotation_looks_again() {
    let up = Up::new();
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (up.world.svid("agent/demo"), up.world.svid("mcp/echo"));
    let [svid, key] = ["svid.pem", "key.pem"].map(|name| dir.path().join(name));
    std::fs::copy(&ours.certificate, &svid).unwrap();
    std::fs::copy(&theirs.key, &key).unwrap();
    let identity = mayfly_client::Identity::Files { svid, key: key.clone(), bundle: up.world.bundle() };
    let settings = mayfly_client::Settings { identity, ..up.settings("agent/demo") };
    // A mismatch that lasts is reported.
    let no = Mayfly::connect(settings.clone()).await.err().unwrap().to_string();
    assert!(no.contains("key.pem"), "{no}");
    let connecting = tokio::spawn(Mayfly::connect(settings));
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    std::fs::copy(&ours.key, &key).unwrap();
    assert!(connecting.await.unwrap().is_ok());
}
