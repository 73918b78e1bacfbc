//! Load and checker of the power-failure test for a whole server (tests/power/README.md).
//!
//!   server_power world ENGINE DIR DATA            creates a dev world whose server keeps its store in DATA
//!   server_power load DIR ACKS NAMES [ROUNDS]     waits for the server and calls it over mTLS; records acknowledged answers
//!   server_power check DIR DATA EXPECT NAMES      starts a server on what a power failure left, and asks it for all of them
//!
//! NAMES says what each number in ACKS stands for. NAMES is not on the recorded disk, so no power failure affects it.

mod calls;
mod check;
mod load;
mod names;

use std::path::Path;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};

pub type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["world", engine, dir, data] => world(engine, Path::new(dir), data),
        ["load", dir, acks, names] => load::run(Path::new(dir), Path::new(acks), Path::new(names), 12),
        ["load", dir, acks, names, rounds] => load::run(Path::new(dir), Path::new(acks), Path::new(names), rounds.parse()?),
        ["check", dir, data, expect, names] => check::run(Path::new(dir), Path::new(data), Path::new(expect), Path::new(names))
            .inspect_err(|e| println!("ERROR {e}")),
        _ => Err("server_power world ENGINE DIR DATA, load DIR ACKS NAMES [ROUNDS], or check DIR DATA EXPECT NAMES".into()),
    }
}

/// With a snapshot every few commits, so that some are written, and old ones removed, while power fails.
fn world(engine: &str, dir: &Path, data: &str) -> Result<(), Error> {
    let engine = if engine == "sled" { DevEngine::Sled } else { DevEngine::Redb };
    let settings = DevSettings { engine, ..DevSettings::default() }
        .with("store.path", &format!("{data:?}"))
        .with("ledger.snapshot_every", "48");
    DevWorld::create(dir, &settings)?;
    Ok(())
}
