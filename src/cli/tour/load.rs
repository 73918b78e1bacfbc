//! The load during the tour's kill of the server: consecutive exchanges, and the tokens of those that were acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tonic::transport::Channel;

use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::token_service_client::TokenServiceClient;

/// Workers that exchange until they are stopped or the server is gone.
pub struct TourLoad {
    acknowledged: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl TourLoad {
    /// Starts `workers` workers.
    pub fn start(channel: &Channel, task: &str, workers: usize) -> TourLoad {
        let (acknowledged, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let workers = (0..workers).map(|n| {
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            let (mut client, task) = (TokenServiceClient::new(channel.clone()), task.to_owned());
            tokio::spawn(async move {
                let mut count = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    let ask = exchange(&task, &format!("load-{n}-{count}"));
                    match client.exchange(ask).await {
                        Ok(answer) => acknowledged.lock().extend(token_of(answer.into_inner().issued)),
                        Err(_) => return,
                    }
                }
            })
        });
        let workers = workers.collect();
        TourLoad { acknowledged, stop, workers }
    }

    /// The number of acknowledged exchanges so far.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().len()
    }

    /// Stops the workers and returns the issued tokens.
    pub async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            let _ = worker.await;
        }
        std::mem::take(&mut *self.acknowledged.lock())
    }
}

/// An exchange for the upstream `echo`.
pub fn exchange(task: &str, purpose: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.to_owned())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        purpose: purpose.to_owned(),
        ..Default::default()
    }
}

/// The token of an answer.
pub fn token_of(issued: Option<pb::Issued>) -> Option<String> {
    match issued?.answer? {
        pb::issued::Answer::BearerToken(bearer) => Some(bearer.token.clone()),
        _ => None,
    }
}
