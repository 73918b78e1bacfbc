//! Collects what a recovery must keep from the commits that it leaves behind, from every commit that can be decoded by itself.
//!
//! Nothing in such a commit is proven, so nothing in it may grant access. It may only deny: locks, revoked evidence, keys that are given up
//! or removed, and trust that was withdrawn.

use std::collections::BTreeMap;

use crate::READ_BYTES;
use crate::commit::Commit;
use crate::record::{Author, BundleUpdated, Event, KeyChanged, KeyState, Record};
use crate::recovery::recover::RecoverError;
use crate::revocation::{Target, TargetKind};
use crate::state::State;
use mayfly_base::limits;
use mayfly_store::{Position, Store};

/// The reason of a lost revocation or lock with its author; `None` where a recovery itself revokes or locks.
pub(crate) type LostReason = Option<String>;

/// The collected facts.
#[derive(Default)]
pub(crate) struct SalvagedFacts {
    pub locks: BTreeMap<Target, LostReason>,
    /// Evidence that is revoked, and until when.
    pub evidence: BTreeMap<Target, LostReason>,
    pub until: u64,
    /// The highest generation found.
    pub generation: u8,
    /// Number of commits found, readable or not.
    pub commits: u64,
    /// The latest life-cycle states of keys, reached or scheduled.
    pub keys: BTreeMap<String, KeyState>,
    /// The newest bundle of each trust domain.
    bundles: BTreeMap<String, BundleUpdated>,
}

/// A lost reason with its author, who is unproven as everything in a lost commit, so it is not the author of the new record. A reason that
/// an earlier recovery wrote names the author already.
fn cause(reason: &str, author: Option<&Author>) -> String {
    match author {
        None | Some(Author::Mayfly(_)) => reason.to_owned(),
        Some(who) => format!("{} (by {})", cut(reason, limits::PURPOSE_BYTES), who.name()),
    }
}

/// The text of a cause with the remark of this recovery, which is not added twice.
pub(crate) fn remarked(cause: &LostReason, remark: &str) -> String {
    match cause.as_deref() {
        None | Some("") => remark.to_owned(),
        Some(cause) if cause.contains(remark) => cause.to_owned(),
        Some(cause) => format!("{}; {remark}", cut(cause, limits::PURPOSE_BYTES + limits::SPIFFE_ID_BYTES)),
    }
}

/// The beginning of a text, at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= most).last().unwrap_or(0);
    &text[..end]
}

/// The rank of a key's state in its life cycle, which never goes back.
fn age(state: KeyState) -> u8 {
    match state {
        KeyState::Retired => 1,
        KeyState::Removed => 2,
        KeyState::Compromised => 3,
        _ => 0,
    }
}

impl SalvagedFacts {
    fn take(&mut self, record: Record) {
        self.generation = self.generation.max(record.revision().generation());
        let author = record.author.and_then(|author| author.who);
        match record.event {
            Some(Event::GenerationBegun(e)) => {
                self.generation = self.generation.max(u8::try_from(e.generation).unwrap_or(u8::MAX));
            }
            Some(Event::Revoked(e)) => {
                self.until = self.until.max(e.keep_until);
                let cause = Some(cause(&e.reason, author.as_ref()));
                for target in e.targets.iter().filter_map(|t| Target::from_record(t).ok()) {
                    if e.lock_only || (target.sort().locks() && !e.issued_only) {
                        self.locks.insert(target, cause.clone());
                    } else if matches!(target.sort(), TargetKind::Svid | TargetKind::SubjectToken | TargetKind::SigningKey) {
                        self.evidence.insert(target, cause.clone());
                    }
                }
            }
            Some(Event::KeyChanged(e)) => {
                let state = KeyState::try_from(e.state).unwrap_or(KeyState::Compromised);
                if state == KeyState::Compromised {
                    self.evidence.insert(Target::SigningKey(e.key.as_str().into()), Some(cause(&e.reason, author.as_ref())));
                }
                let known = self.keys.entry(e.key).or_insert(state);
                if age(state) >= age(*known) {
                    *known = state;
                }
            }
            Some(Event::BundleSet(e)) => drop(self.bundles.insert(e.trust_domain.clone(), e)),
            _ => {}
        }
    }

    /// Locks trust domains whose bundle in the lost part withdrew trust that the kept part still has. The bundle that should be in effect
    /// is unknown, so no SVID of such a trust domain is accepted until an operator has checked the bundle and lifted the lock.
    pub fn shut_out(&mut self, kept: &State) {
        for (domain, lost) in &self.bundles {
            let Some(bundle) = kept.bundles.get(domain.as_str()).filter(|b| !b.removed) else { continue };
            let gone = |anchor: &[u8; 32]| !lost.anchors.iter().any(|a| a[..] == anchor[..]);
            if lost.removed || bundle.anchors.iter().any(gone) {
                self.locks.entry(Target::TrustDomain(domain.as_str().into())).or_default();
            }
        }
    }

    /// The key changes that bring kept keys to the states found in the lost part: the private part of a key that was given up or removed is
    /// already gone from the store, and a ledger that lists such a key as in use could not be served.
    pub fn key_changes(&self, kept: &State, reason: &str) -> Vec<Event> {
        let mut changes = Vec::new();
        for (id, to) in &self.keys {
            let Some(key) = kept.keys.get(id.as_str()) else { continue };
            let steps: &[KeyState] = match (key.state, to) {
                (KeyState::Compromised, _) => &[],
                (_, KeyState::Compromised) => &[KeyState::Compromised],
                (KeyState::Next | KeyState::Active, KeyState::Retired) => &[KeyState::Retired],
                (KeyState::Next | KeyState::Active, KeyState::Removed) => &[KeyState::Retired, KeyState::Removed],
                (KeyState::Retired, KeyState::Removed) => &[KeyState::Removed],
                _ => &[],
            };
            let change = |state: &KeyState| KeyChanged { key: id.clone(), state: *state as i32, reason: reason.to_owned() };
            changes.extend(steps.iter().map(|state| Event::KeyChanged(change(state))));
        }
        changes
    }
}

/// Reads from a position to the end of the old store.
pub(crate) fn salvage(old: &dyn Store, mut next: Position) -> Result<SalvagedFacts, RecoverError> {
    let mut lost = SalvagedFacts::default();
    let head = old.head()?;
    while next <= head {
        let entries = old.read(next, READ_BYTES)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            next = entry.at + 1;
            lost.commits += 1;
            if let Ok(commit) = Commit::from_bytes(&entry.bytes) {
                commit.records.into_iter().for_each(|record| lost.take(record));
            }
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_taken_over_keeps_its_reason_and_author() {
        let ada = Author::SpiffeId("spiffe://example.org/ada".to_owned());
        let kept = Some(cause("stolen laptop", Some(&ada)));
        let first = remarked(&kept, "taken over");
        assert_eq!(first, "stolen laptop (by spiffe://example.org/ada); taken over");
        let again = Some(cause(&first, Some(&Author::Mayfly("restored".to_owned()))));
        assert_eq!(remarked(&again, "taken over"), first, "a second restore adds nothing");
        assert_eq!(remarked(&None, "taken over"), "taken over");
        let long = Some(cause(&"ä".repeat(100_000), Some(&ada)));
        assert!(remarked(&long, "taken over").ends_with("ä (by spiffe://example.org/ada); taken over"));
        assert!(remarked(&long, "taken over").len() < 2 * limits::PURPOSE_BYTES);
        let unproven = Some(cause(&"ä".repeat(100_000), Some(&Author::Mayfly("restored".to_owned()))));
        assert!(remarked(&unproven, "taken over").len() <= limits::PURPOSE_BYTES + limits::SPIFFE_ID_BYTES + 12);
    }
}
