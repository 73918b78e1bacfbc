//! Retention: the oldest commits go when they are older, or more, than `audit.keep` says.
//!
//! What is gone has to be missed by nobody: not by a start, which folds what follows a snapshot; not by a request that is sent again, whose
//! credential is made from its record. So commits go up to the older of the two snapshots that the log vouches for, and up to the oldest
//! issuance of what lived when the newest was begun, whatever `audit.keep` says. That they go is a record before the first of them does, with the hash that
//! what stays continues: a beginning that is missing without one is damage. Where a continuous export is set, what it did not take yet stays.
//!
//! It works in the background, in pieces that an append can wait for, and also while the disk is full: a removal takes what it needs from
//! the reserve.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::commit::{BadCommit, ChainHead, Commit};
use super::forward::Place;
use super::record::{Event, Record, Who};
use super::standing::in_the_background;
use super::state::{Removed, State, Taken, seq_after};
use super::tree::frontier::Frontier;
use super::tree::kept;
use super::verify::EVERYTHING;
use super::{Inner, Lane, Ledger, snapshot};
use crate::limits;
use crate::seq::{Millis, Seq};
use crate::store::{Position, Store, StoreError};
use crate::system::Stopwatch;

/// What of the history stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The last milliseconds.
    Time(u64),
    /// The last bytes of commits.
    Size(u64),
}

/// Disk and cores are left to others for so many times as long as a piece of the work took …
const TIMES: u32 = 2;
/// … and for this at the most: a file of 64 MiB in 200 ms is more than any load writes.
const PAUSE: Duration = Duration::from_millis(50);

/// Why nothing could be removed now.
#[derive(Debug, thiserror::Error)]
enum Cannot {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("commit {0}: {1}")]
    Commit(Position, BadCommit),
    #[error("its record could not be written")]
    Record,
}

/// The named value that says how far the continuous export is.
pub const EXPORTED: &str = "export/place";

/// How far the continuous export is: the next commit, and the last seq before it, eight bytes each.
pub fn exported(store: &dyn Store) -> Result<Option<Place>, StoreError> {
    Ok(store.named(EXPORTED)?.and_then(|bytes| Some(noted(&bytes)?.0)))
}

/// The place at the beginning of a named value of those who follow the log, and the rest of it.
pub fn noted(bytes: &[u8]) -> Option<(Place, &[u8])> {
    let (position, rest) = bytes.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let seq = Seq::from_u64(u64::from_be_bytes(*seq))?;
    Some((Place { position: u64::from_be_bytes(*position), seq }, rest))
}

impl Ledger {
    pub(super) fn keep_in_background(&self, keep: Keep) {
        let inner = self.inner.clone();
        let frozen = inner.look().frozen();
        let started = std::thread::Builder::new().name("ledger-keep".into()).spawn(move || {
            in_the_background();
            inner.note_alive(&frozen);
            drop(frozen);
            Keeper { inner, keep, sound: None }.run();
        });
        match started {
            Ok(thread) => {
                // Set once, here.
                let _ = self.inner.keeper.set(thread.thread().clone());
                self.inner.keep(thread);
            }
            Err(error) => tracing::error!(%error, "history stays as it is: no thread"),
        }
    }
}

/// History that stays for as long as this lives. There is one at a time.
pub struct Pinned {
    inner: Arc<Inner>,
    /// The oldest commit that stays, and the seq before it.
    pub oldest: Place,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.inner.pinned.store(u64::MAX, Ordering::SeqCst);
    }
}

impl Ledger {
    /// Has all that is kept now stay for a while; `None` where somebody else does.
    pub fn pin(&self) -> Option<Pinned> {
        // All of it, until it is known from where on.
        self.inner.pinned.compare_exchange(u64::MAX, 0, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        let oldest = self.inner.standing().removed.oldest();
        self.inner.pinned.store(oldest.position, Ordering::SeqCst);
        Some(Pinned { inner: self.inner.clone(), oldest })
    }

    /// The file of one of these snapshots that stands for what came before a commit, read and found whole.
    pub fn sound_snapshot(&self, taken: &[Taken], before: Position) -> Option<(Seq, std::path::PathBuf)> {
        let dir = self.inner.settings.snapshots.as_ref()?;
        let mut found = taken.iter().filter(|t| t.position + 1 >= before).map(|t| (t, snapshot::path(dir, t.seq)));
        let sound = found.find(|(t, path)| snapshot::digest(path).is_ok_and(|digest| digest == t.digest));
        sound.map(|(t, path)| (t.seq, path))
    }
}

struct Keeper {
    inner: Arc<Inner>,
    keep: Keep,
    /// The snapshots whose files were read and found whole.
    sound: Option<[Taken; 2]>,
}

impl Keeper {
    fn run(mut self) {
        let mut said = String::new();
        while !self.stopping() {
            let more = self.round().unwrap_or_else(|why| {
                let why = why.to_string();
                if said != why {
                    tracing::warn!(%why, "old history could not be removed; it is tried again");
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

    /// Removes what a record says is to go, then looks whether more is due. True where there was.
    fn round(&mut self) -> Result<bool, Cannot> {
        // What is damaged is evidence, and what was not verified yet may be.
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
        // The newest stays whatever is set: followers come back, and operators ask about what just happened.
        let due = match self.keep {
            Keep::Time(ms) => Due { before: now.minus(ms.max(limits::KEEP_LEAST_MS)), spare: u64::MAX },
            Keep::Size(bytes) => Due { before: now.minus(limits::KEEP_LEAST_MS), spare: total.saturating_sub(bytes) },
        };
        let store = self.inner.store();
        let frontier = kept::frontier_at(&*store, removed.before.max(1))?;
        let (next, frontier) = due.walk(&*store, &removed, goal, frontier)?;
        if next.before < removed.before.max(1) + limits::KEEP_COMMITS {
            return Ok(false);
        }
        if let Some(frontier) = frontier {
            // Durable before the first commit goes: the tree goes on from it.
            kept::keep_frontier(&*store, &frontier, &removed, &next)?;
        }
        let record = Record::new(Who::Mayfly("audit.keep".into()), Event::HistoryRemoved(next.to_record()));
        let ledger = Ledger { inner: self.inner.clone() };
        let proposed = ledger.propose(Lane::Change, vec![record]).map_err(|_| Cannot::Record)?;
        match proposed.answer.blocking_recv() {
            Ok(Ok(_)) => Ok(true),
            _ => Err(Cannot::Record),
        }
    }

    /// Removes up to where the newest record says, one bounded piece after the other.
    fn take_out(&self) -> Result<(), Cannot> {
        let before = self.inner.standing().removed.before;
        let store = self.inner.store();
        let mut oldest = store.oldest()?;
        // Asked anew each time: a backup may begin meanwhile.
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

    /// Up to where commits may go, whatever is set.
    fn goal(&mut self) -> Result<Option<Position>, Cannot> {
        let Some(goal) = self.snapshots().map(|goal| goal.min(self.inner.alive_since.load(Ordering::Acquire))) else {
            return Ok(None);
        };
        let readers = self.inner.readers.read().clone();
        let goal = match readers.export {
            // What was not exported stays.
            true => goal.min(exported(&*self.inner.store())?.map_or(0, |place| place.position)),
            false => goal,
        };
        let mut goal = goal;
        for name in &readers.followed {
            // What somebody is still to be told of stays.
            let at = self.inner.store().named(name)?.and_then(|bytes| Some(noted(&bytes)?.0.position));
            goal = goal.min(at.unwrap_or(0));
        }
        Ok(Some(goal).filter(|goal| *goal > 1))
    }

    /// What follows the older of two snapshots stays, so that a broken file never stops a start. Both are read before anything rests on them.
    fn snapshots(&mut self) -> Option<Position> {
        let dir = self.inner.settings.snapshots.clone()?;
        let [Some(newest), Some(before)] = self.inner.standing().snapshots else { return None };
        let taken = [newest, before];
        if self.sound != Some(taken) {
            let sound = |t: &Taken| snapshot::digest(&snapshot::path(&dir, t.seq)).is_ok_and(|digest| digest == t.digest);
            if !taken.iter().all(sound) {
                return None;
            }
            self.sound = Some(taken);
        }
        taken.iter().map(|t| t.position + 1).min()
    }
}

/// What is due, beside what may go.
struct Due {
    /// Commits of this time and later stay.
    before: Millis,
    /// More than so many bytes since the first commit do not go.
    spare: u64,
}

impl Due {
    /// Goes on from what is removed as far as commits are due, within a bound for one record.
    ///
    /// The tree's frontier there comes with it, where it was known where this begins.
    fn walk(
        &self,
        store: &dyn Store,
        removed: &Removed,
        goal: Position,
        mut frontier: Option<Frontier>,
    ) -> Result<(Removed, Option<Frontier>), Cannot> {
        let mut at = Removed { before: removed.before.max(1), ..removed.clone() };
        let most = removed.bytes + limits::KEEP_BYTES;
        while at.before < goal && at.bytes < most {
            let watch = Stopwatch::start();
            let entries = store.read(at.before, limits::KEEP_READ_BYTES)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let bad = |what| Cannot::Commit(entry.at, what);
                if entry.at != at.before || entry.at >= goal {
                    return Ok((at, frontier));
                }
                let (header, [hash, leaf], first) = Commit::glance(&entry.bytes).map_err(bad)?;
                let bytes = at.bytes + entry.bytes.len() as u64;
                let time = Millis(header.time);
                if time >= self.before || bytes > self.spare {
                    return Ok((at, frontier));
                }
                // A generation begins with its commit.
                let seq = seq_after(at.seq, &first);
                at.seq = Seq::from_u64(seq.as_u64() + u64::from(header.records.saturating_sub(1))).unwrap_or(seq);
                at.chains.insert(header.writer, ChainHead { number: header.number, hash, time });
                (at.before, at.bytes, at.time) = (entry.at + 1, bytes, time);
                frontier.iter_mut().for_each(|f| f.push(leaf));
            }
            watch.rest(TIMES, PAUSE);
        }
        Ok((at, frontier))
    }
}

impl State {
    /// Bytes of the commits that are kept, or are still to be removed.
    pub fn kept_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.removed.bytes)
    }
}
