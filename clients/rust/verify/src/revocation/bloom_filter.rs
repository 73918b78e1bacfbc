//! A quick check whether any rule or hold in force may affect a token, using hashes that are computed once when the token is parsed.
//!
//! Each question that a token gives has a hash, and a target has the same hash as the question that matches it. Everything in force sets
//! bits in a small table (a Bloom filter). A token without any marked hash is not affected, which is the case for nearly all tokens; the
//! others are checked by name ([`Rules`](super::Rules)). A false positive costs time and never changes a result; false negatives are
//! impossible.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::FixedState;
use hashbrown::HashMap;

use super::facts::{Facts, Probe};
use super::target::Target;
use super::target_kind::TargetKinds;
use crate::seq::Seq;

/// Maximum number of targets per 64-bit word. Each sets three bits, so that one unrelated token in a thousand finds its three bits set by
/// others.
const PER_WORD: usize = 4;
/// The least number of words.
const WORDS: usize = 16;
/// For entries that apply regardless of the revision: a revoked signing key, a held task. Greater than every sequence number, including
/// [`Seq::LAST`].
const ALWAYS: u64 = u64::MAX;
/// How many ended marks may stay, besides a quarter of all marks, before the table is rebuilt.
const ENDED: usize = 64;

/// The next state number. Different marks never have the same state number.
static STATES: AtomicU64 = AtomicU64::new(1);

fn new_state() -> u64 {
    STATES.fetch_add(1, Ordering::Relaxed)
}

/// The hash of a question and of the targets that match it. The version of a policy question is left out, because a rule covers all
/// versions below its own.
///
/// The hash function is the same in every process. Only operators who may revoke choose the targets in force, so nobody else can provoke
/// collisions.
fn number(probe: &Probe<'_>) -> u32 {
    let hasher = FixedState::default();
    let hash = match probe {
        Probe::Policy(environment, _) => hasher.hash_one(Probe::Policy(environment, 0)),
        other => hasher.hash_one(other),
    };
    hash as u32
}

/// The revision of a token's decision and the hashes of all its questions.
#[derive(Debug)]
pub struct ProbeHashes {
    revision: u64,
    numbers: Box<[u32]>,
    /// The state of the marks that were last found not to affect the token. While the marks have this state the result stays valid. 0:
    /// none.
    untouched: AtomicU64,
}

impl Clone for ProbeHashes {
    fn clone(&self) -> ProbeHashes {
        ProbeHashes { revision: self.revision, numbers: self.numbers.clone(), untouched: AtomicU64::new(0) }
    }
}

impl Facts<'_> {
    /// The hashes of these facts, for [`Follower::touches`](super::Follower::touches).
    pub fn asked(&self) -> ProbeHashes {
        let mut numbers = Vec::with_capacity(32);
        self.each(TargetKinds::ALL, &mut |probe| {
            numbers.push(number(&probe));
            false
        });
        ProbeHashes { revision: self.revision.as_u64(), numbers: numbers.into(), untouched: AtomicU64::new(0) }
    }
}

/// The marks of everything in force.
#[derive(Clone, Debug)]
pub(super) struct RevocationFilter {
    words: Box<[u64]>,
    /// The newest revocation per hash, to confirm a match in the bit table.
    newest: HashMap<u32, u64>,
    newest_of_all: u64,
    ended: usize,
    /// Changes with each mark. A clone has the same state until one of the two changes.
    state: u64,
}

impl Default for RevocationFilter {
    fn default() -> RevocationFilter {
        RevocationFilter { words: vec![0; WORDS].into(), newest: HashMap::new(), newest_of_all: 0, ended: 0, state: new_state() }
    }
}

/// Three bits of a word, from the bits of a hash that do not select the word.
const fn bits(number: u32) -> u64 {
    1 << (number & 63) | 1 << (number >> 6 & 63) | 1 << (number >> 12 & 63)
}

impl RevocationFilter {
    /// Marks a revoked target.
    pub fn revoked(&mut self, target: &Target, seq: Seq) {
        let always = matches!(target, Target::SigningKey(_));
        self.mark(number(&target.probe()), if always { ALWAYS } else { seq.as_u64() });
    }

    /// Marks a held task.
    pub fn held(&mut self, task: crate::seq::TaskId) {
        self.mark(number(&Probe::Task(task)), ALWAYS);
    }

    /// Records that marks have ended. `true`: too many have ended, and the table must be rebuilt.
    pub fn ended(&mut self, count: usize) -> bool {
        self.ended += count;
        self.ended > ENDED + self.newest.len() / 4
    }

    /// Whether anything is in force that a decision at this revision did not see.
    pub fn newer(&self, revision: u64) -> bool {
        self.newest_of_all > revision
    }

    /// Whether anything in force may affect the token. `false` is certain.
    pub fn touch(&self, asked: &ProbeHashes) -> bool {
        if !self.newer(asked.revision) || asked.untouched.load(Ordering::Relaxed) == self.state {
            return false;
        }
        // A fold over all hashes without branches, since almost always none is marked.
        let marked = asked.numbers.iter().fold(false, |any, number| any | self.is_marked(*number));
        let touched = marked && asked.numbers.iter().any(|number| self.is_marked(*number) && self.bites(*number, asked.revision));
        if !touched {
            // The result stays valid for this state, so a relaxed store suffices.
            asked.untouched.store(self.state, Ordering::Relaxed);
        }
        touched
    }

    fn bites(&self, number: u32, revision: u64) -> bool {
        self.newest.get(&number).is_some_and(|seq| *seq > revision)
    }

    fn is_marked(&self, number: u32) -> bool {
        let bits = bits(number);
        self.words[self.word(number)] & bits == bits
    }

    /// The number of words is always a power of two.
    fn word(&self, number: u32) -> usize {
        (number >> 18) as usize & (self.words.len() - 1)
    }

    fn mark(&mut self, number: u32, seq: u64) {
        self.state = new_state();
        self.newest_of_all = self.newest_of_all.max(seq);
        let newest = self.newest.entry(number).or_insert(0);
        *newest = seq.max(*newest);
        if self.newest.len() > self.words.len() * PER_WORD {
            self.words = vec![0; self.words.len() * 2].into();
            let all: Vec<u32> = self.newest.keys().copied().collect();
            all.into_iter().for_each(|number| self.set(number));
        }
        self.set(number);
    }

    fn set(&mut self, number: u32) {
        let at = self.word(number);
        self.words[at] |= bits(number);
    }
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
