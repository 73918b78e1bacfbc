//! Approvals: named, waited for, given, refused, not decided in time, and across a server that is killed meanwhile.

use std::time::Duration;

use mayfly_client::{CredentialRequest, Error, Mayfly};
use serde_json::{Value, json};

use crate::kit::{Apart, Up, until};

const APPROVED: &str = r#"
@id("agents-open-tasks-for-what-is-approved")
permit (principal in Role::"agent", action == Action::"OpenTask", resource in Environment::"dev");

@id("sensitive-scopes-are-approved")
forbid (principal, action == Action::"Exchange", resource)
when { context.sensitive } unless { context.approvals.count >= 1 };
"#;

/// A call that needs an approval.
fn wipe(mayfly: &Mayfly, what: &str) -> CredentialRequest {
    let ask = mayfly.credential("echo").scope("echo:admin").tool("wipe").arguments(&json!({"what": what})).purpose("wipe");
    ask.ttl(Duration::from_secs(60))
}

fn needed(answer: Result<mayfly_client::Credential, Error>) -> String {
    match answer {
        Err(Error::ApprovalNeeded { approval_id, refusal }) => {
            assert_eq!(refusal.reason, "APPROVAL_NEEDED");
            assert!(approval_id.starts_with("appr_"), "{approval_id}");
            approval_id
        }
        other => panic!("{other:?}"),
    }
}

fn decide(up: &Up, how: &str, id: &str) {
    let done = up.operator(&["approval", how, id, "--reason", "as agreed"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_named_waited_for_and_bound_to_its_arguments() {
    let up = Up::policed(APPROVED);
    let mayfly = up.client("agent/demo").await;
    let id = needed(wipe(&mayfly, "all").get().await);
    let waiting = tokio::spawn(wipe(&mayfly, "all").wait_for_approval(Duration::from_secs(30)).get());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it waits");
    decide(&up, "give", &id);
    let credential = waiting.await.unwrap().unwrap();
    assert!(up.is_active(credential.token().expose()).await);
    // Once, and for nothing else.
    assert_ne!(needed(wipe(&mayfly, "all").get().await), id);
    assert_ne!(needed(wipe(&mayfly, "some").get().await), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_given_before_is_good_for_the_same_request_at_once() {
    let up = Up::policed(APPROVED);
    let mayfly = up.client("agent/demo").await;
    let id = needed(wipe(&mayfly, "all").get().await);
    decide(&up, "give", &id);
    let credential = wipe(&mayfly, "all").get().await.unwrap();
    credential.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_no_and_ends_the_waiting() {
    let up = Up::policed(APPROVED);
    let mayfly = up.client("agent/demo").await;
    let id = needed(wipe(&mayfly, "all").get().await);
    let waiting = tokio::spawn(wipe(&mayfly, "all").wait_for_approval(Duration::from_secs(30)).get());
    tokio::time::sleep(Duration::from_millis(300)).await;
    decide(&up, "refuse", &id);
    match waiting.await.unwrap() {
        Err(Error::Denied(refusal)) => assert!(refusal.message.contains("was refused by"), "{refusal}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(up.audit("credential issued"), [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_nobody_decides_in_time_is_needed_still() {
    let up = Up::policed(APPROVED);
    let mayfly = up.client("agent/demo").await;
    let id = needed(wipe(&mayfly, "all").wait_for_approval(Duration::from_secs(1)).get().await);
    // The same approval for everybody who asks again: nobody has to decide twice.
    assert_eq!(needed(wipe(&mayfly, "all").get().await), id);
    decide(&up, "give", &id);
    assert!(wipe(&mayfly, "all").get().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_meanwhile_is_asked_again_with_the_same_request_id() {
    let mut apart = Apart::policed(APPROVED);
    let mayfly = Mayfly::connect(apart.settings("agent/demo")).await.unwrap();
    let waiting = tokio::spawn(wipe(&mayfly, "all").wait_for_approval(Duration::from_secs(50)).get());
    let listed = |apart: &Apart| -> Vec<Value> {
        let output = apart.operator(&["approval", "list", "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    until("it waits for somebody", || async { !listed(&apart).is_empty() }).await;
    apart.kill();
    apart.start();
    let all = listed(&apart);
    let id = all[0]["approval_id"].as_str().unwrap_or_else(|| panic!("{all:?}")).to_owned();
    let given = apart.operator(&["approval", "give", &id, "--reason", "as agreed"]);
    assert!(given.status.success(), "{}", String::from_utf8_lossy(&given.stderr));
    let credential = waiting.await.unwrap().unwrap();
    assert_eq!(apart.audit("credential issued").len(), 1);
    assert_eq!(apart.audit("approval asked").len(), 1, "one request, one approval");
    credential.release().await.unwrap();
}
