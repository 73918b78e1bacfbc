//! The load: exchanges that each have their own tool, purpose and arguments, a hundred to a task, which is opened by the first of them.

mod call;
mod direct;
mod endings;
mod outcome;
mod stream;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub use endings::revoke;
pub use outcome::{LatencyHistogram, LoadAnswer, LoadCounts, LoadStats, micros};

use super::world::BenchServer;
use super::{BenchError, BenchKind, Mode};
use direct::Direct;
use endings::Endings;
use mayfly_base::limits;
use mayfly_ledger::commit::sha256;
use mayfly_proto::mayfly::v1 as pb;
use tasks::{TaskAssignment, TaskPool};

/// The kind, mode and rate of the requests.
#[derive(Clone)]
pub struct LoadPlan {
    /// How exchanges are sent.
    pub mode: Mode,
    /// The kind of credential.
    pub kind: BenchKind,
    /// Exchanges in flight over all connections. In an open loop on streams, the maximum number of exchanges that wait to be sent.
    pub concurrency: u32,
    /// Connections, each of a workload of its own.
    pub connections: u32,
    /// Exchanges per second in total, sent on schedule regardless of the answers (an open loop); `None`: each exchange follows an answer.
    pub rate: Option<f64>,
    /// Credentials of one task.
    pub per_task: u32,
    /// The requested lifetime of the credentials; `None` for the default.
    pub ttl: Option<Duration>,
    /// The percentage of credentials that an operator revokes. If set, tasks are also completed when their exchanges are done.
    pub endings: Option<f64>,
}

impl LoadPlan {
    /// The default load of `mayfly bench`.
    pub fn usual(mode: Mode) -> LoadPlan {
        let (kind, concurrency) = (BenchKind::Jwt, mode.usual_concurrency());
        LoadPlan { mode, kind, concurrency, connections: 4, rate: None, per_task: 100, ttl: None, endings: None }
    }

    /// The number of connections, and of exchanges in flight on each.
    fn split(&self) -> (u32, u32) {
        let connections = self.connections.min(self.concurrency).max(1);
        let each = self.concurrency.div_ceil(connections);
        let hundreds = limits::BATCH as u32;
        (connections, if self.mode == Mode::Batch { each.next_multiple_of(hundreds) } else { each })
    }

    /// Exchanges in flight, rounded up to the same number on each connection and to whole calls.
    pub fn under_way(&self) -> u32 {
        let (connections, each) = self.split();
        connections.saturating_mul(each)
    }

    fn ask(&self, outcome: &LoadStats, place: &TaskAssignment) -> pb::ExchangeRequest {
        let n = outcome.next_number();
        let digest = sha256(&n.to_be_bytes());
        pb::ExchangeRequest {
            task: Some(place.named()),
            upstream: BenchServer::upstream(),
            scopes: vec!["read".into()],
            kind: match self.kind {
                BenchKind::Jwt => pb::CredentialKind::Jwt,
                BenchKind::Reference => pb::CredentialKind::Reference,
            }
            .into(),
            tool: format!("tool_{n}"),
            purpose: format!("measure number {n}"),
            ttl: self.ttl.map(mayfly_cli::args::wire_duration),
            arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Sha256(digest.to_vec().into())) }),
            request_id: if self.mode == Mode::Stream { outcome.request_id(n) } else { String::new() },
            ..Default::default()
        }
    }
}

/// The part of a load on one connection.
#[derive(Clone)]
struct LoadConnection {
    load: LoadPlan,
    channel: Channel,
    /// The connection for unary exchanges of an open loop.
    direct: Option<Direct>,
    tasks: Arc<TaskPool>,
    outcome: Arc<LoadStats>,
    endings: Option<Endings>,
    in_flight: u32,
    rate: Option<f64>,
}

/// Starts a load on connections of its own. The load ends when the outcome is stopped.
pub async fn start(load: &LoadPlan, bench: &BenchServer, outcome: &Arc<LoadStats>) -> Result<Vec<JoinHandle<()>>, BenchError> {
    let mut workers = Vec::new();
    let (connections, in_flight) = load.split();
    let endings = match load.endings {
        Some(percent) => Some(Endings::start(percent, bench, outcome).await?),
        None => None,
    };
    for n in 0..connections {
        let channel = bench.world.channel(&BenchServer::agent(n), bench.address).await?;
        let rate = load.rate.map(|r| r / f64::from(connections));
        let direct = match (load.mode, rate) {
            (Mode::Unary, Some(_)) => Some(Direct::connect(bench, &BenchServer::agent(n)).await?),
            _ => None,
        };
        // In an open loop, the exchanges of one second.
        let under_way = rate.map_or(in_flight, |rate| rate.ceil() as u32);
        let tasks = TaskPool::new(load.per_task, under_way, outcome.clone());
        let (load, outcome, endings) = (load.clone(), outcome.clone(), endings.clone());
        workers.extend(LoadConnection { load, channel, direct, tasks, outcome, endings, in_flight, rate }.start());
    }
    Ok(workers)
}

impl LoadConnection {
    fn start(self) -> Vec<JoinHandle<()>> {
        match (self.load.mode, self.rate.zip(self.direct.clone())) {
            (Mode::Stream, _) => vec![tokio::spawn(stream::run(self))],
            (Mode::Unary, Some((rate, direct))) => vec![tokio::spawn(call::unary_at(self, direct, rate))],
            (Mode::Unary, None) => (0..self.in_flight).map(|_| tokio::spawn(call::unary(self.clone()))).collect(),
            (Mode::Batch, _) => {
                let calls = self.in_flight / limits::BATCH as u32;
                (0..calls).map(|_| tokio::spawn(call::batch(self.clone()))).collect()
            }
        }
    }

    async fn next(&self) -> Option<(TaskAssignment, pb::ExchangeRequest)> {
        let place = self.tasks.next().await?;
        Some(self.ask(place))
    }

    /// The next exchange, if it does not have to wait for a task to be opened.
    fn at_hand(&self) -> Option<(TaskAssignment, pb::ExchangeRequest)> {
        self.tasks.take().map(|place| self.ask(place))
    }

    fn ask(&self, place: TaskAssignment) -> (TaskAssignment, pb::ExchangeRequest) {
        let request = self.load.ask(&self.outcome, &place);
        (place, request)
    }

    /// Records that an exchange was answered or will never be.
    fn done(&self, sent: std::time::Instant, place: &TaskAssignment, answer: LoadAnswer) {
        let task = self.tasks.answered(place, &answer);
        if let Some(endings) = &self.endings {
            endings.answered(&self.channel, task.as_deref(), &answer);
        }
        self.outcome.done(sent, answer);
    }
}
