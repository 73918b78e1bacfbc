//! `mayfly get`: the request, and where the secret is written.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1::{self as pb, exchange_request::Task};

use crate::answers::{CREDENTIAL, TASK, echo, issued, task};
use crate::double::{Stage, ran};

const TOKEN: &str = "s3cr3t-s3cr3t";

/// A server with the upstream echo, which keeps the exchange request.
fn stage() -> (Stage, Arc<Mutex<Option<pb::ExchangeRequest>>>) {
    let stage = Stage::new();
    let asked = Arc::new(Mutex::new(None));
    let keeps = asked.clone();
    stage.double.on(|_: pb::GetUpstreamRequest| Ok(pb::GetUpstreamResponse { upstream: Some(echo()) }));
    stage.double.on(move |q: pb::ExchangeRequest| {
        *keeps.lock().unwrap() = Some(q);
        Ok(pb::ExchangeResponse { issued: Some(issued(TOKEN)) })
    });
    (stage, asked)
}

#[test]
fn a_pipe_gets_the_token_and_stderr_what_it_is() {
    let (stage, asked) = stage();
    let ran = ran(&mut stage.command(&["get", "echo", "--purpose", "first try"]), "");
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, "s3cr3t-s3cr3t\n"), "{ran:?}");
    assert!(!ran.stderr.contains(TOKEN), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("mayfly task complete {TASK}")), "{}", ran.stderr);
    let asked = asked.lock().unwrap().take().unwrap();
    assert_eq!(asked.scopes, ["echo:read"], "one scope, the first that is not sensitive");
    assert_eq!(asked.kind(), pb::CredentialKind::Jwt);
    assert!(!asked.request_id.is_empty());
    let Some(Task::OpenTask(terms)) = asked.task else { panic!("no task was opened") };
    assert_eq!(terms.purpose, "first try");
    assert_eq!(terms.upstreams, [pb::Allowance { upstream: "echo".to_owned(), scopes: vec!["echo:read".to_owned()] }]);
    assert!(!terms.any_tool && terms.tools.is_empty());
}

#[test]
fn arguments_that_others_would_read_as_other_ones_are_refused_before_they_are_sent() {
    let (stage, asked) = stage();
    for bad in
        [r#"{"id":1234567890123456789}"#, r#"{"id":1234567890123456700}"#, r#"{"id":1,"id":2}"#, r#"{"id":"\ud800"}"#, "{'id':1}"]
    {
        let ran = ran(&mut stage.command(&["get", "echo", "--purpose", "p", "--arguments", "-"]), bad);
        assert_eq!(ran.exit, 2, "{ran:?}");
        assert!(ran.stderr.contains("--arguments"), "{}", ran.stderr);
        assert!(asked.lock().unwrap().is_none());
    }
}

#[test]
fn everything_that_narrows_it_is_passed_on() {
    let (stage, asked) = stage();
    let line = format!(
        "get echo --task {TASK} --scope echo:write --scope echo:read --kind reference --ttl 1m30s --tool deploy --bind-svid --binding b --arguments - --request-id mine"
    );
    stage.run_with(&line, r#"{"a":1}"#).ok();
    let asked = asked.lock().unwrap().take().unwrap();
    assert_eq!(asked.task, Some(Task::TaskId(TASK.to_owned())));
    assert_eq!(asked.scopes, ["echo:write", "echo:read"]);
    assert_eq!(asked.kind(), pb::CredentialKind::Reference);
    assert_eq!(asked.ttl.unwrap().seconds, 90);
    assert_eq!((asked.tool.as_str(), asked.binding.as_str(), asked.request_id.as_str()), ("deploy", "b", "mine"));
    assert_eq!(asked.arguments.unwrap().arguments, Some(pb::arguments::Arguments::Json(r#"{"a":1}"#.to_owned())));
    assert!(matches!(asked.key_binding.unwrap().key, Some(pb::key_binding::Key::CallerSvid(_))));
}

#[test]
fn in_a_task_the_scope_that_is_left_out_is_one_of_the_tasks() {
    let (stage, asked) = stage();
    stage.double.on(|_: pb::GetTaskRequest| {
        let mut task = task();
        let scopes = vec!["echo:admin".to_owned(), "echo:write".to_owned()];
        task.terms.as_mut().unwrap().upstreams = vec![pb::Allowance { upstream: "echo".to_owned(), scopes }];
        Ok(pb::GetTaskResponse { task: Some(task) })
    });
    stage.run(&format!("get echo --task {TASK}")).ok();
    assert_eq!(asked.lock().unwrap().take().unwrap().scopes, ["echo:write"]);
}

#[test]
fn a_file_gets_it_whole_and_private() {
    let (stage, _) = stage();
    let ran = stage.run("get echo --purpose x --to token");
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""), "{ran:?}");
    let path = stage.folder.path().join("token");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cr3t-s3cr3t\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    stage.run("get echo --purpose x --to header --header").ok();
    let header = std::fs::read_to_string(stage.folder.path().join("header")).unwrap();
    assert_eq!(header, "authorization: Bearer s3cr3t-s3cr3t\n");
    let json = stage.run("get echo --purpose x -o json").json();
    assert_eq!(json["bearer_token"]["token"], TOKEN);
    assert_eq!(
        (&json["credential_id"], &json["bound"], &json["expires_at"]),
        (&CREDENTIAL.into(), &"asked".into(), &"2026-11-20T08:05:00Z".into())
    );
}

#[test]
fn what_cannot_be_handed_over_is_given_back() {
    let (stage, _) = stage();
    let given_back = Arc::new(AtomicBool::new(false));
    let seen = given_back.clone();
    stage.double.on(move |q: pb::ReleaseRequest| {
        seen.store(q.credential_id == CREDENTIAL, SeqCst);
        Ok(pb::ReleaseResponse { seq: 50, ..Default::default() })
    });
    let ran = stage.run("get echo --purpose x --to no/such/folder/token");
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(given_back.load(SeqCst));
    assert!(!format!("{ran:?}").contains(TOKEN));
}

#[test]
fn a_device_or_a_form_without_a_secret_is_refused_before_anything_is_asked() {
    let (stage, asked) = stage();
    for line in ["get echo --purpose x --to /dev/null", "get echo --purpose x -o name", "get echo --purpose x -o yaml"] {
        assert_eq!(stage.run(line).exit, 2, "{line}");
    }
    assert!(asked.lock().unwrap().is_none());
}

#[test]
fn a_terminal_gets_no_secret_unless_it_is_told_to() {
    if !std::path::Path::new("/usr/bin/script").exists() {
        crate::kit::skipped::skipped("there is no script(1) to make a terminal with");
        return;
    }
    let (stage, asked) = stage();
    let on_a_terminal = |more: &str| {
        let line = format!("{} get echo --purpose x {more}", env!("CARGO_BIN_EXE_mayfly"));
        let address = format!("unix:{}/admin.sock", stage.folder.path().display());
        let mut script = Command::new("/usr/bin/script");
        script.args(["-q", "-e", "-c", &line, "/dev/null"]).env_clear().env("HOME", stage.folder.path());
        let output = script.env("MAYFLY_ADDRESS", address).stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (exit, shown) = on_a_terminal("");
    assert_eq!(exit, 2, "{shown}");
    assert!(shown.contains("not written to a terminal") && !shown.contains(TOKEN), "{shown}");
    assert!(asked.lock().unwrap().is_none(), "nothing was issued");
    let (exit, shown) = on_a_terminal("--force-terminal");
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains(TOKEN));
}
