//! Sources that a running server reads again and can no longer read: the server continues, and reports the problem until it is repaired.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use mayfly::cli::dev::{DevSettings, TRUST_DOMAIN};
use mayfly::pb::mayfly::v1::server_service_client::ServerServiceClient;
use mayfly::pb::mayfly::v1::{self as pb};
use mayfly::sources::config::Config;
use tonic::transport::Channel;

use crate::kit::{Up, until};
use crate::metrics::scraped;
use crate::receiver::{Receiver, hook};

/// A server, and an operator who was connected before anything broke.
struct Watched {
    up: Up,
    operator: Channel,
}

impl Watched {
    async fn new(up: Up) -> Watched {
        let operator = up.world.channel("operator/you", up.admin()).await.unwrap();
        Watched { up, operator }
    }
}

async fn status(watched: &Watched) -> pb::GetStatusResponse {
    let mut client = ServerServiceClient::new(watched.operator.clone());
    client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner()
}

async fn source(up: &Watched, kind: &str, name: &str) -> Option<pb::SourceStatus> {
    status(up).await.sources.into_iter().find(|source| (source.kind.as_str(), source.name.as_str()) == (kind, name))
}

async fn fails(up: &Watched, kind: &str, name: &str) -> pb::SourceStatus {
    for _ in 0..600 {
        if let Some(found) = source(up, kind, name).await.filter(|source| !source.problem.is_empty()) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{kind} {name} never fails: {:?}", status(up).await.sources);
}

async fn is_well(up: &Watched, kind: &str, name: &str) {
    for _ in 0..600 {
        if source(up, kind, name).await.is_some_and(|source| source.problem.is_empty()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{kind} {name} is never well: {:?}", status(up).await.sources);
}

/// Makes the server read its files again, as SIGHUP does. The result of the reload itself does not matter here.
fn look_now(up: &Watched) {
    if let Ok(next) = Config::load(&up.up.world.config(), []) {
        let _ = tokio::task::block_in_place(|| up.up.running().reload(&next));
    }
}

fn private(path: &std::path::Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_can_no_longer_be_read_is_told_with_its_domain_its_file_since_when_and_what_mends_it() {
    let up = Up::new(DevSettings::default().with("listen.metrics", "\"127.0.0.1:0\""));
    let metrics = up.running().addresses().metrics.unwrap();
    let (agent, workload) = (up.world.client_config("agent/demo").unwrap(), up.workload());
    let up = Watched::new(up).await;
    is_well(&up, "bundle", TRUST_DOMAIN).await;
    let good = fs::read(up.up.world.bundle()).unwrap();
    let shown = up.up.world.bundle().display().to_string();
    for (breaks, said) in [("gone", "cannot be read"), ("empty", "is empty"), ("nonsense", "it holds the CA certificates")] {
        let before = mayfly::system::System::real().wall();
        match breaks {
            "gone" => fs::remove_file(up.up.world.bundle()).unwrap(),
            "empty" => fs::write(up.up.world.bundle(), " ").unwrap(),
            _ => fs::write(up.up.world.bundle(), "-----BEGIN CERTIFICATE-----\nno").unwrap(),
        }
        let told = fails(&up, "bundle", TRUST_DOMAIN).await;
        assert!(told.problem.contains(said) && told.problem.contains(&shown) && told.place == shown, "{told:?}");
        let since = told.problem_since.unwrap();
        assert!(since.seconds as u64 + 1 >= before.seconds(), "{since:?}");
        let warnings = status(&up).await.warnings;
        let warning =
            warnings.iter().find(|w| w.contains(&format!("the bundle of {TRUST_DOMAIN} cannot be read since"))).cloned();
        let warning = warning.unwrap_or_else(|| panic!("{warnings:?}"));
        assert!(warning.contains(&shown) && warning.contains("the bundle in force stays"), "{warning}");
        let row = |value: u8| format!("mayfly_source_failing{{source=\"bundle\",name=\"{TRUST_DOMAIN}\"}} {value}");
        assert!(scraped(metrics).contains(&row(1)), "{}", scraped(metrics));
        // Callers still get connections: the bundle in effect stays.
        let channel = mayfly::serve::client::mtls(workload, agent.clone()).await.unwrap();
        crate::kit::open_task(channel, None).await.unwrap();
        fs::write(up.up.world.bundle(), &good).unwrap();
        is_well(&up, "bundle", TRUST_DOMAIN).await;
        assert!(scraped(metrics).contains(&row(0)));
        assert!(!status(&up).await.warnings.iter().any(|w| w.contains("the bundle of")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_source_that_is_read_again_is_told_of_too() {
    let receiver = Receiver::new();
    let (_dir, world) = crate::kit::world(DevSettings { engine: mayfly::cli::dev::DevEngine::Memory, ..DevSettings::default() });
    let dir = world.dir().to_owned();
    hook(&dir, "pager", receiver.address, "events = [\"revoked\"]");
    private(&dir.join("token"), "0123456789abcdef0123");
    let key = serde_json::json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    let jwks = serde_json::json!({ "keys": [key] }).to_string();
    fs::write(dir.join("jwks.json"), &jwks).unwrap();
    let own = world.issue("other", 3_600_000).unwrap();
    let text = fs::read_to_string(world.config()).unwrap().replace("[listen]\n", "[listen]\nmetrics = \"127.0.0.1:0\"\n");
    let more = format!(
        "\n[metrics]\ntoken_file = \"token\"\n[public_tls]\ncertificate = \"{}\"\nkey = \"{}\"\n[[oidc_issuers]]\nname = \"staff\"\nissuer = \
         \"https://id.example\"\nenvironments = [\"dev\"]\nuses = [\"subject\"]\nscopes_claim = \"scope\"\njwks = \"jwks.json\"\n",
        own.certificate.display(),
        own.key.display()
    );
    fs::write(world.config(), text + &more).unwrap();
    let roles = Config::load(&world.config(), []).unwrap().policy.roles;
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let up = Watched::new(Up::of(running, world)).await;
    for (kind, name) in
        [("metrics_token", ""), ("webhook", "pager"), ("oidc_issuer", "staff"), ("policy_files", ""), ("own_svid", "")]
    {
        is_well(&up, kind, name).await;
    }
    for (kind, name, file, said) in [
        ("metrics_token", "", dir.join("token"), "visible ASCII"),
        ("webhook", "pager", dir.join("hook.secret"), "whsec_"),
        ("oidc_issuer", "staff", dir.join("jwks.json"), "jwks.json"),
        ("policy_files", "", roles.clone(), "roles"),
        ("policy_files", "", dir.join("policy/policy.cedar"), "policy.cedar"),
        ("policy_files", "", dir.join("policy/upstreams/echo.toml"), "echo.toml"),
        ("public_certificate", "", own.certificate.clone(), "PEM"),
        ("own_svid", "", up.up.world.svid("mayfly").certificate, "PEM"),
    ] {
        let good = fs::read(&file).unwrap();
        fs::write(&file, "{").unwrap();
        look_now(&up);
        let told = fails(&up, kind, name).await;
        assert!(told.problem.contains(said) && told.problem_since.is_some(), "{told:?}");
        assert!(!told.place.is_empty() && !told.problem.contains("0123456789abcdef"), "{told:?}");
        assert!(!told.problem.contains('\n'), "a line of a table: {told:?}");
        assert!(kind != "policy_files" || told.place == file.display().to_string(), "{told:?}");
        fs::write(&file, good).unwrap();
        look_now(&up);
        is_well(&up, kind, name).await;
    }
    until("all is well", || !up.up.running().authority().sources().iter().any(|source| !source.problem.is_empty())).await;
}
