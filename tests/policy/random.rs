//! Random policy sets and random sequences of requests. Cached verdicts, and verdicts of Cedar over a slice of the policies, equal those
//! over all policies and all attributes.

use std::collections::BTreeSet;

use crate::kit::{Case, access, compile, id};
use mayfly::policy::{Action, VerdictCache, WorkloadAction};
use mayfly::upstream::access::{AccessLevel, GrantedAccess};
use mayfly::upstream::registry::Kind;
use proptest::prelude::*;

const EXCHANGE: Action = Action::Work(WorkloadAction::Exchange);

/// Boolean expressions, with atoms over every kind of attribute and values from small domains, so that they often match.
fn atom() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "principal in Role::\"a\"",
        "principal in [Role::\"a\", Role::\"b\"]",
        "principal == Workload::\"spiffe://td/agent/b\"",
        "principal != Workload::\"spiffe://td/agent/b\"",
        "principal in Workload::\"spiffe://td/agent/b\"",
        "principal.path like \"*/b\"",
        "principal.trust_domain == \"td\"",
        "principal has environment",
        "(principal has environment && principal.environment == resource.environment)",
        "principal is Workload in Role::\"b\"",
        "resource in Environment::\"prod\"",
        "resource == Upstream::\"x\"",
        "(if context.renewal then resource else Upstream::\"x\") == resource",
        "[resource, Upstream::\"x\"].contains(resource)",
        "resource.owner == context.purpose",
        "resource.scopes.containsAll(context.scopes)",
        "resource.sensitive_scopes.containsAny(context.scopes)",
        "resource.kinds.contains(\"ssh\")",
        "(context has kind && resource.kinds.contains(context.kind))",
        "context has tool",
        "(context has tool && context.tool like \"x*\")",
        "(context has tool && [\"x\", \"z\"].contains(context.tool))",
        "context has arguments_digest",
        "context.scopes == [\"read\"]",
        "context.scopes.isEmpty()",
        "context.sensitive",
        "(context.ttl_seconds + context.task.ttl_seconds < 1000)",
        "context.ttl_seconds * 4611686018427387904 > 0",
        "context.renewal == context.break_glass",
        "context.act_chain.contains(principal.path)",
        "context.act_depth >= context.task.depth",
        "context has subject",
        "(context has subject && context.subject == {issuer: \"i\", id: \"x\", groups: [\"g\"]})",
        "(context has subject && context.subject.groups.containsAny(context.scopes))",
        "context has subject.id",
        "(context has person.acr && context.person.acr == \"x\")",
        "(context has person && context.person.amr.contains(\"x\"))",
        "context.task == context.task",
        "context.task has id",
        "(context.task has id && context.task.id == \"x\")",
        "{a: context.task, b: context.purpose}.a.owner == \"x\"",
        "(if context.sensitive then context.task else context.task).heartbeat",
        "[context.purpose, context.task.owner].contains(\"x\")",
        "context.task.tools == context.scopes",
        "context has access",
        "(context has access && context.access.read_only)",
        "(context has access && [\"read\"].containsAll(context.access.levels))",
        "context has access.database",
        "(context has access.database && context.access.database like \"x*\")",
        "(context has access && context.access.grants.contains(\"x\"))",
        "(context has access && context.access.privileges == context.scopes)",
        "(context has access && context.access.permissions.containsAny([\"x\", \"y\"]))",
        "(context has access && {a: context.access}.a.all_repositories)",
        "(context has access && context.access == context.access)",
        "(context has access.role_arn && context.access.role_arn == context.purpose)",
        "context.counts.issued_in_task > 0",
        "context.approvals.count == 0",
        "context.now < datetime(\"2027-01-15T08:00:00Z\")",
        "context == context",
        "context.environment == resource.environment",
    ])
    .prop_map(str::to_owned)
}

fn expression() -> impl Strategy<Value = String> {
    atom().prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
        ]
    })
}

/// Conditions on roles and the resource only, including one that fails because a Long overflows.
fn first() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "true",
        "resource.owner == \"x\" &&",
        "resource.kinds.contains(\"ssh\") &&",
        "resource in Environment::\"prod\" && principal in Role::\"b\" &&",
        "!(principal in Role::\"a\") &&",
        "(principal has environment && principal.environment == resource.environment) &&",
        "(if resource.owner == \"y\" then resource == Upstream::\"y\" else principal in Role::\"b\") &&",
        "(resource.owner == \"p\" || 9223372036854775807 + 1 > 0) &&",
        "principal == Workload::\"spiffe://td/agent/b\" &&",
        "context.ttl_seconds * 4611686018427387904 > 0 && resource.owner == \"p\" &&",
    ])
    .prop_map(|text| text.strip_prefix("true").unwrap_or(text))
}

fn policies() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        "principal in Role::\"b\"",
        "principal == Workload::\"spiffe://td/agent/b\"",
        "principal in Workload::\"spiffe://td/agent/b\"",
        "principal is Workload",
        "principal is Workload in Role::\"a\"",
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        "resource == Upstream::\"x\"",
        "resource in Environment::\"prod\"",
        "resource in Upstream::\"y\"",
        "resource is Upstream",
        "resource is Upstream in Environment::\"dev\"",
    ]);
    let action = prop::sample::select(vec![
        "action == Action::\"Exchange\"",
        "action in Action::\"Work\"",
        "action == Action::\"OpenTask\"",
    ]);
    let effect = prop::sample::select(vec!["permit", "permit", "forbid"]);
    let clause = prop::sample::select(vec!["when", "when", "unless"]);
    let clause_too = clause.clone();
    let policy =
        (effect, principal, action, resource, first(), clause, expression(), prop::option::of((clause_too, expression())))
            .prop_map(|(effect, p, a, r, first, clause, e, more)| {
                let more = more.map(|(clause, e)| format!(" {clause} {{ {e} }}")).unwrap_or_default();
                format!("{effect} ({p}, {a}, {r}) {clause} {{ {first} {e} }}{more};\n")
            });
    let base = prop::sample::select(vec!["", "permit (principal, action, resource);\n"]);
    (base, prop::collection::vec(policy, 1..6)).prop_map(|(base, list)| format!("{base}{}", list.concat()))
}

/// Changes the access of a case that has one.
fn changed(case: &mut Case, change: impl FnOnce(&mut GrantedAccess)) {
    if let Some(access) = &mut case.access {
        change(access);
    }
}

fn texts(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Changes that set a value to one of three, 0 to 2, for each part of a request.
const CHANGES: &[fn(&mut Case, usize)] = &[
    |c, v| c.caller = [id("spiffe://td/agent/a"), id("spiffe://td/agent/b"), id("spiffe://other/x")][v].clone(),
    |c, v| c.upstream.name = ["x", "y", "z"][v].into(),
    |c, v| c.upstream.environment = ["dev", "prod", "x"][v].into(),
    |c, v| c.upstream.owner = ["p", "x", "y"][v].into(),
    |c, v| c.upstream.kinds = [vec![], vec![Kind::Jwt], vec![Kind::Ssh]][v].clone(),
    |c, v| c.upstream.scopes.iter_mut().for_each(|s| s.sensitive = [false, true, s.name == "read"][v]),
    |c, v| c.upstream.scopes.truncate(v + 1),
    |c, v| c.environment = Some(["dev", "prod", "x"][v]),
    |c, v| c.purpose = ["p", "x", "y"][v],
    |c, v| c.tool = [None, Some("x"), Some("y")][v],
    |c, v| c.digest = [None, Some("x"), Some("y")][v],
    |c, v| c.kind = [None, Some(Kind::Jwt), Some(Kind::Ssh)][v],
    |c, v| c.scopes = [vec![], vec!["read"], vec!["list", "read"]][v].clone(),
    |c, v| c.access = [None, Some(access()), Some(GrantedAccess::default())][v].clone(),
    |c, v| changed(c, |a| a.levels = [vec![], vec![AccessLevel::Read], vec![AccessLevel::Write]][v].iter().copied().collect()),
    |c, v| changed(c, |a| a.database = [None, Some("xy"), Some("y")][v].map(str::to_owned)),
    |c, v| changed(c, |a| a.grants = texts([&[][..], &["x"], &["x", "y"]][v])),
    |c, v| changed(c, |a| a.privileges = texts([&[][..], &["read"], &["list", "read"]][v])),
    |c, v| changed(c, |a| a.permissions = texts([&[][..], &["y"], &["z"]][v])),
    |c, v| changed(c, |a| a.role_arn = [None, Some("x"), Some("p")][v].map(str::to_owned)),
    |c, v| changed(c, |a| a.all_repositories = v == 1),
    |c, v| c.binding = [None, Some("x"), Some("y")][v],
    |c, v| c.ttl = [0, 2, 900][v],
    |c, v| c.renewal = v == 1,
    |c, v| c.break_glass = v == 1,
    |c, v| c.chain = [vec![], vec!["/agent/b"], vec!["/x", "/agent/a"]][v].clone(),
    |c, v| c.subject = [None, Some(("i", "x", vec!["g"])), Some(("i", "y", vec!["read"]))][v].clone(),
    |c, v| c.task_id = [None, Some("x"), Some("y")][v],
    |c, v| c.task_texts = [["p", "x", "dev"], ["x", "y", "prod"], ["y", "x", "x"]][v],
    |c, v| c.task_longs = [[0, 600], [1, 600], [1, 900]][v],
    |c, v| c.task_heartbeat = v == 1,
    |c, v| c.task_lists[1] = [vec![], vec!["read"], vec!["x"]][v].clone(),
    |c, v| c.person = [None, Some(("i", "x", vec!["x"], None, 0)), Some(("i", "x", vec![], Some("x"), 0))][v].clone(),
    |c, v| c.counts = [[0; 6], [1; 6], [2; 6]][v],
    |c, v| c.approvals.0 = [0, 1, 2][v],
    |c, v| c.now = [1_700_000_000_000, 1_799_999_999_999, 1_800_000_000_001][v],
    |c, v| c.action = [EXCHANGE, Action::Work(WorkloadAction::OpenTask), Action::Work(WorkloadAction::ExtendTask)][v],
];

/// Cedar without optimization takes a quarter of a second for a case. `./test --long` runs 4,096 of each.
fn cases() -> u32 {
    std::env::var("MAYFLY_POLICY_CASES").map_or(64, |n| n.parse().expect("MAYFLY_POLICY_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_remembered_verdict_is_cedars_verdict(
        cedar in policies(),
        walk in prop::collection::vec((0..CHANGES.len(), 0usize..3), 1..60),
    ) {
        let set = compile(&cedar);
        let verdicts = VerdictCache::new(1 << 20);
        let mut case = Case::new(EXCHANGE);
        for (change, value) in walk {
            CHANGES[change](&mut case, value);
            let (cached, asked) = case.with(|q| (verdicts.verdict(&set, q), set.verdict_of_everything(q)));
            prop_assert_eq!(&*cached, &asked, "{}\n{:?}", cedar, case);
        }
    }

    #[test]
    fn a_slice_has_the_verdict_of_the_whole(
        cedar in policies(),
        walk in prop::collection::vec((0..CHANGES.len(), 0usize..3), 1..60),
    ) {
        let set = compile(&cedar);
        let mut case = Case::new(EXCHANGE);
        for (change, value) in walk {
            CHANGES[change](&mut case, value);
            let whole = case.with(|q| set.verdict_unsliced(q));
            prop_assert_eq!(&case.verdict(&set), &whole, "{}\n{:?}", cedar, case);
            prop_assert_eq!(&whole, &case.with(|q| set.verdict_of_everything(q)), "{}\n{:?}", cedar, case);
        }
    }
}
