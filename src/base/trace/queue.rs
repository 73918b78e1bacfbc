//! Finished spans that wait for export. Ending a span never blocks: a span that finds no room is dropped and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::span::Span;
use crate::limits;

/// The queue.
#[derive(Default)]
pub struct SpanQueue {
    waiting: Mutex<VecDeque<Span>>,
    pub(super) counts: SpanCounters,
}

/// Counters of spans and calls since the start.
#[derive(Default)]
pub struct SpanCounters {
    /// Spans that the collector accepted.
    pub sent: AtomicU64,
    /// Spans that were dropped because the queue, or a call's limit, was full.
    pub full: AtomicU64,
    /// Spans that no collector accepted in time.
    pub unreachable: AtomicU64,
    /// Spans that the collector rejected permanently.
    pub rejected: AtomicU64,
    /// Calls that were not traced because of the rate limit.
    pub over_rate: AtomicU64,
    /// The collector currently accepts no spans.
    pub failing: AtomicBool,
}

impl SpanQueue {
    /// Adds a span if there is room.
    pub fn push(&self, span: Span) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= limits::TRACE_SPANS_WAITING {
            drop(waiting);
            self.drop_one();
        } else {
            waiting.push_back(span);
        }
    }

    /// Counts a span that was not even created.
    pub(super) fn drop_one(&self) {
        self.counts.full.fetch_add(1, Relaxed);
    }

    /// Takes up to `most` of the oldest spans.
    pub fn take(&self, most: usize) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        let count = most.min(waiting.len());
        waiting.drain(..count).collect()
    }

    /// The counters.
    pub fn counts(&self) -> &SpanCounters {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_what_waits_stays() {
        let queue = SpanQueue::default();
        for n in 0..limits::TRACE_SPANS_WAITING as u64 + 7 {
            queue.push(Span { start_ns: n, ..Span::default() });
        }
        assert_eq!(queue.counts().full.load(Relaxed), 7);
        let first = queue.take(3);
        assert_eq!(first.iter().map(|s| s.start_ns).collect::<Vec<_>>(), [0, 1, 2]);
        queue.push(Span::default());
        assert_eq!((queue.take(usize::MAX).len(), queue.counts().full.load(Relaxed)), (limits::TRACE_SPANS_WAITING - 2, 7));
    }
}
