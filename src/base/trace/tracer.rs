//! Decides which calls are traced, and queues their spans.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::call::{CallStart, CallTrace, RecordedCall};
use super::context::{SpanId, TraceContext, TraceId};
use super::queue::SpanQueue;
use super::rate::CallRateLimit;
use super::span::{Span, SpanAttribute, SpanKind};
use crate::limits;
use crate::system::{SpanTime, Stopwatch, System};

/// The tracing settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TracerSettings {
    /// Spans are exported to a collector.
    pub traces: bool,
    /// How many of a million calls without a caller's trace are traced.
    pub per_million: u64,
    /// The rate limit of calls per second that are traced because their callers ask for it, and the same limit for all other traced calls.
    pub per_second: u64,
    /// Each call is logged.
    pub log_calls: bool,
}

/// The tracer. There is one per process.
pub struct Tracer {
    system: System,
    /// Spans are exported to a collector.
    traces: AtomicBool,
    /// Each call is logged.
    log_calls: AtomicBool,
    /// A generated trace id is traced if its last eight bytes are not above this.
    below: AtomicU64,
    asked: CallRateLimit,
    drawn: CallRateLimit,
    queue: SpanQueue,
}

impl Tracer {
    /// A tracer with these settings.
    pub fn new(wanted: TracerSettings, system: System) -> Arc<Tracer> {
        let tracer = Tracer {
            system,
            traces: AtomicBool::new(false),
            log_calls: AtomicBool::new(false),
            below: AtomicU64::new(0),
            asked: CallRateLimit::new(0),
            drawn: CallRateLimit::new(0),
            queue: SpanQueue::default(),
        };
        tracer.set(wanted);
        Arc::new(tracer)
    }

    /// Changes the settings for later calls.
    pub fn set(&self, wanted: TracerSettings) {
        let part = u128::from(wanted.per_million.min(1_000_000)) * u128::from(u64::MAX) / 1_000_000;
        let per_second = wanted.per_second.min(limits::TRACES_PER_SECOND as u64);
        self.asked.set(per_second);
        self.drawn.set(per_second);
        self.below.store(u64::try_from(part).unwrap_or(u64::MAX), Relaxed);
        self.log_calls.store(wanted.log_calls, Relaxed);
        self.traces.store(wanted.traces, Relaxed);
    }

    /// The finished spans.
    pub fn queue(&self) -> &SpanQueue {
        &self.queue
    }

    /// Whether spans are exported.
    pub fn tells(&self) -> bool {
        self.traces.load(Relaxed)
    }

    pub(super) fn logs(&self) -> bool {
        self.log_calls.load(Relaxed)
    }

    pub(super) fn push(&self, span: Span) {
        self.queue.push(span);
    }

    pub(super) fn drop_one(&self) {
        self.queue.drop_one();
    }

    pub(super) fn new_span(&self) -> SpanId {
        let [a, b, c, d, e, f, g, h, ..] = self.system.id16();
        let id = [a, b, c, d, e, f, g, h];
        if id == [0; 8] { [1; 8] } else { id }
    }

    /// Begins a call that was just read. `traceparent`: its header, where it has exactly one. `path` is copied only where the call is
    /// traced or logged.
    pub fn call(self: &Arc<Tracer>, traceparent: Option<&[u8]>, path: &str, read: Stopwatch) -> CallTrace {
        let named = traceparent.and_then(TraceContext::parse);
        if !self.tells() && !self.logs() {
            return CallTrace::named(named.map(|context| context.trace));
        }
        let begin = |trace, parent, sampled| {
            let (path, ago_ns) = (Cow::Owned(known(path).to_owned()), read.ns());
            CallStart { trace, parent, sampled, path, one_of: false, ago_ns }
        };
        match named {
            Some(context) if context.sampled && self.is_asked() => {
                CallTrace::live(RecordedCall::new(self, begin(Some(context.trace), Some(context.span), true)))
            }
            Some(context) => self.only_logged(Some(context.trace), || begin(Some(context.trace), None, false)),
            None => match self.draw() {
                Some(trace) => CallTrace::live(RecordedCall::new(self, begin(Some(trace), None, true))),
                None => self.only_logged(None, || begin(None, None, false)),
            },
        }
    }

    /// Begins a stream. Where its caller sent no trace, each exchange on it is sampled by itself, so the stream is not.
    pub fn stream(self: &Arc<Tracer>, traceparent: Option<&[u8]>, path: &'static str, read: Stopwatch) -> CallTrace {
        let named = traceparent.and_then(TraceContext::parse);
        match named {
            Some(context) if self.tells() && context.sampled && self.is_asked() => {
                let (path, parent) = (Cow::Borrowed(path), Some(context.span));
                let begin =
                    CallStart { trace: Some(context.trace), parent, sampled: true, path, one_of: false, ago_ns: read.ns() };
                CallTrace::live(RecordedCall::new(self, begin))
            }
            named => CallTrace::named(named.map(|context| context.trace)),
        }
    }

    /// Begins one exchange on a stream.
    pub fn on_stream(self: &Arc<Tracer>, stream: &CallTrace, path: &'static str, read: Stopwatch) -> CallTrace {
        if !self.tells() && !self.logs() {
            return stream.clone();
        }
        if let Some((_, live)) = stream.parts() {
            return self.one_read(live, read.ns());
        }
        let begin = |trace, sampled| CallStart {
            trace,
            parent: None,
            sampled,
            path: Cow::Borrowed(path),
            one_of: true,
            ago_ns: read.ns(),
        };
        match stream.id() {
            Some(trace) => self.only_logged(Some(trace), || begin(Some(trace), false)),
            None => match self.draw() {
                Some(trace) => CallTrace::live(RecordedCall::new(self, begin(Some(trace), true))),
                None => self.only_logged(None, || begin(None, false)),
            },
        }
    }

    /// Begins one of several exchanges of a call that is traced or logged. It is treated like the call, up to the rate limit.
    pub(super) fn one_of(self: &Arc<Tracer>, live: &RecordedCall) -> CallTrace {
        self.one_read(live, 0)
    }

    fn one_read(self: &Arc<Tracer>, live: &RecordedCall, ago_ns: u64) -> CallTrace {
        let begin = CallStart { ago_ns, ..live.beginning_of_one() };
        if begin.sampled && !self.is_asked() {
            let trace = begin.trace;
            return self.only_logged(trace, || CallStart { sampled: false, parent: None, ..begin });
        }
        CallTrace::live(RecordedCall::new(self, begin))
    }

    fn only_logged(self: &Arc<Tracer>, trace: Option<TraceId>, begin: impl FnOnce() -> CallStart) -> CallTrace {
        if self.logs() { CallTrace::live(RecordedCall::new(self, begin())) } else { CallTrace::named(trace) }
    }

    /// Whether the rate limit allows one more call whose caller asked for tracing.
    fn is_asked(&self) -> bool {
        self.tells() && self.has_room(&self.asked)
    }

    fn has_room(&self, rate: &CallRateLimit) -> bool {
        let room = rate.take(self.system.steady());
        if !room {
            self.queue.counts().over_rate.fetch_add(1, Relaxed);
        }
        room
    }

    /// A new trace id, if this call is sampled.
    fn draw(&self) -> Option<TraceId> {
        let below = self.below.load(Relaxed);
        if !self.tells() || below == 0 {
            return None;
        }
        let trace = self.system.id16();
        let [.., a, b, c, d, e, f, g, h] = trace;
        (u64::from_be_bytes([a, b, c, d, e, f, g, h]) <= below && self.has_room(&self.drawn)).then_some(trace)
    }

    /// Begins a trace of mayfly's own work that calls another server, if it is sampled.
    pub fn own(self: &Arc<Tracer>, name: &'static str) -> Option<RootSpan> {
        let trace = self.draw()?;
        let began = SpanTime::now();
        let (id, start_ns) = (self.new_span(), began.ns());
        let span = Span { trace, id, name: name.into(), kind: SpanKind::Client, start_ns, ..Span::default() };
        Some(RootSpan { tracer: self.clone(), span, began })
    }
}

/// A trace with one span, which ends on drop.
pub struct RootSpan {
    tracer: Arc<Tracer>,
    span: Span,
    began: SpanTime,
}

impl RootSpan {
    /// The trace context to send to the called server.
    pub fn context(&self) -> TraceContext {
        TraceContext { trace: self.span.trace, span: self.span.id, sampled: true }
    }

    /// Adds attributes.
    pub fn note(&mut self, attributes: impl IntoIterator<Item = SpanAttribute>) {
        self.span.attributes.extend(attributes);
    }

    /// Marks the span as failed.
    pub fn failed(&mut self, why: &'static str) {
        self.span.attributes.push(("error.type", why.into()));
        self.span.failed = Some(why.into());
    }
}

impl Drop for RootSpan {
    fn drop(&mut self) {
        self.span.end_ns = self.began.now_ns();
        self.tracer.push(std::mem::take(&mut self.span));
    }
}

/// A path that may be exported. A path that does not look like a method is replaced.
fn known(path: &str) -> &str {
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/');
    if path.len() <= limits::NAME_BYTES && path.bytes().all(named) { path } else { "/_OTHER" }
}
