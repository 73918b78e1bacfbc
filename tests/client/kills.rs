//! A server that is killed under load and started again: no call fails, and nothing is issued twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mayfly_client::{Mayfly, Settings};
use parking_lot::Mutex;

use crate::kit::{Apart, until};

/// Continuous exchanges, and their outcomes.
#[derive(Default)]
struct Load {
    done: AtomicU64,
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

async fn work(mayfly: Mayfly, load: Arc<Load>) {
    while !load.over.load(Ordering::Relaxed) {
        match mayfly.credential("echo").scope("echo:read").purpose("load").get().await {
            Ok(credential) => match credential.release().await {
                Ok(()) => drop(load.done.fetch_add(1, Ordering::Relaxed)),
                Err(no) => load.failed.lock().push(format!("given back: {no}")),
            },
            Err(no) => load.failed.lock().push(format!("asked for: {no}")),
        }
    }
}

async fn survives(streaming: bool) {
    let mut apart = Apart::policed("");
    let settings = Settings { streaming, ..apart.settings("agent/demo") };
    let mayfly = Mayfly::connect(settings).await.unwrap();
    let load = Arc::new(Load::default());
    let workers: Vec<_> = (0..4).map(|_| tokio::spawn(work(mayfly.clone(), load.clone()))).collect();
    let more = |by: u64| {
        let from = load.done.load(Ordering::Relaxed);
        let load = load.clone();
        async move { until("calls go on", || async { load.done.load(Ordering::Relaxed) >= from + by }).await }
    };
    more(8).await;
    for _ in 0..2 {
        apart.kill();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        apart.start();
        more(8).await;
    }
    load.over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(*load.failed.lock(), [""; 0]);
    mayfly.close().await;
    let issued = apart.audit("credential issued");
    let ids: BTreeSet<String> = issued.iter().map(|r| r["body"]["request"]["id"].to_string()).collect();
    assert!(issued.len() as u64 >= load.done.load(Ordering::Relaxed));
    assert_eq!(ids.len(), issued.len(), "a repeat issued nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_fails_no_call() {
    survives(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_over_a_stream() {
    survives(true).await;
}
