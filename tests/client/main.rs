//! The Rust client against a real server: what `clients/rust` promises.

mod agent;
mod approvals;
mod dial;
mod ends;
mod kills;
mod kit;
mod mcp;
#[path = "../kit/ports.rs"]
mod ports;
mod protect;
mod rotate;
mod several;
mod uses;

use std::time::Duration;

use kit::{Up, until};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::system::Stopwatch;
use mayfly_client::{Error, Mayfly};

#[test]
fn the_clients_generated_code_is_what_the_protos_say() {
    let pairs = [
        (include_str!("../../clients/rust/src/pb/mayfly.v1.in"), include_str!(concat!(env!("OUT_DIR"), "/client/mayfly.v1.rs"))),
        (
            include_str!("../../clients/rust/src/pb/mayfly.v1.debug.in"),
            include_str!(concat!(env!("OUT_DIR"), "/client/mayfly.v1.debug.rs")),
        ),
        (include_str!("../../clients/rust/src/pb/workload.in"), include_str!(concat!(env!("OUT_DIR"), "/workload/_.rs"))),
        (
            include_str!("../../clients/rust/src/pb/workload.debug.in"),
            include_str!(concat!(env!("OUT_DIR"), "/workload/workload.debug.rs")),
        ),
    ];
    let names = ["mayfly.v1.in", "mayfly.v1.debug.in", "workload.in", "workload.debug.in"];
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/rust/src/pb");
    for ((stored, made), name) in pairs.into_iter().zip(names) {
        if std::env::var_os("MAYFLY_WRITE_SAMPLES").is_some() {
            std::fs::write(dir.join(name), made).unwrap();
        } else {
            assert!(
                stored == made,
                "{name} is not current: MAYFLY_WRITE_SAMPLES=1 cargo test --test client the_clients_generated"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_gets_a_credential_with_a_task_of_its_own_that_ends_with_it() {
    let up = Up::new();
    let mayfly = up.client("agent/demo").await;
    let credential = mayfly.credential("echo").scope("echo:read").tool("read").purpose("look").get().await.unwrap();
    assert_eq!(credential.headers()["authorization"].to_str().unwrap(), format!("Bearer {}", credential.token().expose()));
    assert!(credential.headers()["authorization"].is_sensitive());
    assert_eq!(credential.base_url(), "http://127.0.0.1:7780");
    assert!(!format!("{credential:?}").contains(credential.token().expose()), "no token in Debug");
    assert!(up.is_active(credential.token().expose()).await);
    let (task, token) = (credential.task_id().to_owned(), credential.token().clone());
    credential.release().await.unwrap();
    assert_eq!(up.state_of(&task).await, pb::TaskState::Completed);
    assert!(!up.is_active(token.expose()).await);

    // Dropped instead: the same happens in the background.
    let credential = mayfly.credential("echo").scope("echo:read").get().await.unwrap();
    let task = credential.task_id().to_owned();
    drop(credential);
    until("the task is completed", || async { up.state_of(&task).await == pb::TaskState::Completed }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_share_one_exchange_and_the_last_who_leaves_gives_it_back() {
    let up = Up::new();
    let task = up.task().await;
    let settings =
        mayfly_client::Settings { idle: Duration::from_millis(300), task: Some(task.clone()), ..up.settings("agent/demo") };
    let mayfly = Mayfly::connect(settings).await.unwrap();
    let asking = (0..64).map(|_| {
        let mayfly = mayfly.clone();
        tokio::spawn(async move { mayfly.credential("echo").scope("echo:read").get().await.unwrap() })
    });
    let mut held = Vec::new();
    for one in asking.collect::<Vec<_>>() {
        held.push(one.await.unwrap());
    }
    assert!(held.iter().all(|c| c.credential_id() == held[0].credential_id()));
    assert_eq!(up.issued_in(&task).await.len(), 1, "64 who ask at once are one exchange");
    let token = held[0].token().clone();

    // A request with arguments is for one call, and another scope is another request.
    let alone = |n: u32| mayfly.credential("echo").scope("echo:read").tool("read").arguments(&serde_json::json!({"n": n})).get();
    let (a, b) = (alone(1).await.unwrap(), alone(1).await.unwrap());
    assert_ne!(a.credential_id(), b.credential_id());

    held.truncate(1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(up.is_active(token.expose()).await, "somebody holds it");
    held.clear();
    // For a while it waits for the next call.
    drop(mayfly.credential("echo").scope("echo:read").get().await.unwrap());
    until("it is given back", || async { !up.is_active(token.expose()).await }).await;
    assert_eq!(up.state_of(&task).await, pb::TaskState::Active, "the task is not ours to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_gives_everything_back() {
    let up = Up::new();
    let task = up.task().await;
    let mayfly = up.client("agent/demo").await;
    let shared = mayfly.credential("echo").scope("echo:read").task(task.clone()).get().await.unwrap();
    let token = shared.token().clone();
    shared.used(200u16);
    mayfly.close().await;
    assert!(!up.is_active(token.expose()).await);
    assert!(matches!(mayfly.credential("echo").scope("echo:read").get().await, Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_credential_is_replaced_shortly_before_it_ends() {
    let up = Up::new();
    let task = up.task().await;
    let mayfly = up.client("agent/demo").await;
    let ask = || mayfly.credential("echo").scope("echo:read").task(task.clone()).ttl(Duration::from_secs(3));
    let first = ask().get().await.unwrap();
    assert_eq!(ask().get().await.unwrap().credential_id(), first.credential_id());
    tokio::time::sleep(Duration::from_millis(2750)).await;
    let second = ask().get().await.unwrap();
    assert_ne!(second.credential_id(), first.credential_id(), "90 % of its life are over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_is_typed_says_the_way_out_and_is_not_asked_again() {
    let up = Up::new();
    let mayfly = up.client("agent/demo").await;
    let begun = Stopwatch::start();
    // A sensitive scope without its tool: no policy permits it.
    let no = mayfly.credential("echo").scope("echo:admin").get().await.unwrap_err();
    assert!(begun.us() < 2_000_000, "asked once");
    let Error::Denied(refusal) = &no else { panic!("{no:?}") };
    assert_eq!(refusal.reason, "DENIED_BY_POLICY");
    let no = mayfly.credential("nowhere").scope("x").get().await.unwrap_err();
    assert!(matches!(&no, Error::Denied(r) if r.reason == "NOT_FOUND"), "{no:?}");
    let no = mayfly.credential("echo").scope("echo:read").ttl(Duration::from_millis(1)).get().await.unwrap_err();
    let Error::Invalid(refusal) = &no else { panic!("{no:?}") };
    assert!(!refusal.fields.is_empty(), "{refusal:?}");
    let refused = up.operator(&["audit", "search", "--json"]);
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(text.matches("DENIED_BY_POLICY").count() <= 1, "one refusal, not many: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_name_is_not_called() {
    let up = Up::new();
    let other = mayfly_client::SpiffeId::parse("spiffe://dev.mayfly.internal/agent/demo").unwrap();
    let settings = mayfly_client::Settings { server_id: other, ..up.settings("agent/demo") };
    let no = Mayfly::connect(settings).await.err().unwrap().to_string();
    assert!(no.contains("expected spiffe://dev.mayfly.internal/agent/demo"), "{no}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_is_in_the_trace_that_its_caller_says() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let up = Up::new();
    let traceparent = Some((|| Some(format!("00-{TRACE}-00f067aa0ba902b7-00"))) as fn() -> Option<String>);
    let settings = mayfly_client::Settings { traceparent, ..up.settings("agent/demo") };
    let credential = Mayfly::connect(settings).await.unwrap().credential("echo").scope("echo:read").get().await.unwrap();
    let found = up.operator(&["audit", "search", TRACE, "--event", "credential issued", "-o", "json"]);
    let said = String::from_utf8_lossy(&found.stdout);
    assert!(found.status.success() && said.contains(credential.credential_id()), "{said}");
}
