//! A soak: issues at a share of the server's full rate for a given time, and measures whether anything grows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::LoadPlan;
use super::process::{disk, fds, rss, stolen_s};
use super::run::{LongestPhases, RunningLoad, ms, read_counters};
use super::stall_monitor::{RunStalls, StallMonitor, StallSummary, now_ms};
use super::world::{BenchPlan, BenchServer, prepare};
use super::{BenchError, SoakArgs};
use mayfly_base::document::quantity::duration_text;
use mayfly_base::limits;
use mayfly_cli::out::Printable;

/// A slope is flat if it is below this share of the mean per hour …
const FLAT: f64 = 0.05;
/// … or if the growth over the whole run is below the uncertainty of a window's mean: two standard errors of the slope.
const SURE: f64 = 2.0;
/// The start of the run is left out, since everything fills until the first entries expire: the lifetime of a credential or of its request
/// id, times this factor.
const FILLING: f64 = 1.1;

/// One sample.
#[derive(Serialize, Clone)]
pub struct Sample {
    pub at_s: f64,
    pub rss_mb: f64,
    pub disk_mb: f64,
    pub p99_ms: f64,
    pub fds: f64,
    pub issued_per_s: f64,
    pub live: u64,
    /// Steal time of the hypervisor since the last sample, ms of one core.
    pub stolen_ms: f64,
    /// Calls refused since the last sample.
    pub refused: u64,
    /// Stalls of the cores since the last sample. `None`: not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stood_still: Option<StallSummary>,
    pub longest: LongestPhases,
}

/// The regression line through the samples.
#[derive(Serialize)]
pub struct Slope {
    pub of: &'static str,
    pub mean: f64,
    pub per_hour: f64,
    /// The standard error of the slope.
    pub error_per_hour: f64,
    /// The slope per hour as a share of the mean.
    pub per_hour_of_mean: f64,
    pub flat: bool,
}

/// The result of a soak.
#[derive(Serialize)]
pub struct SoakResult {
    pub scenario: &'static str,
    pub minutes: f64,
    pub full_per_s: f64,
    pub share: f64,
    pub ttl: String,
    pub keep: Option<String>,
    pub issued: u64,
    pub refused: u64,
    /// The error text of the first refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_refusal: Option<String>,
    pub errors: u64,
    pub longest: LongestPhases,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beneath: Option<RunStalls>,
    pub slopes: Vec<Slope>,
    pub flat: bool,
    pub samples: Vec<Sample>,
}

impl Printable for SoakResult {
    fn name(&self) -> String {
        "soak".to_owned()
    }
}

/// Measures the full rate first, then issues at a share of it.
pub fn run(args: &SoakArgs, mut each: impl FnMut(&Sample)) -> Result<SoakResult, BenchError> {
    let mut plan = BenchPlan { dir: args.dir.clone(), ..BenchPlan::usual(args.engine) };
    if let Some(keep) = &args.keep {
        plan = plan.with("audit.keep", format!("\"{keep}\""));
    }
    let (bench, witness) = (prepare(&plan)?, StallMonitor::start()?);
    let time = Duration::from_secs_f64(args.minutes * 60.0);
    let soak = super::on_runtime(async {
        // Tasks are completed when they are done, as in production; open tasks would accumulate for as long as a task may live.
        let usual = LoadPlan { ttl: Some(args.ttl), endings: Some(0.0), ..LoadPlan::usual(args.mode) };
        let first = time.min(Duration::from_secs(10)) / 2;
        let running = RunningLoad::start(&usual, &bench, first / 5).await?;
        let full = running.measure(&bench, first).await?.rate();
        running.end().await;
        let load = LoadPlan { rate: Some(full * args.share), ..usual };
        let running = RunningLoad::start(&load, &bench, args.every.min(time / 10)).await?;
        let samples = sample(args, &bench, &running, witness.as_ref(), time, &mut each).await?;
        let counted = running.outcome.counts();
        let refusal = running.outcome.first_refusal().map(str::to_owned);
        let longest = read_counters(running.operator.as_ref()).await?.longest;
        running.end().await;
        let fills = args.ttl.max(Duration::from_millis(limits::REQUEST_ID_KEPT_MS)).as_secs_f64() * FILLING;
        let slopes = slopes(&samples, fills.min(time.as_secs_f64() / 2.0));
        Ok(SoakResult {
            scenario: "soak",
            minutes: args.minutes,
            full_per_s: full,
            share: args.share,
            ttl: duration_text(u64::try_from(args.ttl.as_millis())?),
            keep: args.keep.clone(),
            issued: counted.issued,
            refused: counted.refused,
            first_refusal: refusal,
            errors: counted.errors,
            longest,
            beneath: witness.as_ref().map(|witness| RunStalls::of(witness, &longest)),
            flat: slopes.iter().all(|s| s.flat) && counted.errors == 0,
            slopes,
            samples,
        })
    })?;
    bench.end()?;
    Ok(soak)
}

async fn sample(
    args: &SoakArgs,
    bench: &BenchServer,
    running: &RunningLoad,
    witness: Option<&StallMonitor>,
    time: Duration,
    each: &mut impl FnMut(&Sample),
) -> Result<Vec<Sample>, BenchError> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    let mut last = (running.outcome.counts(), stolen_s(), Instant::now(), now_ms());
    running.outcome.latency.take()?;
    let data: PathBuf = bench.data();
    while began.elapsed() < time {
        tokio::time::sleep(args.every.min(time - began.elapsed())).await;
        let (counted, stolen, now, wall) = (running.outcome.counts(), stolen_s(), Instant::now(), now_ms());
        let between = counted.since(last.0);
        let server = read_counters(running.operator.as_ref()).await?;
        let one = Sample {
            at_s: began.elapsed().as_secs_f64(),
            rss_mb: rss(bench.pid)? as f64 / 1e6,
            disk_mb: disk(&data) as f64 / 1e6,
            p99_ms: ms(&running.outcome.latency.take()?, 0.99),
            fds: fds(bench.pid).unwrap_or_default() as f64,
            issued_per_s: between.issued as f64 / (now - last.2).as_secs_f64(),
            live: server.credentials,
            stolen_ms: (stolen - last.1) * 1000.0,
            refused: between.refused,
            stood_still: witness.map(|witness| witness.between(last.3, wall)),
            longest: server.longest,
        };
        last = (counted, stolen, now, wall);
        each(&one);
        samples.push(one);
    }
    Ok(samples)
}

/// A measured quantity: its name, and how to read it from a sample.
type Thing = (&'static str, fn(&Sample) -> f64);

fn slopes(samples: &[Sample], from_s: f64) -> Vec<Slope> {
    let settled: Vec<&Sample> = samples.iter().filter(|s| s.at_s >= from_s).collect();
    let of: [Thing; 5] = [
        ("memory, MB", |s| s.rss_mb),
        ("disk, MB", |s| s.disk_mb),
        ("p99, ms", |s| s.p99_ms),
        ("files open", |s| s.fds),
        ("issued a second", |s| s.issued_per_s),
    ];
    let line = |(name, value): &Thing| {
        let points: Vec<(f64, f64)> = settled.iter().map(|s| (s.at_s / 3600.0, value(s))).collect();
        slope(name, &points)
    };
    of.iter().map(line).collect()
}

/// Fits a line by least squares. Fewer than three points give no meaningful slope.
fn slope(of: &'static str, points: &[(f64, f64)]) -> Slope {
    let n = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n.max(1.0);
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    if points.len() < 3 || spread == 0.0 {
        return Slope { of, mean: y, per_hour: 0.0, error_per_hour: f64::INFINITY, per_hour_of_mean: 0.0, flat: false };
    }
    let per_hour = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|p| (p.1 - y - per_hour * (p.0 - x)).powi(2)).sum();
    let error_per_hour = (rest / (n - 2.0) / spread).sqrt();
    let per_hour_of_mean = if y == 0.0 { 0.0 } else { per_hour / y };
    // A falling quantity counts as flat.
    let flat = per_hour_of_mean <= FLAT || per_hour <= SURE * error_per_hour;
    Slope { of, mean: y, per_hour, error_per_hour, per_hour_of_mean, flat }
}

impl SoakResult {
    /// Prints the result for people.
    pub fn print(&self) {
        let keep = self.keep.as_ref().map_or_else(String::new, |keep| format!(", audit.keep {keep}"));
        println!(
            "{:.1} minutes at {:.2} of {:.0} a second, TTL {}{keep}: {} issued, {} refused, {} errors",
            self.minutes, self.share, self.full_per_s, self.ttl, self.issued, self.refused, self.errors
        );
        if let Some(why) = &self.first_refusal {
            println!("  first refused: {why}");
        }
        for s in &self.slopes {
            println!(
                "  {:<16} mean {:>12.2}   slope {:>+12.3} an hour ± {:.3} ({:+.1} % of the mean): {}",
                s.of,
                s.mean,
                s.per_hour,
                s.error_per_hour,
                s.per_hour_of_mean * 100.0,
                if s.flat { "flat" } else { "not flat" }
            );
        }
        println!(
            "  one commit       {:.1} ms at the longest to fold, to expire and to begin a snapshot, {:.1} ms of a core; {:.1} ms to be written",
            self.longest.fold_ms, self.longest.fold_cpu_ms, self.longest.append_ms
        );
        println!("  machine          {}", RunStalls::line(self.beneath.as_ref()));
        println!("flat: a slope of at most {:.0} % of the mean an hour, or of at most {SURE} standard errors", FLAT * 100.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_rises_is_not_flat_and_noise_is() {
        let rising: Vec<(f64, f64)> = (0..100).map(|n| (f64::from(n) / 100.0, 100.0 + f64::from(n))).collect();
        let found = slope("x", &rising);
        assert!((found.per_hour - 100.0).abs() < 1e-6 && !found.flat, "{}", found.per_hour);
        let noise: Vec<(f64, f64)> = (0..100).map(|n| (f64::from(n) / 100.0, 100.0 + f64::from(n % 7))).collect();
        assert!(slope("x", &noise).flat);
        let falling: Vec<(f64, f64)> = rising.iter().map(|(x, y)| (*x, 300.0 - y)).collect();
        assert!(slope("x", &falling).flat);
        assert!(!slope("x", &rising[..2]).flat, "two points show nothing");
    }
}
