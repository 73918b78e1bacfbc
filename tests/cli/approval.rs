//! `mayfly approval`: what is printed before a decision, and the request that is sent.

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
fn a_change_is_named_with_what_it_changes_and_why() {
    let change = |governs: &[&str], because: &str, environment: &str| pb::Approval {
        of: pb::ApprovalOf::Change.into(),
        governs: governs.iter().map(|part| (*part).to_owned()).collect(),
        asked_because: because.into(),
        environment: environment.into(),
        arguments_json: String::new(),
        ..waiting()
    };
    for (approval, said) in [
        (
            change(&["policy operators", "roles"], "two on call", "prod"),
            "asks to change policy operators, roles in prod: two on call",
        ),
        (change(&[], "", "prod"), "asks to change the policy, an upstream or a binding in prod; no reason was given"),
        (change(&[], "", ""), "asks to change the trust bundles; no reason was given"),
    ] {
        let (shown, decided) = (approval.clone(), approval);
        let stage = Stage::new();
        stage.double.on(move |_: pb::GetApprovalRequest| Ok(pb::GetApprovalResponse { approval: Some(shown.clone()) }));
        stage.double.on(move |_: pb::DecideApprovalRequest| {
            Ok(pb::DecideApprovalResponse { approval: Some(decided.clone()), hits: None })
        });
        let ran = stage.run(&format!("approval give {ID} --reason agreed"));
        assert_eq!(ran.exit, 0, "{ran:?}");
        assert!(ran.stderr.contains(&format!("spiffe://example.org/agent {said}")), "{}", ran.stderr);
    }
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

/// An approval to open a task, whose purpose tries to overwrite the screen.
fn of_task(of: pb::ApprovalOf) -> pb::Approval {
    let terms = pb::TaskTerms {
        purpose: "clean \u{202e}up".into(),
        upstreams: vec![pb::Allowance {
            upstream: "warehouse".into(),
            scopes: vec!["orders:export".into(), "orders:read".into()],
        }],
        tools: vec!["purge".into()],
        callers: vec!["spiffe://example.org/mcp".into()],
        ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        max_ttl: Some(prost_types::Duration { seconds: 7200, nanos: 0 }),
        ..pb::TaskTerms::default()
    };
    let deadline = if of == pb::ApprovalOf::Extension { at(7200) } else { None };
    let owner = workload("spiffe://example.org/agent");
    let task = pb::ApprovalTask { terms: Some(terms), owner, upstreams: vec!["warehouse".into()], deadline };
    pb::Approval { of: of.into(), task: Some(task), tool: String::new(), arguments_json: String::new(), ..waiting() }
}

#[test]
fn a_task_is_approved_with_its_terms_in_sight() {
    for (of, what, life) in [
        (pb::ApprovalOf::Task, "asks for a task in prod", "for 10m, at most 2h"),
        (pb::ApprovalOf::Extension, "asks for more time for a task in prod", "until 2"),
    ] {
        let stage = Stage::new();
        stage.double.on(move |_: pb::GetApprovalRequest| Ok(pb::GetApprovalResponse { approval: Some(of_task(of)) }));
        stage
            .double
            .on(move |_: pb::DecideApprovalRequest| Ok(pb::DecideApprovalResponse { approval: Some(of_task(of)), hits: None }));
        let ran = stage.run(&format!("approval give {ID} --reason agreed"));
        assert_eq!(ran.exit, 0, "{ran:?}");
        let reach = "task of spiffe://example.org/agent: warehouse=orders:export,orders:read; tools purge; also for spiffe://example.org/mcp";
        for said in [what, reach, life] {
            assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains('\u{202e}'), "{}", ran.stderr);
        let shown = stage.run(&format!("approval show {ID} -o json")).json();
        assert_eq!((&shown["task"]["tools"][0], &shown["task"]["max_ttl_ms"]), (&"purge".into(), &7_200_000.into()));
        assert_eq!(shown["task"]["asked_for"][0], "warehouse");
    }
}
