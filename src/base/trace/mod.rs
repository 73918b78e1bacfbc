//! Traces: what a call did and how long each part took, for an OpenTelemetry collector, and the ids of a call for log lines.
//!
//! - [`context`]: the trace context that a caller sends (W3C Trace Context).
//! - [`Tracer`]: decides which calls are traced: calls whose callers ask for it, up to a rate limit, and a configured share of the others.
//! - [`Traced`]: the trace of one call. It is almost always empty or a trace id only; every method then costs two comparisons.
//! - [`Live`]: a call that is traced or logged. Its finished spans go to a [`Queue`], which `server::traces` exports.
//!
//! Spans contain the ids that the audit contains, and never a secret or a caller's free text (purpose, reason, arguments).

mod ambient;
pub mod context;
mod live;
mod queue;
mod rate;
mod span;
#[cfg(test)]
mod tests;
mod tracer;

pub use ambient::{current, note};
pub use context::{Context, SpanId, TraceId, hex};
pub use live::{Live, Part, Traced};
pub use queue::{Counts, Queue};
pub use span::{Attribute, Kind, Span, Value, plain};
pub use tracer::{Own, Tracer, Wanted};
