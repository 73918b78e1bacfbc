//! SIGKILL at each step, one by one. The upstream holds the call that marks the step until the server is dead.

use std::sync::Mutex;

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt;
use tonic::Status;

use super::rig::{REPLACE, Rig, SAME, exchange, revoke, wanted};
use super::upstream::When;

/// From the request to the answer, in this order.
const MAKING: [(&str, When); 7] = [
    // Before the lease's commit.
    ("NAME", When::Before),
    // The lease is durable; nobody was told.
    ("OPENED", When::Before),
    // Told, but nothing was asked of the upstream yet.
    ("ABOUT", When::Before),
    // Asked, but not made: it is made when the server is dead.
    ("MAKE", When::Before),
    // Made, but not answered.
    ("MAKE", When::After),
    // Answered; the issuance is not committed.
    ("MADE", When::Before),
    // The issuance is durable; its caller has no answer.
    ("ISSUED", When::Before),
];

/// From the end of a credential to the end of its lease.
const UNDOING: [(&str, When); 5] = [
    // Not deleted: it is deleted when the server is dead.
    ("DROP", When::Before),
    // Deleted, but not answered.
    ("DROP", When::After),
    // Deleted, but not checked.
    ("HAS", When::Before),
    // Gone, but not answered: the end is not recorded.
    ("HAS", When::After),
    // Recorded.
    ("CLOSED", When::Before),
];

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Runs several lives at once, because most of each is waiting.
fn in_turns<T: Sync>(all: &[T], life: impl Fn(&T) + Sync) {
    let next = Mutex::new(all.iter());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some(one) = next.lock().unwrap().next() else { return };
                    life(one);
                }
            });
        }
    });
}

/// A rig with a task and one credential that was acknowledged.
struct Life {
    rig: Rig,
    runtime: Runtime,
    task: String,
    first: pb::Issued,
}

type Asked = tokio::task::JoinHandle<Result<pb::Issued, Status>>;

impl Life {
    fn new() -> Life {
        let (rig, runtime) = (Rig::new(true), runtime());
        let (task, first) = runtime.block_on(async {
            let task = rig.open().await;
            let first = rig.exchange(wanted(&task, SAME, "first")).await.unwrap();
            (task, first)
        });
        assert_eq!(first.novelty(), pb::Novelty::New);
        Life { rig, runtime, task, first }
    }

    /// Sends the request without waiting for the answer.
    fn ask(&self, kind: pb::CredentialKind, request_id: &str) -> Asked {
        let agent = self.runtime.block_on(self.rig.agent());
        self.runtime.spawn(exchange(agent, wanted(&self.task, kind, request_id)))
    }

    /// Waits for the step, and kills the server there.
    fn kill_at(&mut self, (word, when): (&str, When), act: impl FnOnce(&Life)) {
        self.rig.upstream.hold(word, when);
        act(self);
        self.rig.upstream.wait_held();
        self.rig.kill();
    }

    /// Starts the server again. Afterwards everything alive has an owner, and everything acknowledged is still there.
    fn back(&mut self, what: &str) -> std::collections::BTreeSet<String> {
        self.rig.start();
        let active = self.runtime.block_on(self.rig.settled(what));
        assert!(active.contains(&self.first.credential_id), "{what}: what was acknowledged is gone");
        active
    }

    /// The same request once more.
    fn repeat(&self, kind: pb::CredentialKind, request_id: &str) -> pb::Issued {
        self.runtime.block_on(self.rig.exchange(wanted(&self.task, kind, request_id))).unwrap()
    }

    fn settled(&self, what: &str) -> std::collections::BTreeSet<String> {
        self.runtime.block_on(self.rig.settled(what))
    }

    fn end(self, what: &str) {
        self.runtime.block_on(self.rig.ends_clean(&self.task, what));
    }
}

#[test]
fn killed_at_each_step_of_making_it_leaves_what_was_acknowledged_and_no_orphan() {
    in_turns(&MAKING, |step| {
        let what = format!("killed at {step:?}");
        let mut life = Life::new();
        let mut asked = None;
        life.kill_at(*step, |life| asked = Some(life.ask(SAME, "second")));
        assert!(life.runtime.block_on(asked.unwrap()).unwrap().is_err(), "{what}: it was not acknowledged");
        let active = life.back(&what);
        let again = life.repeat(SAME, "second");
        if step.0 == "ISSUED" {
            assert_eq!(active.len(), 2, "{what}: it was durable");
            assert!(active.contains(&again.credential_id), "{what}");
            assert_eq!(again.novelty(), pb::Novelty::Same, "{what}");
        } else {
            assert_eq!(active.len(), 1, "{what}");
            assert_eq!(again.novelty(), pb::Novelty::New, "{what}");
        }
        assert_eq!(life.settled(&what).len(), 2, "{what}");
        let same = life.repeat(SAME, "first");
        assert_eq!((same.credential_id, same.novelty), (life.first.credential_id.clone(), pb::Novelty::Same.into()), "{what}");
        assert_eq!(same.answer, life.first.answer, "{what}");
        life.end(&what);
    });
}

#[test]
fn killed_at_each_step_of_undoing_what_was_revoked_it_is_undone_all_the_same() {
    in_turns(&UNDOING, |step| {
        let what = format!("revoked, killed at {step:?}");
        let mut life = Life::new();
        let second = life.repeat(SAME, "second");
        life.kill_at(*step, |life| {
            let operator = life.runtime.block_on(life.rig.operator());
            life.runtime.block_on(revoke(operator, &second.credential_id)).unwrap();
        });
        let active = life.back(&what);
        assert_eq!(active.len(), 1, "{what}: only the one that was not revoked");
        life.end(&what);
    });
}

#[test]
fn killed_at_each_step_of_undoing_what_was_left_behind_it_is_undone_all_the_same() {
    let barred = [("BARRED", When::Before)];
    in_turns(&[&barred[..], &UNDOING].concat(), |step| {
        let what = format!("left behind, killed at {step:?}");
        let mut life = Life::new();
        let mut asked = None;
        life.kill_at(("MADE", When::Before), |life| asked = Some(life.ask(SAME, "second")));
        assert!(life.runtime.block_on(asked.unwrap()).unwrap().is_err());
        life.rig.upstream.hold(step.0, step.1);
        life.rig.start();
        life.rig.upstream.wait_held();
        life.rig.kill();
        assert_eq!(life.back(&what).len(), 1, "{what}");
        life.end(&what);
    });
}

#[test]
fn killed_at_each_step_of_a_task_that_ends_nothing_of_it_is_left() {
    in_turns(&UNDOING, |step| {
        let what = format!("completed, killed at {step:?}");
        let mut life = Life::new();
        life.repeat(REPLACE, "second");
        let task = life.task.clone();
        life.kill_at(*step, |life| life.runtime.block_on(life.rig.complete(&task)));
        life.rig.start();
        assert_eq!(life.settled(&what).len(), 0, "{what}");
        assert!(life.rig.upstream.alive().is_empty());
    });
}

#[test]
fn killed_at_each_step_of_a_repeat_that_replaces_one_is_left() {
    let before = [("AGAIN", When::Before)];
    in_turns(&[&before[..], &MAKING, &UNDOING].concat(), |step| {
        let what = format!("replacing, killed at {step:?}");
        let mut life = Life::new();
        let second = life.repeat(REPLACE, "second");
        let mut asked = None;
        life.kill_at(*step, |life| asked = Some(life.ask(REPLACE, "second")));
        let told = life.runtime.block_on(asked.unwrap()).unwrap();
        let active = life.back(&what);
        assert_eq!(active.len(), 2, "{what}: the first, and one of the second request");
        let replaced = UNDOING.contains(step) || step.0 == "ISSUED";
        assert_eq!(active.contains(&second.credential_id), !replaced, "{what}");
        if let Ok(told) = told {
            assert!(active.contains(&told.credential_id), "{what}: what was acknowledged is gone");
            assert_eq!(told.novelty(), pb::Novelty::Replaced, "{what}");
        }
        let third = life.repeat(REPLACE, "second");
        assert_eq!(third.novelty(), pb::Novelty::Replaced, "{what}");
        let now = life.settled(&what);
        assert!(now.len() == 2 && now.contains(&third.credential_id), "{what}");
        life.end(&what);
    });
}

#[test]
fn a_stream_that_goes_away_while_something_is_made_leaves_nothing_of_it() {
    let life = Life::new();
    let agent = life.runtime.block_on(life.rig.agent());
    life.rig.upstream.hold("MAKE", When::After);
    let ask = pb::stream_exchange_request::Ask::Exchange(wanted(&life.task, SAME, "on a stream"));
    let stream = life.runtime.block_on(async {
        let asks = tokio_stream::iter([pb::StreamExchangeRequest { ask: Some(ask) }]).chain(tokio_stream::pending());
        TokenServiceClient::new(agent).stream_exchange(asks).await.unwrap()
    });
    life.rig.upstream.wait_held();
    assert_eq!(life.rig.upstream.alive().len(), 2);
    drop(stream);
    // Undone while the answer to its creation is still held.
    life.rig.upstream.wait_until_alive(1);
    life.rig.upstream.release();
    assert_eq!(life.settled("the stream is gone").len(), 1);
    life.end("the stream is gone");
}
