//! A storm of handshakes, while others issue on open connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Semaphore;

use super::load::{LatencyHistogram, LoadPlan};
use super::process::cpu_seconds;
use super::run::{LoadInterval, RunningLoad, ms};
use super::world::{BenchPlan, BenchServer, halves, prepare};
use super::{BenchError, Mode, StormArgs};
use mayfly_api::client;
use mayfly_base::limits;
use mayfly_cli::out::Printable;

/// The maximum number of pending connections. Beyond it the server does not keep up, and further connections are not attempted.
const WAITING: usize = 4_096;
/// A connection that takes longer is abandoned.
const PATIENCE: Duration = Duration::from_secs(5);

/// The effect of a storm on issuing.
#[derive(Serialize)]
pub struct StormResult {
    pub scenario: &'static str,
    pub rate: u32,
    pub issuing_per_s_without: f64,
    pub issuing_per_s_with: f64,
    /// Issuances per second with the storm, as a share of those without it.
    pub issuing: f64,
    pub p99_ms_without: f64,
    pub p99_ms_with: f64,
    pub tried: u64,
    pub handshakes: u64,
    pub handshakes_per_s: f64,
    pub failed: u64,
    pub handshake_p50_ms: f64,
    pub handshake_p99_ms: f64,
    /// The highest number of pending connections seen by the generator, including those in the kernel's queue.
    pub waiting_most: u64,
    pub bound: u64,
    pub server_cpu_cores_with: f64,
    pub errors: u64,
}

impl Printable for StormResult {
    fn name(&self) -> String {
        "storm".to_owned()
    }
}

/// The counters of the storm.
#[derive(Default)]
struct Tried {
    tried: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    waiting: AtomicU64,
    most: AtomicU64,
    stop: AtomicBool,
}

/// Issues at a rate that leaves the server headroom, first alone and then during the storm.
pub fn run(args: &StormArgs) -> Result<StormResult, BenchError> {
    super::process::more_files()?;
    // Server and generator have their own cores, since a handshake costs the generator as much as the server.
    let bench = prepare(&BenchPlan { cores: Some(halves()?), ..BenchPlan::usual(args.engine) })?;
    let storm = super::on_runtime(async {
        let load = LoadPlan { rate: Some(f64::from(args.issuing)), concurrency: 4_096, ..LoadPlan::usual(Mode::Stream) };
        let running = RunningLoad::start(&load, &bench, args.seconds / 5).await?;
        let without = running.measure(&bench, args.seconds).await?;
        let (tried, latency) = (Arc::new(Tried::default()), Arc::new(LatencyHistogram::new()?));
        let blowing = tokio::spawn(open_connections(
            bench.world.client_config(&BenchServer::agent(0))?,
            bench.address,
            args.rate,
            tried.clone(),
            latency.clone(),
        ));
        tokio::time::sleep(args.seconds / 5).await;
        let (before, _) = (tried.done.load(Relaxed), latency.take()?);
        let cpu = cpu_seconds(bench.pid)?;
        let with = running.measure(&bench, args.seconds).await?;
        let cpu = (cpu_seconds(bench.pid)? - cpu) / with.seconds;
        let handshakes = tried.done.load(Relaxed) - before;
        let handshaking = latency.take()?;
        tried.stop.store(true, Relaxed);
        blowing.await?;
        running.end().await;
        Ok(storm_result(args, &without, &with, &tried, (handshakes, cpu), &handshaking))
    })?;
    bench.end()?;
    Ok(storm)
}

fn storm_result(
    args: &StormArgs,
    without: &LoadInterval,
    with: &LoadInterval,
    tried: &Tried,
    (handshakes, cpu): (u64, f64),
    handshaking: &hdrhistogram::Histogram<u64>,
) -> StormResult {
    StormResult {
        scenario: "storm",
        rate: args.rate,
        issuing_per_s_without: without.rate(),
        issuing_per_s_with: with.rate(),
        issuing: with.rate() / without.rate(),
        p99_ms_without: ms(&without.latency, 0.99),
        p99_ms_with: ms(&with.latency, 0.99),
        tried: tried.tried.load(Relaxed),
        handshakes,
        handshakes_per_s: handshakes as f64 / with.seconds,
        failed: tried.failed.load(Relaxed),
        handshake_p50_ms: ms(handshaking, 0.5),
        handshake_p99_ms: ms(handshaking, 0.99),
        waiting_most: tried.most.load(Relaxed),
        bound: limits::HANDSHAKES as u64,
        server_cpu_cores_with: cpu,
        errors: without.counted.errors + with.counted.errors + without.counted.refused + with.counted.refused,
    }
}

/// Opens new connections on schedule and closes each as soon as it is open.
async fn open_connections(
    tls: rustls::ClientConfig,
    address: std::net::SocketAddr,
    rate: u32,
    tried: Arc<Tried>,
    latency: Arc<LatencyHistogram>,
) {
    let places = Arc::new(Semaphore::new(WAITING));
    let began = Instant::now();
    let mut count = 0u32;
    while !tried.stop.load(Relaxed) {
        let due = began + Duration::from_secs_f64(f64::from(count) / f64::from(rate));
        count += 1;
        tokio::time::sleep_until(due.into()).await;
        tried.tried.fetch_add(1, Relaxed);
        let Ok(place) = places.clone().try_acquire_owned() else {
            tried.failed.fetch_add(1, Relaxed);
            continue;
        };
        let (tls, tried, latency) = (tls.clone(), tried.clone(), latency.clone());
        tokio::spawn(async move {
            let _place = place;
            let waiting = tried.waiting.fetch_add(1, Relaxed) + 1;
            tried.most.fetch_max(waiting, Relaxed);
            match tokio::time::timeout(PATIENCE, client::mtls(address, tls)).await {
                Ok(Ok(_)) => {
                    tried.done.fetch_add(1, Relaxed);
                    latency.record(super::load::micros(due));
                }
                _ => drop(tried.failed.fetch_add(1, Relaxed)),
            }
            tried.waiting.fetch_sub(1, Relaxed);
        });
    }
}

impl StormResult {
    /// Prints the result for people.
    pub fn print(&self) {
        println!("{} new connections a second, tried {}", self.rate, self.tried);
        println!(
            "  issuing       {:.0} a second without, {:.0} with ({:.3}); p99 {:.2} ms without, {:.2} ms with; {} errors",
            self.issuing_per_s_without, self.issuing_per_s_with, self.issuing, self.p99_ms_without, self.p99_ms_with, self.errors
        );
        println!(
            "  handshakes    {:.0} a second done, {} failed; p50 {:.1} ms, p99 {:.1} ms; at most {} under way or waiting (bound {})",
            self.handshakes_per_s, self.failed, self.handshake_p50_ms, self.handshake_p99_ms, self.waiting_most, self.bound
        );
        println!("  server        {:.2} cores with the storm", self.server_cpu_cores_with);
    }
}
