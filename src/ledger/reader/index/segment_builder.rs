//! An index segment under construction in memory, which grows with each commit.

use std::io;
use std::path::Path;

use super::segment::{self, BLOCKS, Block, IndexSegment};
use super::{fingerprint, fingerprint_of};
use crate::commit::{BadCommit, Hash};
use crate::reader::commit_scan::ScannedCommit;
use crate::reader::log_reader::LogCursor;
use crate::record::RecordName;
use mayfly_store::Position;

/// The index of a stretch of history.
#[derive(Clone, Debug)]
pub struct SegmentBuilder {
    from: LogCursor,
    place: LogCursor,
    block_bytes: usize,
    blocks: Vec<Block>,
    /// The fingerprints of each block except the newest, sorted and without duplicates: four bytes each, without spare capacity.
    rows: Vec<Box<[u32]>>,
    /// The fingerprints of the newest block, possibly with duplicates: appending only keeps them from displacing other data in the CPU
    /// caches.
    newest: Vec<u32>,
    /// Bytes of the newest block's records.
    bytes: usize,
    /// The tree leaf of the newest commit.
    leaf: Hash,
}

impl SegmentBuilder {
    /// A segment that begins at `from`, with blocks of about `block_bytes`.
    pub fn of_blocks(from: LogCursor, block_bytes: usize) -> SegmentBuilder {
        let (blocks, rows) = (Vec::new(), Vec::new());
        SegmentBuilder { from, place: from, block_bytes, blocks, rows, newest: Vec::new(), bytes: 0, leaf: [0; 32] }
    }

    /// The place where it began.
    pub fn from(&self) -> LogCursor {
        self.from
    }

    /// The place where it continues.
    pub fn place(&self) -> LogCursor {
        self.place
    }

    /// Whether the segment contains a commit.
    pub fn covers(&self, at: Position) -> bool {
        (self.from.position..self.place.position).contains(&at)
    }

    /// The blocks, oldest first.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The block of a commit, with the block's number.
    pub fn block_of(&self, at: Position) -> Option<(Block, usize)> {
        let number = self.blocks.partition_point(|b| b.first <= at).checked_sub(1)?;
        Some((*self.blocks.get(number)?, number))
    }

    /// The blocks that may contain a name, one bit each.
    pub fn mask(&self, name: u32) -> u64 {
        let sealed = segment::mask(&self.rows, name);
        match self.newest.contains(&name) {
            true => sealed | 1 << self.blocks.len().saturating_sub(1),
            false => sealed,
        }
    }

    /// Adds the next commit. Returns true when the segment is full and must be written.
    pub fn take(&mut self, step: &ScannedCommit) -> Result<bool, BadCommit> {
        let ends = self.bytes >= self.block_bytes && self.blocks.len() < BLOCKS;
        if self.blocks.is_empty() || ends {
            if ends {
                self.end_block();
            }
            let (first, before) = (step.position, step.before.as_u64());
            self.blocks.push(Block { first, before, oldest: u64::MAX, newest: 0 });
        }
        step.names(&mut |named| {
            self.newest.push(match named {
                RecordName::Text(_, name) => fingerprint(name),
                RecordName::Digest(digest) => fingerprint_of(digest),
            });
        })?;
        self.bytes += step.bytes;
        if let Some(block) = self.blocks.last_mut() {
            let time = step.header.time;
            (block.oldest, block.newest) = (block.oldest.min(time), block.newest.max(time));
        }
        self.leaf = step.leaf;
        self.place = LogCursor { position: step.position + 1, seq: step.last };
        Ok(self.blocks.len() == BLOCKS && self.bytes >= self.block_bytes)
    }

    fn end_block(&mut self) {
        self.newest.sort_unstable();
        self.newest.dedup();
        self.rows.push(self.newest.as_slice().into());
        self.newest.clear();
        self.bytes = 0;
    }

    /// Makes a segment of the commits so far, in a file if a directory is given; `None` if it is empty.
    pub fn segment(&self, dir: Option<&Path>) -> io::Result<Option<IndexSegment>> {
        if self.blocks.is_empty() {
            return Ok(None);
        }
        let mut newest = self.newest.clone();
        newest.sort_unstable();
        newest.dedup();
        let mut rows = self.rows.clone();
        rows.push(newest.into_boxed_slice());
        IndexSegment::make(dir, (self.from, self.place), self.blocks.clone(), rows, self.leaf).map(Some)
    }

    /// Continues a segment that was written before it was full, for example at a stop.
    pub fn resume(segment: &IndexSegment, block_bytes: usize) -> io::Result<SegmentBuilder> {
        let mut rows = segment.rows()?;
        let newest = rows.pop().map(Vec::from).unwrap_or_default();
        // The newest block ends with the next commit, because its number of bytes is not stored.
        let (from, place, blocks, leaf) = (segment.from(), segment.end(), segment.blocks().to_vec(), segment.leaf());
        Ok(SegmentBuilder { from, place, block_bytes, blocks, rows, newest, bytes: block_bytes, leaf })
    }
}
