//! Retention: removes the oldest commits when they are older, or together larger, than `audit.keep` allows.
//!
//! A removed commit must not be needed any more: not by a start, which folds the commits after a snapshot, and not by a retry, whose
//! credential is made again from its record. Whatever `audit.keep` says, commits are therefore removed at most up to the older of the two
//! snapshots whose digest is in the log, and at most up to the oldest issuance that was still alive when the newest snapshot was begun.
//! Before the first commit is removed, a record announces the removal and carries the hash that the first kept commit continues; a missing
//! beginning without such a record is damage. When a continuous export is set, commits that were not exported yet are kept.
//!
//! Removal runs in the background, in pieces short enough for an append to wait for, and also while the disk is full: a removal takes the
//! space that it needs from the reserve.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::commit::{BadCommit, Commit, WriterHead};
use crate::reader::log_reader::LogCursor;
use crate::record::{Author, Event, Record};
use crate::recovery::verify::EVERYTHING;
use crate::state::{RemovedHistory, SnapshotRef, State, seq_after};
use crate::tree::frontier::Frontier;
use crate::tree::retained_frontier;
use crate::writer::durable_summary::mark_background_thread;
use crate::{Inner, Ledger, ProposalKind, recovery::snapshot};
use mayfly_base::limits;
use mayfly_base::system::Stopwatch;
use mayfly_store::{Position, Store, StoreError};
use mayfly_verify::seq::{Millis, Seq};

/// How much of the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionLimit {
    /// The last so many milliseconds.
    Time(u64),
    /// The last so many bytes of commits.
    Size(u64),
}

/// After each piece of work, the thread pauses for this multiple of the time that the piece took …
const TIMES: u32 = 2;
/// … and at most for this long: a file of 64 MiB in 200 ms is more than any load writes.
const PAUSE: Duration = Duration::from_millis(50);

/// Why nothing could be removed.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("commit {0}: {1}")]
    Commit(Position, BadCommit),
    #[error("its record could not be written")]
    Record,
}

/// The named value that holds the place of the continuous export.
pub const EXPORTED: &str = "export/place";

/// The place of the continuous export: the position of the next commit and the last seq before it, eight bytes each.
pub fn export_position(store: &dyn Store) -> Result<Option<LogCursor>, StoreError> {
    Ok(store.named(EXPORTED)?.and_then(|bytes| Some(parse_follower_position(&bytes)?.0)))
}

/// Splits the named value of a follower of the log into the place at its beginning and the rest.
pub fn parse_follower_position(bytes: &[u8]) -> Option<(LogCursor, &[u8])> {
    let (position, rest) = bytes.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let seq = Seq::from_u64(u64::from_be_bytes(*seq))?;
    Some((LogCursor { position: u64::from_be_bytes(*position), seq }, rest))
}

impl Ledger {
    pub(crate) fn keep_in_background(&self, keep: RetentionLimit) {
        let inner = self.inner.clone();
        let frozen = inner.look().frozen();
        let started = std::thread::Builder::new().name("ledger-keep".into()).spawn(move || {
            mark_background_thread();
            inner.note_alive(&frozen);
            drop(frozen);
            Keeper { inner, keep, sound: None }.run();
        });
        match started {
            Ok(thread) => {
                // The only place where the keeper is set.
                let _ = self.inner.keeper.set(thread.thread().clone());
                self.inner.keep(thread);
            }
            Err(error) => tracing::error!(%error, "old commits are not removed: the retention thread could not be started"),
        }
    }
}

/// A guard that keeps the history from being removed. At most one exists at a time.
pub struct HistoryPin {
    inner: Arc<Inner>,
    /// The oldest pinned commit, and the seq before it.
    pub oldest: LogCursor,
}

impl Drop for HistoryPin {
    fn drop(&mut self) {
        self.inner.pinned.store(u64::MAX, Ordering::SeqCst);
    }
}

impl Ledger {
    /// Pins all of the history that is kept now; `None` if it is pinned already.
    pub fn pin(&self) -> Option<HistoryPin> {
        // Pin from position 0 until the oldest kept position is known.
        self.inner.pinned.compare_exchange(u64::MAX, 0, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        let oldest = self.inner.standing().removed.oldest();
        self.inner.pinned.store(oldest.position, Ordering::SeqCst);
        Some(HistoryPin { inner: self.inner.clone(), oldest })
    }

    /// The first of these snapshots that covers all commits before `before` and whose file has the right digest: its seq and the file's
    /// path.
    pub fn sound_snapshot(&self, taken: &[SnapshotRef], before: Position) -> Option<(Seq, std::path::PathBuf)> {
        let dir = self.inner.settings.snapshots.as_ref()?;
        let mut found = taken.iter().filter(|t| t.position + 1 >= before).map(|t| (t, snapshot::path(dir, t.seq)));
        let sound = found.find(|(t, path)| snapshot::digest(path).is_ok_and(|digest| digest == t.digest));
        sound.map(|(t, path)| (t.seq, path))
    }
}

struct Keeper {
    inner: Arc<Inner>,
    keep: RetentionLimit,
    /// The snapshots whose files were read and have the right digest.
    sound: Option<[SnapshotRef; 2]>,
}

impl Keeper {
    fn run(mut self) {
        let mut said = String::new();
        while !self.stopping() {
            let more = self.remove_due().unwrap_or_else(|why| {
                let why = why.to_string();
                if said != why {
                    tracing::warn!(%why, "old commits could not be removed; it is retried");
                    said = why;
                }
                false
            });
            if !more {
                std::thread::park_timeout(Duration::from_millis(limits::KEEP_LOOK_MS));
            }
        }
    }

    fn stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Relaxed)
    }

    /// Removes the commits that a record already announced, then looks whether more is due. Returns true when more was due.
    fn remove_due(&mut self) -> Result<bool, RetentionError> {
        // Damaged commits are evidence, and commits that are not verified yet may be damaged.
        let verified = self.inner.verified.load(Ordering::Relaxed) == EVERYTHING;
        if !verified || self.inner.damaged.read().is_some() || self.inner.broken() {
            return Ok(false);
        }
        self.take_out()?;
        let Some(goal) = self.goal()? else { return Ok(false) };
        let (removed, total, now) = {
            let standing = self.inner.standing();
            (standing.removed.clone(), standing.bytes, standing.time)
        };
        // The newest commits are kept whatever the setting: followers reconnect, and operators ask about recent events.
        let due = match self.keep {
            RetentionLimit::Time(ms) => RemovalBounds { before: now.minus(ms.max(limits::KEEP_LEAST_MS)), spare: u64::MAX },
            RetentionLimit::Size(bytes) => {
                RemovalBounds { before: now.minus(limits::KEEP_LEAST_MS), spare: total.saturating_sub(bytes) }
            }
        };
        let store = self.inner.store();
        let frontier = retained_frontier::frontier_at(&*store, removed.before.max(1))?;
        let (next, frontier) = due.walk(&*store, &removed, goal, frontier)?;
        if next.before < removed.before.max(1) + limits::KEEP_COMMITS {
            return Ok(false);
        }
        if let Some(frontier) = frontier {
            // The frontier must be durable before the first commit is removed: the tree continues from it.
            retained_frontier::keep_frontier(&*store, &frontier, &removed, &next)?;
        }
        let record = Record::new(Author::Mayfly("audit.keep".into()), Event::HistoryRemoved(next.to_record()));
        let ledger = Ledger { inner: self.inner.clone() };
        let proposed = ledger.propose(ProposalKind::Change, vec![record]).map_err(|_| RetentionError::Record)?;
        match proposed.answer.blocking_recv() {
            Ok(Ok(_)) => Ok(true),
            _ => Err(RetentionError::Record),
        }
    }

    /// Removes commits up to the place that the newest removal record announces, one bounded piece after the other.
    fn take_out(&self) -> Result<(), RetentionError> {
        let before = self.inner.standing().removed.before;
        let store = self.inner.store();
        let mut oldest = store.oldest()?;
        // Read anew for each piece: a backup may begin in between.
        let until = || before.min(self.inner.pinned.load(Ordering::SeqCst));
        while oldest > 0 && oldest < until() && !self.stopping() {
            let watch = Stopwatch::start();
            let now = store.remove_some(until())?;
            if now == oldest {
                break;
            }
            oldest = now;
            watch.rest(TIMES, PAUSE);
        }
        Ok(())
    }

    /// The position up to which commits may be removed, whatever `audit.keep` says.
    fn goal(&mut self) -> Result<Option<Position>, RetentionError> {
        let Some(goal) = self.snapshots().map(|goal| goal.min(self.inner.alive_since.load(Ordering::Acquire))) else {
            return Ok(None);
        };
        let readers = self.inner.readers.read().clone();
        let goal = match readers.export {
            // Commits that were not exported yet are kept.
            true => goal.min(export_position(&*self.inner.store())?.map_or(0, |place| place.position)),
            false => goal,
        };
        let mut goal = goal;
        for name in &readers.followed {
            // Commits that a follower of the log has not read yet are kept.
            let at = self.inner.store().named(name)?.and_then(|bytes| Some(parse_follower_position(&bytes)?.0.position));
            goal = goal.min(at.unwrap_or(0));
        }
        Ok(Some(goal).filter(|goal| *goal > 1))
    }

    /// Commits after the older of the two snapshots are kept, so that one broken snapshot file never prevents a start. The digests of both
    /// files are checked before anything is removed because of them.
    fn snapshots(&mut self) -> Option<Position> {
        let dir = self.inner.settings.snapshots.clone()?;
        let [Some(newest), Some(before)] = self.inner.standing().snapshots else { return None };
        let taken = [newest, before];
        if self.sound != Some(taken) {
            let sound = |t: &SnapshotRef| snapshot::digest(&snapshot::path(&dir, t.seq)).is_ok_and(|digest| digest == t.digest);
            if !taken.iter().all(sound) {
                return None;
            }
            self.sound = Some(taken);
        }
        taken.iter().map(|t| t.position + 1).min()
    }
}

/// The bounds by which commits are due for removal.
struct RemovalBounds {
    /// Commits of this time and later are kept.
    before: Millis,
    /// Commits beyond so many bytes, counted from the ledger's first commit, are kept.
    spare: u64,
}

impl RemovalBounds {
    /// Walks from the end of the removed part over the commits that are due, up to a bound per removal record.
    ///
    /// If the tree's frontier is given for the start of the walk, it is carried along and returned for its end.
    fn walk(
        &self,
        store: &dyn Store,
        removed: &RemovedHistory,
        goal: Position,
        mut frontier: Option<Frontier>,
    ) -> Result<(RemovedHistory, Option<Frontier>), RetentionError> {
        let mut at = RemovedHistory { before: removed.before.max(1), ..removed.clone() };
        let most = removed.bytes + limits::KEEP_BYTES;
        while at.before < goal && at.bytes < most {
            let watch = Stopwatch::start();
            let entries = store.read(at.before, limits::KEEP_READ_BYTES)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let bad = |what| RetentionError::Commit(entry.at, what);
                if entry.at != at.before || entry.at >= goal {
                    return Ok((at, frontier));
                }
                let (header, [hash, leaf], first) = Commit::glance(&entry.bytes).map_err(bad)?;
                let bytes = at.bytes + entry.bytes.len() as u64;
                let time = Millis(header.time);
                if time >= self.before || bytes > self.spare {
                    return Ok((at, frontier));
                }
                // The commit that begins a generation sets the seq.
                let seq = seq_after(at.seq, &first);
                at.seq = Seq::from_u64(seq.as_u64() + u64::from(header.records.saturating_sub(1))).unwrap_or(seq);
                at.chains.insert(header.writer, WriterHead { number: header.number, hash, time });
                (at.before, at.bytes, at.time) = (entry.at + 1, bytes, time);
                frontier.iter_mut().for_each(|f| f.push(leaf));
            }
            watch.rest(TIMES, PAUSE);
        }
        Ok((at, frontier))
    }
}

impl State {
    /// Bytes of the commits that are kept, including those announced for removal but not yet removed.
    pub fn kept_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.removed.bytes)
    }
}
