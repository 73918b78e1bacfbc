//! Use reports: they arrive combined; closing sends the rest; a server that is unreachable misses none that it never received, and memory
//! is bounded.

use std::time::Duration;

use mayfly_client::{Mayfly, Outcome, Settings};
use serde_json::Value;

use crate::kit::{Apart, Up, until};

/// The audit's lines on the uses of one credential: tool, outcome and count.
fn uses_of(records: &[Value], credential: &str) -> Vec<(String, String, u64)> {
    let of = |body: &Value, name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = records
        .iter()
        .map(|record| &record["body"])
        .filter(|body| of(body, "credential") == credential)
        .map(|body| (of(body, "tool"), of(body, "outcome"), body["count"].as_u64().unwrap_or_default()))
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_arrive_in_the_audit_folded_and_closing_sends_the_rest() {
    let up = Up::new();
    let mayfly = up.client("mcp/echo").await;
    let credential = mayfly.credential("echo").scope("echo:read").tool("search").get().await.unwrap();
    for status in [200u16, 204, 403, 500, 200] {
        credential.used(status);
    }
    let id = credential.credential_id().to_owned();
    let expected = [("accepted", 3), ("failed", 1), ("refused", 1)].map(|(o, n)| ("search".to_owned(), o.to_owned(), n));
    // In the background: nothing was closed.
    until("they arrive", || async { uses_of(&up.audit("uses reported"), &id) == expected }).await;
    drop(credential);

    let credential = mayfly.credential("echo").scope("echo:read").tool("search").get().await.unwrap();
    let id = credential.credential_id().to_owned();
    credential.used(Outcome::Accepted);
    mayfly.close().await;
    until("they are there", || async { uses_of(&up.audit("uses reported"), &id).len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_is_away_never_saw_is_reported_when_it_is_back() {
    let mut apart = Apart::policed("");
    let settings = Settings { idle: Duration::from_secs(60), ..apart.settings("mcp/echo") };
    let mayfly = Mayfly::connect(settings).await.unwrap();
    let credential = mayfly.credential("echo").scope("echo:read").tool("search").get().await.unwrap();
    let id = credential.credential_id().to_owned();
    apart.kill();
    // The client must know that the connection is gone: reports sent over a breaking connection may have been counted.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        credential.used(Outcome::Accepted);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    apart.start();
    let expected = [("search".to_owned(), "accepted".to_owned(), 3)];
    until("they arrive", || async { uses_of(&apart.audit("uses reported"), &id) == expected }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_are_counted_as_lost_and_nobody_waits() {
    let up = Up::new();
    let mayfly = up.client("mcp/echo").await;
    let credential = mayfly.credential("echo").scope("echo:read").tool("search").get().await.unwrap();
    let begun = mayfly::system::Stopwatch::start();
    for _ in 0..200_000 {
        credential.used(Outcome::Accepted);
    }
    assert!(begun.us() < 5_000_000, "{} µs", begun.us());
    let id = credential.credential_id().to_owned();
    mayfly.close().await;
    let counted = || uses_of(&up.audit("uses reported"), &id).iter().map(|(.., n)| n).sum::<u64>();
    until("each is reported or known to be lost", || async { counted() + mayfly.lost_uses() == 200_000 }).await;
    assert!(counted() > 0);
}
