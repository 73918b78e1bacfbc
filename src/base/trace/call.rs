//! A call that is traced or logged, and its spans.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::context::{SpanId, TraceContext, TraceId, hex};
use super::span::{Span, SpanAttribute, SpanKind, SpanValue};
use super::tracer::Tracer;
use crate::limits;
use crate::refusal::{Code, Error};
use crate::system::SpanTime;

/// gRPC's CANCELLED: the status of a call that was dropped without an end.
const CANCELLED: i32 = 1;
/// gRPC's UNIMPLEMENTED: the method's name may be arbitrary text of the caller.
const UNIMPLEMENTED: i32 = 12;
/// The codes that OpenTelemetry counts as server errors: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. A
/// refusal counts as the caller's error.
const ERRORS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// The trace of a call. All values compare equal, because the trace does not change what a call asks for.
#[derive(Clone, Default)]
pub struct CallTrace {
    /// The trace id: the caller's or, if the call was sampled without one, a new one.
    trace: Option<TraceId>,
    live: Option<Arc<RecordedCall>>,
}

impl PartialEq for CallTrace {
    fn eq(&self, _: &CallTrace) -> bool {
        true
    }
}

impl Eq for CallTrace {}

impl fmt::Debug for CallTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallTrace")
    }
}

/// A call that is traced or logged. It ends once; dropping it earlier counts as cancelled by the caller.
pub struct RecordedCall {
    tracer: Arc<Tracer>,
    /// `None` where the call is only logged and its caller sent no trace.
    trace: Option<TraceId>,
    id: SpanId,
    parent: Option<SpanId>,
    sampled: bool,
    /// The HTTP/2 path, `/mayfly.v1.TokenService/Exchange`.
    path: Cow<'static, str>,
    /// The span is one of several exchanges of a call.
    one_of: bool,
    began: SpanTime,
    start_ns: u64,
    about: Mutex<CallDetails>,
}

#[derive(Default)]
struct CallDetails {
    attributes: Vec<SpanAttribute>,
    /// The span of a wait that begins and ends in different functions.
    waits: Option<Span>,
    spans: usize,
    over: bool,
}

/// The parameters of a new [`RecordedCall`].
pub(super) struct CallStart {
    pub trace: Option<TraceId>,
    pub parent: Option<SpanId>,
    pub sampled: bool,
    pub path: Cow<'static, str>,
    pub one_of: bool,
    /// How long ago the call began, in nanoseconds.
    pub ago_ns: u64,
}

impl RecordedCall {
    pub(super) fn new(tracer: &Arc<Tracer>, begin: CallStart) -> Arc<RecordedCall> {
        let began = SpanTime::now();
        let CallStart { trace, parent, sampled, path, one_of, ago_ns } = begin;
        let start_ns = began.ns().saturating_sub(ago_ns);
        let (id, about) = (tracer.new_span(), Mutex::default());
        Arc::new(RecordedCall { tracer: tracer.clone(), trace, id, parent, sampled, path, one_of, began, start_ns, about })
    }

    fn note(&self, attributes: Vec<SpanAttribute>) {
        let noted = &mut self.about.lock().attributes;
        for (key, value) in attributes {
            match noted.iter().position(|(known, _)| *known == key) {
                Some(at) => noted[at].1 = value,
                None if noted.len() < limits::TRACE_ATTRIBUTES => noted.push((key, value)),
                None => {}
            }
        }
    }

    fn begin_span(&self, name: &'static str, start_ns: u64) -> Option<Span> {
        let trace = self.trace.filter(|_| self.sampled && self.takes_a_span())?;
        let id = self.tracer.new_span();
        Some(Span { trace, id, parent: Some(self.id), name: name.into(), start_ns, ..Span::default() })
    }

    fn takes_a_span(&self) -> bool {
        let mut about = self.about.lock();
        about.spans += 1;
        let room = about.spans <= limits::TRACE_SPANS_OF_CALL;
        if !room {
            self.tracer.drop_one();
        }
        room
    }

    /// Ends the call with a gRPC status and, where it was refused, a reason. Later ends are ignored.
    fn end(&self, code: i32, reason: &str) {
        let mut about = self.about.lock();
        if std::mem::replace(&mut about.over, true) {
            return;
        }
        let (waits, mut noted) = (about.waits.take(), std::mem::take(&mut about.attributes));
        drop(about);
        let end_ns = self.began.now_ns();
        if let Some(span) = waits {
            self.tracer.push(Span { end_ns, ..span });
        }
        if !reason.is_empty() {
            noted.push(("mayfly.reason", reason.into()));
        }
        if self.tracer.logs() {
            self.log(&noted, code, end_ns);
        }
        if self.sampled {
            self.tell(noted, code, reason, end_ns);
        }
    }

    fn tell(&self, noted: Vec<SpanAttribute>, code: i32, reason: &str, end_ns: u64) {
        let known = if code == UNIMPLEMENTED { "_OTHER" } else { self.path.trim_start_matches('/') };
        let mut attributes = Vec::with_capacity(noted.len() + 5);
        if !self.one_of || self.parent.is_none() {
            let (service, method) = known.split_once('/').unwrap_or(("", known));
            attributes.push(("rpc.system", "grpc".into()));
            attributes.push(("rpc.service", service.into()));
            attributes.push(("rpc.method", method.into()));
        }
        attributes.push(("rpc.grpc.status_code", SpanValue::Number(code.into())));
        let failed = ERRORS.contains(&code);
        if failed {
            let kind = if reason.is_empty() { code.to_string() } else { reason.to_owned() };
            attributes.push(("error.type", kind.into()));
        }
        attributes.extend(noted);
        self.tracer.push(Span {
            trace: self.trace.unwrap_or_default(),
            id: self.id,
            parent: self.parent,
            name: if self.one_of { "exchange".into() } else { known.to_owned().into() },
            kind: if self.one_of && self.parent.is_some() { SpanKind::Internal } else { SpanKind::Server },
            start_ns: self.start_ns,
            end_ns,
            attributes,
            failed: failed.then(|| reason.to_owned().into()),
        });
    }

    /// Writes one log line with the fields that the call noted.
    fn log(&self, noted: &[SpanAttribute], code: i32, end_ns: u64) {
        let text = |key: &str| match noted.iter().find(|(known, _)| *known == key) {
            Some((_, SpanValue::Text(text))) => Some(text.as_str()),
            _ => None,
        };
        let seq = noted.iter().find_map(|(key, value)| match value {
            SpanValue::Number(seq) if *key == "mayfly.seq" => Some(*seq),
            _ => None,
        });
        let (trace_id, span_id) = (self.trace.map(|id| hex(&id)), self.sampled.then(|| hex(&self.id)));
        tracing::info!(
            target: "mayfly::call",
            rpc = &*self.path.escape_default().to_string(),
            code,
            reason = text("mayfly.reason"),
            caller = text("mayfly.caller"),
            seq,
            request_id = text("mayfly.request.id"),
            credential_id = text("mayfly.credential.id"),
            task_id = text("mayfly.task.id"),
            approval_id = text("mayfly.approval.id"),
            upstream = text("mayfly.upstream"),
            trace_id,
            span_id,
            took_us = end_ns.saturating_sub(self.start_ns) / 1_000,
            "call"
        );
    }
}

impl Drop for RecordedCall {
    fn drop(&mut self) {
        self.end(CANCELLED, "");
    }
}

impl CallTrace {
    /// A call with only the trace id that its caller sent.
    pub(super) fn named(trace: Option<TraceId>) -> CallTrace {
        CallTrace { trace, live: None }
    }

    pub(super) fn live(live: Arc<RecordedCall>) -> CallTrace {
        CallTrace { trace: live.trace, live: Some(live) }
    }

    /// The trace id, if there is one.
    pub fn id(&self) -> Option<TraceId> {
        self.trace
    }

    /// The trace id in the form of records; empty for none.
    pub fn bytes(&self) -> &[u8] {
        self.trace.as_ref().map_or(&[], |id| id)
    }

    /// The trace id in the form of log lines.
    pub fn text(&self) -> Option<String> {
        self.trace.map(|id| hex(&id))
    }

    /// Whether the call has no trace id and is not traced or logged.
    pub fn is_nothing(&self) -> bool {
        self.trace.is_none() && self.live.is_none()
    }

    /// Whether the call is traced or logged.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Whether the call is traced, not only logged.
    pub fn is_sampled(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.sampled)
    }

    /// The trace context to send to a server that is called on the call's behalf, if the call is traced.
    pub fn context(&self) -> Option<TraceContext> {
        let live = self.live.as_ref().filter(|live| live.sampled)?;
        Some(TraceContext { trace: live.trace?, span: live.id, sampled: true })
    }

    /// Adds attributes, if the call is traced or logged.
    pub fn note(&self, attributes: impl FnOnce() -> Vec<SpanAttribute>) {
        if let Some(live) = &self.live {
            live.note(attributes());
        }
    }

    /// Begins a span below the call, which ends on drop.
    pub fn span(&self, name: &'static str) -> SpanGuard {
        let begun = self.live.as_ref().and_then(|live| Some((live, live.begin_span(name, live.began.now_ns())?)));
        SpanGuard(begun.map(|(live, span)| Box::new(Open { live: live.clone(), span })))
    }

    /// Adds a span that began with the call and ends now.
    pub fn since_its_begin(&self, name: &'static str) {
        let begun = self.live.as_ref().and_then(|live| Some((live, live.begin_span(name, live.start_ns)?)));
        drop(SpanGuard(begun.map(|(live, span)| Box::new(Open { live: live.clone(), span }))));
    }

    /// Begins a wait, which ends with [`CallTrace::waited`] or with the call.
    pub fn waits(&self, name: &'static str) {
        if let Some(live) = &self.live {
            let span = live.begin_span(name, live.began.now_ns());
            live.about.lock().waits = span;
        }
    }

    /// Ends the wait.
    pub fn waited(&self, attributes: impl FnOnce() -> Vec<SpanAttribute>) {
        let Some(live) = &self.live else { return };
        if let Some(span) = live.about.lock().waits.take() {
            let (end_ns, attributes) = (live.began.now_ns(), attributes());
            live.tracer.push(Span { end_ns, attributes, ..span });
        }
    }

    /// Ends the call with a gRPC status code and a reason, empty unless it was refused. Later ends are ignored.
    pub fn end(&self, code: i32, reason: &str) {
        if let Some(live) = &self.live {
            live.end(code, reason);
        }
    }

    /// The same, but only for one of several exchanges of a call.
    pub fn end_one(&self, code: i32, reason: &str) {
        if let Some(live) = self.live.as_ref().filter(|live| live.one_of) {
            live.end(code, reason);
        }
    }

    pub(super) fn parts(&self) -> Option<(&Arc<Tracer>, &RecordedCall)> {
        self.live.as_ref().map(|live| (&live.tracer, &**live))
    }

    /// Begins one of several exchanges of this call.
    pub fn one_of(&self) -> CallTrace {
        match self.parts() {
            Some((tracer, live)) => tracer.one_of(live),
            None => self.clone(),
        }
    }
}

impl RecordedCall {
    /// The parameters for one exchange of this call.
    pub(super) fn beginning_of_one(&self) -> CallStart {
        let parent = self.sampled.then_some(self.id);
        CallStart { trace: self.trace, parent, sampled: self.sampled, path: self.path.clone(), one_of: true, ago_ns: 0 }
    }
}

/// A span below a traced call. It ends on drop.
#[derive(Default)]
pub struct SpanGuard(Option<Box<Open>>);

struct Open {
    live: Arc<RecordedCall>,
    span: Span,
}

impl SpanGuard {
    /// Marks the span as a call to another server.
    pub fn of_another(mut self) -> SpanGuard {
        if let Some(open) = &mut self.0 {
            open.span.kind = SpanKind::Client;
        }
        self
    }

    /// Adds attributes.
    pub fn note(&mut self, attributes: impl FnOnce() -> Vec<SpanAttribute>) {
        if let Some(open) = &mut self.0 {
            open.span.attributes.extend(attributes());
        }
    }

    /// Records the result. A refusal adds its reason; the span has failed where the refusal is a server error or the result is a fault.
    pub fn of<T>(&mut self, end: Result<T, Error>) -> Result<T, Error> {
        if let (Some(open), Err(no)) = (&mut self.0, &end) {
            let (code, reason) = match no {
                Error::Refusal(no) => (no.reason.code(), no.reason.as_str()),
                Error::Fault(_) => (Code::Internal, "FAULT"),
            };
            open.span.attributes.push(("mayfly.reason", reason.into()));
            open.span.failed = ERRORS.contains(&(code as i32)).then(|| reason.into());
        }
        end
    }
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        if let Some(mut open) = self.0.take() {
            open.span.end_ns = open.live.began.now_ns();
            let tracer = open.live.tracer.clone();
            tracer.push(open.span);
        }
    }
}
