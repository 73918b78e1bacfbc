//! The records of the write-ahead log, and the place of the next one.
//!
//! A record begins at a block boundary: a header, the commit's bytes, zeros up to the next block. All records of one file since it was last
//! started over share its salt: 16 random bytes, so that neither older content of the file nor bytes inside a commit are taken for a
//! record.

use super::medium::{BLOCK, Medium};
use super::of_file;
use super::write_back::WalState;
use crate::{Position, StoreError, StoreId};
use mayfly_base::system;

const MAGIC: [u8; 8] = *b"mayflyWL";
const SUM: usize = 4;
/// Magic, store, salt, turn, position, length, checksum.
const HEAD: usize = 8 + 16 + 16 + 8 + 8 + 4 + SUM;

/// Identifies the records of one file since it was last started over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogEpoch {
    pub salt: [u8; 16],
    /// Higher than that of every earlier turn.
    pub number: u64,
}

/// One log file.
pub(super) struct LogFile {
    medium: Box<dyn Medium>,
    bytes: u64,
    /// The last position in it, 0 for none.
    last: Position,
}

/// All log files.
pub(super) struct LogFiles {
    id: StoreId,
    files: Vec<LogFile>,
    current: usize,
    turn: LogEpoch,
    /// Offset of the next record. At the end of the file if the current file must not be written to.
    end: u64,
    record: Aligned,
}

impl LogFile {
    /// `bytes`: a whole number of blocks.
    pub fn new(medium: Box<dyn Medium>, bytes: usize, last: Position) -> LogFile {
        LogFile { medium, bytes: bytes as u64, last }
    }
}

impl LogFiles {
    /// A log with the content found in the files, of which `current` was started last. Nothing more is written to that file.
    pub fn new(id: StoreId, files: Vec<LogFile>, current: usize, number: u64) -> LogFiles {
        LogFiles { id, files, current, turn: LogEpoch { salt: [0; 16], number }, end: u64::MAX, record: Aligned::default() }
    }

    /// A log that accepts nothing.
    pub fn none(id: StoreId) -> LogFiles {
        LogFiles::new(id, Vec::new(), 0, 0)
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Whether a commit of this size fits behind the last one.
    pub fn has_room(&self, len: usize) -> bool {
        let bytes = self.files.get(self.current).map_or(0, |f| f.bytes);
        self.end.checked_add(on_disk(len) as u64).is_some_and(|end| end <= bytes)
    }

    /// Whether it fits into an empty file.
    pub fn ever_has_room(&self, len: usize) -> bool {
        self.files.iter().all(|f| on_disk(len) as u64 <= f.bytes)
    }

    /// Leaves the current file, which is to be moved to the engine, for the next one. Returns the position up to which commits must have
    /// been moved before the next file is written to.
    pub fn turn_to_next(&mut self, shared: &WalState) -> Position {
        if let Some(left) = self.files.get(self.current) {
            shared.due(left.last);
        }
        self.current = (self.current + 1) % self.files.len().max(1);
        self.turn.number += 1;
        self.end = 0;
        self.files.get(self.current).map_or(0, |f| f.last)
    }

    /// Flushes everything that was found in the files to stable storage.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.files.iter().enumerate().try_for_each(|(n, file)| file.medium.flush().map_err(|e| of_file("syncing", n, &e)))
    }

    /// Commits went to the engine directly: the next record starts another file, so that positions are consecutive in each file.
    pub fn passed(&mut self) {
        self.end = u64::MAX;
    }

    /// Writes a record and returns when it is durable.
    pub fn append(&mut self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        let n = self.current;
        let Some(file) = self.files.get_mut(n) else { return Err(StoreError::Failed("the log has no file".to_owned())) };
        if self.end == 0 {
            self.turn.salt = system::salt16();
        }
        let room = self.record.room(on_disk(bytes.len()));
        write_record(room, self.id, self.turn, at, bytes);
        file.medium.write(self.end, room).map_err(|e| of_file("writing", n, &e))?;
        file.medium.flush().map_err(|e| of_file("syncing", n, &e))?;
        file.last = at;
        self.end += room.len() as u64;
        Ok(())
    }
}

/// Bytes that a commit of this size takes in a file.
fn on_disk(len: usize) -> usize {
    (HEAD + len).next_multiple_of(BLOCK)
}

fn write_record(room: &mut [u8], id: StoreId, turn: LogEpoch, at: Position, bytes: &[u8]) {
    let (head, rest) = room.split_at_mut(HEAD);
    let (body, padding) = rest.split_at_mut(bytes.len());
    body.copy_from_slice(bytes);
    padding.fill(0);
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let numbers = [&turn.number.to_le_bytes()[..], &at.to_le_bytes(), &len.to_le_bytes()].concat();
    let (about, sum) = head.split_at_mut(HEAD - SUM);
    about.copy_from_slice(&[&MAGIC[..], id.as_bytes(), &turn.salt, &numbers].concat());
    sum.copy_from_slice(&checksum(about, body).to_le_bytes());
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    sum.update(body);
    sum.finalize()
}

/// A record that was found.
pub(super) struct WalRecord<'a> {
    pub turn: LogEpoch,
    pub at: Position,
    pub bytes: &'a [u8],
    /// Bytes that it takes in the file.
    pub on_disk: usize,
}

/// The record that begins here, if there is a valid one of this store.
pub(super) fn read_record(from: &[u8], id: StoreId) -> Option<WalRecord<'_>> {
    let (head, rest) = from.split_at_checked(HEAD)?;
    let mut fields = Fields(head);
    if fields.take::<8>()? != MAGIC || fields.take::<16>()? != *id.as_bytes() {
        return None;
    }
    let turn = LogEpoch { salt: fields.take()?, number: u64::from_le_bytes(fields.take()?) };
    let at = Position::from_le_bytes(fields.take()?);
    let len = usize::try_from(u32::from_le_bytes(fields.take()?)).ok()?;
    let sum = u32::from_le_bytes(fields.take()?);
    let bytes = rest.get(..len)?;
    (checksum(head.get(..HEAD - SUM)?, bytes) == sum).then(|| WalRecord { turn, at, bytes, on_disk: on_disk(len) })
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

/// Memory aligned to a block.
#[derive(Default)]
pub(crate) struct Aligned(Vec<u8>);

impl Aligned {
    /// A buffer of `len` bytes; its former content is not cleared.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len + BLOCK {
            self.0 = vec![0; len + BLOCK];
        }
        let start = self.0.as_ptr().align_offset(BLOCK).min(BLOCK);
        self.0.get_mut(start..start + len).unwrap_or_default()
    }
}
