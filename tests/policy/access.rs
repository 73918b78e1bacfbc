//! Policies about the access at the upstream (`context.access`): the example of docs/policy.md, with the registrations that
//! `mayfly upstream template` prints and the connectors that describe them.

use crate::kit::said;
use mayfly::credential::certificates;
use mayfly::credential::connector::UpstreamConnectors;
use mayfly::credential::connectors::{READERS, TABLE, built_in};
use mayfly::document::SourceFile;
use mayfly::policy::PolicySet;
use mayfly::policy::policy_tests;
use mayfly::seq::Millis;
use mayfly::system::System;
use mayfly::upstream::access::NoConnectors;
use mayfly::upstream::file;
use mayfly::upstream::registry::Upstream;

const ROLES: &str = "
[role.agents]
under = ['spiffe://td/agent']
[environment.prod]
under = ['spiffe://td/agent']
";

fn connectors() -> UpstreamConnectors {
    built_in(None, &System::real())
}

/// The registration of a kind to start from, with an approver.
fn registration(kind: &str, change: impl Fn(String) -> String) -> Upstream {
    let connectors = TABLE.iter().map(|entry| (entry.settings.kind, entry.template));
    let certificates = certificates::TABLE.iter().map(|entry| (entry.settings.kind, entry.template));
    let (_, template) = connectors.chain(certificates).find(|(of, _)| of.as_str() == kind).unwrap();
    let text = change(template.replace("approvers = []", "approvers = [\"spiffe://td/person/grace\"]"));
    file::parse(&SourceFile::new("u.toml", text), &READERS).unwrap_or_else(|wrong| panic!("{}", said(&wrong)))
}

fn set(cedar: &str) -> PolicySet {
    let compiled = PolicySet::compile(vec![SourceFile::new("t.cedar", cedar)], SourceFile::new("roles.toml", ROLES));
    compiled.unwrap_or_else(|wrong| panic!("{}", said(&wrong)))
}

/// The outcome of one request for these scopes, as a test of a set says it.
fn outcome(set: &PolicySet, upstream: &Upstream, scopes: &str, more: &str) -> String {
    let text = format!(
        "[[test]]\nname = 't'\ncaller = 'spiffe://td/agent/a'\nupstream = 'u'\nscopes = [{scopes}]\nexpect = 'permit'\n{more}\n"
    );
    let tests = policy_tests::parse(&SourceFile::new("tests.toml", text), Millis(1_800_000_000_000));
    let tests = tests.unwrap_or_else(|wrong| panic!("{}", said(&wrong)));
    tests[0].situation.outcome(set, "prod", Some(upstream), &connectors()).to_string()
}

fn example() -> String {
    let docs = include_str!("../../docs/policy.md");
    let mut blocks = docs.split("```cedar\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains("no-write-on-prod-databases-without-approval")).expect("the page has it").to_owned()
}

const ASKS: &str = "refused until one of these approves it: spiffe://td/person/grace";

#[test]
fn no_write_on_prod_databases_without_an_approval() {
    let set = set(&example());
    for kind in ["postgres", "mysql"] {
        let upstream = registration(kind, |text| text);
        assert_eq!(outcome(&set, &upstream, "'orders:read'", ""), "permitted by agents-use-databases", "{kind}");
        for scopes in ["'orders:write'", "'orders:read', 'orders:write'"] {
            assert_eq!(outcome(&set, &upstream, scopes, ""), ASKS, "{kind}: {scopes}");
            let approved = outcome(&set, &upstream, scopes, "approvals = ['spiffe://td/person/grace']");
            assert_eq!(approved, "permitted by agents-use-databases", "{kind}: {scopes}");
        }
    }
    let redis = registration("redis", |text| text);
    assert_eq!(outcome(&set, &redis, "'cart:read'", ""), "permitted by agents-use-databases");
    assert_eq!(outcome(&set, &redis, "'cart:write'", ""), ASKS);
    // Without a database the policy has nothing to say.
    let github = registration("github", |text| text);
    assert_eq!(outcome(&set, &github, "'site:write'", ""), "permitted by agents-use-databases");
}

#[test]
fn a_scope_whose_grants_grow_is_no_longer_a_scope_that_reads() {
    let set = set(&example());
    for (from, to) in [
        ("privileges = [\"SELECT\"]", "privileges = [\"SELECT\", \"TRUNCATE\"]"),
        ("privileges = [\"USAGE\"]", "privileges = [\"USAGE\", \"CREATE\"]"),
        ("on = \"tables\"\nnames = [\"public.orders\"]\nprivileges = [\"SELECT\"]", "on = \"roles\"\nnames = [\"app\"]"),
        (
            "on = \"tables\"\nnames = [\"public.orders\"]\nprivileges = [\"SELECT\"]",
            "on = \"functions\"\nnames = [\"public.total(integer)\"]\nprivileges = [\"EXECUTE\"]",
        ),
    ] {
        let wider = registration("postgres", |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        assert_eq!(outcome(&set, &wider, "'orders:read'", ""), ASKS, "{to}");
    }
}

#[test]
fn each_kind_has_its_facts_for_policy() {
    for (kind, scopes, condition) in [
        ("postgres", "'orders:read'", "context.access.host == \"db.example.org:5432\" && context.access.database == \"orders\""),
        ("postgres", "'orders:write'", "context.access.grants.contains(\"INSERT on tables public.orders\")"),
        ("mysql", "'orders:write'", "context.access.objects == [\"tables orders.orders\"]"),
        ("redis", "'cart:write'", "context.access.grants.contains(\"publish on channels cart-changes\")"),
        ("github", "'site:read'", "context.access.read_only && context.access.repositories == [\"1296269\"]"),
        ("github", "'site:write'", "context.access.permissions.containsAll([\"contents:read\", \"contents:write\"])"),
        ("github", "'site:read'", "!context.access.all_repositories && context.access.repository_names == [\"octo-org/site\"]"),
        ("aws", "'reports:read'", "context.access.role_arn like \"arn:aws:iam::123456789012:role/*\""),
        ("aws", "'reports:read'", "context.access.privileges == [\"s3:GetObject\"] && !context.access.read_only"),
        ("aws", "'reports:write'", "context.access.grants.contains(\"s3:PutObject on arn:aws:s3:::reports/*\")"),
        ("oauth", "'mail:read'", "context.access.upstream_scopes == [\"https://auth.example.org/scopes/mail.readonly\"]"),
        ("federation", "'storage:read'", "context.access.audience like \"https://iam.googleapis.com/*\""),
        ("x509", "'reports:read'", "context.access.roles == [\"reports_reader\"] && context.access.objects.isEmpty()"),
        ("x509", "'reports:serve'", "context.access.objects == [\"dns reports.example.org\"]"),
        ("ssh", "'shell'", "context.access.roles == [\"ops\"] && context.access.privileges == [\"permit-pty\"]"),
        (
            "ssh",
            "'deploy'",
            "context.access.objects.contains(\"force-command /usr/local/bin/deploy\") && !context.access.read_only",
        ),
        ("ssh", "'deploy'", "context.access.host == \"hosts.shop.example.org\""),
        ("secret", "'events:read'", "context.access.levels == [\"unknown\"] && context.access.objects == [\"secret sentry\"]"),
    ] {
        let has: String = ["host", "database", "role_arn", "audience"]
            .iter()
            .filter(|name| condition.contains(&format!("context.access.{name} ")))
            .map(|name| format!("context.access has {name} && "))
            .collect();
        let policy = format!(
            "@id(\"p\") permit (principal, action == Action::\"Exchange\", resource) when {{ context has access && {has}{condition} }};"
        );
        assert_eq!(outcome(&set(&policy), &registration(kind, |text| text), scopes, ""), "permitted by p", "{kind}: {condition}");
    }
}

#[test]
fn a_task_has_all_that_its_credentials_can_get() {
    let set = set(
        "@id(\"reading\") permit (principal, action == Action::\"OpenTask\", resource) when { context has access && context.access.read_only };",
    );
    let open = "action = 'OpenTask'";
    let postgres = registration("postgres", |text| text);
    assert_eq!(outcome(&set, &postgres, "'orders:read'", open), "permitted by reading");
    assert_eq!(outcome(&set, &postgres, "'orders:read', 'orders:write'", open), "no policy permits it");
}

#[test]
fn what_cannot_be_described_is_refused() {
    let set = set("permit (principal, action, resource);");
    let two = |text: String| text.replacen("id = 1296269, name = \"octo-org/site\"", "id = 7, name = \"octo-org/other\"", 1);
    let upstream = registration("github", two);
    let no = outcome(&set, &upstream, "'site:read', 'site:write'", "");
    assert!(no.contains("its access cannot be described") && no.contains("would grant more in"), "{no}");
    // A task may have the scopes, since each can be had by itself.
    assert!(outcome(&set, &upstream, "'site:read', 'site:write'", "action = 'OpenTask'").starts_with("permitted"));
    let text =
        "[[test]]\nname = 't'\ncaller = 'spiffe://td/agent/a'\nupstream = 'u'\nscopes = ['site:read']\nexpect = 'permit'\n";
    let tests = policy_tests::parse(&SourceFile::new("tests.toml", text), Millis(1_800_000_000_000)).unwrap();
    let no = tests[0].situation.outcome(&set, "prod", Some(&upstream), &NoConnectors).to_string();
    assert!(no.contains("not made by this server"), "{no}");
}

#[test]
fn the_examples_of_details_are_accepted_and_policy_sees_the_part() {
    let docs = include_str!("../../docs/narrowing.md");
    let blocks = docs.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<&str> = blocks.filter(|block| block.starts_with('[')).collect();
    assert_eq!(examples.len(), 2, "one for each kind");
    let reading = set(
        "@id(\"reading\") permit (principal, action == Action::\"Exchange\", resource) when { context has access && context.access.read_only };",
    );
    for (kind, scope, example) in [("postgres", "'orders:write'", examples[0]), ("github", "'site:write'", examples[1])] {
        let upstream = registration(kind, |text| text);
        assert_eq!(outcome(&reading, &upstream, scope, ""), "no policy permits it", "{kind}");
        let narrowed = outcome(&reading, &upstream, scope, &format!("details = '{}'", example.trim()));
        assert_eq!(narrowed, "permitted by reading", "{kind}");
        let wider = example.replace("SELECT on", "DROP on").replace("1296269", "7");
        let no = outcome(&reading, &upstream, scope, &format!("details = '{}'", wider.trim()));
        assert!(no.contains("which the scopes do not give"), "{kind}: {no}");
    }
    for kind in ["mysql", "redis", "aws", "oauth", "federation", "secret", "x509", "ssh"] {
        let upstream = registration(kind, |text| text);
        let scope = format!("'{}'", upstream.scopes[0].name);
        let no = outcome(&reading, &upstream, &scope, "details = '[{}]'");
        assert!(no.contains("is not served for kind"), "{kind}: {no}");
    }
}
