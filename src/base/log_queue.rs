//! The bounded queue between the threads of this process and its stderr.
//!
//! A thread that logs puts a line into the queue and continues. One thread writes the queue to stderr, so a reader of stderr that stalls or
//! goes away, or a log volume that is full, blocks that thread and nothing else. Lines that arrive while the queue is full are dropped and
//! counted ([`dropped`]); once the reader is back, a log line has their number. A write that fails is repeated and ends nothing.
//!
//! Writes to stderr without the queue (by a command that runs for a moment) block as in any program.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat, fstatvfs};

use crate::limits;
use crate::system::Stopwatch;

/// The queue of this process, which has one stderr.
static STDERR: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// Log lines queued for one destination.
pub struct LogQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    drained: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were taken out and are not written yet.
    writing: bool,
}

impl LogQueue {
    /// Starts a queue whose thread writes to `to`. `told` is called with the number of dropped lines once a write has succeeded again.
    pub fn start(to: File, told: impl Fn(u64) + Send + 'static) -> io::Result<Arc<LogQueue>> {
        let queue = Arc::new(LogQueue {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            drained: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let ours = queue.clone();
        std::thread::Builder::new().name("mayfly-log".into()).spawn(move || ours.write_on(&to, &told))?;
        Ok(queue)
    }

    /// Adds a line, or drops and counts it if the queue is full. Never waits for the destination.
    pub fn push(&self, line: Vec<u8>) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes.saturating_add(line.len()) > limits::LOG_QUEUE_BYTES {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The number of lines that were dropped since the process started.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, at most `patience`. Returns whether everything is written.
    pub fn flush(&self, patience: Duration) -> bool {
        let watch = Stopwatch::start();
        let mut waiting = self.waiting.lock();
        while !waiting.lines.is_empty() || waiting.writing {
            let left = patience.saturating_sub(Duration::from_micros(watch.us()));
            if left.is_zero() {
                return false;
            }
            self.drained.wait_for(&mut waiting, left);
        }
        true
    }

    fn write_on(&self, to: &File, told: &impl Fn(u64)) {
        let mut reported = 0;
        loop {
            let batch = self.take();
            write_all(to, &batch);
            let mut waiting = self.waiting.lock();
            waiting.writing = false;
            let empty = waiting.lines.is_empty();
            drop(waiting);
            if empty {
                self.drained.notify_all();
            }
            let dropped = self.dropped();
            if empty && dropped > reported {
                told(dropped - reported);
                reported = dropped;
            }
        }
    }

    /// Removes the next lines, up to `limits::LOG_WRITE_BYTES` or one line. Their room in the queue is free afterwards.
    fn take(&self) -> Vec<u8> {
        let mut waiting = self.waiting.lock();
        while waiting.lines.is_empty() {
            self.arrived.wait(&mut waiting);
        }
        let mut batch = Vec::new();
        while let Some(line) = waiting.lines.pop_front() {
            waiting.bytes = waiting.bytes.saturating_sub(line.len());
            batch.extend_from_slice(&line);
            if waiting.lines.front().is_some_and(|next| batch.len() + next.len() > limits::LOG_WRITE_BYTES) {
                break;
            }
        }
        waiting.writing = true;
        batch
    }
}

/// Writes all bytes, however long that takes. No line is cut: after a failed write it continues with the first unwritten byte.
fn write_all(mut to: &File, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => pause(),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A non-blocking destination: wait until it is writable.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut one = [PollFd::new(&to, PollFlags::OUT)];
                if poll(&mut one, None).is_err() {
                    pause();
                }
            }
            Err(e) => {
                pause();
                // The reserve of the data directory may be on the same disk: the log must not use the space that the reserve releases.
                while e.kind() == io::ErrorKind::StorageFull && !has_room(to) {
                    pause();
                }
            }
        }
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(limits::LOG_RETRY_MS));
}

/// Whether the disk of a regular file that was full has more free space again than the reserve of a data directory beside it releases.
/// Always true for a destination that is no regular file.
pub fn has_room(to: &File) -> bool {
    if !fstat(to).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file()) {
        return true;
    }
    let Ok(disk) = fstatvfs(to) else { return true };
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    bytes(disk.f_bavail) >= limits::LOG_ROOM_BYTES.min(bytes(disk.f_blocks) / 16)
}

/// Routes this process's stderr through the queue. A second call changes nothing. `told` reports dropped lines.
pub fn begin(told: impl Fn(u64) + Send + 'static) {
    if STDERR.get().is_some() {
        return;
    }
    // A separate descriptor: a holder of the lock of `std::io::stderr` does not block the thread, nor the other way round.
    let started = io::stderr().as_fd().try_clone_to_owned().and_then(|fd| LogQueue::start(File::from(fd), told));
    if let Ok(queue) = started {
        // If another thread was faster, its queue is used, and the thread of this queue never gets a line.
        let _ = STDERR.set(queue);
    }
}

/// Writes text to stderr: through the queue if there is one, otherwise directly. Errors are ignored, since nobody reads stderr then.
pub fn write(text: &[u8]) {
    match STDERR.get() {
        Some(queue) => queue.push(text.to_vec()),
        None => drop(io::stderr().write_all(text)),
    }
}

/// Waits until everything is written, at most `limits::LOG_FLUSH_MS`: before the process ends.
pub fn flush() {
    if let Some(queue) = STDERR.get() {
        queue.flush(Duration::from_millis(limits::LOG_FLUSH_MS));
    }
}

/// The number of lines to stderr that were dropped since the process started.
pub fn dropped() -> u64 {
    STDERR.get().map_or(0, |queue| queue.dropped())
}

/// A writer to stderr for log lines: each `write` is one line, as the subscriber formats it. It never fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct StderrWriter;

impl Write for StderrWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::AtomicU64;

    use super::*;

    const SECOND: Duration = Duration::from_secs(20);

    fn line(n: usize) -> Vec<u8> {
        format!("line {n:06} {}\n", "x".repeat(180)).into_bytes()
    }

    /// A queue that writes to a pipe, which the test reads.
    fn piped() -> (Arc<LogQueue>, File, Arc<AtomicU64>) {
        let (read, write) = io::pipe().unwrap();
        let told = Arc::new(AtomicU64::new(0));
        let ours = told.clone();
        let report = move |lines| {
            ours.fetch_add(lines, Ordering::SeqCst);
        };
        let queue = LogQueue::start(File::from(OwnedFd::from(write)), report).unwrap();
        (queue, File::from(OwnedFd::from(read)), told)
    }

    #[test]
    fn a_reader_that_stalls_keeps_nobody_and_is_told_what_was_dropped_when_it_is_back() {
        let (queue, mut reader, told) = piped();
        let lines = 2 * limits::LOG_QUEUE_BYTES / line(0).len();
        let watch = Stopwatch::start();
        (0..lines).for_each(|n| queue.push(line(n)));
        assert!(watch.us() < 10_000_000, "{} lines took {} us", lines, watch.us());
        assert!(!queue.flush(Duration::from_millis(50)), "nobody reads");
        let dropped = queue.dropped();
        assert!(dropped > 0 && told.load(Ordering::SeqCst) == 0);
        let mut read = vec![0; (lines - dropped as usize) * line(0).len()];
        reader.read_exact(&mut read).unwrap();
        for (n, found) in read.chunks(line(0).len()).enumerate() {
            assert_eq!(found, line(n), "what is kept is kept in order");
        }
        assert!(queue.flush(SECOND));
        while told.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(told.load(Ordering::SeqCst), dropped);
    }

    #[test]
    fn a_reader_that_went_away_ends_nothing() {
        let (queue, reader, _) = piped();
        drop(reader);
        (0..100).for_each(|n| queue.push(line(n)));
        assert!(!queue.flush(Duration::from_millis(50)));
        assert_eq!(queue.dropped(), 0, "they wait for a reader");
    }

    #[test]
    fn what_is_written_in_parts_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let queue = LogQueue::start(File::create(&path).unwrap(), |_| {}).unwrap();
        (0..1000).for_each(|n| queue.push(line(n)));
        assert!(queue.flush(SECOND));
        let all: Vec<u8> = (0..1000).flat_map(line).collect();
        assert_eq!(std::fs::read(&path).unwrap(), all);
    }
}
