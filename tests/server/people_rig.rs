//! Shared parts of the tests of people: a server with a trust domain of its own, a provider that knows people, and people who sign in.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::document::sha256;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::serve::people::{LoginAnswer, LoginRefused};
use mayfly::serve::tls::client_config;
use mayfly::server::RunningServer;
use mayfly::sources::https::{HttpsClient, HttpsResponse};
use mayfly::sources::svid_files::SvidFiles;
use mayfly::system::System;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use crate::kit::world;
use crate::provider::{Provider, seconds_now};

/// mayfly's client id at the provider.
pub const CLIENT: &str = "mayfly-cli";
/// The trust domain of people.
pub const DOMAIN: &str = "people.dev.internal";

const POLICY: &str = r#"
@id("people-sign-in")
permit (principal, action == Action::"SignIn", resource)
when { principal.trust_domain == "people.dev.internal" && context has person && context.person.id != "mallory" };

@id("people-work")
permit (principal in Role::"people", action in Action::"Work", resource == Upstream::"echo");

@id("approving-takes-a-second-factor-of-late")
forbid (principal, action == Action::"Approve", resource)
unless {
  context has person && context.person.amr.contains("mfa") &&
  context.now.durationSince(context.person.auth_time) <= duration("15m")
};

@id("so-does-letting-changes-through")
forbid (principal, action == Action::"ApproveChange", resource)
unless { context has person && context.person has acr && context.person.acr == "urn:example:high" };

@id("exports-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"echo")
when { context.sensitive } unless { context.approvals.count >= 1 };

@id("agents-open-tasks-for-exports")
permit (principal in Role::"agent", action == Action::"OpenTask", resource == Upstream::"echo");

@id("writing-takes-a-second-factor")
forbid (principal in Role::"people", action == Action::"Exchange", resource)
when { context.scopes.contains("echo:write") }
unless { context has person && context.person.amr.contains("mfa") };
"#;

/// The server and the provider.
pub struct Rig {
    pub provider: Provider,
    pub running: Option<RunningServer>,
    pub world: DevWorld,
    _dir: TempDir,
}

/// A person's key, before there is a certificate.
pub struct Key {
    pub pair: KeyPair,
}

/// A person who is signed in.
pub struct Person {
    pub answer: LoginAnswer,
    files: TempDir,
}

impl Key {
    pub fn new() -> Key {
        Key { pair: KeyPair::generate().unwrap() }
    }

    pub fn nonce(&self) -> String {
        BASE64URL_NOPAD.encode(&sha256(&self.pair.subject_public_key_info()))
    }

    pub fn csr(&self) -> String {
        BASE64.encode(CertificateParams::default().serialize_request(&self.pair).unwrap().der())
    }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(DevEngine::Memory, "")
    }

    pub fn with(engine: DevEngine, more: &str) -> Rig {
        Rig::edited(engine, more, &|_| {})
    }

    /// A rig with additional policies and additional text in the roles file, in which `ISSUER` stands for the provider.
    pub fn governed((policies, roles): (&str, &str)) -> Rig {
        Rig::edited(DevEngine::Memory, "", &|world| {
            let file = |name: &str| world.dir().join("policy").join(name);
            let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
            let echo = read("upstreams/echo.toml");
            let issuer = echo.split("{ issuer = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            std::fs::write(file("policy.cedar"), read("policy.cedar") + policies).unwrap();
            std::fs::write(file("roles.toml"), read("roles.toml") + &roles.replace("ISSUER", issuer)).unwrap();
        })
    }

    /// A rig whose world's files are changed before the server starts.
    pub fn edited(engine: DevEngine, more: &str, change: &dyn Fn(&DevWorld)) -> Rig {
        let provider = Provider::start();
        let (dir, world) = world(DevSettings { engine, ..DevSettings::default() });
        let edit = |path: &str, change: &dyn Fn(String) -> String| {
            let path = world.dir().join(path);
            std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
        };
        edit("policy/policy.cedar", &|text| text + POLICY);
        let people = format!("spiffe://{DOMAIN}/people");
        edit("policy/roles.toml", &|text| {
            let text = text.replace(
                "under = [\"spiffe://dev.mayfly.internal\"]",
                &format!("under = [\"spiffe://dev.mayfly.internal\", \"{people}\"]"),
            );
            let text = text
                .replace("[role.operator]", &format!("[role.operator]\nids = [\"{people}/corp/ada\", \"{people}/corp/bob\"]"));
            format!("{text}\n[role.people]\nunder = [\"{people}\"]\n")
        });
        let issuer = provider.issuer.clone();
        edit("policy/upstreams/echo.toml", &|text| {
            let ada = format!("{{ issuer = \"{issuer}\", subject = \"ada\" }}");
            text.replace("approvers = [", &format!("approvers = [{ada}, \"{people}/corp/bob\", "))
        });
        let section = provider.section("corp", &["dev"], &format!("uses = [\"login\"]\naudience = \"{CLIENT}\""));
        edit("mayfly.toml", &|text| format!("{text}\n[own_domain]\ntrust_domain = \"{DOMAIN}\"\n{more}\n{section}"));
        change(&world);
        let running = world.start().unwrap_or_else(|no| panic!("{no}"));
        Rig { provider, running: Some(running), world, _dir: dir }
    }

    pub fn running(&self) -> &RunningServer {
        self.running.as_ref().unwrap()
    }

    /// Restarts the server.
    pub fn again(&mut self) {
        self.running.take().unwrap().stop();
        self.running = Some(self.world.start().unwrap_or_else(|no| panic!("{no}")));
    }

    /// An unauthenticated client of the public listener.
    pub fn public(&self) -> (HttpsClient, String) {
        let server = DevWorld::id("mayfly").parse().unwrap();
        let config = client_config(None, self.world.bundles().unwrap(), server, &System::real()).unwrap();
        (HttpsClient::over(config), format!("https://localhost:{}", self.running().addresses().public.port()))
    }

    pub async fn get(&self, path: &str) -> HttpsResponse {
        let (https, base) = self.public();
        https.get(&format!("{base}{path}"), 1 << 20).await.unwrap()
    }

    /// Valid claims of a person for a key.
    pub fn claims(&self, sub: &str, key: &Key) -> Value {
        let mut claims = self.provider.claims(sub, CLIENT);
        claims["nonce"] = key.nonce().into();
        claims["auth_time"] = seconds_now().into();
        claims["amr"] = json!(["pwd"]);
        claims
    }

    /// Signs in with a token and a CSR.
    pub async fn ask(&self, id_token: &str, csr: &str) -> Result<LoginAnswer, LoginRefused> {
        let (https, base) = self.public();
        let body = json!({"id_token": id_token, "csr": csr}).to_string();
        for again in 0.. {
            let answer = https.post_json(&format!("{base}/login"), body.clone(), 1 << 20).await.unwrap();
            if answer.status.is_success() {
                return Ok(serde_json::from_slice(&answer.body).unwrap());
            }
            let no: LoginRefused = serde_json::from_slice(&answer.body).unwrap_or_default();
            // The provider's keys are fetched in the background of the start.
            if no.reason != "NOT_READY" || again > 50 {
                assert!(id_token.is_empty() || !no.message.contains(id_token), "a token is told to nobody");
                return Err(no);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!()
    }

    /// Signs a person in.
    pub async fn sign_in(&self, sub: &str, change: impl Fn(&mut Value)) -> Person {
        let key = Key::new();
        let mut claims = self.claims(sub, &key);
        change(&mut claims);
        let answer = self.ask(&self.provider.token(&claims), &key.csr()).await.unwrap_or_else(|no| panic!("{no:?}"));
        Person::of(answer, &key)
    }

    /// A channel of a person who is signed in.
    pub async fn channel(&self, who: &Person, admin: bool) -> Channel {
        let addresses = self.running().addresses();
        let at = if admin { addresses.admin } else { addresses.workload };
        let own = SvidFiles::new(who.svid(), who.key()).load().unwrap();
        let own = Arc::new(ArcSwap::new(own.certified_key().clone()));
        let server = DevWorld::id("mayfly").parse().unwrap();
        let config = client_config(Some(own), self.world.bundles().unwrap(), server, &System::real()).unwrap();
        mayfly::serve::client::mtls(at, config).await.unwrap()
    }

    pub async fn exchange(&self, who: &Person, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
        let mut tokens = TokenServiceClient::new(self.channel(who, false).await);
        Ok(tokens.exchange(ask).await?.into_inner().issued.unwrap())
    }

    pub async fn whoami(&self, who: &Person) -> Result<pb::WhoamiResponse, Status> {
        let mut tokens = TokenServiceClient::new(self.channel(who, false).await);
        Ok(tokens.whoami(pb::WhoamiRequest {}).await?.into_inner())
    }
}

impl Person {
    pub fn of(answer: LoginAnswer, key: &Key) -> Person {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("svid.pem", &answer.certificate);
        write("key.pem", &key.pair.serialize_pem());
        Person { answer, files }
    }

    pub fn svid(&self) -> std::path::PathBuf {
        self.files.path().join("svid.pem")
    }

    pub fn key(&self) -> std::path::PathBuf {
        self.files.path().join("key.pem")
    }

    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        let body: String = self.answer.certificate.lines().filter(|l| !l.starts_with("-----")).collect();
        BASE64.decode(body.as_bytes()).unwrap()
    }
}

/// An exchange in an inline task.
pub fn exchange(scope: &str, tool: &str) -> pb::ExchangeRequest {
    let terms = pb::TaskTerms {
        purpose: "by hand".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec![scope.into()] }],
        ..Default::default()
    };
    let arguments = pb::arguments::Arguments::Json(r#"{"rows":1}"#.into());
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(terms)),
        upstream: "echo".into(),
        scopes: vec![scope.into()],
        tool: tool.into(),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        arguments: (!tool.is_empty()).then_some(pb::Arguments { arguments: Some(arguments) }),
        ..Default::default()
    }
}

/// A login with a second factor.
pub fn second_factor(claims: &mut Value) {
    (claims["amr"], claims["acr"]) = (json!(["pwd", "otp", "mfa"]), "urn:example:high".into());
}

/// A login with a password only.
pub fn no_change(_: &mut Value) {}
