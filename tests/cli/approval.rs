//! `mayfly approval`: what is shown before somebody decides, and what is sent.

use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;

use crate::answers::{at, workload};
use crate::double::Stage;

const ID: &str = "appr_aaaaaaaaaaaaaaaaaaaaaaaaaa";

fn waiting() -> pb::Approval {
    pb::Approval {
        approval_id: ID.into(),
        state: pb::ApprovalState::Waiting.into(),
        of: pb::ApprovalOf::Exchange.into(),
        caller: workload("spiffe://example.org/agent"),
        upstream: "warehouse".into(),
        environment: "prod".into(),
        scopes: vec!["orders:export".into()],
        kind: pb::CredentialKind::Jwt.into(),
        tool: "export".into(),
        purpose: "nightly \u{1b}[2J".into(),
        arguments_json: r#"{"rows":9}"#.into(),
        request_sha256: vec![7; 32].into(),
        expires_at: at(3600),
        ..pb::Approval::default()
    }
}

fn stage() -> (Stage, Arc<Mutex<Vec<pb::DecideApprovalRequest>>>) {
    let (stage, seen) = (Stage::new(), Arc::new(Mutex::new(Vec::new())));
    let keeps = seen.clone();
    stage.double.on(|_: pb::GetApprovalRequest| Ok(pb::GetApprovalResponse { approval: Some(waiting()) }));
    stage.double.on(move |q: pb::DecideApprovalRequest| {
        let given = q.decision() == pb::ApprovalDecision::Give;
        let state = if given { pb::ApprovalState::Given } else { pb::ApprovalState::Refused };
        keeps.lock().unwrap().push(q);
        Ok(pb::DecideApprovalResponse { approval: Some(pb::Approval { state: state.into(), ..waiting() }), hits: None })
    });
    (stage, seen)
}

#[test]
fn what_is_approved_is_what_was_shown() {
    let (stage, seen) = stage();
    let ran = stage.run(&format!("approval give {ID} --reason agreed -o json"));
    assert_eq!(ran.exit, 0, "{ran:?}");
    let said = "spiffe://example.org/agent asks for orders:export of warehouse in prod for tool export: nightly \\u{1b}[2J";
    assert!(ran.stderr.contains(said), "a caller's words do nothing to a terminal: {}", ran.stderr);
    assert!(ran.stderr.contains(r#"arguments: {"rows":9}"#), "{}", ran.stderr);
    assert_eq!(ran.json()["state"], "given");
    let sent = seen.lock().unwrap().remove(0);
    assert_eq!((sent.request_sha256.to_vec(), sent.reason.as_str()), (vec![7; 32], "agreed"));
}

#[test]
fn whoever_noted_a_digest_decides_about_that_one() {
    let (stage, seen) = stage();
    let ran = stage.run(&format!("approval refuse {ID} --reason no --request-sha256 {}", "ab".repeat(32)));
    assert_eq!(ran.exit, 0, "{ran:?}");
    let sent = seen.lock().unwrap().remove(0);
    assert_eq!((sent.request_sha256.to_vec(), sent.decision()), (vec![0xab; 32], pb::ApprovalDecision::Refuse));
    assert_eq!(stage.run(&format!("approval give {ID}")).exit, 2, "without a reason");
    assert_eq!(stage.run("approval give appr_x --reason y").exit, 2);
}

#[test]
fn those_that_wait_are_listed() {
    let stage = Stage::new();
    stage.double.on(|q: pb::ListApprovalsRequest| {
        assert_eq!((q.state(), q.upstream.as_str()), (pb::ApprovalState::Unspecified, "warehouse"));
        Ok(pb::ListApprovalsResponse { approvals: vec![waiting()], next_page_token: String::new() })
    });
    let listed = stage.run("approval list --upstream warehouse").ok();
    assert!(listed.starts_with("APPROVAL") && listed.contains("orders:export") && listed.contains("waiting"), "{listed}");
    assert_eq!(stage.run("approval list --upstream warehouse -o name").ok(), format!("{ID}\n"));
}
