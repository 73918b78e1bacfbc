//! The admission queue: exchanges wait for a bounded time, and an exchange that would wait longer is refused when it is read.
//!
//! Deciding takes nearly all of an exchange's CPU, without yielding. If the scheduler alone ordered the work, every exchange read would
//! queue with connections, health checks and refusals, and the queue would be bounded only by the connections' windows: seconds of work
//! that the callers have given up on. Therefore
//!
//! - the admitted exchanges that have not begun are counted as time: their number, multiplied by the recent duration of a decision, divided
//!   by the number of threads;
//! - beyond `limits::INTAKE_WAIT_MS` an exchange is refused without decoding it, which costs a fraction of deciding it;
//! - if exchanges wait, only `limits::INTAKE_TURN_US` of work per thread is handed to the scheduler at once, so that other ready work (a
//!   refusal, a connection, a health check) waits for that and not for the whole queue.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_base::system::{Stopwatch, thread_cpu_ns};

/// The upper bounds of the histogram classes of refusals, µs since the call was read. One more class lies above the last bound.
pub const REFUSED_WITHIN_US: [u64; 10] = [250, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000, 20_000, 50_000];

/// One decision in this many is measured.
const SAMPLED: usize = 8;

/// The admission queue.
pub struct AdmissionQueue {
    threads: u64,
    /// The smoothed CPU time of one decision, nanoseconds.
    cost_ns: AtomicU64,
    /// Admitted exchanges that have not begun.
    waiting: AtomicUsize,
    /// The number of decisions begun.
    begun: AtomicUsize,
    /// The µs of deciding that the scheduler may hold at once.
    turns: Arc<Semaphore>,
    refused: [AtomicU64; REFUSED_WITHIN_US.len() + 1],
}

/// The state of the queue.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct QueueLoad {
    /// Exchanges waiting in the queue.
    pub waiting: u64,
    /// The smoothed CPU time of a recent decision, nanoseconds.
    pub decision_ns: u64,
    /// Exchanges refused because they would have waited too long, by the classes of [`REFUSED_WITHIN_US`].
    pub refused: [u64; REFUSED_WITHIN_US.len() + 1],
}

impl AdmissionQueue {
    /// A queue for `threads` deciding threads.
    pub fn new(threads: usize) -> Arc<AdmissionQueue> {
        let threads = threads.max(1);
        let turns = Arc::new(Semaphore::new(threads * limits::INTAKE_TURN_US));
        let (cost_ns, waiting) = (AtomicU64::new(limits::INTAKE_DECISION_NS), AtomicUsize::new(0));
        Arc::new(AdmissionQueue {
            threads: threads as u64,
            cost_ns,
            waiting,
            begun: AtomicUsize::new(0),
            turns,
            refused: Default::default(),
        })
    }

    /// Admits exchanges that were just read, or refuses them for lack of time.
    pub fn take(self: &Arc<AdmissionQueue>, count: usize) -> Result<Ticket, Refusal> {
        let ahead = self.waiting.fetch_add(count, Relaxed);
        let mut taken = Ticket { intake: self.clone(), count, congested: false };
        let wait_us = self.wait_us(ahead);
        if wait_us > limits::INTAKE_WAIT_MS * 1_000 {
            let retry = Duration::from_millis(2 * limits::INTAKE_WAIT_MS);
            return Err(Refusal::limit("intake_wait_ms", limits::INTAKE_WAIT_MS, retry)
                .way_out("try another replica; if the overload lasts, the operator has to add cores or replicas"));
        }
        taken.congested = wait_us > limits::INTAKE_CROWD_US;
        Ok(taken)
    }

    /// Counts exchanges that were read at `read` and refused for lack of time.
    pub fn refused(&self, count: usize, read: Stopwatch) {
        let class = REFUSED_WITHIN_US.partition_point(|within| *within < read.us());
        if let Some(counted) = self.refused.get(class) {
            counted.fetch_add(count as u64, Relaxed);
        }
    }

    /// How many of `most` exchanges to decide as one batch, so that deciding them takes no longer than `limits::STREAM_ROUND_US`. Exchanges
    /// that will be refused are refused as one batch.
    pub fn batch_size(&self, most: usize) -> usize {
        let cost = self.cost_ns.load(Relaxed).max(1);
        if self.is_full() {
            return most;
        }
        usize::try_from(limits::STREAM_ROUND_US * 1_000 / cost).unwrap_or(most).clamp(1, most)
    }

    /// Whether the queue is full: an exchange that comes now would be refused.
    pub fn is_full(&self) -> bool {
        self.wait_us(self.waiting.load(Relaxed)) > limits::INTAKE_WAIT_MS * 1_000
    }

    fn wait_us(&self, ahead: usize) -> u64 {
        (ahead as u64).saturating_mul(self.cost_ns.load(Relaxed)) / 1_000 / self.threads
    }

    /// The state of the queue.
    pub fn load(&self) -> QueueLoad {
        let waiting = self.waiting.load(Relaxed) as u64;
        QueueLoad { waiting, decision_ns: self.cost_ns.load(Relaxed), refused: self.refused.each_ref().map(|n| n.load(Relaxed)) }
    }

    /// Whether to measure this decision. Only one of several is measured, since asking the kernel takes half a microsecond.
    fn samples(&self) -> bool {
        self.begun.fetch_add(1, Relaxed).is_multiple_of(SAMPLED)
    }

    /// Takes in a measured duration. After eight measurements a new duration has two thirds of the weight, which follows a changed policy
    /// fast enough.
    fn learn(&self, ns: u64) {
        let before = self.cost_ns.load(Relaxed);
        // Of two concurrent updates one may be lost, which does no harm.
        self.cost_ns.store((before * 7 + ns) / 8, Relaxed);
    }
}

/// Admitted exchanges. When dropped before their turn, they leave the queue.
pub struct Ticket {
    intake: Arc<AdmissionQueue>,
    count: usize,
    congested: bool,
}

impl Ticket {
    /// Merges two tickets, to be decided as one batch.
    pub fn with(mut self, other: Option<Ticket>) -> Ticket {
        if let Some(mut other) = other {
            self.count += std::mem::take(&mut other.count);
            self.congested |= other.congested;
        }
        self
    }

    /// Waits for the turn and then polls `exchange`. All of the deciding happens in its first poll; later polls wait for others.
    pub async fn run<F: Future>(self, exchange: F) -> F::Output {
        let place = if self.congested { self.turn().await } else { None };
        let mut first = Some((self, place));
        let mut exchange = pin!(exchange);
        std::future::poll_fn(move |cx| {
            let Some((taken, _place)) = first.take() else { return exchange.as_mut().poll(cx) };
            let before = taken.intake.samples().then(thread_cpu_ns);
            let polled = exchange.as_mut().poll(cx);
            if let Some(before) = before {
                taken.intake.learn(thread_cpu_ns().saturating_sub(before) / taken.count.max(1) as u64);
            }
            polled
        })
        .await
    }

    /// Waits in first-come order; each ticket takes as many permits as its expected µs.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let us = self.count as u64 * self.intake.cost_ns.load(Relaxed) / 1_000;
        let places = u32::try_from(us).unwrap_or(u32::MAX).clamp(1, limits::INTAKE_TURN_US as u32);
        // The semaphore is never closed.
        let place = self.intake.turns.clone().acquire_many_owned(places).await.ok();
        // Other ready tasks run first, so that calls read in the meantime are refused or admitted before this decision.
        tokio::task::yield_now().await;
        place
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.intake.waiting.fetch_sub(self.count, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::refusal::Reason;

    fn intake(cost_ns: u64) -> Arc<AdmissionQueue> {
        let intake = AdmissionQueue::new(2);
        intake.cost_ns.store(cost_ns, Relaxed);
        intake
    }

    #[test]
    fn what_would_wait_too_long_is_refused_and_what_is_dropped_makes_room() {
        // One millisecond per decision on two threads: twice as many fit as the bound has milliseconds.
        let intake = intake(1_000_000);
        let fit = 2 * limits::INTAKE_WAIT_MS as usize;
        let mut all: Vec<Ticket> = (0..=fit).map(|_| intake.take(1).ok().unwrap()).collect();
        let no = intake.take(1).err().unwrap();
        assert_eq!((no.reason, no.rule.as_deref()), (Reason::LimitReached, Some("intake_wait_ms")));
        assert!(no.retry_after.is_some());
        intake.refused(1, Stopwatch::start());
        assert_eq!(intake.load().refused.iter().sum::<u64>(), 1);
        all.pop();
        assert!(intake.take(1).is_ok());
        drop(all);
        assert_eq!(intake.load().waiting, 0);
    }

    #[tokio::test]
    async fn a_decision_is_in_the_first_poll_and_what_comes_after_holds_no_place() {
        let intake = intake(1_000_000);
        let taken = intake.take(1).ok().unwrap();
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let waits = tokio::spawn(taken.run(async move { told.await.is_ok() }));
        while intake.load().waiting > 0 {
            tokio::task::yield_now().await;
        }
        assert!(intake.load().decision_ns < 1_000_000, "it learnt that deciding is quick");
        tell.send(()).unwrap();
        assert!(waits.await.unwrap());
    }

    #[tokio::test]
    async fn in_a_crowd_who_came_first_goes_first_and_others_go_between() {
        let intake = intake(limits::INTAKE_CROWD_US * 1_000);
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let tickets: Vec<_> = (0..20usize)
            .map(|n| {
                let (taken, order) = (intake.take(1).ok().unwrap(), order.clone());
                tokio::spawn(taken.run(async move { order.lock().push(n) }))
            })
            .collect();
        let seen = order.clone();
        let other = tokio::spawn(async move { seen.lock().len() });
        assert!(other.await.unwrap() < 10, "who is ready does not wait for the whole tickets");
        for one in tickets {
            one.await.unwrap();
        }
        // Two are handed to the scheduler at once, so one may be a step ahead of the other.
        let order = order.lock();
        assert!(order.iter().enumerate().all(|(place, n)| place.abs_diff(*n) <= 2), "{order:?}");
    }

    #[test]
    fn a_round_is_as_long_as_it_may_take() {
        assert_eq!(intake(1).batch_size(16), 16);
        assert_eq!(intake(limits::STREAM_ROUND_US * 1_000 / 2).batch_size(16), 2);
        assert_eq!(intake(u64::MAX / 16).batch_size(16), 1);
    }
}
