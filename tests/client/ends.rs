//! Everything that is asked for, held or shared is released however it ends: callers that are dropped, clients that are closed or dropped
//! meanwhile.

use std::time::Duration;

use mayfly_client::{Error, Mayfly, Settings};

use crate::kit::{Up, until};

/// Whether everything issued was released, according to the audit.
async fn all_ended(up: &Up) -> bool {
    let (issued, back) = (up.audit("credential issued").len(), up.audit("credential given back").len());
    issued > 0 && issued == back
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_dropped_leaves_no_credential_behind() {
    let up = Up::new();
    let task = up.task().await;
    let mayfly = up.client("agent/demo").await;
    // Every other request is for a single use (it names arguments); the others could share a credential.
    for n in 0..20 {
        let ask = mayfly.credential("echo").scope("echo:read").tool("read").task(task.clone());
        let asking = tokio::spawn(if n % 2 == 0 { ask.arguments(&serde_json::json!({"n": n})) } else { ask }.get());
        tokio::time::sleep(Duration::from_millis(n / 2)).await;
        asking.abort();
        drop(asking.await.map(|got| got.map(drop)));
    }
    mayfly.close().await;
    until("all are given back", || all_ended(&up)).await;
}

/// Polls the future once, without waiting for it to finish.
async fn once<T>(begun: &mut (impl Future<Output = T> + Unpin)) {
    tokio::select! {
        biased;
        _ = begun => panic!("it waits for nothing"),
        () = std::future::ready(()) => {}
    }
}

/// On one thread, so that nothing runs between the arrival of the answer and the drop.
#[tokio::test]
async fn a_caller_that_is_dropped_before_it_looks_at_its_answer_leaves_none_behind() {
    let up = Up::new();
    let task = up.task().await;
    let mayfly = up.client("agent/demo").await;
    for own in [true, false] {
        let ask = mayfly.credential("echo").scope("echo:read").tool("read").task(task.clone());
        let mut asking = Box::pin(if own { ask.arguments(&serde_json::json!({"n": 1})) } else { ask }.get());
        once(&mut asking).await;
        let before = up.audit("credential issued").len();
        until("it is issued", || async { up.audit("credential issued").len() > before.min(usize::from(!own)) }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(asking);
    }
    mayfly.close().await;
    until("both are given back", || all_ended(&up)).await;
    assert_eq!(up.audit("credential issued").len(), 2);
}

#[tokio::test]
async fn giving_back_goes_on_when_whoever_waits_for_it_is_dropped() {
    let up = Up::new();
    let task = up.task().await;
    let mayfly = up.client("agent/demo").await;
    let ask = mayfly.credential("echo").scope("echo:read").tool("read").task(task).arguments(&serde_json::json!({"n": 1}));
    let mut releasing = Box::pin(ask.get().await.unwrap().release());
    once(&mut releasing).await;
    drop(releasing);
    until("it is given back", || all_ended(&up)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_client_closes_is_given_back_too() {
    let up = Up::new();
    let task = up.task().await;
    for wait in 0..8 {
        let mayfly = up.client("agent/demo").await;
        let ask = mayfly.credential("echo").scope("echo:read").purpose(format!("{wait}")).task(task.clone());
        let asking = tokio::spawn(ask.get());
        tokio::time::sleep(Duration::from_millis(wait)).await;
        mayfly.close().await;
        // The caller may have got a credential; mayfly has ended it, or ends it when it is dropped.
        drop(asking.await.unwrap());
        let late = mayfly.credential("echo").scope("echo:read").task(task.clone()).get().await;
        assert!(matches!(late, Err(Error::Closed)));
    }
    until("all are given back", || all_ended(&up)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_dropped_without_being_closed_gives_back_what_it_shared() {
    let up = Up::new();
    let task = up.task().await;
    let settings = Settings { idle: Duration::from_secs(600), ..up.settings("agent/demo") };
    let mayfly = Mayfly::connect(settings).await.unwrap();
    drop(mayfly.credential("echo").scope("echo:read").task(task.clone()).get().await.unwrap());
    assert!(!all_ended(&up).await, "it is kept for the next call");
    drop(mayfly);
    until("it is given back", || all_ended(&up)).await;
}

#[test]
fn what_nobody_holds_is_kept_for_the_same_time_under_the_same_name_in_every_language() {
    assert_eq!(mayfly_client::limits::IDLE, Duration::from_secs(5));
    for (text, setting) in [
        (include_str!("../../clients/python/src/mayfly/_client.py"), "IDLE = 5.0"),
        (include_str!("../../clients/python/src/mayfly/_client.py"), "idle: float = IDLE"),
        (include_str!("../../clients/typescript/src/mayfly.ts"), "settings.idle ?? 5)"),
        (include_str!("../../clients/python/README.md"), "five seconds after its last holder left (`idle`)"),
        (include_str!("../../clients/typescript/README.md"), "five seconds after its last holder left (`idle`)"),
        (include_str!("../../clients/rust/README.md"), "five seconds after its last holder dropped it (`Settings::idle`)"),
    ] {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(setting), "{setting}");
    }
}
