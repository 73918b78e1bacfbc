//! Tasks, each for a number of exchanges. The first exchange opens its task in the same round trip, and the next task is opened before it
//! is needed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::super::world::BenchServer;
use super::{LoadAnswer, LoadStats};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::exchange_request::Task as Named;

/// How often a wait for a task checks whether the load has stopped.
const LOOK: Duration = Duration::from_millis(100);

/// An open task.
pub struct LoadTask {
    pub id: String,
    left: AtomicU32,
}

impl LoadTask {
    /// Counts one more answer. Returns whether it was the last of the task.
    pub fn answered(&self) -> bool {
        self.left.fetch_sub(1, Relaxed) == 1
    }
}

/// The task of an exchange.
#[derive(Clone)]
pub enum TaskAssignment {
    /// The exchange belongs to an open task.
    In(Arc<LoadTask>),
    /// The exchange opens its task inline.
    Opens,
}

impl TaskAssignment {
    /// How the request names the task.
    pub fn named(&self) -> Named {
        match self {
            TaskAssignment::In(task) => Named::TaskId(task.id.clone()),
            TaskAssignment::Opens => Named::OpenTask(terms()),
        }
    }
}

/// Assigns tasks to exchanges.
pub struct TaskPool {
    /// Exchanges per task.
    per_task: u32,
    /// The number of tasks that are open or being opened beside the current one.
    ahead: usize,
    open: Mutex<Open>,
    changed: Notify,
    outcome: Arc<LoadStats>,
}

#[derive(Default)]
struct Open {
    /// The current task, and the number of exchanges that it still takes.
    current: Option<(Arc<LoadTask>, u32)>,
    next: VecDeque<Arc<LoadTask>>,
    opening: usize,
}

impl TaskPool {
    /// Creates the tasks of one connection with `under_way` exchanges in flight.
    pub fn new(per_task: u32, under_way: u32, outcome: Arc<LoadStats>) -> Arc<TaskPool> {
        let ahead = under_way.div_ceil(per_task) as usize + 1;
        Arc::new(TaskPool { per_task, ahead, open: Mutex::default(), changed: Notify::new(), outcome })
    }

    /// The place of the next exchange, which may have to wait for a task. `None`: the load has stopped.
    pub async fn next(&self) -> Option<TaskAssignment> {
        while !self.outcome.stopped() {
            let changed = self.changed.notified();
            if let Some(place) = self.take() {
                return Some(place);
            }
            let _ = timeout(LOOK, changed).await;
        }
        None
    }

    /// The place of the next exchange, if one is available without waiting.
    pub fn take(&self) -> Option<TaskAssignment> {
        let mut open = self.open.lock();
        if self.per_task == 1 || open.next.len() + open.opening < self.ahead {
            open.opening += 1;
            return Some(TaskAssignment::Opens);
        }
        if open.current.as_ref().is_none_or(|(_, left)| *left == 0) {
            // The exchange that opened the task counts as its first.
            open.current = Some((open.next.pop_front()?, self.per_task - 1));
        }
        let (task, left) = open.current.as_mut()?;
        *left -= 1;
        Some(TaskAssignment::In(task.clone()))
    }

    /// Handles the answer to an exchange. Returns the task of the exchange, if there is one.
    pub fn answered(&self, place: &TaskAssignment, answer: &LoadAnswer) -> Option<Arc<LoadTask>> {
        if let TaskAssignment::In(task) = place {
            return Some(task.clone());
        }
        let opened = match answer {
            LoadAnswer::Issued { task, .. } => Some(Arc::new(LoadTask { id: task.clone(), left: AtomicU32::new(self.per_task) })),
            // Another exchange opens the task.
            LoadAnswer::Refused(_) | LoadAnswer::Failed(_) => None,
        };
        let mut open = self.open.lock();
        open.opening -= 1;
        if self.per_task > 1 {
            open.next.extend(opened.clone());
        }
        drop(open);
        self.changed.notify_waiters();
        opened
    }
}

fn terms() -> pb::TaskTerms {
    pb::TaskTerms {
        purpose: "a measurement".into(),
        upstreams: vec![pb::Allowance { upstream: BenchServer::upstream(), scopes: vec!["read".into(), "list".into()] }],
        any_tool: true,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(task: &str) -> LoadAnswer {
        LoadAnswer::Issued { credential: "cred".into(), task: task.into() }
    }

    #[tokio::test]
    async fn each_task_has_its_number_of_exchanges_with_the_one_that_opened_it() {
        for per_task in [1, 2, 3, 100] {
            let tasks = TaskPool::new(per_task, 7, LoadStats::new().unwrap());
            let (mut opened, mut ended) = (0, 0);
            for _ in 0..10 * per_task {
                let place = tasks.next().await.unwrap();
                if matches!(place, TaskAssignment::Opens) {
                    opened += 1;
                }
                ended += usize::from(tasks.answered(&place, &issued(&opened.to_string())).unwrap().answered());
            }
            let under_way = tasks.open.lock().next.len() + 1;
            assert!(opened <= 10 + under_way && ended + under_way >= 10, "{per_task}: {opened} opened, {ended} ended");
            assert!(under_way <= tasks.ahead + 1);
        }
    }

    #[tokio::test]
    async fn what_was_refused_opens_nothing_and_another_one_does() {
        let tasks = TaskPool::new(100, 1, LoadStats::new().unwrap());
        for _ in 0..5 {
            let places = [tasks.next().await.unwrap(), tasks.next().await.unwrap()];
            for place in places {
                assert!(matches!(place, TaskAssignment::Opens));
                assert!(tasks.answered(&place, &LoadAnswer::Refused(None)).is_none());
            }
        }
        // All tasks that may be opened ahead are being opened: the next caller waits until one is open or the load stops.
        let places = [tasks.next().await.unwrap(), tasks.next().await.unwrap()];
        let waits = tokio::spawn({
            let tasks = tasks.clone();
            async move { tasks.next().await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        tasks.answered(&places[0], &issued("t"));
        assert!(matches!(waits.await.unwrap(), Some(TaskAssignment::In(task)) if task.id == "t"));
        assert!(matches!(tasks.take(), Some(TaskAssignment::Opens)), "it is in use, so the next one is opened");
        tasks.outcome.stop();
        assert!(tasks.next().await.is_none());
    }
}
