//! Changes of a policy set: which of them affect who governs, and the report of a table of tests.

use crate::kit::{Case, ROLES, compile, said};
use mayfly::document::SourceFile;
use mayfly::policy::PolicySet;
use mayfly::policy::policy_tests::{self, ExpectedOutcome};
use mayfly::policy::simulation::SimulationOutcome;
use mayfly::seq::Millis;
use mayfly::upstream::access::NoConnectors;
use mayfly::upstream::registry::Upstream;

const BASE: &str = r#"
@id("work") permit (principal in Role::"a", action in Action::"Work", resource);
@id("operate") permit (principal in Role::"b", action in Action::"Admin", resource);
"#;

fn set(cedar: &str, roles: &str) -> PolicySet {
    let compiled = PolicySet::compile(vec![SourceFile::new("t.cedar", cedar)], SourceFile::new("roles.toml", roles));
    compiled.unwrap_or_else(|wrong| panic!("{}", said(&wrong)))
}

/// The changes from [`BASE`] that need a second person.
fn governs(cedar: &str, roles: &str) -> Vec<String> {
    compile(BASE).governing().differences(&set(cedar, roles).governing())
}

#[test]
fn what_governs_is_whoever_operates_and_approves_and_what_takes_approval() {
    let with = |policy: &str| governs(&format!("{BASE}{policy}"), ROLES);
    assert!(governs(BASE, ROLES).is_empty());
    assert!(governs(&BASE.replace("\n", "\n// said once more\n"), ROLES).is_empty(), "a comment means nothing");
    assert!(with("@id(\"w\") forbid (principal, action == Action::\"Exchange\", resource) when { context.renewal };").is_empty());
    assert!(with("@id(\"i\") permit (principal, action == Action::\"Introspect\", resource);").is_empty());
    for (policy, differs) in [
        ("@id(\"x\") permit (principal, action == Action::\"Observe\", resource);", "policy x"),
        ("@id(\"x\") permit (principal, action == Action::\"Approve\", resource);", "policy x"),
        ("@id(\"x\") permit (principal, action in [Action::\"Exchange\", Action::\"Lock\"], resource);", "policy x"),
        ("@id(\"x\") forbid (principal == Workload::\"spiffe://td/x\", action, resource);", "policy x"),
        (
            "@id(\"x\") forbid (principal, action == Action::\"Exchange\", resource) unless { context.approvals.count > 0 };",
            "policy x",
        ),
        (
            "@id(\"x\") forbid (principal, action == Action::\"Exchange\", resource)\n\
             unless { context.approvals.people.contains(\"spiffe://td/x\") };",
            "policy x",
        ),
    ] {
        assert_eq!(with(policy), [differs], "{policy}");
    }
    assert_eq!(governs(&BASE.replace("in Action::\"Admin\"", "== Action::\"Observe\""), ROLES), ["policy operate"]);
    assert_eq!(governs(BASE.split("@id(\"operate\")").next().unwrap(), ROLES), ["policy operate", "role b"]);
    // Who has a role that operates.
    let more =
        ROLES.replace("[role.b]\nids = ['spiffe://td/agent/b'", "[role.b]\nids = ['spiffe://td/agent/c', 'spiffe://td/agent/b'");
    assert_eq!(governs(BASE, &more), ["role b"]);
    let others = ROLES.replace("under = ['spiffe://td/agent']", "under = ['spiffe://td/agent', 'spiffe://td/more']");
    assert!(governs(BASE, &others).is_empty(), "who works is not who operates");
    // Who belongs to an environment, where a policy that governs reads the environment of a caller.
    let moved = format!("{ROLES}\n[environment.ops]\nids = ['spiffe://td/agent/z']\n");
    assert!(governs(BASE, &moved).is_empty());
    for condition in ["principal has environment && principal.environment == \"ops\"", "!(principal has environment)"] {
        let by_environment =
            format!("{BASE}@id(\"e\") permit (principal, action == Action::\"Approve\", resource) when {{ {condition} }};");
        let before = set(&by_environment, ROLES).governing();
        assert_eq!(before.differences(&set(&by_environment, &moved).governing()), ["environment ops"], "{condition}");
    }
}

fn upstream(case: &Case) -> Upstream {
    Upstream { environment: "dev".into(), ..case.upstream.clone() }
}

fn outcomes(cedar: &str, tests: &str) -> Vec<(SimulationOutcome, Option<String>)> {
    let tests = policy_tests::parse(&SourceFile::new("tests.toml", tests), Millis(1_800_000_000_000));
    let tests = tests.unwrap_or_else(|wrong| panic!("{}", said(&wrong)));
    let (set, upstream) = (compile(cedar), upstream(&Case::new(mayfly::policy::Action::ALL[0])));
    let outcome = |test: &policy_tests::PolicyTest| {
        let about = test.upstream.as_ref().map(|_| &upstream);
        let outcome = test.situation.outcome(&set, "dev", about, &NoConnectors);
        let fails = test.fails(&outcome);
        (outcome, fails)
    };
    tests.iter().map(outcome).collect()
}

#[test]
fn a_table_says_what_comes_of_everything_that_policy_reads() {
    let policy = r#"
@id("all") permit (principal, action == Action::"Exchange", resource) when {
  context.purpose == "p" && context has tool && context.tool == "t" && context has arguments_digest && context.renewal &&
  context.ttl_seconds == 90 && context.act_depth == 1 && context.act_chain.contains("spiffe://td/x") && context has subject &&
  context.subject.id == "s" && context.subject.groups.contains("g") && context.task.purpose == "tp" && context.task.owner == "o" && context.task.depth == 2 &&
  context.task.ttl_seconds == 60 && context.task.heartbeat && context.task.tools.contains("t") &&
  context.task.callers.contains("c") && context.task.upstreams.contains("u") && context has person &&
  context.person.amr.contains("mfa") && context.person has acr && context.person.acr == "2" &&
  context.counts.issued_in_task == 1 && context.counts.live_in_task == 2 && context.counts.live_of_caller == 3 &&
  context.counts.uses_in_task == 4 && context.counts.refused_uses_in_task == 5 && context.counts.authorized_in_task == 6 &&
  context.approvals.count == 1 && context has delegate && context.break_glass &&
  context.now == datetime("2026-11-21T10:00:00Z")
};
@id("see") permit (principal, action == Action::"Lock", resource) when {
  context has target_kind && context.target_kind == "task" && context has target && context.target == "x"
};
@id("use") permit (principal, action == Action::"Use", resource) when {
  context.outcome == "refused" && !context.declared && context.after_end && context.server == "s" && context.task.purpose == "p" &&
  context.counts.uses_in_task == 0
};
@id("approve") permit (principal, action == Action::"Approve", resource) when { context.caller == "spiffe://td/asker" };
"#;
    let tests = r#"
[[test]]
name = "everything"
caller = "spiffe://td/agent/a"
upstream = "billing"
purpose = "p"
tool = "t"
arguments = "{}"
kind = "jwt"
scopes = ["read"]
ttl = "90s"
renewal = true
break_glass = true
delegate = "d"
act_chain = ["spiffe://td/x"]
approvals = ["spiffe://td/y"]
now = 2026-11-21T10:00:00Z
expect = "permit"
by = ["all"]
[test.subject]
issuer = "i"
id = "s"
groups = ["g"]
[test.task]
id = "task"
purpose = "tp"
owner = "o"
depth = 2
ttl = "60s"
heartbeat = true
tools = ["t"]
callers = ["c"]
upstreams = ["u"]
[test.person]
issuer = "i"
id = "p"
amr = ["mfa"]
acr = "2"
auth_time = 2026-11-21T09:00:00Z
[test.counts]
issued_in_task = 1
live_in_task = 2
live_of_caller = 3
uses_in_task = 4
refused_uses_in_task = 5
authorized_in_task = 6

[[test]]
name = "nothing of it"
caller = "spiffe://td/agent/a"
upstream = "billing"
expect = "deny"
by = []

[[test]]
name = "an operator"
caller = "spiffe://td/agent/a"
action = "Lock"
target = { kind = "task", name = "x" }
expect = "permit"

[[test]]
name = "an approver"
caller = "spiffe://td/agent/a"
action = "Approve"
upstream = "billing"
asked_by = "spiffe://td/asker"
expect = "permit"

[[test]]
name = "a use"
caller = "spiffe://td/agent/a"
action = "Use"
upstream = "billing"
purpose = "p"
use = { outcome = "refused", declared = false, after_end = true, server = "s" }
expect = "permit"

[[test]]
name = "from elsewhere"
caller = "spiffe://td/prod/a"
upstream = "billing"
expect = "wall"

[[test]]
name = "wrong on purpose"
caller = "spiffe://td/agent/a"
upstream = "billing"
expect = "permit"
by = ["all"]
"#;
    let came = outcomes(policy, tests);
    let failed: Vec<Option<&str>> = came.iter().map(|(_, fails)| fails.as_deref()).collect();
    let last = Some("permit was expected: no policy permits it");
    assert_eq!(failed, [None, None, None, None, None, None, last], "{came:#?}");
}

#[test]
fn a_test_expects_an_approval_where_one_of_those_named_would_do() {
    let case = Case::new(mayfly::policy::Action::ALL[0]);
    let policy = r#"
@id("yes") permit (principal, action == Action::"Exchange", resource);
@id("ask") forbid (principal, action == Action::"Exchange", resource) unless { context.approvals.count >= 1 };
"#;
    let text = "[[test]]\nname = 'a'\ncaller = 'spiffe://td/agent/a'\nupstream = 'billing'\nexpect = 'approval'\n";
    let tests = policy_tests::parse(&SourceFile::new("tests.toml", text), Millis(0)).unwrap();
    let set = compile(policy);
    let nobody = Upstream { approvers: Vec::new(), ..upstream(&case) };
    let outcome = tests[0].situation.outcome(&set, "dev", Some(&nobody), &NoConnectors);
    assert_eq!(outcome, SimulationOutcome::Deny(vec!["ask".into()]), "nobody could give it");
    let id = crate::kit::id("spiffe://td/agent/b");
    let some = Upstream { approvers: vec![mayfly::upstream::registry::Approver::SpiffeId(id)], ..upstream(&case) };
    let outcome = tests[0].situation.outcome(&set, "dev", Some(&some), &NoConnectors);
    assert_eq!(outcome, SimulationOutcome::Approval(vec!["spiffe://td/agent/b".into()]));
    assert_eq!((tests[0].fails(&outcome), outcome.meets()), (None, Some(ExpectedOutcome::Approval)));
}

#[test]
fn a_test_expects_an_approval_of_a_task_too() {
    let policy = r#"
@id("yes") permit (principal, action in Action::"Work", resource);
@id("ask") forbid (principal, action in Action::"Work", resource) unless { context.approvals.count >= 1 };
"#;
    let id = crate::kit::id("spiffe://td/agent/b");
    let approvers = vec![mayfly::upstream::registry::Approver::SpiffeId(id)];
    let upstream = Upstream { approvers, ..upstream(&Case::new(mayfly::policy::Action::ALL[0])) };
    for (action, glass, expect) in [
        ("OpenTask", false, "approval"),
        ("DelegateTask", false, "approval"),
        ("ExtendTask", false, "approval"),
        ("OpenTask", true, "deny"),
    ] {
        let text = format!(
            "[[test]]\nname = 'a'\ncaller = 'spiffe://td/agent/a'\nupstream = 'billing'\naction = '{action}'\nbreak_glass = {glass}\nexpect = '{expect}'\n"
        );
        let tests = policy_tests::parse(&SourceFile::new("tests.toml", &text), Millis(0)).unwrap();
        let outcome = tests[0].situation.outcome(&compile(policy), "dev", Some(&upstream), &NoConnectors);
        assert_eq!(tests[0].fails(&outcome), None, "{action}: {outcome:?}");
    }
}
