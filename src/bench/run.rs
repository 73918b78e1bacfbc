//! One run of a load: the counters of server, kernel and generator between two moments.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::BenchError;
use super::load::{LoadCounts, LoadPlan, LoadStats, start};
use super::process::{Usage, stolen_s, usage};
use super::raw_cost::{LowerBounds, RawMeasurement};
use super::world::BenchServer;
use mayfly_authority::admission::admission_queue::REFUSED_WITHIN_US;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::server_service_client::ServerServiceClient;

/// The longest wait for the first issuance after the warm-up.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// The longest phases of a commit since the server's start, ms.
#[derive(Serialize, Clone, Copy, Default)]
pub struct LongestPhases {
    /// Folding, including expiry and starting snapshots.
    pub fold_ms: f64,
    /// The CPU time of that fold.
    pub fold_cpu_ms: f64,
    /// The end of that fold, ms since 1970.
    pub folded_at_ms: Option<f64>,
    /// Appending to the store.
    pub append_ms: f64,
}

/// The counters of the server.
#[derive(Clone, Copy, Default)]
pub struct ServerCounters {
    pub commits: u64,
    pub seq: u64,
    /// Decisions answered from the cache, and decisions evaluated by Cedar.
    pub remembered: u64,
    pub asked: u64,
    pub credentials: u64,
    pub longest: LongestPhases,
    /// Refusals for lack of time, by the classes of `REFUSED_WITHIN_US`.
    pub refused: [u64; REFUSED_WITHIN_US.len() + 1],
}

/// Reads the server's counters. Without an operator's channel, all are zero.
pub async fn read_counters(operator: Option<&Channel>) -> Result<ServerCounters, BenchError> {
    let mut server = ServerCounters::default();
    if let Some(channel) = operator {
        let status = ServerServiceClient::new(channel.clone()).get_status(pb::GetStatusRequest {}).await?.into_inner();
        if let Some(ledger) = status.ledger {
            (server.commits, server.seq) = (ledger.commit, ledger.durable_seq);
            server.longest = LongestPhases {
                fold_ms: ledger.longest_fold_us as f64 / 1000.0,
                folded_at_ms: ledger.longest_fold_at.map(|at| at.seconds as f64 * 1000.0 + f64::from(at.nanos) / 1e6),
                fold_cpu_ms: ledger.longest_fold_cpu_us as f64 / 1000.0,
                append_ms: ledger.longest_append_us as f64 / 1000.0,
            };
        }
        if let Some(load) = status.load {
            server.refused.iter_mut().zip(load.refused).for_each(|(ours, told)| *ours = told);
        }
        if let Some(counts) = status.counts {
            (server.remembered, server.asked) = (counts.verdicts_remembered, counts.verdicts_asked);
            server.credentials = counts.credentials;
        }
    }
    Ok(server)
}

/// A running load.
pub struct RunningLoad {
    pub outcome: std::sync::Arc<LoadStats>,
    pub operator: Option<Channel>,
    workers: Vec<JoinHandle<()>>,
}

/// The result of one stretch of a load.
pub struct LoadInterval {
    pub seconds: f64,
    pub counted: LoadCounts,
    pub latency: Histogram<u64>,
    pub refusals: Histogram<u64>,
    pub revocations: Histogram<u64>,
    pub before: (Usage, ServerCounters),
    pub after: (Usage, ServerCounters),
    pub floor: LowerBounds,
    /// Steal time of the hypervisor during the stretch, seconds of one core.
    pub stolen_s: f64,
}

impl RunningLoad {
    /// Starts a load and waits until it is warm.
    pub async fn start(load: &LoadPlan, bench: &BenchServer, warm: Duration) -> Result<RunningLoad, BenchError> {
        let operator = bench.operator().await?;
        let outcome = LoadStats::new()?;
        let workers = start(load, bench, &outcome).await?;
        tokio::time::sleep(warm).await;
        // On a busy machine the first issuance may take a while.
        let began = Instant::now();
        while outcome.counts().issued == 0 && outcome.first_error().is_none() && began.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
        }
        if outcome.counts().issued == 0 {
            return Err(outcome.first_error().unwrap_or_else(|| "nothing was issued".to_owned()).into());
        }
        Ok(RunningLoad { outcome, operator, workers })
    }

    /// Measures for a time, with raw signatures and flushes beside the load.
    pub async fn measure(&self, bench: &BenchServer, time: Duration) -> Result<LoadInterval, BenchError> {
        let raw = RawMeasurement::start(bench.world.dir())?;
        let outcome = &self.outcome;
        for latency in [&outcome.latency, &outcome.refusals, &outcome.revocations] {
            latency.take()?;
        }
        let before = (usage(bench.pid)?, read_counters(self.operator.as_ref()).await?);
        let (from, counted, stolen) = (Instant::now(), outcome.counts(), stolen_s());
        tokio::time::sleep(time).await;
        let stolen_s = stolen_s() - stolen;
        let (seconds, counted) = (from.elapsed().as_secs_f64(), outcome.counts().since(counted));
        let after = (usage(bench.pid)?, read_counters(self.operator.as_ref()).await?);
        let (latency, refusals) = (outcome.latency.take()?, outcome.refusals.take()?);
        let revocations = outcome.revocations.take()?;
        let floor = raw.end()?;
        Ok(LoadInterval { seconds, counted, latency, refusals, revocations, before, after, floor, stolen_s })
    }

    /// Stops the load.
    pub async fn end(self) {
        self.outcome.stop();
        for worker in self.workers {
            let _ = tokio::time::timeout(Duration::from_secs(2), worker).await;
        }
        if let Some(error) = self.outcome.first_error() {
            eprintln!("the first error: {error}");
        }
    }
}

impl LoadInterval {
    /// Issuances per second.
    pub fn rate(&self) -> f64 {
        self.counted.issued as f64 / self.seconds
    }

    /// CPU of the server per issuance, µs.
    pub fn cpu_us(&self) -> f64 {
        (self.after.0.cpu_s - self.before.0.cpu_s) * 1e6 / self.counted.issued.max(1) as f64
    }
}

/// The time within which 99 of 100 refusals between two readings were made, ms, as counted by the server: the upper bound of the histogram
/// class.
pub fn refused_p99_ms(before: &ServerCounters, after: &ServerCounters) -> f64 {
    let each: Vec<u64> = after.refused.iter().zip(before.refused).map(|(after, before)| after - before).collect();
    let all: u64 = each.iter().sum();
    let ends = REFUSED_WITHIN_US.iter().map(|us| *us as f64 / 1000.0).chain(std::iter::once(f64::INFINITY));
    let mut so_far = 0;
    for (n, end) in each.iter().zip(ends) {
        so_far += n;
        if so_far * 100 >= all * 99 {
            return if all == 0 { 0.0 } else { end };
        }
    }
    f64::INFINITY
}

/// The quantile `share` of a histogram, ms.
pub fn ms(all: &Histogram<u64>, share: f64) -> f64 {
    all.value_at_quantile(share) as f64 / 1000.0
}
