//! The program: started with the credentials in its environment, given our signals, ended where it has to be.

use std::ffi::OsString;
use std::io;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::credentials::Credentials;

/// A program that was not started, in the shell's numbers.
#[derive(Debug, thiserror::Error)]
#[error("{program}: {error}")]
pub(super) struct NotStarted {
    program: String,
    error: io::Error,
}

impl NotStarted {
    /// 127: there is none; 126: it cannot be run.
    pub fn code(&self) -> u8 {
        if self.error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// A program that runs.
pub(super) struct Child {
    process: Process,
}

impl Child {
    /// Starts it. What we have open beside the three streams is closed in it.
    pub fn spawn(words: &[OsString], credentials: &Credentials) -> Result<Child, NotStarted> {
        let Some((program, rest)) = words.split_first() else {
            return Err(NotStarted { program: String::new(), error: io::ErrorKind::NotFound.into() });
        };
        let mut command = Command::new(program);
        // Should this process end by a panic or be cancelled, the program does not outlive it.
        command.args(rest).kill_on_drop(true);
        credentials.each(|name, value| {
            command.env(name, value);
        });
        let process = command.spawn();
        let process = process.map_err(|error| NotStarted { program: program.to_string_lossy().into_owned(), error })?;
        Ok(Child { process })
    }

    /// Until it ends.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// The signal that we got.
    pub fn pass_on(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended a moment ago.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it: SIGTERM, and after a while SIGKILL. Answers how it had ended where it already had.
    pub async fn end(&mut self, grace: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.process.try_wait()? {
            return Ok(Some(status));
        }
        self.pass_on(Signal::TERM);
        if tokio::time::timeout(grace, self.process.wait()).await.is_err() {
            self.process.kill().await?;
        }
        Ok(None)
    }
}

/// Its exit code, or 128 and the number of the signal that ended it, as shells say it.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The signals that are for the program.
pub(super) struct Signals(Vec<(Signal, Stream)>);

impl Signals {
    /// From here on none of them ends us. What somebody types at a terminal goes to the program by itself.
    pub fn new() -> io::Result<Signals> {
        let typed = io::stdin().is_terminal();
        let all = [
            (Signal::TERM, SignalKind::terminate(), true),
            (Signal::INT, SignalKind::interrupt(), !typed),
            (Signal::QUIT, SignalKind::quit(), !typed),
            (Signal::HUP, SignalKind::hangup(), true),
            (Signal::USR1, SignalKind::user_defined1(), true),
            (Signal::USR2, SignalKind::user_defined2(), true),
        ];
        let mut streams = Vec::new();
        for (number, kind, ours) in all {
            let stream = signal(kind)?;
            if ours {
                streams.push((number, stream));
            } else {
                // Ignored here, for as long as the stream lives.
                std::mem::forget(stream);
            }
        }
        Ok(Signals(streams))
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (number, stream) in &mut self.0 {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
