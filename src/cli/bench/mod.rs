//! `mayfly bench`: load on a real server over real mTLS, every issuance durable and audited, and what it cost.
//!
//! The generator is this process, the server another one, so that each one's CPU is its own. What one raw signature and one raw flush cost
//! is measured in the same run beside the same load: figures of a busy machine mean little, ratios mean a lot.
//!
//! - `world`: the server and what it is given. `load`: what is asked of it. `run`: what is counted meanwhile.
//! - `issuing`: `mayfly bench` itself. One file for each scenario beside it.
//! - `witness`: whether the machine itself stood still meanwhile.
#![allow(clippy::disallowed_methods, reason = "a load generator measures: its time is the thing itself")]

mod cedar;
mod ends;
mod history;
mod idle;
mod incident;
mod issuing;
mod live;
mod load;
mod overload;
mod process;
mod raw;
mod report;
mod run;
mod scenario;
mod soak;
mod storm;
mod witness;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::args;
use super::dev::Engine;
use super::error::CliError;
use super::exit::Exit;
use super::out::{Format, Noun, Out};
use scenario::{IdleArgs, IncidentArgs, LiveArgs, OverloadArgs, Scenario, SoakArgs, StormArgs};

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

impl Mode {
    /// Exchanges under way at once unless told: as many as fill both sides, and 256 for single calls, which the target names.
    fn usual_concurrency(self) -> u32 {
        match self {
            Mode::Stream => 512,
            Mode::Batch => 800,
            Mode::Unary => 256,
        }
    }
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
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    #[command(flatten)]
    issuing: IssuingArgs,
    /// Print JSON, one object on a line
    #[arg(long, global = true)]
    json: bool,
}

/// The usual measurement
#[derive(Args)]
pub struct IssuingArgs {
    /// How exchanges are sent
    #[arg(long, value_enum, default_value = "stream")]
    mode: Mode,
    /// What is issued
    #[arg(long, value_enum, default_value = "jwt")]
    kind: BenchKind,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    engine: Engine,
    /// Exchanges under way at once; calls of a hundred are made up to whole ones, one for each connection at least [default: 512 on streams,
    /// 800 in batches, 256 in unary calls]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    concurrency: Option<u32>,
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
    /// Of a hundred issued credentials, how many an operator revokes, each by its id in a call of its own as soon as it was answered. With it
    /// each task is also completed by its caller, as soon as all its exchanges were answered; without it tasks stay open
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    endings: Option<f64>,
    /// Policies of the set that decides
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(8..=2_000))]
    policies: u32,
    /// One of the policies reads the arguments' digest and a count of issues, so that no decision can be remembered. What Cedar alone costs
    /// for these questions is measured beside
    #[arg(long)]
    uncached: bool,
    /// Threads of the server that serve workloads [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    workers: Option<u32>,
    /// Run every row of the table of targets, one after the other, each for --seconds and on --engine, and print value beside target
    #[arg(long, conflicts_with_all = ["mode", "kind", "concurrency", "connections", "rate", "per_task", "endings", "policies", "uncached", "workers", "running", "dir"])]
    table: bool,
    /// A server that runs already, with the bench world's directory as --dir
    #[arg(long, requires = "dir")]
    running: Option<SocketAddr>,
    /// The directory of the bench world [default: a temporary one that is removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| (0.0..=100.0).contains(n));
    number.ok_or_else(|| "a number from 0 to 100".to_owned())
}

/// Runs the measurement on a thread of its own: it brings its own runtime.
pub fn run(args: &BenchArgs, out: Out) -> Result<Exit, CliError> {
    ends::listen().map_err(|error| CliError::Local(format!("no figure: signals are not heard: {error}")))?;
    let ended = std::thread::scope(|scope| scope.spawn(|| measure(args, out)).join());
    let ended = ended.unwrap_or_else(|_| Err("it ended by a panic".into()));
    ended.map_err(|error| CliError::Local(format!("no figure: {error}")))?;
    Ok(Exit::Ok)
}

/// Why there is no figure.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

fn measure(args: &BenchArgs, out: Out) -> Result<(), Failed> {
    if let Some(scenario) = &args.scenario {
        return scenario::run(scenario, args.json, out);
    }
    if args.issuing.table {
        let each = |report: &report::Report| match args.json {
            true => out.line(report).map_err(told),
            false => {
                out.say(format!("{}: done", report.row));
                Ok(())
            }
        };
        let rows = issuing::table(args.issuing.engine, args.issuing.seconds, each)?;
        return if args.json { Ok(()) } else { out.list(&rows).map_err(told) };
    }
    let report = issuing::Case::of(&args.issuing).run()?;
    print(args.json, out, &report, || report.print())
}

/// One result, in the form that was asked for.
fn print(json: bool, out: Out, result: &impl Noun, words: impl Fn()) -> Result<(), Failed> {
    match out.format() {
        _ if json => out.line(result).map_err(told),
        Format::Table | Format::Wide => {
            words();
            Ok(())
        }
        Format::Json | Format::Yaml | Format::Name | Format::Csv => out.one(result).map_err(told),
    }
}

fn told(error: CliError) -> Failed {
    format!("{error:?}").into()
}

/// Runs the generator, until it is told to end.
fn on_runtime<T>(all: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = all => outcome,
            () = ends::told() => Err("it was told to end".into()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}
