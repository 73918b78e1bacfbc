//! Jobs that attest with a token of the platform that runs them, on a whole server: which jobs are admitted, under which SPIFFE ID, and how
//! their login ends.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use mayfly::cli::dev::DevEngine;
use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::serve::attest::AttestMethods;
use mayfly::serve::people::{LoginAnswer, LoginRefused};
use serde_json::{Value, json};

use crate::people_rig::{DOMAIN, Key, Person, Rig, exchange};
use crate::provider::{Provider, seconds_now};
use crate::signer::Signer;

const POLICY: &str = r#"
@id("jobs-sign-in")
permit (principal in Role::"jobs", action == Action::"SignIn", resource)
when { context has job && !context.job.claims.contains("runner_environment=self-hosted") };

@id("jobs-work")
permit (principal in Role::"jobs", action in Action::"Work", resource == Upstream::"echo")
when { context.purpose != "" };
"#;

/// The `aud` of a platform that lets no job choose an audience.
const ISSUER: &str = "https://dev.mayfly.internal";

/// Two job platforms in addition to the people's provider.
pub struct Runs {
    pub rig: Rig,
    pub hub: Provider,
    lab: Provider,
    pods: Provider,
}

impl Runs {
    pub fn new() -> Runs {
        Runs::on(DevEngine::Memory)
    }

    fn on(engine: DevEngine) -> Runs {
        let (hub, lab, pods) = (Provider::start(), Provider::start(), Provider::start());
        let section = |p: &Provider, name: &str, platform: &str| {
            p.section(name, &["dev"], &format!("uses = [\"attest\"]\nplatform = \"{platform}\""))
        };
        let sections =
            [section(&hub, "hub", "github"), section(&lab, "lab", "gitlab"), section(&pods, "pods", "kubernetes")].concat();
        let rules = r#"
[[attestation]]
name = "deploy"
issuer = "hub"
claims = { repository_id = "1296269", ref = ["refs/heads/main", "refs/tags/*"] }
svid_ttl = "10m"

[[attestation]]
name = "any"
issuer = "lab"
claims = { project_id = "22", ref = "main" }

[[attestation]]
name = "api"
issuer = "pods"
claims = { "kubernetes.io/serviceaccount/uid" = "0c2b-1" }
"#;
        let rig = Rig::edited(engine, "", &|world| {
            let edit = |path: &str, change: &dyn Fn(String) -> String| {
                let path = world.dir().join(path);
                std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
            };
            edit("mayfly.toml", &|text| text + &sections + rules);
            edit("policy/policy.cedar", &|text| text + POLICY);
            let people = format!("\"spiffe://{DOMAIN}/people\"]");
            edit("policy/roles.toml", &|text| {
                let text = text.replacen(&people, &format!("\"spiffe://{DOMAIN}/people\", \"spiffe://{DOMAIN}/ci\"]"), 1);
                format!("{text}\n[role.jobs]\nunder = [\"spiffe://{DOMAIN}/ci\"]\n")
            });
        });
        Runs { rig, hub, lab, pods }
    }

    /// Valid claims of a deployment job, bound to a key.
    pub fn deploy(&self, key: &Key) -> Value {
        let mut claims = self.hub.claims("repo:acme/web:ref:refs/heads/main", &format!("{ISSUER}#{}", key.nonce()));
        let more = json!({
            "repository": "acme/web", "repository_id": "1296269", "repository_owner_id": "42", "ref": "refs/heads/main", "sha": "0a1b",
            "event_name": "push", "run_id": "700", "run_attempt": "1", "actor_id": "5", "runner_environment": "github-hosted",
            "jti": key.nonce(),
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    }

    async fn ask(&self, token: &str, key: &Key) -> Result<LoginAnswer, LoginRefused> {
        self.ask_for(json!({"token": token, "csr": key.csr()}), token).await
    }

    async fn ask_for(&self, body: Value, token: &str) -> Result<LoginAnswer, LoginRefused> {
        let (https, base) = self.rig.public();
        for again in 0.. {
            let answer = https.post_json(&format!("{base}/attest"), body.to_string(), 1 << 20).await.unwrap();
            if answer.status.is_success() {
                return Ok(serde_json::from_slice(&answer.body).unwrap());
            }
            let no: LoginRefused = serde_json::from_slice(&answer.body).unwrap_or_default();
            if no.reason != "NOT_READY" || again > 50 {
                assert!(token.is_empty() || !no.message.contains(token), "a token is told to nobody");
                return Err(no);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        unreachable!()
    }

    /// Logs a job in.
    async fn run(&self) -> Person {
        let key = Key::new();
        let answer = self.ask(&self.hub.token(&self.deploy(&key)), &key).await.unwrap_or_else(|no| panic!("{no:?}"));
        Person::of(answer, &key)
    }

    async fn release(&self, who: &Person, what: &Person) -> Result<(), tonic::Status> {
        let request = pb::ReleaseRequest { credential_id: what.answer.credential.clone() };
        TokenServiceClient::new(self.rig.channel(who, false).await).release(request).await.map(drop)
    }

    async fn you(&self) -> tonic::transport::Channel {
        self.rig.world.channel("operator/you", self.rig.running().addresses().admin).await.unwrap()
    }

    /// Every record whose text contains this.
    async fn records(&self, event: &str) -> Vec<String> {
        let mut audit = AuditServiceClient::new(self.you().await);
        let found = audit.search_records(pb::SearchRecordsRequest::default()).await.unwrap().into_inner();
        found.records.into_iter().map(|r| format!("{r:?}")).filter(|r| r.contains(event)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_who_its_repository_is_and_works_in_tasks_of_its_own() {
    let jobs = Runs::new();
    let ways = jobs.rig.get("/attest").await;
    let ways: AttestMethods = serde_json::from_slice(&ways.body).unwrap();
    assert_eq!((ways.audience.as_str(), ways.trust_domain.as_str()), (ISSUER, DOMAIN));
    let of = |name: &str| ways.issuers.iter().find(|i| i.name == name).unwrap();
    assert_eq!((of("hub").key_bound, of("lab").key_bound, of("hub").platform.as_str()), (true, false, "github"));
    let job = jobs.run().await;
    assert_eq!(job.answer.spiffe_id, format!("spiffe://{DOMAIN}/ci/hub/1296269/deploy"));
    let life = job.answer.expires_at / 1000 - seconds_now();
    assert!((590..=600).contains(&life), "the rule's ten minutes: {life}");
    let who = jobs.rig.whoami(&job).await.unwrap();
    assert!(who.person.is_none(), "a job is no person: {who:?}");
    let issued = jobs.rig.exchange(&job, exchange("echo:read", "")).await.unwrap();
    assert!(!issued.credential_id.is_empty());
    // Credentials that are based on the job's SVID end with the SVID.
    let mut revocation = RevocationServiceClient::new(jobs.you().await);
    let target = pb::target::Target::CredentialId(job.answer.credential.clone());
    let request = pb::RevokeRequest {
        targets: vec![pb::Target { target: Some(target) }],
        reason: "a leaked runner".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    let hits = revocation.revoke(request).await.unwrap().into_inner().hits.unwrap();
    assert!(hits.credentials >= 2, "{hits:?}");
    assert!(jobs.rig.whoami(&job).await.is_err());
    assert!(jobs.rig.exchange(&job, exchange("echo:read", "")).await.is_err());
    let again = jobs.run().await;
    jobs.rig.whoami(&again).await.unwrap();
}

fn parts(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

/// A P-384 signature under the name of the issuer's own P-256 key.
fn other_curve(hub: &Provider, claims: &Value) -> String {
    let signer = Signer::new("ES384").by("ES256");
    signer.token(&json!({"alg": "ES256", "kid": hub.signer().0, "typ": "JWT"}), claims)
}

/// The oldest attack: the public key as the secret of an HMAC.
fn by_public_key(hub: &Provider, claims: &Value) -> String {
    let input = parts(&json!({"alg": "HS256", "kid": hub.signer().0, "typ": "JWT"}), claims);
    let key = hub.jwks()["keys"][0].to_string();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), input.as_bytes());
    format!("{input}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn unsigned(claims: &Value) -> String {
    format!("{}.", parts(&json!({"alg": "none", "typ": "JWT"}), claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_changes_its_keys_and_may_be_away() {
    let jobs = Runs::new();
    jobs.run().await;
    // Another key, published beside the first: it is fetched as soon as a token names it.
    jobs.hub.rotate_to("k2", Signer::new("ES256"), true);
    tokio::time::sleep(std::time::Duration::from_millis(limits::OIDC_REFETCH_MS + 200)).await;
    jobs.run().await;
    // A key that is not published is not the issuer's.
    let (_, published) = jobs.hub.signer();
    jobs.hub.rotate_to("k3", Signer::new("ES256"), false);
    let key = Key::new();
    assert_eq!(
        jobs.ask(&jobs.hub.token(&jobs.deploy(&key)), &key).await.unwrap_err().reason,
        "NOT_READY",
        "just fetched: ask again"
    );
    tokio::time::sleep(std::time::Duration::from_millis(limits::OIDC_REFETCH_MS + 200)).await;
    assert_eq!(jobs.ask(&jobs.hub.token(&jobs.deploy(&key)), &key).await.unwrap_err().reason, "NOT_AUTHENTICATED");
    // While the platform is unreachable, fetched keys are used for an hour, and no new key is accepted.
    jobs.hub.lay("/keys", |_| (503, String::new(), String::new()));
    let token = |claims: &Value| published.token(&json!({"alg": "ES256", "kid": "k2", "typ": "JWT"}), claims);
    jobs.ask(&token(&jobs.deploy(&key)), &key).await.unwrap();
    let key = Key::new();
    assert!(jobs.ask(&jobs.hub.token(&jobs.deploy(&key)), &key).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_forged_variant_of_a_runs_token_is_refused() {
    let jobs = Runs::new();
    let (key, stranger, now) = (Key::new(), Provider::start(), seconds_now());
    jobs.run().await;
    let good = jobs.deploy(&key);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        claims
    };
    let signed = |claims: &Value| jobs.hub.token(claims);
    let stolen = jobs.deploy(&Key::new());
    let tokens = [
        ("for another server", signed(&with(&|c| c["aud"] = "https://other.example".into())), "NOT_AUTHENTICATED"),
        ("for us and no key", signed(&with(&|c| c["aud"] = ISSUER.into())), "NOT_AUTHENTICATED"),
        ("for another key", signed(&stolen), "NOT_AUTHENTICATED"),
        ("for us and another", signed(&with(&|c| c["aud"] = json!([c["aud"], "https://other.example"]))), "NOT_AUTHENTICATED"),
        ("in a list", signed(&with(&|c| c["aud"] = json!([c["aud"]]))), "NOT_AUTHENTICATED"),
        ("that ended", signed(&with(&|c| (c["iat"], c["exp"]) = ((now - 600).into(), (now - 1).into()))), "NOT_AUTHENTICATED"),
        (
            "of tomorrow",
            signed(&with(&|c| (c["iat"], c["exp"]) = ((now + 3600).into(), (now + 3700).into()))),
            "NOT_AUTHENTICATED",
        ),
        ("of another issuer's key", stranger.token(&good), "NOT_AUTHENTICATED"),
        ("of another platform's key", jobs.lab.token(&good), "NOT_AUTHENTICATED"),
        (
            "of people's provider",
            jobs.rig.provider.token(&with(&|c| c["iss"] = jobs.rig.provider.issuer.clone().into())),
            "NOT_AUTHENTICATED",
        ),
        ("with alg none", jobs.hub.token_with(|h| h["alg"] = "none".into(), &good), "NOT_AUTHENTICATED"),
        ("with alg HS256", jobs.hub.token_with(|h| h["alg"] = "HS256".into(), &good), "NOT_AUTHENTICATED"),
        ("with a key in it", jobs.hub.token_with(|h| h["jwk"] = json!({"kty": "EC"}), &good), "NOT_AUTHENTICATED"),
        ("with a key elsewhere", jobs.hub.token_with(|h| h["jku"] = "https://evil.example".into(), &good), "NOT_AUTHENTICATED"),
        (
            "with a certificate elsewhere",
            jobs.hub.token_with(|h| h["x5u"] = "https://evil.example".into(), &good),
            "NOT_AUTHENTICATED",
        ),
        ("with a certificate in it", jobs.hub.token_with(|h| h["x5c"] = json!(["AA=="]), &good), "NOT_AUTHENTICATED"),
        (
            "with something that must be understood",
            jobs.hub.token_with(|h| h["crit"] = json!(["exp"]), &good),
            "NOT_AUTHENTICATED",
        ),
        ("by a key of another name", jobs.hub.token_with(|h| h["kid"] = "k9".into(), &good), "NOT_READY"),
        ("by a key of another curve", other_curve(&jobs.hub, &good), "NOT_AUTHENTICATED"),
        ("by the public key as a secret", by_public_key(&jobs.hub, &good), "NOT_AUTHENTICATED"),
        ("that nobody signed", unsigned(&good), "NOT_AUTHENTICATED"),
        ("of another repository", signed(&with(&|c| c["repository_id"] = "9".into())), "NOT_YOURS"),
        (
            "of a fork of the same name",
            signed(&with(&|c| (c["repository_id"], c["repository_owner_id"]) = ("9".into(), "8".into()))),
            "NOT_YOURS",
        ),
        (
            "of a request to merge",
            signed(&with(&|c| (c["event_name"], c["ref"]) = ("pull_request".into(), "refs/pull/7/merge".into()))),
            "NOT_YOURS",
        ),
        ("of a fork's request on main", signed(&with(&|c| c["event_name"] = "pull_request_target".into())), "NOT_YOURS"),
        ("of another branch", signed(&with(&|c| c["ref"] = "refs/heads/feature".into())), "NOT_YOURS"),
        ("of no repository", signed(&with(&|c| drop(c.as_object_mut().unwrap().remove("repository_id")))), "NOT_YOURS"),
        (
            "of a runner that policy does not like",
            signed(&with(&|c| c["runner_environment"] = "self-hosted".into())),
            "DENIED_BY_POLICY",
        ),
        ("that is none", "a.b.c".to_owned(), "NOT_AUTHENTICATED"),
        ("that is nothing", String::new(), "NOT_AUTHENTICATED"),
    ];
    for (what, token, reason) in tokens {
        let no = jobs.ask(&token, &key).await.err().unwrap_or_else(|| panic!("a token {what} was taken"));
        assert_eq!(no.reason, reason, "{what}: {no:?}");
        assert!(
            !no.message.contains("refs/heads/main") && !no.rule.contains("deploy:"),
            "rules are nobody else's business: {no:?}"
        );
    }
    for body in [json!({}), json!({"token": "a", "csr": key.csr(), "more": 1}), json!([])] {
        assert_eq!(jobs.ask_for(body, "").await.unwrap_err().reason, "INVALID_FIELD");
    }
    // The repository was renamed: the id decides. Then the same token once more.
    let token = signed(&with(&|c| (c["repository"], c["sub"]) = ("new/name".into(), "repo:new/name:ref:refs/heads/main".into())));
    let first = jobs.ask(&token, &key).await.unwrap();
    let again = jobs.ask(&token, &key).await.unwrap();
    assert_eq!((first.certificate, first.seq), (again.certificate, again.seq), "a replay with the same key makes nothing new");
    let other_rule = json!({"token": token, "csr": key.csr(), "rule": "deploy"});
    assert_eq!(
        jobs.ask_for(other_rule, &token).await.unwrap_err().reason,
        "EVIDENCE_REVOKED",
        "another request with a used token"
    );
    let by_rule = json!({"token": signed(&with(&|c| c["jti"] = "x".into())), "csr": key.csr(), "rule": "any"});
    assert_eq!(jobs.ask_for(by_rule, "").await.unwrap_err().reason, "NOT_YOURS", "another issuer's rule");
    // The audit record says which claim did not match.
    let refused = jobs.records("attestation: ").await;
    assert!(refused.iter().any(|r| r.contains("deploy: ref is")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_whose_runs_choose_no_audience_has_each_token_taken_once() {
    let jobs = Runs::new();
    let mut claims = jobs.lab.claims("project_path:acme/web:ref_type:branch:ref:main", ISSUER);
    let more =
        json!({"project_id": 22, "ref": "main", "pipeline_source": "push", "job_id": "1", "ref_type": "branch", "jti": "j1"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (token, key, thief) = (jobs.lab.token(&claims), Key::new(), Key::new());
    let answer = jobs.ask(&token, &key).await.unwrap();
    assert_eq!(answer.spiffe_id, format!("spiffe://{DOMAIN}/ci/lab/22/any"));
    // A job whose answer was lost has no other token: with the same key it gets the same certificate, any number of times.
    for _ in 0..2 {
        let again = jobs.ask(&token, &key).await.unwrap();
        assert_eq!((&again.certificate, &again.credential, again.seq), (&answer.certificate, &answer.credential, answer.seq));
    }
    assert_eq!(jobs.ask(&token, &thief).await.unwrap_err().reason, "EVIDENCE_REVOKED");
    for (claim, value) in [("pipeline_source", "merge_request_event"), ("ref", "other"), ("project_id", "23")] {
        let mut other = claims.clone();
        (other[claim], other["jti"]) = (value.into(), format!("{claim}2").into());
        assert_eq!(jobs.ask(&jobs.lab.token(&other), &thief).await.unwrap_err().reason, "NOT_YOURS", "{claim}");
    }
    // A pod: `aud` is a list of exactly one value.
    let pod = |aud: Value, id: &str| {
        let mut claims = jobs.pods.claims("system:serviceaccount:shop:api", "");
        (claims["aud"], claims["jti"]) = (aud, id.into());
        claims["kubernetes.io"] = json!({"namespace": "shop", "serviceaccount": {"name": "api", "uid": "0c2b-1"}});
        jobs.pods.token(&claims)
    };
    let key = Key::new();
    assert_eq!(
        jobs.ask(&pod(json!([ISSUER, "https://kubernetes.default.svc"]), "p1"), &key).await.unwrap_err().reason,
        "NOT_AUTHENTICATED"
    );
    let answer = jobs.ask(&pod(json!([ISSUER]), "p2"), &key).await.unwrap();
    assert_eq!(answer.spiffe_id, format!("spiffe://{DOMAIN}/ci/pods/0c2b-1/api"));
    let person = Person::of(answer, &key);
    jobs.rig.whoami(&person).await.unwrap();
    // A login that was returned or revoked is not issued again.
    let again = pod(json!([ISSUER]), "p2");
    jobs.ask(&again, &key).await.unwrap();
    jobs.release(&person, &person).await.unwrap();
    assert_eq!(jobs.ask(&again, &key).await.unwrap_err().reason, "EVIDENCE_REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_gives_its_svid_back_and_only_its_own() {
    let mut jobs = Runs::on(DevEngine::Redb);
    let (one, other) = (jobs.run().await, jobs.run().await);
    // The job's SVID is still valid after a restart.
    jobs.rig.again();
    jobs.rig.whoami(&one).await.unwrap();
    assert!(jobs.release(&one, &other).await.is_err(), "another run's");
    jobs.release(&one, &one).await.unwrap();
    assert!(jobs.rig.whoami(&one).await.is_err());
    jobs.rig.whoami(&other).await.unwrap();
}
