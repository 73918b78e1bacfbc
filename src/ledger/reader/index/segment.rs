//! A segment of the index in a file: its blocks, and the sorted fingerprints of its names in pages of 4 KiB with a checksum each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::commit::{Hash, sha256};
use crate::reader::log_reader::LogCursor;
use mayfly_store::Position;
use mayfly_verify::seq::Seq;

/// Blocks per segment: one bit each.
pub const BLOCKS: usize = 64;
/// Bytes per page.
pub const PAGE: usize = 4096;
/// Bytes of the checksum at the end of a page: the beginning of the SHA-256 of the rest.
const SUM: usize = 16;
/// Bytes per entry: a fingerprint and its block.
const ENTRY: usize = 5;
/// Entries per page.
const ENTRIES: usize = (PAGE - SUM) / ENTRY;
/// The first bytes of a file: its format. A file of another format is rebuilt.
const MAGIC: &[u8; 8] = b"mayflyi\x03";
/// Bytes before the blocks: the magic, six numbers and a leaf.
const HEAD: usize = 8 + 6 * 8 + 32;

/// The index entry of about a MiB of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first commit.
    pub first: Position,
    /// The seq before the first record.
    pub before: u64,
    /// The earliest commit time, milliseconds.
    pub oldest: u64,
    /// The latest commit time, milliseconds.
    pub newest: u64,
}

/// Where the names are stored.
#[derive(Debug)]
pub enum Entries {
    /// In a file, from byte `at` on.
    File { path: PathBuf, at: u64, pages: u64 },
    /// In memory, when there is no directory.
    Memory(Vec<Box<[u32]>>),
}

/// A segment of the index.
#[derive(Debug)]
pub struct IndexSegment {
    from: LogCursor,
    end: LogCursor,
    blocks: Vec<Block>,
    entries: Entries,
    /// The tree leaf of its last commit; shows whether the segment belongs to this ledger.
    leaf: Hash,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The file extension of a segment that is being written.
pub const WRITING: &str = "writing";

/// The blocks whose row contains a name, one bit each.
pub fn mask(rows: &[Box<[u32]>], name: u32) -> u64 {
    let of = rows.iter().enumerate().filter(|(_, row)| row.binary_search(&name).is_ok());
    of.fold(0, |mask, (block, _)| mask | 1 << block)
}

/// Passes all (name, block) pairs to `take`, sorted; each input row holds one block's sorted names. It works on one share of the names at a
/// time, which fits into the CPU caches. A pair is one number: the name, with the block in the last byte.
fn in_order(rows: &[Box<[u32]>], mut take: impl FnMut(&[u64]) -> io::Result<()>) -> io::Result<()> {
    let mut rest: Vec<&[u32]> = rows.iter().map(|row| &**row).collect();
    let (mut share, mut aside) = (Vec::new(), Vec::new());
    for first in 0..=u8::MAX {
        share.clear();
        for (block, row) in (0..).zip(&mut rest) {
            let (of, after) = row.split_at(row.partition_point(|name| name >> 24 <= u32::from(first)));
            share.extend(of.iter().map(|name| u64::from(*name) << 8 | block));
            *row = after;
        }
        sort(&mut share, &mut aside);
        take(&share)?;
    }
    Ok(())
}

/// Sorts a share whose names have the same first byte and differ in three bytes. A counting sort instead of comparisons halves the time to
/// make a segment. Pairs of one name keep their order.
fn sort(share: &mut Vec<u64>, aside: &mut Vec<u64>) {
    aside.resize(share.len(), 0);
    for shift in [8, 16, 24] {
        let digit = |pair: u64| usize::from((pair >> shift) as u8);
        let mut places = [0_usize; 256];
        for pair in &*share {
            places[digit(*pair)] += 1;
        }
        let mut next = 0;
        for place in &mut places {
            next += std::mem::replace(place, next);
        }
        for pair in &*share {
            let place = &mut places[digit(*pair)];
            if let Some(to) = aside.get_mut(*place) {
                *to = *pair;
            }
            *place += 1;
        }
        std::mem::swap(share, aside);
    }
}

fn write(aside: &Path, head: &[u8], rows: &[Box<[u32]>]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(aside)?;
    let mut file = BufWriter::new(file);
    file.write_all(head)?;
    let mut page = Vec::with_capacity(PAGE);
    in_order(rows, |share| {
        share.iter().try_for_each(|pair| {
            let [_, _, _, entry @ ..] = pair.to_be_bytes();
            page.extend(entry);
            if page.len() == ENTRIES * ENTRY { write_page(&mut file, &mut page) } else { Ok(()) }
        })
    })?;
    if !page.is_empty() {
        write_page(&mut file, &mut page)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Writes the entries of a page, and their checksum. The rest of the page is filled with entries of block 255, which does not exist.
fn write_page(file: &mut impl io::Write, page: &mut Vec<u8>) -> io::Result<()> {
    page.resize(ENTRIES * ENTRY, u8::MAX);
    let sum = sha256(page);
    page.extend(sum.iter().take(SUM));
    file.write_all(page)?;
    page.clear();
    Ok(())
}

impl IndexSegment {
    /// The place before its first commit.
    pub fn from(&self) -> LogCursor {
        self.from
    }

    /// The place after its last commit.
    pub fn end(&self) -> LogCursor {
        self.end
    }

    /// The blocks, oldest first.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The leaf of its last commit.
    pub fn leaf(&self) -> Hash {
        self.leaf
    }

    /// Where the names are stored.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The block of a commit, with its number; `None` for a commit outside of the segment.
    pub fn block_of(&self, at: Position) -> Option<(Block, usize)> {
        let within = (self.from.position..self.end.position).contains(&at);
        let number = self.blocks.partition_point(|b| b.first <= at).checked_sub(1).filter(|_| within)?;
        Some((*self.blocks.get(number)?, number))
    }

    /// Makes a segment of each block's sorted names; if there is a directory, the file is written under a temporary name, synced and
    /// renamed.
    pub fn make(
        dir: Option<&Path>,
        (from, end): (LogCursor, LogCursor),
        blocks: Vec<Block>,
        rows: Vec<Box<[u32]>>,
        leaf: Hash,
    ) -> io::Result<IndexSegment> {
        let Some(dir) = dir else {
            return Ok(IndexSegment { from, end, blocks, entries: Entries::Memory(rows), leaf });
        };
        let path = dir.join(format!("{:016x}.names", from.position));
        let aside = path.with_extension(WRITING);
        let entries = rows.iter().map(|row| row.len()).sum::<usize>();
        let head = head((from, end), &blocks, entries, &leaf);
        let written = write(&aside, &head, &rows).and_then(|()| fs::rename(&aside, &path));
        if let Err(error) = written {
            // An unfinished file would take the room that revocations need.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        File::open(dir)?.sync_all()?;
        let pages = entries.div_ceil(ENTRIES) as u64;
        Ok(IndexSegment { from, end, blocks, entries: Entries::File { path, at: head.len() as u64, pages }, leaf })
    }

    /// Reads the head of a file, without the names.
    pub fn load(path: &Path) -> io::Result<IndexSegment> {
        let mut file = File::open(path)?;
        let mut bytes = vec![0; HEAD];
        file.read_exact(&mut bytes)?;
        let count = usize::try_from(number(&bytes, 4)?).unwrap_or(usize::MAX);
        if count == 0 || count > BLOCKS {
            return Err(bad("a number of blocks that no segment has"));
        }
        bytes.resize(HEAD + count * 32 + 32, 0);
        file.read_exact(bytes.get_mut(HEAD..).unwrap_or_default())?;
        let mut segment = read_head(&bytes)?;
        let length = file.metadata()?.len();
        if let Entries::File { path: of, at, pages } = &mut segment.entries {
            path.clone_into(of);
            if length != *at + *pages * PAGE as u64 {
                return Err(bad("another length than it says"));
            }
        }
        Ok(segment)
    }

    /// Deletes the file. If that fails, the file is rebuilt or the history is scanned.
    pub fn remove(self) {
        if let Entries::File { path, .. } = self.entries
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a segment of the history index could not be deleted");
        }
    }

    /// For each of these sorted fingerprints, the blocks that may contain it, one bit each. `pages` counts the pages that are read.
    pub fn masks(&self, names: &[u32], pages: &mut u64) -> io::Result<Vec<u64>> {
        match &self.entries {
            Entries::Memory(rows) => Ok(names.iter().map(|name| mask(rows, *name)).collect()),
            Entries::File { path, at, pages: count } => {
                let mut look = Pages { file: File::open(path)?, at: *at, count: *count, last: None, read: 0 };
                let masks = names.iter().map(|name| look.mask(*name)).collect();
                *pages += look.read;
                masks
            }
        }
    }

    /// The fingerprints of its names, one row per block, as they were before they were written.
    pub fn rows(&self) -> io::Result<Vec<Box<[u32]>>> {
        match &self.entries {
            Entries::Memory(rows) => Ok(rows.clone()),
            Entries::File { path, at, pages } => {
                let mut rows = vec![Vec::new(); self.blocks.len()];
                let file = File::open(path)?;
                for n in 0..*pages {
                    for (name, block) in read_page(&file, at + n * PAGE as u64)? {
                        rows.get_mut(usize::from(block)).ok_or_else(|| bad("a block that it has not"))?.push(name);
                    }
                }
                Ok(rows.into_iter().map(Vec::into_boxed_slice).collect())
            }
        }
    }
}

/// Reads the pages of a segment. The last page is kept, since successive names are often on one page.
struct Pages {
    file: File,
    at: u64,
    count: u64,
    last: Option<(u64, Vec<(u32, u8)>)>,
    read: u64,
}

impl Pages {
    fn page(&mut self, n: u64) -> io::Result<&[(u32, u8)]> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != n) {
            self.last = Some((n, read_page(&self.file, self.at + n * PAGE as u64)?));
            self.read += 1;
        }
        Ok(self.last.as_ref().map_or(&[], |(_, page)| page))
    }

    /// The first page whose last entry is not below the name. Fingerprints are uniformly distributed, so interpolation comes close at once:
    /// two pages are read where a binary search would read ten.
    fn find(&mut self, name: u32) -> io::Result<u64> {
        const GUESSES: u32 = 4;
        let (mut low, mut high) = (0, self.count);
        let (mut least, mut most) = (0, u64::from(u32::MAX));
        let mut guesses = 0;
        while low < high {
            let guess =
                u128::from(high - low) * u128::from(u64::from(name).saturating_sub(least)) / u128::from((most - least).max(1));
            let middle = match guesses < GUESSES {
                true => low + u64::try_from(guess).unwrap_or(u64::MAX).min(high - low - 1),
                false => low + (high - low) / 2,
            };
            guesses += 1;
            let page = self.page(middle)?;
            let (Some((first, _)), Some((last, _))) = (page.first().copied(), page.last().copied()) else {
                return Err(bad("a page without names"));
            };
            if last < name {
                (low, least) = (middle + 1, u64::from(last));
            } else if first < name {
                return Ok(middle);
            } else {
                (high, most) = (middle, u64::from(first));
            }
        }
        Ok(low)
    }

    fn mask(&mut self, name: u32) -> io::Result<u64> {
        let mut mask = 0;
        for n in self.find(name)?..self.count {
            let page = self.page(n)?;
            let begin = page.partition_point(|(known, _)| *known < name);
            let of = page.iter().skip(begin).take_while(|(known, _)| *known == name);
            mask = of.fold(mask, |mask, (_, block)| mask | 1 << block);
            if page.last().is_some_and(|(last, _)| *last > name) {
                break;
            }
        }
        Ok(mask)
    }
}

fn head((from, end): (LogCursor, LogCursor), blocks: &[Block], entries: usize, leaf: &Hash) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let numbers = [from.position, from.seq.as_u64(), end.position, end.seq.as_u64(), blocks.len() as u64, entries as u64];
    numbers.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
    bytes.extend(leaf);
    for block in blocks {
        [block.first, block.before, block.oldest, block.newest].iter().for_each(|n| bytes.extend(n.to_be_bytes()));
    }
    bytes.extend(sha256(&bytes));
    bytes
}

fn number(bytes: &[u8], n: usize) -> io::Result<u64> {
    let at = 8 + n * 8;
    let eight = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
    eight.map(u64::from_be_bytes).ok_or_else(|| bad("cut off"))
}

/// Decodes a head and verifies it. The caller sets where the names are.
pub fn read_head(bytes: &[u8]) -> io::Result<IndexSegment> {
    let (body, digest) = bytes.split_last_chunk::<32>().ok_or_else(|| bad("cut off"))?;
    if sha256(body) != *digest || !body.starts_with(MAGIC) {
        return Err(bad("not what was written there"));
    }
    let place = |n: usize| -> io::Result<LogCursor> {
        let seq = Seq::from_u64(number(body, n + 1)?).ok_or_else(|| bad("a seq that no store gives"))?;
        Ok(LogCursor { position: number(body, n)?, seq })
    };
    let entries = number(body, 5)?;
    let leaf: Hash = body.get(HEAD - 32..HEAD).and_then(|b| b.try_into().ok()).ok_or_else(|| bad("cut off"))?;
    let (from, end) = (place(0)?, place(2)?);
    let mut blocks = Vec::new();
    // Blocks follow the head; numbers are counted from after the magic.
    for n in 0..usize::try_from(number(body, 4)?).unwrap_or(usize::MAX).min(BLOCKS) {
        let at = |k: usize| number(body, (HEAD - 8) / 8 + n * 4 + k);
        blocks.push(Block { first: at(0)?, before: at(1)?, oldest: at(2)?, newest: at(3)? });
    }
    let pages = entries.div_ceil(ENTRIES as u64);
    Ok(IndexSegment { from, end, blocks, entries: Entries::File { path: PathBuf::new(), at: bytes.len() as u64, pages }, leaf })
}

fn read_page(file: &File, at: u64) -> io::Result<Vec<(u32, u8)>> {
    let mut bytes = [0; PAGE];
    file.read_exact_at(&mut bytes, at)?;
    let (entries, sum) = bytes.split_at(ENTRIES * ENTRY);
    if !sha256(entries).starts_with(sum) {
        return Err(bad("a page is not what was written there"));
    }
    let (entries, _) = entries.as_chunks::<ENTRY>();
    let all = entries.iter().map(|[a, b, c, d, block]| (u32::from_be_bytes([*a, *b, *c, *d]), *block));
    Ok(all.filter(|(_, block)| usize::from(*block) < BLOCKS).collect())
}
