//! Bounds of webhooks, and of metrics.

/// Longest time that a scrape of the metrics takes, milliseconds: half of Prometheus' 10 s.
pub const METRICS_MS: u64 = 5_000;

/// Most webhooks. Each has a thread, and reads the ledger by itself.
pub const WEBHOOKS: usize = 8;
/// Largest body of a webhook, bytes. The largest event, a revocation of 64 targets by SPIFFE ID, is a third over it and is told by its seq.
pub const WEBHOOK_BODY_BYTES: usize = 64 * 1024;
/// Longest attempt to tell, milliseconds, from connecting to the status line. Standard Webhooks advises 15 to 30 s; half of the shorter, since
/// those behind it wait.
pub const WEBHOOK_CALL_MS: u64 = 8_000;
/// The first pause after an attempt that failed, milliseconds. It doubles.
pub const WEBHOOK_RETRY_MIN_MS: u64 = 1_000;
/// The longest pause, milliseconds: a receiver that is back is found within five minutes.
pub const WEBHOOK_RETRY_MAX_MS: u64 = 300_000;
/// How long an event is tried, milliseconds: a day. What waits keeps history from being removed, whatever `audit.keep` says.
pub const WEBHOOK_GIVE_UP_MS: u64 = 24 * 3_600_000;
/// Events that were given up and are listed by id, for each webhook. At 400 bytes each, 13 KB of a named value's 64.
pub const WEBHOOK_DEAD_LISTED: usize = 32;
/// Time between two looks for something new, milliseconds. As `EXPORT_LOOK_MS`.
pub const WEBHOOK_LOOK_MS: u64 = 200;
/// Time between two notes of how far a webhook is where nothing was told, milliseconds: a durable write each, and what is read again.
pub const WEBHOOK_NOTE_MS: u64 = 10_000;
/// Largest secret file of a webhook, bytes: two secrets of 64 bytes in base64, with their prefix.
pub const WEBHOOK_SECRET_FILE_BYTES: usize = 512;
/// Shortest secret, bytes. Standard Webhooks: 24 to 64.
pub const WEBHOOK_SECRET_MIN_BYTES: usize = 24;
/// Longest secret, bytes. Standard Webhooks: 24 to 64.
pub const WEBHOOK_SECRET_BYTES: usize = 64;
/// How long an event of a revocation waits for the number of what was hit, which whoever revoked is told, milliseconds. A million credentials are
/// counted in half of it (`LIST_WALK` at a time); beyond it the number is counted once more.
pub const WEBHOOK_HITS_MS: u64 = 1_000;
