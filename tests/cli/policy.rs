//! `mayfly policy`: sets validated and tested offline, compared, explained and put in effect: arguments, requests, confirmations and
//! output.

use std::fs;
use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;

use crate::answers::{at, hits};
use crate::double::Stage;
use crate::refusals::refusal;

const POLICY: &str = include_str!("../../src/cli/samples/policy.cedar");
const ROLES: &str = include_str!("../../src/cli/samples/roles.toml");
const TESTS: &str = include_str!("../../src/cli/samples/tests.toml");
const ECHO: &str = include_str!("../../src/cli/samples/upstreams/echo.toml");

fn in_force() -> pb::PolicySet {
    let file = |name: &str, text: &str| pb::PolicyFile { name: name.into(), text: text.into() };
    pb::PolicySet {
        environment: "dev".into(),
        version: 3,
        mode: pb::PolicyMode::Enforce.into(),
        files: Some(pb::PolicyFiles { policies: vec![file("policy.cedar", POLICY)], roles: Some(file("roles.toml", ROLES)) }),
        at: at(0),
        seq: 9,
        ..Default::default()
    }
}

fn stage() -> Stage {
    let stage = Stage::new();
    let dir = stage.folder.path();
    fs::create_dir_all(dir.join("policy/upstreams")).unwrap();
    fs::write(dir.join("policy/policy.cedar"), POLICY).unwrap();
    fs::write(dir.join("policy/roles.toml"), ROLES).unwrap();
    fs::write(dir.join("policy/tests.toml"), TESTS).unwrap();
    fs::write(dir.join("policy/upstreams/echo.toml"), ECHO).unwrap();
    stage
}

const HERE: &str = "policy/policy.cedar --roles policy/roles.toml --upstreams policy/upstreams";

#[test]
fn a_table_of_tests_runs_without_a_server() {
    let stage = stage();
    let ran = stage.run(&format!("policy test policy/tests.toml {HERE} -o json"));
    assert_eq!(ran.exit, 0, "{ran:?}");
    let json = ran.json();
    let rows = json.as_array().unwrap();
    assert!(rows.len() >= 8 && rows.iter().all(|row| row["passed"] == true), "{json}");
    assert!(ran.stderr.contains(&format!("{} passed, 0 failed", rows.len())), "{}", ran.stderr);
    let wrong =
        TESTS.replacen("expect = \"permit\"", "expect = \"deny\"", 1).replacen("[\"demo-agent\"]", "[\"short-chains\"]", 1);
    fs::write(stage.folder.path().join("policy/tests.toml"), wrong).unwrap();
    let ran = stage.run(&format!("policy test policy/tests.toml {HERE} -o wide"));
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert!(ran.stdout.contains("deny was expected: permitted by demo-agent"), "{}", ran.stdout);
    assert!(ran.stderr.contains("1 failed"), "{}", ran.stderr);
}

#[test]
fn what_is_wrong_with_a_table_is_told_with_its_lines() {
    let stage = stage();
    let cases = [
        ("expect = \"permit\"", "expect = \"maybe\"", "tests.toml:8", "one of permit, deny, approval, wall"),
        ("upstream = \"echo\"", "upstraem = \"echo\"", "upstraem", "did you mean upstream?"),
        ("caller = \"spiffe://dev.mayfly.internal/agent/demo\"", "caller = \"demo\"", "tests.toml:5", "spiffe://"),
        ("ttl = \"5m\"", "ttl = \"5 minutes\"", "tests.toml", "5m"),
        ("arguments = '{\"older_than\": \"30d\"}'", "arguments = '{'", "is no JSON", ""),
        ("by = [\"demo-agent\"]", "by = \"demo-agent\"", "tests.toml:9", "give a list"),
    ];
    for (right, wrong, place, remedy) in cases {
        fs::write(stage.folder.path().join("policy/tests.toml"), TESTS.replacen(right, wrong, 1)).unwrap();
        let ran = stage.run(&format!("policy test policy/tests.toml {HERE}"));
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{wrong}: {ran:?}");
        assert!(ran.stderr.contains(place) && ran.stderr.contains(remedy), "{wrong}: {}", ran.stderr);
    }
    fs::write(stage.folder.path().join("policy/tests.toml"), TESTS.replace("upstream = \"echo\"", "upstream = \"gone\""))
        .unwrap();
    let ran = stage.run(&format!("policy test policy/tests.toml {HERE}"));
    assert!(ran.exit == 2 && ran.stderr.contains("there is no upstream gone"), "{ran:?}");
}

#[test]
fn a_set_is_checked_here_or_by_the_server() {
    let stage = stage();
    let ran = stage.run("policy validate policy --roles policy/roles.toml -o json");
    assert!(ran.exit == 0 && ran.json()["policies"].as_array().unwrap().iter().any(|p| p == "demo-agent"), "{ran:?}");
    assert!(!ran.stderr.contains("nobody may"), "{}", ran.stderr);
    let unattended = POLICY.replace("action in Action::\"Admin\"", "action == Action::\"Observe\"");
    fs::write(stage.folder.path().join("policy/policy.cedar"), unattended).unwrap();
    let ran = stage.run("policy validate policy --roles policy/roles.toml");
    assert!(ran.exit == 0 && ran.stderr.contains("warning: policies"), "{ran:?}");
    assert!(ran.stderr.contains("nobody may do ManagePolicy, Revoke or Lock"), "{}", ran.stderr);
    fs::write(stage.folder.path().join("policy/policy.cedar"), POLICY.replace("context.sensitive", "context.senstive")).unwrap();
    let ran = stage.run("policy validate policy --roles policy/roles.toml");
    assert!(ran.exit == 2 && ran.stderr.contains("policy.cedar:"), "{ran:?}");
    stage.double.on(|q: pb::ValidatePolicyRequest| {
        assert_eq!(q.environment, "dev");
        let wrong = pb::FieldViolation { field: "policy.cedar:3:1".into(), description: "no such attribute".into() };
        let governs = vec!["role operator".into()];
        Ok(pb::ValidatePolicyResponse { violations: vec![wrong], governs, ..Default::default() })
    });
    let ran = stage.run("policy validate policy --environment dev");
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert!(ran.stderr.contains("policy.cedar:3:1: no such attribute"), "{}", ran.stderr);
    assert!(ran.stderr.contains("takes a second operator, since it changes role operator"), "{}", ran.stderr);
    assert_eq!(stage.run("policy validate policy").exit, 2, "checked here, with the roles beside it");
    assert_eq!(stage.run("policy validate policy/policy.cedar").exit, 2, "neither roles nor a server");
    fs::write(stage.folder.path().join("policy/policy.cedar"), POLICY).unwrap();
    stage.run("policy validate policy").ok();
    // A file that is named twice is reported, whether the roles file is named or found.
    for twice in ["policy policy", "policy policy/policy.cedar", "policy policy/../policy --roles policy/roles.toml"] {
        let ran = stage.run(&format!("policy validate {twice}"));
        assert!(ran.exit == 2 && ran.stderr.contains("named twice"), "{twice}: {ran:?}");
    }
    let ran = stage.run("policy validate nowhere --roles policy/roles.toml");
    assert!(ran.exit == 2 && ran.stderr.contains("nowhere: cannot be read: No such file"), "{ran:?}");
    assert!(!ran.stderr.contains("readable"), "{}", ran.stderr);
}

#[test]
fn a_set_is_put_in_force_with_what_differs_and_what_it_revokes() {
    let stage = stage();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keeps = seen.clone();
    stage.double.on(|q: pb::GetPolicyRequest| match q.mode() {
        pb::PolicyMode::Audit => Err(refusal(Reason::NotFound, "there is none", &[])),
        _ => Ok(pb::GetPolicyResponse { policy: Some(in_force()) }),
    });
    stage.double.on(move |q: pb::SetPolicyRequest| {
        keeps.lock().unwrap().push(q.clone());
        if !q.dry_run && q.confirmation.unwrap_or_default().credentials < 12 {
            return Err(refusal(Reason::ConfirmNeeded, "this would revoke 12", &[]));
        }
        let files = q.set.and_then(|s| match s.from {
            Some(pb::policy_source::From::Files(files)) => Some(files),
            _ => None,
        });
        let policy = pb::PolicySet { version: q.read_version + 1, files, ..in_force() };
        Ok(pb::SetPolicyResponse { policy: Some(policy), hits: hits(12, 3, 1), beyond: 2, governs: vec!["mode".into()] })
    });
    fs::write(stage.folder.path().join("policy/policy.cedar"), format!("{POLICY}\n// one more line\n")).unwrap();
    let set = "policy set dev policy --roles policy/roles.toml --reason test";
    let ran = stage.run(set);
    assert!(ran.exit == 2 && ran.stderr.contains("`--confirm 12`"), "{ran:?}");
    let ran = stage.run(&format!("{set} --confirm 12 -o json"));
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stderr.contains("+// one more line") && ran.stderr.contains("--- policy.cedar"), "{}", ran.stderr);
    assert!(ran.stderr.contains("revoked 12 credentials") && ran.stderr.contains("it changes mode"), "{}", ran.stderr);
    assert_eq!((&ran.json()["version"], &ran.json()["beyond"]), (&4.into(), &2.into()));
    let sent = seen.lock().unwrap().pop().unwrap();
    assert_eq!((sent.read_version, sent.mode(), sent.reason.as_str()), (3, pb::PolicyMode::Enforce, "test"));
    stage.run("policy set dev --version 2 --reason back --confirm 12").ok();
    let sent = seen.lock().unwrap().pop().unwrap();
    assert_eq!(sent.set.unwrap().from, Some(pb::policy_source::From::Version(2)));
    stage.run("policy set dev policy --audit --reason watch --confirm 12").ok();
    let sent = seen.lock().unwrap().pop().unwrap();
    assert_eq!((sent.read_version, sent.mode()), (0, pb::PolicyMode::Audit));
    let Some(pb::policy_source::From::Files(files)) = sent.set.unwrap().from else { panic!("files") };
    assert_eq!(files.roles.unwrap().text, ROLES, "what `policy show --to` writes is what `policy set` reads");
    stage.run("policy set dev policy/policy.cedar --reason test --confirm 12").ok();
    let sent = seen.lock().unwrap().pop().unwrap();
    let Some(pb::policy_source::From::Files(files)) = sent.set.unwrap().from else { panic!("files") };
    assert_eq!(files.roles, None, "a file says nothing of roles");
    fs::create_dir(stage.folder.path().join("other")).unwrap();
    fs::write(stage.folder.path().join("other/roles.toml"), ROLES).unwrap();
    let ran = stage.run("policy set dev policy other --reason test");
    assert!(ran.exit == 2 && ran.stderr.contains("policy/roles.toml, other/roles.toml"), "{ran:?}");
    stage.run("policy mode dev enforce --reason seen --confirm 12").ok();
    let sent = seen.lock().unwrap().pop().unwrap();
    assert_eq!(sent.set.unwrap().from, Some(pb::policy_source::From::Audited(true)));
    stage.run("policy mode dev off --reason done --confirm 12").ok();
    let sent = seen.lock().unwrap().pop().unwrap();
    assert!(sent.set.is_none() && sent.mode() == pb::PolicyMode::Audit);
    assert_eq!(stage.run("policy set dev --reason nothing").exit, 2, "no set was named");
    assert_eq!(stage.run("policy set dev policy").exit, 2, "no reason");
}

#[test]
fn decisions_that_would_differ_are_findings() {
    let stage = stage();
    stage.double.on(|q: pb::DiffPolicyRequest| {
        let differs = pb::DecisionDiff {
            seq: 77,
            caller: "spiffe://dev/agent/\u{1b}[31mred".into(),
            upstream: "echo".into(),
            scopes: vec!["echo:write".into()],
            permitted: true,
            now: "forbidden by x".into(),
            ..Default::default()
        };
        let some = u64::from(q.environment == "dev");
        let samples = if some > 0 { vec![differs] } else { Vec::new() };
        Ok(pb::DiffPolicyResponse { decisions: 5, newly_refused: some, samples, ..Default::default() })
    });
    let ran = stage.run("policy diff dev policy --since 2h");
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert!(ran.stdout.contains("forbidden by x") && !ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("5 recorded requests decided again: 1 permitted before would be refused, 0 refused before"),
        "{}",
        ran.stderr
    );
    assert_eq!(stage.run("policy diff prod policy").exit, 0);
}

#[test]
fn a_request_is_explained_and_a_set_is_shown_and_written() {
    let stage = stage();
    stage.double.on(|_: pb::GetPolicyRequest| Ok(pb::GetPolicyResponse { policy: Some(in_force()) }));
    stage.double.on(|q: pb::ExplainPolicyRequest| {
        let s = q.situation.unwrap();
        assert_eq!((s.action.as_str(), s.upstream.as_str(), s.ttl.unwrap().seconds), ("Exchange", "echo", 300));
        let text = "no policy permits it".to_owned();
        Ok(pb::ExplainPolicyResponse { outcome: pb::PolicyOutcome::Deny.into(), text, ..Default::default() })
    });
    let ran = stage.run("policy explain dev --caller spiffe://a/b --upstream echo --scope echo:read --ttl 5m -o json");
    assert!(ran.json()["outcome"] == "deny" && ran.stderr.contains("no policy permits it"), "{ran:?}");
    assert_eq!(stage.run("policy show dev -o name").ok(), "dev/3\n");
    let shown = stage.run("policy show dev").ok();
    for file in [("policy.cedar", POLICY), ("roles.toml", ROLES)] {
        assert!(shown.contains(&format!("\n\n# ---- {}\n{}", file.0, file.1.lines().next().unwrap())), "{shown}");
    }
    assert!(!shown.contains("\\n"), "{shown}");
    let ran = stage.run("policy show dev --to out");
    assert!(ran.exit == 0 && ran.stderr.contains("mayfly policy set dev out --reason TEXT"), "{ran:?}");
    assert_eq!(fs::read_to_string(stage.folder.path().join("out/policy.cedar")).unwrap(), POLICY);
    let ran = stage.run("policy show dev --to out");
    assert_eq!(ran.exit, 1, "nothing is written over");
    assert!(ran.stderr.contains("out/policy.cedar: this file exists already"), "{}", ran.stderr);
    stage.double.on(|_: pb::GetPolicyRequest| {
        let file = pb::PolicyFile { name: "../escape.cedar".into(), text: String::new() };
        let files = Some(pb::PolicyFiles { policies: vec![file], roles: None });
        Ok(pb::GetPolicyResponse { policy: Some(pb::PolicySet { files, ..in_force() }) })
    });
    assert_eq!(stage.run("policy show dev --to elsewhere").exit, 1);
    assert!(!stage.folder.path().join("escape.cedar").exists());
}
