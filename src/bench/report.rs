//! The report of a run of the default load.

use serde::Serialize;

use super::run::{LoadInterval, ms};
use mayfly_cli::out::{Printable, Row};

/// The figures of one run.
#[derive(Serialize, Default)]
pub struct BenchReport {
    pub row: String,
    pub mode: String,
    pub kind: String,
    pub engine: String,
    /// Exchanges in flight.
    pub concurrency: u32,
    pub policies: u32,
    pub uncached: bool,
    pub workers: Option<u32>,
    pub endings_percent: Option<f64>,
    pub seconds: f64,
    pub issued: u64,
    pub issued_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub server_cpu_us_per_issue: f64,
    pub raw_sign_us: f64,
    pub ratio_cpu: f64,
    pub flush_p50_ms: f64,
    pub flush_p99_ms: f64,
    pub cache_hit_rate: f64,
    /// The cost of Cedar alone for the same requests, if it was measured.
    pub cedar_us: Option<f64>,
    pub batch_mean: f64,
    pub revoked: u64,
    pub completed: u64,
    pub revoke_p99_ms: Option<f64>,
    pub rss_before_mb: f64,
    pub rss_after_mb: f64,
    pub fds: Option<u64>,
    pub switches_per_issue: f64,
    /// Steal time of the hypervisor, percent of one core.
    pub stolen_percent: f64,
    pub refused: u64,
    pub errors: u64,
    /// The measure that the target is about.
    pub of: Option<String>,
    pub value: Option<f64>,
    pub target: Option<f64>,
    pub met: Option<bool>,
}

impl Printable for BenchReport {
    fn name(&self) -> String {
        if self.row.is_empty() { self.mode.clone() } else { self.row.clone() }
    }
}

const MB: f64 = 1e6;

impl BenchReport {
    /// The figures of a stretch. The caller fills in the parameters of the load.
    pub fn of(run: &LoadInterval) -> BenchReport {
        let cpu_us = run.cpu_us();
        let ((before, was), (after, is)) = (&run.before, &run.after);
        let (remembered, asked) = (is.remembered - was.remembered, is.asked - was.asked);
        BenchReport {
            seconds: run.seconds,
            issued: run.counted.issued,
            issued_per_s: run.rate(),
            p50_ms: ms(&run.latency, 0.5),
            p99_ms: ms(&run.latency, 0.99),
            p999_ms: ms(&run.latency, 0.999),
            server_cpu_us_per_issue: cpu_us,
            raw_sign_us: run.floor.sign_us,
            ratio_cpu: cpu_us / run.floor.sign_us,
            flush_p50_ms: ms(&run.floor.flush, 0.5),
            flush_p99_ms: ms(&run.floor.flush, 0.99),
            cache_hit_rate: remembered as f64 / (remembered + asked).max(1) as f64,
            batch_mean: (is.seq - was.seq) as f64 / (is.commits - was.commits).max(1) as f64,
            revoked: run.counted.revoked,
            completed: run.counted.completed,
            revoke_p99_ms: (run.counted.revoked > 0).then(|| ms(&run.revocations, 0.99)),
            rss_before_mb: before.rss as f64 / MB,
            rss_after_mb: after.rss as f64 / MB,
            fds: after.fds,
            switches_per_issue: after.switches.saturating_sub(before.switches) as f64 / run.counted.issued.max(1) as f64,
            stolen_percent: run.stolen_s / run.seconds * 100.0,
            refused: run.counted.refused,
            errors: run.counted.errors,
            ..BenchReport::default()
        }
    }

    /// Adds a target that the value must stay below.
    pub fn aim(&mut self, of: &str, value: f64, target: Option<f64>) {
        (self.of, self.value, self.target) = (Some(of.to_owned()), Some(value), target);
        self.met = target.map(|target| value <= target);
    }

    /// Prints the report for people.
    pub fn print(&self) {
        let BenchReport { mode, kind, engine, concurrency, policies, .. } = self;
        println!("{mode}, {kind}, {engine}, {concurrency} in flight, {policies} policies, {:.1} s", self.seconds);
        println!(
            "  issued        {:>12} durable and audited, {:.0} a second, {} refused, {} errors",
            self.issued, self.issued_per_s, self.refused, self.errors
        );
        println!("  latency       p50 {:.2} ms   p99 {:.2} ms   p99.9 {:.2} ms", self.p50_ms, self.p99_ms, self.p999_ms);
        println!(
            "  server CPU    {:.1} µs per issuance = {:.2} × one ES256 signature ({:.1} µs beside the same load)",
            self.server_cpu_us_per_issue, self.ratio_cpu, self.raw_sign_us
        );
        println!("  raw flush     p50 {:.2} ms   p99 {:.2} ms", self.flush_p50_ms, self.flush_p99_ms);
        println!("  machine       {:.1} % of a core taken by others beneath it", self.stolen_percent);
        println!("  commits       {:.1} records each; verdicts remembered {:.1} %", self.batch_mean, self.cache_hit_rate * 100.0);
        if let Some(us) = self.cedar_us {
            println!("  Cedar alone   {us:.1} µs for one of these questions");
        }
        if let Some(p99) = self.revoke_p99_ms {
            println!("  endings       {} revoked (p99 {p99:.2} ms), {} tasks completed", self.revoked, self.completed);
        }
        let fds = self.fds.map_or_else(|| "?".to_owned(), |n| n.to_string());
        println!(
            "  server        {:.1} MB resident before, {:.1} MB after; {fds} files open; {:.3} context switches per issuance",
            self.rss_before_mb, self.rss_after_mb, self.switches_per_issue
        );
    }
}

impl Row for BenchReport {
    const COLUMNS: &'static [&'static str] =
        &["ROW", "OF", "VALUE", "TARGET", "MET", "IN FLIGHT", "PER S", "P50 MS", "P99 MS", "ERRORS"];

    fn cells(&self) -> Vec<String> {
        let number = |n: Option<f64>| n.map_or_else(String::new, |n| format!("{n:.2}"));
        vec![
            self.name(),
            self.of.clone().unwrap_or_default(),
            number(self.value),
            number(self.target),
            self.met.map_or("", |met| if met { "yes" } else { "no" }).to_owned(),
            self.concurrency.to_string(),
            format!("{:.0}", self.issued_per_s),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            (self.errors + self.refused).to_string(),
        ]
    }
}
