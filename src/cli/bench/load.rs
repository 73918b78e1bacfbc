//! The load: exchanges with a tool, purpose and arguments of their own, a hundred to a task.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::world::Bench;
use super::{BenchArgs, BenchKind, Failed, Mode};
use crate::ledger::commit::sha256;
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::task_service_client::TaskServiceClient;
use crate::pb::mayfly::v1::token_service_client::TokenServiceClient;

/// What came of it so far.
pub struct Outcome {
    issued: AtomicU64,
    errors: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    first_error: Mutex<Option<String>>,
    stop: AtomicBool,
    number: AtomicU64,
}

impl Outcome {
    /// Nothing yet.
    pub fn new() -> Result<Arc<Outcome>, Failed> {
        let latency = Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?);
        let zero = || AtomicU64::new(0);
        let (issued, errors, number) = (zero(), zero(), zero());
        Ok(Arc::new(Outcome { issued, errors, latency, first_error: Mutex::new(None), stop: AtomicBool::new(false), number }))
    }

    /// Issued and failed so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.issued.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed))
    }

    /// The latencies so far, taken out: the warm-up's are thrown away.
    pub fn take_latency(&self) -> Result<Histogram<u64>, Failed> {
        Ok(std::mem::replace(&mut *self.latency.lock(), Histogram::new_with_bounds(1, 60_000_000, 3)?))
    }

    /// What went wrong first.
    pub fn first_error(&self) -> Option<String> {
        self.first_error.lock().clone()
    }

    /// Nothing more is sent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn done(&self, sent: Instant, error: Option<String>) {
        match error {
            None => {
                self.issued.fetch_add(1, Ordering::Relaxed);
                let us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.latency.lock().saturating_record(us);
            }
            Some(error) => {
                // What was under way at the end is no error.
                if !self.stopped() {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    self.first_error.lock().get_or_insert(error);
                }
            }
        }
    }
}

/// Gives out the ids of open tasks, each for a number of exchanges. The next one is opened in the background.
struct Tasks {
    ready: tokio::sync::Mutex<mpsc::Receiver<String>>,
    current: Mutex<(String, u32)>,
    per_task: u32,
}

impl Tasks {
    async fn new(channel: Channel, per_task: u32, outcome: Arc<Outcome>) -> Result<Arc<Tasks>, Failed> {
        let (tell, ready) = mpsc::channel(4);
        let mut client = TaskServiceClient::new(channel);
        tokio::spawn(async move {
            while !outcome.stopped() {
                match client.open_task(terms()).await {
                    Ok(opened) => {
                        let id = opened.into_inner().task.map(|t| t.task_id).unwrap_or_default();
                        if tell.send(id).await.is_err() {
                            return;
                        }
                    }
                    Err(status) => {
                        outcome.first_error.lock().get_or_insert(format!("opening a task: {}", status.message()));
                        return;
                    }
                }
            }
        });
        Ok(Arc::new(Tasks { ready: tokio::sync::Mutex::new(ready), current: Mutex::new((String::new(), 0)), per_task }))
    }

    async fn next(&self) -> Option<String> {
        loop {
            {
                let mut current = self.current.lock();
                if current.1 > 0 {
                    current.1 -= 1;
                    return Some(current.0.clone());
                }
            }
            let mut ready = self.ready.lock().await;
            if self.current.lock().1 > 0 {
                continue;
            }
            let id = ready.recv().await?;
            *self.current.lock() = (id, self.per_task);
        }
    }
}

fn terms() -> pb::OpenTaskRequest {
    let terms = pb::TaskTerms {
        purpose: "a measurement".into(),
        upstreams: vec![pb::Allowance { upstream: Bench::upstream(), scopes: vec!["read".into(), "list".into()] }],
        any_tool: true,
        ..Default::default()
    };
    pb::OpenTaskRequest { terms: Some(terms), ..Default::default() }
}

fn ask(args: &BenchArgs, task: String, n: u64) -> pb::ExchangeRequest {
    let digest = sha256(&n.to_be_bytes());
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task)),
        upstream: Bench::upstream(),
        scopes: vec!["read".into()],
        kind: match args.kind {
            BenchKind::Jwt => pb::CredentialKind::Jwt,
            BenchKind::Reference => pb::CredentialKind::Reference,
        }
        .into(),
        tool: format!("tool_{n}"),
        purpose: format!("measure number {n}"),
        arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Sha256(digest.to_vec().into())) }),
        request_id: if args.mode == Mode::Stream { format!("{n:x}") } else { String::new() },
        ..Default::default()
    }
}

/// Starts the load on the connections.
#[allow(clippy::disallowed_methods, reason = "a measurement")]
pub async fn start(args: &BenchArgs, bench: &Bench, outcome: &Arc<Outcome>) -> Result<Vec<tokio::task::JoinHandle<()>>, Failed> {
    let mut workers = Vec::new();
    let each = args.concurrency.div_ceil(args.connections).max(1);
    let connections = args.connections.min(args.concurrency);
    for n in 0..connections {
        let channel = bench.world.channel(&Bench::agent(n), bench.address).await?;
        let tasks = Tasks::new(channel.clone(), args.per_task, outcome.clone()).await?;
        let one = One {
            channel,
            tasks,
            outcome: outcome.clone(),
            mode: args.mode,
            in_flight: each,
            rate: args.rate.map(|r| f64::from(r) / f64::from(connections)),
        };
        let ask = AskFn(Arc::new({
            let template = BenchArgs {
                mode: args.mode,
                kind: args.kind,
                engine: args.engine,
                concurrency: 0,
                connections: 0,
                seconds: Duration::ZERO,
                rate: None,
                per_task: args.per_task,
                json: false,
                running: None,
                dir: None,
            };
            move |task, n| ask(&template, task, n)
        }));
        workers.extend(one.start(&ask));
    }
    Ok(workers)
}

#[derive(Clone)]
struct AskFn(Arc<dyn Fn(String, u64) -> pb::ExchangeRequest + Send + Sync>);

struct One {
    channel: Channel,
    tasks: Arc<Tasks>,
    outcome: Arc<Outcome>,
    mode: Mode,
    in_flight: u32,
    rate: Option<f64>,
}

impl One {
    fn start(self, ask: &AskFn) -> Vec<tokio::task::JoinHandle<()>> {
        match (self.mode, self.rate) {
            (Mode::Stream, _) => vec![tokio::spawn(self.stream(ask.clone()))],
            (Mode::Unary, Some(rate)) => vec![tokio::spawn(self.open_unary(ask.clone(), rate))],
            (Mode::Unary, None) => (0..self.in_flight).map(|_| tokio::spawn(self.share().unary(ask.clone()))).collect(),
            (Mode::Batch, _) => {
                let calls = self.in_flight.div_ceil(limits::BATCH as u32).max(1);
                (0..calls).map(|_| tokio::spawn(self.share().batch(ask.clone()))).collect()
            }
        }
    }

    fn share(&self) -> One {
        One {
            channel: self.channel.clone(),
            tasks: self.tasks.clone(),
            outcome: self.outcome.clone(),
            mode: self.mode,
            in_flight: self.in_flight,
            rate: self.rate,
        }
    }

    async fn next(&self, ask: &AskFn) -> Option<(u64, pb::ExchangeRequest)> {
        let n = self.outcome.number.fetch_add(1, Ordering::Relaxed);
        Some((n, (ask.0)(self.tasks.next().await?, n)))
    }

    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn unary(self, ask: AskFn) {
        let mut client = TokenServiceClient::new(self.channel.clone());
        while !self.outcome.stopped() {
            let Some((_, request)) = self.next(&ask).await else { return };
            let sent = Instant::now();
            let answer = client.exchange(request).await;
            self.outcome.done(sent, answer.err().map(|s| s.message().to_owned()));
        }
    }

    /// Sent at their time; latency counts from then, also where the generator was late.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn open_unary(self, ask: AskFn, rate: f64) {
        let one = Arc::new(self);
        let began = Instant::now();
        let mut count = 0u32;
        while !one.outcome.stopped() {
            let due = began + Duration::from_secs_f64(f64::from(count) / rate);
            count += 1;
            tokio::time::sleep_until(due.into()).await;
            let Some((_, request)) = one.next(&ask).await else { return };
            let one = one.clone();
            tokio::spawn(async move {
                let answer = TokenServiceClient::new(one.channel.clone()).exchange(request).await;
                one.outcome.done(due, answer.err().map(|s| s.message().to_owned()));
            });
        }
    }

    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn batch(self, ask: AskFn) {
        let mut client = TokenServiceClient::new(self.channel.clone());
        while !self.outcome.stopped() {
            let mut exchanges = Vec::with_capacity(limits::BATCH);
            for _ in 0..limits::BATCH {
                let Some((_, request)) = self.next(&ask).await else { return };
                exchanges.push(request);
            }
            let sent = Instant::now();
            match client.batch_exchange(pb::BatchExchangeRequest { exchanges, all_or_nothing: false }).await {
                Ok(answer) => {
                    for result in answer.into_inner().results {
                        let error = match result.result {
                            Some(pb::exchange_result::Result::Issued(_)) => None,
                            Some(pb::exchange_result::Result::Problem(p)) => Some(p.message),
                            None => Some("an empty result".to_owned()),
                        };
                        self.outcome.done(sent, error);
                    }
                }
                Err(status) => self.outcome.done(sent, Some(status.message().to_owned())),
            }
        }
    }

    /// A closed loop sends the next when an answer comes; an open one at its time.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn stream(self, ask: AskFn) {
        let (send, asks) = mpsc::channel(self.in_flight as usize);
        let mut client = TokenServiceClient::new(self.channel.clone());
        let under_way: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let answers = match client.stream_exchange(ReceiverStream::new(asks)).await {
            Ok(answers) => answers,
            Err(status) => return self.outcome.done(Instant::now(), Some(status.message().to_owned())),
        };
        let mut answers = answers.into_inner();
        let one = Arc::new(self);
        if let Some(rate) = one.rate {
            tokio::spawn(one.clone().pace(ask.clone(), rate, send.clone(), under_way.clone()));
        } else {
            for _ in 0..one.in_flight {
                if !one.clone().send(&ask, &send, &under_way, None).await {
                    return;
                }
            }
        }
        loop {
            let answer = match answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return,
                Err(status) => return one.outcome.done(Instant::now(), Some(status.message().to_owned())),
            };
            let sent = under_way.lock().remove(&answer.request_id).unwrap_or_else(Instant::now);
            let error = match answer.result {
                Some(pb::stream_exchange_response::Result::Issued(_)) => None,
                Some(pb::stream_exchange_response::Result::Problem(p)) => Some(p.message),
                None => Some("an empty result".to_owned()),
            };
            one.outcome.done(sent, error);
            if one.outcome.stopped() {
                return;
            }
            if one.rate.is_none() && !one.clone().send(&ask, &send, &under_way, None).await {
                return;
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn send(
        self: Arc<Self>,
        ask: &AskFn,
        send: &mpsc::Sender<pb::StreamExchangeRequest>,
        under_way: &Mutex<HashMap<String, Instant>>,
        due: Option<Instant>,
    ) -> bool {
        let Some((_, request)) = self.next(ask).await else { return false };
        under_way.lock().insert(request.request_id.clone(), due.unwrap_or_else(Instant::now));
        let message = pb::StreamExchangeRequest { ask: Some(pb::stream_exchange_request::Ask::Exchange(request)) };
        send.send(message).await.is_ok()
    }

    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn pace(
        self: Arc<Self>,
        ask: AskFn,
        rate: f64,
        send: mpsc::Sender<pb::StreamExchangeRequest>,
        under_way: Arc<Mutex<HashMap<String, Instant>>>,
    ) {
        let began = Instant::now();
        let mut count = 0u32;
        while !self.outcome.stopped() {
            let due = began + Duration::from_secs_f64(f64::from(count) / rate);
            count += 1;
            tokio::time::sleep_until(due.into()).await;
            if !self.clone().send(&ask, &send, &under_way, Some(due)).await {
                return;
            }
        }
    }
}
