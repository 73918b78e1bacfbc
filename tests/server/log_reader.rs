//! A running server's log is not read, or its reader is gone: everything else continues, and the server ends when it is told to.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{MAYFLY, open_task, until, world};
use crate::webhooks::revoke;

/// Ten seconds for open calls, one for the reader of the log, and some for a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(18);

/// A server process that logs each call into a pipe, and the other end of the pipe.
struct Piped {
    child: Child,
    world: DevWorld,
    reader: Option<File>,
    _dir: tempfile::TempDir,
}

impl Piped {
    async fn new() -> Piped {
        Piped::with(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() }).await
    }

    async fn with(settings: DevSettings) -> Piped {
        let (dir, world) = world(settings.with("log.calls", "true"));
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(MAYFLY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        command.args(["server", "run", "--config"]).arg(world.config());
        command.arg("--ready-file").arg(DevWorld::ready_file(world.dir()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(writer)).spawn().unwrap();
        drop(command);
        until("it serves", || DevWorld::addresses(world.dir()).is_some()).await;
        Piped { child, world, reader: Some(File::from(OwnedFd::from(reader))), _dir: dir }
    }

    /// Makes calls, each with a log line.
    async fn call(&self, calls: usize) {
        let address = DevWorld::addresses(self.world.dir()).unwrap().workload;
        let channel = self.world.channel("agent/demo", address).await.unwrap();
        for n in 0..calls {
            let answered = tokio::time::timeout(Duration::from_secs(20), open_task(channel.clone(), None)).await;
            answered.unwrap_or_else(|_| panic!("call {n} hangs")).unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    async fn ends(&mut self) -> ExitStatus {
        for _ in 0..ENDS_WITHIN.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not end within {ENDS_WITHIN:?}");
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_log_that_went_away_ends_neither_the_server_nor_its_listeners() {
    let mut server = Piped::new().await;
    server.call(1).await;
    drop(server.reader.take());
    // Each call, and the renewal of the certificate, logs into a pipe that has no reader any more.
    server.call(5).await;
    server.world.renew().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.call(5).await;
    revoke(&server.world, DevWorld::addresses(server.world.dir()).unwrap().admin, 1).await;
    for ignored in [Signal::USR1, Signal::USR2, Signal::XFSZ, Signal::ALARM] {
        server.signal(ignored);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.call(1).await;
    server.signal(Signal::TERM);
    assert!(server.ends().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_log_that_stalls_keeps_nobody_and_is_told_what_it_missed() {
    let mut server = Piped::with(
        DevSettings { engine: DevEngine::Memory, ..DevSettings::default() }.with("listen.metrics", "\"127.0.0.1:0\""),
    )
    .await;
    // A pipe holds 64 KiB and the queue 4 MiB: 400 bytes or more for each call.
    server.call(800).await;
    revoke(&server.world, DevWorld::addresses(server.world.dir()).unwrap().admin, 1).await;
    // The reader reads again, and gets every line whole and in order.
    let mut reader = server.reader.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    server.call(1).await;
    server.signal(Signal::TERM);
    assert!(server.ends().await.success());
    let text = reading.join().unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls = lines.iter().filter(|line| line["rpc"].as_str().is_some_and(|rpc| rpc.ends_with("OpenTask"))).count();
    assert_eq!(calls, 801);
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_reader_of_the_log_that_stalls_a_server_ends_when_it_is_told_to() {
    let mut server = Piped::new().await;
    server.call(400).await;
    server.signal(Signal::TERM);
    assert!(server.ends().await.success());
}

#[test]
fn a_refusal_to_start_is_told_to_nobody_and_ends_all_the_same() {
    let (_dir, world) = world(DevSettings::default());
    let (_reader, writer) = std::io::pipe().unwrap();
    // Fill the pipe to the last byte.
    let full = File::from(OwnedFd::from(writer));
    let flags = rustix::fs::fcntl_getfl(&full).unwrap();
    rustix::fs::fcntl_setfl(&full, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        while rustix::io::write(&full, &vec![b'x'; size]).is_ok() {}
    }
    rustix::fs::fcntl_setfl(&full, flags).unwrap();
    for args in [&["server", "run", "--config", "/nowhere/mayfly.toml"][..], &["server", "run", "--no-such-flag"], &["server"]] {
        let stderr = full.try_clone().unwrap();
        let mut child =
            Command::new(MAYFLY).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let ended = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            child.try_wait().unwrap()
        });
        let _ = child.kill();
        assert_eq!(ended.and_then(|status| status.code()), Some(2), "{args:?}");
    }
    drop(world);
}
