//! `mayfly bench`: load on a real server over real mTLS, every issuance durable and audited, and what it cost.
//!
//! The generator is this process, the server another one, so that each one's CPU is its own. What one raw signature and one raw flush cost
//! is measured in the same run beside the same load: figures of a busy machine mean little, ratios mean a lot.

mod load;
mod raw;
mod report;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::args;
use super::dev::Engine;
use super::error::CliError;
use super::exit::Exit;
use super::out::{Format, Out};
use report::Report;

/// How exchanges are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// Many on a bidirectional stream
    Stream,
    /// One call each
    Unary,
    /// A hundred in a call
    Batch,
}

/// What is issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum BenchKind {
    /// Signed with ES256
    Jwt,
    /// Looked up by introspection
    Reference,
}

/// Measure issuing
#[derive(Args)]
pub struct BenchArgs {
    /// How exchanges are sent
    #[arg(long, value_enum, default_value = "stream")]
    mode: Mode,
    /// What is issued
    #[arg(long, value_enum, default_value = "jwt")]
    kind: BenchKind,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    engine: Engine,
    /// Exchanges under way at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    concurrency: u32,
    /// Connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,
    /// How long to measure, after a fifth of it as warm-up
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    seconds: Duration,
    /// Exchanges a second, sent at their time whatever the answers take (an open loop); without it the next one follows an answer
    #[arg(long)]
    rate: Option<u32>,
    /// Credentials per task
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    per_task: u32,
    /// Print one JSON object, on one line
    #[arg(long)]
    json: bool,
    /// A server that runs already, with the bench world's directory as --dir
    #[arg(long, requires = "dir")]
    running: Option<SocketAddr>,
    /// The directory of the bench world [default: a temporary one that is removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the measurement on a thread of its own: it brings its own runtime.
pub fn run(args: &BenchArgs, out: Out) -> Result<Exit, CliError> {
    let ended = std::thread::scope(|scope| scope.spawn(|| measure(args)).join());
    let ended = ended.unwrap_or_else(|_| Err("it ended by a panic".into()));
    let report = ended.map_err(|error| CliError::Local(format!("no figure: {error}")))?;
    match out.format() {
        _ if args.json => out.line(&report)?,
        Format::Table | Format::Wide => report.print(),
        Format::Json | Format::Yaml | Format::Name => out.one(&report)?,
    }
    Ok(Exit::Ok)
}

/// Why there is no figure.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

fn measure(args: &BenchArgs) -> Result<Report, Failed> {
    let bench = world::prepare(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(report::measure(args, &bench));
    runtime.shutdown_timeout(Duration::from_secs(2));
    let report = outcome?;
    bench.end()?;
    Ok(report)
}
