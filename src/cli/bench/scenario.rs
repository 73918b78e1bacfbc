//! The scenarios beside plain issuing, as they are typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Failed, Mode, idle, incident, live, overload, print, soak, storm};
use crate::cli::args;
use crate::cli::dev::Engine;
use crate::cli::out::Out;

/// Something that is not plain issuing.
#[derive(Subcommand)]
pub enum Scenario {
    /// Measure overload: the server on one core, the generator on another, more offered than can be done
    Overload(OverloadArgs),
    /// Measure idle connections: memory and CPU of each
    Idle(IdleArgs),
    /// Measure a storm of new connections while others issue
    Storm(StormArgs),
    /// Measure for an hour or more whether anything grows
    Soak(SoakArgs),
    /// Measure many live credentials: memory, latency, and a start after SIGKILL
    Live(LiveArgs),
    /// Measure what an operator types in an incident, over a long history: each command, for what is there and for what is not
    Incident(IncidentArgs),
}

/// Overload
#[derive(Args)]
pub struct OverloadArgs {
    /// How exchanges are sent; without it on streams and then in unary calls
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// How much is offered, of what the server does at its peak
    #[arg(long, default_value_t = 3.0, value_parser = times)]
    pub times: f64,
    /// Policies of the set that decides, one of which reads what cannot be remembered
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(8..=2_000))]
    pub policies: u32,
    /// How long to measure under overload; finding the peak takes as long again
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    pub seconds: Duration,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: Engine,
}

/// Idle connections
#[derive(Args)]
pub struct IdleArgs {
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// How long to look at the server's CPU. A quiet connection is pinged every 20 seconds
    #[arg(long, default_value = "60s", value_parser = args::duration)]
    pub seconds: Duration,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: Engine,
}

/// A storm of handshakes
#[derive(Args)]
pub struct StormArgs {
    /// New connections a second
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Exchanges a second on streams that are open, in an open loop
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub issuing: u32,
    /// How long to measure, first without the storm and then with it
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    pub seconds: Duration,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: Engine,
}

/// A soak
#[derive(Args)]
pub struct SoakArgs {
    /// How long
    #[arg(long, default_value_t = 60.0, value_parser = times)]
    pub minutes: f64,
    /// How exchanges are sent. Those on a stream have request ids, which are remembered for ten minutes
    #[arg(long, value_enum, default_value = "stream")]
    pub mode: Mode,
    /// Which share of full rate, which is measured first
    #[arg(long, default_value_t = 0.5, value_parser = times)]
    pub share: f64,
    /// TTL of the credentials
    #[arg(long, default_value = "60s", value_parser = args::duration)]
    pub ttl: Duration,
    /// `audit.keep` of the server, like 2GiB or 90d
    #[arg(long)]
    pub keep: Option<String>,
    /// Time between two samples
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    pub every: Duration,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: Engine,
    /// The directory of the bench world [default: a temporary one that is removed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Many live credentials
#[derive(Args)]
pub struct LiveArgs {
    /// How many
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=7_000_000))]
    pub credentials: u64,
    /// Exchanges a second in an open loop; without it as fast as answers come
    #[arg(long)]
    pub rate: Option<u32>,
    /// History before them, GB
    #[arg(long, value_name = "GB", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub history: u64,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: Engine,
    /// The directory of the bench world [default: a temporary one that is removed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Commands of an incident
#[derive(Args)]
pub struct IncidentArgs {
    /// History that they look through, GB
    #[arg(long, value_name = "GB", default_value_t = 1.0, value_parser = times)]
    pub history: f64,
    /// The storage engine of the server that is started
    #[arg(long, value_enum, default_value = "redb")]
    pub engine: Engine,
    /// The directory of the bench world [default: a temporary one that is removed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

fn times(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| *n > 0.0 && *n <= 100_000.0);
    number.ok_or_else(|| "a number above 0".to_owned())
}

/// Runs it and prints what it came to.
pub fn run(scenario: &Scenario, json: bool, out: Out) -> Result<(), Failed> {
    match scenario {
        Scenario::Overload(args) => {
            let modes = args.mode.map_or_else(|| vec![Mode::Stream, Mode::Unary], |mode| vec![mode]);
            for mode in modes {
                // On a thread of its own, which is pinned.
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
