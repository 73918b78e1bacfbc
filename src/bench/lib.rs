//! `mayfly bench`: load on a real server over real mTLS, every issuance durable and audited, and the cost per issuance.
//!
//! The generator is this process and the server another one, so that the CPU of each is counted apart. The cost of one raw signature and
//! one raw flush is measured in the same run beside the same load: on a busy machine only ratios are meaningful.
//!
//! - `world`: the server and its configuration. `load`: the requests. `run`: the counters.
//! - `issuing`: `mayfly bench` itself. Each scenario has a file beside it.
//! - `stall_monitor`: detects whether the machine's cores stood still during the run.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a load generator measures: its time is the thing itself")]

mod cedar;
mod history;
mod idle;
mod incident;
mod issuing;
mod live;
mod load;
mod overload;
mod process;
mod raw_cost;
mod report;
mod run;
pub mod sample;
mod scenario;
mod signals;
mod soak;
mod stall_monitor;
mod storm;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use mayfly_cli::args;
use mayfly_cli::dev::DevEngine;
use mayfly_cli::error::CliError;
use mayfly_cli::exit::Exit;
use mayfly_cli::out::{Format, Out, Printable};
use scenario::{IdleArgs, IncidentArgs, LiveArgs, OverloadArgs, Scenario, SoakArgs, StormArgs};

/// How exchanges are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// Many exchanges on a bidirectional stream
    Stream,
    /// One exchange per call
    Unary,
    /// A batch of a hundred exchanges per call
    Batch,
}

impl Mode {
    /// The default number of exchanges in flight: enough to saturate both sides, and 256 for unary calls, which the target names.
    fn usual_concurrency(self) -> u32 {
        match self {
            Mode::Stream => 512,
            Mode::Batch => 800,
            Mode::Unary => 256,
        }
    }
}

/// The kind of credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum BenchKind {
    /// Token signed with ES256
    Jwt,
    /// Reference token, verified by introspection
    Reference,
}

/// Benchmark issuance
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    #[command(flatten)]
    issuing: IssuingArgs,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    json: bool,
}

/// The options of the default measurement.
#[derive(Args)]
pub struct IssuingArgs {
    /// How exchanges are sent
    #[arg(long, value_enum, default_value = "stream")]
    mode: Mode,
    /// Kind of credential
    #[arg(long, value_enum, default_value = "jwt")]
    kind: BenchKind,
    /// Storage engine of the server
    #[arg(long, value_enum, default_value = "redb")]
    engine: DevEngine,
    /// Exchanges in flight, in batch mode rounded up to whole calls and at least one call per connection [default: 512 on streams, 800 in
    /// batches, 256 in unary calls]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    concurrency: Option<u32>,
    /// Number of connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,
    /// Duration of the measurement, after a warm-up of a fifth of it
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    seconds: Duration,
    /// Exchanges per second, sent on schedule regardless of the answers (an open loop) [default: each exchange follows an answer]
    #[arg(long)]
    rate: Option<u32>,
    /// Credentials per task
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    per_task: u32,
    /// Percentage of issued credentials that an operator revokes, one call per credential, as soon as the exchange is answered; the caller
    /// then also completes each task once all its exchanges are answered [default: none, and tasks stay open]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    endings: Option<f64>,
    /// Number of policies in the policy set
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(8..=2_000))]
    policies: u32,
    /// Let one policy read the arguments' digest and a count of issuances, so that no decision can be cached; the cost of Cedar alone for
    /// these requests is measured too
    #[arg(long)]
    uncached: bool,
    /// Server threads for workloads [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    workers: Option<u32>,
    /// Run every row of the table of targets in turn, each for --seconds and on --engine, and print each value beside its target
    #[arg(long, conflicts_with_all = ["mode", "kind", "concurrency", "connections", "rate", "per_task", "endings", "policies", "uncached", "workers", "running", "dir"])]
    table: bool,
    /// Address of a server that is already running; --dir is then the directory of its files
    #[arg(long, requires = "dir")]
    running: Option<SocketAddr>,
    /// Directory for the files of the benchmark's server: CA, SVIDs, configuration, store [default: a temporary directory that is removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| (0.0..=100.0).contains(n));
    number.ok_or_else(|| "a number from 0 to 100".to_owned())
}

/// Runs the measurement on a thread of its own, since it creates its own runtime.
pub fn run(args: &BenchArgs, out: Out) -> Result<Exit, CliError> {
    signals::listen()
        .map_err(|error| CliError::Local(format!("no result: the signal handler could not be installed: {error}")))?;
    let ended = std::thread::scope(|scope| scope.spawn(|| measure(args, out)).join());
    let ended = ended.unwrap_or_else(|_| Err("it ended by a panic".into()));
    ended.map_err(|error| CliError::Local(format!("no result: {error}")))?;
    Ok(Exit::Ok)
}

impl mayfly_cli::BenchCommand for BenchArgs {
    fn run(&self, out: Out) -> Result<Exit, CliError> {
        run(self, out)
    }
}

/// The reason for which there is no result.
pub type BenchError = Box<dyn std::error::Error + Send + Sync>;

fn measure(args: &BenchArgs, out: Out) -> Result<(), BenchError> {
    if let Some(scenario) = &args.scenario {
        return scenario::run(scenario, args.json, out);
    }
    if args.issuing.table {
        let each = |report: &report::BenchReport| match args.json {
            true => out.line(report).map_err(cli_to_bench_error),
            false => {
                out.say(format!("{}: done", report.row));
                Ok(())
            }
        };
        let rows = issuing::table(args.issuing.engine, args.issuing.seconds, each)?;
        return if args.json { Ok(()) } else { out.list(&rows).map_err(cli_to_bench_error) };
    }
    let report = issuing::BenchCase::of(&args.issuing).run()?;
    print(args.json, out, &report, || report.print())
}

/// Prints one result in the requested format.
fn print(json: bool, out: Out, result: &impl Printable, words: impl Fn()) -> Result<(), BenchError> {
    match out.format() {
        _ if json => out.line(result).map_err(cli_to_bench_error),
        Format::Table | Format::Wide => {
            words();
            Ok(())
        }
        Format::Json | Format::Yaml | Format::Name | Format::Csv => out.one(result).map_err(cli_to_bench_error),
    }
}

fn cli_to_bench_error(error: CliError) -> BenchError {
    format!("{error:?}").into()
}

/// Runs the generator until it is stopped.
fn on_runtime<T>(all: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = all => outcome,
            () = signals::wait_for_signal() => Err("it was told to end".into()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}
