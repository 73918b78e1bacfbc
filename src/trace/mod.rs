//! Traces: what a call did and how long each part of it took, for a collector of OpenTelemetry; and the ids of a call for log lines.
//!
//! - [`context`]: what a caller says of the trace that it is in (W3C Trace Context).
//! - [`Tracer`]: which calls are traced: those whose callers say so, up to a rate, and a configured part of the others.
//! - [`Traced`]: a call's own. Nearly always it is nothing, or a trace id: then every function of it is a look at two numbers.
//! - [`Live`]: a call that is traced or logged. Its spans go to a [`Queue`] when they are over; `server::traces` hands them on.
//!
//! What is told holds the ids that the audit holds, and never a secret or what a caller wrote as it likes (purpose, reason, arguments).

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
