//! Data derived from the history by a background thread that reads durable commits: the tree over all commits, and the index of names.
//!
//! Issuing never waits for this thread. Everything can be rebuilt from the store, except the part of the tree that covers removed commits:
//! for these the tree's frontier is kept in the store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::commit::{Commit, Hash};
use crate::reader::commit_scan::ScannedCommit;
use crate::reader::history_query::HistoryReadStats;
use crate::reader::index::HistoryIndex;
use crate::reader::index::segment::IndexSegment;
use crate::reader::index::segment_builder::SegmentBuilder;
use crate::reader::log_reader::LogCursor;
use crate::tree::frontier::Frontier;
use crate::tree::retained_frontier::base;
use crate::tree::stored::{CommitEnd, MerkleTree, ProofError};
use crate::writer::durable_summary::mark_background_thread;
use crate::{DiskSpace, Inner, Ledger};
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_base::system::Stopwatch;
use mayfly_store::Position;
use mayfly_verify::seq::Seq;

/// Pause between two pieces of history, so that other threads go first.
const PAUSE: Duration = Duration::from_millis(20);

/// The tree, or the reason why there is none; and the index.
pub(crate) struct DerivedData {
    tree: Mutex<Result<MerkleTree, String>>,
    /// The index of the names in the history.
    pub index: Mutex<HistoryIndex>,
    /// The files are damaged and must be rebuilt.
    rebuild: AtomicBool,
    /// A caller waits for the index: it is built without pauses.
    hurry: AtomicBool,
    /// Commits of history read to answer queries since the start, and their bytes.
    commits_read: AtomicU64,
    bytes_read: AtomicU64,
    /// Set once, when the thread is started.
    thread: std::sync::OnceLock<std::thread::Thread>,
}

impl Default for DerivedData {
    fn default() -> DerivedData {
        let thread = std::sync::OnceLock::new();
        let tree = Mutex::new(Err("it was not read yet".to_owned()));
        DerivedData {
            tree,
            index: Mutex::default(),
            rebuild: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            commits_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            thread,
        }
    }
}

impl DerivedData {
    /// Counts history that was read to answer a query.
    pub fn count_read(&self, commits: u64, bytes: usize) {
        self.commits_read.fetch_add(commits, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The counts of history read to answer queries.
    pub fn read(&self) -> HistoryReadStats {
        HistoryReadStats {
            commits: self.commits_read.load(Ordering::Relaxed),
            bytes: self.bytes_read.load(Ordering::Relaxed),
            pages: self.index.lock().pages(),
        }
    }
}

impl Ledger {
    pub(crate) fn derive_in_background(&self) {
        let inner = self.inner.clone();
        let started = std::thread::Builder::new().name("ledger-derive".into()).spawn(move || {
            mark_background_thread();
            Deriver {
                inner,
                place: None,
                hole: None,
                unfilled: None,
                opened: false,
                flushed: Stopwatch::start(),
                said: String::new(),
            }
            .run();
        });
        match started {
            Ok(thread) => {
                let _ = self.inner.derived.thread.set(thread.thread().clone());
                self.inner.keep(thread);
            }
            Err(error) => {
                tracing::error!(%error, "the Merkle tree over the history is not built: its thread could not be started")
            }
        }
    }

    /// Passes the tree over the commits, as far as it is built, to `read`, with the place where its newest commit ends.
    ///
    /// A fault when there is no tree: it is not read yet, it cannot be written, or its beginning was removed by a version that did not keep
    /// the frontier.
    pub fn tree<T>(&self, read: impl FnOnce(&MerkleTree) -> T) -> Result<T, Fault> {
        match &*self.inner.derived.tree.lock() {
            Ok(tree) => Ok(read(tree)),
            Err(why) => Err(Fault::new(format!("the Merkle tree over the history is not available: {why}"))),
        }
    }

    /// Wakes the thread to index new commits at once; with `hurry`, everything that the index lacks is built without pauses.
    pub(crate) fn wake_index(&self, hurry: bool) {
        if hurry {
            self.inner.derived.hurry.store(true, Ordering::Relaxed);
        }
        if let Some(thread) = self.inner.derived.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the thread to extend the tree at once; if a proof found the tree damaged, the tree is rebuilt.
    pub fn wake_tree(&self, damaged: Option<&ProofError>) {
        if let Some(ProofError::Damaged(what)) = damaged {
            tracing::warn!(what, "the Merkle tree over the history is damaged and is rebuilt");
            self.inner.derived.rebuild.store(true, Ordering::Relaxed);
            *self.inner.derived.tree.lock() = Err("it is being built again".to_owned());
        }
        if let Some(thread) = self.inner.derived.thread.get() {
            thread.unpark();
        }
    }
}

/// The state of the background thread.
struct Deriver {
    inner: Arc<Inner>,
    /// The place in the log from which the tree is extended; `None`: the tree is still to be opened.
    place: Option<LogCursor>,
    /// A missing part of the index that is being built, and where that part ends.
    hole: Option<(SegmentBuilder, Position)>,
    /// When a missing part could last not be written.
    unfilled: Option<Stopwatch>,
    /// The index files were read.
    opened: bool,
    flushed: Stopwatch,
    said: String,
}

impl Deriver {
    fn run(mut self) {
        while !self.stopping() {
            let watch = Stopwatch::start();
            let more = self.process_piece().unwrap_or_else(|why| {
                if self.said != why {
                    tracing::warn!(why, "the Merkle tree over the history could not be extended; it is retried");
                    self.said = why;
                }
                false
            });
            match more {
                // A caller waits for the result, for example an operator in an incident: take no pause. The thread's low priority is the
                // only brake then.
                true if self.inner.derived.hurry.load(Ordering::Relaxed) => {}
                // A caller that needs the result wakes the thread.
                true => std::thread::park_timeout(PAUSE.max(Duration::from_micros(watch.us() * limits::DERIVE_REST))),
                false => {
                    self.inner.derived.hurry.store(false, Ordering::Relaxed);
                    std::thread::park_timeout(Duration::from_millis(limits::DERIVE_LOOK_MS));
                }
            }
        }
        self.write_tail();
        if let Ok(tree) = &mut *self.inner.derived.tree.lock()
            && let Err(error) = tree.flush()
        {
            tracing::warn!(%error, "the newest part of the Merkle tree could not be written; the next start rebuilds it");
        }
    }

    /// Writes the incomplete last segment to disk, so that a start need not read it again: at a stop, and every few blocks in case the
    /// process ends without one.
    fn write_tail(&self) {
        let (dir, tail) = {
            let index = self.inner.derived.index.lock();
            (index.dir().map(Path::to_owned), index.tail.clone())
        };
        if self.inner.room() == DiskSpace::Plenty
            && let (Some(dir), Some(tail)) = (dir, tail)
            && let Err(error) = tail.segment(Some(&dir))
        {
            tracing::warn!(%error, "the newest part of the history index could not be written; the next start rebuilds it");
        }
    }

    fn stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Relaxed)
    }

    /// Starts a part of the index at a place.
    fn building(&self, from: LogCursor) -> SegmentBuilder {
        SegmentBuilder::of_blocks(from, self.inner.settings.index_block)
    }

    fn dir(&self) -> Option<std::path::PathBuf> {
        self.inner.settings.history.as_ref().map(|dir| dir.join("tree"))
    }

    /// Processes one piece of the durable log. Returns true when there may be more.
    fn process_piece(&mut self) -> Result<bool, String> {
        if self.inner.broken() {
            return Ok(false);
        }
        if self.inner.derived.tree.lock().is_err() {
            self.place = None;
        }
        // The index is built even when there is no tree.
        let why_not = match self.place {
            Some(_) => None,
            None => self.open().map(|place| self.place = Some(place)).err(),
        };
        let tail = self.tail()?;
        let place = self.place.filter(|place| place.position <= tail.position).unwrap_or(tail);
        let ledger = Ledger { inner: self.inner.clone() };
        let Some(steps) = ledger.scan_commits(place, limits::READER_BYTES).map_err(|e| e.to_string())? else {
            return Ok(self.overtaken());
        };
        self.grow(&steps)?;
        self.index(&steps)?;
        match why_not {
            Some(why) if steps.is_empty() => Err(why),
            _ => Ok(!steps.is_empty() || self.fill(&ledger)?),
        }
    }

    /// Adds commits to the tree.
    fn grow(&mut self, steps: &[ScannedCommit]) -> Result<(), String> {
        let mut held = self.inner.derived.tree.lock();
        let Ok(tree) = &mut *held else { return Ok(()) };
        if let Err(why) = self.rebase(tree) {
            (*held, self.place) = (Err(why.clone()), None);
            return Err(why);
        }
        for step in steps {
            if self.place.is_none_or(|place| place.position != step.position) {
                continue;
            }
            match take(tree, step) {
                Ok(place) => self.place = Some(place),
                Err(why) => {
                    // The tree in memory no longer matches the files.
                    (*held, self.place) = (Err(why.clone()), None);
                    return Err(why);
                }
            }
        }
        let due = tree.unwritten() >= limits::DERIVE_FLUSH_COMMITS || self.flushed.us() >= limits::DERIVE_FLUSH_MS * 1000;
        // The rest of a nearly full disk is left to revocations.
        if due && tree.unwritten() > 0 && self.inner.room() == DiskSpace::Plenty {
            tree.flush().map_err(|e| e.to_string())?;
            self.flushed = Stopwatch::start();
        }
        Ok(())
    }

    /// The oldest place that is kept.
    fn removed(&self) -> LogCursor {
        self.inner.standing().removed.oldest()
    }

    /// Where indexing of new commits continues.
    fn tail(&mut self) -> Result<LogCursor, String> {
        let removed = self.removed();
        let mut index = self.inner.derived.index.lock();
        if !self.opened {
            let dir = self.inner.settings.history.as_ref().map(|dir| dir.join("index"));
            let mut found = HistoryIndex::open(dir.as_deref()).map_err(|e| e.to_string())?;
            if let Some(newest) = found.newest()
                && !self.is_ours(newest.end().position - 1, newest.leaf())?
            {
                tracing::warn!("the history index beside the store belongs to another ledger and is rebuilt");
                found.clear();
            }
            found.resume(self.inner.settings.index_block);
            (*index, self.opened) = (found, true);
        }
        let begin = index.newest().map_or(removed, IndexSegment::end);
        let begin = if begin.position < removed.position { removed } else { begin };
        Ok(index.tail.get_or_insert_with(|| self.building(begin)).place())
    }

    /// Adds commits to the index.
    fn index(&self, steps: &[ScannedCommit]) -> Result<(), String> {
        let removed = self.removed().position;
        let mut written = self.inner.derived.index.lock().tail.as_ref().map_or(0, |tail| tail.blocks().len());
        for step in steps {
            let mut index = self.inner.derived.index.lock();
            if removed > 1 {
                index.forget_before(removed);
            }
            let Some(tail) = index.tail.as_mut().filter(|tail| tail.place().position == step.position) else { continue };
            let full = tail.take(step).map_err(|e| format!("commit {}: {e}", step.position))?;
            let blocks = tail.blocks().len();
            if full {
                let next = self.building(tail.place());
                let built = index.tail.replace(next).filter(|_| self.inner.room() == DiskSpace::Plenty);
                let Some(built) = built.map(Arc::new) else { continue };
                // Sorting, writing and syncing take long, so queries must not wait for them. A segment that cannot be written leaves a
                // hole, which is filled later.
                let dir = index.seal(built.clone());
                drop(index);
                let made = built.segment(dir.as_deref());
                let failed = made.as_ref().err().map(ToString::to_string);
                self.inner.derived.index.lock().sealed(made.ok().flatten());
                failed.map_or(Ok(()), Err)?;
            } else if blocks > written && blocks.is_multiple_of(limits::INDEX_WRITE_BLOCKS) {
                drop(index);
                self.write_tail();
            }
            written = blocks;
        }
        Ok(())
    }

    /// Continues with a missing part of the index. Returns true when there may be more to do.
    fn fill(&mut self, ledger: &Ledger) -> Result<bool, String> {
        let recent = |failed: &Stopwatch| failed.us() < limits::INDEX_RETRY_MS * 1000;
        if self.inner.room() != DiskSpace::Plenty || self.unfilled.as_ref().is_some_and(recent) {
            return Ok(false);
        }
        if self.hole.is_none() {
            let removed = self.removed();
            let index = self.inner.derived.index.lock();
            let tail = index.tail.as_ref().map(|tail| tail.from().position);
            let (place, until) = index.hole(removed);
            let until = until.or(tail).filter(|until| place.position < *until);
            self.hole = until.map(|until| (self.building(place), until));
        }
        let Some((mut built, until)) = self.hole.take() else { return Ok(false) };
        let steps = ledger.scan_commits(built.place(), limits::READER_BYTES).map_err(|e| e.to_string())?;
        let mut full = false;
        for step in steps.unwrap_or_default().iter().filter(|step| step.position < until) {
            full = built.take(step).map_err(|e| format!("commit {}: {e}", step.position))?;
            if full {
                break;
            }
        }
        if full || built.place().position >= until {
            let made = built.segment(self.inner.derived.index.lock().dir().map(Path::to_owned).as_deref());
            self.unfilled = made.is_err().then(Stopwatch::start);
            let made = made.map_err(|e| e.to_string())?;
            self.inner.derived.index.lock().fill(made);
        } else if built.place() != built.from() {
            self.hole = Some((built, until));
        }
        Ok(true)
    }

    /// Opens the tree on the disk if the log still matches it.
    fn open(&mut self) -> Result<LogCursor, String> {
        let store = self.inner.store();
        let dir = self.dir();
        let Some(base) = base(&*store).map_err(|e| e.to_string())? else {
            let why = "the first commits were removed and their frontier is not kept".to_owned();
            *self.inner.derived.tree.lock() = Err(why.clone());
            return Err(why);
        };
        let cannot = |e: std::io::Error| e.to_string();
        if self.inner.derived.rebuild.load(Ordering::Relaxed) {
            anew(dir.as_deref(), &base.frontier).map_err(cannot)?;
            self.inner.derived.rebuild.store(false, Ordering::Relaxed);
        }
        let mut tree = MerkleTree::open(dir.as_deref(), &base.frontier).map_err(cannot)?;
        let newest = tree.node((0, tree.size().saturating_sub(1))).unwrap_or_default();
        if tree.size() > base.frontier.size() && !self.is_ours(tree.size(), newest)? {
            tracing::warn!("the Merkle tree beside the store belongs to another ledger and is rebuilt");
            tree = anew(dir.as_deref(), &base.frontier).map_err(cannot)?;
        }
        if tree.size() == base.frontier.size() {
            tree.mark = base.mark;
        }
        let place = place_after(&tree);
        *self.inner.derived.tree.lock() = Ok(tree);
        Ok(place)
    }

    /// Whether the commit at a position has this leaf.
    fn is_ours(&self, position: Position, leaf: Hash) -> Result<bool, String> {
        let durable = self.inner.durable_position.load(Ordering::Acquire);
        let entries = self.inner.store().read(position, 1).map_err(|e| e.to_string())?;
        let entry = entries.into_iter().next().filter(|e| e.at == position && position <= durable);
        let Some(entry) = entry else { return Ok(false) };
        let (_, [_, found], _) = Commit::glance(&entry.bytes).map_err(|e| e.to_string())?;
        Ok(found == leaf)
    }

    /// Retention removed commits that were not processed yet: processing begins again at the oldest kept commit.
    fn overtaken(&mut self) -> bool {
        *self.inner.derived.tree.lock() = Err("retention was faster; it begins again".to_owned());
        self.inner.derived.index.lock().tail = None;
        (self.place, self.hole) = (None, None);
        true
    }

    /// Drops the part that covers commits removed from the store.
    fn rebase(&self, tree: &mut MerkleTree) -> Result<(), String> {
        let store = self.inner.store();
        let oldest = store.oldest().map_err(|e| e.to_string())?;
        if oldest <= 1 || oldest - 1 <= tree.base() {
            return Ok(());
        }
        match base(&*store).map_err(|e| e.to_string())? {
            Some(base) if base.frontier.size() > tree.size() => Ok(()),
            Some(base) => match tree.rebase(&base.frontier).map_err(|e| e.to_string())? {
                true => Ok(()),
                false => {
                    self.inner.derived.rebuild.store(true, Ordering::Relaxed);
                    Err("what retention kept of removed commits is not what the tree says of them; it is built again".to_owned())
                }
            },
            None => Ok(()),
        }
    }
}

fn anew(dir: Option<&Path>, base: &Frontier) -> std::io::Result<MerkleTree> {
    match dir {
        Some(dir) => MerkleTree::anew(dir, base),
        None => MerkleTree::open(None, base),
    }
}

fn place_after(tree: &MerkleTree) -> LogCursor {
    LogCursor { position: tree.size() + 1, seq: Seq::from_u64(tree.mark.seq).unwrap_or(Seq::ZERO) }
}

fn take(tree: &mut MerkleTree, step: &ScannedCommit) -> Result<LogCursor, String> {
    tree.push(step.leaf).map_err(|e| e.to_string())?;
    tree.mark = CommitEnd { seq: step.last.as_u64(), time: step.header.time };
    Ok(place_after(tree))
}
