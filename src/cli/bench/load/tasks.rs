//! Open tasks, each for a number of exchanges. The next one is opened in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::Channel;

use super::super::world::Bench;
use super::Outcome;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::task_service_client::TaskServiceClient;

/// Pause before a task is asked for again where the server had no time for it.
const PAUSE: Duration = Duration::from_millis(20);

/// An open task.
pub struct Task {
    pub id: String,
    left: AtomicU32,
}

impl Task {
    /// One more was answered: whether that was the last one.
    pub fn answered(&self) -> bool {
        self.left.fetch_sub(1, Relaxed) == 1
    }
}

/// Gives them out.
pub struct Tasks {
    ready: tokio::sync::Mutex<mpsc::Receiver<String>>,
    current: Mutex<Option<(Arc<Task>, u32)>>,
    per_task: u32,
}

impl Tasks {
    /// For one connection.
    pub fn new(channel: Channel, per_task: u32, outcome: Arc<Outcome>) -> Arc<Tasks> {
        let (tell, ready) = mpsc::channel(4);
        tokio::spawn(open(channel, outcome, tell));
        Arc::new(Tasks { ready: tokio::sync::Mutex::new(ready), current: Mutex::new(None), per_task })
    }

    /// A task for one more exchange. `None`: there are no more.
    pub async fn next(&self) -> Option<Arc<Task>> {
        loop {
            if let Some(task) = self.take() {
                return Some(task);
            }
            let mut ready = self.ready.lock().await;
            if let Some(task) = self.take() {
                return Some(task);
            }
            let task = Arc::new(Task { id: ready.recv().await?, left: AtomicU32::new(self.per_task) });
            *self.current.lock() = Some((task, self.per_task));
        }
    }

    fn take(&self) -> Option<Arc<Task>> {
        let mut current = self.current.lock();
        let (task, left) = current.as_mut().filter(|(_, left)| *left > 0)?;
        *left -= 1;
        Some(task.clone())
    }
}

async fn open(channel: Channel, outcome: Arc<Outcome>, tell: mpsc::Sender<String>) {
    let mut client = TaskServiceClient::new(channel);
    while !outcome.stopped() {
        match client.open_task(terms()).await {
            Ok(opened) => {
                let id = opened.into_inner().task.map(|t| t.task_id).unwrap_or_default();
                if tell.send(id).await.is_err() {
                    return;
                }
            }
            Err(status) if status.code() == Code::ResourceExhausted => tokio::time::sleep(PAUSE).await,
            Err(status) => return outcome.wrong(format!("opening a task: {}", status.message())),
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
