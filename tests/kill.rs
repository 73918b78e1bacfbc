//! SIGKILL at random moments under load: nothing acknowledged is lost, nothing revoked comes back.
//!
//! `MAYFLY_KILLS` is the number of kills (default 4), and `MAYFLY_SEED` chooses the moments. The server is a separate process, on each
//! engine that stores on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld, ServerProcess};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::serve::client;
use parking_lot::Mutex;
use tonic::transport::Channel;

#[path = "kit/dice.rs"]
mod dice;
use dice::{Dice, setting};

/// Concurrent exchanges.
const WORKERS: usize = 12;
/// Tokens that are checked again after each restart, in addition to those of the last round and every dead one of it.
const SAMPLE: usize = 150;

/// A token, and the id of its credential.
type Held = (String, String);

/// The acknowledged credentials and revocations.
#[derive(Default)]
struct Known {
    alive: Mutex<Vec<Held>>,
    dead: Mutex<Vec<String>>,
    stop: AtomicBool,
}

fn exchange(task: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.to_owned())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        purpose: "kill".into(),
        ..Default::default()
    }
}

fn held(issued: pb::Issued) -> Held {
    match issued.answer {
        Some(pb::issued::Answer::BearerToken(bearer)) => (bearer.token.clone(), issued.credential_id),
        _ => panic!("no bearer token"),
    }
}

async fn open(agent: &Channel) -> String {
    let terms = pb::TaskTerms {
        purpose: "kill".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
        ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..Default::default()
    };
    let ask = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
    TaskServiceClient::new(agent.clone()).open_task(ask).await.unwrap().into_inner().task.unwrap().task_id
}

async fn issue(agent: Channel, task: String, known: Arc<Known>) {
    let mut client = TokenServiceClient::new(agent);
    while !known.stop.load(Ordering::Relaxed) {
        match client.exchange(exchange(&task)).await {
            Ok(answer) => known.alive.lock().push(held(answer.into_inner().issued.unwrap())),
            Err(_) => return,
        }
    }
}

/// Revokes one credential after another. If a revocation was not acknowledged, its credential counts as neither alive nor dead.
async fn revoke(operator: Channel, known: Arc<Known>) {
    let mut client = RevocationServiceClient::new(operator);
    while !known.stop.load(Ordering::Relaxed) {
        let Some((token, id)) = known.alive.lock().pop() else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        let target = pb::Target { target: Some(pb::target::Target::CredentialId(id)) };
        let ask = pb::RevokeRequest {
            targets: vec![target],
            reason: "kill".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        match client.revoke(ask).await {
            Ok(_) => known.dead.lock().push(token),
            Err(_) => return,
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

async fn active(client: &mut TokenServiceClient<Channel>, token: &str) -> bool {
    client.introspect(pb::IntrospectRequest { token: token.to_owned() }).await.unwrap().into_inner().active
}

async fn operator(world: &DevWorld, child: &ServerProcess) -> Channel {
    client::unix(&world.dir().join(child.addresses().admin_socket.clone().unwrap())).await.unwrap()
}

#[test]
fn what_was_acknowledged_outlives_sigkill_and_what_was_revoked_stays_dead() {
    killed(DevEngine::Redb);
}

#[test]
fn it_does_so_on_sled() {
    killed(DevEngine::Sled);
}

fn killed(engine: DevEngine) {
    let kills = setting("MAYFLY_KILLS", 4);
    let seed = setting("MAYFLY_SEED", u64::from(std::process::id()) | 1 << 40);
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let world = DevWorld::create(&dir.path().join("world"), &DevSettings { engine, ..DevSettings::default() }).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mayfly"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let known = Arc::new(Known::default());
    let (mut looked, mut acknowledged, mut revoked) = (0, 0, 0);
    let mut before = (0, 0);
    for round in 0..=kills {
        let child = world.spawn(program).unwrap();
        runtime.block_on(async {
            let mut client = TokenServiceClient::new(operator(&world, &child).await);
            let (alive, dead) = (known.alive.lock().clone(), known.dead.lock().clone());
            let (old_alive, old_dead) = before;
            let sample =
                |dice: &mut Dice, n: usize| (0..SAMPLE.min(n)).map(|_| dice.below(n as u64) as usize).collect::<Vec<_>>();
            let old = sample(&mut dice, old_alive.min(alive.len()));
            for n in old.into_iter().chain(old_alive.min(alive.len())..alive.len()) {
                assert!(
                    active(&mut client, &alive[n].0).await,
                    "round {round}, seed {seed}: {} was acknowledged and is lost",
                    alive[n].1
                );
                looked += 1;
            }
            let old = sample(&mut dice, old_dead);
            for n in old.into_iter().chain(old_dead..dead.len()) {
                assert!(!active(&mut client, &dead[n]).await, "round {round}, seed {seed}: a revoked credential is active");
                looked += 1;
            }
            before = (alive.len(), dead.len());
            (acknowledged, revoked) = (alive.len() + dead.len(), dead.len());
        });
        if round == kills {
            child.stop().unwrap();
            break;
        }
        known.stop.store(false, Ordering::Relaxed);
        let workers = runtime.block_on(async {
            let agent = world.channel("agent/demo", child.addresses().workload).await.unwrap();
            let task = open(&agent).await;
            let operator = operator(&world, &child).await;
            let mut all: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(issue(agent.clone(), task.clone(), known.clone()))).collect();
            all.push(tokio::spawn(revoke(operator, known.clone())));
            tokio::time::sleep(Duration::from_millis(30 + dice.below(400))).await;
            all
        });
        child.kill();
        known.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for worker in workers {
                worker.await.unwrap();
            }
        });
    }
    println!(
        "kill, {}: {kills} SIGKILLs, {acknowledged} credentials acknowledged, {revoked} of them revoked, {looked} looked at again, 0 lost, 0 revived",
        engine.name()
    );
    assert!(kills == 0 || acknowledged > 0, "no load came through");
}
