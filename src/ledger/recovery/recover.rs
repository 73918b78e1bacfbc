//! Recovery after damage or loss of the store, without bringing revoked credentials back.
//!
//! The trusted part is copied to a fresh store, a new generation begins there, and its first record revokes everything that was issued
//! before. The number of the new generation is above every number that was ever seen: if a number were used twice, a credential from the
//! lost generation would look newer than the revocation. Locks in the lost part are taken over as far as its commits can still be read
//! (`salvage`), and so are revocations of SVIDs, subject tokens and signing keys, which hold for any decision revision. If they were
//! forgotten, revoked evidence would be accepted again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::READ_BYTES;
use crate::commit::{Commit, EncodedRecord, Hash, WriterHead, pack};
use crate::record::{Author, Event, GenerationBegun, Record, TargetRecord, TargetsRevoked};
use crate::recovery::restore;
pub use crate::recovery::restore::RestoreInputs;
use crate::recovery::salvage::{SalvagedFacts, remarked, salvage};
use crate::recovery::snapshot;
use crate::recovery::verify::verify_before;
use crate::revocation::{Rules, Target};
use crate::state::{RemovedHistory, SnapshotRef, State, seq_after};
use crate::writer::commit_loop::WRITER;
use mayfly_base::limits;
use mayfly_store::{Position, Precondition, Store, StoreError};
use mayfly_verify::seq::{Millis, Seq};

/// The result of a recovery, for the operator.
#[derive(Debug)]
pub struct Recovered {
    /// The generation that began.
    pub generation: u8,
    /// The last seq that was kept.
    pub kept: Seq,
    /// Commits that were left behind, as far as the old store still had them.
    pub left: u64,
    /// Locks taken over from the commits left behind.
    pub locks: usize,
    /// Everything is locked, because it is unknown who was locked out.
    pub everything_locked: bool,
    /// Named values copied: sealed keys and secrets.
    pub named: usize,
    /// The snapshot that the new store needs to be opened, if the beginning of the log was removed.
    pub snapshot: Option<PathBuf>,
}

/// Why a recovery was not done. The old store was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The engine failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The log cannot be trusted up to the seq that was named.
    #[error(
        "the ledger can be trusted up to seq {trusted} only: commit {position}: {what}\n  mayfly server recover --after {trusted}"
    )]
    Untrusted {
        /// The last seq that can be trusted.
        trusted: Seq,
        /// The position of the first commit that cannot be trusted.
        position: Position,
        /// The damage of that commit.
        what: String,
    },
    /// The beginning of the log was removed, and no snapshot taken before `after` covers it.
    #[error(
        "the log begins at commit {oldest}, what came before was removed, and no snapshot from before that seq stands for it\n  \
         the least that can be kept (0 for nothing): mayfly server recover --after {least}"
    )]
    Removed {
        /// The position of the oldest commit in the store.
        oldest: Position,
        /// The lowest seq that a recovery can keep.
        least: Seq,
    },
    /// The new store is not empty.
    #[error("the new store is not empty")]
    NotEmpty,
    /// All 255 generations are used up.
    #[error("no generation is left: 255 were begun")]
    NoGeneration,
}

/// How the new generation begins.
struct Begin<'a> {
    seen: Seq,
    now: Millis,
    reset_time: bool,
    restored: Option<RestoreInputs<'a>>,
}

impl Begin<'_> {
    fn cause(&self) -> &'static str {
        if self.restored.is_some() { "restored" } else { "recovered" }
    }
}

/// The base of a recovery's fold: nothing, or a snapshot when the beginning of the log was removed.
#[derive(Default)]
struct RecoveryBase {
    state: State,
    snapshot: Option<(PathBuf, SnapshotRef)>,
}

/// Copies the kept part of `old` to the empty store `new` and begins a generation there.
///
/// Commits that end at or before `after` are kept. `seen`: the newest seq known anywhere outside the store, for example by a snapshot.
/// `now`: the time of the new generation; unless `reset_time` is set, never before the time of the last kept commit. `snapshots`: the
/// snapshot directory of `old`.
pub fn recover(
    old: &dyn Store,
    new: &dyn Store,
    snapshots: Option<&Path>,
    (after, seen): (Seq, Seq),
    now: Millis,
    reset_time: bool,
) -> Result<Recovered, RecoverError> {
    if new.head()? != 0 {
        return Err(RecoverError::NotEmpty);
    }
    go_on(old, new, snapshots, after, &Begin { seen, now, reset_time, restored: None })
}

/// Puts a complete backup into the empty store `new` and begins a generation there.
///
/// `backup` was verified before. `snapshots`: the directory of its snapshot. `seen`: the newest seq known anywhere outside the backup.
pub fn restore(
    backup: &dyn Store,
    new: &dyn Store,
    snapshots: &Path,
    (last, seen): (Seq, Seq),
    now: Millis,
    restored: RestoreInputs<'_>,
) -> Result<Recovered, RecoverError> {
    if new.head()? != 0 {
        return Err(RecoverError::NotEmpty);
    }
    go_on(backup, new, Some(snapshots), last, &Begin { seen, now, reset_time: false, restored: Some(restored) })
}

fn go_on(
    old: &dyn Store,
    new: &dyn Store,
    snapshots: Option<&Path>,
    after: Seq,
    begun: &Begin<'_>,
) -> Result<Recovered, RecoverError> {
    let base = base(old, snapshots, after)?;
    let (state, next) = trusted(old, base.state.clone(), after)?;
    let removed = beginning(old, &base.state, &state);
    copy(old, new, removed.before.max(1), next)?;
    let mut lost = match &begun.restored {
        None => salvage(old, next)?,
        Some(restored) => restored.lost(&state, next),
    };
    lost.shut_out(&state);
    let named = copy_named(old, new)?;
    let used = state.head.generation().max(lost.generation).max(begun.seen.generation());
    // Unreadable commits belonged to some generation, too.
    let used = used.max(u8::from(lost.commits > 0));
    let generation = used.checked_add(1).ok_or(RecoverError::NoGeneration)?;
    let (left, locks, everything_locked) =
        (lost.commits, lost.locks.len(), matches!(lost.locks.get(&Target::Everything), Some(None)));
    let (snapshot, taken) = base.snapshot.unzip();
    let mut vouching = Vec::new();
    // The record that vouched for the snapshot may be among the commits left behind, so it is written again.
    vouching.extend(taken.map(|t| Event::SnapshotTaken(t.to_record())));
    vouching.extend((removed != state.removed).then(|| Event::HistoryRemoved(removed.to_record())));
    begin(new, &state, generation, begun, (vouching, lost))?;
    Ok(Recovered { generation, kept: state.head, left, locks, everything_locked, named, snapshot })
}

/// If the beginning was removed: the oldest snapshot that reaches back to the remaining commits, so that as much as possible is folded
/// anew.
fn base(old: &dyn Store, snapshots: Option<&Path>, after: Seq) -> Result<RecoveryBase, RecoverError> {
    let oldest = old.oldest()?;
    if oldest <= 1 || after == Seq::ZERO {
        return Ok(RecoveryBase::default());
    }
    let head = old.head()?;
    let mut least = None;
    for path in snapshots.map(|dir| snapshot::list(dir).unwrap_or_default()).unwrap_or_default().into_iter().rev() {
        let Ok((state, digest)) = snapshot::read(&path) else { continue };
        if state.position + 1 < oldest || state.position > head || !vouched(old, state.position, digest)? {
            continue;
        }
        if state.head <= after {
            let taken = SnapshotRef { seq: state.head, position: state.position, digest };
            return Ok(RecoveryBase { state, snapshot: Some((path, taken)) });
        }
        least.get_or_insert(state.head);
    }
    Err(RecoverError::Removed { oldest, least: least.unwrap_or(Seq::ZERO) })
}

/// Whether a record after a snapshot names the snapshot's digest.
fn vouched(old: &dyn Store, at: Position, digest: Hash) -> Result<bool, RecoverError> {
    let mut next = at + 1;
    loop {
        let entries = old.read(next, READ_BYTES)?;
        let Some(last) = entries.last() else { return Ok(false) };
        next = last.at + 1;
        let names = |r: &Record| matches!(&r.event, Some(Event::SnapshotTaken(s)) if s.digest == digest);
        if entries.iter().filter_map(|e| Commit::from_bytes(&e.bytes).ok()).any(|c| c.records.iter().any(names)) {
            return Ok(true);
        }
    }
}

/// Folds the commits that end at or before `after`. Returns the state and the first position left behind.
fn trusted(old: &dyn Store, mut state: State, after: Seq) -> Result<(State, Position), RecoverError> {
    let mut next = state.position + 1;
    loop {
        let entries = old.read(next, READ_BYTES)?;
        if entries.is_empty() {
            return Ok((state, next));
        }
        for entry in entries {
            let trusted = state.head;
            let untrusted = |what: String| RecoverError::Untrusted { trusted, position: next, what };
            let parsed = if entry.at == next {
                Commit::from_bytes(&entry.bytes).map_err(|e| e.to_string())
            } else {
                Err("missing".into())
            };
            let commit = match parsed {
                Ok(commit) => commit,
                Err(_) if trusted >= after => return Ok((state, next)),
                Err(what) => return Err(untrusted(what)),
            };
            let chain = state.writers.get(&commit.header.writer).copied().unwrap_or(WriterHead::START);
            if end(trusted, &commit) > after && (trusted >= after || commit.continues(chain).is_ok()) {
                return Ok((state, next));
            }
            // A commit that does not continue its chain is refused before it changes the state.
            match state.fold(entry.at, &commit) {
                Ok(_) => {}
                Err(_) if trusted >= after => return Ok((state, next)),
                Err(what) => return Err(untrusted(what.to_string())),
            }
            next += 1;
        }
    }
}

/// How much of the beginning is removed. If more is missing than a record announces, or if the remaining commits do not lead up to the
/// snapshot, everything before the snapshot is left behind.
fn beginning(old: &dyn Store, base: &State, state: &State) -> RemovedHistory {
    let whole = verify_before(old, base.position, &state.removed, &base.writers, &AtomicBool::new(false), |_| {});
    if base.position == 0 || whole == Ok(true) {
        return state.removed.clone();
    }
    let (before, chains) = (base.position + 1, base.writers.clone());
    RemovedHistory { before, seq: base.head, bytes: base.bytes, time: base.time, chains }
}

/// Copies commits unchanged, each read as one append: no caller waits for a single commit, and a million flushes would take an hour.
fn copy(old: &dyn Store, new: &dyn Store, from: Position, until: Position) -> Result<(), RecoverError> {
    if from > 1 {
        new.begin_at(from)?;
    }
    let mut next = from;
    while next < until {
        let entries = old.read(next, READ_BYTES)?;
        let some: Vec<&[u8]> = (next..until).zip(&entries).take_while(|(at, e)| *at == e.at).map(|(_, e)| &e.bytes[..]).collect();
        if some.is_empty() {
            return Err(StoreError::Damaged { at: next, what: "the commit that belongs there is missing".to_owned() }.into());
        }
        new.append_all(next, &some)?;
        next += some.len() as u64;
    }
    Ok(())
}

/// The seq of a commit's last record.
fn end(head: Seq, commit: &Commit) -> Seq {
    commit.records.iter().fold(head, seq_after)
}

fn copy_named(old: &dyn Store, new: &dyn Store) -> Result<usize, RecoverError> {
    let mut copied = 0;
    for name in old.list("")? {
        if let Some(value) = old.named(&name)? {
            new.put(&name, &value, Precondition::Absent)?;
            copied += 1;
        }
    }
    Ok(copied)
}

fn begin(
    new: &dyn Store,
    state: &State,
    generation: u8,
    begun: &Begin<'_>,
    (vouching, lost): (Vec<Event>, SalvagedFacts),
) -> Result<(), RecoverError> {
    let (now, reset_time) = (begun.now, begun.reset_time);
    let time = if reset_time { now } else { now.max(state.time) };
    let first = GenerationBegun {
        generation: generation.into(),
        cause: begun.cause().into(),
        store: new.id().as_bytes().to_vec(),
        after: state.head.as_u64(),
        reset_time,
    };
    let author = || Author::Mayfly(begun.cause().into());
    let mut records = vec![Record::new(author(), Event::GenerationBegun(first))];
    records.extend(vouching.into_iter().map(|event| Record::new(author(), event)));
    let (keys, own, taken_over) = match &begun.restored {
        None => {
            let lost = "revoked or locked in what was lost";
            ("so it was in what was lost", lost, lost)
        }
        Some(_) => ("restored from a backup", restore::REASON, restore::TAKEN_OVER),
    };
    records.extend(lost.key_changes(state, keys).into_iter().map(|event| Record::new(author(), event)));
    let keep_until = Rules::keep_until(time).0.max(lost.until);
    for (targets, lock_only) in [(lost.locks, true), (lost.evidence, false)] {
        // One record has one reason.
        let mut by_reason: BTreeMap<String, Vec<TargetRecord>> = BTreeMap::new();
        for (target, cause) in &targets {
            let reason = remarked(cause, if cause.is_some() { taken_over } else { own });
            by_reason.entry(reason).or_default().push(target.to_record());
        }
        for (reason, targets) in by_reason {
            for targets in targets.chunks(limits::TARGETS) {
                let (targets, reason) = (targets.to_vec(), reason.clone());
                let revoked = TargetsRevoked { targets, issued_only: !lock_only, reason, keep_until, lock_only };
                records.push(Record::new(author(), Event::Revoked(revoked)));
            }
        }
    }
    let encoded: Vec<EncodedRecord> = records.into_iter().filter_map(EncodedRecord::new).collect();
    let chain = state.writers.get(&WRITER).copied().unwrap_or(WriterHead::START);
    let (bytes, _) = pack(WRITER, chain, time, encoded.iter());
    new.append(state.position + 1, &bytes)?;
    Ok(())
}
