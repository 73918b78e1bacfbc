//! Policy sets: what is refused at compile time, what Cedar answers, and the text that a record keeps.

use std::collections::{BTreeMap, BTreeSet};

use crate::kit::{Case, ROLES, compile, id, said};
use mayfly::document::SourceFile;
use mayfly::limits;
use mayfly::policy::action::{Action, OperatorAction, WorkloadAction};
use mayfly::policy::{PolicySet, PolicyVerdict, SCHEMA, attributes, unpermitted_actions};
use mayfly::upstream::file;
use mayfly_bench::sample;

const EXCHANGE: Action = Action::Work(WorkloadAction::Exchange);

fn refusal(cedar: &str, roles: &str) -> String {
    match PolicySet::compile(vec![SourceFile::new("t.cedar", cedar)], SourceFile::new("roles.toml", roles)) {
        Ok(_) => panic!("accepted:\n{cedar}"),
        Err(wrong) => said(&wrong),
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_place_policy_and_remedy() {
    let cases = [
        ("permit (principal, action, resource)", &["t.cedar:1:37"][..]),
        (
            "@id(\"x\")\npermit (principal, action == Action::\"Exchnge\", resource);",
            &["t.cedar:2:", "`x`", "Exchnge", "Exchange"],
        ),
        ("@id(\"x\")\npermit (principal is Workloud, action, resource);", &["t.cedar:2:", "`x`", "Workloud", "Workload"]),
        (
            "@id(\"x\")\npermit (principal, action == Action::\"Exchange\", resource)\nwhen { context.prupose == \"a\" };",
            &["t.cedar:3:", "`x`", "prupose", "purpose"],
        ),
        (
            "@id(\"x\")\npermit (principal, action == Action::\"Exchange\", resource)\nwhen { context.tool == \"a\" };",
            &["t.cedar:3:", "`x`", "tool", "has"],
        ),
        (
            "@id(\"x\")\npermit (principal, action == Action::\"Exchange\", resource)\nwhen { context.ttl_seconds == \"a\" };",
            &["t.cedar:3:", "`x`"],
        ),
        ("@id(\"x\")\npermit (principal in\nRole::\"aa\", action, resource);", &["t.cedar:3:1", "`x`", "did you mean \"a\"?"]),
        (
            "permit (principal, action == Action::\"Exchange\", resource in Environment::\"qa\");",
            &["t.cedar:1:62", "`t.cedar#1`", "unknown entity Environment::\"qa\"", "dev, prod"],
        ),
        ("permit (principal == Workload::\"spiffe://TD/x\", action, resource);", &["t.cedar:1:22", "lower case"]),
        ("permit (principal, action, resource == Mayfly::\"root\");", &["t.cedar:1:", "admin"]),
        ("permit (principal == ?principal, action, resource);", &["t.cedar:1:22", "template", "use a role"]),
        (
            "@id(\"x\") permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);",
            &["policy id x is there twice"],
        ),
        ("@id(\"a b\") permit (principal, action, resource);", &["policy id \"a b\" is no name"]),
        (
            "@id(\"x\") permit (principal, action == Action::\"Exchange\", resource)\nwhen { Upstream::\"other\".owner == \"me\" };",
            &["t.cedar:2:", "`x`"],
        ),
    ];
    for (cedar, parts) in cases {
        let said = refusal(cedar, ROLES);
        for part in parts {
            assert!(said.contains(part), "{cedar}\nwants {part} in\n{said}");
        }
    }
}

#[test]
fn a_set_that_wants_more_approvals_than_one_request_can_have_is_refused() {
    let with = |condition: &str| format!("@id(\"x\")\nforbid (principal, action, resource)\nunless {{ {condition} }};");
    let work = |condition: &str| with(condition).replace("action,", "action in Action::\"Work\",");
    let wrong = [
        ("context.approvals.count >= 2", "compares context.approvals.count with 2"),
        ("context.approvals.count == 3", "with 3"),
        ("2 <= context.approvals.count", "with 2"),
        ("context.approvals.count > 1", "with 1"),
        ("!(context.approvals.count < 2)", "with 2"),
        ("context.sensitive && (context.renewal || context.approvals.count != 2)", "with 2"),
        ("if context.renewal then context.approvals.count >= 2 else true", "with 2"),
        ("context.approvals.people.containsAll([\"a\", \"b\"])", "wants a and b to have approved, and one does"),
        ("context.approvals.people == [\"a\", \"b\"]", "wants a and b"),
        ("context.approvals.people.contains(\"a\") && context.approvals.people.contains(\"b\")", "wants a and b"),
        (
            "context.approvals.people.contains(\"a\") && (context.renewal && context.approvals.people.contains(\"b\"))",
            "wants a and b",
        ),
    ];
    for (condition, said) in wrong {
        let refused = refusal(&work(condition), ROLES);
        assert!(refused.contains("policy `x`") && refused.contains(said), "{condition}: {refused}");
        assert!(refused.contains("one person approves a request"), "{refused}");
    }
    let right = [
        "context.approvals.count >= 1",
        "context.approvals.count > 0",
        "1 == context.approvals.count",
        "context.approvals.count != 0",
        "context.approvals.count < 1",
        "context.approvals.people.containsAll([\"a\"])",
        "context.approvals.people.containsAny([\"a\", \"b\"])",
        "context.approvals.people.contains(\"a\") || context.approvals.people.contains(\"b\")",
        "context.approvals.people.contains(\"a\") && context.approvals.people.contains(\"a\")",
    ];
    for condition in right {
        compile(&work(condition));
    }
    let both = work("context.renewal").replace("forbid", "permit").replace("unless", "when");
    let both = both
        .replace(";", " when { context.approvals.people.contains(\"a\") } when { context.approvals.people.contains(\"b\") };");
    assert!(refusal(&both, ROLES).contains("wants a and b"), "by two conditions");
}

/// A set in the ledger was accepted once. A check that was added later only warns about it, and the server starts.
#[test]
fn a_recorded_set_that_wants_two_approvals_is_read_with_a_warning() {
    let now = "@id(\"x\")\nforbid (principal, action in Action::\"Work\", resource) unless { context.approvals.count >= 1 };";
    let recorded = compile(now).to_text().replace(">= 1", ">= 2");
    let set = PolicySet::from_text(&recorded).unwrap();
    let warned: Vec<String> = set.warnings().iter().map(ToString::to_string).collect();
    assert!(warned.iter().any(|w| w.contains("compares context.approvals.count with 2")), "{warned:?}");
}

#[test]
fn an_approval_that_nobody_could_give_and_an_incident_that_would_wait_are_refused() {
    let operate = "@id(\"operate\")\npermit (principal in Role::\"b\", action in Action::\"Admin\", resource);\n";
    let only = |action: &str| {
        format!("@id(\"only\")\npermit (principal == Workload::\"spiffe://td/agent/b\", action {action}, resource);\n")
    };
    let wants = |actions: &str| {
        format!("@id(\"x\")\nforbid (principal, action in [{actions}], resource) unless {{ context.approvals.count >= 1 }};\n")
    };
    let named = "@id(\"x\")\nforbid (principal, action == Action::\"ManageTrust\", resource)\n\
                 unless { context.approvals.people.contains(\"spiffe://td/agent/b\") };\n";
    let keys = wants("Action::\"ManageKeys\"");
    for right in [
        format!("{operate}{keys}"),
        format!("{operate}{named}"),
        format!(
            "{}{}",
            only("== Action::\"ApproveChange\""),
            operate.replace("in Action::\"Admin\"", "== Action::\"ManageKeys\"")
        ) + &keys,
        format!("{}{}", only("in Action::\"Admin\""), operate) + &keys,
    ] {
        compile(&right);
    }
    let all = "Action::\"Admin\"";
    for (wrong, said) in [
        (format!("{operate}{}", wants("Action::\"Revoke\"")), "makes Revoke wait"),
        (format!("{operate}{}", wants("Action::\"ManageKeys\", Action::\"Lock\"")), "makes Lock wait"),
        (format!("{operate}{}", wants(all)), "makes Revoke and Lock wait"),
        (format!("{operate}{}", wants("Action::\"ApproveChange\"")), "makes ApproveChange wait"),
        (operate.replace(" resource);", " resource) when { context.approvals.count == 1 };"), "makes Revoke and Lock wait"),
        (keys.clone(), "no policy permits ApproveChange"),
        (
            format!("{operate}{keys}@id(\"none\") forbid (principal, action == Action::\"ApproveChange\", resource);"),
            "forbids ApproveChange to everybody",
        ),
        (format!("{}{keys}", only("in Action::\"Admin\"")), "spiffe://td/agent/b is the only one"),
    ] {
        let refused = refusal(&wrong, ROLES);
        assert!(refused.contains(said), "{wrong}: {refused}");
    }
    // A set that an earlier version accepted is read with a warning, so that nothing has to wait for it in an incident.
    let recorded = compile(&format!("{operate}{keys}")).to_text().replace("ManageKeys", "Revoke");
    let set = PolicySet::from_text(&recorded).unwrap();
    assert!(set.warnings().iter().any(|w| w.to_string().contains("makes Revoke wait")), "{:?}", set.warnings());
}

#[test]
fn the_trust_domains_whose_ids_operate_are_those_that_heads_of_policies_name() {
    let domains = |cedar: &str| compile(cedar).operator_domains().clone();
    let named = |cedar: &str, domain: &str| domains(cedar).has(domain);
    let operate = "permit (principal in Role::\"b\", action in Action::\"Admin\", resource);\n";
    assert!(named(operate, "td") && named(operate, "other") && !named(operate, "third"));
    let work = "permit (principal, action in Action::\"Work\", resource);\n";
    assert!(!named(work, "td"), "who works is not who operates");
    let one = "permit (principal == Workload::\"spiffe://other/x\", action == Action::\"Observe\", resource);\n";
    assert!(named(one, "other") && !named(one, "td"));
    let anybody = "permit (principal, action == Action::\"Observe\", resource) when { principal.trust_domain == \"td\" };\n";
    assert!(named(anybody, "td") && named(anybody, "third"), "a head that names nobody may mean everybody");
}

#[test]
fn all_files_complain_at_once() {
    let sources = vec![SourceFile::new("a.cedar", "permit (principal, action);"), SourceFile::new("b.cedar", "nonsense")];
    let wrong = PolicySet::compile(sources, SourceFile::new("roles.toml", "[role.a]\nidz = []\n[environment]\n")).unwrap_err();
    let said = said(&wrong);
    for part in ["a.cedar:1:", "b.cedar:1:", "roles.toml:2:", "did you mean ids?"] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
}

#[test]
fn a_set_above_the_limit_is_refused() {
    let long = format!("// {}\n", "x".repeat(mayfly::limits::POLICY_BYTES));
    assert!(refusal(&long, ROLES).contains("at most 262144 bytes"));
}

/// Each of these texts ended the process by a stack overflow.
#[test]
fn a_set_whose_expressions_are_too_deep_is_refused() {
    let set = |condition: &str| {
        format!("@id(\"deep\") permit (principal, action == Action::\"Exchange\", resource) when {{ {condition} }};")
    };
    let nested = |n: usize| format!("{}true{}", "!(".repeat(n), ")".repeat(n));
    for (deep, what) in [
        (nested(60), "16 brackets within each other"),
        (nested(30_000), "16 brackets within each other"),
        ("context.purpose == \"a\" || ".repeat(300) + "true", "128 levels"),
        ("true && ".repeat(20_000) + "true", "128 levels"),
        (format!("context{}", ".a".repeat(20_000)), "128 levels"),
    ] {
        let refusal = refusal(&set(&deep), ROLES);
        assert!(refusal.contains(what) && refusal.contains("t.cedar:1:"), "{refusal}");
    }
    // As deep as it may be, on a thread of a test, whose stack is that of the server's threads.
    let case = Case::new(EXCHANGE);
    for deepest in [nested(14), "context.purpose == \"a\" || ".repeat(120) + "true", "true && ".repeat(120) + "true"] {
        let verdict = case.verdict(&compile(&set(&deepest)));
        assert!(verdict.permits(), "{verdict:?}: {}", &deepest[..40]);
    }
    // A recorded set is read as it is: no server would start on a ledger whose sets it refuses.
    let recorded = compile(&set("1 == 1")).to_text().replace("1 == 1", &("1 == 2 || ".repeat(250) + "1 == 1"));
    assert!(case.verdict(&PolicySet::from_text(&recorded).unwrap()).permits());
}

#[test]
fn a_policy_that_can_never_apply_is_a_warning() {
    let set = compile("@id(\"never\") permit (principal, action == Action::\"Exchange\", resource) when { false };");
    assert!(said(set.warnings()).contains("never"), "{:?}", set.warnings());
    assert!(compile("permit (principal, action, resource);").warnings().is_empty());
}

#[test]
fn the_text_of_a_record_gives_the_same_set() {
    let (policies, roles) = sample::fifty();
    let set = PolicySet::compile(policies, roles).unwrap();
    let again = PolicySet::from_text(set.to_text()).unwrap();
    assert_eq!(set.ids().len(), 50);
    assert_eq!((again.to_text(), again.digest(), again.ids()), (set.to_text(), set.digest(), set.ids()));
    assert_eq!(set.to_text().lines().count(), 1);
    for bad in ["{}", &set.to_text().replacen("\"schema\":1", "\"schema\":2", 1), &set.to_text().replacen('{', "{\"more\":1,", 1)]
    {
        assert!(PolicySet::from_text(bad).is_err(), "{}", &bad[..40]);
    }
}

#[test]
fn a_stored_set_of_this_version_still_reads() {
    let text = include_str!("../samples/policy_set.v1.json").trim_end();
    let set = PolicySet::from_text(text).unwrap_or_else(|wrong| panic!("{}", said(&wrong)));
    assert_eq!(set.to_text(), text);
    let digest: String = set.digest().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(digest, "86ae722ccf5861c59a9cee27fe5b0f474b1b103f346f6828efdace8bc55edcc5");
}

#[test]
fn nothing_is_permitted_unless_a_policy_says_so_and_forbid_wins() {
    let case = Case::new(EXCHANGE);
    assert_eq!(case.verdict(&compile("")), PolicyVerdict::Deny { by: vec![] });
    let permit = "@id(\"yes\") permit (principal in Role::\"a\", action in Action::\"Work\", resource);";
    assert_eq!(case.verdict(&compile(permit)), PolicyVerdict::Permit { by: vec!["yes".to_owned()] });
    let both =
        format!("{permit}\nforbid (principal, action == Action::\"Exchange\", resource) when {{ context.purpose == \"p\" }};");
    assert_eq!(case.verdict(&compile(&both)), PolicyVerdict::Deny { by: vec!["t.cedar#2".to_owned()] });
    let mut stranger = case.clone();
    stranger.caller = id("spiffe://td/agents/a");
    assert_eq!(stranger.verdict(&compile(permit)), PolicyVerdict::Deny { by: vec![] });
}

#[test]
fn a_policy_that_cannot_be_evaluated_denies_whatever_permits() {
    let set = compile(
        "permit (principal, action, resource);\n\
         @id(\"sum\") forbid (principal, action == Action::\"Exchange\", resource) when { context.ttl_seconds * 9 > 5 };",
    );
    let mut case = Case::new(EXCHANGE);
    case.ttl = i64::MAX;
    let verdict = case.verdict(&set);
    assert!(matches!(&verdict, PolicyVerdict::EngineError { what } if what.contains("sum")), "{verdict:?}");
    assert!(!verdict.permits());
}

#[test]
fn a_moment_beyond_the_calendar_denies() {
    let cedar = "permit (principal, action == Action::\"Exchange\", resource) when { context.now > datetime(\"2020-01-01\") };";
    let mut case = Case::new(EXCHANGE);
    assert!(case.verdict(&compile(cedar)).permits());
    case.now = u64::MAX;
    assert!(matches!(case.verdict(&compile(cedar)), PolicyVerdict::EngineError { .. }));
}

#[test]
fn every_action_of_the_schema_has_its_number_and_the_table_of_facts_is_the_schema() {
    for (place, action) in Action::ALL.iter().enumerate() {
        assert_eq!(usize::from(action.number()), place);
    }
    let (fragment, _) = cedar_policy::SchemaFragment::from_cedarschema_str(SCHEMA).unwrap();
    let schema = fragment.to_json_value().unwrap()[""].clone();
    let groups: BTreeSet<&str> = Action::ALL.iter().filter_map(|a| a.group()).collect();
    let names: BTreeSet<&str> = Action::ALL.iter().map(|a| a.name()).chain(groups).collect();
    let declared: BTreeSet<&str> = schema["actions"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, declared);

    let mut paths = BTreeSet::from(["principal", "resource", "principal.in", "resource.in"].map(str::to_owned));
    let entity = |name: &str| schema["entityTypes"][name]["shape"].clone();
    leaves(&schema, &entity("Workload"), "principal", &mut paths);
    leaves(&schema, &entity("Upstream"), "resource", &mut paths);
    for context in ["Ask", "Look", "Decide", "Used", "Act"] {
        leaves(&schema, &schema["commonTypes"][context], "context", &mut paths);
    }
    let table: BTreeSet<String> = attributes::all().map(|f| f.path.to_owned()).collect();
    assert_eq!(table, paths);
    let volatile: Vec<&str> = attributes::all().filter(|f| f.volatile).map(|f| f.path).collect();
    let moves =
        |p: &&String| p.starts_with("context.now") || p.starts_with("context.counts") || p.starts_with("context.approvals");
    assert_eq!(volatile.iter().map(|p| p.to_string()).collect::<BTreeSet<_>>(), paths.iter().filter(moves).cloned().collect());
}

/// The paths of a type's attributes, including those of nested records.
fn leaves(schema: &serde_json::Value, shape: &serde_json::Value, path: &str, out: &mut BTreeSet<String>) {
    let named = shape["name"].as_str().or(shape["type"].as_str()).unwrap_or_default();
    let shape = if schema["commonTypes"][named].is_object() { &schema["commonTypes"][named] } else { shape };
    match shape["attributes"].as_object() {
        Some(attributes) => attributes.iter().for_each(|(name, shape)| leaves(schema, shape, &format!("{path}.{name}"), out)),
        None => {
            out.insert(path.to_owned());
        }
    }
}

#[test]
fn every_attribute_is_documented() {
    let docs = include_str!("../../docs/policy.md");
    for fact in attributes::all() {
        assert!(docs.contains(&format!("`{}`", fact.path)), "docs/policy.md lacks {}", fact.path);
    }
    for action in Action::ALL {
        assert!(docs.contains(&format!("`{}`", action.name())), "docs/policy.md lacks {}", action.name());
    }
}

fn dev() -> (PolicySet, BTreeMap<String, mayfly::upstream::registry::Upstream>) {
    let read = |file: &str| {
        let path = format!("{}/src/cli/samples/{file}", env!("CARGO_MANIFEST_DIR"));
        SourceFile::new(file, std::fs::read_to_string(path).unwrap())
    };
    let set =
        PolicySet::compile(vec![read("policy.cedar")], read("roles.toml")).unwrap_or_else(|wrong| panic!("{}", said(&wrong)));
    assert!(set.warnings().is_empty(), "{}", said(set.warnings()));
    let upstreams = ["echo", "repos", "tickets"].map(|name| {
        let parsed =
            file::parse(&read(&format!("upstreams/{name}.toml")), &[]).unwrap_or_else(|wrong| panic!("{}", said(&wrong)));
        (name.to_owned(), parsed)
    });
    (set, BTreeMap::from(upstreams))
}

#[test]
fn the_dev_samples_do_what_they_say() {
    let (set, upstreams) = dev();
    for named in set.upstreams_named() {
        assert!(upstreams.contains_key(named), "{named}");
    }
    let case = |caller: &str, upstream: &str, scopes: &[&'static str]| {
        let mut case = Case::new(EXCHANGE);
        case.caller = id(&format!("spiffe://dev.mayfly.internal{caller}"));
        case.upstream = upstreams[upstream].clone();
        case.scopes = scopes.to_vec();
        case
    };
    for (caller, upstream, scopes, permitted) in [
        ("/agent/demo", "echo", &["echo:read"][..], true),
        ("/agent/demo", "tickets", &["tickets:write"], true),
        ("/agent/demo", "tickets", &["tickets:delete"], false),
        ("/agent/demo", "echo", &["echo:unheard-of"], false),
        ("/mcp/repos", "repos", &["repo:read"], true),
        ("/mcp/repos", "repos", &["repo:write"], false),
        ("/mcp/repos", "echo", &["echo:read"], false),
        ("/mcp/echo", "echo", &["echo:read"], true),
        ("/ci/demo", "tickets", &["tickets:write"], true),
        ("/ci/demo", "repos", &["issues:write"], false),
        ("/service/echo", "echo", &["echo:read"], false),
        ("/stranger", "echo", &["echo:read"], false),
    ] {
        let case = case(caller, upstream, scopes);
        assert_eq!(case.verdict(&set).permits(), permitted, "{caller} {upstream} {scopes:?}");
        assert_eq!(set.environment_of(&case.caller), Some("dev"));
    }
    let mut sensitive = case("/agent/demo", "tickets", &["tickets:delete"]);
    (sensitive.tool, sensitive.digest) = (Some("delete_ticket"), Some("digest"));
    assert!(sensitive.verdict(&set).permits());
    let mut chain = case("/agent/demo", "echo", &["echo:read"]);
    chain.chain = vec!["spiffe://a/1", "spiffe://a/2", "spiffe://a/3", "spiffe://a/4"];
    assert_eq!(chain.verdict(&set).by(), ["short-chains"]);
    let mut operator = case("/operator/you", "echo", &[]);
    operator.action = Action::Admin(OperatorAction::Revoke);
    assert!(operator.verdict(&set).permits());
    operator.caller = id("spiffe://dev.mayfly.internal/agent/demo");
    assert!(!operator.verdict(&set).permits());
    let mut service = case("/service/echo", "echo", &[]);
    service.action = Action::Introspect;
    assert!(service.verdict(&set).permits());
}

#[test]
fn a_policy_that_fails_is_left_out_only_where_cedar_does_not_get_so_far() {
    let fails = "context.ttl_seconds * 4611686018427387904 > 0";
    let elsewhere = "resource.owner == \"nobody\"";
    for (conditions, error) in [
        (format!("when {{ {fails} && {elsewhere} }}"), true),
        (format!("when {{ {fails} }} when {{ {elsewhere} }}"), true),
        (format!("when {{ {elsewhere} && {fails} }}"), false),
        (format!("when {{ {elsewhere} }} when {{ {fails} }}"), false),
        (format!("unless {{ !({elsewhere}) }} when {{ {fails} }}"), false),
        (format!("when {{ 9223372036854775807 + 1 > 0 && {elsewhere} }}"), true),
    ] {
        let set = compile(&format!(
            "permit (principal, action, resource);\nforbid (principal, action in Action::\"Work\", resource) {conditions};"
        ));
        let case = Case::new(Action::Work(WorkloadAction::Exchange));
        let sliced = case.verdict(&set);
        assert_eq!(sliced, case.with(|q| set.verdict_unsliced(q)), "{conditions}");
        assert_eq!(matches!(sliced, PolicyVerdict::EngineError { .. }), error, "{conditions}: {sliced}");
    }
}

#[test]
fn a_scope_or_kind_that_nothing_has_is_found() {
    let text = r#"
        @id("a") permit (principal, action == Action::"Exchange", resource)
        when { ["orders:read", "orders:reed"].containsAll(context.scopes) && context has kind && context.kind == "jwtt" };
        @id("b") forbid (principal, action == Action::"Exchange", resource) when { context.scopes.contains("orders:export") }
        unless { context.purpose == "orders:nothing" };
    "#;
    let set = compile(text);
    let known = ["orders:read", "orders:export"];
    let found = set.never_asked_for(|scope| known.contains(&scope));
    assert_eq!(
        found,
        ["scope \"orders:reed\", which no registered upstream has", "kind \"jwtt\", which is no kind of credential"]
    );
}

// The sets that leave nobody who may act as an operator.

const TEAMS: &str = "[role.operator]\nids = ['spiffe://td/ada', 'spiffe://td/bob']\n[role.team]\n\
                     under = ['spiffe://td/team']\n[environment.dev]\nunder = ['spiffe://td']\n";
const OPERATORS: &str = "permit (principal in Role::\"operator\", action in Action::\"Admin\", resource);\n";
const WORK: &str = "permit (principal in Role::\"team\", action in Action::\"Work\", resource);\n";

fn nobody_may(cedar: &str) -> Vec<OperatorAction> {
    let compiled = PolicySet::compile(vec![SourceFile::new("t.cedar", cedar)], SourceFile::new("roles.toml", TEAMS));
    compiled.unwrap_or_else(|wrong| panic!("{cedar}\n{wrong:#?}")).nobody_may().to_vec()
}

#[test]
fn a_set_without_permits_for_operators_leaves_nobody() {
    let all = vec![OperatorAction::ManagePolicy, OperatorAction::Revoke, OperatorAction::Lock];
    assert_eq!(nobody_may(WORK), all);
    assert_eq!(nobody_may(OPERATORS), []);
    let observe = "permit (principal in Role::\"operator\", action == Action::\"Observe\", resource);";
    assert_eq!(nobody_may(observe), all);
    let some =
        "permit (principal == Workload::\"spiffe://td/ada\", action in [Action::\"ManagePolicy\", Action::\"Lock\"], resource);";
    assert_eq!(nobody_may(some), [OperatorAction::Revoke]);
    // A resource of workloads' actions is none of operators' actions.
    let elsewhere = "permit (principal in Role::\"operator\", action, resource in Environment::\"dev\");";
    assert_eq!(nobody_may(elsewhere), all);
    assert_eq!(nobody_may("permit (principal in Role::\"operator\", action, resource);"), []);
    assert_eq!(nobody_may("permit (principal, action, resource);"), []);
}

#[test]
fn a_forbid_counts_where_it_forbids_for_certain() {
    let with = |more: &str| nobody_may(&format!("{OPERATORS}{more}"));
    let all = vec![OperatorAction::ManagePolicy, OperatorAction::Revoke, OperatorAction::Lock];
    assert_eq!(with("forbid (principal, action in Action::\"Admin\", resource);"), all);
    assert_eq!(with("forbid (principal, action == Action::\"Lock\", resource);"), [OperatorAction::Lock]);
    assert_eq!(
        with("forbid (principal in Role::\"operator\", action == Action::\"Revoke\", resource);"),
        [OperatorAction::Revoke]
    );
    // Bob remains, and a condition may not hold.
    assert_eq!(with("forbid (principal == Workload::\"spiffe://td/ada\", action in Action::\"Admin\", resource);"), []);
    let two = "forbid (principal, action == Action::\"ManagePolicy\", resource) unless { context.approvals.count >= 1 };";
    assert_eq!(with(two), []);
    let under = "permit (principal in Role::\"team\", action in Action::\"Admin\", resource);\nforbid (principal in Role::\"team\", \
                 action in Action::\"Admin\", resource);";
    assert_eq!(nobody_may(under), all);
}

/// A condition on the kind of the target alone has a certain value for each kind.
#[test]
fn conditions_on_the_kind_of_the_target_are_seen() {
    let with = |more: &str| nobody_may(&format!("{OPERATORS}{more}"));
    let forbid =
        |action: &str, condition: &str| format!("forbid (principal, action == Action::\"{action}\", resource) {condition};");
    let permit = |action: &str, condition: &str| {
        let wide = OPERATORS.replace(';', " when { context has target_kind && context.target_kind == \"none\" };");
        let others = ["ManagePolicy", "Revoke", "Lock"].into_iter().filter(|other| *other != action);
        let others: String =
            others.map(|other| OPERATORS.replace("in Action::\"Admin\"", &format!("== Action::\"{other}\""))).collect();
        let own = OPERATORS
            .replace("in Action::\"Admin\"", &format!("== Action::\"{action}\""))
            .replace(';', &format!(" {condition};"));
        nobody_may(&format!("{wide}{others}{own}"))
    };
    for (action, condition, own) in [
        (OperatorAction::Revoke, "{ context has target_kind }", "Revoke"),
        (OperatorAction::Lock, "{ !(context has target && context.target == \"x\") || context has target_kind }", "Lock"),
        (
            OperatorAction::Lock,
            "{ context has target_kind && [\"caller\", \"prefix\", \"trust-domain\", \"subject\", \"upstream\", \"upstream-scope\", \"tool\", \"environment\", \"everything\"].contains(context.target_kind) }",
            "Lock",
        ),
        (OperatorAction::ManagePolicy, "{ context has target_kind && context.target_kind == \"policy\" }", "ManagePolicy"),
        (
            OperatorAction::ManagePolicy,
            "{ if context has target_kind then context.target_kind != \"upstream\" else false }",
            "ManagePolicy",
        ),
    ] {
        assert_eq!(with(&forbid(own, &format!("when {condition}"))), [action], "{own} {condition}");
        assert_eq!(with(&forbid(own, &format!("unless {condition}"))), [], "{own} {condition}");
        assert_eq!(permit(own, &format!("unless {condition}")), [action], "{own} {condition}");
        assert_eq!(permit(own, &format!("when {condition}")), [], "{own} {condition}");
    }
    // A permit for one kind of target is enough, and a condition on anything else is not certain.
    for condition in [
        "{ context has target_kind && context.target_kind == \"task\" }",
        "{ context has target_kind && context has target && context.target == \"x\" }",
    ] {
        assert_eq!(with(&forbid("Revoke", &format!("unless {condition}"))), [], "{condition}");
        assert_eq!(permit("Revoke", &format!("when {condition}")), [], "{condition}");
    }
    // A task cannot be locked, so a permission to lock tasks is none.
    assert_eq!(permit("Lock", "when { context has target_kind && context.target_kind == \"task\" }"), [OperatorAction::Lock]);
}

#[test]
fn the_complaint_names_the_actions_and_a_policy_that_permits_them() {
    assert_eq!(unpermitted_actions::complaint(&[], "prod"), None);
    let one = unpermitted_actions::complaint(&[OperatorAction::Lock], "prod").unwrap();
    assert!(one.what.ends_with("nobody may do Lock in environment prod"), "{one}");
    let said =
        unpermitted_actions::complaint(&[OperatorAction::ManagePolicy, OperatorAction::Revoke, OperatorAction::Lock], "prod")
            .unwrap()
            .to_string();
    assert!(said.contains("nobody may do ManagePolicy, Revoke or Lock in environment prod"), "{said}");
    let policy = said.split("like ").nth(1).unwrap().split(';').next().unwrap();
    assert_eq!(nobody_may(&format!("{policy};")), [], "{policy}");
}

/// The time to compile a set grows with the number of its policies, however short they are.
#[test]
fn a_set_has_a_bound_on_its_policies_with_one_recorded_before_it_excepted() {
    let policies = |n: usize| "permit(principal,action,resource);\n".repeat(n);
    let told = refusal(&policies(limits::POLICIES + 1), ROLES);
    assert!(told.contains("has 1001 policies: at most 1000"), "{told}");
    let two = |n: usize| vec![SourceFile::new("a.cedar", policies(n)), SourceFile::new("b.cedar", policies(n))];
    let Err(wrong) = PolicySet::compile(two(limits::POLICIES / 2 + 1), SourceFile::new("roles.toml", ROLES)) else {
        panic!("the files were not counted together")
    };
    assert!(said(&wrong).contains("has 1002 policies"), "{}", said(&wrong));
    let roles = serde_json::to_string(&SourceFile::new("roles.toml", ROLES)).unwrap();
    let file = serde_json::to_string(&SourceFile::new("a.cedar", policies(limits::POLICIES + 1))).unwrap();
    PolicySet::from_text(&format!("{{\"schema\":1,\"policies\":[{file}],\"roles\":{roles}}}")).map(drop).unwrap();
}
