//! A server whose SVID and bundles come directly from the SPIFFE Workload API: it rotates under load, follows bundles, and continues
//! without its agent.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld, TRUST_DOMAIN};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::server::RunningServer;
use mayfly::trust::TrustBundleSource;
use tempfile::TempDir;

use crate::agent::{Agent, JwtBundlesResponse, X509SvidResponse, ders, only, svid};
use crate::kit::{Callers, until, world};

pub const HOUR: u64 = 3_600_000;

/// Removes a world's server certificate and bundle from its configuration, and configures the agent instead.
pub fn by_agent(world: &DevWorld, endpoint: &str, more: &str) {
    let text = std::fs::read_to_string(world.config()).unwrap();
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| {
            !["[tls]", "certificate = \"svid/", "key = \"svid/", "file = \"bundle.pem\""].iter().any(|l| line.starts_with(l))
        })
        .collect();
    let text = format!("{}\n\n[workload_api]\nsocket = \"{endpoint}\"\n{more}", kept.join("\n"));
    std::fs::write(world.config(), text).unwrap();
}

/// A world, and another CA of the same trust domain.
pub struct Two {
    pub world: DevWorld,
    pub other: DevWorld,
    pub dir: TempDir,
}

impl Two {
    pub fn new() -> Two {
        let (dir, world) = world(DevSettings::default());
        let other = DevWorld::create(&dir.path().join("other"), &DevSettings::default()).unwrap();
        Two { world, other, dir }
    }

    pub fn start(&self) -> RunningServer {
        tokio::task::block_in_place(|| self.world.start()).unwrap_or_else(|no| panic!("{no}"))
    }
}

/// The SPIFFE Workload API's answer with the server's SVID only.
pub fn servers(signer: &DevWorld, life_ms: u64, roots: &[&DevWorld]) -> X509SvidResponse {
    only(svid(signer, "mayfly", life_ms, roots))
}

fn roots(running: &RunningServer, domain: &str) -> usize {
    running.authority().bundles.load().get(domain).map_or(0, |b| b.x509_authorities().len())
}

async fn identity(callers: &Callers) -> pb::IdentityStatus {
    callers.status().await.identity.unwrap()
}

/// Exchanges without a pause, over new connections, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    by: Arc<Mutex<DevWorld>>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn begin(two: &Two, workload: std::net::SocketAddr) -> Load {
        let world = DevWorld::create(two.world.dir(), &DevSettings::default()).unwrap();
        let load = Load { stop: Arc::default(), made: Arc::default(), by: Arc::new(Mutex::new(world)), workers: Vec::new() };
        let socket = two.world.dir().to_owned();
        let workers = (0..4).map(|_| {
            let (stop, made, by, socket) = (load.stop.clone(), load.made.clone(), load.by.clone(), socket.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let connecting = by.lock().unwrap().client_config("agent/demo").unwrap();
                    let agent = mayfly::serve::client::mtls(workload, connecting).await.unwrap();
                    let operator = mayfly::serve::client::unix(&socket.join("run/admin.sock")).await.unwrap();
                    let callers = Callers { agent, operator };
                    for n in 0..10 {
                        callers.exchange("").await.unwrap_or_else(|no| panic!("call {n} of a connection: {no}"));
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        let workers = workers.collect();
        Load { workers, ..load }
    }

    /// Waits for `more` further successful exchanges.
    async fn goes_on(&self, more: usize) {
        let before = self.made.load(Ordering::Relaxed);
        until("calls go on", || async { self.made.load(Ordering::Relaxed) > before + more }).await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.unwrap();
        }
        self.made.load(Ordering::Relaxed)
    }
}

fn both_roots(two: &Two) {
    let pem = |world: &DevWorld| std::fs::read_to_string(world.dir().join("ca.pem")).unwrap();
    let both = format!("{}{}", pem(&two.world), pem(&two.other));
    for world in [&two.world, &two.other] {
        std::fs::write(world.bundle(), &both).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_svid_and_roots_rotate_and_the_agent_is_killed_and_a_root_that_goes_revokes() {
    let two = Two::new();
    let mut agent = Agent::giving(two.dir.path(), servers(&two.world, HOUR / 2, &[&two.world]));
    by_agent(&two.world, &agent.endpoint(), "");
    both_roots(&two);
    let running = two.start();
    let workload = running.addresses().workload;
    let callers = Callers::new(&two.world, workload).await;
    let first = identity(&callers).await;
    assert_eq!((first.source.as_str(), first.spiffe_id), ("workload_api", DevWorld::id("mayfly")));
    assert_eq!((first.place, first.dns_names), (format!("unix:{}", agent.socket.display()), vec!["localhost".to_owned()]));
    let source = running.authority().ledger.peek(|s| s.bundles[TRUST_DOMAIN].source.clone());
    assert_eq!(TrustBundleSource::from_text(&source), Some(TrustBundleSource::WorkloadApi));
    let load = Load::begin(&two, workload);

    // New certificates, several times, with the agent killed in between.
    for n in 1..=4u64 {
        if n == 3 {
            agent.die();
            until("that it is away is told", || async { identity(&callers).await.problem.contains("no connection") }).await;
            load.goes_on(40).await;
            agent.back();
        }
        agent.say(servers(&two.world, HOUR / 2 + n * 60_000, &[&two.world]));
        until("it is taken", || async { identity(&callers).await.renewals == n }).await;
        assert_eq!(identity(&callers).await.problem, "");
        load.goes_on(20).await;
    }
    // A new root, then an SVID from it; the callers follow.
    agent.say(servers(&two.world, HOUR, &[&two.world, &two.other]));
    until("the new root vouches", || async { roots(&running, TRUST_DOMAIN) == 2 }).await;
    load.goes_on(20).await;
    agent.say(servers(&two.other, HOUR, &[&two.world, &two.other]));
    until("the SVID by the new root is taken", || async { identity(&callers).await.renewals == 6 }).await;
    load.goes_on(40).await;
    let before = callers.exchange("").await.unwrap();
    *load.by.lock().unwrap() = DevWorld::create(two.other.dir(), &DevSettings::default()).unwrap();
    load.goes_on(80).await;
    let later = Callers { agent: two.other.channel("agent/demo", workload).await.unwrap(), operator: callers.operator.clone() };
    let after = later.exchange("").await.unwrap();
    // The old root is removed: its connections end, and the credentials based on it are revoked.
    agent.say(servers(&two.other, HOUR, &[&two.other]));
    until("the old root is gone", || async { roots(&running, TRUST_DOMAIN) == 1 }).await;
    until("what it vouched for is revoked", || async { !callers.active(&before.token).await }).await;
    assert!(callers.active(&after.token).await, "what the new root vouches for stands");
    assert!(two.world.channel("agent/demo", workload).await.is_err() || callers.exchange("").await.is_err());
    load.goes_on(20).await;
    let made = load.end().await;
    assert!(made > 300, "{made} exchanges");
    tokio::task::block_in_place(|| running.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_federated_trust_domain_is_trusted_where_it_is_configured_and_while_it_is_given() {
    let two = Two::new();
    let given = |federated: &[(&str, &DevWorld)]| {
        let federated_bundles: HashMap<_, _> =
            federated.iter().map(|(id, w)| ((*id).to_owned(), ders(&w.dir().join("ca.pem")))).collect();
        X509SvidResponse { federated_bundles, ..servers(&two.world, HOUR, &[&two.world]) }
    };
    let agent = Agent::giving(two.dir.path(), given(&[("spiffe://elsewhere.test", &two.other)]));
    by_agent(&two.world, &agent.endpoint(), "[[bundles]]\ntrust_domain = \"partner.test\"\n");
    let running = two.start();
    assert_eq!(
        (roots(&running, "elsewhere.test"), roots(&running, "partner.test")),
        (0, 0),
        "nobody asked for the one, nobody gives the other"
    );
    agent.say(given(&[("spiffe://elsewhere.test", &two.other), ("spiffe://partner.test", &two.other)]));
    until("it is trusted", || async { roots(&running, "partner.test") == 1 }).await;
    assert_eq!(roots(&running, "elsewhere.test"), 0);
    // An unreadable bundle changes nothing.
    let mut broken = given(&[("spiffe://partner.test", &two.other)]);
    broken.federated_bundles.insert("spiffe://partner.test".into(), bytes::Bytes::from_static(b"no certificate"));
    agent.say(broken);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(roots(&running, "partner.test"), 1);
    // Each message is the whole set.
    agent.say(given(&[]));
    until("it is not trusted any more", || async { roots(&running, "partner.test") == 0 }).await;
    let rules = running.authority().ledger.peek(|s| s.rules.len());
    assert_eq!(rules, 1, "and what it vouched for is revoked");
    assert_eq!(roots(&running, TRUST_DOMAIN), 1);
    tokio::task::block_in_place(|| running.stop());
}

/// The form that SPIRE uses: a plain JWK set, without `use`.
const JWKS: &str = r#"{"keys":[{"kty":"EC","kid":"a","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

fn said(jwks: &'static str) -> JwtBundlesResponse {
    JwtBundlesResponse { bundles: [(format!("spiffe://{TRUST_DOMAIN}"), jwks.into())].into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_jwt_svids_come_with_the_bundle_and_stay_over_a_restart_of_the_agent() {
    let two = Two::new();
    let mut agent = Agent::giving(two.dir.path(), servers(&two.world, HOUR, &[&two.world]));
    // The JWT bundles are unavailable at first.
    agent.no_jwt();
    by_agent(&two.world, &agent.endpoint(), "");
    let running = two.start();
    let has = || {
        running
            .authority()
            .bundles
            .load()
            .get(TRUST_DOMAIN)
            .is_some_and(|b| b.jwt_authority("a").is_some_and(|a| a.key().is_ok()))
    };
    assert!(!has());
    agent.say_jwt(said(JWKS));
    until("the key is in force", || async { has() }).await;
    let changes = || running.authority().ledger.durable();
    let before = changes();
    agent.die();
    agent.back();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(has() && changes() == before, "nothing changed, so nothing is recorded");
    // Only this stream is cut off and then refused: the stream of SVIDs stays open.
    agent.no_jwt();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(has() && changes() == before, "what came last stays");
    agent.say_jwt(said(r#"{"keys":[]}"#));
    until("the key is gone", || async { !has() }).await;
    assert_eq!(roots(&running, TRUST_DOMAIN), 1);
    tokio::task::block_in_place(|| running.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_silent_about_jwt_bundles_holds_up_no_svid() {
    let two = Two::new();
    let agent = Agent::giving(two.dir.path(), servers(&two.world, HOUR, &[&two.world]));
    agent.silent_about_jwt();
    by_agent(&two.world, &agent.endpoint(), "");
    let running = two.start();
    let jwt_keys = || running.authority().bundles.load().get(TRUST_DOMAIN).map_or(0, |b| b.jwt_authorities().len());
    assert_eq!((roots(&running, TRUST_DOMAIN), jwt_keys()), (1, 0));
    agent.say(servers(&two.other, HOUR, &[&two.world, &two.other]));
    until("roots that change meanwhile are in force", || async { roots(&running, TRUST_DOMAIN) == 2 }).await;
    agent.say_jwt(said(JWKS));
    until("and so is the key, once it comes", || async { jwt_keys() == 1 }).await;
    tokio::task::block_in_place(|| running.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_svids_the_one_by_id_or_hint_is_shown() {
    let two = Two::new();
    let hinted =
        |name: &str, hint: &str| crate::agent::X509Svid { hint: hint.to_owned(), ..svid(&two.world, name, HOUR, &[&two.world]) };
    let all =
        X509SvidResponse { svids: vec![hinted("agent/demo", "internal"), hinted("mayfly", "external")], ..Default::default() };
    let agent = Agent::giving(two.dir.path(), all);
    let base = std::fs::read_to_string(two.world.config()).unwrap();
    for more in ["hint = \"external\"\n".to_owned(), format!("spiffe_id = \"{}\"\n", DevWorld::id("mayfly"))] {
        std::fs::write(two.world.config(), &base).unwrap();
        by_agent(&two.world, &agent.endpoint(), &more);
        let running = two.start();
        assert_eq!(running.authority().own.get().unwrap().id().to_string(), DevWorld::id("mayfly"));
        tokio::task::block_in_place(|| running.stop());
    }
    assert!(Path::new(&agent.socket).exists());
}
