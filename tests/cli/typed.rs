//! The requests that the server receives for given arguments, and commands that need no server.

use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;

use crate::answers::{CHILD, TASK, at, echo, hits, task};
use crate::double::{Stage, program, ran};

/// Keeps the last request of a type, and answers it.
fn keep<Q: Clone + Send + 'static, R: Clone + Send + Sync + 'static>(stage: &Stage, answer: R) -> Arc<Mutex<Option<Q>>> {
    let kept = Arc::new(Mutex::new(None));
    let keeps = kept.clone();
    stage.double.on(move |q: Q| {
        *keeps.lock().unwrap() = Some(q);
        Ok(answer.clone())
    });
    kept
}

#[test]
fn a_task_is_opened_with_what_was_typed_and_no_more() {
    let stage = Stage::new();
    stage.double.on(|_: pb::GetUpstreamRequest| Ok(pb::GetUpstreamResponse { upstream: Some(echo()) }));
    let asked = keep::<pb::OpenTaskRequest, _>(&stage, pb::OpenTaskResponse { task: Some(task()) });
    let line = format!(
        "task open --purpose nightly --upstream github=repo:read,issues:read --upstream github=repo:write --upstream echo --tool deploy \
         --kind jwt --caller spiffe://example.org/mcp --key-bound --ttl 30m --max-ttl 2h --heartbeat 30s --parent {TASK} -o name"
    );
    assert_eq!(stage.run(&line).ok(), format!("{CHILD}\n"));
    let terms = asked.lock().unwrap().take().unwrap().terms.unwrap();
    let scopes: Vec<Vec<String>> = terms.upstreams.iter().map(|a| a.scopes.clone()).collect();
    assert_eq!(scopes, [vec!["repo:read", "issues:read", "repo:write"], vec!["echo:read"]]);
    assert_eq!(
        (terms.ttl.unwrap().seconds, terms.max_ttl.unwrap().seconds, terms.heartbeat_interval.unwrap().seconds),
        (1800, 7200, 30)
    );
    assert_eq!((terms.parent_task_id.as_str(), terms.key_bound, terms.any_tool), (TASK, true, false));
    assert_eq!((terms.tools, terms.callers), (vec!["deploy".to_owned()], vec!["spiffe://example.org/mcp".to_owned()]));
    for wrong in ["task open --purpose x", "task open --upstream a=b", "task open --purpose x --upstream a=b --tool t --any-tool"]
    {
        assert_eq!(stage.run(wrong).exit, 2, "{wrong}");
    }
}

#[test]
fn a_task_that_waits_for_an_approval_says_so() {
    let stage = Stage::new();
    let pending = pb::Task { state: pb::TaskState::PendingApproval.into(), approval_id: "appr_x".to_owned(), ..task() };
    stage.double.on(move |_: pb::OpenTaskRequest| Ok(pb::OpenTaskResponse { task: Some(pending.clone()) }));
    let ran = stage.run("task open --purpose x --upstream a=b -o name");
    assert_eq!((ran.exit, ran.stdout), (9, format!("{CHILD}\n")));
    assert!(ran.stderr.contains("appr_x"), "{}", ran.stderr);
    let pending = pb::Task { state: pb::TaskState::PendingApproval.into(), approval_id: "appr_y".to_owned(), ..task() };
    let asked = keep::<pb::DelegateTaskRequest, _>(&stage, pb::DelegateTaskResponse { task: Some(pending) });
    let handed = "--to spiffe://example.org/b --purpose x --upstream a=b --wait-for-approval 20s";
    let ran = stage.run(&format!("task delegate {TASK} {handed}"));
    assert_eq!(ran.exit, 9);
    assert!(ran.stderr.contains("mayfly approval give appr_y"), "{}", ran.stderr);
    assert_eq!(asked.lock().unwrap().take().unwrap().wait_for_approval.map(|d| d.seconds), Some(20));
}

#[test]
fn a_deadline_moves_by_or_to() {
    let stage = Stage::new();
    stage.double.on(|_: pb::GetTaskRequest| Ok(pb::GetTaskResponse { task: Some(task()) }));
    let asked = keep::<pb::ExtendTaskRequest, _>(&stage, pb::ExtendTaskResponse { task: Some(task()) });
    stage.run(&format!("task extend {CHILD} --by 30m")).ok();
    assert_eq!(asked.lock().unwrap().take().unwrap().deadline, at(3600 + 1800));
    stage.run(&format!("task extend {CHILD} --until 2026-11-20T10:00:00Z")).ok();
    assert_eq!(asked.lock().unwrap().take().unwrap().deadline, at(7200));
    stage.run(&format!("task extend {CHILD} --by 30m --wait-for-approval 20s")).ok();
    let waits = asked.lock().unwrap().take().unwrap().wait_for_approval;
    assert_eq!(waits, Some(prost_types::Duration { seconds: 20, nanos: 0 }));
    assert_eq!(stage.run(&format!("task extend {CHILD} --by 1h --until 2026-11-20T10:00:00Z")).exit, 2);
}

#[test]
fn delegating_holding_resuming_and_ending() {
    let stage = Stage::new();
    let delegated = keep::<pb::DelegateTaskRequest, _>(&stage, pb::DelegateTaskResponse { task: Some(task()) });
    stage.run(&format!("task delegate {TASK} --to spiffe://example.org/b --purpose x --upstream a=b")).ok();
    let asked = delegated.lock().unwrap().take().unwrap();
    assert_eq!((asked.caller.as_str(), asked.terms.unwrap().parent_task_id.as_str()), ("spiffe://example.org/b", TASK));
    let held = keep::<pb::HoldTaskRequest, _>(&stage, pb::HoldTaskResponse { task: Some(task()), seq: 60 });
    assert_eq!(stage.run(&format!("task hold {TASK} --reason odd -o json")).json()["seq"], 60);
    assert_eq!(held.lock().unwrap().take().unwrap().reason, "odd");
    let holds = vec![pb::Hold { task_id: TASK.to_owned(), seq: 59, reason: "policy".to_owned(), ..pb::Hold::default() }];
    keep::<pb::ResumeTaskRequest, _>(&stage, pb::ResumeTaskResponse { task: Some(pb::Task { holds, ..task() }), seq: 61 });
    let ran = stage.run(&format!("task resume {CHILD}"));
    assert!(ran.stderr.contains(&format!("still held by {TASK} at 59: policy")), "{}", ran.stderr);
    let ended =
        keep::<pb::CompleteTaskRequest, _>(&stage, pb::CompleteTaskResponse { task: Some(task()), seq: 62, hits: hits(2, 1, 1) });
    let ran = ran_with_task(&stage, &["task", "complete", "--reason", "all done"]);
    assert!(ran.stderr.contains("ended at 62; with it ended 2 credentials, in 1 task of 1 caller"), "{}", ran.stderr);
    assert_eq!(ended.lock().unwrap().take().unwrap().reason, "all done");
    keep::<pb::CancelTaskRequest, _>(&stage, pb::CancelTaskResponse { task: Some(task()), seq: 63, hits: hits(0, 1, 0) });
    assert_eq!(stage.run(&format!("task cancel {TASK} -o json")).json()["hits"]["tasks"], 1);
}

/// Runs the program with the task in an environment variable, as in a CI job.
fn ran_with_task(stage: &Stage, words: &[&str]) -> crate::double::Ran {
    ran(stage.command(words).env("MAYFLY_TASK", TASK), "")
}

#[test]
fn keys_change_by_what_was_typed() {
    let stage = Stage::new();
    let rotated = keep::<pb::RotateKeyRequest, _>(
        &stage,
        pb::RotateKeyResponse { key: Some(pb::Key { key_id: "k2".to_owned(), ..Default::default() }), previous: None },
    );
    assert_eq!(stage.run("key rotate --environment prod --publish-ahead 0s -o name").ok(), "k2\n");
    let asked = rotated.lock().unwrap().take().unwrap();
    assert_eq!(
        (asked.purpose(), asked.environment.as_str(), asked.publish_ahead.unwrap().seconds),
        (pb::KeyPurpose::AccessToken, "prod", 0)
    );
    assert_eq!(stage.run("key rotate").exit, 2, "an issuer or an environment is needed");
    let given_up = keep::<pb::CompromiseKeyRequest, _>(
        &stage,
        pb::CompromiseKeyResponse { seq: 90, hits: hits(1, 1, 1), replacement: None },
    );
    let ran = stage.run("key compromise k1 --reason leaked --confirm 1");
    assert!(ran.stderr.contains("nothing signed by k1 is accepted from 90 on"), "{}", ran.stderr);
    assert_eq!(given_up.lock().unwrap().take().unwrap().confirmation.unwrap().credentials, 1);
    let retired = keep::<pb::RetireKeyRequest, _>(&stage, pb::RetireKeyResponse { key: None, hits: hits(0, 0, 0) });
    assert_eq!(stage.run("key retire k1 --dry-run -o json").json()["dry_run"], true);
    assert!(retired.lock().unwrap().take().unwrap().dry_run);
    keep::<pb::GetJwksRequest, _>(&stage, pb::GetJwksResponse { jwks: "{\"keys\":[]}\n".to_owned(), ..Default::default() });
    assert_eq!(stage.run("key jwks --environment prod").ok(), "{\"keys\":[]}\n");
}

#[test]
fn several_keys_are_given_up_by_one_command_as_a_list_prints_them() {
    let stage = Stage::new();
    let (asked, ids) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (keeps, requests) = (asked.clone(), ids.clone());
    stage.double.on(move |q: pb::CompromiseKeyRequest| {
        keeps.lock().unwrap().push(q.key_id.clone());
        requests.lock().unwrap().push(q.request_id.clone());
        match q.key_id.as_str() {
            "gone" => Err(tonic::Status::not_found("there is no key gone")),
            _ => Ok(pb::CompromiseKeyResponse { seq: 90, hits: hits(1, 1, 1), replacement: None }),
        }
    });
    let compromise = |keys: &[&str]| {
        let words = [&["key", "compromise"], keys, &["--reason", "leaked", "--confirm", "all"]].concat();
        let ran = ran(&mut stage.command(&words), "");
        (ran, std::mem::take(&mut *asked.lock().unwrap()))
    };
    // Key ids in one quoted argument, as in the runbook, and unquoted.
    let (ran_once, keys) = compromise(&["k1\nk2\n"]);
    assert_eq!((ran_once.exit, keys), (0, vec!["k1".to_owned(), "k2".to_owned()]), "{}", ran_once.stderr);
    assert_eq!(compromise(&["k1", "k2", "k1"]).1, ["k1", "k2"], "each once");
    let (with_one_gone, keys) = compromise(&["gone\nk2"]);
    assert_eq!((with_one_gone.exit, keys), (3, vec!["gone".to_owned(), "k2".to_owned()]), "the rest is given up all the same");
    assert!(with_one_gone.stderr.contains("gone"), "{}", with_one_gone.stderr);
    ids.lock().unwrap().clear();
    assert_eq!(compromise(&["k1", "k2", "--request-id", "mine"]).0.exit, 0);
    assert_eq!(compromise(&["k1", "--request-id", "mine"]).0.exit, 0);
    assert_eq!(*ids.lock().unwrap(), ["mine-k1", "mine-k2", "mine"], "an id belongs to one request");
    let (none, keys) = compromise(&["\n"]);
    assert_eq!((none.exit, keys.len()), (2, 0), "{}", none.stderr);
}

#[test]
fn bundles_come_from_files_and_roots_go_by_their_digest() {
    let stage = Stage::new();
    let domain = pb::TrustDomain { trust_domain: "example.org".to_owned(), ..Default::default() };
    let added = keep::<pb::AddBundleRequest, _>(&stage, pb::AddBundleResponse { trust_domain: Some(domain.clone()) });
    stage.run_with("bundle add example.org -", "\n {\"keys\":[]}").ok();
    assert!(matches!(added.lock().unwrap().take().unwrap().bundle.unwrap().bundle, Some(pb::bundle::Bundle::SpiffeJwks(_))));
    stage.run_with("bundle add example.org -", "-----BEGIN CERTIFICATE-----").ok();
    assert!(matches!(added.lock().unwrap().take().unwrap().bundle.unwrap().bundle, Some(pb::bundle::Bundle::Pem(_))));
    assert_eq!(stage.run("bundle add example.org absent.pem").exit, 1);
    let answer = pb::RemoveTrustAnchorResponse { seq: 95, hits: hits(4, 2, 2), connections: 3, trust_domain: Some(domain) };
    let removed = keep::<pb::RemoveTrustAnchorRequest, _>(&stage, answer);
    let digest = "ab".repeat(32);
    let ran = stage.run(&format!("bundle remove example.org --trust-anchor {digest} --reason old --confirm 4 -o json"));
    assert!(ran.stderr.contains("revoked at 95 with the roots: 4 credentials, in 2 tasks of 2 callers"), "{}", ran.stderr);
    assert_eq!(ran.json()["connections"], 3);
    assert_eq!(removed.lock().unwrap().take().unwrap().sha256.to_vec(), [0xab; 32]);
    let gone = keep::<pb::RemoveTrustDomainRequest, _>(
        &stage,
        pb::RemoveTrustDomainResponse { seq: 0, hits: hits(9, 2, 2), connections: 1 },
    );
    assert_eq!(stage.run("bundle remove example.org --dry-run").exit, 2, "a whole domain is named as such");
    let ran = stage.run("bundle remove example.org --whole-domain --dry-run");
    assert!(ran.stderr.contains("dry run, nothing was done: it would hit 9 credentials"), "{}", ran.stderr);
    assert!(gone.lock().unwrap().take().unwrap().dry_run);
}

#[test]
fn completions_and_manual_need_no_server() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = ran(program(home.path()).args(["completions", shell]), "").ok();
        assert!(script.contains("mayfly") && script.contains("revoke"), "{shell}");
    }
    assert!(ran(program(home.path()).arg("man"), "").ok().contains(".TH mayfly 1"));
    ran(program(home.path()).args(["man", "--dir", "."]), "").ok();
    assert!(home.path().join("mayfly-task-open.1").exists());
    let none = ran(program(home.path()).arg("status"), "");
    assert_eq!(none.exit, 2);
    assert!(none.stderr.contains("MAYFLY_ADDRESS"), "{}", none.stderr);
}

#[test]
fn a_context_file_says_where_the_server_is_and_a_flag_says_it_louder() {
    let stage = Stage::new();
    stage.double.on(|_: pb::WhoamiRequest| Ok(pb::WhoamiResponse { environment: "prod".to_owned(), ..Default::default() }));
    let folder = stage.folder.path().join(".config/mayfly");
    std::fs::create_dir_all(&folder).unwrap();
    let socket = stage.folder.path().join("admin.sock");
    std::fs::write(folder.join("config.toml"), format!("address = \"unix:{}\"\n", socket.display())).unwrap();
    ran(program(stage.folder.path()).arg("whoami"), "").ok();
    let ran_by_flag = ran(program(stage.folder.path()).args(["whoami", "--address", "unix:/nonexistent"]), "");
    assert_eq!(ran_by_flag.exit, 8);
    std::fs::write(folder.join("config.toml"), "adress = 1\n").unwrap();
    let refused = ran(program(stage.folder.path()).arg("whoami"), "");
    assert_eq!(refused.exit, 2);
    assert!(refused.stderr.contains("adress"), "{}", refused.stderr);
}
