//! Tests of attestation rules: which job a rule admits, and every way around a rule.

use serde_json::{Map, Value, json};

use super::*;

fn issuer(platform: Platform, id_claim: &str) -> Issuer {
    Issuer {
        name: "hub".into(),
        issuer: "https://token.example".into(),
        environments: vec!["prod".into()],
        audience: None,
        audiences: None,
        algorithms: Vec::new(),
        uses: vec![super::super::IssuerUse::Attest],
        max_life_ms: 600_000,
        scopes_claim: None,
        groups_claim: None,
        rights: Vec::new(),
        jobs: Some(AttestationProfile { platform, id_claim: id_claim.into(), key_bound: platform.chooses_audience() }),
    }
}

fn rule(name: &str, claims: &[(&str, &[&str])]) -> AttestationRule {
    let values = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
    let claims = claims.iter().map(|(name, all)| ((*name).to_owned(), values(all))).collect();
    AttestationRule { name: name.into(), issuer: "hub".into(), claims, ttl_ms: 600_000 }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn github(change: impl Fn(&mut Value)) -> Map<String, Value> {
    let mut claims = json!({
        "sub": "repo:acme/web:ref:refs/heads/main", "repository": "acme/web", "repository_id": "1296269", "repository_owner_id": "42",
        "ref": "refs/heads/main", "sha": "abc", "event_name": "push", "run_id": "7", "run_attempt": "1", "actor_id": "5",
        "workflow_ref": "acme/web/.github/workflows/deploy.yml@refs/heads/main", "runner_environment": "github-hosted",
    });
    change(&mut claims);
    object(claims)
}

#[test]
fn a_run_is_let_in_by_the_id_of_its_repository_and_no_name() {
    let hub = issuer(Platform::Github, "repository_id");
    let rules = [rule("deploy", &[("repository_id", &["1296269"]), ("ref", &["refs/heads/main"])])];
    let claims = github(|_| {});
    let job = attested(&hub, &rules, None, &claims).unwrap();
    assert_eq!((job.rule.name.as_str(), job.id.as_str()), ("deploy", "1296269"));
    for told in ["event_name=push", "ref=refs/heads/main", "repository=acme/web", "repository_id=1296269", "run_id=7", "sha=abc"]
    {
        assert!(job.claims.iter().any(|c| c == told), "{told}: {:?}", job.claims);
    }
    assert!(job.claims.is_sorted());
    // A renamed or transferred repository keeps its id and is still admitted.
    let renamed = github(|c| c["repository"] = "other/name".into());
    assert!(attested(&hub, &rules, None, &renamed).is_ok());
    type Change = fn(&mut Value);
    let others: [(&str, Change); 9] = [
        ("another repository, of the same name", |c| c["repository_id"] = "999".into()),
        ("a branch", |c| c["ref"] = "refs/heads/feature".into()),
        ("a branch whose name goes on", |c| c["ref"] = "refs/heads/main2".into()),
        ("a request to merge", |c| c["event_name"] = "pull_request".into()),
        ("a request to merge that runs on the branch", |c| c["event_name"] = "pull_request_target".into()),
        ("somebody's comment", |c| c["event_name"] = "issue_comment".into()),
        ("nothing that began it", |c| drop(c.as_object_mut().unwrap().remove("event_name"))),
        ("no ref", |c| drop(c.as_object_mut().unwrap().remove("ref"))),
        ("a list", |c| c["repository_id"] = json!(["1296269"])),
    ];
    for (what, change) in others {
        assert!(attested(&hub, &rules, None, &github(change)).is_err(), "{what}");
    }
}

#[test]
fn what_begins_a_run_is_asked_for_by_itself_and_may_be_named() {
    let hub = issuer(Platform::Github, "repository_id");
    let base: (&str, &[&str]) = ("repository_id", &["1296269"]);
    let closed = [rule("a", &[base, ("ref", &["refs/*"])])];
    let open = [rule("a", &[base, ("ref", &["refs/*"]), ("event_name", &["pull_request", "push"])])];
    for (event, by_default, named) in [
        ("push", true, true),
        ("schedule", true, false),
        ("workflow_dispatch", true, false),
        ("pull_request", false, true),
        ("pull_request_target", false, false),
        ("workflow_run", false, false),
    ] {
        let claims = github(|c| c["event_name"] = event.into());
        assert_eq!(attested(&hub, &closed, None, &claims).is_ok(), by_default, "{event}");
        assert_eq!(attested(&hub, &open, None, &claims).is_ok(), named, "{event}");
    }
}

#[test]
fn a_tag_is_no_branch_of_the_same_name_and_an_environment_counts_where_it_is_protected() {
    let lab = issuer(Platform::Gitlab, "project_id");
    let claims = |more: Value| {
        let mut claims = object(json!({
            "project_id": "22", "pipeline_source": "push", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main",
            "ref_protected": "true", "job_id": "9",
        }));
        claims.extend(object(more));
        claims
    };
    let id: (&str, &[&str]) = ("project_id", &["22"]);
    let fits =
        |rule: &AttestationRule, claims: &Map<String, Value>| attested(&lab, std::slice::from_ref(rule), None, claims).is_ok();
    let (branch, tag) = (claims(json!({})), claims(json!({"ref_type": "tag", "ref_path": "refs/tags/main"})));
    let by_ref = rule("a", &[id, ("ref", &["main"])]);
    assert!(fits(&by_ref, &branch) && !fits(&by_ref, &tag), "whoever may make a tag may name it like a branch");
    let tags = rule("a", &[id, ("ref", &["main"]), ("ref_type", &["tag"])]);
    assert!(!fits(&tags, &branch) && fits(&tags, &tag), "a rule may say so");
    let by_path = rule("a", &[id, ("ref_path", &["refs/heads/main"])]);
    assert!(fits(&by_path, &branch) && !fits(&by_path, &tag));
    assert_eq!(attested(&lab, &[by_ref], None, &branch).unwrap().claims.iter().filter(|c| **c == "job_id=9").count(), 1);

    let by_environment = rule("a", &[id, ("environment", &["production"])]);
    let staged = |protected: &str| claims(json!({"environment": "production", "environment_protected": protected}));
    assert!(fits(&by_environment, &staged("true")) && !fits(&by_environment, &staged("false")));
    assert!(!fits(&by_environment, &claims(json!({"environment": "production"}))));
    let both = rule("a", &[id, ("environment", &["production"]), ("ref_path", &["refs/heads/main"])]);
    assert!(fits(&both, &staged("false")), "the branch says enough");

    // For merge request pipelines GitLab runs beside the target branch, `pipeline_source` shows their origin.
    for source in ["merge_request_event", "external_pull_request_event", "parent_pipeline", "api", "trigger"] {
        assert!(!fits(&by_path, &claims(json!({"pipeline_source": source}))), "{source}");
    }
}

#[test]
fn a_build_of_a_tag_is_none_of_the_branch_of_its_name() {
    let kite = issuer(Platform::Buildkite, "pipeline_id");
    let claims = |more: Value| {
        let mut claims = object(json!({
            "pipeline_id": "0186-77", "organization_id": "0184-1", "pipeline_slug": "web", "build_branch": "main", "job_id": "0186-1",
            "step_key": "build",
        }));
        claims.extend(object(more));
        claims
    };
    let id: (&str, &[&str]) = ("pipeline_id", &["0186-77"]);
    let fits =
        |rule: &AttestationRule, claims: &Map<String, Value>| attested(&kite, std::slice::from_ref(rule), None, claims).is_ok();
    let branch = rule("a", &[id, ("build_branch", &["main"])]);
    for none in [json!({}), json!({"build_tag": null}), json!({"build_tag": ""})] {
        assert!(fits(&branch, &claims(none)));
    }
    for tag in [json!({"build_tag": "main"}), json!({"build_tag": ["main"]}), json!({"build_tag": 1})] {
        assert!(!fits(&branch, &claims(tag)));
    }
    let tags = rule("a", &[id, ("build_tag", &["v1"])]);
    assert!(fits(&tags, &claims(json!({"build_tag": "v1", "build_branch": "v1"}))) && !fits(&tags, &claims(json!({}))));
    // A pipeline of the same name in another organization, or one created anew.
    for other in [json!({"pipeline_id": "0186-78"}), json!({"pipeline_id": null})] {
        assert!(!fits(&branch, &claims(other)));
    }
    let job = attested(&kite, std::slice::from_ref(&branch), None, &claims(json!({}))).unwrap().claims;
    assert!(job.contains(&"job_id=0186-1".to_owned()) && job.contains(&"step_key=build".to_owned()), "{job:?}");
}

#[test]
fn the_first_rule_that_fits_counts_or_the_one_that_is_named() {
    let hub = issuer(Platform::Github, "repository_id");
    let id: (&str, &[&str]) = ("repository_id", &["1296269"]);
    let mut rules = vec![
        rule("tags", &[id, ("ref", &["refs/tags/*"])]),
        rule("all", &[id, ("ref", &["refs/*"])]),
        rule("other", &[("repository_id", &["1"]), ("ref", &["refs/*"])]),
    ];
    let claims = github(|_| {});
    assert_eq!(attested(&hub, &rules, None, &claims).unwrap().rule.name, "all");
    let tag = github(|c| c["ref"] = "refs/tags/v1".into());
    assert_eq!(attested(&hub, &rules, None, &tag).unwrap().rule.name, "tags");
    assert_eq!(attested(&hub, &rules, Some("all"), &tag).unwrap().rule.name, "all");
    assert!(attested(&hub, &rules, Some("other"), &claims).is_err(), "who names a rule is not let in by it");
    assert!(attested(&hub, &rules, Some("none"), &claims).is_err());
    let Err(AttestationError::Rules(why)) = attested(&hub, &rules, Some("tags"), &claims) else { panic!() };
    assert_eq!(why, ["tags: ref is \"refs/heads/main\""]);
    rules.iter_mut().for_each(|r| r.issuer = "lab".into());
    assert!(attested(&hub, &rules, None, &claims).is_err(), "another issuer's rules");
}

#[test]
fn everything_below_is_whole_segments() {
    for (value, wanted, fit) in [
        ("refs/tags/v1", "refs/tags/*", true),
        ("refs/tags/a/b", "refs/tags/*", true),
        ("refs/tags/", "refs/tags/*", false),
        ("refs/tags", "refs/tags/*", false),
        ("refs/tagsx/v1", "refs/tags/*", false),
        ("refs/tags/*", "refs/tags/v1", false),
        ("main", "main", true),
        ("main", "Main", false),
    ] {
        assert_eq!(fits(value, wanted), fit, "{value} {wanted}");
    }
}

#[test]
fn a_pod_is_its_service_account_by_uid() {
    let hub = issuer(Platform::Kubernetes, "kubernetes.io/serviceaccount/uid");
    let claims = object(json!({
        "sub": "system:serviceaccount:shop:api",
        "kubernetes.io": {
            "namespace": "shop", "serviceaccount": {"name": "api", "uid": "0c2b-1"}, "pod": {"name": "api-1", "uid": "77"},
        },
    }));
    let rules = [rule("api", &[("kubernetes.io/serviceaccount/uid", &["0c2b-1"])])];
    let job = attested(&hub, &rules, None, &claims).unwrap();
    assert_eq!(job.id, "0c2b-1");
    assert!(job.claims.contains(&"kubernetes.io/pod/uid=77".to_owned()), "{:?}", job.claims);
    let mut recreated = claims.clone();
    recreated["kubernetes.io"]["serviceaccount"]["uid"] = "0c2b-2".into();
    assert!(attested(&hub, &rules, None, &recreated).is_err(), "another one of the same name");
    // A top-level claim whose name equals a path takes precedence over the path.
    let mut both = claims;
    both.insert("kubernetes.io/serviceaccount/uid".into(), "0c2b-9".into());
    assert!(attested(&hub, &rules, None, &both).is_err());
}

#[test]
fn numbers_and_flags_are_compared_as_they_are_written() {
    let claims =
        object(json!({"n": 12, "neg": -1, "float": 1.5, "flag": true, "null": null, "long": "x".repeat(300), "bad": "a\u{7}"}));
    assert_eq!(claim(&claims, "n").unwrap(), "12");
    assert_eq!(claim(&claims, "neg").unwrap(), "-1");
    assert_eq!(claim(&claims, "flag").unwrap(), "true");
    for none in ["float", "null", "long", "bad", "absent", "n/x", ""] {
        assert!(claim(&claims, none).is_none(), "{none}");
    }
}

#[test]
fn an_issuer_without_runs_lets_none_in() {
    let hub = Issuer { jobs: None, ..issuer(Platform::Github, "repository_id") };
    assert_eq!(attested(&hub, &[], None, &github(|_| {})), Err(AttestationError::Issuer));
    let odd = issuer(Platform::Other, "project");
    assert_eq!(attested(&odd, &[], None, &github(|_| {})), Err(AttestationError::Id("project".into())));
}

#[test]
fn a_rule_that_stands_behind_a_wider_one_is_found() {
    let rule = |name: &str, claims: &[(&str, &[&str])]| AttestationRule {
        name: name.into(),
        issuer: "hub".into(),
        claims: claims.iter().map(|(n, v)| ((*n).to_owned(), v.iter().map(|v| (*v).to_owned()).collect())).collect(),
        ttl_ms: 1,
    };
    let wide = rule("wide", &[("repository_id", &["1"]), ("ref", &["refs/heads/*"])]);
    let main = rule("main", &[("repository_id", &["1"]), ("ref", &["refs/heads/main"])]);
    let tags = rule("tags", &[("repository_id", &["1"]), ("ref", &["refs/heads/main", "refs/tags/*"])]);
    let other = rule("other", &[("repository_id", &["2"]), ("ref", &["refs/heads/main"])]);
    let requests =
        rule("requests", &[("repository_id", &["1"]), ("ref", &["refs/heads/main"]), ("event_name", &["pull_request"])]);
    let hub = Platform::Github;
    assert!(wide.includes(&main, hub) && wide.includes(&wide, hub));
    assert!(!main.includes(&wide, hub) && !wide.includes(&tags, hub) && !wide.includes(&other, hub));
    // The wide rule does not name `event_name`, so it does not cover pull requests.
    assert!(!wide.includes(&requests, hub));
    let other_issuer = AttestationRule { issuer: "lab".into(), ..main };
    assert!(!wide.includes(&other_issuer, hub));
}
