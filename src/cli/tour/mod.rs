//! `mayfly try`: the whole life of a credential, on this machine, with a real server, real mTLS and a real upstream.
//!
//! Each step prints what happened and what it proves, and fails the command when it does not hold. Nothing is left behind.

mod echo;
mod load;
mod steps;

use std::path::PathBuf;

use super::dev::{Settings, World};
use super::exit::Exit;

/// Why a step does not hold.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Says what happened and what it proves.
pub struct Teller {
    step: u32,
    failed: bool,
}

impl Teller {
    fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n{:>2}  {title}", self.step);
    }

    fn say(&self, what: impl std::fmt::Display) {
        println!("      {what}");
    }

    fn proves(&self, what: &str) {
        println!("    ✓ {what}");
    }
}

/// A directory that goes when this goes.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the tour.
pub fn run() -> Exit {
    let mut teller = Teller { step: 0, failed: false };
    // A server brings its own runtimes, which cannot begin inside another: the tour has a thread of its own.
    let ended = std::thread::scope(|scope| scope.spawn(|| tour(&mut teller)).join());
    match ended {
        Ok(Ok(())) if !teller.failed => {
            println!("\nAll of it holds. Nothing was left behind. Next: mayfly dev up");
            Exit::Ok
        }
        Ok(Ok(())) => Exit::Error,
        Ok(Err(error)) => {
            eprintln!("\nmayfly try: step {} does not hold: {error}", teller.step);
            Exit::Error
        }
        Err(_) => {
            eprintln!("\nmayfly try: step {} ended by a panic", teller.step);
            Exit::Error
        }
    }
}

fn tour(teller: &mut Teller) -> Result<(), Failed> {
    println!("mayfly: the whole life of a credential, on this machine");
    let settings = Settings::default();
    let name = data_encoding::HEXLOWER.encode(&settings.system.random16());
    let scratch = Scratch(std::env::temp_dir().join(format!("mayfly-try-{name}")));
    let world = World::create(&scratch.0, &settings)?;
    let program = std::env::current_exe()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let child = world.spawn(&program)?;
    let outcome = steps::run(teller, &world, &program, child, &runtime, &settings.system);
    // Connections go before the directory does.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}
