//! Many live credentials: the memory of each, their effect on latency while they are issued, and the duration of a start with all of them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::LoadPlan;
use super::process::rss;
use super::run::{LongestPhases, RunningLoad, ms, read_counters};
use super::stall_monitor::{RunStalls, StallMonitor};
use super::world::{BenchPlan, prepare};
use super::{BenchError, LiveArgs, Mode, history};
use mayfly_cli::out::Printable;
use mayfly_server::engine;

/// The first stretch, which later latencies are compared with.
const FIRST: Duration = Duration::from_secs(5);
/// The longest lifetime that credentials may have, so that none expires during the run.
const TTL: Duration = Duration::from_secs(3600);

/// The wait until the allocator has returned memory of requests in flight.
const REST: Duration = Duration::from_secs(3);

/// The cost of live credentials.
#[derive(Serialize)]
pub struct LiveResult {
    pub scenario: &'static str,
    pub credentials: u64,
    pub rss_idle_mb: f64,
    pub rss_warm_mb: f64,
    pub rss_after_mb: f64,
    /// Memory per credential issued after the first five seconds, relative to the server at that point.
    pub bytes_per_credential: f64,
    /// Memory per credential, relative to the server before the first issuance.
    pub bytes_per_credential_above_idle: f64,
    pub bytes_target: f64,
    pub seconds: f64,
    pub p99_ms_first: f64,
    pub p99_ms_growing: f64,
    /// The p99 latency during growth as a multiple of that of the first five seconds.
    pub p99_ratio: f64,
    pub p99_target: f64,
    pub longest_answer_ms: f64,
    pub longest: LongestPhases,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beneath: Option<RunStalls>,
    pub longest_fold_target_ms: f64,
    pub history_gb: f64,
    pub start_after_kill_s: f64,
    pub start_target_s: f64,
    pub live_after_start: u64,
    pub rss_after_start_mb: f64,
    pub errors: u64,
    pub met: bool,
}

impl Printable for LiveResult {
    fn name(&self) -> String {
        "live".to_owned()
    }
}

/// Issues the credentials, kills the server and starts it again.
pub fn run(args: &LiveArgs) -> Result<LiveResult, BenchError> {
    let mut bench = prepare(&BenchPlan { dir: args.dir.clone(), ..BenchPlan::usual(args.engine) })?;
    let mut history = 0;
    if args.history > 0 {
        bench.stopped(|config| {
            history = history::fill(config, args.history * 1_000_000_000, history::HistoryKind::Plain)?;
            Ok(())
        })?;
    }
    let (idle, witness) = (rss(bench.pid)?, StallMonitor::start()?);
    let load = LoadPlan { ttl: Some(TTL), rate: args.rate.map(f64::from), ..LoadPlan::usual(Mode::Stream) };
    let mut live = super::on_runtime(async {
        let running = RunningLoad::start(&load, &bench, Duration::from_millis(500)).await?;
        let began = Instant::now();
        running.outcome.latency.take()?;
        let enough = |issued: u64| issued >= args.credentials;
        while began.elapsed() < FIRST && !enough(running.outcome.counts().issued) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (first, warm, warm_count) = (running.outcome.latency.take()?, rss(bench.pid)?, running.outcome.counts().issued);
        while !enough(running.outcome.counts().issued) && !running.outcome.stopped() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(error) = running.outcome.first_error() {
                return Err(error.into());
            }
        }
        let growing = running.outcome.latency.take()?;
        let seconds = began.elapsed().as_secs_f64();
        let counted = running.outcome.counts();
        let operator = running.operator.clone();
        running.end().await;
        // The memory of a snapshot that is being written does not belong to the credentials.
        while writing(&bench.data()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(REST).await;
        let (after, told) = (rss(bench.pid)?, read_counters(operator.as_ref()).await?);
        let credentials = told.credentials;
        let growing = if growing.is_empty() { &first } else { &growing };
        let each = |above: u64, many: u64| after.saturating_sub(above) as f64 / many.max(1) as f64;
        Ok(LiveResult {
            scenario: "live",
            credentials,
            rss_idle_mb: idle as f64 / 1e6,
            rss_warm_mb: warm as f64 / 1e6,
            rss_after_mb: after as f64 / 1e6,
            bytes_per_credential: each(warm, credentials.saturating_sub(warm_count)),
            bytes_per_credential_above_idle: each(idle, credentials),
            bytes_target: 128.0,
            seconds,
            p99_ms_first: ms(&first, 0.99),
            p99_ms_growing: ms(growing, 0.99),
            p99_ratio: ms(growing, 0.99) / ms(&first, 0.99),
            p99_target: 1.2,
            longest_answer_ms: growing.max().max(first.max()) as f64 / 1000.0,
            longest: told.longest,
            beneath: witness.as_ref().map(|witness| RunStalls::of(witness, &told.longest)),
            longest_fold_target_ms: 20.0,
            history_gb: 0.0,
            start_after_kill_s: 0.0,
            start_target_s: 3.0,
            live_after_start: 0,
            rss_after_start_mb: 0.0,
            errors: counted.errors + counted.refused,
            met: false,
        })
    })?;
    live.history_gb = history as f64 / 1e9;
    live.start_after_kill_s = bench.kill_and_start()?;
    live.live_after_start = super::on_runtime(async { Ok(read_counters(bench.operator().await?.as_ref()).await?.credentials) })?;
    live.rss_after_start_mb = rss(bench.pid)? as f64 / 1e6;
    live.met = live.bytes_per_credential_above_idle <= live.bytes_target
        && live.p99_ratio <= live.p99_target
        && live.start_after_kill_s <= live.start_target_s
        && live.longest.fold_ms <= live.longest_fold_target_ms
        && live.errors == 0;
    bench.end()?;
    Ok(live)
}

fn writing(data: &Path) -> bool {
    let files = std::fs::read_dir(engine::snapshots_in(data)).into_iter().flatten().flatten();
    files.map(|file| file.path()).any(|path| path.extension().is_some_and(|e| e == "writing"))
}

impl LiveResult {
    /// Prints the result for people.
    pub fn print(&self) {
        println!("{} live credentials within {:.0} s, {} errors", self.credentials, self.seconds, self.errors);
        println!(
            "  memory        {:.0} bytes each above the idle server (target ≤ {}), {:.0} above the one that had issued for 5 s",
            self.bytes_per_credential_above_idle, self.bytes_target, self.bytes_per_credential
        );
        println!(
            "                {:.1} MB idle, {:.1} MB warm, {:.1} MB with them, {:.1} MB after a start",
            self.rss_idle_mb, self.rss_warm_mb, self.rss_after_mb, self.rss_after_start_mb
        );
        println!(
            "  latency       p99 {:.2} ms while growing, {:.2} ms in the first 5 s: {:.2} (target ≤ {}); longest {:.1} ms",
            self.p99_ms_growing, self.p99_ms_first, self.p99_ratio, self.p99_target, self.longest_answer_ms
        );
        println!(
            "  one commit    {:.1} ms at the longest to fold and to begin a snapshot (target ≤ {}), {:.1} ms of a core; {:.1} ms to be written",
            self.longest.fold_ms, self.longest_fold_target_ms, self.longest.fold_cpu_ms, self.longest.append_ms
        );
        println!("  machine       {}", RunStalls::line(self.beneath.as_ref()));
        println!(
            "  after SIGKILL {:.2} s until it answers (target ≤ {} s), with {} live and {:.1} GB of history before them",
            self.start_after_kill_s, self.start_target_s, self.live_after_start, self.history_gb
        );
    }
}
