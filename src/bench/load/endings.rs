//! Revocations and completions during the load, as in production: an operator revokes some of the credentials, and tasks are completed when
//! their work is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc};
use tonic::Status;
use tonic::transport::Channel;

use super::super::BenchError;
use super::super::world::BenchServer;
use super::tasks::LoadTask;
use super::{LoadAnswer, LoadStats, micros};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly_proto::mayfly::v1::task_service_client::TaskServiceClient;

/// The maximum number of revocations, and of completions, in flight.
const UNDER_WAY: usize = 64;

/// Revokes credentials and completes tasks.
#[derive(Clone)]
pub struct Endings {
    share: f64,
    answered: Arc<AtomicU64>,
    revoke: mpsc::UnboundedSender<String>,
    complete: mpsc::UnboundedSender<(Channel, String)>,
}

impl Endings {
    /// Starts revoking `percent` of the issued credentials, as the operator of the local socket.
    pub async fn start(percent: f64, bench: &BenchServer, outcome: &Arc<LoadStats>) -> Result<Endings, BenchError> {
        let operator = bench.operator().await?.ok_or("endings need the server's socket for operators")?;
        let (tell, mut to_revoke) = mpsc::unbounded_channel::<String>();
        let (complete, mut to_complete) = mpsc::unbounded_channel::<(Channel, String)>();
        let (told, places) = (outcome.clone(), Arc::new(Semaphore::new(UNDER_WAY)));
        tokio::spawn(async move {
            while let (Some(id), Ok(place)) = (to_revoke.recv().await, places.clone().acquire_owned().await) {
                let (operator, told) = (operator.clone(), told.clone());
                tokio::spawn(async move {
                    let _place = place;
                    let sent = Instant::now();
                    match revoke(operator, id).await {
                        Ok(()) => told.revoked(micros(sent)),
                        Err(status) => told.wrong(format!("revoking: {}", status.message())),
                    }
                });
            }
        });
        let (told, places) = (outcome.clone(), Arc::new(Semaphore::new(UNDER_WAY)));
        tokio::spawn(async move {
            while let (Some((channel, id)), Ok(place)) = (to_complete.recv().await, places.clone().acquire_owned().await) {
                let told = told.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let request = pb::CompleteTaskRequest { task_id: id, reason: "done".into() };
                    match TaskServiceClient::new(channel).complete_task(request).await {
                        Ok(_) => told.completed(),
                        Err(status) => told.wrong(format!("completing a task: {}", status.message())),
                    }
                });
            }
        });
        Ok(Endings { share: percent / 100.0, answered: Arc::default(), revoke: tell, complete })
    }

    /// Takes note of an answered exchange.
    pub fn answered(&self, channel: &Channel, task: Option<&LoadTask>, answer: &LoadAnswer) {
        if let LoadAnswer::Issued { credential: id, .. } = answer {
            let n = self.answered.fetch_add(1, Relaxed) as f64;
            if ((n + 1.0) * self.share).floor() > (n * self.share).floor() {
                let _ = self.revoke.send(id.clone());
            }
        }
        if let Some(task) = task.filter(|task| task.answered()) {
            let _ = self.complete.send((channel.clone(), task.id.clone()));
        }
    }
}

/// Revokes one credential as an operator, and waits until the revocation is durable.
pub async fn revoke(operator: Channel, id: String) -> Result<(), Status> {
    let target = pb::Target { target: Some(pb::target::Target::CredentialId(id)) };
    let request = pb::RevokeRequest { targets: vec![target], reason: "a measurement".into(), ..Default::default() };
    RevocationServiceClient::new(operator).revoke(request).await.map(|_| ())
}
