//! How much is taken in: exchanges wait their turn for a bounded time, and what would wait longer is refused when it is read.
//!
//! Deciding is nearly all of an exchange's CPU, and it happens in one go. Left to the scheduler, everything that was read would wait in one
//! line with everything else that the threads have to do, connections, health and refusals too, and the line would have no bound but that
//! of the connections' windows: seconds of work that its callers have given up on. So
//!
//! - what is taken in and not begun is counted, in time: so many decisions, each as long as they lately were, on so many threads;
//! - beyond `limits::INTAKE_WAIT_MS` an exchange is refused unread, which costs a fraction of deciding it;
//! - where there is a line at all, only `limits::INTAKE_TURN_US` of it for each thread is handed to the scheduler at once, so that whoever
//!   else is ready (a refusal, a connection, a health check) waits for that and not for the line.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;
use crate::refusal::Refusal;
use crate::system::{Stopwatch, thread_cpu_ns};

/// Upper ends of the classes by which refusals are counted, µs since the call was read. Above the last one there is one more class.
pub const REFUSED_WITHIN_US: [u64; 10] = [250, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000, 20_000, 50_000];

/// Of how many one is measured.
const SAMPLED: usize = 8;

/// What is taken in.
pub struct Intake {
    threads: u64,
    /// CPU of one decision, smoothed, nanoseconds.
    cost_ns: AtomicU64,
    /// Exchanges that were taken in and have not begun.
    waiting: AtomicUsize,
    /// Times that something was decided.
    begun: AtomicUsize,
    /// µs of deciding that the scheduler may hold at once.
    turns: Arc<Semaphore>,
    refused: [AtomicU64; REFUSED_WITHIN_US.len() + 1],
}

/// How the intake is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// Exchanges that wait their turn.
    pub waiting: u64,
    /// CPU of one decision, as it lately was, nanoseconds.
    pub decision_ns: u64,
    /// Refused because they would have waited too long, by the classes of [`REFUSED_WITHIN_US`].
    pub refused: [u64; REFUSED_WITHIN_US.len() + 1],
}

impl Intake {
    /// For so many threads that decide.
    pub fn new(threads: usize) -> Arc<Intake> {
        let threads = threads.max(1);
        let turns = Arc::new(Semaphore::new(threads * limits::INTAKE_TURN_US));
        let (cost_ns, waiting) = (AtomicU64::new(limits::INTAKE_DECISION_NS), AtomicUsize::new(0));
        Arc::new(Intake {
            threads: threads as u64,
            cost_ns,
            waiting,
            begun: AtomicUsize::new(0),
            turns,
            refused: Default::default(),
        })
    }

    /// Takes exchanges in that were just read, or says that there is no time for them.
    pub fn take(self: &Arc<Intake>, count: usize) -> Result<Taken, Refusal> {
        let ahead = self.waiting.fetch_add(count, Relaxed);
        let mut taken = Taken { intake: self.clone(), count, crowded: false };
        let wait_us = self.wait_us(ahead);
        if wait_us > limits::INTAKE_WAIT_MS * 1_000 {
            let retry = Duration::from_millis(2 * limits::INTAKE_WAIT_MS);
            return Err(Refusal::limit("intake_wait_ms", limits::INTAKE_WAIT_MS, retry)
                .way_out("other replicas may have time; ask the operator for more cores or replicas when this lasts"));
        }
        taken.crowded = wait_us > limits::INTAKE_CROWD_US;
        Ok(taken)
    }

    /// Exchanges that were `read` were refused for want of time.
    pub fn refused(&self, count: usize, read: Stopwatch) {
        let class = REFUSED_WITHIN_US.partition_point(|within| *within < read.us());
        if let Some(counted) = self.refused.get(class) {
            counted.fetch_add(count as u64, Relaxed);
        }
    }

    /// How many of `most` are taken in together, so that deciding them is no longer than `limits::STREAM_ROUND_US`. What will be refused is
    /// refused in one go.
    pub fn round(&self, most: usize) -> usize {
        let cost = self.cost_ns.load(Relaxed).max(1);
        if self.is_full() {
            return most;
        }
        usize::try_from(limits::STREAM_ROUND_US * 1_000 / cost).unwrap_or(most).clamp(1, most)
    }

    /// How long until one is decided that has so many ahead of it, µs.
    /// What comes now would be refused.
    pub fn is_full(&self) -> bool {
        self.wait_us(self.waiting.load(Relaxed)) > limits::INTAKE_WAIT_MS * 1_000
    }

    fn wait_us(&self, ahead: usize) -> u64 {
        (ahead as u64).saturating_mul(self.cost_ns.load(Relaxed)) / 1_000 / self.threads
    }

    /// How it is.
    pub fn load(&self) -> Load {
        let waiting = self.waiting.load(Relaxed) as u64;
        Load { waiting, decision_ns: self.cost_ns.load(Relaxed), refused: self.refused.each_ref().map(|n| n.load(Relaxed)) }
    }

    /// One in so many is measured: asking the kernel costs half a microsecond.
    fn samples(&self) -> bool {
        self.begun.fetch_add(1, Relaxed).is_multiple_of(SAMPLED)
    }

    /// Decisions took so long. Eight of them make the new one count for two thirds: quick enough for a policy that changed.
    fn learn(&self, ns: u64) {
        let before = self.cost_ns.load(Relaxed);
        // Two that learn at once forget one of the two, which does no harm.
        self.cost_ns.store((before * 7 + ns) / 8, Relaxed);
    }
}

/// Exchanges that were taken in. Dropped before their turn, they are no longer waited for.
pub struct Taken {
    intake: Arc<Intake>,
    count: usize,
    crowded: bool,
}

impl Taken {
    /// Both, to be decided in one go.
    pub fn with(mut self, other: Option<Taken>) -> Taken {
        if let Some(mut other) = other {
            self.count += std::mem::take(&mut other.count);
            self.crowded |= other.crowded;
        }
        self
    }

    /// Polls `exchange` when its turn has come. All the deciding is in its first poll; what comes after that waits for others.
    pub async fn run<F: Future>(self, exchange: F) -> F::Output {
        let place = if self.crowded { self.turn().await } else { None };
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

    /// First come, first served; each has as many places as it is expected to take µs.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let us = self.count as u64 * self.intake.cost_ns.load(Relaxed) / 1_000;
        let places = u32::try_from(us).unwrap_or(u32::MAX).clamp(1, limits::INTAKE_TURN_US as u32);
        // It is never closed.
        let place = self.intake.turns.clone().acquire_many_owned(places).await.ok();
        // Whoever is ready goes first: what was read meanwhile is refused or taken in before this is decided.
        tokio::task::yield_now().await;
        place
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.intake.waiting.fetch_sub(self.count, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Reason;

    fn intake(cost_ns: u64) -> Arc<Intake> {
        let intake = Intake::new(2);
        intake.cost_ns.store(cost_ns, Relaxed);
        intake
    }

    #[test]
    fn what_would_wait_too_long_is_refused_and_what_is_dropped_makes_room() {
        // A millisecond each on two threads: twice as many as the bound has milliseconds.
        let intake = intake(1_000_000);
        let fit = 2 * limits::INTAKE_WAIT_MS as usize;
        let mut all: Vec<Taken> = (0..=fit).map(|_| intake.take(1).ok().unwrap()).collect();
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
        let crowd: Vec<_> = (0..20usize)
            .map(|n| {
                let (taken, order) = (intake.take(1).ok().unwrap(), order.clone());
                tokio::spawn(taken.run(async move { order.lock().push(n) }))
            })
            .collect();
        let seen = order.clone();
        let other = tokio::spawn(async move { seen.lock().len() });
        assert!(other.await.unwrap() < 10, "who is ready does not wait for the whole crowd");
        for one in crowd {
            one.await.unwrap();
        }
        // Two on each thread at once: one may be a step ahead of the other.
        let order = order.lock();
        assert!(order.iter().enumerate().all(|(place, n)| place.abs_diff(*n) <= 2), "{order:?}");
    }

    #[test]
    fn a_round_is_as_long_as_it_may_take() {
        assert_eq!(intake(1).round(16), 16);
        assert_eq!(intake(limits::STREAM_ROUND_US * 1_000 / 2).round(16), 2);
        assert_eq!(intake(u64::MAX / 16).round(16), 1);
    }
}
