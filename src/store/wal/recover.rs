//! Recovery of the log after a crash.

use bytes::Bytes;

use super::file::{Aligned, LogEpoch, LogFile, LogFiles, WalRecord, read_record};
use super::medium::{self, BLOCK, Medium};
use super::of_file;
use crate::{Position, StoreError, StoreId, StoredCommit};
use mayfly_base::limits;

/// The content of one log file.
struct Content {
    /// The length, bytes.
    bytes: usize,
    /// The turn of its records.
    turn: Option<LogEpoch>,
    entries: Vec<StoredCommit>,
    /// Valid records behind an invalid one.
    behind: Vec<(LogEpoch, Position)>,
}

/// Scans all files of a log in front of an engine whose head is `head`. Returns the log, and the commits that the engine lacks, in order.
pub(super) fn recover(
    media: Vec<Box<dyn Medium>>,
    id: StoreId,
    head: Position,
) -> Result<(LogFiles, Vec<StoredCommit>), StoreError> {
    let contents = media.iter().enumerate().map(|(n, medium)| content(&**medium, n, id)).collect::<Result<Vec<_>, _>>()?;
    let newest = contents.iter().enumerate().filter_map(|(n, c)| Some((c.turn?.number, n))).max().unwrap_or_default();
    contents.iter().try_for_each(|content| nothing_lost(content, newest.0, head))?;
    let files =
        media.into_iter().zip(&contents).map(|(medium, c)| LogFile::new(medium, c.bytes, c.entries.last().map_or(0, |e| e.at)));
    let log = LogFiles::new(id, files.collect(), newest.1, newest.0);
    let mut in_order: Vec<Content> = contents.into_iter().filter(|c| c.turn.is_some()).collect();
    in_order.sort_by_key(|c| c.turn.map(|t| t.number));
    let mut found: Vec<StoredCommit> = Vec::new();
    for entry in in_order.into_iter().flat_map(|c| c.entries).filter(|e| e.at > head) {
        let expected = found.last().map_or(head, |e| e.at) + 1;
        if entry.at != expected {
            return Err(lost(expected, entry.at));
        }
        found.push(entry);
    }
    Ok((log, found))
}

/// Each record is durable before the next is written, so a valid record behind an invalid one shows that the disk lost data. Exception: a
/// file that was about to be started over may have lost any part, since the engine has all of it. A loss of its first record shows by the
/// turn numbers.
fn nothing_lost(content: &Content, newest: u64, head: Position) -> Result<(), StoreError> {
    let of_this_turn = |turn: LogEpoch| content.turn.map_or(turn.number > newest, |own| own == turn);
    match content.behind.iter().find(|(turn, at)| *at > head && of_this_turn(*turn)) {
        Some((_, at)) => Err(lost(content.entries.last().map_or(0, |last| last.at + 1), *at)),
        None => Ok(()),
    }
}

fn lost(at: Position, next: Position) -> StoreError {
    StoreError::Damaged { at, what: format!("the log has the commit at {next}, and not the one before it") }
}

/// All valid records of one file, whatever else is wrong with it, with their turn's number.
pub(super) fn valid_records(medium: &dyn Medium, n: usize, id: StoreId) -> Vec<(u64, StoredCommit)> {
    let mut whole = Aligned::default();
    let Ok(bytes) = read(medium, n, &mut whole) else { return Vec::new() };
    let (mut rest, mut out) = (&*bytes, Vec::new());
    while !rest.is_empty() {
        let found = read_record(rest, id);
        rest = rest.get(found.as_ref().map_or(BLOCK, |f| f.on_disk)..).unwrap_or_default();
        out.extend(found.map(|f| (f.turn.number, f.entry())));
    }
    out
}

fn content(medium: &dyn Medium, n: usize, id: StoreId) -> Result<Content, StoreError> {
    let mut whole = Aligned::default();
    let bytes = read(medium, n, &mut whole)?;
    let mut content = Content { bytes: bytes.len(), turn: None, entries: Vec::new(), behind: Vec::new() };
    let mut rest = &*bytes;
    while let Some(found) = read_record(rest, id) {
        let follows = content.entries.last().is_none_or(|last| found.at == last.at + 1);
        if *content.turn.get_or_insert(found.turn) != found.turn || !follows {
            break;
        }
        rest = rest.get(found.on_disk..).unwrap_or_default();
        content.entries.push(found.entry());
    }
    while !rest.is_empty() {
        content.behind.extend(read_record(rest, id).map(|found| (found.turn, found.at)));
        rest = rest.get(BLOCK..).unwrap_or_default();
    }
    Ok(content)
}

/// Reads a whole file, up to its last complete block.
fn read<'a>(medium: &dyn Medium, n: usize, whole: &'a mut Aligned) -> Result<&'a mut [u8], StoreError> {
    let len = medium.bytes().map_err(|e| of_file("looking at", n, &e))?;
    let Some(len) = usize::try_from(len).ok().filter(|len| *len <= limits::STORE_LOG_FILE_MAX_BYTES) else {
        return Err(StoreError::Damaged { at: 0, what: format!("{} is larger than any file of a log", medium::name(n)) });
    };
    let bytes = whole.room(len / BLOCK * BLOCK);
    medium.read(0, bytes).map_err(|e| of_file("reading", n, &e))?;
    Ok(bytes)
}

impl WalRecord<'_> {
    fn entry(&self) -> StoredCommit {
        StoredCommit { at: self.at, bytes: Bytes::copy_from_slice(self.bytes) }
    }
}
