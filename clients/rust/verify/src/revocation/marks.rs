//! The quick no: whether anything of what is in force can touch a token, by numbers that were made once when the token was read.
//!
//! Each question that a token answers has a number, and so has each target: of the same question, the same number. What is in force leaves
//! its marks in a small table. A token none of whose numbers is marked is touched by nothing, which is nearly every token; the others are
//! asked about by name ([`Rules`](super::Rules)). So a mark too many costs time and never an answer; a mark too few there cannot be.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::FixedState;
use hashbrown::HashMap;

use super::facts::{Facts, Probe};
use super::sort::Sorts;
use super::target::Target;
use crate::seq::Seq;

/// Targets to a word of 64 bits, where the table is full. Of three bits each: one stranger in a thousand finds its own set by others.
const PER_WORD: usize = 4;
/// The least number of words.
const WORDS: usize = 16;
/// What bites whatever the revision: a signing key that was revoked, a task that is held. Above every seq, [`Seq::LAST`] too.
const ALWAYS: u64 = u64::MAX;
/// Marks of what ended that are kept before all are made anew, beside a quarter of all.
const ENDED: usize = 64;

/// The next state of any marks: no two that differ have one.
static STATES: AtomicU64 = AtomicU64::new(1);

fn new_state() -> u64 {
    STATES.fetch_add(1, Ordering::Relaxed)
}

/// The number of a question, and of the targets that answer it. Of a policy the version is not in it: a rule is for all below its own.
///
/// The same in every process, for nobody chooses what is in force but those who may revoke everything.
fn number(probe: &Probe<'_>) -> u32 {
    let hasher = FixedState::default();
    let hash = match probe {
        Probe::Policy(environment, _) => hasher.hash_one(Probe::Policy(environment, 0)),
        other => hasher.hash_one(other),
    };
    hash as u32
}

/// Which revision it was decided at, and the numbers of all that it answers.
#[derive(Debug)]
pub struct Asked {
    revision: u64,
    numbers: Box<[u32]>,
    /// The state of the marks that last were found not to touch it: as long as that stays, they do not. 0 for none.
    untouched: AtomicU64,
}

impl Clone for Asked {
    fn clone(&self) -> Asked {
        Asked { revision: self.revision, numbers: self.numbers.clone(), untouched: AtomicU64::new(0) }
    }
}

impl Facts<'_> {
    /// These facts as [`Follower::touches`](super::Follower::touches) asks about them.
    pub fn asked(&self) -> Asked {
        let mut numbers = Vec::with_capacity(32);
        self.each(Sorts::ALL, &mut |probe| {
            numbers.push(number(&probe));
            false
        });
        Asked { revision: self.revision.as_u64(), numbers: numbers.into(), untouched: AtomicU64::new(0) }
    }
}

/// The marks of all that is in force.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    words: Box<[u64]>,
    /// The newest of each number: that a table of bits says maybe is not the last word.
    newest: HashMap<u32, u64>,
    newest_of_all: u64,
    ended: usize,
    /// Another with each mark. A copy has the same as long as it is the same.
    state: u64,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { words: vec![0; WORDS].into(), newest: HashMap::new(), newest_of_all: 0, ended: 0, state: new_state() }
    }
}

/// Three bits of a word, by the bits of a number that do not choose the word.
const fn bits(number: u32) -> u64 {
    1 << (number & 63) | 1 << (number >> 6 & 63) | 1 << (number >> 12 & 63)
}

impl Marks {
    /// A target was revoked.
    pub fn revoked(&mut self, target: &Target, seq: Seq) {
        let always = matches!(target, Target::SigningKey(_));
        self.mark(number(&target.probe()), if always { ALWAYS } else { seq.as_u64() });
    }

    /// A task is held.
    pub fn held(&mut self, task: crate::seq::TaskId) {
        self.mark(number(&Probe::Task(task)), ALWAYS);
    }

    /// So many marks are of what is no longer in force. `true`: they are too many, and all are to be made anew.
    pub fn ended(&mut self, count: usize) -> bool {
        self.ended += count;
        self.ended > ENDED + self.newest.len() / 4
    }

    /// Whether anything is in force that a decision at this revision did not see.
    pub fn newer(&self, revision: u64) -> bool {
        self.newest_of_all > revision
    }

    /// Whether anything in force may touch it. `false` is certain.
    pub fn touch(&self, asked: &Asked) -> bool {
        if !self.newer(asked.revision) || asked.untouched.load(Ordering::Relaxed) == self.state {
            return false;
        }
        // All of them, and no branch between: nearly always none is marked.
        let marked = asked.numbers.iter().fold(false, |any, number| any | self.is_marked(*number));
        let touched = marked && asked.numbers.iter().any(|number| self.is_marked(*number) && self.bites(*number, asked.revision));
        if !touched {
            // What this says stays true for that state, whoever reads it when.
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

    /// There is always a power of two of words.
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
