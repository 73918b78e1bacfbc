//! What the generation after a restore shuts out, beside what every generation does.
//!
//! Nobody knows what was issued, revoked and locked since the backup was made. What was issued is revoked with all else. Whoever was locked
//! out since may still be one who must not come in, so where what was lost cannot be read nothing is granted until an operator says so. And
//! the same backup may have been restored before, to a generation of the same number, whose credentials this one's revocation would not
//! cover: the keys that signed them are given up, and rules on keys ask for no number.

use std::path::PathBuf;

use super::commit::Commit;
use super::load::load;
use super::record::{KeyPurpose, KeyState};
use super::recover::RecoverError;
use super::salvage::{Lost, salvage};
use super::state::State;
use crate::revocation::Target;
use crate::store::{Position, Store};

/// As the records say it.
pub(super) const REASON: &str = "restored from a backup: lock again who was locked since, then lift this";

/// A restore, beyond the backup itself.
pub struct Restored<'a> {
    /// What is left of the store that was lost, and where its snapshots lie.
    pub left: Option<(&'a dyn Store, PathBuf)>,
    /// An operator says that nobody was locked out since the backup was made.
    pub unlocked: bool,
    /// Whether the private part of a key is in the backup.
    pub has_private: &'a dyn Fn(&str) -> bool,
}

impl Restored<'_> {
    /// What is to be shut out, where the backup ends before the commit at `next`.
    pub(super) fn lost(&self, kept: &State, next: Position) -> Lost {
        // What cannot be read is as if it were not there: then nothing of it is known, and all is locked.
        let read = self.left.as_ref().and_then(|(left, snapshots)| read(*left, snapshots, kept, next).ok());
        let (mut lost, known) = read.unwrap_or_default();
        if !known && !self.unlocked {
            lost.locks.insert(Target::Everything);
        }
        for (id, key) in &kept.keys {
            let over = matches!(key.state, KeyState::Removed | KeyState::Compromised);
            let signs = key.purpose == KeyPurpose::AccessToken;
            if !over && signs {
                lost.keys.insert(id.to_string(), KeyState::Compromised);
                lost.evidence.insert(Target::SigningKey(id.clone()));
            } else if !over && !(self.has_private)(id) {
                // It went while the backup was made, and a ledger that has it in use could not be served from.
                lost.keys.insert(id.to_string(), KeyState::Removed);
            }
        }
        lost
    }
}

/// What is in what is left, and whether that is all there was.
fn read(left: &dyn Store, snapshots: &PathBuf, kept: &State, next: Position) -> Result<(Lost, bool), RecoverError> {
    let same = goes_on(left, kept, next)?;
    // Another history stands there: all of it shuts out, none of it is known to be whole.
    let lost = salvage(left, if same { next } else { left.oldest()? })?;
    Ok((lost, same && load(left, Some(snapshots)).is_ok()))
}

/// Whether a store has the backup's last commit where it stood.
fn goes_on(left: &dyn Store, kept: &State, next: Position) -> Result<bool, RecoverError> {
    let entry = left.read(next.saturating_sub(1), 1)?.into_iter().next().filter(|e| e.at + 1 == next);
    let header = entry.and_then(|e| Commit::from_bytes(&e.bytes).ok());
    Ok(header.is_some_and(|c| kept.writers.get(&c.header.writer).is_some_and(|head| head.hash == c.hash)))
}
