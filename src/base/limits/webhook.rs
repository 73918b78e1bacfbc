//! Limits of webhooks, and of scrapes of the metrics.

/// Longest time of a scrape of the metrics, milliseconds: half of Prometheus' 10 s.
pub const METRICS_MS: u64 = 5_000;

/// Most webhooks. Each webhook has a thread, which reads the ledger separately.
pub const WEBHOOKS: usize = 8;
/// Largest body of a webhook, bytes. The largest event, a revocation of 64 targets by SPIFFE ID, exceeds the limit by a third and is sent
/// with its sequence number only.
pub const WEBHOOK_BODY_BYTES: usize = 64 * 1024;
/// Longest delivery attempt, milliseconds, from connecting to the status line. Standard Webhooks advises 15 to 30 s; half of the shorter
/// time is used, since later events wait.
pub const WEBHOOK_CALL_MS: u64 = 8_000;
/// First pause after a failed attempt, milliseconds. The pause doubles with each failure.
pub const WEBHOOK_RETRY_MIN_MS: u64 = 1_000;
/// Longest pause, milliseconds: a receiver that is available again is noticed within five minutes.
pub const WEBHOOK_RETRY_MAX_MS: u64 = 300_000;
/// Time for which an event is retried, milliseconds: a day. History with undelivered events is not removed, whatever `audit.keep` says.
pub const WEBHOOK_GIVE_UP_MS: u64 = 24 * 3_600_000;
/// Undeliverable events that are listed by id, for each webhook. At 400 bytes each, 13 KB of a named value's 64.
pub const WEBHOOK_DEAD_LISTED: usize = 32;
/// Interval at which a webhook looks for new records, milliseconds. As `EXPORT_LOOK_MS`.
pub const WEBHOOK_LOOK_MS: u64 = 200;
/// Interval at which a webhook's position is stored while no event is sent, milliseconds: each time costs a durable write, and the records
/// after the stored position are read again at the next start.
pub const WEBHOOK_NOTE_MS: u64 = 10_000;
/// Largest secret file of a webhook, bytes: two secrets of 64 bytes in base64, with their prefix.
pub const WEBHOOK_SECRET_FILE_BYTES: usize = 512;
/// Shortest secret, bytes. Standard Webhooks: 24 to 64.
pub const WEBHOOK_SECRET_MIN_BYTES: usize = 24;
/// Longest secret, bytes. Standard Webhooks: 24 to 64.
pub const WEBHOOK_SECRET_BYTES: usize = 64;
/// Age of a revocation or lock up to which its event waits for the number of what was hit, milliseconds. Counting a million credentials
/// takes half of it (`LIST_WALK` at a time); after it the event has no number.
pub const WEBHOOK_HITS_MS: u64 = 1_000;
