//! The server of a dev world as a separate process, which can be killed at any moment, unlike a thread.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::world::{DevWorld, DevWorldError};
use mayfly_base::bounded_file;
use mayfly_server::Addresses;

/// The longest wait for a server to answer.
const PATIENCE_S: u64 = 60;
const LOOK: Duration = Duration::from_millis(20);
/// How much of the log is shown if the server ended too early, bytes.
const LOG_SHOWN: usize = 4096;

/// A server process, which is killed when dropped.
pub struct ServerProcess {
    process: std::process::Child,
    addresses: Addresses,
    log: PathBuf,
}

impl ServerProcess {
    pub(super) fn spawn(program: &Path, config: &Path, dir: &Path) -> Result<ServerProcess, DevWorldError> {
        let (ready, log) = (DevWorld::ready_file(dir), dir.join("server.log"));
        let io = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |error| DevWorldError::Io { what, path, error }
        };
        let _ = std::fs::remove_file(&ready);
        let file = File::create(&log).map_err(io("making", &log))?;
        let mut command = Command::new(program);
        command.args(["server", "run", "--log", "text", "--config"]).arg(config).arg("--ready-file").arg(&ready);
        // Variables meant for the command line or for another server must not configure this server.
        let ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"MAYFLY_") && name != "MAYFLY_LOG";
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut process = command.spawn().map_err(io("starting", program))?;
        for _ in 0..PATIENCE_S * 1000 / 20 {
            if let Some(addresses) = DevWorld::addresses(dir).filter(|a| a.pid == process.id()) {
                return Ok(ServerProcess { process, addresses, log });
            }
            if matches!(process.try_wait(), Ok(Some(_)) | Err(_)) {
                return Err(DevWorldError::Ended(end_of(&log)));
            }
            std::thread::sleep(LOOK);
        }
        let _ = process.kill();
        let _ = process.wait();
        Err(DevWorldError::Silent { seconds: PATIENCE_S, log })
    }

    /// The addresses of the server.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        end_of(&self.log)
    }

    /// Kills the server with SIGKILL, in the middle of its work.
    pub fn kill(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Stops the server with SIGTERM, and blocks until it has shut down.
    pub fn stop(mut self) -> std::io::Result<ExitStatus> {
        self.terminate();
        self.process.wait()
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// The exit status, if the server has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The last lines of a log file.
pub(super) fn end_of(log: &Path) -> String {
    let bytes = bounded_file::read_end(log, LOG_SHOWN).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}
