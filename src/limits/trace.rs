//! Bounds of traces.

/// Most calls a second that are traced because their callers say so, and as many because the configured ratio does. At six spans of 400
/// bytes each, 2.4 MB a second to a collector, and 1 % of a core.
pub const TRACES_PER_SECOND: usize = 1_000;
/// Spans that wait to be handed to the collector. Two seconds of both bounds above at four spans; at 600 bytes each, 10 MB.
pub const TRACE_SPANS_WAITING: usize = 16_384;
/// Spans of one request to the collector: OpenTelemetry's own default for a batch.
pub const TRACE_BATCH: usize = 512;
/// Spans within one call. An exchange that is decided three times has a dozen; beyond, they are counted as dropped.
pub const TRACE_SPANS_OF_CALL: usize = 64;
/// Attributes of one span: all that there are, twice.
pub const TRACE_ATTRIBUTES: usize = 48;
/// Time between two looks for spans that wait, milliseconds: nobody looks at a trace sooner.
pub const TRACE_LOOK_MS: u64 = 500;
/// Longest time for one request to the collector, milliseconds. OpenTelemetry's own default for its exporters.
pub const TRACE_CALL_MS: u64 = 10_000;
/// The first pause after a collector did not answer, milliseconds. It doubles.
pub const TRACE_RETRY_MIN_MS: u64 = 1_000;
/// The longest pause, milliseconds: a collector that is back is found within half a minute.
pub const TRACE_RETRY_MAX_MS: u64 = 30_000;
/// How long a batch is tried, milliseconds. What waits behind it is dropped when there is no room, the oldest is worth the least.
pub const TRACE_GIVE_UP_MS: u64 = 60_000;
/// Time for handing over what waits when the server stops, milliseconds: a third of `SHUTDOWN_MS`, which it comes after.
pub const TRACE_FLUSH_MS: u64 = 3_000;
/// Longest answer of a collector that is read, bytes. As `EXPORT_ANSWER_BYTES`.
pub const TRACE_ANSWER_BYTES: usize = super::EXPORT_ANSWER_BYTES;
/// Longest `traceparent` that is looked at, bytes. Version 00 has 55; a later one may have more behind them.
pub const TRACEPARENT_BYTES: usize = 512;
