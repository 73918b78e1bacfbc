//! The table and JSON form of each noun. JSON field names and their order are an interface; a change here breaks scripts.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::seq::LeaseId;
use serde_json::{Value, json};

use crate::answers::{CHILD, CREDENTIAL, TASK, at, caller, credential, echo, follower, hits, task, uid, workload};
use crate::double::Stage;

/// The names of a JSON object, in the order in which they were printed.
fn names(text: &str) -> Vec<&str> {
    let own = text.lines().filter(|l| l.starts_with("    \"") || (l.starts_with("  \"") && text.starts_with('{')));
    own.filter(|l| text.starts_with('[') || !l.starts_with("    ")).filter_map(|l| l.split('"').nth(1)).collect()
}

fn tasks() -> Stage {
    let stage = Stage::new();
    stage.double.on(|_: pb::ListTasksRequest| Ok(pb::ListTasksResponse { tasks: vec![task()], next_page_token: String::new() }));
    stage.double.on(|_: pb::GetTaskRequest| Ok(pb::GetTaskResponse { task: Some(task()) }));
    stage
}

#[test]
fn tasks_as_a_table() {
    let stage = tasks();
    assert_eq!(
        stage.run("task list").ok(),
        "TASK                             STATE   UNEXPIRED  DEADLINE              OWNER                            PURPOSE\n\
         task_baaaaaaaaaaaaaaaaaaaaaaaaa  active  2          2026-11-20T09:00:00Z  spiffe://example.org/ci/nightly  nightly \\u{1b}[31mdeploy\\u{202e}\n"
    );
    let wide = stage.run("task list -o wide").ok();
    assert!(
        wide.contains("github=repo:read,issues:read  prod         task_aaaaaaaaaaaaaaaaaaaaaaaaaa  2026-11-20T08:00:30Z  41\n"),
        "{wide}"
    );
    assert_eq!(stage.run("task list -o name").ok(), format!("{CHILD}\n"));
}

#[test]
fn a_task_as_json_and_yaml() {
    let stage = tasks();
    let text = stage.run(&format!("task show {CHILD} -o json")).ok();
    assert!(text.is_ascii(), "what acts on a terminal is written out: {text}");
    assert_eq!(
        names(&text),
        [
            "task_id",
            "state",
            "purpose",
            "environment",
            "owner",
            "opener",
            "upstreams",
            "tools",
            "any_tool",
            "kinds",
            "callers",
            "key_bound",
            "path",
            "depth",
            "opened_at",
            "deadline",
            "max_deadline",
            "heartbeat_interval_ms",
            "heartbeat_due",
            "holds",
            "live_credentials",
            "issued_credentials",
            "open_children",
            "seq",
            "decision_revision",
            "approval_id",
            "end"
        ]
    );
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["purpose"], "nightly \u{1b}[31mdeploy\u{202e}");
    assert_eq!(value["owner"], json!({"spiffe_id": "spiffe://example.org/ci/nightly"}));
    assert_eq!(value["upstreams"], json!([{"upstream": "github", "scopes": ["repo:read", "issues:read"]}]));
    assert_eq!((&value["heartbeat_interval_ms"], &value["end"]), (&json!(30_000), &Value::Null));
    let yaml = stage.run(&format!("task show {CHILD} -o yaml")).ok();
    let begins = "task_id: task_baaaaaaaaaaaaaaaaaaaaaaaaa\nstate: active\npurpose: \"nightly \\u001b[31mdeploy\\u202e\"\nenvironment: prod\nowner:\n  spiffe_id: spiffe://example.org/ci/nightly\n";
    assert!(yaml.starts_with(begins), "{yaml}");
    assert!(
        yaml.contains(
            "upstreams:\n  - upstream: github\n    scopes:\n      - \"repo:read\"\n      - \"issues:read\"\ntools:\n  - deploy\n"
        ),
        "{yaml}"
    );
    assert!(yaml.contains("deadline: \"2026-11-20T09:00:00Z\"\n"), "{yaml}");
}

#[test]
fn a_list_is_an_array_and_goes_on_over_pages() {
    let stage = Stage::new();
    stage.double.on(|q: pb::ListTasksRequest| {
        let page = |next: &str| pb::ListTasksResponse { tasks: vec![task()], next_page_token: next.to_owned() };
        Ok(if q.page_token.is_empty() { page("2") } else { page("") })
    });
    assert_eq!(stage.run("task list -o json").json().as_array().unwrap().len(), 2);
    let cut = stage.run("task list --limit 1 -o name");
    assert!(cut.stderr.contains("more than these 1"), "{}", cut.stderr);
    assert_eq!(cut.ok(), format!("{CHILD}\n"));
}

#[test]
fn credentials() {
    let stage = Stage::new();
    stage.double.on(|_: pb::ListCredentialsRequest| {
        Ok(pb::ListCredentialsResponse { credentials: vec![credential()], ..Default::default() })
    });
    assert_eq!(
        stage.run("credential list").ok(),
        "CREDENTIAL                       KIND  STATE   UPSTREAM  SCOPES     EXPIRES               CALLER\n\
         cred_aaaaaaaaaaaaaaaaaaaaaaaaaa  jwt   active  github    repo:read  2026-11-20T08:05:00Z  spiffe://example.org/ci/nightly\n"
    );
    let text = stage.run("credential list -o json").ok();
    assert_eq!(names(&text)[..8], ["credential_id", "kind", "state", "caller", "subject", "act", "upstream", "scopes"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value[0]["arguments_sha256"], "ab".repeat(32));
    assert_eq!(value[0]["ended_by_seq"], Value::Null);
}

#[test]
fn a_found_token() {
    let stage = Stage::new();
    stage.double.on(|q: pb::LookupTokenRequest| {
        assert_eq!(q.by, Some(pb::lookup_token_request::By::Sha256(vec![0xab; 32].into())));
        let choice = pb::TargetChoice { target: caller("spiffe://example.org/it's"), hits: hits(3, 1, 1) };
        let standing = pb::TokenStanding::Issued.into();
        Ok(pb::LookupTokenResponse { standing, credential: Some(credential()), choices: vec![choice], ..Default::default() })
    });
    let ran = stage.run(&format!("token lookup --sha256 {}", "ab".repeat(32)));
    assert!(
        ran.stderr.contains(
            r"mayfly revoke --caller 'spiffe://example.org/it'\''s' --reason TEXT    hits 3 credentials, 1 task, 1 caller"
        ),
        "{}",
        ran.stderr
    );
    let shown = ran.ok();
    assert!(shown.starts_with("standing                      issued\n"), "{shown}");
    assert!(shown.contains(&format!("credential.credential id      {CREDENTIAL}\n")), "{shown}");
}

#[test]
fn rules_locks_and_followers() {
    let stage = Stage::new();
    stage.double.on(|_: pb::ListRulesRequest| {
        let rule = pb::Rule {
            seq: 77,
            targets: vec![caller("spiffe://example.org/ci").unwrap()],
            author: uid(0),
            reason: "stolen\nkey".to_owned(),
            at: at(0),
            hits: hits(12, 3, 1),
            ..pb::Rule::default()
        };
        let not_counted = pb::Rule { seq: 76, reason: "done".to_owned(), hits: None, ..rule.clone() };
        Ok(pb::ListRulesResponse { rules: vec![rule, not_counted], next_page_token: String::new() })
    });
    stage.double.on(|_: pb::ListFollowersRequest| {
        Ok(pb::ListFollowersResponse { followers: vec![follower("gw-1", 50)], next_page_token: String::new() })
    });
    assert_eq!(
        stage.run("rules list").ok(),
        "SEQ  TARGETS                         HIT  AT                    AUTHOR  REASON\n\
         77   caller spiffe://example.org/ci  12   2026-11-20T08:00:00Z  uid 0   stolen\\nkey\n\
         76   caller spiffe://example.org/ci  -    2026-11-20T08:00:00Z  uid 0   done\n"
    );
    let rule = &stage.run("rules list -o json").json()[0];
    assert_eq!(
        rule["targets"][0],
        json!({"kind": "caller", "values": ["spiffe://example.org/ci"], "flag": "--caller spiffe://example.org/ci"})
    );
    assert_eq!((&rule["author"], &rule["kept_until"]), (&json!({"local_uid": 0}), &Value::Null));
    assert_eq!(
        stage.run("follower list").ok(),
        "FOLLOWER  IDENTITY                      CONNECTED  APPLIED  LAST SEEN\n\
         gw-1      spiffe://example.org/gateway  yes        50       2026-11-20T08:00:01Z\n"
    );
    assert_eq!(stage.run("rules list --caller a --caller b").exit, 2);
}

#[test]
fn keys_bundles_and_upstreams() {
    let stage = Stage::new();
    let key = pb::Key {
        key_id: "k1".to_owned(),
        purpose: pb::KeyPurpose::AccessToken.into(),
        state: pb::KeyState::Active.into(),
        environment: "prod".to_owned(),
        algorithm: "ES256".to_owned(),
        active_from: at(0),
        ..pb::Key::default()
    };
    stage
        .double
        .on(move |_: pb::ListKeysRequest| Ok(pb::ListKeysResponse { keys: vec![key.clone()], next_page_token: String::new() }));
    assert_eq!(
        stage.run("key list").ok(),
        "KEY  PURPOSE       STATE   ALGORITHM  ENVIRONMENT  SIGNS FROM\nk1   access_token  active  ES256      prod         2026-11-20T08:00:00Z\n"
    );
    stage.double.on(|_: pb::GetBundleRequest| {
        let anchor = pb::TrustAnchor {
            sha256: vec![1; 32].into(),
            subject: "CN=root".to_owned(),
            vouches_for: hits(4, 1, 1),
            ..Default::default()
        };
        let domain = pb::TrustDomain {
            trust_domain: "example.org".to_owned(),
            source: pb::BundleSource::File.into(),
            sequence: Some(3),
            trust_anchors: vec![anchor],
            ..pb::TrustDomain::default()
        };
        Ok(pb::GetBundleResponse { trust_domain: Some(domain), spiffe_jwks: r#"{"keys":[]}"#.to_owned() })
    });
    let shown = stage.run("bundle show example.org").ok();
    assert!(shown.contains(&format!("trust anchors[0].sha256                   {}\n", "01".repeat(32))), "{shown}");
    assert_eq!(stage.run("bundle show example.org --jwks").ok(), "{\"keys\":[]}\n");
    stage.double.on(|_: pb::GetUpstreamRequest| Ok(pb::GetUpstreamResponse { upstream: Some(echo()) }));
    let json = stage.run("upstream show echo -o json").json();
    assert_eq!((&json["kinds"], &json["sensitive_scopes"]), (&json!(["jwt", "reference"]), &json!(["echo:admin"])));
    assert_eq!(json["max_ttl_ms"], 3_600_000);
}

#[test]
fn leases() {
    let stage = Stage::new();
    let lease = || pb::Lease {
        lease_id: LeaseId::from_bytes([1; 16]).to_string(),
        upstream: "warehouse".to_owned(),
        credential_id: CREDENTIAL.to_owned(),
        state: pb::UpstreamState::Pending.into(),
        what: "mayfly_role".to_owned(),
        attempts: 3,
        next_attempt: at(0),
        last_error: "no route\u{1b} to host".to_owned(),
        cause: "the task is over".to_owned(),
        ..pb::Lease::default()
    };
    stage.double.on(move |ask: pb::ListLeasesRequest| {
        assert_eq!((&*ask.upstream, ask.state()), ("warehouse", pb::UpstreamState::Pending));
        Ok(pb::ListLeasesResponse { leases: vec![lease()], next_page_token: String::new() })
    });
    let listed = stage.run("lease list --upstream warehouse --state pending").ok();
    assert!(
        listed.starts_with("LEASE ")
            && listed.contains("pending  warehouse  mayfly_role  -       3         no route\\u{1b} to host"),
        "{listed}"
    );
    stage.double.on(move |_: pb::RetryLeaseRequest| Ok(pb::RetryLeaseResponse { lease: Some(lease()) }));
    let id = LeaseId::from_bytes([1; 16]);
    stage.double.on(move |ask: pb::GetLeaseRequest| {
        assert_eq!(ask.lease_id, LeaseId::from_bytes([1; 16]).to_string());
        Ok(pb::GetLeaseResponse { lease: Some(lease()) })
    });
    let shown = stage.run(&format!("lease show {id}")).ok();
    assert!(shown.contains("the task is over") && shown.contains("no route\\u{1b} to host"), "{shown}");
    for state in ["undone", "none"] {
        assert_eq!(stage.run(&format!("lease list --state {state}")).exit, 2);
    }
    assert_eq!(stage.run(&format!("lease retry {id} -o name")).ok(), format!("{id}\n"));
    stage.double.on(move |ask: pb::AbandonLeaseRequest| {
        assert!(ask.reason == "gone" && ask.request_id.starts_with("cli-"));
        let state = pb::UpstreamState::Abandoned.into();
        Ok(pb::AbandonLeaseResponse { lease: Some(pb::Lease { state, next_attempt: None, ..lease() }) })
    });
    let ran = stage.run(&format!("lease abandon {id} --reason gone -o json"));
    assert!(ran.stderr.contains("given up: mayfly_role at warehouse"), "{}", ran.stderr);
    let text = ran.ok();
    assert_eq!(
        names(&text),
        [
            "lease_id",
            "state",
            "upstream",
            "what",
            "credential_id",
            "attempts",
            "next_attempt",
            "last_error",
            "opened_at",
            "kind",
            "task_id",
            "cause",
            "ends_at",
            "watched"
        ]
    );
    assert_eq!(stage.run("lease abandon nonsense --reason gone").exit, 2);
}

#[test]
fn the_server_and_ourselves() {
    let stage = Stage::new();
    stage.double.on(|_: pb::GetStatusRequest| {
        let issuing = pb::Issuing { issuing: false, reason: "DISK_RESERVE".to_owned(), message: "the disk is full".to_owned() };
        let counts = pb::Counts { credentials: 9, rules: 1, leases_failing: 2, ..pb::Counts::default() };
        Ok(pb::GetStatusResponse {
            version: "0.1.0".to_owned(),
            issuing: Some(issuing),
            counts: Some(counts),
            ..Default::default()
        })
    });
    let ran = stage.run("status -o json");
    assert!(ran.stderr.contains("it does not issue: the disk is full [DISK_RESERVE]"), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 leases could not be undone yet"), "{}", ran.stderr);
    assert!(ran.stderr.contains("include what was revoked and has not expired"), "{}", ran.stderr);
    let json = ran.json();
    assert_eq!((&json["issuing"], &json["counts"]["credentials"], &json["disk"]), (&json!(false), &json!(9), &Value::Null));
    stage.double.on(|_: pb::WhoamiRequest| {
        let lock = pb::Lock { seq: 5, reason: "theft".to_owned(), ..pb::Lock::default() };
        let identity = workload("spiffe://example.org/ci");
        Ok(pb::WhoamiResponse {
            identity,
            environment: "prod".to_owned(),
            roles: vec!["ci".to_owned()],
            locks: vec![lock],
            ..Default::default()
        })
    });
    let ran = stage.run("whoami");
    assert!(ran.stderr.contains("a lock keeps us from new grants since 5: theft"), "{}", ran.stderr);
    // The server does not say the reason to everybody; the lock has a name all the same.
    stage.double.on(|_: pb::WhoamiRequest| {
        let target = Some(pb::Target { target: Some(pb::target::Target::Everything(pb::EverythingTarget {})) });
        let lock = pb::Lock { seq: 5, target, ..pb::Lock::default() };
        Ok(pb::WhoamiResponse { identity: workload("spiffe://example.org/ci"), locks: vec![lock], ..Default::default() })
    });
    let whoami = stage.run("whoami");
    assert!(whoami.stderr.contains("since 5: lock 5 on everything"), "{}", whoami.stderr);
    assert!(ran.stdout.starts_with("identity.spiffe id  spiffe://example.org/ci\nenvironment         prod\n"), "{}", ran.stdout);
}

#[test]
fn a_request_that_no_record_names_ends_with_not_found() {
    let stage = Stage::new();
    stage.double.on(|q: pb::ExplainRequest| {
        assert!(matches!(q.of, Some(pb::explain_request::Of::Request(_))));
        let finding = pb::Finding { subject: "refused".to_owned(), text: "LOCKED".to_owned(), permits: false, seq: 3 };
        let summary = "nothing was granted".to_owned();
        Ok(pb::ExplainResponse { summary, findings: vec![finding], request_unknown: true, ..Default::default() })
    });
    let ran = stage.run("explain --request-id nope");
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.stdout.contains("LOCKED"), "the refusals are shown all the same: {}", ran.stdout);
    assert!(ran.stderr.contains("no record has this request id") && ran.stderr.contains("[NOT_FOUND]"), "{}", ran.stderr);
    let ran = stage.run("explain --request-id nope -o json");
    assert_eq!(ran.exit, 3, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["request_unknown"], true);
}

#[test]
fn an_explanation_reads_from_top_to_bottom() {
    let stage = Stage::new();
    stage.double.on(|q: pb::ExplainRequest| {
        assert_eq!(q.of, Some(pb::explain_request::Of::TaskId(TASK.to_owned())));
        let finding = |subject: &str, text: &str, permits, seq| pb::Finding {
            subject: subject.to_owned(),
            text: text.to_owned(),
            permits,
            seq,
        };
        let record = pb::Record {
            seq: 41,
            at: at(0),
            event: "task opened".to_owned(),
            author: uid(0),
            body: r#"{"depth":0}"#.to_owned(),
            ..Default::default()
        };
        Ok(pb::ExplainResponse {
            summary: "open; nothing stands in its way".to_owned(),
            findings: vec![finding("rule", "none covers it", true, 0), finding("policy", "ci may", true, 12)],
            records: vec![record],
            ..Default::default()
        })
    });
    assert_eq!(
        stage.run(&format!("explain {TASK}")).ok(),
        "open; nothing stands in its way\n\n\
         LOOKED AT  PERMITS  WHAT CAME OF IT  RECORD\n\
         rule       yes      none covers it   -\n\
         policy     yes      ci may           12\n\n\
         RECORD  AT                    EVENT        AUTHOR  VOID BECAUSE\n\
         41      2026-11-20T08:00:00Z  task opened  uid 0   -\n"
    );
    assert_eq!(stage.run(&format!("explain {TASK} -o json")).json()["records"][0]["body"], json!({"depth": 0}));
}
