//! Limits of log lines on their way to stderr.

/// Bytes of log lines queued for the reader of stderr. Lines of 250 bytes: 16,000 of them, which is a second of `log.calls` at full load.
pub const LOG_QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of log lines in one write. The capacity of a pipe (pipe(7)).
pub const LOG_WRITE_BYTES: usize = 64 * 1024;
/// Pause after a failed write to stderr, milliseconds. A reader that reads the log again sees lines within a second.
pub const LOG_RETRY_MS: u64 = 1_000;
/// Free disk space at which logging resumes after the disk was full, bytes. As `DISK_LOW_BYTES`, so that the log takes nothing from the
/// reserve; on a smaller disk a sixteenth of its size.
pub const LOG_ROOM_BYTES: u64 = 64 * 1024 * 1024;
/// Longest wait for the reader of stderr when the process ends, milliseconds. Together with `SHUTDOWN_MS` well below the 30 s of a unit.
pub const LOG_FLUSH_MS: u64 = 1_000;
