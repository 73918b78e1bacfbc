//! Locks and revocations that a restore adds to the revocations of every new generation.
//!
//! The credentials, revocations and locks since the backup was made are unknown. Everything issued is revoked. A caller that was locked out
//! since the backup may still have to stay locked out, so when the lost commits cannot be read, nothing is granted until an operator
//! confirms. The same backup may also have been restored before, to a generation of the same number, whose credentials the revocation of
//! this generation would not cover: therefore the keys that signed them are given up, because rules on keys hold for any decision revision.

use std::path::PathBuf;

use crate::commit::Commit;
use crate::record::{KeyPurpose, KeyState};
use crate::recovery::load::load;
use crate::recovery::recover::RecoverError;
use crate::recovery::salvage::{SalvagedFacts, salvage};
use crate::revocation::Target;
use crate::state::State;
use mayfly_store::{Position, Store};

/// The reason of what a restore itself revokes and locks.
pub(crate) const REASON: &str = "restored from a backup: lock again who was locked since, then lift this";
/// The remark on what was revoked and locked in the remains, after its own reason.
pub(crate) const TAKEN_OVER: &str = "taken over from the remains at a restore";

/// The inputs of a restore beyond the backup itself.
pub struct RestoreInputs<'a> {
    /// The remains of the lost store, and its snapshot directory.
    pub left: Option<(&'a dyn Store, PathBuf)>,
    /// An operator confirms that nobody was locked out since the backup was made.
    pub unlocked: bool,
    /// Whether the private part of a key is in the backup.
    pub has_private: &'a dyn Fn(&str) -> bool,
}

impl RestoreInputs<'_> {
    /// The locks, revoked evidence and key changes that are needed when the backup ends before the commit at `next`.
    pub(crate) fn lost(&self, kept: &State, next: Position) -> SalvagedFacts {
        // Remains that cannot be read count as absent: nothing is known about the lost commits then, and everything is locked.
        let read = self.left.as_ref().and_then(|(left, snapshots)| read(*left, snapshots, kept, next).ok());
        let (mut lost, known) = read.unwrap_or_default();
        if !known && !self.unlocked {
            lost.locks.entry(Target::Everything).or_default();
        }
        for (id, key) in &kept.keys {
            let over = matches!(key.state, KeyState::Removed | KeyState::Compromised);
            let signs = matches!(
                key.purpose,
                KeyPurpose::AccessToken | KeyPurpose::Federation | KeyPurpose::UpstreamCa | KeyPurpose::SshCa
            );
            if !over && signs {
                lost.keys.insert(id.to_string(), KeyState::Compromised);
                lost.evidence.entry(Target::SigningKey(id.clone())).or_default();
            } else if !over && !(self.has_private)(id) {
                // The key was removed while the backup was made; a ledger that lists such a key as in use could not be served.
                lost.keys.insert(id.to_string(), KeyState::Removed);
            }
        }
        lost
    }
}

/// Reads the remains of the lost store, and says whether they are complete.
fn read(left: &dyn Store, snapshots: &PathBuf, kept: &State, next: Position) -> Result<(SalvagedFacts, bool), RecoverError> {
    let same = goes_on(left, kept, next)?;
    // If the remains belong to another history, all of their locks are taken over, and the remains cannot be known to be complete.
    let lost = salvage(left, if same { next } else { left.oldest()? })?;
    Ok((lost, same && load(left, Some(snapshots)).is_ok()))
}

/// Whether a store has the backup's last commit at the same position.
fn goes_on(left: &dyn Store, kept: &State, next: Position) -> Result<bool, RecoverError> {
    let entry = left.read(next.saturating_sub(1), 1)?.into_iter().next().filter(|e| e.at + 1 == next);
    let header = entry.and_then(|e| Commit::from_bytes(&e.bytes).ok());
    Ok(header.is_some_and(|c| kept.writers.get(&c.header.writer).is_some_and(|head| head.hash == c.hash)))
}
