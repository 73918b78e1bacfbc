//! Where history names what: for about each MiB of it the fingerprints of all names in its records, so that a search reads little of it.
//!
//! - [`building`]: from commits to a segment, in memory. [`segment`]: a segment in its file.
//!
//! It is derived, and only ever says where something may be: what it points at is read and looked at. What it does not cover is read
//! through. A file that is missing or damaged is made again from the store.

pub mod building;
pub mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::forward::Place;
use super::search::Filter;
use crate::seq::Seq;
use crate::store::Position;
use building::Building;
use segment::{Block, Entries, Segment};

/// A name as the index has it. Not secret, and two names may share one: then a block is read in vain.
pub fn fingerprint(name: &str) -> u32 {
    let mut digest = [0; 32];
    match name.len() == 64 && data_encoding::HEXLOWER.decode_mut(name.as_bytes(), &mut digest).is_ok() {
        true => fingerprint_of(&digest),
        false => mixed(name.as_bytes()),
    }
}

/// That of a SHA-256 in lower-case hex, which need not be written so for it: it is as good as random already.
pub fn fingerprint_of(digest: &[u8; 32]) -> u32 {
    let [a, b, c, d, ..] = *digest;
    u32::from_be_bytes([a, b, c, d])
}

/// Eight bytes at a time, each multiplied in twice its width and folded. It is written down: another one is another format.
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
pub struct Index {
    dir: Option<PathBuf>,
    /// By their first commit. Neighbours but for holes, which are filled again.
    segments: BTreeMap<Position, Segment>,
    /// What was not put into a segment yet: the newest.
    pub tail: Option<Building>,
}

/// Where a search goes on, once the index was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The commit may hold what fits; those before it from this one on are of the same block.
    Look(Position),
    /// Neither this commit nor any after this place holds it.
    Skip(Place),
}

/// A block, its number in its stretch, the stretch, and the place after the block.
struct Found {
    block: Block,
    number: usize,
    stretch: Position,
    end: Place,
}

/// Where a search is: the blocks of one stretch that may hold what fits.
#[derive(Debug, Default)]
pub struct Asked {
    names: Vec<u32>,
    /// The stretch that was looked up last, and its mask.
    stretch: Option<(Position, u64)>,
}

impl Asked {
    /// For a filter.
    pub fn new(filter: &Filter) -> Asked {
        Asked { names: filter.names.iter().map(|(_, name)| fingerprint(name)).collect(), stretch: None }
    }
}

impl Index {
    /// What lies in a directory. Files that cannot be read are passed over: they are made again.
    pub fn open(dir: Option<&Path>) -> io::Result<Index> {
        let mut index = Index { dir: dir.map(Path::to_owned), ..Index::default() };
        let Some(dir) = dir else { return Ok(index) };
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == segment::WRITING) {
                // The process ended while it was written.
                fs::remove_file(&path)?;
                continue;
            }
            if path.extension().is_none_or(|e| e != "names") {
                continue;
            }
            match Segment::load(&path) {
                Ok(segment) => drop(index.segments.insert(segment.from().position, segment)),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a part of the index of history is made again"),
            }
        }
        Ok(index)
    }

    /// The newest segment.
    pub fn newest(&self) -> Option<&Segment> {
        self.segments.values().next_back()
    }

    /// Forgets everything, as where it is of another ledger.
    pub fn clear(&mut self) {
        self.tail = None;
        for (_, segment) in std::mem::take(&mut self.segments) {
            segment.remove();
        }
    }

    /// Forgets what is about commits before one.
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

    /// The first stretch from a place on that nothing covers, and where it ends; `None` for its end: the newest commit.
    pub fn hole(&self, from: Place) -> (Place, Option<Position>) {
        let mut place = from;
        for segment in self.segments.values().filter(|s| s.end().position > from.position) {
            if segment.from().position > place.position {
                return (place, Some(segment.from().position));
            }
            place = segment.end();
        }
        (place, None)
    }

    /// Takes what was built.
    pub fn add(&mut self, built: Building) -> io::Result<()> {
        let Some(segment) = built.into_segment(self.dir.as_deref())? else { return Ok(()) };
        self.segments.insert(segment.from().position, segment);
        Ok(())
    }

    /// Where a search that has come to a commit goes on; `None`: nothing is known of it.
    pub fn hint(&mut self, filter: &Filter, asked: &mut Asked, at: Position) -> Option<Hint> {
        let mut at = at;
        let mut skipped = None;
        loop {
            let Some(found) = self.block_of(at) else { return skipped.map(Hint::Skip) };
            let block = found.block;
            match self.may_hold(filter, asked, &found) {
                None => return skipped.map(Hint::Skip),
                Some(true) => return Some(skipped.map_or(Hint::Look(block.first), Hint::Skip)),
                Some(false) => {}
            }
            let place = Place { position: block.first, seq: Seq::from_u64(block.before).unwrap_or(Seq::ZERO) };
            skipped = Some(place);
            if block.first <= 1 {
                return skipped.map(Hint::Skip);
            }
            at = block.first - 1;
        }
    }

    /// Where somebody goes on who reads forward: the place itself, or one after what cannot hold what fits.
    pub fn next(&mut self, filter: &Filter, asked: &mut Asked, from: Place) -> Place {
        let mut place = from;
        while let Some(found) = self.block_of(place.position) {
            if self.may_hold(filter, asked, &found) != Some(false) {
                break;
            }
            place = found.end;
        }
        place
    }

    /// Whether a block may hold what fits; `None` where that cannot be told.
    fn may_hold(&mut self, filter: &Filter, asked: &mut Asked, found: &Found) -> Option<bool> {
        let Found { block, number, stretch, end } = found;
        if asked.stretch.is_none_or(|(known, _)| known != *stretch) {
            match self.mask(*stretch, &asked.names) {
                Ok(mask) => asked.stretch = Some((*stretch, mask)),
                Err(error) => {
                    tracing::warn!(%error, "a part of the index of history is damaged and is made again");
                    self.segments.remove(stretch).into_iter().for_each(Segment::remove);
                    return None;
                }
            }
        }
        let named = asked.stretch.is_some_and(|(_, mask)| mask >> number & 1 == 1);
        let since = filter.since.is_none_or(|since| block.newest >= since.0);
        let until = filter.until.is_none_or(|until| block.oldest < until.0);
        let has_seq = filter.seq.is_none_or(|seq| seq.as_u64() > block.before && seq <= end.seq);
        Some(named && since && until && has_seq)
    }

    /// The block of a commit, and the stretch that it is of.
    fn block_of(&self, at: Position) -> Option<Found> {
        let tail = self.tail.as_ref().filter(|tail| tail.covers(at));
        let (found, blocks, stretch, last) = match tail {
            Some(tail) => (tail.block_of(at)?, tail.blocks(), tail.from().position, tail.place()),
            None => {
                let (first, segment) = self.segments.range(..=at).next_back()?;
                (segment.block_of(at)?, segment.blocks(), *first, segment.end())
            }
        };
        let (block, number) = found;
        let place = |next: &Block| Some(Place { position: next.first, seq: Seq::from_u64(next.before)? });
        let end = blocks.get(number + 1).map_or(Some(last), place)?;
        Some(Found { block, number, stretch, end })
    }

    fn mask(&self, stretch: Position, names: &[u32]) -> io::Result<u64> {
        let tail = self.tail.as_ref().filter(|tail| tail.from().position == stretch);
        names.iter().try_fold(u64::MAX, |mask, name| {
            let of = match (tail, self.segments.get(&stretch)) {
                (Some(tail), _) => tail.mask(*name),
                (None, Some(segment)) => segment.mask(*name)?,
                (None, None) => 0,
            };
            Ok(mask & of)
        })
    }

    /// The place from which a record is found by going on: the beginning of its block, where it is covered.
    pub fn place_of(&self, seq: Seq) -> Option<Place> {
        let seq = seq.as_u64();
        let blocks = self.tail.iter().flat_map(|tail| tail.blocks().iter()).rev();
        let mut all = blocks.chain(self.segments.values().rev().flat_map(|s| s.blocks().iter().rev()));
        let end = self.tail.as_ref().map(|tail| tail.place()).or(self.newest().map(Segment::end))?;
        if seq > end.seq.as_u64() {
            return None;
        }
        let block = all.find(|block| block.before <= seq)?;
        Some(Place { position: block.first, seq: Seq::from_u64(block.before)? })
    }

    /// Bytes on the disk, and segments.
    pub fn size(&self) -> (u64, usize) {
        let bytes = self.segments.values().map(|s| match s.entries() {
            Entries::File { pages, .. } => pages * segment::PAGE as u64,
            Entries::Memory(rows) => rows.iter().map(|row| row.len() as u64 * 4).sum(),
        });
        (bytes.sum(), self.segments.len())
    }
}
