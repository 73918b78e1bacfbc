//! A backup of a running server. The backup is read beside normal operation and changes nothing.
//!
//! The backup covers the log up to the durable head at its beginning. Named values are read after the head is fixed, so the private part of
//! every key that the log names is included, except for keys deleted in the meantime, which a restore removes. Arguments of waiting
//! approvals are left out, since a restore voids approvals.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use crate::authority::Authority;
use crate::people::approvals;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_ledger::State;
use mayfly_ledger::backup::{BackupHeader, BackupWriter, SEALED_FOR};
use mayfly_ledger::reader::log_reader::LogCursor;
use mayfly_ledger::recovery::retention::HistoryPin;
use mayfly_ledger::state::SnapshotRef;
use mayfly_store::{Position, StoreError};
use mayfly_verify::seq::Seq;

/// A backup in progress. Its methods block and return its bytes in order.
pub struct BackupRun {
    authority: Arc<Authority>,
    about: BackupHeader,
    /// `None` before the backup begins and after it ended.
    writer: Option<BackupWriter>,
    stage: Stage,
    snapshot: Option<File>,
    /// The names of values still to be read, last first.
    names: Vec<String>,
    next: Position,
    // Dropped last: the pinned history is kept until everything is read.
    _pinned: HistoryPin,
}

#[derive(Clone, Copy)]
enum Stage {
    Begin,
    Snapshot,
    Named,
    Commits,
    Over,
}

fn failed(error: &StoreError) -> Error {
    Error::Fault(Fault::new(format!("reading the store: {error}")))
}

impl Authority {
    /// Begins a backup of everything that is durable now. The snapshot that replaces removed history is open when this returns.
    pub async fn backup(self: &Arc<Self>) -> Result<BackupRun, Error> {
        let busy = || Refusal::limit("backups", 1, Duration::from_secs(10)).way_out("wait until the other backup is complete");
        let pinned = self.ledger.pin().ok_or_else(busy)?;
        // Only records that vouch for a snapshot up to this point are in the backup.
        let look = |s: &State| (LogCursor { position: s.position, seq: s.head }, s.vouched().copied().collect::<Vec<_>>());
        let (end, taken) = self.ledger.settled(look).await?;
        let authority = self.clone();
        let opened = tokio::task::spawn_blocking(move || opened(&authority, pinned, end, &taken));
        opened.await.map_err(|e| Fault::new(format!("a backup: {e}")))?
    }
}

fn opened(authority: &Arc<Authority>, pinned: HistoryPin, end: LogCursor, taken: &[SnapshotRef]) -> Result<BackupRun, Error> {
    let store = authority.ledger.store();
    let LogCursor { position: first, seq: before } = pinned.oldest;
    let snapshot = match first {
        1 => None,
        _ => Some(snapshot(authority, taken, first)?),
    };
    let mut names = store.list("").map_err(|e| failed(&e))?;
    names.retain(|name| !name.starts_with(approvals::PREFIX));
    names.reverse();
    let (seq, file) = snapshot.unzip();
    let about = BackupHeader {
        store: data_encoding::HEXLOWER.encode(store.id().as_bytes()),
        engine: store.engine().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: authority.system.wall(),
        first,
        before: if first == 1 { Seq::ZERO } else { before },
        last: end.position,
        seq: end.seq,
        snapshot: seq,
    };
    let (authority, stage) = (authority.clone(), Stage::Begin);
    Ok(BackupRun { authority, about, writer: None, stage, snapshot: file, names, next: first, _pinned: pinned })
}

/// Opens the snapshot that replaces the removed beginning of the log; without it the backup could not be restored.
fn snapshot(authority: &Authority, taken: &[SnapshotRef], first: Position) -> Result<(Seq, File), Error> {
    let none = || {
        let no =
            Refusal::new(Reason::NotReady, "no complete snapshot covers the removed commits, so a backup could not be restored");
        no.way_out("an operator has to inspect snapshots/ in the data directory")
    };
    let (seq, path) = authority.ledger.sound_snapshot(taken, first).ok_or_else(none)?;
    let file = File::open(&path).map_err(|e| Fault::new(format!("{}: {e}", path.display())))?;
    Ok((seq, file))
}

impl BackupRun {
    /// The description of the backup.
    pub fn about(&self) -> &BackupHeader {
        &self.about
    }

    /// The next bytes, about `limits::BACKUP_PIECE_BYTES`; `None` at the end.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut out = Vec::new();
        while out.len() < limits::BACKUP_PIECE_BYTES {
            self.stage = match self.stage {
                Stage::Begin => {
                    let (writer, bytes) = BackupWriter::new(&self.about)?;
                    self.writer = Some(writer);
                    out.extend(bytes);
                    Stage::Snapshot
                }
                Stage::Snapshot => self.snapshot(&mut out)?,
                Stage::Named => self.named(&mut out)?,
                Stage::Commits => self.commits(&mut out)?,
                Stage::Over => break,
            };
        }
        Ok(Some(out).filter(|out| !out.is_empty()))
    }

    fn writer(&mut self) -> Result<&mut BackupWriter, Error> {
        self.writer.as_mut().ok_or_else(|| Error::Fault(Fault::new("a backup that has not begun".to_owned())))
    }

    fn snapshot(&mut self, out: &mut Vec<u8>) -> Result<Stage, Error> {
        let Some(file) = &mut self.snapshot else { return Ok(Stage::Named) };
        let mut piece = Vec::with_capacity(limits::BACKUP_PIECE_BYTES);
        let read = file.take(limits::BACKUP_PIECE_BYTES as u64).read_to_end(&mut piece);
        read.map_err(|e| Fault::new(format!("reading the snapshot: {e}")))?;
        if piece.is_empty() {
            return Ok(Stage::Named);
        }
        self.writer()?.snapshot(&piece, out);
        Ok(Stage::Snapshot)
    }

    fn named(&mut self, out: &mut Vec<u8>) -> Result<Stage, Error> {
        let Some(name) = self.names.pop() else { return Ok(Stage::Commits) };
        // A value deleted in the meantime is left out.
        if let Some(value) = self.authority.ledger.store().named(&name).map_err(|e| failed(&e))? {
            self.writer()?.named(&name, &value, out);
        }
        Ok(Stage::Named)
    }

    fn commits(&mut self, out: &mut Vec<u8>) -> Result<Stage, Error> {
        if self.next > self.about.last {
            return self.end(out);
        }
        let last = self.about.last;
        let read = self.authority.ledger.store().read(self.next, limits::BACKUP_PIECE_BYTES).map_err(|e| failed(&e))?;
        for entry in read.iter().filter(|entry| entry.at <= last) {
            if entry.at != self.next {
                return Err(gone(self.next));
            }
            self.writer()?.commit(entry, out);
            self.next += 1;
        }
        if read.is_empty() { Err(gone(self.next)) } else { Ok(Stage::Commits) }
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<Stage, Error> {
        let sealer = self.authority.sealer.clone();
        let seq = self.about.seq.to_string();
        if let Some(writer) = self.writer.take() {
            writer.end(|digest| sealer.seal(SEALED_FOR, "", &seq, digest), out)?;
            self.authority.counted.backups.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(Stage::Over)
    }
}

/// The error for missing history: retention removed it nevertheless, or the store was reopened without it.
fn gone(at: Position) -> Error {
    Error::Fault(Fault::new(format!("commit {at} is not there any more: take another backup")))
}
