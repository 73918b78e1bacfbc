//! The configuration: what a file may say, and what overrides it.

mod agent;

use std::fs;
use std::path::{Path, PathBuf};

use mayfly::credential::connector::UpstreamConnectors;
use mayfly::document::SourceFile;
use mayfly::limits;
use mayfly::sources::config::keys::{self, KEYS};
use mayfly::sources::config::{Config, IssuerKeySource, RetentionLimit, SealingKeySource, StoreEngine, reference};
use mayfly::upstream::lease::{LeaseConcurrency, LeaseTiming};

const WHOLE: &str = include_str!("../samples/mayfly.toml");

fn parse_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment: Vec<(String, String)> = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let parsed = Config::parse(&SourceFile::new("mayfly.toml", text), Path::new("/etc/mayfly"), &environment);
    parsed.map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn parse(text: &str) -> Result<Config, String> {
    parse_with(text, &[])
}

#[test]
fn what_is_left_out_has_its_default_and_paths_begin_at_the_file() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.server.issuer_of("dev"), "https://mayfly.example.org/dev");
    assert_eq!(config.tls.unwrap().key, PathBuf::from("/etc/mayfly/svid.key"));
    assert_eq!(config.workload_api, None);
    assert_eq!(config.store.engine, StoreEngine::Redb("/etc/mayfly/data".into()));
    assert_eq!(config.seal, SealingKeySource::KeyFile("/etc/mayfly/seal.key".into()));
    assert_eq!(config.listen.workload.to_string(), "127.0.0.1:7443");
    assert_eq!((config.listen.admin_socket, config.public_tls), (None, None));
    assert_eq!(config.limits.tasks, limits::TASKS);
    assert_eq!(config.limits.credential_ttl_ms, limits::CREDENTIAL_TTL_MS);
    assert_eq!(config.svid_max_ttl_ms, limits::SVID_MAX_TTL_MS);
    assert_eq!(config.ledger.gather_wait_ms * 1000, limits::GATHER_WAIT_US);
    assert_eq!((config.ledger.skew_ms, config.ledger.view_max_age_ms), (limits::CLOCK_SKEW_MS, limits::VIEW_MAX_AGE_MS));
    assert_eq!(config.feed_max_age_ms, limits::FEED_MAX_AGE_MS);
    assert_eq!(config.store.disk_reserve_bytes, limits::DISK_RESERVE_BYTES);
    assert_eq!(config.limits.verdict_cache_bytes, limits::VERDICT_CACHE_BYTES);
    assert_eq!(config.audit_keep, RetentionLimit::Time(90 * 86_400_000));
    assert_eq!(config.admin_uids, Vec::<u32>::new());
    let connectors = mayfly::server::connector_settings(&parse(WHOLE).unwrap(), UpstreamConnectors::default());
    assert_eq!((connectors.timing, connectors.places), (LeaseTiming::default(), LeaseConcurrency::default()));
}

#[test]
fn what_is_set_for_leases_reaches_those_who_make_and_undo() {
    let set = "[leases]\nmake_timeout = \"2s\"\nundo_timeout = \"3s\"\nleft_behind = \"2m\"\nretry_min = \"4s\"\nretry_max = \"5s\"\n[limits]\nleases_making = 6\n\
               leases_making_per_upstream = 7\nleases_making_per_batch = 8\nleases_undoing = 9\nleases_undoing_per_upstream = 10\n[store]";
    let config = parse(&WHOLE.replacen("[store]", set, 1)).unwrap();
    let connectors = mayfly::server::connector_settings(&config, UpstreamConnectors::default());
    let timing = LeaseTiming {
        make_ms: 2_000,
        call_ms: 3_000,
        left_ms: 120_000,
        retry_min_ms: 4_000,
        retry_max_ms: 5_000,
        ..LeaseTiming::default()
    };
    let places =
        LeaseConcurrency { making: 6, making_per_upstream: 7, making_per_batch: 8, undoing: 9, undoing_per_upstream: 10 };
    assert_eq!((connectors.timing, connectors.places), (timing, places));
}

#[test]
fn every_mistake_is_named_with_its_line_and_what_would_be_right() {
    for (from, to, parts) in [
        (
            "trust_domain =",
            "trustdomain =",
            &["mayfly.toml:3:1", "unknown key server.trustdomain", "did you mean trust_domain?"][..],
        ),
        ("[tls]", "[tsl]", &["mayfly.toml:6:", "unknown section tsl", "did you mean tls?"]),
        ("\"dev.mayfly.internal\"\nenv", "\"Dev\"\nenv", &["mayfly.toml:3:", "server.trust_domain is \"Dev\"", "lower case"]),
        ("environments = [\"dev\"]", "environments = \"dev\"", &[":4:", "server.environments is a text", "[ ]"]),
        ("environments = [\"dev\"]", "environments = []", &[":4:", "is empty"]),
        ("environments = [\"dev\"]", "environments = [\"dev\", \"dev\"]", &[":4:", "twice"]),
        ("https://mayfly.example.org", "https://mayfly.example.org/", &[":5:", "server.issuer", "slash at the end"]),
        ("https://mayfly.example.org", "http://mayfly.example.org", &[":5:", "https URL"]),
        ("[store]", "[listen]\nworkload = \"localhost:7443\"\n[store]", &[":13:", "listen.workload", "0.0.0.0:7443"]),
        (
            "[store]",
            "[store]\nengine = \"etcd\"",
            &[":13:", "etcd, which is not available in this version", "redb, sled or memory"],
        ),
        ("[store]", "[store]\nengine = \"oracle\"", &[":13:", "oracle", "redb, sled or memory"]),
        ("[store]", "[store]\nengine = \"memory\"", &[":14:", "engine memory keeps nothing"]),
        ("path = \"data\"", "", &["lacks store.path"]),
        ("[store]", "[store]\ncache = \"64MB\"", &[":13:", "store.cache is \"64MB\"", "64MiB"]),
        ("[store]", "[store]\ncache = \"1MiB\"", &[":13:", "from 4MiB to 64GiB"]),
        ("[store]", "[store]\ncache = 64", &[":13:", "store.cache is a number", "64MiB"]),
        ("key_file = \"seal.key\"", "", &["lacks seal.key_file or seal.credential"]),
        ("key_file = \"seal.key\"", "key_file = \"a\"\ncredential = \"b\"", &[":16:", "both set"]),
        ("[store]", "[limits]\ntasks = 0\n[store]", &[":13:", "limits.tasks is 0", "from 1 to 1000000"]),
        ("[store]", "[limits]\ntasks = 1000001\n[store]", &[":13:", "from 1 to 1000000"]),
        ("[store]", "[limits]\ntasks = -1\n[store]", &[":13:", "from 1 to 1000000"]),
        ("[store]", "[limits]\ntasks = 1.5\n[store]", &[":13:", "is a fraction"]),
        ("[store]", "[limits]\ncredential_ttl = \"2h\"\n[store]", &[":13:", "limits.credential_ttl is 2h", "from 2s to 1h"]),
        ("[store]", "[leases]\nmake_timeout = \"21s\"\n[store]", &[":13:", "leases.make_timeout is 21s", "from 100ms to 20s"]),
        ("[store]", "[leases]\nleft_behind = \"1m\"\n[store]", &[":13:", "leases.left_behind is 1m", "from 1m15s to 1h"]),
        (
            "[store]",
            "[leases]\nretry_max = \"10m\"\nretry_min = \"2m\"\n[store]",
            &[":14:", "leases.retry_min is 2m", "from 100ms to 1m"],
        ),
        (
            "[store]",
            "[leases]\nretry_max = \"10s\"\nretry_min = \"20s\"\n[store]",
            &[":14:", "leases.retry_min is 20s, longer than leases.retry_max, 10s", "no more than the longest"],
        ),
        ("[store]", "[leases]\nretry_max = \"1s\"\nretry_min = \"1m\"\n[store]", &[":14:", "longer than leases.retry_max, 1s"]),
        ("[store]", "[leases]\nlook = \"1s\"\n[store]", &[":13:", "unknown key leases.look"]),
        ("[store]", "[limits]\nleases_making = 257\n[store]", &[":13:", "limits.leases_making is 257", "from 1 to 256"]),
        ("[store]", "[svid]\nmax_ttl = \"1 day\"\n[store]", &[":13:", "svid.max_ttl", "1h30m"]),
        ("[store]", "[audit]\nkeep = \"1h\"\n[store]", &[":13:", "audit.keep", "at least 1d"]),
        ("[store]", "[audit]\nexport_syslog = \"log-host\"\n[store]", &[":13:", "audit.export_syslog", "tcp://HOST:PORT"]),
        ("[store]", "[audit]\nexport_syslog = \"tcp://host:0\"\n[store]", &[":13:", "audit.export_syslog", "tcp://HOST:PORT"]),
        (
            "[store]",
            "[audit]\nexport_otlp = \"http://a:1/v1/logs\"\n[store]",
            &[":13:", "audit.export_otlp", "https://HOST/v1/logs"],
        ),
        (
            "[store]",
            "[audit]\nexport_file = \"a\"\nexport_otlp = \"https://a:1/v1/logs\"\n[store]",
            &[":14:", "audit.export_otlp", "both set"],
        ),
        (
            "[store]",
            "[audit]\nexport_ca = \"ca.pem\"\nexport_file = \"a\"\n[store]",
            &[":13:", "audit.export_ca is set, and audit.export_otlp is not"],
        ),
        ("[store]", "[audit]\nkeep = \"1MiB\"\n[store]", &[":13:", "at least 64MiB"]),
        ("[store]", "[admin]\nuids = [\"root\"]\n[store]", &[":13:", "admin.uids[0]"]),
        ("[store]", "[public_tls]\nkey = \"k\"\n[store]", &[":13:", "lacks public_tls.certificate"]),
        (
            "[store]",
            "[[webhooks]]\nname = \"a\"\nurl = \"http://h.example/\"\nsecret_file = \"s\"\n[store]",
            &[":14:", "on this host"],
        ),
        (
            "[store]",
            "[[webhooks]]\nname = \"a\"\nurl = \"https://h.example/\"\nsecret_file = \"s\"\n[store]",
            &["lacks ca", "roots"],
        ),
        (
            "[store]",
            "[[webhooks]]\nname = \"a/b\"\nurl = \"http://[::1]:1/\"\nsecret_file = \"s\"\nevents = [\"x.*\"]\n[store]",
            &[":13:", "letters, digits", ":16:", "which is no event", "break_glass.opened"],
        ),
        (
            "[store]",
            "[[webhooks]]\nname = \"a\"\nurl = \"http://[::1]:1/\"\nsecret_file = \"s\"\n\
             [[webhooks]]\nname = \"a\"\nurl = \"http://[::1]:2/\"\nsecret_file = \"s\"\n[store]",
            &["has a twice"],
        ),
        (
            "[store]",
            "[listen]\nmetrics = \"0.0.0.0:9464\"\n[store]",
            &["listen.metrics is 0.0.0.0:9464, no loopback address", "metrics.tls = true", "metrics.token_file = PATH"],
        ),
        (
            "[store]",
            "[listen]\nmetrics = \"[::]:9464\"\n[metrics]\ntls = false\n[store]",
            &["listen.metrics is [::]:9464, no loopback address"],
        ),
        ("[store]", "[metrics]\ntls = true\n[store]", &["metrics.tls is set, and listen.metrics is not"]),
        ("[store]", "[metrics]\ntoken_file = \"t\"\n[store]", &["metrics.token_file is set, and listen.metrics is not"]),
        (
            "[store]",
            "[[webhooks]]\nurl = \"http://[::1]:1/\"\n[store]",
            &["mayfly.toml:12:", "lacks webhooks[0].name, webhooks[0].secret_file"],
        ),
        ("[store]", "[[bundles]]\nfile = \"x\"\n[store]", &["mayfly.toml:12:", "lacks bundles[1].trust_domain"]),
        ("[store]", "[[attestation]]\nname = \"x\"\n[store]", &["mayfly.toml:12:", "lacks attestation[0].issuer"]),
        ("environments = [\"dev\"]\n", "", &["mayfly.toml:2: lacks server.environments"]),
        ("[store]", "[[bundles]]\ntrust_domain = \"dev.mayfly.internal\"\nfile = \"x\"\n[store]", &["dev.mayfly.internal twice"]),
        (
            "[store]",
            "[[bundles]]\ntrust_domain = \"td\"\nfiles = \"x\"\n[store]",
            &[":14:", "unknown key bundles[1].files", "did you mean file?"],
        ),
        (
            "[store]",
            "[[oidc_issuers]]\nname = \"Idp\"\n[store]",
            &[":13:", "oidc_issuers[0].name is \"Idp\"", "mayfly.toml:12:", "lacks oidc_issuers[0].issuer"],
        ),
        ("[server]", "[server", &[":2:", "TOML"]),
        ("[tls]", "[server]\n[tls]", &[":6:", "duplicate"]),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let said = parse(&WHOLE.replacen(from, to, 1)).expect_err(to);
        for part in parts {
            assert!(said.contains(part), "{to}\nwants {part} in\n{said}");
        }
    }
}

const ISSUER: &str = "[[oidc_issuers]]
name = \"idp\"
issuer = \"https://idp.example.org/\"
environments = [\"dev\"]
uses = [\"subject\"]
";

#[test]
fn an_oidc_issuer_has_its_defaults_and_its_mistakes_are_named() {
    let with = |from: &str, to: &str| {
        assert!(ISSUER.contains(from), "{from}");
        parse(&WHOLE.replacen("[store]", &format!("{}[store]", ISSUER.replacen(from, to, 1)), 1))
    };
    let config = with("name", "name").unwrap();
    let one = &config.oidc_issuers[0];
    assert_eq!(
        (one.issuer.issuer.as_str(), &one.keys, &one.ca_file),
        ("https://idp.example.org/", &IssuerKeySource::Discovered, &None)
    );
    assert_eq!(one.issuer.algorithms.iter().map(|a| a.name()).collect::<Vec<_>>(), ["RS256", "ES256"]);
    assert_eq!((one.issuer.max_life_ms, &one.issuer.audience), (3_600_000, &None));
    let config = with("uses", "jwks = \"keys.json\"\nca_file = \"roots.pem\"\nuses").unwrap();
    assert_eq!(config.oidc_issuers[0].keys, IssuerKeySource::File("/etc/mayfly/keys.json".into()));
    assert_eq!(config.oidc_issuers[0].ca_file, Some(PathBuf::from("/etc/mayfly/roots.pem")));
    for (from, to, part) in [
        ("https://idp.example.org/", "http://idp.example.org/", "an https URL"),
        ("https://idp.example.org/", "https://mayfly.example.org/dev", "this server's own issuer"),
        ("uses = [\"subject\"]", "uses = [\"login\"]", "lacks oidc_issuers[0].audience"),
        ("uses = [\"subject\"]", "uses = [\"everything\"]", "one of login, subject, attest"),
        ("uses = [\"subject\"]", "uses = []", "some of login, subject, attest"),
        ("uses", "algorithms = [\"HS256\"]\nuses", "one of RS256"),
        ("uses", "algorithms = [\"none\"]\nuses", "one of RS256"),
        ("uses", "algorithms = []\nuses", "name at least one"),
        ("uses", "jwks = \"http://idp.example.org/keys\"\nuses", "an https URL"),
        ("uses", "max_life = \"25h\"\nuses", "from 1s to"),
        ("uses", "rights = []\nuses", "without groups_claim"),
        (
            "uses",
            "groups_claim = \"groups\"\nrights = [{ group = \"a\", upstream = \"u\" }]\nuses",
            "lacks oidc_issuers[0].rights[0].scopes",
        ),
        ("uses", "audiance = \"x\"\nuses", "did you mean audience?"),
        ("[[oidc_issuers]]", "[oidc_issuers]", "write [[oidc_issuers]] in double brackets"),
        (
            "uses",
            "uses = [\"subject\"]\n[[oidc_issuers]]\nname = \"idp\"\nissuer = \"https://b.example\"\nenvironments = [\"dev\"]\nuses",
            "has idp twice",
        ),
    ] {
        let said = with(from, to).expect_err(to);
        assert!(said.contains(part), "{to}\nwants {part} in\n{said}");
    }
}

#[test]
fn rules_for_runs_compare_an_id_and_a_branch_and_say_what_is_missing() {
    let issuer = "[own_domain]\ntrust_domain = \"ci.example.org\"\n[[oidc_issuers]]\nname = \"hub\"\nissuer = \"https://hub.example\"\n\
                  environments = [\"dev\"]\nuses = [\"attest\"]\nplatform = \"github\"\n";
    let rule = "[[attestation]]\nname = \"deploy\"\nissuer = \"hub\"\n\
                claims = { repository_id = \"12\", ref = [\"refs/heads/main\", \"refs/tags/*\"] }\n";
    let whole = format!("{issuer}{rule}[store]");
    let config = parse(&WHOLE.replacen("[store]", &whole, 1)).unwrap();
    let jobs = config.oidc_issuers[0].issuer.jobs.as_ref().unwrap();
    assert_eq!((jobs.id_claim.as_str(), jobs.key_bound), ("repository_id", true));
    let rules = &config.own_domain.unwrap().attest_rules;
    assert_eq!((rules.len(), rules[0].ttl_ms, rules[0].claims[0].1.len()), (1, 3_600_000, 2));
    for (from, to, part) in [
        ("repository_id = \"12\"", "repository = \"acme/web\"", "compare one of repository_id"),
        ("repository_id = \"12\"", "repository_id = \"acme/web\"", "is a number"),
        ("repository_id = \"12\"", "repository_id = \"12/*\"", "the id itself"),
        (", ref = [\"refs/heads/main\", \"refs/tags/*\"]", "", "which branch or environment"),
        ("\"refs/tags/*\"", "\"refs/*/v1\"", "a value as it is"),
        ("\"refs/tags/*\"", "\"*\"", "a value as it is"),
        ("ref = [\"refs/heads/main\", \"refs/tags/*\"]", "ref = []", "name a value"),
        ("claims = {", "svid_ttl = \"2h\"\nclaims = {", "from 1m to 1h"),
        ("issuer = \"hub\"", "issuer = \"lab\"", "which [[oidc_issuers]] has not"),
        ("[[attestation]]", &format!("{rule}[[attestation]]"), "deploy of hub twice"),
        ("[own_domain]\ntrust_domain = \"ci.example.org\"\n", "", "no trust domain of our own"),
        ("\"attest\"", "\"attest\", \"login\"", "people and jobs have issuers of their own"),
        ("\"attest\"", "\"subject\"", "without the use"),
        ("platform = \"github\"\n", "", "lacks oidc_issuers[0].platform"),
        ("platform = \"github\"", "platform = \"jenkins\"", "one of github, gitlab"),
        ("platform = \"github\"", "platform = \"other\"", "lacks oidc_issuers[0].id_claim"),
        ("platform = \"github\"", "platform = \"github\"\nid_claim = \"sub\"", "is known of this platform"),
        ("platform = \"github\"", "platform = \"github\"\nkey_bound = false", "is known of this platform"),
    ] {
        assert!(whole.contains(from), "{from}");
        let said = parse(&WHOLE.replacen("[store]", &whole.replacen(from, to, 1), 1)).expect_err(to);
        assert!(said.contains(part), "{to}\nwants {part} in\n{said}");
    }
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let said = parse("").unwrap_err();
    for key in KEYS.iter().filter(|k| k.default == keys::KeyDefault::Required && !keys::is_list(k.parts().0)) {
        assert!(said.contains(key.path), "{} in {said}", key.path);
    }
    for part in ["bundles", "store.path", "seal.key_file or seal.credential"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let said = parse("[server]\nissuer = 3\nenvironment = 1\n[stor]\n").unwrap_err();
    assert!(said.contains(":2:") && said.contains(":3:1") && said.contains(":4:"), "{said}");
}

#[test]
fn the_environment_overrides_the_file() {
    let config = parse_with(
        &WHOLE.replace("key_file = \"seal.key\"", ""),
        &[
            ("MAYFLY_SERVER_TRUST_DOMAIN", "other.example"),
            ("MAYFLY_SERVER_ENVIRONMENTS", "dev, prod"),
            ("MAYFLY_LISTEN_PUBLIC", "[::]:443"),
            ("MAYFLY_LIMITS_TASKS", "7"),
            ("MAYFLY_LEDGER_GATHER_WAIT", "0s"),
            ("MAYFLY_AUDIT_KEEP", "200GiB"),
            ("MAYFLY_ADMIN_UIDS", "0,1000"),
            ("MAYFLY_SEAL_CREDENTIAL", "mayfly-seal"),
            ("MAYFLY_BUNDLES", "a.example=/run/a.pem,b.example=b.json"),
            ("MAYFLY_VECTORS", "connectors"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.trust_domain, "other.example");
    assert_eq!(config.server.environments, ["dev", "prod"]);
    assert_eq!(config.listen.public.to_string(), "[::]:443");
    assert_eq!((config.limits.tasks, config.ledger.gather_wait_ms), (7, 0));
    assert_eq!((config.audit_keep, config.admin_uids), (RetentionLimit::Size(200 << 30), vec![0, 1000]));
    assert_eq!(config.seal, SealingKeySource::Credential("mayfly-seal".into()));
    let bundles: Vec<_> =
        config.bundles.iter().map(|b| (b.trust_domain.as_str(), b.file.as_ref().unwrap().to_str().unwrap())).collect();
    assert_eq!(bundles, [("a.example", "/run/a.pem"), ("b.example", "/etc/mayfly/b.json")]);
}

#[test]
fn a_wrong_variable_is_named_by_its_name() {
    for (name, value, parts) in [
        ("MAYFLY_LIMITS_TSKS", "7", &["MAYFLY_LIMITS_TSKS: unknown", "did you mean MAYFLY_LIMITS_TASKS?"][..]),
        ("MAYFLY_LIMITS_TASKS", "many", &["MAYFLY_LIMITS_TASKS: limits.tasks is a text", "from 1 to"]),
        ("MAYFLY_LIMITS_TASKS", "99999999999999999999", &["MAYFLY_LIMITS_TASKS: ", "from 1 to"]),
        ("MAYFLY_LIMITS_CREDENTIAL_TTL", "1", &["MAYFLY_LIMITS_CREDENTIAL_TTL: ", "1h30m"]),
        ("MAYFLY_BUNDLES", "x=", &["MAYFLY_BUNDLES: has \"x=\"", "domain=file", "a domain alone"]),
        ("MAYFLY_BUNDLES", "x", &["the bundle of x has no file", "no workload_api.socket"]),
        ("MAYFLY_STORE_ENGINE", "sled\"\n[x]\ny=\"", &["MAYFLY_STORE_ENGINE: store.engine has control characters"]),
    ] {
        let said = parse_with(WHOLE, &[(name, value)]).expect_err(name);
        for part in parts {
            assert!(said.contains(part), "{part} in\n{said}");
        }
    }
}

#[test]
fn every_key_has_one_variable_and_the_reference_is_the_table() {
    let mut variables: Vec<String> = KEYS.iter().filter(|k| !keys::is_list(k.parts().0)).map(|k| k.variable()).collect();
    variables.sort();
    let all = variables.len();
    variables.dedup();
    assert_eq!(variables.len(), all);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("MAYFLY_WRITE_DOCS").is_some() {
        fs::write(&page, reference()).unwrap();
    }
    let written = fs::read_to_string(&page).unwrap_or_default();
    assert!(written == reference(), "docs/configuration.md is not the table of keys: write it with MAYFLY_WRITE_DOCS=1");
}
