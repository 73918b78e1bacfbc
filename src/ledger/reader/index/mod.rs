//! The index of names: for about each MiB of history it holds the fingerprints of all names in its records, so that a search reads little
//! of the history.
//!
//! - [`segment_builder`]: builds a segment from commits, in memory. [`segment`]: a segment in its file.
//!
//! The index is derived data and only says where a name may occur: the commits that it points to are read and checked. The part that it
//! does not cover is scanned. A missing or damaged file is rebuilt from the store.

pub mod segment;
pub mod segment_builder;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use crate::commit::BadCommit;
use crate::reader::commit_scan::ScannedCommit;
use crate::reader::log_reader::LogCursor;
use crate::reader::search::HistoryFilter;
use crate::record::{RecordName, main_objects};
use mayfly_store::Position;
use mayfly_verify::seq::{Millis, Seq};
use segment::{Block, Entries, IndexSegment};
use segment_builder::SegmentBuilder;

/// The fingerprint of a name. It is not secret, and two names may share one; then a block is read needlessly.
///
/// Names of revocation targets ([`main_objects::RULE`]) are sorted together at the beginning: the query which revocation covers a
/// credential asks for about twenty of them.
pub fn fingerprint(name: &str) -> u32 {
    let mut digest = [0; 32];
    if name.starts_with(main_objects::RULE) {
        return mixed(name.as_bytes()) >> 8;
    }
    match name.len() == 64 && data_encoding::HEXLOWER.decode_mut(name.as_bytes(), &mut digest).is_ok() {
        true => fingerprint_of(&digest),
        false => mixed(name.as_bytes()),
    }
}

/// The fingerprint of a SHA-256's lower-case hex form, computed without writing the hex, since a digest is uniformly distributed already.
pub fn fingerprint_of(digest: &[u8; 32]) -> u32 {
    let [a, b, c, d, ..] = *digest;
    u32::from_be_bytes([a, b, c, d])
}

/// Hashes eight bytes at a time: each is multiplied at double width and folded. The result is persisted, so a change needs a new format.
fn mixed(bytes: &[u8]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |hash: u64, word: u64| {
        let wide = u128::from(hash ^ word) * u128::from(ODD);
        (wide >> 64) as u64 ^ wide as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let hash = words.iter().fold(bytes.len() as u64 ^ 0xcbf2_9ce4_8422_2325, |hash, word| fold(hash, u64::from_le_bytes(*word)));
    (fold(fold(hash, u64::from_le_bytes(last)), ODD) >> 32) as u32
}

/// The index of the whole history.
#[derive(Debug, Default)]
pub struct HistoryIndex {
    dir: Option<PathBuf>,
    /// By their first commit. Consecutive except for holes, which are filled later.
    segments: BTreeMap<Position, IndexSegment>,
    /// The newest part, which is not in a segment yet.
    pub tail: Option<SegmentBuilder>,
    /// The part that is being written as a segment now.
    sealing: Option<Arc<SegmentBuilder>>,
    /// Number of segment pages read.
    pages: u64,
}

/// Where a search continues according to the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The commit may contain a match, and so may the commits before it down to this one, which belong to the same block.
    Look(Position),
    /// Neither this commit nor any commit back to this place contains a match.
    Skip(LogCursor),
}

/// A part of the history that a query searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRange {
    /// The place where it begins.
    pub from: LogCursor,
    /// The place after the stretch.
    pub end: LogCursor,
    /// The index covers it and says that it may contain a match. If false, nothing is known about it.
    pub covered: bool,
}

/// A block, its number in its segment, where the segment begins and ends, and the place after the block.
struct BlockLocation {
    block: Block,
    number: usize,
    segment: (Position, Position),
    end: LogCursor,
}

/// A search request: the records that match at least one of several filters.
#[derive(Debug, Default)]
pub struct IndexQuery {
    filters: Vec<QueryFilter>,
    /// The fingerprints of all names, sorted and without duplicates.
    names: Vec<u32>,
    /// The segment consulted last, and the blocks that may contain each name. Identified by its end as well, because the newest segment
    /// grows.
    segment: Option<((Position, Position), Vec<u64>)>,
}

/// One filter; its names as indexes into the sorted names.
#[derive(Debug)]
struct QueryFilter {
    names: Vec<usize>,
    since: Option<Millis>,
    until: Option<Millis>,
    seq: Option<Seq>,
}

impl IndexQuery {
    /// A request for one filter.
    pub fn new(filter: &HistoryFilter) -> IndexQuery {
        IndexQuery::any(std::slice::from_ref(filter))
    }

    /// A request for the records that match any of these filters.
    pub fn any(filters: &[HistoryFilter]) -> IndexQuery {
        let prints = |filter: &HistoryFilter| filter.names.iter().map(|(_, name)| fingerprint(name)).collect::<Vec<_>>();
        let mut names: Vec<u32> = filters.iter().flat_map(prints).collect();
        names.sort_unstable();
        names.dedup();
        let wanted = |filter: &HistoryFilter| QueryFilter {
            names: prints(filter).iter().filter_map(|name| names.binary_search(name).ok()).collect(),
            since: filter.since,
            until: filter.until,
            seq: filter.seq,
        };
        IndexQuery { filters: filters.iter().map(wanted).collect(), names, segment: None }
    }

    /// Whether a commit may contain a match, judged by its time and by the names in its records: far less work than decoding it.
    pub fn may_be_in(&self, commit: &ScannedCommit) -> Result<bool, BadCommit> {
        let (at, before, last) = (Millis(commit.header.time), commit.before, commit.last);
        let in_time = |f: &&QueryFilter| f.since.is_none_or(|since| at >= since) && f.until.is_none_or(|until| at < until);
        let has_seq = |f: &&QueryFilter| f.seq.is_none_or(|seq| seq > before && seq <= last);
        let left: Vec<&QueryFilter> = self.filters.iter().filter(in_time).filter(has_seq).collect();
        if left.is_empty() || left.iter().any(|f| f.names.is_empty()) {
            return Ok(!left.is_empty());
        }
        let mut seen = vec![false; self.names.len()];
        commit.names(&mut |named| {
            let at = self.names.binary_search(&fingerprint_of_named(&named)).ok();
            if let Some(seen) = at.and_then(|at| seen.get_mut(at)) {
                *seen = true;
            }
        })?;
        Ok(left.iter().any(|f| f.names.iter().all(|name| seen.get(*name).is_some_and(|seen| *seen))))
    }

    /// Whether a block may contain a match, judged by its segment's entries for the names.
    fn may_be_in_block(&self, found: &BlockLocation, masks: &[u64]) -> bool {
        let BlockLocation { block, number, end, .. } = found;
        self.filters.iter().any(|f| {
            let named = f.names.iter().all(|name| masks.get(*name).is_some_and(|mask| mask >> number & 1 == 1));
            let since = f.since.is_none_or(|since| block.newest >= since.0);
            let until = f.until.is_none_or(|until| block.oldest < until.0);
            let has_seq = f.seq.is_none_or(|seq| seq.as_u64() > block.before && seq <= end.seq);
            named && since && until && has_seq
        })
    }
}

/// The fingerprint of a name in a record.
pub fn fingerprint_of_named(named: &RecordName<'_>) -> u32 {
    match named {
        RecordName::Text(_, name) => fingerprint(name),
        RecordName::Digest(digest) => fingerprint_of(digest),
    }
}

impl HistoryIndex {
    /// Opens the index in a directory. Files that cannot be read are skipped and rebuilt.
    pub fn open(dir: Option<&Path>) -> io::Result<HistoryIndex> {
        let mut index = HistoryIndex { dir: dir.map(Path::to_owned), ..HistoryIndex::default() };
        let Some(dir) = dir else { return Ok(index) };
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == segment::WRITING) {
                // The process ended while it wrote this file.
                fs::remove_file(&path)?;
                continue;
            }
            if path.extension().is_none_or(|e| e != "names") {
                continue;
            }
            match IndexSegment::load(&path) {
                Ok(segment) => drop(index.segments.insert(segment.from().position, segment)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a segment of the history index could not be loaded and is rebuilt")
                }
            }
        }
        Ok(index)
    }

    /// Continues the newest segment if it is not full, as after a stop, with blocks of about `block_bytes`.
    pub fn resume(&mut self, block_bytes: usize) {
        let Some((first, newest)) = self.segments.iter().next_back().filter(|(_, s)| s.blocks().len() < segment::BLOCKS) else {
            return;
        };
        match SegmentBuilder::resume(newest, block_bytes) {
            Ok(tail) => self.tail = Some(tail),
            Err(error) => tracing::warn!(%error, "the newest segment of the history index could not be read and is rebuilt"),
        }
        // The file stays until a fuller segment replaces it; both begin at the same place, so both have the same name.
        let first = *first;
        self.segments.remove(&first);
    }

    /// The newest segment.
    pub fn newest(&self) -> Option<&IndexSegment> {
        self.segments.values().next_back()
    }

    /// Drops everything, for example when the index belongs to another ledger.
    pub fn clear(&mut self) {
        (self.tail, self.sealing) = (None, None);
        for (_, segment) in std::mem::take(&mut self.segments) {
            segment.remove();
        }
    }

    /// Drops the entries about commits before a position.
    pub fn forget_before(&mut self, position: Position) {
        let kept = self.segments.split_off(&position);
        for (first, segment) in std::mem::replace(&mut self.segments, kept) {
            if segment.end().position > position {
                self.segments.insert(first, segment);
            } else {
                segment.remove();
            }
        }
    }

    /// The first stretch from a place on that the index does not cover, and where it ends; `None`: it ends at the newest commit.
    pub fn hole(&self, from: LogCursor) -> (LogCursor, Option<Position>) {
        let mut place = from;
        for segment in self.segments.values().filter(|s| s.end().position > from.position) {
            if segment.from().position > place.position {
                return (place, Some(segment.from().position));
            }
            place = segment.end();
        }
        (place, None)
    }

    /// Adds a finished segment.
    #[cfg(test)]
    pub fn add(&mut self, built: &SegmentBuilder) -> io::Result<()> {
        let made = built.segment(self.dir.as_deref())?;
        self.put(made);
        Ok(())
    }

    /// Begins to write a finished segment: searches still use it in memory until [`HistoryIndex::sealed`]. Returns the directory for its
    /// file.
    pub fn seal(&mut self, built: Arc<SegmentBuilder>) -> Option<PathBuf> {
        self.sealing = Some(built);
        self.dir.clone()
    }

    /// Adds the written segment; `None` leaves a hole, which is filled later.
    pub fn sealed(&mut self, made: Option<IndexSegment>) {
        self.sealing = None;
        self.put(made);
    }

    /// Adds the segment that fills a hole.
    pub fn fill(&mut self, made: Option<IndexSegment>) {
        self.put(made);
    }

    fn put(&mut self, made: Option<IndexSegment>) {
        if let Some(segment) = made {
            self.segments.insert(segment.from().position, segment);
        }
    }

    /// The directory of the segment files.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Number of segment pages read since the start.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Where a search at a commit continues; `None`: the index does not cover the commit.
    pub fn hint(&mut self, asked: &mut IndexQuery, at: Position) -> Option<Hint> {
        let mut at = at;
        let mut skipped = None;
        loop {
            let Some(found) = self.block_of(at) else { return skipped.map(Hint::Skip) };
            let block = found.block;
            match self.may_hold(asked, &found) {
                None => return skipped.map(Hint::Skip),
                Some(true) => return Some(skipped.map_or(Hint::Look(block.first), Hint::Skip)),
                Some(false) => {}
            }
            let place = LogCursor { position: block.first, seq: Seq::from_u64(block.before).unwrap_or(Seq::ZERO) };
            skipped = Some(place);
            if block.first <= 1 {
                return skipped.map(Hint::Skip);
            }
            at = block.first - 1;
        }
    }

    /// Where a forward reader continues: at this place, or after the blocks that cannot contain a match.
    pub fn next(&mut self, asked: &mut IndexQuery, from: LogCursor) -> LogCursor {
        let mut place = from;
        while let Some(found) = self.block_of(place.position) {
            if self.may_hold(asked, &found) != Some(false) {
                break;
            }
            place = found.end;
        }
        place
    }

    /// The parts of history between two places that may contain a match, oldest first: blocks, and stretches that are not covered.
    pub fn stretches(&mut self, asked: &mut IndexQuery, from: LogCursor, end: LogCursor) -> Vec<HistoryRange> {
        let (mut place, mut out) = (from, Vec::new());
        while place.position < end.position {
            let found = self.block_of(place.position);
            let verdict = found.and_then(|found| Some((self.may_hold(asked, &found)?, found.end)));
            let next = match &verdict {
                Some((_, next)) => *next,
                None => self.covered_after(place.position).unwrap_or(end),
            };
            let next = if next.position < end.position { next } else { end };
            if verdict.is_none_or(|(may, _)| may) {
                out.push(HistoryRange { from: place, end: next, covered: verdict.is_some() });
            }
            place = next;
        }
        out
    }

    /// The beginning of the next segment after a commit that none covers.
    fn covered_after(&self, at: Position) -> Option<LogCursor> {
        let segments = self.segments.range(at + 1..).next().map(|(_, segment)| segment.from());
        let building = [self.tail.as_ref(), self.sealing.as_deref()].into_iter().flatten().map(SegmentBuilder::from);
        building.filter(|place| place.position > at).chain(segments).min_by_key(|place| place.position)
    }

    /// How many of the commits between two places are covered.
    pub fn covered(&self, from: Position, end: Position) -> u64 {
        let segments = self.segments.values().map(|s| (s.from().position, s.end().position));
        let building = [self.tail.as_ref(), self.sealing.as_deref()].into_iter().flatten();
        let all = segments.chain(building.map(|b| (b.from().position, b.place().position)));
        all.map(|(first, after)| after.min(end).saturating_sub(first.max(from))).sum()
    }

    /// Whether a block may contain a match; `None` if that cannot be read.
    fn may_hold(&mut self, asked: &mut IndexQuery, found: &BlockLocation) -> Option<bool> {
        if asked.segment.as_ref().is_none_or(|(known, _)| *known != found.segment) {
            match self.masks(found.segment.0, &asked.names) {
                Ok(masks) => asked.segment = Some((found.segment, masks)),
                Err(error) => {
                    tracing::warn!(%error, "a segment of the history index is damaged and is rebuilt");
                    self.segments.remove(&found.segment.0).into_iter().for_each(IndexSegment::remove);
                    return None;
                }
            }
        }
        asked.segment.as_ref().map(|(_, masks)| asked.may_be_in_block(found, masks))
    }

    /// The in-memory part that covers a commit.
    fn in_memory(&self, covers: impl Fn(&SegmentBuilder) -> bool) -> Option<&SegmentBuilder> {
        [self.tail.as_ref(), self.sealing.as_deref()].into_iter().flatten().find(|building| covers(building))
    }

    /// The block of a commit, and its segment.
    fn block_of(&self, at: Position) -> Option<BlockLocation> {
        let (found, blocks, segment, last) = match self.in_memory(|building| building.covers(at)) {
            Some(building) => (building.block_of(at)?, building.blocks(), building.from().position, building.place()),
            None => {
                let (first, segment) = self.segments.range(..=at).next_back()?;
                (segment.block_of(at)?, segment.blocks(), *first, segment.end())
            }
        };
        let (block, number) = found;
        let place = |next: &Block| Some(LogCursor { position: next.first, seq: Seq::from_u64(next.before)? });
        let end = blocks.get(number + 1).map_or(Some(last), place)?;
        Some(BlockLocation { block, number, segment: (segment, last.position), end })
    }

    fn masks(&mut self, segment: Position, names: &[u32]) -> io::Result<Vec<u64>> {
        if let Some(building) = self.in_memory(|building| building.from().position == segment) {
            return Ok(names.iter().map(|name| building.mask(*name)).collect());
        }
        match self.segments.get(&segment) {
            Some(segment) => segment.masks(names, &mut self.pages),
            None => Ok(vec![0; names.len()]),
        }
    }

    /// A place from which a forward scan reaches the record: the beginning of its block, if the record is covered.
    pub fn place_of(&self, seq: Seq) -> Option<LogCursor> {
        let seq = seq.as_u64();
        let building = [self.tail.as_ref(), self.sealing.as_deref()].into_iter().flatten();
        let blocks = building.flat_map(|building| building.blocks().iter().rev());
        let mut all = blocks.chain(self.segments.values().rev().flat_map(|s| s.blocks().iter().rev()));
        let end = self.tail.as_ref().map(|tail| tail.place()).or(self.newest().map(IndexSegment::end))?;
        if seq > end.seq.as_u64() {
            return None;
        }
        let block = all.find(|block| block.before <= seq)?;
        Some(LogCursor { position: block.first, seq: Seq::from_u64(block.before)? })
    }

    /// Bytes on the disk, and number of segments.
    pub fn size(&self) -> (u64, usize) {
        let bytes = self.segments.values().map(|s| match s.entries() {
            Entries::File { pages, .. } => pages * segment::PAGE as u64,
            Entries::Memory(rows) => rows.iter().map(|row| row.len() as u64 * 4).sum(),
        });
        (bytes.sum(), self.segments.len())
    }
}
