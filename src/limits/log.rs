//! Bounds of log lines on their way to stderr.

/// Log lines that wait for the reader of stderr, bytes. Lines of 250 bytes: 16,000 of them, which is a second of `log.calls` at full load.
pub const LOG_QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Log lines that are written at once, bytes. As large as a pipe is (pipe(7)).
pub const LOG_WRITE_BYTES: usize = 64 * 1024;
/// Pause after a write to stderr that failed, milliseconds. Whoever reads the log again sees lines within a second.
pub const LOG_RETRY_MS: u64 = 1_000;
/// Free space from which a log that found its disk full goes on, bytes. As `DISK_LOW_BYTES`, so that it takes nothing from the reserve; of a
/// smaller disk a sixteenth.
pub const LOG_ROOM_BYTES: u64 = 64 * 1024 * 1024;
/// Longest wait for the reader of stderr when the process ends, milliseconds. Together with `SHUTDOWN_MS` well below the 30 s of a unit.
pub const LOG_FLUSH_MS: u64 = 1_000;
