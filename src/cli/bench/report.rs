//! What a measurement says.

use std::time::{Duration, Instant};

use serde::Serialize;
use tonic::transport::Channel;

use super::load::{Outcome, start};
use super::raw::Raw;
use super::world::Bench;
use super::{BenchArgs, Failed};
use crate::cli::out::Noun;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::server_service_client::ServerServiceClient;
use crate::serve::client;

/// The figures of one run.
#[derive(Serialize)]
pub struct Report {
    mode: String,
    kind: String,
    engine: String,
    concurrency: u32,
    seconds: f64,
    issued: u64,
    issued_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    server_cpu_us_per_issue: f64,
    raw_sign_us: f64,
    ratio_cpu: f64,
    flush_p50_ms: f64,
    flush_p99_ms: f64,
    cache_hit_rate: f64,
    batch_mean: f64,
    errors: u64,
}

impl Noun for Report {
    fn name(&self) -> String {
        self.mode.clone()
    }
}

/// CPU seconds of a process, user and system, from the kernel's count.
fn cpu_seconds(pid: u32) -> Result<f64, Failed> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the command in parentheses; utime and stime are fields 14 and 15 (proc(5)).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|t| t.parse::<f64>().ok()).ok_or("/proc/PID/stat is not as proc(5) says");
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok((ticks(11)? + ticks(12)?) / per_second)
}

/// What the server counts.
struct Server {
    cpu_s: f64,
    commits: u64,
    seq: u64,
    remembered: u64,
    asked: u64,
}

async fn look(operator: &Option<Channel>, pid: u32) -> Result<Server, Failed> {
    let mut server = Server { cpu_s: cpu_seconds(pid)?, commits: 0, seq: 0, remembered: 0, asked: 0 };
    if let Some(channel) = operator {
        let status = ServerServiceClient::new(channel.clone()).get_status(pb::GetStatusRequest {}).await?.into_inner();
        if let Some(ledger) = status.ledger {
            (server.commits, server.seq) = (ledger.commit, ledger.durable_seq);
        }
        if let Some(counts) = status.counts {
            (server.remembered, server.asked) = (counts.verdicts_remembered, counts.verdicts_asked);
        }
    }
    Ok(server)
}

/// Runs the load: a fifth as warm-up, then the time that was asked for.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
pub async fn measure(args: &BenchArgs, bench: &Bench) -> Result<Report, Failed> {
    let operator = match &bench.socket {
        Some(path) => Some(client::unix(path).await?),
        None => None,
    };
    let outcome = Outcome::new()?;
    let workers = start(args, bench, &outcome).await?;
    tokio::time::sleep(args.seconds / 5).await;
    if let (0, _) = outcome.counts() {
        return Err(outcome.first_error().unwrap_or_else(|| "nothing was issued".to_owned()).into());
    }
    let raw = Raw::start(bench.world.dir())?;
    outcome.take_latency()?;
    let (before, from) = (look(&operator, bench.pid).await?, Instant::now());
    let (issued_before, errors_before) = outcome.counts();
    tokio::time::sleep(args.seconds).await;
    let (issued, errors) = outcome.counts();
    let (after, seconds) = (look(&operator, bench.pid).await?, from.elapsed());
    let latency = outcome.take_latency()?;
    let floor = raw.end()?;
    outcome.stop();
    for worker in workers {
        let _ = tokio::time::timeout(Duration::from_secs(2), worker).await;
    }
    if let Some(error) = outcome.first_error() {
        eprintln!("the first error: {error}");
    }
    let issued = issued - issued_before;
    let ms = |us: u64| us as f64 / 1000.0;
    let cpu_us = (after.cpu_s - before.cpu_s) * 1e6 / issued.max(1) as f64;
    let verdicts = (after.remembered - before.remembered) + (after.asked - before.asked);
    let name = |v: &dyn std::fmt::Debug| format!("{v:?}").to_lowercase();
    Ok(Report {
        mode: name(&args.mode),
        kind: name(&args.kind),
        engine: name(&args.engine),
        concurrency: args.concurrency,
        seconds: seconds.as_secs_f64(),
        issued,
        issued_per_s: issued as f64 / seconds.as_secs_f64(),
        p50_ms: ms(latency.value_at_quantile(0.5)),
        p99_ms: ms(latency.value_at_quantile(0.99)),
        p999_ms: ms(latency.value_at_quantile(0.999)),
        server_cpu_us_per_issue: cpu_us,
        raw_sign_us: floor.sign_us,
        ratio_cpu: cpu_us / floor.sign_us,
        flush_p50_ms: ms(floor.flush.value_at_quantile(0.5)),
        flush_p99_ms: ms(floor.flush.value_at_quantile(0.99)),
        cache_hit_rate: (after.remembered - before.remembered) as f64 / verdicts.max(1) as f64,
        batch_mean: (after.seq - before.seq) as f64 / (after.commits - before.commits).max(1) as f64,
        errors: errors - errors_before,
    })
}

impl Report {
    /// For people.
    pub fn print(&self) {
        let Report { mode, kind, engine, concurrency, .. } = self;
        println!("{mode}, {kind}, {engine}, {concurrency} in flight, {:.1} s", self.seconds);
        println!(
            "  issued        {:>12} durable and audited, {:.0} a second, {} errors",
            self.issued, self.issued_per_s, self.errors
        );
        println!("  latency       p50 {:.2} ms   p99 {:.2} ms   p99.9 {:.2} ms", self.p50_ms, self.p99_ms, self.p999_ms);
        println!(
            "  server CPU    {:.1} µs per issuance = {:.2} × one ES256 signature ({:.1} µs beside the same load)",
            self.server_cpu_us_per_issue, self.ratio_cpu, self.raw_sign_us
        );
        println!("  raw flush     p50 {:.2} ms   p99 {:.2} ms", self.flush_p50_ms, self.flush_p99_ms);
        println!("  commits       {:.1} records each; verdicts remembered {:.1} %", self.batch_mean, self.cache_hit_rate * 100.0);
    }
}
