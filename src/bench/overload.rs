//! Overload: the server on one core and the generator on another, decisions that cannot be cached, and more requests than the server can
//! handle.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde::Serialize;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::load::{LoadPlan, LoadStats, micros, revoke};
use super::run::{LoadInterval, RunningLoad, ms, refused_p99_ms};
use super::world::{BenchPlan, BenchServer, halves, prepare};
use super::{BenchError, Mode, OverloadArgs};
use mayfly_base::limits;
use mayfly_cli::out::Printable;

/// The pause between two revocations, and between two health checks: a few hundred of each in a run.
const PROBE: Duration = Duration::from_millis(25);
/// A health check that takes longer counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(1);
/// Exchanges in flight while measuring the peak.
const CLOSED: [u32; 2] = [64, 256];

/// The behaviour of the server under overload.
#[derive(Serialize, Default)]
pub struct OverloadResult {
    pub scenario: &'static str,
    pub mode: String,
    pub peak_per_s: f64,
    pub offered_per_s: f64,
    pub goodput_per_s: f64,
    /// Issuances per second as a share of the peak.
    pub goodput: f64,
    pub goodput_target: f64,
    pub refused_per_s: f64,
    /// The share of failed requests that were RESOURCE_EXHAUSTED with RetryInfo.
    pub refused_well: f64,
    /// From reading a call to refusing it, as measured by the server.
    pub refusal_p99_ms: f64,
    pub refusal_target_ms: f64,
    /// From the scheduled time of a call to the arrival of its refusal, including the generator's queue.
    pub refusal_seen_p99_ms: f64,
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
    pub flush_p99_ms: f64,
    pub revoke_p50_ms: f64,
    pub revoke_p99_ms: f64,
    /// p99 of a revocation as a multiple of the p99 of a raw flush.
    pub revoke_ratio: f64,
    pub revoke_target: f64,
    pub health_asked: u64,
    pub health_answered: u64,
    pub health_p99_ms: f64,
    pub unsent_per_s: f64,
    pub errors: u64,
    pub met: bool,
}

impl Printable for OverloadResult {
    fn name(&self) -> String {
        format!("overload {}", self.mode)
    }
}

impl OverloadResult {
    /// Prints the result for people.
    pub fn print(&self) {
        println!("overload, {}: {:.0} a second offered, {:.0} at its peak", self.mode, self.offered_per_s, self.peak_per_s);
        println!(
            "  goodput       {:.0} a second = {:.2} of the peak (target ≥ {}); p50 {:.1} ms, p99 {:.1} ms",
            self.goodput_per_s, self.goodput, self.goodput_target, self.latency_p50_ms, self.latency_p99_ms
        );
        println!(
            "  refused       {:.0} a second, {:.4} of them RESOURCE_EXHAUSTED with RetryInfo; {} errors, {:.0} a second never sent",
            self.refused_per_s, self.refused_well, self.errors, self.unsent_per_s
        );
        println!(
            "  refusals      p99 {:.2} ms since they were read (target ≤ {} ms), {:.1} ms since they were due",
            self.refusal_p99_ms, self.refusal_target_ms, self.refusal_seen_p99_ms
        );
        println!(
            "  revocation    p50 {:.2} ms, p99 {:.2} ms = {:.2} × a raw flush's p99 of {:.2} ms (target ≤ {})",
            self.revoke_p50_ms, self.revoke_p99_ms, self.revoke_ratio, self.flush_p99_ms, self.revoke_target
        );
        println!(
            "  health        {} of {} checks answered, p99 {:.1} ms",
            self.health_answered, self.health_asked, self.health_p99_ms
        );
    }
}

/// Health checks on a connection of their own.
struct Health {
    asked: u64,
    answered: u64,
    latency: hdrhistogram::Histogram<u64>,
}

/// Runs the scenario for one mode.
pub fn run(args: &OverloadArgs, mode: Mode) -> Result<OverloadResult, BenchError> {
    let (server, generator) = halves()?;
    let cores = Some((server.into_iter().take(1).collect(), generator.into_iter().take(1).collect()));
    let plan = BenchPlan { policies: args.policies, uncached: true, cores, ..BenchPlan::usual(args.engine) };
    let bench = prepare(&plan)?;
    let overload = std::thread::scope(|scope| {
        let (tell, outcome) = mpsc::channel();
        let probing = scope.spawn(|| probe(&bench, outcome));
        let (peak, stretch) = under_load(args, mode, &bench, tell)?;
        let health = probing.join().map_err(|_| "probing ended by a panic")??.ok_or("nothing was probed")?;
        Ok::<_, BenchError>(overload_result(mode, peak, &stretch, &health))
    })?;
    bench.end()?;
    Ok(overload)
}

/// Measures the peak, and then the overload. The probes receive the outcome of the load.
fn under_load(
    args: &OverloadArgs,
    mode: Mode,
    bench: &BenchServer,
    tell: mpsc::Sender<Arc<LoadStats>>,
) -> Result<(f64, LoadInterval), BenchError> {
    super::on_runtime(async {
        let mut peak = 0.0f64;
        for concurrency in CLOSED {
            let running = RunningLoad::start(&LoadPlan { concurrency, ..LoadPlan::usual(mode) }, bench, args.seconds / 5).await?;
            peak = peak.max(running.measure(bench, args.seconds / 2).await?.rate());
            running.end().await;
        }
        let load = LoadPlan { rate: Some(peak * args.times), concurrency: 1_024, ..LoadPlan::usual(mode) };
        let running = RunningLoad::start(&load, bench, args.seconds / 5).await?;
        tell.send(running.outcome.clone())?;
        let stretch = running.measure(bench, args.seconds).await;
        running.end().await; // dropping the sender ends the probes
        Ok((peak, stretch?))
    })
}

/// Probes the server as an operator and as a health checker; in a thread of its own, as the raw flush, so that the probes do not wait for
/// the generator.
fn probe(bench: &BenchServer, outcome: mpsc::Receiver<Arc<LoadStats>>) -> Result<Option<Health>, BenchError> {
    // Without a load there is nothing to probe.
    let Ok(outcome) = outcome.recv() else { return Ok(None) };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let operator = bench.operator().await?.ok_or("no operator")?;
        let channel = bench.world.channel(&BenchServer::agent(0), bench.address).await?;
        let ((), health) = tokio::join!(revocations(outcome.clone(), operator), health(outcome, channel));
        health.map(Some)
    })
}

/// Repeatedly revokes a recently issued credential as an operator.
async fn revocations(outcome: Arc<LoadStats>, operator: tonic::transport::Channel) {
    while !outcome.stopped() {
        tokio::time::sleep(PROBE).await;
        let Some(id) = outcome.last_issued() else { continue };
        let sent = Instant::now();
        match revoke(operator.clone(), id).await {
            Ok(()) => outcome.revoked(micros(sent)),
            Err(status) => outcome.wrong(format!("revoking: {}", status.message())),
        }
    }
}

/// Checks health on the workload listener.
async fn health(outcome: Arc<LoadStats>, channel: tonic::transport::Channel) -> Result<Health, BenchError> {
    let mut health = Health { asked: 0, answered: 0, latency: hdrhistogram::Histogram::new_with_bounds(1, 60_000_000, 3)? };
    let mut client = HealthClient::new(channel);
    while !outcome.stopped() {
        tokio::time::sleep(PROBE).await;
        health.asked += 1;
        let sent = Instant::now();
        if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, client.check(HealthCheckRequest::default())).await {
            health.answered += 1;
            health.latency.saturating_record(micros(sent));
        }
    }
    Ok(health)
}

fn overload_result(mode: Mode, peak: f64, run: &LoadInterval, health: &Health) -> OverloadResult {
    let counted = &run.counted;
    let per_s = |n: u64| n as f64 / run.seconds;
    let goodput_target = if mode == Mode::Stream { 0.85 } else { 0.5 };
    let mut all = OverloadResult {
        scenario: "overload",
        mode: format!("{mode:?}").to_lowercase(),
        peak_per_s: peak,
        offered_per_s: per_s(counted.issued + counted.refused + counted.errors),
        goodput_per_s: run.rate(),
        goodput: run.rate() / peak,
        goodput_target,
        refused_per_s: per_s(counted.refused),
        refused_well: counted.refused as f64 / (counted.refused + counted.errors).max(1) as f64,
        refusal_p99_ms: refused_p99_ms(&run.before.1, &run.after.1),
        refusal_target_ms: limits::REFUSED_WITHIN_MS as f64,
        refusal_seen_p99_ms: ms(&run.refusals, 0.99),
        latency_p50_ms: ms(&run.latency, 0.5),
        latency_p99_ms: ms(&run.latency, 0.99),
        flush_p99_ms: ms(&run.floor.flush, 0.99),
        revoke_p50_ms: ms(&run.revocations, 0.5),
        revoke_p99_ms: ms(&run.revocations, 0.99),
        revoke_ratio: ms(&run.revocations, 0.99) / ms(&run.floor.flush, 0.99),
        revoke_target: 5.0,
        health_asked: health.asked,
        health_answered: health.answered,
        health_p99_ms: ms(&health.latency, 0.99),
        unsent_per_s: per_s(counted.unsent),
        errors: counted.errors,
        met: false,
    };
    all.met = all.goodput >= all.goodput_target
        && all.errors == 0
        && all.refusal_p99_ms <= all.refusal_target_ms
        && all.revoke_ratio <= all.revoke_target
        && all.health_answered == all.health_asked;
    all
}
