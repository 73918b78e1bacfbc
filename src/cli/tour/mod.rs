//! `mayfly try`: the whole life of a credential on this machine, with a real server, real mTLS and a real upstream.
//!
//! Each step prints what happened and what that proves; a step that does not hold fails the command. All files are removed at the end. In
//! the formats for programs, the steps are one document at the end, and messages on stderr in the meantime.

mod echo;
mod load;
mod steps;

use std::path::PathBuf;

use serde::Serialize;

use super::dev::{DevSettings, DevWorld};
use super::error::CliError;
use super::exit::Exit;
use super::out::{Format, Out, Printable};

/// Why a step does not hold.
pub type TourError = Box<dyn std::error::Error + Send + Sync>;

/// Prints what happened and what that proves.
pub struct Narrator {
    out: Out,
    told: TourView,
}

/// A step, for JSON output.
#[derive(Serialize)]
struct TourView {
    /// Whether the step holds.
    holds: bool,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    step: usize,
    title: String,
    /// The printed lines.
    said: Vec<String>,
    proves: Vec<String>,
    /// Why the step does not hold.
    failed: Option<String>,
}

impl Printable for TourView {
    fn name(&self) -> String {
        if self.holds { "holds" } else { "does-not-hold" }.to_owned()
    }
}

impl Narrator {
    fn step(&mut self, title: &str) {
        let step = self.told.steps.len() + 1;
        self.told.steps.push(Step { step, title: title.to_owned(), said: Vec::new(), proves: Vec::new(), failed: None });
        self.line("");
        self.line(&format!("{step:>2}  {title}"));
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        let what = what.to_string();
        self.line(&format!("      {what}"));
        if let Some(step) = self.told.steps.last_mut() {
            step.said.push(what);
        }
    }

    fn proves(&mut self, what: &str) {
        self.line(&format!("    ✓ {what}"));
        if let Some(step) = self.told.steps.last_mut() {
            step.proves.push(what.to_owned());
        }
    }

    /// Prints a line: to stdout for people, else to stderr. A closed stderr is ignored.
    fn line(&self, text: &str) {
        match self.out.format() {
            Format::Table | Format::Wide => drop(self.out.text(text)),
            Format::Json | Format::Yaml | Format::Name | Format::Csv => self.out.say(text),
        }
    }

    /// Prints the whole document, in formats for programs.
    fn end(mut self, failed: Option<String>) -> Result<Exit, CliError> {
        self.told.holds = failed.is_none();
        let at = self.told.steps.len();
        if let (Some(step), Some(why)) = (self.told.steps.last_mut(), &failed) {
            step.failed = Some(why.clone());
        }
        if self.told.holds {
            self.line("");
            self.line("All of it holds. Nothing was left behind. Next: mayfly dev up");
        }
        if !matches!(self.out.format(), Format::Table | Format::Wide) {
            self.out.one(&self.told)?;
        }
        match failed {
            None => Ok(Exit::Ok),
            Some(why) => Err(CliError::Local(format!("step {at} does not hold: {why}"))),
        }
    }
}

/// A directory that is removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the tour.
pub fn run(out: Out) -> Result<Exit, CliError> {
    let mut teller = Narrator { out, told: TourView { holds: false, steps: Vec::new() } };
    // The tour runs on a thread of its own: a server creates its own runtimes, which cannot start inside another runtime.
    let ended = std::thread::scope(|scope| scope.spawn(|| tour(&mut teller)).join());
    let failed = match ended {
        Ok(outcome) => outcome.err().map(|error| error.to_string()),
        Err(_) => Some("it ended by a panic".to_owned()),
    };
    teller.end(failed)
}

fn tour(teller: &mut Narrator) -> Result<(), TourError> {
    teller.line("mayfly: the whole life of a credential, on this machine");
    let settings = DevSettings::default();
    let name = data_encoding::HEXLOWER.encode(&settings.system.random16());
    let scratch = Scratch(std::env::temp_dir().join(format!("mayfly-try-{name}")));
    let world = DevWorld::create(&scratch.0, &settings)?;
    let program = std::env::current_exe()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let child = world.spawn(&program)?;
    let outcome = steps::run(teller, &world, &program, child, &runtime, &settings.system);
    // Connections are closed before the directory is removed.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}
