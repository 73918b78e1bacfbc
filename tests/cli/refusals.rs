//! Refusals: the output tells what was refused, the rule, and who can lift the refusal and how; the exit code tells what to do.

use std::collections::HashMap;
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::answers::TASK;
use crate::double::Stage;

/// A refusal, as the server sends it.
pub fn refusal(reason: Reason, message: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let details = ErrorDetails::with_error_info(reason.as_str(), "mayfly.dev", metadata);
    Status::with_error_details(Code::from(reason.code() as i32), message, details)
}

#[test]
fn every_reason_ends_with_its_code_and_tells_rule_and_way_out() {
    let stage = Stage::new();
    for &reason in Reason::ALL {
        stage.double.on(move |_: pb::GetTaskRequest| Err::<pb::GetTaskResponse, _>(refusal(reason, "no, for this test", &[])));
        let ran = stage.run(&format!("--deadline 2s task show {TASK}"));
        assert_eq!(ran.exit, i32::from(mayfly::cli::exit::Exit::of_reason(reason).code()), "{reason:?}: {ran:?}");
        assert_ne!(ran.exit, 0);
        assert_eq!(ran.stdout, "");
        // A request that was late may have been carried out, so it is not reported as refused.
        let label = if reason == Reason::DeadlineExceeded { "error" } else { "refused" };
        assert!(ran.stderr.contains(&format!("{label}: no, for this test [{}]\n", reason.as_str())), "{}", ran.stderr);
        assert!(ran.stderr.contains("\n  rule       ") && ran.stderr.contains("\n  way out    "), "{}", ran.stderr);
    }
}

/// The workload listener refuses operators' calls for two reasons, and the caller has to do the same about both.
#[test]
fn the_wrong_listener_has_one_exit_code() {
    let stage = Stage::new();
    let rule = [("rule", mayfly::refusal::NO_OPERATORS_HERE)];
    for reason in [Reason::NotAuthenticated, Reason::NotServed] {
        stage.double.on(move |_: pb::GetPolicyRequest| Err::<pb::GetPolicyResponse, _>(refusal(reason, "elsewhere", &rule)));
        assert_eq!(stage.run("policy show dev").exit, 4, "{reason:?}");
    }
}

#[test]
fn what_the_server_says_of_rule_and_way_out_comes_first() {
    let stage = Stage::new();
    stage.double.on(|_: pb::GetTaskRequest| {
        let mut details = ErrorDetails::with_error_info(
            "LIMIT_REACHED",
            "mayfly.dev",
            [("rule".to_owned(), "TASKS_PER_CALLER\u{1b}[2J".to_owned()), ("way_out".to_owned(), "ask ops".to_owned())],
        );
        details.add_bad_request_violation("task_id", "too many\u{202e}").set_retry_info(Some(Duration::from_secs(90)));
        let status = Status::with_error_details(Code::ResourceExhausted, "the limit is reached", details);
        Err::<pb::GetTaskResponse, _>(status)
    });
    let ran = stage.run(&format!("task show {TASK}"));
    assert_eq!(
        ran.stderr,
        "refused: the limit is reached [LIMIT_REACHED]\n  field      task_id: too many\\u{202e}\n  rule       TASKS_PER_CALLER\\u{1b}[2J\n  way out    ask ops\n  try again  in 1m30s\n"
    );
    let ran = stage.run(&format!("task show {TASK} -o json"));
    let told: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert!(ran.stderr.is_ascii(), "{}", ran.stderr);
    assert_eq!(
        told["error"],
        serde_json::json!({
            "kind": "refusal", "exit_code": 8, "message": "the limit is reached", "reason": "LIMIT_REACHED",
            "rule": "TASKS_PER_CALLER\u{1b}[2J", "way_out": "ask ops",
            "fields": [{"field": "task_id", "description": "too many\u{202e}"}], "retry_after_ms": 90_000,
        })
    );
}

#[test]
fn a_status_without_details_is_judged_by_its_code() {
    let stage = Stage::new();
    for (code, exit) in [(Code::NotFound, 3), (Code::Internal, 1), (Code::PermissionDenied, 5), (Code::Unauthenticated, 4)] {
        stage.double.on(move |_: pb::GetTaskRequest| Err::<pb::GetTaskResponse, _>(Status::new(code, "plain")));
        assert_eq!(stage.run(&format!("task show {TASK}")).exit, exit, "{code:?}");
    }
    let foreign = || {
        let details = ErrorDetails::with_error_info("NOT_FOUND", "example.com", HashMap::new());
        Status::with_error_details(Code::Internal, "a proxy's", details)
    };
    stage.double.on(move |_: pb::GetTaskRequest| Err::<pb::GetTaskResponse, _>(foreign()));
    assert_eq!(stage.run(&format!("task show {TASK}")).exit, 1, "another domain's reason is none of ours");
}

#[test]
fn a_limit_is_not_asked_again_and_a_server_that_is_not_ready_is() {
    let stage = Stage::new();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    for (reason, tries) in [(Reason::LimitReached, 1), (Reason::NotReady, 4), (Reason::DeniedByPolicy, 1)] {
        let counted = calls.clone();
        calls.store(0, std::sync::atomic::Ordering::SeqCst);
        stage.double.on(move |_: pb::GetTaskRequest| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Err::<pb::GetTaskResponse, _>(refusal(reason, "no", &[]))
        });
        stage.run(&format!("task show {TASK}"));
        assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), tries, "{reason:?}");
    }
}

#[test]
fn an_answer_that_does_not_come_ends_with_the_deadline() {
    let stage = Stage::new();
    stage.double.on(|_: pb::GetTaskRequest| {
        std::thread::sleep(Duration::from_millis(700));
        Ok(pb::GetTaskResponse::default())
    });
    let ran = stage.run(&format!("--deadline 100ms task show {TASK}"));
    assert_eq!(ran.exit, 8, "{ran:?}");
    assert!(ran.stderr.contains("no answer within 100ms"), "{}", ran.stderr);
}

#[test]
fn no_server_is_told_apart_from_a_wrong_command_line() {
    let stage = Stage::new();
    let ran = stage.run("--address unix:/nonexistent/mayfly.sock status");
    assert_eq!(ran.exit, 8);
    assert!(ran.stderr.contains("no server at unix:/nonexistent/mayfly.sock"), "{}", ran.stderr);
    for wrong in ["--address http://x:1 status", "task show cred_x", "task extend", "nonsense", "get echo", "--deadline 5 status"]
    {
        let ran = stage.run(wrong);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{wrong}: {ran:?}");
    }
    let told: serde_json::Value = serde_json::from_str(&stage.run("task shwo -o json").stderr).unwrap();
    assert_eq!(told["error"]["kind"], "usage");
}
