//! The scenarios beside plain issuing, as subcommands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{BenchError, Mode, idle, incident, live, overload, print, soak, storm};
use mayfly_cli::args;
use mayfly_cli::dev::DevEngine;
use mayfly_cli::out::Out;

/// A benchmark other than plain issuing.
#[derive(Subcommand)]
pub enum Scenario {
    /// Measure overload: server and generator on one core each, with more requests than the server can handle
    Overload(OverloadArgs),
    /// Measure the memory and CPU of idle connections
    Idle(IdleArgs),
    /// Measure a storm of new connections while others issue
    Storm(StormArgs),
    /// Measure whether anything grows during an hour or more of load
    Soak(SoakArgs),
    /// Measure many live credentials: memory, latency, and a start after SIGKILL
    Live(LiveArgs),
    /// Measure the commands of an incident over a long history, with ids that exist and ids that do not
    Incident(IncidentArgs),
}

/// Arguments of `mayfly bench overload`.
#[derive(Args)]
pub struct OverloadArgs {
    /// How exchanges are sent [default: on streams, then in unary calls]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Offered load as a multiple of the server's peak
    #[arg(long, default_value_t = 3.0, value_parser = times)]
    pub times: f64,
    /// Number of policies in the policy set, one of which reads values that cannot be cached
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(8..=2_000))]
    pub policies: u32,
    /// Duration of the overload; measuring the peak takes as long again
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    pub seconds: Duration,
    /// Storage engine of the server
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: DevEngine,
}

/// Arguments of `mayfly bench idle`.
#[derive(Args)]
pub struct IdleArgs {
    /// Number of connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// How long to measure the server's CPU; an idle connection is pinged every 20 seconds
    #[arg(long, default_value = "60s", value_parser = args::duration)]
    pub seconds: Duration,
    /// Storage engine of the server
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: DevEngine,
}

/// Arguments of `mayfly bench storm`.
#[derive(Args)]
pub struct StormArgs {
    /// New connections per second
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Exchanges per second on open streams, in an open loop
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub issuing: u32,
    /// Duration of the measurement, first without the storm and again with it
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    pub seconds: Duration,
    /// Storage engine of the server
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: DevEngine,
}

/// Arguments of `mayfly bench soak`.
#[derive(Args)]
pub struct SoakArgs {
    /// Duration in minutes
    #[arg(long, default_value_t = 60.0, value_parser = times)]
    pub minutes: f64,
    /// How exchanges are sent; exchanges on a stream have request ids, which the server remembers for ten minutes
    #[arg(long, value_enum, default_value = "stream")]
    pub mode: Mode,
    /// Load as a share of the full rate, which is measured first
    #[arg(long, default_value_t = 0.5, value_parser = times)]
    pub share: f64,
    /// Lifetime of the credentials
    #[arg(long, default_value = "60s", value_parser = args::duration)]
    pub ttl: Duration,
    /// `audit.keep` of the server, like 2GiB or 90d
    #[arg(long)]
    pub keep: Option<String>,
    /// Interval between two samples
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    pub every: Duration,
    /// Storage engine of the server
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: DevEngine,
    /// Directory for the files of the benchmark's server: CA, SVIDs, configuration, store [default: a temporary directory that is removed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Arguments of `mayfly bench live`.
#[derive(Args)]
pub struct LiveArgs {
    /// Number of credentials
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=7_000_000))]
    pub credentials: u64,
    /// Exchanges per second in an open loop [default: as fast as answers come]
    #[arg(long)]
    pub rate: Option<u32>,
    /// History to write beforehand, GB
    #[arg(long, value_name = "GB", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub history: u64,
    /// Storage engine of the server
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: DevEngine,
    /// Directory for the files of the benchmark's server: CA, SVIDs, configuration, store [default: a temporary directory that is removed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Arguments of `mayfly bench incident`.
#[derive(Args)]
pub struct IncidentArgs {
    /// History that the commands search, GB
    #[arg(long, value_name = "GB", default_value_t = 1.0, value_parser = times)]
    pub history: f64,
    /// Storage engine of the server
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: DevEngine,
    /// Directory for the files of the benchmark's server: CA, SVIDs, configuration, store [default: a temporary directory that is removed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

fn times(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| *n > 0.0 && *n <= 100_000.0);
    number.ok_or_else(|| "a number above 0".to_owned())
}

/// Runs a scenario and prints its result.
pub fn run(scenario: &Scenario, json: bool, out: Out) -> Result<(), BenchError> {
    match scenario {
        Scenario::Overload(args) => {
            let modes = args.mode.map_or_else(|| vec![Mode::Stream, Mode::Unary], |mode| vec![mode]);
            for mode in modes {
                // On a thread of its own, since the scenario pins it to a core.
                let told = std::thread::scope(|scope| scope.spawn(|| overload::run(args, mode)).join());
                let told = told.unwrap_or_else(|_| Err("it ended by a panic".into()))?;
                print(json, out, &told, || told.print())?;
            }
            Ok(())
        }
        Scenario::Idle(args) => idle::run(args).and_then(|told| print(json, out, &told, || told.print())),
        Scenario::Storm(args) => storm::run(args).and_then(|told| print(json, out, &told, || told.print())),
        Scenario::Soak(args) => {
            let each = |s: &soak::Sample| {
                let still = s.stood_still.as_ref().map_or_else(String::new, |still| {
                    format!("   stood still {} times, {:.1} ms at the longest", still.times, still.longest_ms)
                });
                out.say(format!(
                    "{:>6.0} s   {:.1} MB   disk {:.1} MB   p99 {:.2} ms   {} files   {:.0} a second   {} live   longest fold {:.1} ms   \
                     {} refused   {:.0} ms of a core stolen{still}",
                    s.at_s, s.rss_mb, s.disk_mb, s.p99_ms, s.fds, s.issued_per_s, s.live, s.longest.fold_ms, s.refused, s.stolen_ms
                ));
            };
            soak::run(args, each).and_then(|told| print(json, out, &told, || told.print()))
        }
        Scenario::Live(args) => live::run(args).and_then(|told| print(json, out, &told, || told.print())),
        Scenario::Incident(args) => incident::run(args).and_then(|told| print(json, out, &told, || told.print())),
    }
}
