//! Followers of revocations while their server is restarted: a restart has no visible effect, and a server that runs on an older copy of
//! its ledger is rejected.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld, TRUST_DOMAIN};
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Record, TargetsRevoked};
use mayfly::revocation::{Rules, Target};
use mayfly::seq::CredentialId;
use mayfly::server::RunningServer;
use mayfly::system::System;
use mayfly::verifier::{self, Need, Verifier};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::kit::{Callers, accepts, as_operator, until, world};
use crate::recover::{head, issue, recover, recovered, runtime, start};

/// A relying service that follows the current server.
struct Service {
    verifier: Arc<Verifier>,
    now: Arc<Mutex<Channel>>,
}

impl Service {
    fn begin(runtime: &Runtime, world: &DevWorld, running: &RunningServer) -> Service {
        let settings = verifier::Settings {
            follower: "echo-1".into(),
            upstreams: vec!["echo".into()],
            issuer: format!("https://{TRUST_DOMAIN}/dev"),
            audience: "https://echo.dev.mayfly.internal".into(),
        };
        let verifier = Verifier::new(settings, System::real());
        let now = Arc::new(Mutex::new(channel(runtime, world, running)));
        let current = now.clone();
        runtime.spawn(verifier.clone().follow_by(move || current.lock().clone()));
        runtime.block_on(until("it follows", || async { verifier.ready() }));
        Service { verifier, now }
    }

    fn goes_over(&self, runtime: &Runtime, world: &DevWorld, running: &RunningServer) {
        *self.now.lock() = channel(runtime, world, running);
    }

    fn said(&self, token: &str) -> &'static str {
        self.verifier.check(token, Need::default()).map_or_else(|refused| refused.reason(), |_| "accepted")
    }
}

fn channel(runtime: &Runtime, world: &DevWorld, running: &RunningServer) -> Channel {
    runtime.block_on(world.channel("service/echo", running.addresses().workload)).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn put_back(world: &DevWorld, old: &Path) {
    fs::remove_dir_all(world.dir().join("data")).unwrap();
    copy(old, &world.dir().join("data"));
}

fn revoke(runtime: &Runtime, world: &DevWorld, running: &RunningServer, id: &str) {
    let callers = runtime.block_on(Callers::new(world, running.addresses().workload));
    runtime.block_on(callers.revoke(id)).unwrap();
}

/// The server that was put back lacks a revocation. Whether its head is behind the one that followers saw or has passed it by then, the
/// followers that saw more reject it, its operator is told, and a new generation fixes it.
#[test]
fn an_old_copy_of_the_data_directory_is_believed_by_no_follower_until_a_new_generation() {
    for past in [false, true] {
        let (_dir, world) = world(DevSettings::default());
        let runtime = runtime();
        let running = start(&world);
        let old = issue(&runtime, &world, &running, &["a", "b"]);
        running.stop();
        let kept = world.dir().join("kept");
        copy(&world.dir().join("data"), &kept);
        let running = start(&world);
        let service = Service::begin(&runtime, &world, &running);
        revoke(&runtime, &world, &running, &old[0].id);
        runtime.block_on(until("it refuses", || async { service.said(&old[0].token) == "revoked" }));
        runtime.block_on(until("it has seen all", || async { service.verifier.applied() >= head(&running) }));
        let seen = service.verifier.applied();
        running.stop();

        put_back(&world, &kept);
        let running = start(&world);
        let admin = running.addresses().admin;
        let on = || drop(issue(&runtime, &world, &running, &[""; 40]));
        if past {
            on();
            assert!(head(&running) > seen);
        }
        service.goes_over(&runtime, &world, &running);
        runtime.block_on(until("it is not believed", || async { service.said(&old[1].token) == "rolled_back" }));
        if !past {
            on();
        }
        let new = issue(&runtime, &world, &running, &["new"]);
        assert!(head(&running) > seen);
        std::thread::sleep(Duration::from_secs(3));
        for token in [&old[0].token, &old[1].token, &new[0].token] {
            assert_eq!(service.said(token), "rolled_back", "it does not heal by itself");
        }
        let status = String::from_utf8(as_operator(&world, admin, &["status", "-o", "json"]).stdout).unwrap();
        assert!(status.contains("\"followers_beyond\": 1") && status.contains("mayfly server recover"), "{status}");
        assert!(running.authority().metrics().unwrap().contains("mayfly_followers_beyond 1"));
        let after = head(&running);
        running.stop();

        recovered(&recover(&world, after, &[]));
        let running = start(&world);
        service.goes_over(&runtime, &world, &running);
        let anew = issue(&runtime, &world, &running, &["anew"]);
        runtime.block_on(until("a new generation is believed", || async { accepts(&service.verifier, &anew[0].token) }));
        for token in [&old[0].token, &old[1].token, &new[0].token] {
            assert_eq!(service.said(token), "revoked");
        }
        running.stop();
    }
}

/// Sending about 40,000 rules again takes a while; until then the follower's former view decides.
#[test]
fn a_restart_shows_nowhere_however_many_rules_there_are_to_tell() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    let good = issue(&runtime, &world, &running, &["a"]).remove(0);
    let ledger = running.authority().ledger.clone();
    let keep_until = Rules::keep_until(running.authority().system.wall()).0;
    runtime.block_on(async {
        for n in 0..625_u128 {
            let target = |k: u128| Target::Credential(CredentialId::from_bytes((n * 64 + k).to_be_bytes())).to_record();
            let revoked = TargetsRevoked {
                targets: (0..64).map(target).collect(),
                keep_until,
                reason: "test".into(),
                ..TargetsRevoked::default()
            };
            ledger.commit(ProposalKind::Revoke, vec![Record::new(Author::LocalUid(0), Event::Revoked(revoked))]).await.unwrap();
        }
    });
    drop(ledger);
    let service = Service::begin(&runtime, &world, &running);
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let asking = {
        let (stop, refused, verifier, token) = (stop.clone(), refused.clone(), service.verifier.clone(), good.token.clone());
        std::thread::spawn(move || {
            let mut asked = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                if let Err(no) = verifier.check(&token, Need::default()) {
                    refused.lock().push(no.reason());
                }
                asked += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            asked
        })
    };
    let mut running = running;
    for _ in 0..2 {
        running.stop();
        running = start(&world);
        service.goes_over(&runtime, &world, &running);
        let now = head(&running);
        runtime.block_on(until("it has the snapshot", || async { service.verifier.applied() >= now }));
    }
    stop.store(true, Ordering::Relaxed);
    let asked = asking.join().unwrap();
    assert!(refused.lock().is_empty() && asked > 100, "{asked} asked, refused: {:?}", refused.lock());
    revoke(&runtime, &world, &running, &good.id);
    runtime.block_on(until("it goes on being told", || async { service.said(&good.token) == "revoked" }));
    running.stop();
}
