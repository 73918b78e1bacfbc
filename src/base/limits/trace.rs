//! Limits of traces.

/// Most calls per second that are traced at their callers' request, and as many that are traced by the configured ratio. At six spans of
/// 400 bytes each, 2.4 MB a second to a collector, and 1 % of a core.
pub const TRACES_PER_SECOND: usize = 1_000;
/// Spans queued for the collector. Two seconds of both limits above at four spans; at 600 bytes each, 10 MB.
pub const TRACE_SPANS_WAITING: usize = 16_384;
/// Spans in one request to the collector: OpenTelemetry's own default for a batch.
pub const TRACE_BATCH: usize = 512;
/// Most spans of one call. An exchange that is decided three times has a dozen; further spans are counted as dropped.
pub const TRACE_SPANS_OF_CALL: usize = 64;
/// Most attributes of one span: twice the number of defined attributes.
pub const TRACE_ATTRIBUTES: usize = 48;
/// Interval at which queued spans are sent, milliseconds: nobody looks at a trace sooner.
pub const TRACE_LOOK_MS: u64 = 500;
/// Longest time for one request to the collector, milliseconds. OpenTelemetry's own default for its exporters.
pub const TRACE_CALL_MS: u64 = 10_000;
/// First pause after a collector did not answer, milliseconds. The pause doubles with each failure.
pub const TRACE_RETRY_MIN_MS: u64 = 1_000;
/// Longest pause, milliseconds: a collector that is available again is noticed within half a minute.
pub const TRACE_RETRY_MAX_MS: u64 = 30_000;
/// Time for which a batch of spans is retried, milliseconds. If the queue fills meanwhile, the oldest spans are dropped first.
pub const TRACE_GIVE_UP_MS: u64 = 60_000;
/// Time for sending queued spans when the server stops, milliseconds: a third of `SHUTDOWN_MS`, after which it follows.
pub const TRACE_FLUSH_MS: u64 = 3_000;
/// Longest answer of a collector that is read, bytes. As `EXPORT_ANSWER_BYTES`.
pub const TRACE_ANSWER_BYTES: usize = super::EXPORT_ANSWER_BYTES;
/// Longest `traceparent` that is parsed, bytes. Version 00 has 55; a later version may append more.
pub const TRACEPARENT_BYTES: usize = 512;
