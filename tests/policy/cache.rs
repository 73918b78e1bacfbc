//! A cached verdict equals Cedar's verdict: for every attribute, for every way of reading it, and for random sets and requests.

use crate::kit::{Case, compile, id};
use mayfly::policy::action::{Action, OperatorAction, WorkloadAction};
use mayfly::policy::{PolicySet, VerdictCache, attributes, verdict_cache};
use mayfly::upstream::access::{AccessLevel, GrantedAccess};
use mayfly::upstream::registry::{BlastRadius, Kind, Privilege, RegisteredScope};

const EXCHANGE: Action = Action::Work(WorkloadAction::Exchange);
const REVOKE: Action = Action::Admin(OperatorAction::Revoke);

type Change = fn(&mut Case);

/// For each fact: an action whose context has it, a condition on it, and a change that turns the condition from false to true. The change
/// affects no other fact, except those named in `also`, which are derived from the same value.
struct Line {
    path: &'static str,
    action: Action,
    when: &'static str,
    change: Change,
    also: &'static [&'static str],
}

fn line(path: &'static str, when: &'static str, change: Change) -> Line {
    Line { path, action: EXCHANGE, when, change, also: &[] }
}

fn access<T>(case: &mut Case, change: impl FnOnce(&mut GrantedAccess) -> T) {
    let _ = change(case.access.as_mut().expect("a case has it"));
}

fn lines() -> Vec<Line> {
    let mut lines = vec![
        line("principal", "principal == Workload::\"spiffe://td/agent/c\"", |c| c.caller = id("spiffe://td/agent/c")),
        line("principal.in", "principal in [Role::\"b\"]", |c| c.caller = id("spiffe://td/agent/b")),
        line("principal.trust_domain", "principal.trust_domain == \"other\"", |c| c.caller = id("spiffe://other/agent/a")),
        line("principal.path", "principal.path like \"*/c\"", |c| c.caller = id("spiffe://td/agent/c")),
        line("principal.environment", "principal has environment && principal.environment == \"prod\"", |c| {
            c.caller = id("spiffe://td/prod/x");
        }),
        line("resource", "resource == Upstream::\"x\"", |c| c.upstream.name = "x".into()),
        line("resource.in", "resource in Environment::\"prod\"", |c| c.upstream.environment = "prod".into()),
        line("resource.owner", "resource.owner == \"x\"", |c| c.upstream.owner = "x".into()),
        line("resource.purpose", "resource.purpose == \"x\"", |c| c.upstream.purpose = "x".into()),
        line("resource.environment", "resource.environment == \"x\"", |c| c.upstream.environment = "x".into()),
        line("resource.audience", "resource.audience == \"x\"", |c| c.upstream.audience = "x".into()),
        line("resource.system", "resource.system == \"x\"", |c| c.upstream.classification.system = "x".into()),
        line("resource.privilege", "resource.privilege == \"admin\"", |c| c.upstream.classification.privilege = Privilege::Admin),
        line("resource.blast_radius", "resource.blast_radius == \"high\"", |c| {
            c.upstream.classification.blast_radius = BlastRadius::High;
        }),
        line("resource.kinds", "resource.kinds.contains(\"ssh\")", |c| c.upstream.kinds.push(Kind::Ssh)),
        line("resource.scopes", "resource.scopes.contains(\"x\")", |c| {
            c.upstream.scopes.push(RegisteredScope { name: "x".into(), sensitive: false });
        }),
        line("resource.sensitive_scopes", "resource.sensitive_scopes.contains(\"list\")", |c| {
            c.upstream.scopes[1].sensitive = true
        }),
        line("resource.servers", "resource.servers.contains(\"spiffe://td/s\")", |c| {
            c.upstream.servers.push(id("spiffe://td/s"))
        }),
        line("context.environment", "context.environment == \"x\"", |c| c.environment = Some("x")),
        line("context.purpose", "context.purpose like \"x*\"", |c| c.purpose = "xy"),
        line("context.tool", "context has tool && context.tool != \"\"", |c| c.tool = Some("x")),
        line("context.arguments_digest", "context has arguments_digest", |c| c.digest = Some("x")),
        line("context.kind", "!(context has kind)", |c| c.kind = None),
        line("context.scopes", "context.scopes.containsAny([\"list\", \"x\"])", |c| c.scopes = vec!["list", "read"]),
        line("context.access.read_only", "context has access && context.access.read_only", |c| access(c, |a| a.levels.clear())),
        line("context.access.levels", "context has access && context.access.levels.contains(\"manage\")", |c| {
            access(c, |a| a.levels.insert(AccessLevel::Manage));
        }),
        line("context.access.host", "context has access.host && context.access.host like \"*.prod:*\"", |c| {
            access(c, |a| a.host = Some("db.prod:5432".into()));
        }),
        line("context.access.database", "context has access.database && context.access.database == \"x\"", |c| {
            access(c, |a| a.database = Some("x".into()));
        }),
        line("context.access.role_arn", "context has access.role_arn", |c| access(c, |a| a.role_arn = Some("arn:x".into()))),
        line("context.access.audience", "context has access.audience && context.access.audience == \"x\"", |c| {
            access(c, |a| a.audience = Some("x".into()));
        }),
        line("context.access.resource", "context has access.resource && context.access.resource == \"x\"", |c| {
            access(c, |a| a.resource = Some("x".into()));
        }),
        line("context.access.all_repositories", "context has access && context.access.all_repositories", |c| {
            access(c, |a| a.all_repositories = true);
        }),
        line("context.access.privileges", "context has access && context.access.privileges.contains(\"x\")", |c| {
            access(c, |a| a.privileges.insert("x".into()));
        }),
        line("context.access.objects", "context has access && context.access.objects.contains(\"x\")", |c| {
            access(c, |a| a.objects.insert("x".into()));
        }),
        line("context.access.grants", "context has access && context.access.grants.contains(\"x\")", |c| {
            access(c, |a| a.grants.insert("x".into()));
        }),
        line("context.access.roles", "context has access && context.access.roles.contains(\"x\")", |c| {
            access(c, |a| a.roles.insert("x".into()));
        }),
        line("context.access.repositories", "context has access && context.access.repositories.contains(\"x\")", |c| {
            access(c, |a| a.repositories.insert("x".into()));
        }),
        line("context.access.repository_names", "context has access && context.access.repository_names.contains(\"x\")", |c| {
            access(c, |a| a.repository_names.insert("x".into()));
        }),
        line("context.access.permissions", "context has access && context.access.permissions.contains(\"x\")", |c| {
            access(c, |a| a.permissions.insert("x".into()));
        }),
        line("context.access.upstream_scopes", "context has access && context.access.upstream_scopes.contains(\"x\")", |c| {
            access(c, |a| a.upstream_scopes.insert("x".into()));
        }),
        line("context.binding", "context has binding && context.binding != \"\"", |c| c.binding = Some("x")),
        line("context.sensitive", "context.sensitive", |c| c.upstream.scopes[0].sensitive = true),
        line("context.ttl_seconds", "context.ttl_seconds > 300", |c| c.ttl = 301),
        line("context.renewal", "context.renewal", |c| c.renewal = true),
        line("context.break_glass", "context.break_glass", |c| c.break_glass = true),
        line("context.delegate", "context has delegate", |c| c.delegate = Some("spiffe://td/x")),
        line("context.act_chain", "context.act_chain.contains(\"spiffe://td/x\")", |c| c.chain = vec!["spiffe://td/x"]),
        line("context.act_depth", "context.act_depth == 1", |c| c.chain = vec!["spiffe://td/x"]),
        line("context.subject.issuer", "context has subject && context.subject.issuer == \"i\"", |c| {
            c.subject = Some(("i", "x", vec![]))
        }),
        line("context.subject.id", "context has subject.id && context.subject.id == \"x\"", |c| {
            c.subject = Some(("i", "x", vec![]))
        }),
        line("context.subject.groups", "context has subject && context.subject.groups.contains(\"g\")", |c| {
            c.subject = Some(("i", "x", vec!["g"]))
        }),
        line("context.task.id", "context.task has id", |c| c.task_id = Some("task_x")),
        line("context.task.purpose", "context.task.purpose == \"x\"", |c| c.task_texts[0] = "x"),
        line("context.task.owner", "context.task.owner == \"x\"", |c| c.task_texts[1] = "x"),
        line("context.task.environment", "context.task.environment == \"x\"", |c| c.task_texts[2] = "x"),
        line("context.task.depth", "context.task.depth > 0", |c| c.task_longs[0] = 1),
        line("context.task.ttl_seconds", "context.task[\"ttl_seconds\"] > 600", |c| c.task_longs[1] = 601),
        line("context.task.heartbeat", "context.task.heartbeat", |c| c.task_heartbeat = true),
        line("context.task.upstreams", "context.task.upstreams.contains(\"x\")", |c| c.task_lists[0] = vec!["x"]),
        line("context.task.tools", "!context.task.tools.isEmpty()", |c| c.task_lists[1] = vec!["x"]),
        line("context.task.callers", "context.task.callers == [\"x\"]", |c| c.task_lists[2] = vec!["x", "x"]),
        line("context.person.issuer", "context has person && context.person.issuer == \"i\"", |c| {
            c.person = Some(("i", "x", vec![], None, 0));
        }),
        line("context.person.id", "context has person && context.person.id == \"x\"", |c| {
            c.person = Some(("i", "x", vec![], None, 0))
        }),
        line("context.person.amr", "context has person && context.person.amr.contains(\"mfa\")", |c| {
            c.person = Some(("i", "x", vec!["mfa"], None, 0));
        }),
        line("context.person.acr", "context has person.acr", |c| c.person = Some(("i", "x", vec![], Some("high"), 0))),
        line("context.person.auth_time", "context has person && context.person.auth_time > datetime(\"2020-01-01\")", |c| {
            c.person = Some(("i", "x", vec![], None, 1_700_000_000_000));
        }),
        line("context.job.issuer", "context has job && context.job.issuer == \"i\"", |c| c.job = Some((["i", "r", "1"], vec![]))),
        line("context.job.rule", "context has job && context.job.rule == \"r\"", |c| c.job = Some((["i", "r", "1"], vec![]))),
        line("context.job.id", "context has job && context.job.id == \"1\"", |c| c.job = Some((["i", "r", "1"], vec![]))),
        line("context.job.claims", "context has job && context.job.claims.contains(\"ref=x\")", |c| {
            c.job = Some((["i", "r", "1"], vec!["ref=x"]));
        }),
        line("context.caller", "context.caller == \"x\"", |c| c.asker = "x"),
        line("context.outcome", "context.outcome == \"refused\"", |c| c.used.0 = "refused"),
        line("context.declared", "!context.declared", |c| c.used.1 = false),
        line("context.after_end", "context.after_end", |c| c.used.2 = true),
        line("context.server", "context.server == \"x\"", |c| c.used.3 = "x"),
        line("context.target_kind", "context has target_kind", |c| c.target[0] = Some("x")),
        line("context.target", "context has target && context.target == \"x\"", |c| c.target[1] = Some("x")),
    ];
    for line in &mut lines {
        if line.path.starts_with("context.target") {
            line.action = REVOKE;
        }
        if ["context.outcome", "context.declared", "context.after_end", "context.server"].contains(&line.path) {
            line.action = Action::Use;
        }
        if line.path == "context.caller" {
            line.action = Action::Approve;
        }
        // `has person` asks for each part, because any part may be the only one.
        if line.path.starts_with("context.person") {
            line.also = &[
                "context.person.issuer",
                "context.person.id",
                "context.person.amr",
                "context.person.acr",
                "context.person.auth_time",
            ];
        }
        if line.path.starts_with("context.job") {
            line.action = Action::SignIn;
            line.also = &["context.job.issuer", "context.job.rule", "context.job.id", "context.job.claims"];
        }
        if line.path == "context.access.read_only" {
            line.also = &["context.access.levels"];
        }
        if line.path.starts_with("context.subject") {
            line.also = &["context.subject.issuer", "context.subject.id", "context.subject.groups"];
        }
    }
    lines
}

fn verdict_and_key(set: &PolicySet, case: &Case, drop: &[&str]) -> (bool, Vec<u8>) {
    case.with(|question| {
        let reads = drop.iter().fold(set.reads(question.action()).clone(), |reads, path| reads.without(path));
        (set.verdict(question).permits(), verdict_cache::key(set, &reads, question))
    })
}

#[test]
fn each_attribute_that_is_read_is_needed_in_the_key() {
    let tried: Vec<&str> = lines().iter().map(|l| l.path).collect();
    for fact in attributes::all().filter(|f| !f.volatile) {
        assert!(tried.contains(&fact.path), "no line for {}", fact.path);
    }
    for line in lines() {
        let name = line.action.name();
        let set = compile(&format!("permit (principal, action == Action::\"{name}\", resource) when {{ {} }};", line.when));
        let before = Case::new(line.action);
        let mut after = before.clone();
        (line.change)(&mut after);
        let (said_before, key_before) = verdict_and_key(&set, &before, &[]);
        let (said_after, key_after) = verdict_and_key(&set, &after, &[]);
        assert_eq!((said_before, said_after), (false, true), "{}", line.when);
        assert_ne!(key_before, key_after, "{}", line.when);
        // A naive key without this fact would give one of the two the verdict of the other.
        let drop: Vec<&str> = [line.path].iter().chain(line.also).copied().collect();
        assert!(set.reads(line.action).cacheable(), "{}", line.when);
        assert_eq!(verdict_and_key(&set, &before, &drop).1, verdict_and_key(&set, &after, &drop).1, "{}", line.when);
    }
}

#[test]
fn the_cache_answers_each_of_two_questions_with_its_own_verdict() {
    for line in lines() {
        let name = line.action.name();
        let set = compile(&format!("permit (principal, action == Action::\"{name}\", resource) when {{ {} }};", line.when));
        let verdicts = VerdictCache::new(1 << 20);
        let before = Case::new(line.action);
        let mut after = before.clone();
        (line.change)(&mut after);
        for _ in 0..2 {
            assert!(!before.with(|q| verdicts.verdict(&set, q).permits()), "{}", line.when);
            assert!(after.with(|q| verdicts.verdict(&set, q).permits()), "{}", line.when);
        }
        let counts = verdicts.counts();
        assert_eq!((counts.hits, counts.misses, counts.not_cacheable), (2, 2, 0), "{}", line.when);
    }
}

#[test]
fn what_moves_by_itself_is_asked_each_time() {
    for when in [
        "context.now > datetime(\"2020-01-01\")",
        "context.counts.issued_in_task < 3",
        "context.approvals.count > 0",
        "context.approvals.people.contains(\"x\")",
        "context has counts.live_in_task && context.counts.live_in_task == 0",
        "context.counts == context.counts",
        "context == context",
        "(if context.renewal then context else context).purpose == \"p\"",
        "{a: context.approvals}.a.count == 1",
        "context.purpose == \"never\" && context.counts.uses_in_task > 1",
        "context.counts.refused_uses_in_task > 1",
        "context.counts.authorized_in_task > 1",
    ] {
        let set = compile(&format!("permit (principal, action == Action::\"Exchange\", resource) when {{ {when} }};"));
        assert!(!set.reads(EXCHANGE).cacheable(), "{when}");
        // Another action that the policy cannot apply to is cached nevertheless.
        assert!(set.reads(Action::Work(WorkloadAction::OpenTask)).cacheable(), "{when}");
        let verdicts = VerdictCache::new(1 << 20);
        Case::new(EXCHANGE).with(|q| [verdicts.verdict(&set, q), verdicts.verdict(&set, q)]);
        assert_eq!(verdicts.counts().not_cacheable, 2, "{when}");
    }
}

#[test]
fn reads_are_exactly_what_is_read() {
    let reads = |policy: &str| {
        let set = compile(policy);
        let paths: Vec<String> =
            set.reads(EXCHANGE).paths().map(|(p, value)| format!("{p}{}", if value { "" } else { "?" })).collect();
        paths.join(" ")
    };
    let scope = |scope: &str| reads(&format!("permit ({scope});"));
    let when = |when: &str| reads(&format!("permit (principal, action == Action::\"Exchange\", resource) when {{ {when} }};"));
    assert_eq!(scope("principal, action, resource"), "");
    assert_eq!(scope("principal is Workload, action, resource is Upstream"), "");
    assert_eq!(scope("principal in Role::\"a\", action, resource in Environment::\"dev\""), "principal.in resource.in");
    assert_eq!(scope("principal is Workload in Role::\"a\", action, resource"), "principal.in");
    assert_eq!(scope("principal, action, resource == Upstream::\"x\""), "resource");
    assert_eq!(scope("principal in Workload::\"spiffe://td/a\", action, resource"), "principal principal.in");
    assert_eq!(scope("principal in Role::\"a\", action == Action::\"Revoke\", resource"), "");
    assert_eq!(scope("principal in Role::\"a\", action in [Action::\"Admin\", Action::\"Work\"], resource"), "principal.in");
    assert_eq!(when("principal in [Role::\"a\", Role::\"b\"]"), "principal.in");
    assert_eq!(when("principal is Workload in Role::\"a\""), "principal.in");
    assert_eq!(when("context has tool"), "context.tool?");
    assert_eq!(when("context has tool && context.tool like \"a*\""), "context.tool");
    assert_eq!(when("context has nothing_like_it"), "");
    assert_eq!(when("context.task.purpose == resource.purpose"), "context.task.purpose resource.purpose");
    assert_eq!(when("action == Action::\"Exchange\" && action in Action::\"Work\""), "");
    assert_eq!(when("context has subject"), "context.subject.groups? context.subject.id? context.subject.issuer?");
    assert_eq!(when("[\"a\", context.purpose].contains(resource.owner)"), "context.purpose resource.owner");
    assert_eq!(
        when("{a: context.tool_is, b: 1} == {a: true, b: 1}".replace("context.tool_is", "context.renewal").as_str()),
        "context.renewal"
    );
    let whole = when("(if context.renewal then resource else resource).owner == \"x\"");
    assert!(
        whole.contains("context.renewal") && whole.contains("resource.owner") && whole.contains("resource.servers"),
        "{whole}"
    );
    let record = when("context.task == context.task");
    assert!(record.contains("context.task.id") && record.contains("context.task.callers") && !record.contains("context.purpose"));
}

#[test]
fn sets_do_not_share_verdicts_and_order_in_a_list_does_not_count() {
    let verdicts = VerdictCache::new(1 << 20);
    let (yes, no) = (compile("permit (principal, action, resource);"), compile("forbid (principal, action, resource);"));
    let case = Case::new(EXCHANGE);
    for _ in 0..2 {
        assert!(case.with(|q| verdicts.verdict(&yes, q).permits()));
        assert!(!case.with(|q| verdicts.verdict(&no, q).permits()));
    }
    let set = compile("permit (principal, action == Action::\"Exchange\", resource) when { context.scopes.contains(\"read\") };");
    let (mut one, mut two) = (case.clone(), case);
    (one.scopes, two.scopes) = (vec!["read", "list"], vec!["list", "read", "list"]);
    assert_eq!(verdict_and_key(&set, &one, &[]), verdict_and_key(&set, &two, &[]));
}

#[test]
fn a_key_above_the_limit_is_not_kept_and_an_engine_error_neither() {
    let verdicts = VerdictCache::new(1 << 20);
    let set = compile("permit (principal, action == Action::\"Exchange\", resource) when { context.purpose != \"x\" };");
    let mut long = Case::new(EXCHANGE);
    long.purpose = Box::leak("y".repeat(mayfly::limits::VERDICT_KEY_BYTES).into_boxed_str());
    let error = compile("permit (principal, action == Action::\"Exchange\", resource) when { context.ttl_seconds * 9 > 5 };");
    let mut broken = Case::new(EXCHANGE);
    broken.ttl = i64::MAX;
    for _ in 0..2 {
        assert!(long.with(|q| verdicts.verdict(&set, q).permits()));
        assert!(!broken.with(|q| verdicts.verdict(&error, q).permits()));
    }
    assert_eq!((verdicts.counts().hits, verdicts.counts().misses), (0, 4));
}
