//! People on a whole server: who can sign in, what the login permits, and how it ends.

use mayfly::cli::dev::DevEngine;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::credential_service_client::CredentialServiceClient;
use mayfly::pb::mayfly::v1::key_service_client::KeyServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use mayfly::serve::client;
use serde_json::{Value, json};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::kit::reason;
use crate::people_rig::{CLIENT, DOMAIN, Key, Person, Rig, exchange, no_change, second_factor};
use crate::policy_rig::approval_of;
use crate::provider::{Provider, seconds_now};

impl Rig {
    async fn you(&self) -> tonic::transport::Channel {
        self.world.channel("operator/you", self.running().addresses().admin).await.unwrap()
    }

    /// Approves what another operator requested.
    async fn approve_change(&self, id: &str) {
        let colleague = self.world.channel("operator/colleague", self.running().addresses().admin).await.unwrap();
        let mut approvals = ApprovalServiceClient::new(colleague);
        let shown = approvals.get_approval(pb::GetApprovalRequest { approval_id: id.into() }).await.unwrap().into_inner();
        let give = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: shown.approval.unwrap().request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "looked at it".into(),
            ..Default::default()
        };
        approvals.decide_approval(give).await.unwrap();
    }

    pub async fn revoke(&self, target: pb::target::Target) -> pb::RevokeResponse {
        let request = pb::RevokeRequest {
            targets: vec![pb::Target { target: Some(target) }],
            reason: "test".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        RevocationServiceClient::new(self.you().await).revoke(request).await.unwrap().into_inner()
    }

    async fn credential(&self, id: &str) -> pb::Credential {
        let request = pb::GetCredentialRequest { credential_id: id.into() };
        let answer = CredentialServiceClient::new(self.you().await).get_credential(request).await.unwrap();
        answer.into_inner().credential.unwrap()
    }

    async fn bundle(&self) -> Value {
        serde_json::from_slice(&self.get("/spiffe/bundle.json").await.body).unwrap()
    }

    /// The CRL that a certificate names: its serials and its number.
    async fn crl(&self, who: &Person) -> (Vec<Vec<u8>>, u128) {
        let der = who.der();
        let (_, cert) = X509Certificate::from_der(&der).unwrap();
        let url = cert.extensions().iter().find_map(|e| match e.parsed_extension() {
            x509_parser::extensions::ParsedExtension::CRLDistributionPoints(points) => Some(format!("{:?}", points.points[0])),
            _ => None,
        });
        let url = url.unwrap();
        let path = url.split("https://dev.mayfly.internal").nth(1).unwrap().split('"').next().unwrap();
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let (_, list) = CertificateRevocationList::from_der(&answer.body).unwrap();
        let serial = |raw: &[u8]| raw.iter().copied().skip_while(|b| *b == 0).collect();
        let serials = list.iter_revoked_certificates().map(|r| serial(r.raw_serial())).collect();
        (serials, list.crl_number().unwrap().to_string().parse().unwrap())
    }
}

fn serial(who: &Person) -> Vec<u8> {
    let der = who.der();
    let (_, cert) = X509Certificate::from_der(&der).unwrap();
    cert.raw_serial().iter().copied().skip_while(|b| *b == 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_in_is_a_person_to_policy_tasks_and_records() {
    let rig = Rig::new();
    let ada = rig.sign_in("ada", second_factor).await;
    assert_eq!(ada.answer.spiffe_id, format!("spiffe://{DOMAIN}/people/corp/ada"));
    let who = rig.whoami(&ada).await.unwrap();
    let person = who.person.unwrap();
    assert_eq!(person.subject.unwrap().sub, "ada");
    assert_eq!((person.amr, person.acr.as_str()), (vec!["mfa".to_owned(), "otp".into(), "pwd".into()], "urn:example:high"));
    assert_eq!((person.credential_id.as_str(), person.auth_time.is_some()), (ada.answer.credential.as_str(), true));
    assert!(matches!(who.identity.unwrap().identity, Some(pb::identity::Identity::Person(p)) if p.issuer == rig.provider.issuer));

    let issued = rig.exchange(&ada, exchange("echo:read", "")).await.unwrap();
    let task = TaskServiceClient::new(rig.you().await).get_task(pb::GetTaskRequest { task_id: issued.task_id.clone() }).await;
    let task = task.unwrap().into_inner().task.unwrap();
    assert_eq!(task.path.len(), 1, "the login is no parent");
    assert!(matches!(task.owner.unwrap().identity, Some(pb::identity::Identity::Person(p)) if p.sub == "ada"), "it is the owner");
    // The issued credential is based on the login, also according to its claims.
    let credential = rig.credential(&issued.credential_id).await;
    assert_eq!(credential.ancestors.len(), 1);
    assert_eq!(credential.ancestors[0].credential_id, ada.answer.credential);
    assert!(credential.expires_at.unwrap().seconds as u64 <= ada.answer.expires_at / 1000);

    let explained = AuditServiceClient::new(rig.you().await)
        .explain(pb::ExplainRequest { of: Some(pb::explain_request::Of::CredentialId(ada.answer.credential.clone())) })
        .await;
    let explained = explained.unwrap().into_inner();
    assert!(explained.summary.contains("signed in at corp by mfa, otp, pwd"), "{}", explained.summary);
    assert!(explained.summary.contains("people-sign-in"), "{}", explained.summary);
    let listed = CredentialServiceClient::new(rig.you().await).list_credentials(pb::ListCredentialsRequest::default()).await;
    let listed = listed.unwrap().into_inner().credentials;
    assert!(listed.iter().any(|c| c.credential_id == ada.answer.credential && c.kind == pb::CredentialKind::X509 as i32));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_forged_id_token_is_refused() {
    let rig = Rig::new();
    rig.sign_in("ada", no_change).await;
    let (key, stranger) = (Key::new(), Provider::start());
    let good = rig.claims("ada", &key);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        claims
    };
    let without = |name: &str| with(&|c| drop(c.as_object_mut().unwrap().remove(name)));
    let now = seconds_now();
    let signed = |claims: &Value| rig.provider.token(claims);
    let tokens = [
        ("for another client", signed(&with(&|c| c["aud"] = "another-client".into()))),
        ("for several", signed(&with(&|c| c["aud"] = json!([CLIENT, "another-client"])))),
        ("of another party", signed(&with(&|c| c["azp"] = "another-client".into()))),
        ("for another key", signed(&with(&|c| c["nonce"] = Key::new().nonce().into()))),
        ("with a nonce that is none", signed(&with(&|c| c["nonce"] = 7.into()))),
        ("without a nonce", signed(&without("nonce"))),
        ("that ended", signed(&with(&|c| (c["iat"], c["exp"]) = ((now - 600).into(), (now - 1).into())))),
        ("of tomorrow", signed(&with(&|c| (c["iat"], c["exp"]) = ((now + 3600).into(), (now + 3700).into())))),
        ("that lives for a year", signed(&with(&|c| c["exp"] = (now + 31_536_000).into()))),
        ("whose person signs in tomorrow", signed(&with(&|c| c["auth_time"] = (now + 86_400).into()))),
        ("whose amr is a text", signed(&with(&|c| c["amr"] = "mfa".into()))),
        ("whose amr has control characters", signed(&with(&|c| c["amr"] = json!(["mfa\u{1b}[0m"])))),
        ("without sub", signed(&without("sub"))),
        ("of nobody", signed(&with(&|c| c["sub"] = "".into()))),
        ("of a workload", signed(&with(&|c| c["sub"] = "spiffe://dev.mayfly.internal/operator/you".into()))),
        ("of another issuer", stranger.token(&stranger.claims("ada", CLIENT))),
        ("in the name of the issuer", stranger.token(&good)),
        ("of another iss, by its key", signed(&with(&|c| c["iss"] = stranger.issuer.clone().into()))),
        ("with alg none", rig.provider.token_with(|h| h["alg"] = "none".into(), &good)),
        ("with alg HS256", rig.provider.token_with(|h| h["alg"] = "HS256".into(), &good)),
        ("with alg ES384", rig.provider.token_with(|h| h["alg"] = "ES384".into(), &good)),
        ("with a key in it", rig.provider.token_with(|h| h["jwk"] = json!({"kty": "EC"}), &good)),
        ("with a key elsewhere", rig.provider.token_with(|h| h["jku"] = "https://evil.example/keys".into(), &good)),
        ("of a key that nobody knows", rig.provider.token_with(|h| h["kid"] = "k9".into(), &good)),
        ("with crit", rig.provider.token_with(|h| h["crit"] = json!(["b64"]), &good)),
        ("that is an access token", rig.provider.token_with(|h| h["typ"] = "at+jwt".into(), &good)),
        ("that is none", "a.b.c".to_owned()),
        ("that is nothing", String::new()),
    ];
    for (what, token) in tokens {
        let no = rig.ask(&token, &key.csr()).await.err().unwrap_or_else(|| panic!("a token {what} was taken"));
        // A key that the issuer may have published since the last fetch: the client is told to retry in a few seconds.
        let reason = if what == "of a key that nobody knows" { "NOT_READY" } else { "NOT_AUTHENTICATED" };
        assert_eq!(no.reason, reason, "{what}: {no:?}");
    }
    for csr in ["", "AAAA", "not base64!"] {
        assert_eq!(rig.ask(&signed(&good), csr).await.unwrap_err().reason, "INVALID_FIELD");
    }
    let denied = rig.ask(&signed(&with(&|c| c["sub"] = "mallory".into())), &key.csr()).await.unwrap_err();
    assert_eq!((denied.reason.as_str(), denied.message.contains("SignIn")), ("DENIED_BY_POLICY", true));
    let token = signed(&good);
    rig.ask(&token, &key.csr()).await.unwrap();
    let again = rig.ask(&token, &key.csr()).await.unwrap_err();
    assert_eq!(again.reason, "EVIDENCE_REVOKED", "it was used: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_token_is_taken_where_that_is_allowed_once_and_while_it_is_fresh() {
    let rig = Rig::with(DevEngine::Memory, "device_login = true");
    let device = |change: &dyn Fn(&mut Value)| {
        let mut claims = rig.claims("ada", &Key::new());
        claims.as_object_mut().unwrap().remove("nonce");
        claims["jti"] = format!("{}", mayfly::system::System::real().steady()).into();
        change(&mut claims);
        rig.provider.token(&claims)
    };
    let token = device(&|_| {});
    let key = Key::new();
    let answer = rig.ask(&token, &key.csr()).await.unwrap();
    rig.whoami(&Person::of(answer, &key)).await.unwrap();
    // A token of the device flow is accepted once: after that it is refused with the same key and with any other.
    for key in [key, Key::new()] {
        assert_eq!(rig.ask(&token, &key.csr()).await.unwrap_err().reason, "EVIDENCE_REVOKED");
    }
    let old = device(&|c| c["iat"] = (seconds_now() - 121).into());
    assert_eq!(rig.ask(&old, &Key::new().csr()).await.unwrap_err().reason, "NOT_AUTHENTICATED");
    // A token of a browser login has a nonce, which binds it to a key: with another key it is not accepted as a token of the device flow.
    let stolen = rig.provider.token(&rig.claims("ada", &Key::new()));
    assert_eq!(rig.ask(&stolen, &Key::new().csr()).await.unwrap_err().reason, "NOT_AUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_at_once_however_it_is_revoked_and_its_crl_says_so() {
    use pb::target::Target as T;
    let rig = Rig::new();
    let mut last = 0;
    for n in 0..5 {
        let ada = rig.sign_in("ada", no_change).await;
        let bob = rig.sign_in("bob", no_change).await;
        let issued = rig.exchange(&ada, exchange("echo:read", "")).await.unwrap();
        let (before, number) = rig.crl(&ada).await;
        assert!(!before.contains(&serial(&ada)), "{n}");
        assert!(number >= last, "{number} comes after {last}");
        let found = rig.credential(&ada.answer.credential).await;
        let target = match n {
            0 => T::CredentialId(ada.answer.credential.clone()),
            1 => T::Subject(pb::Subject { issuer: rig.provider.issuer.clone(), sub: "ada".into() }),
            2 => T::Caller(ada.answer.spiffe_id.clone()),
            3 => {
                let svid = found.svid.unwrap();
                T::Svid(pb::SvidTarget {
                    trust_domain: DOMAIN.into(),
                    issuing_key_sha256: svid.issuing_key_sha256,
                    serial: svid.serial,
                })
            }
            _ => T::SpiffeIdPrefix(format!("spiffe://{DOMAIN}/people/corp/ada")),
        };
        let revoked = rig.revoke(target).await;
        assert!(revoked.hits.as_ref().unwrap().credentials >= 2, "the login and what rests on it: {:?}", revoked.hits);
        let no = rig.whoami(&ada).await.unwrap_err();
        assert_eq!(no.code(), tonic::Code::PermissionDenied, "{n}: {no:?}");
        rig.whoami(&bob).await.unwrap();
        assert_ne!(rig.credential(&issued.credential_id).await.state, pb::CredentialState::Active as i32, "{n}");
        let (after, number_after) = rig.crl(&ada).await;
        assert!(after.contains(&serial(&ada)) && !after.contains(&serial(&bob)), "{n}");
        assert!(number_after > number);
        last = number_after;
        // Some of these targets are locked, too: no login is possible until the lock is lifted.
        let locks = RevocationServiceClient::new(rig.you().await).list_locks(pb::ListLocksRequest::default()).await.unwrap();
        for lock in locks.into_inner().locks {
            let key = Key::new();
            let no = rig.ask(&rig.provider.token(&rig.claims("ada", &key)), &key.csr()).await.unwrap_err();
            assert_eq!(no.reason, "LOCKED", "{n}: {no:?}");
            let lift = pb::LiftLockRequest { seq: lock.seq, reason: "test".into(), ..Default::default() };
            RevocationServiceClient::new(rig.you().await).lift_lock(lift).await.unwrap();
        }
        assert!(rig.whoami(&ada).await.is_err(), "{n}: lifting brings nothing back");
        drop(bob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_login_and_leaves_what_it_opened() {
    let rig = Rig::new();
    let (ada, bob) = (rig.sign_in("ada", no_change).await, rig.sign_in("bob", no_change).await);
    let issued = rig.exchange(&ada, exchange("echo:read", "")).await.unwrap();
    let release = |who: tonic::transport::Channel| {
        let credential_id = ada.answer.credential.clone();
        async move { TokenServiceClient::new(who).release(pb::ReleaseRequest { credential_id }).await }
    };
    assert_eq!(reason(&release(rig.channel(&bob, false).await).await.unwrap_err()), "NOT_FOUND", "it is not his");
    release(rig.channel(&ada, false).await).await.unwrap();
    assert_eq!(rig.whoami(&ada).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    assert_eq!(rig.credential(&ada.answer.credential).await.state, pb::CredentialState::Released as i32);
    assert_eq!(rig.credential(&issued.credential_id).await.state, pb::CredentialState::Active as i32);
    assert!(rig.crl(&ada).await.0.contains(&serial(&ada)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_ca_stays_in_the_bundle_and_a_stolen_one_takes_its_logins_along() {
    // Another operator approves changes, including an operator who did not sign in.
    let mut rig = Rig::edited(DevEngine::Redb, "", &|world| {
        let path = world.dir().join("policy/policy.cedar");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("action == Action::\"ApproveChange\"", "action == Action::\"Approve\"")).unwrap();
    });
    let ada = rig.sign_in("ada", no_change).await;
    let first = rig.bundle().await;
    assert_eq!((first["keys"].as_array().unwrap().len(), first["keys"][0]["use"].as_str()), (1, Some("x509-svid")));
    let rotate = pb::RotateKeyRequest {
        purpose: pb::KeyPurpose::X509Ca.into(),
        publish_ahead: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    // The key becomes a root that authenticates people, so it needs two operators.
    let mut keys = KeyServiceClient::new(rig.you().await);
    let no = keys.rotate_key(rotate.clone()).await.unwrap_err();
    let mut socket = KeyServiceClient::new(client::unix(&rig.world.dir().join("run/admin.sock")).await.unwrap());
    assert_eq!(reason(&socket.rotate_key(rotate.clone()).await.unwrap_err()), "NOT_YOURS");
    assert_eq!(rig.bundle().await, first);
    rig.approve_change(&approval_of(&no)).await;
    let rotated = keys.rotate_key(rotate).await.unwrap().into_inner();
    let old = rotated.previous.unwrap().key_id;
    let second = rig.bundle().await;
    assert_eq!(second["keys"].as_array().unwrap().len(), 2);
    assert!(second["spiffe_sequence"].as_u64() > first["spiffe_sequence"].as_u64());
    rig.whoami(&ada).await.unwrap();
    let bob = rig.sign_in("bob", no_change).await;
    rig.whoami(&bob).await.unwrap();
    assert_eq!(rig.credential(&bob.answer.credential).await.signing_key, rotated.key.unwrap().key_id);
    let (_, number) = rig.crl(&ada).await;

    // After a restart, people are still signed in, and CRL numbers continue to increase.
    rig.again();
    rig.whoami(&ada).await.unwrap();
    rig.whoami(&bob).await.unwrap();
    assert!(rig.crl(&ada).await.1 > number);
    assert_eq!(rig.bundle().await, second);

    let compromise = pb::CompromiseKeyRequest {
        key_id: old,
        reason: "found on a paste site".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    KeyServiceClient::new(rig.you().await).compromise_key(compromise).await.unwrap();
    let third = rig.bundle().await;
    assert_eq!(third["keys"].as_array().unwrap().len(), 1);
    assert!(third["spiffe_sequence"].as_u64() > second["spiffe_sequence"].as_u64());
    assert!(tokio::time::timeout(std::time::Duration::from_secs(5), rig.whoami(&ada)).await.is_ok_and(|who| who.is_err()));
    rig.whoami(&bob).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_is_out_and_does_not_come_back() {
    let rig = Rig::new();
    let ada = rig.sign_in("ada", no_change).await;
    let issued = rig.exchange(&ada, exchange("echo:read", "")).await.unwrap();
    let leave = pb::OffboardRequest {
        owner: "you".into(),
        person: Some(pb::Subject { issuer: rig.provider.issuer.clone(), sub: "ada".into() }),
        reason: "left the company".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    UpstreamServiceClient::new(rig.you().await).offboard(leave).await.unwrap();
    assert!(rig.whoami(&ada).await.is_err());
    assert_ne!(rig.credential(&issued.credential_id).await.state, pb::CredentialState::Active as i32);
    let key = Key::new();
    let no = rig.ask(&rig.provider.token(&rig.claims("ada", &key)), &key.csr()).await.unwrap_err();
    assert_eq!(no.reason, "LOCKED", "{no:?}");
    rig.sign_in("bob", no_change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_trust_domain_of_its_own_nobody_signs_in() {
    let up = crate::kit::Up::new(mayfly::cli::dev::DevSettings::default());
    let port = up.running().addresses().public.port();
    let server = mayfly::cli::dev::DevWorld::id("mayfly").parse().unwrap();
    let system = mayfly::system::System::real();
    let config = mayfly::serve::tls::client_config(None, up.world.bundles().unwrap(), server, &system).unwrap();
    let https = mayfly::sources::https::HttpsClient::over(config);
    for path in ["/login", "/spiffe/bundle.json", "/spiffe/crl/k"] {
        let answer = https.get(&format!("https://localhost:{port}{path}"), 4096).await.unwrap();
        assert!([404, 501].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
    }
}
