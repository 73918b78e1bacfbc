//! Traces: what a call did and how long each part took, for an OpenTelemetry collector, and the ids of a call for log lines.
//!
//! - [`context`]: the trace context that a caller sends (W3C Trace Context).
//! - [`Tracer`]: decides which calls are traced: calls whose callers ask for it, up to a rate limit, and a configured share of the others.
//! - [`CallTrace`]: the trace of one call. It is almost always empty or a trace id only; every method then costs two comparisons.
//! - [`RecordedCall`]: a call that is traced or logged. Its finished spans go to a [`SpanQueue`], which `server::traces` exports.
//!
//! Spans contain the ids that the audit contains, and never a secret or a caller's free text (purpose, reason, arguments).

mod call;
pub mod context;
mod queue;
mod rate;
mod span;
mod task_local;
#[cfg(test)]
mod tests;
mod tracer;

pub use call::{CallTrace, RecordedCall, SpanGuard};
pub use context::{SpanId, TraceContext, TraceId, hex};
pub use queue::{SpanCounters, SpanQueue};
pub use span::{Span, SpanAttribute, SpanKind, SpanValue, plain};
pub use task_local::{current, note};
pub use tracer::{RootSpan, Tracer, TracerSettings};
