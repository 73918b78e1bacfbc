//! Checkpoints: signed notes of the Merkle tree over all commits.
//!
//! The newest checkpoint is kept in the store (`checkpoint/newest`), and the next one must extend it, so that a server never signs two
//! histories, whatever happens to its files. Only after a recovery it may not; the server then says so in its log, since the history after
//! the recovered position is gone.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::gone;
use crate::audit::proof::key::NoteKey;
use crate::audit::proof::note::{self, Checkpoint, SignedNote};
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_credential::keyring::jwks_of;
use mayfly_ledger::commit::Hash;
use mayfly_ledger::reader::history::ScanEnd;
use mayfly_ledger::record::KeyPurpose;
use mayfly_ledger::tree::stored::ProofError;
use mayfly_store::Precondition;
use mayfly_verify::seq::Seq;

const NEWEST: &str = "checkpoint/newest";

/// A signed checkpoint.
#[derive(Clone, Debug)]
pub struct SignedCheckpoint {
    /// The content of the checkpoint.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: String,
}

impl Authority {
    /// The name of this ledger in checkpoints.
    pub fn origin(&self) -> String {
        format!("mayfly.ledger/{}", self.ledger.store().id())
    }

    /// The public keys of checkpoints, including those that no longer sign.
    pub async fn checkpoint_keys(&self) -> Result<String, Error> {
        self.ledger.settled(|s| jwks_of(&s.keys, KeyPurpose::Checkpoint)).await
    }

    /// Signs a checkpoint of everything that is durable now. Refused with NOT_READY while the tree is still being built.
    pub async fn checkpoint(self: &Arc<Self>) -> Result<SignedCheckpoint, Error> {
        let end = self.ledger.settled(|s| s.position).await?;
        self.tree_reaches(end).await?;
        let (origin, authority) = (self.origin(), self.clone());
        let sign = move || {
            let checkpoint = authority.ledger.tree(|tree| Checkpoint {
                origin,
                size: tree.size(),
                root: tree.root(),
                more: vec![format!("seq {}", tree.mark.seq), format!("time {}", tree.mark.time)],
            })?;
            let is_new = authority.goes_on(&checkpoint)?;
            let note = authority.sign(&checkpoint.text())?;
            if is_new {
                let store = authority.ledger.store();
                store
                    .put(NEWEST, note.as_bytes(), Precondition::Any)
                    .map_err(|e| Fault::new(format!("writing {NEWEST}: {e}")))?;
            }
            Ok(SignedCheckpoint { checkpoint, note })
        };
        // Checkpoints are signed one after the other, since each extends the one before.
        let _one = self.changing.lock().await;
        tokio::task::spawn_blocking(sign).await.map_err(|e| Fault::new(format!("a checkpoint: {e}")))?
    }

    /// Waits until the tree contains a commit.
    async fn tree_reaches(&self, position: u64) -> Result<(), Error> {
        let steady = || self.system.steady();
        let began = steady();
        loop {
            self.ledger.wake_tree(None);
            let size = self.ledger.tree(mayfly_ledger::tree::stored::MerkleTree::size);
            if size.as_ref().is_ok_and(|size| *size >= position) {
                return Ok(());
            }
            if steady().saturating_sub(began) >= limits::CHECKPOINT_WAIT_MS {
                let why = size.map_or_else(|fault| fault.what, |size| format!("the tree has {size} of {position} commits"));
                let no = Refusal::new(Reason::NotReady, format!("there is no checkpoint yet: {why}"));
                return Err(Error::Refusal(no.retry(Duration::from_secs(10))));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Checks that a checkpoint extends the last signed one. `false` if it is the same.
    fn goes_on(&self, next: &Checkpoint) -> Result<bool, Error> {
        let store = self.ledger.store();
        let kept = store.named(NEWEST).map_err(|e| Fault::new(format!("reading {NEWEST}: {e}")))?;
        let Some(last) = kept.and_then(|bytes| checkpoint_in(&bytes)) else { return Ok(true) };
        let same = match self.ledger.tree(|tree| tree.consistency(last.size))? {
            Ok((root, _)) => root == last.root,
            // The commits that the last checkpoint covers were removed in the meantime.
            Err(ProofError::Gone(at)) if at <= last.size && last.size <= next.size => true,
            Err(ProofError::Gone(_)) => false,
            Err(damaged) => return Err(self.no_proof(&damaged)),
        };
        let generation = |c: &Checkpoint| c.said("seq").and_then(|seq| seq.parse::<Seq>().ok()).map(Seq::generation);
        match same {
            true => Ok(*next != last),
            false if generation(&last) < generation(next) => {
                tracing::warn!(
                    size = last.size,
                    "a recovery discarded commits that the newest checkpoint covers; the next checkpoint does not extend it"
                );
                Ok(true)
            }
            false => {
                self.ledger.wake_tree(Some(&ProofError::Damaged(format!(
                    "it does not lead to the checkpoint of {} commits",
                    last.size
                ))));
                let what =
                    format!("the ledger does not go on from the checkpoint of {} commits that was signed before", last.size);
                Err(Error::Fault(Fault::new(what)))
            }
        }
    }

    /// The consistency proof from the tree of `old` commits to the tree of `size` commits.
    pub async fn consistency(self: &Arc<Self>, old: u64, size: u64) -> Result<Vec<Hash>, Error> {
        if old > size {
            return Err(Error::Refusal(Refusal::field("since_size", format!("is beyond the newest commit, which is {size}"))));
        }
        let authority = self.clone();
        let proof = tokio::task::spawn_blocking(move || {
            let proof = authority.ledger.tree(|tree| tree.consistency_to(old, size))?;
            proof.map_err(|e| authority.no_proof(&e))
        });
        proof.await.map_err(|e| Fault::new(format!("a proof: {e}")))?
    }

    /// The answer if the tree has no proof. A damaged tree is rebuilt.
    pub(super) fn no_proof(&self, why: &ProofError) -> Error {
        match why {
            ProofError::Gone(_) => {
                gone(self.ledger.peek(|s| s.removed.seq), ScanEnd::Removed(self.ledger.peek(|s| s.removed.seq)))
            }
            ProofError::Damaged(_) => {
                self.ledger.wake_tree(Some(why));
                let no = Refusal::new(Reason::NotReady, format!("{why}; it is built again"));
                Error::Refusal(no.retry(Duration::from_secs(10)))
            }
        }
    }

    /// Signs a text with the checkpoint key.
    pub(super) fn sign(&self, text: &str) -> Result<String, Error> {
        let no_key = || Refusal::new(Reason::NotReady, "there is no key for checkpoints yet").retry(Duration::from_secs(60));
        let key = self.keyring.active(KeyPurpose::Checkpoint, "").ok_or_else(no_key)?;
        let public = key.public().and_then(|point| NoteKey::from_point(key.id(), point)).ok_or_else(no_key)?;
        let signature = key.sign_der(&digest(&SHA256, text.as_bytes()))?;
        Ok(note::signed(text, &self.origin(), &public, &signature))
    }
}

fn checkpoint_in(bytes: &[u8]) -> Option<Checkpoint> {
    Checkpoint::parse(&SignedNote::parse(std::str::from_utf8(bytes).ok()?).ok()?.text).ok()
}
