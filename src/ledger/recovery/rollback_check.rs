//! Compares chain ends that followers have seen with the ledger itself. Followers carry the ends of the chains of commits, so they can tell
//! that a server runs on an older copy of its data directory.

use crate::Ledger;
use crate::commit::{Commit, Hash};
use mayfly_base::refusal::Fault;

/// The end of a writer's chain of commits, as a follower saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeenWriterHead {
    /// The writer's number.
    pub writer: u32,
    /// The number of the writer's commit.
    pub commit: u64,
    /// SHA-256 of that commit's header.
    pub hash: Hash,
}

impl Ledger {
    /// The first of these chain ends that this ledger does not have, because the ledger ends before it or has another commit there. An end
    /// whose commit was removed (`audit.keep`) cannot be compared and is skipped. Reads one commit for each end: call it where blocking is
    /// allowed.
    pub fn lacks(&self, seen: &[SeenWriterHead]) -> Result<Option<SeenWriterHead>, Fault> {
        for end in seen {
            if self.lacks_one(end)? {
                return Ok(Some(*end));
            }
        }
        Ok(None)
    }

    fn lacks_one(&self, seen: &SeenWriterHead) -> Result<bool, Fault> {
        let (end, position, kept_from) =
            self.peek(|s| (s.writers.get(&seen.writer).copied(), s.position, s.removed.before.max(1)));
        let Some(end) = end else { return Ok(true) };
        let Some(back) = end.number.checked_sub(seen.commit) else { return Ok(true) };
        if back == 0 {
            return Ok(end.hash != seen.hash);
        }
        // On an embedded store the commits of the single writer are consecutive.
        let Some(at) = position.checked_sub(back).filter(|at| *at >= kept_from) else { return Ok(false) };
        let failed = |e: &dyn std::fmt::Display| Fault::new(format!("reading commit {at}: {e}"));
        let read = self.store().read(at, 1).map_err(|e| failed(&e))?;
        let Some(entry) = read.first().filter(|e| e.at == at) else { return Ok(false) };
        let (header, [hash, _], _) = Commit::glance(&entry.bytes).map_err(|e| failed(&e))?;
        Ok((header.writer, header.number) == (seen.writer, seen.commit) && hash != seen.hash)
    }
}
