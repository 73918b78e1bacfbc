//! Going on after a damage or a loss, without un-revoking anything.
//!
//! What can be trusted is copied to a fresh store, a new generation begins there, and its first record revokes all that was issued before.
//! Its number is above that of all that anybody has seen: were one given twice, a credential of the lost one would look newer than the
//! revocation. Locks that stand in what is lost are taken over as far as its commits can still be read (`salvage`), and so is what is
//! never evidence again whatever a decision saw: SVIDs, subject tokens and signing keys. Forgotten, they would let somebody in again.

use super::READ_BYTES;
use super::commit::{ChainHead, Commit, Encoded, pack};
use super::record::{Event, GenerationBegun, Record, Revoked, Who};
use super::salvage::{Lost, salvage};
use super::state::{State, seq_after};
use super::writer::WRITER;
use crate::limits;
use crate::revocation::{Rules, Target};
use crate::seq::{Millis, Seq};
use crate::store::{Expect, Position, Store, StoreError};

/// What a recovery did, for the operator.
#[derive(Debug)]
pub struct Recovered {
    /// The generation that began.
    pub generation: u8,
    /// The last seq that was kept.
    pub kept: Seq,
    /// Commits that were left behind, as far as the store still had them.
    pub left: u64,
    /// Locks taken over from what was left behind.
    pub locks: usize,
    /// Named values copied: sealed keys and secrets.
    pub named: usize,
}

/// Why a recovery did not happen. Nothing was changed in the old store.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The engine failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Nothing can be trusted up to the seq that was named.
    #[error(
        "the ledger can be trusted up to seq {trusted} only: commit {position}: {what}\n  mayfly server recover --after {trusted}"
    )]
    Untrusted {
        /// The last seq that can be.
        trusted: Seq,
        /// The first commit that cannot.
        position: Position,
        /// What is wrong with it.
        what: String,
    },
    /// The new store is not empty.
    #[error("the new store is not empty")]
    NotEmpty,
    /// All 255 generations are used up.
    #[error("no generation is left: 255 were begun")]
    NoGeneration,
}

/// Copies what is kept from `old` to the empty store `new` and begins a generation there.
///
/// Kept are the commits that end at or before `after`. `seen`: the newest seq that anything outside the store knows of, like a snapshot.
/// `now` is the time of the new generation; unless `reset_time`, never before the last kept commit's.
pub fn recover(
    old: &dyn Store,
    new: &dyn Store,
    (after, seen): (Seq, Seq),
    now: Millis,
    reset_time: bool,
) -> Result<Recovered, RecoverError> {
    if new.head()? != 0 {
        return Err(RecoverError::NotEmpty);
    }
    let (state, next) = copy(old, new, after)?;
    let mut lost = salvage(old, next)?;
    lost.shut_out(&state);
    let named = copy_named(old, new)?;
    let used = state.head.generation().max(lost.generation).max(seen.generation());
    // Commits that nobody can read were of some generation, too.
    let used = used.max(u8::from(lost.commits > 0));
    let generation = used.checked_add(1).ok_or(RecoverError::NoGeneration)?;
    let (left, locks) = (lost.commits, lost.locks.len());
    begin(new, &state, generation, now, reset_time, lost)?;
    Ok(Recovered { generation, kept: state.head, left, locks, named })
}

/// Copies and folds the commits that end at or before `after`. Answers with the state and the first place left behind.
fn copy(old: &dyn Store, new: &dyn Store, after: Seq) -> Result<(State, Position), RecoverError> {
    let mut state = State::default();
    let mut next = 1;
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
            let chain = state.writers.get(&commit.header.writer).copied().unwrap_or(ChainHead::START);
            if end(trusted, &commit) > after && (trusted >= after || commit.continues(chain).is_ok()) {
                return Ok((state, next));
            }
            // A commit that does not continue its chain is refused before it changes anything.
            match state.fold(entry.at, &commit) {
                Ok(_) => {}
                Err(_) if trusted >= after => return Ok((state, next)),
                Err(what) => return Err(untrusted(what.to_string())),
            }
            new.append(next, &entry.bytes)?;
            next += 1;
        }
    }
}

/// The seq of a commit's last record.
fn end(head: Seq, commit: &Commit) -> Seq {
    commit.records.iter().fold(head, seq_after)
}

fn copy_named(old: &dyn Store, new: &dyn Store) -> Result<usize, RecoverError> {
    let mut copied = 0;
    for name in old.list("")? {
        if let Some(value) = old.named(&name)? {
            new.put(&name, &value, Expect::Absent)?;
            copied += 1;
        }
    }
    Ok(copied)
}

fn begin(new: &dyn Store, state: &State, generation: u8, now: Millis, reset_time: bool, lost: Lost) -> Result<(), RecoverError> {
    let time = if reset_time { now } else { now.max(state.time) };
    let begun = GenerationBegun {
        generation: generation.into(),
        cause: "recovered".into(),
        store: new.id().as_bytes().to_vec(),
        after: state.head.as_u64(),
        reset_time,
    };
    let author = || Who::Mayfly("recovered".into());
    let mut records = vec![Record::new(author(), Event::GenerationBegun(begun))];
    records.extend(lost.key_changes(state).into_iter().map(|event| Record::new(author(), event)));
    let keep_until = Rules::keep_until(time).0.max(lost.until);
    for (targets, lock_only) in [(lost.locks, true), (lost.evidence, false)] {
        let targets: Vec<_> = targets.iter().map(Target::to_record).collect();
        for targets in targets.chunks(limits::TARGETS) {
            let targets = targets.to_vec();
            let reason = "revoked or locked in what was lost".to_owned();
            let revoked = Revoked { targets, issued_only: !lock_only, reason, keep_until, lock_only };
            records.push(Record::new(author(), Event::Revoked(revoked)));
        }
    }
    let encoded: Vec<Encoded> = records.into_iter().filter_map(Encoded::new).collect();
    let chain = state.writers.get(&WRITER).copied().unwrap_or(ChainHead::START);
    let (bytes, _) = pack(WRITER, chain, time, encoded.iter());
    new.append(state.position + 1, &bytes)?;
    Ok(())
}
