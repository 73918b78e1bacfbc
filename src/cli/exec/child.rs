//! The child process: started with the credentials in its environment, given the signals of this process, and ended when necessary.

use std::ffi::OsString;
use std::io;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::credentials::ProgramCredentials;

/// A program that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{program}: {error}")]
pub(super) struct NotStarted {
    program: String,
    error: io::Error,
}

impl NotStarted {
    /// The exit code that shells use: 127 if there is no such program; 126 if it cannot be executed.
    pub fn code(&self) -> u8 {
        if self.error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// A running program.
pub(super) struct ChildProgram {
    process: Process,
}

impl ChildProgram {
    /// Starts the program. It inherits only the three standard streams.
    pub fn spawn(words: &[OsString], credentials: &ProgramCredentials) -> Result<ChildProgram, NotStarted> {
        let Some((program, rest)) = words.split_first() else {
            return Err(NotStarted { program: String::new(), error: io::ErrorKind::NotFound.into() });
        };
        let mut command = Command::new(program);
        // If this process panics or is cancelled, the program does not outlive it.
        command.args(rest).kill_on_drop(true);
        for name in credentials.not_inherited() {
            command.env_remove(name);
        }
        credentials.each(|name, value| {
            command.env(name, value);
        });
        let process = command.spawn();
        let process = process.map_err(|error| NotStarted { program: program.to_string_lossy().into_owned(), error })?;
        Ok(ChildProgram { process })
    }

    /// Waits until the program ends.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Forwards a signal to the program.
    pub fn pass_on(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // The program may have ended a moment ago.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends the program: SIGTERM, and SIGKILL after `grace`. Returns the exit status if the program had already ended.
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

/// The exit code of the program, or 128 plus the number of the signal that ended it, as in shells.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The signals that are forwarded to the program.
pub(super) struct Signals(Vec<(Signal, Stream)>);

impl Signals {
    /// Catches the signals, so that none of them ends this process any more. Signals from the terminal reach the program directly.
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
                // The signal is ignored for as long as the stream lives.
                std::mem::forget(stream);
            }
        }
        Ok(Signals(streams))
    }

    /// Waits for the next signal.
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
