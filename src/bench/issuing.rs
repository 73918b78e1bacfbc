//! The default measurement: one load on one server, or each row of the table of targets.

use std::time::Duration;

use super::cedar::Cedar;
use super::load::LoadPlan;
use super::raw_cost::stopper;
use super::report::BenchReport;
use super::run::RunningLoad;
use super::world::{BenchPlan, prepare};
use super::{BenchError, BenchKind, IssuingArgs, Mode};
use mayfly_cli::dev::DevEngine;

/// One load on one server.
pub struct BenchCase {
    pub plan: BenchPlan,
    pub load: LoadPlan,
    pub time: Duration,
}

impl BenchCase {
    /// The case that the command line describes.
    pub fn of(args: &IssuingArgs) -> BenchCase {
        let plan = BenchPlan {
            engine: args.engine,
            policies: args.policies,
            uncached: args.uncached,
            workers: args.workers,
            agents: args.connections,
            set: Vec::new(),
            dir: args.dir.clone(),
            running: args.running,
            cores: None,
        };
        let load = LoadPlan {
            mode: args.mode,
            kind: args.kind,
            concurrency: args.concurrency.unwrap_or(args.mode.usual_concurrency()),
            connections: args.connections,
            rate: args.rate.map(f64::from),
            per_task: args.per_task,
            ttl: None,
            endings: args.endings,
        };
        BenchCase { plan, load, time: args.seconds }
    }

    /// Runs the case: a warm-up of a fifth of its time, then the measurement.
    pub fn run(&self) -> Result<BenchReport, BenchError> {
        let bench = prepare(&self.plan)?;
        let stop = stopper();
        let cedar = match self.plan.uncached {
            true => Some(Cedar::start(bench.world.dir(), stop.clone())?),
            false => None,
        };
        let outcome = super::on_runtime(async {
            let running = RunningLoad::start(&self.load, &bench, self.time / 5).await?;
            let stretch = running.measure(&bench, self.time).await?;
            running.end().await;
            Ok(stretch)
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let cedar_us = cedar.map(Cedar::end).transpose()?;
        let name = |v: &dyn std::fmt::Debug| format!("{v:?}").to_lowercase();
        let report = BenchReport {
            mode: name(&self.load.mode),
            kind: name(&self.load.kind),
            engine: name(&self.plan.engine),
            concurrency: self.load.under_way(),
            policies: self.plan.policies,
            uncached: self.plan.uncached,
            workers: self.plan.workers,
            endings_percent: self.load.endings,
            cedar_us,
            ..BenchReport::of(&outcome?)
        };
        bench.end()?;
        if report.uncached && report.cache_hit_rate > 0.0 {
            return Err(
                format!("{:.2} % of the verdicts were remembered, of none that may be", report.cache_hit_rate * 100.0).into()
            );
        }
        Ok(report)
    }
}

/// The value of a row.
#[derive(Clone, Copy)]
enum Of {
    /// CPU per issuance as a multiple of one raw signature.
    Ratio,
    /// CPU per issuance, µs.
    Cpu,
    /// The median latency minus one raw flush, ms.
    BeyondFlush,
    /// CPU per issuance as a multiple of that of an earlier row.
    Against(&'static str),
}

struct TableRow {
    name: &'static str,
    of: Of,
    target: Option<f64>,
    load: LoadPlan,
    change: fn(&mut BenchPlan),
}

/// The rows of the table. A row comes after the rows that it is compared with.
fn rows() -> Vec<TableRow> {
    let row = |name, of, target, load| TableRow { name, of, target, load, change: |_| {} };
    let stream = || LoadPlan::usual(Mode::Stream);
    let one = LoadPlan { concurrency: 1, connections: 1, ..LoadPlan::usual(Mode::Unary) };
    let two_workers = "stream, two workers";
    vec![
        row("stream", Of::Ratio, Some(1.4), stream()),
        row("batch of 100", Of::Ratio, Some(1.4), LoadPlan::usual(Mode::Batch)),
        row("unary, 256 in flight", Of::Ratio, Some(2.5), LoadPlan::usual(Mode::Unary)),
        row("unary, 1 in flight", Of::BeyondFlush, Some(0.5), one),
        row("stream, reference", Of::Cpu, Some(10.0), LoadPlan { kind: BenchKind::Reference, ..stream() }),
        row("stream, 1 % endings", Of::Against("stream"), Some(1.2), LoadPlan { endings: Some(1.0), ..stream() }),
        TableRow {
            change: |plan| (plan.policies, plan.uncached) = (200, true),
            ..row("stream, uncached, 200 policies", Of::Ratio, Some(5.0), stream())
        },
        TableRow { change: |plan| plan.workers = Some(1), ..row("stream, one worker", Of::Ratio, None, stream()) },
        TableRow {
            change: |plan| plan.workers = Some(2),
            ..row(two_workers, Of::Against("stream, one worker"), Some(1.15), stream())
        },
    ]
}

/// Runs every row of the table, and passes each report to `each` as soon as it is complete.
pub fn table(
    engine: DevEngine,
    time: Duration,
    mut each: impl FnMut(&BenchReport) -> Result<(), BenchError>,
) -> Result<Vec<BenchReport>, BenchError> {
    let mut done: Vec<BenchReport> = Vec::new();
    for row in rows() {
        let mut plan = BenchPlan::usual(engine);
        (row.change)(&mut plan);
        let mut report = BenchCase { plan, load: row.load, time }.run()?;
        report.row = row.name.to_owned();
        let cpu = report.server_cpu_us_per_issue;
        let (of, value) = match row.of {
            Of::Ratio => ("CPU / raw signature".to_owned(), report.ratio_cpu),
            Of::Cpu => ("CPU, µs".to_owned(), cpu),
            Of::BeyondFlush => ("p50 − raw flush, ms".to_owned(), report.p50_ms - report.flush_p50_ms),
            Of::Against(name) => {
                let base = done.iter().find(|r| r.row == name).map_or(f64::NAN, |r| r.server_cpu_us_per_issue);
                (format!("CPU / {name}"), cpu / base)
            }
        };
        report.aim(&of, value, row.target);
        each(&report)?;
        done.push(report);
    }
    Ok(done)
}
