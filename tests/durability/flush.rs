//! The disk fails under a running server: no call is answered as successful, and nothing is issued until the store was reopened.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::server::Addresses;
use mayfly::system::System;
use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{Callers, MAYFLY, PATIENCE, TOKENS, accepts, as_operator, follower, reason, retry_after, until, way_out, world};

/// A server whose disk fails on command.
struct Server {
    process: std::process::Child,
    addresses: Addresses,
    told: PathBuf,
}

/// The library that makes the disk fail; `None` without a C compiler.
fn failing_disk(dir: &Path) -> Option<PathBuf> {
    let library = dir.join("failing_disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kit/failing_disk.c");
    let built = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    if !cfg!(target_os = "linux") || !built.is_ok_and(|s| s.success()) {
        crate::skipped::skipped("making a disk fail needs Linux and cc");
        return None;
    }
    Some(library)
}

impl Server {
    async fn start(world: &DevWorld, library: &Path, told: &Path) -> Server {
        std::fs::create_dir_all(told).unwrap();
        let ready = DevWorld::ready_file(world.dir());
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::create(world.dir().join("server.log")).unwrap();
        let process = Command::new(MAYFLY)
            .args(["server", "run", "--log", "text", "--config"])
            .arg(world.config())
            .arg("--ready-file")
            .arg(&ready)
            .env("LD_PRELOAD", library)
            .env("FAILING_DISK", told)
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut server = None;
        for _ in 0..PATIENCE.as_millis() / 20 {
            server = DevWorld::addresses(world.dir());
            if server.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Server { addresses: server.expect("it answers"), process, told: told.to_owned() }
    }

    /// Sets which of the next syncs or writes fails.
    fn fail(&self, what: &str, which: &str) {
        std::fs::write(self.told.join(what), which).unwrap();
    }

    fn well(&self, what: &str) {
        let _ = std::fs::remove_file(self.told.join(what));
    }

    fn kill(self) {
        drop(self);
    }

    fn terminate(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_flush_nothing_is_issued_until_the_store_was_opened_again() {
    flush_fails(DevEngine::Redb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sled_after_a_failed_flush_nothing_is_issued_until_the_store_was_opened_again() {
    flush_fails(DevEngine::Sled).await;
}

async fn flush_fails(engine: DevEngine) {
    let (dir, world) = world(DevSettings { engine, ..DevSettings::default() });
    let Some(library) = failing_disk(dir.path()) else { return };
    let server = Server::start(&world, &library, &dir.path().join("told")).await;
    let callers = Callers::new(&world, server.addresses.workload).await;
    let before = callers.exchange("before").await.unwrap();
    until("it issues", || callers.serving(TOKENS)).await;

    server.fail("sync", "always");
    let refused = callers.exchange("during").await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (tonic::Code::Unavailable, "NOT_READY"), "{refused:?}");
    assert!(retry_after(&refused).is_some() && way_out(&refused).contains("mayfly status"), "{refused:?}");
    // Several times, to exclude chance: neither an issuance nor a revocation is acknowledged while nothing can be written.
    for _ in 0..3 {
        assert_eq!(reason(&callers.exchange("").await.unwrap_err()), "NOT_READY");
        assert_eq!(reason(&callers.revoke(&before.id).await.unwrap_err()), "NOT_READY");
    }
    until("health says so", || async { !callers.serving("").await && !callers.serving(TOKENS).await }).await;
    let issuing = callers.status().await.issuing.unwrap();
    assert!(!issuing.issuing && issuing.reason == "NOT_READY", "{issuing:?}");
    assert!(issuing.message.contains("could not be"), "{issuing:?}");
    let told = as_operator(&world, server.addresses.admin, &["status"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("NOT_READY"), "{told:?}");

    server.well("sync");
    callers.until_exchange("it opens the store again by itself", Result::is_ok).await.unwrap();
    until("health says so", || callers.serving("")).await;
    // The unanswered request is retried: it has one credential, whether the first attempt reached the disk or not.
    let (first, second) = (callers.exchange("during").await.unwrap(), callers.exchange("during").await.unwrap());
    assert_eq!(first.id, second.id);
    assert_eq!(callers.exchange("before").await.unwrap().id, before.id, "what was acknowledged is there");
    callers.revoke(&before.id).await.unwrap();
    assert!(!callers.active(&before.token).await && callers.active(&first.token).await);
    server.kill();
    let server = Server::start(&world, &library, &dir.path().join("told")).await;
    let callers = Callers::new(&world, server.addresses.workload).await;
    assert!(!callers.active(&before.token).await && callers.active(&first.token).await);
    server.terminate();
}

/// A revocation whose flush failed may be on the disk all the same, and its author receives it as the answer to a retry. All followers must
/// know it by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_outlived_its_failed_flush_reaches_the_followers() {
    outlives(DevEngine::Redb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sled_a_revocation_that_outlived_its_failed_flush_reaches_the_followers() {
    outlives(DevEngine::Sled).await;
}

async fn outlives(engine: DevEngine) {
    let (dir, world) = world(DevSettings { engine, ..DevSettings::default() });
    let Some(library) = failing_disk(dir.path()) else { return };
    let server = Server::start(&world, &library, &dir.path().join("told")).await;
    let callers = Callers::new(&world, server.addresses.workload).await;
    let relying = follower(&world, server.addresses.workload, System::real()).await;
    let mut outlived = 0;
    // redb flushes once per commit; sled once, and once more for its head.
    let last = if engine == DevEngine::Redb { "1" } else { "2" };
    for (what, which) in [("sync", "1"), ("sync", last), ("write", "1"), ("sync", last)] {
        let held = callers.exchange("").await.unwrap();
        assert!(accepts(&relying, &held.token));
        server.fail(what, which);
        let refused = callers.revoke(&held.id).await.unwrap_err();
        assert_eq!(reason(&refused), "NOT_READY", "a failed {what} is no acknowledgement");
        server.well(what);
        // The next commit reopens the store.
        let later = callers.until_exchange("it goes on", Result::is_ok).await.unwrap();
        outlived += usize::from(!callers.active(&held.token).await);
        let seq = callers.revoke(&held.id).await.unwrap();
        until("the follower has applied it", || async { relying.applied().as_u64() >= seq }).await;
        assert!(!accepts(&relying, &held.token), "a follower that has seen seq {seq} accepts what it revoked");
        assert!(!callers.active(&held.token).await && callers.active(&later.token).await && accepts(&relying, &later.token));
    }
    println!("{outlived} of 4 revocations were on the disk although their flush or write had failed");
    assert!((1..4).contains(&outlived), "both cases are there");
    server.terminate();
}
