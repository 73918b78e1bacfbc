//! Idle connections: the memory of the server for each, and its CPU while no calls are made.

use std::time::Duration;

use serde::Serialize;
use tonic::transport::Channel;

use super::process::{cpu_seconds, fds, rss};
use super::world::{BenchPlan, BenchServer, prepare};
use super::{BenchError, IdleArgs};
use mayfly_api::client;
use mayfly_cli::out::Printable;

/// Connections opened concurrently.
const AT_ONCE: usize = 64;
/// The wait between the last handshake and the first sample.
const SETTLE: Duration = Duration::from_secs(2);

/// The cost of idle connections.
#[derive(Serialize)]
pub struct IdleResult {
    pub scenario: &'static str,
    pub connections: usize,
    pub rss_before_mb: f64,
    pub rss_after_mb: f64,
    pub kb_per_connection: f64,
    pub kb_target: f64,
    pub seconds: f64,
    /// CPU of the server during the measurement, percent of one core.
    pub cpu_percent: f64,
    pub fds: Option<u64>,
    pub opened_in_s: f64,
    pub met: bool,
}

impl Printable for IdleResult {
    fn name(&self) -> String {
        "idle".to_owned()
    }
}

/// Opens the connections, waits, and samples the server.
pub fn run(args: &IdleArgs) -> Result<IdleResult, BenchError> {
    super::process::more_files()?;
    let bench = prepare(&BenchPlan::usual(args.engine))?;
    let idle = super::on_runtime(async {
        let few = open(&bench, 16).await?;
        tokio::time::sleep(SETTLE).await;
        let before = rss(bench.pid)?;
        let from = std::time::Instant::now();
        let mut all = Vec::with_capacity(args.connections as usize);
        while all.len() < args.connections as usize {
            all.extend(open(&bench, AT_ONCE.min(args.connections as usize - all.len())).await?);
        }
        let opened_in_s = from.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let (after, cpu) = (rss(bench.pid)?, cpu_seconds(bench.pid)?);
        tokio::time::sleep(args.seconds).await;
        let seconds = args.seconds.as_secs_f64();
        let cpu_percent = (cpu_seconds(bench.pid)? - cpu) / seconds * 100.0;
        let kb_per_connection = after.saturating_sub(before) as f64 / 1024.0 / all.len() as f64;
        let (connections, fds) = (all.len(), fds(bench.pid));
        drop((few, all));
        let met = kb_per_connection <= 64.0 && cpu_percent <= 2.0;
        let (rss_before_mb, rss_after_mb) = (before as f64 / 1e6, after as f64 / 1e6);
        Ok(IdleResult {
            scenario: "idle",
            connections,
            rss_before_mb,
            rss_after_mb,
            kb_per_connection,
            kb_target: 64.0,
            seconds,
            cpu_percent,
            fds,
            opened_in_s,
            met,
        })
    })?;
    bench.end()?;
    Ok(idle)
}

async fn open(bench: &BenchServer, many: usize) -> Result<Vec<Channel>, BenchError> {
    let tls = bench.world.client_config(&BenchServer::agent(0))?;
    let opening: Vec<_> = (0..many).map(|_| tokio::spawn(client::mtls(bench.address, tls.clone()))).collect();
    let mut open = Vec::with_capacity(many);
    for one in opening {
        open.push(one.await?.map_err(|error| format!("after {} of {many} connections: {error:?}", open.len()))?);
    }
    Ok(open)
}

impl IdleResult {
    /// Prints the result for people.
    pub fn print(&self) {
        println!("{} idle connections over mTLS, opened within {:.1} s", self.connections, self.opened_in_s);
        println!(
            "  memory        {:.1} KB each (target ≤ {} KB): {:.1} MB resident before, {:.1} MB with them",
            self.kb_per_connection, self.kb_target, self.rss_before_mb, self.rss_after_mb
        );
        println!("  CPU           {:.2} % of one core over {:.0} s with no call", self.cpu_percent, self.seconds);
    }
}
