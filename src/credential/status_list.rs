//! Allocates places in token status lists (draft-ietf-oauth-status-list): a list and an index for each credential, without persisted state.
//!
//! A list holds credentials that expire at about the same time. A list's number consists of the sequence number of a record that this
//! process wrote, which no other replica and no other start has, and a counter. Indexes are a keyed permutation of a counter: no index is
//! used twice, and a verifier that sees some of them learns neither how many credentials there are nor in which order they were issued.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use parking_lot::Mutex;

use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_verify::seq::{Millis, Seq};

/// The bits below the sequence number in a list's number: how many lists may begin between two records of this process.
const COUNTER_BITS: u32 = 11;
const HALF_BITS: u32 = limits::STATUS_INDEX_BITS / 2;
const HALF: usize = 1 << HALF_BITS;
const MASK: u32 = HALF as u32 - 1;
/// Luby and Rackoff, 1988: four rounds of independent functions are indistinguishable from a random permutation.
const ROUNDS: usize = 4;

/// A place in a status list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StatusListIndex {
    /// The list.
    pub list: u64,
    /// The index in the list.
    pub index: u32,
}

/// A permutation of `0..2^STATUS_INDEX_BITS`: a Feistel network whose round functions are tables of HMAC output.
pub struct Permutation {
    rounds: Box<[[u16; HALF]; ROUNDS]>,
}

impl Permutation {
    /// The permutation of a list under a key. Costs 256 HMACs.
    pub fn new(key: &hmac::Key, list: u64) -> Permutation {
        let mut rounds = Box::new([[0u16; HALF]; ROUNDS]);
        for (n, round) in rounds.iter_mut().enumerate() {
            for (block, entries) in round.chunks_mut(16).enumerate() {
                let mut name = [0; 24];
                name[..8].copy_from_slice(&list.to_be_bytes());
                name[8..16].copy_from_slice(&(n as u64).to_be_bytes());
                name[16..].copy_from_slice(&(block as u64).to_be_bytes());
                let tag = hmac::sign(key, &name);
                for (entry, bytes) in entries.iter_mut().zip(tag.as_ref().chunks_exact(2)) {
                    *entry = u16::from_be_bytes([bytes[0], bytes[1]]) & MASK as u16;
                }
            }
        }
        Permutation { rounds }
    }

    /// The image of `n`, which is taken modulo the size.
    pub fn at(&self, n: u32) -> u32 {
        let (mut left, mut right) = ((n >> HALF_BITS) & MASK, n & MASK);
        for round in self.rounds.iter() {
            let mixed = round.get(right as usize).copied().unwrap_or_default();
            (left, right) = (right, left ^ u32::from(mixed));
        }
        left << HALF_BITS | right
    }
}

struct List {
    number: u64,
    next: u32,
    permutation: Permutation,
}

struct Open {
    base: Seq,
    counter: u64,
    /// The open lists, by the end of their time span.
    lists: BTreeMap<Millis, List>,
}

/// Allocates places. There is one allocator per process.
pub struct StatusListAllocator {
    key: hmac::Key,
    open: Mutex<Open>,
}

impl StatusListAllocator {
    /// `own`: the sequence number of a record that this process wrote after its start. `key`: random, new at each start.
    pub fn new(own: Seq, key: &[u8; 32]) -> StatusListAllocator {
        let open = Open { base: own, counter: 0, lists: BTreeMap::new() };
        StatusListAllocator { key: hmac::Key::new(hmac::HMAC_SHA256, key), open: Mutex::new(open) }
    }

    /// Takes the sequence number of a later record of this process, so that more lists can be numbered. To be called at least once per
    /// 2,048 lists.
    pub fn learn(&self, own: Seq) {
        let mut open = self.open.lock();
        if own > open.base {
            open.base = own;
            open.counter = 0;
        }
    }

    /// A place for a credential that expires at `expires_at`.
    pub fn place(&self, expires_at: Millis, now: Millis) -> Result<StatusListIndex, Fault> {
        let span = Millis((expires_at.0 / limits::STATUS_SPAN_MS + 1).saturating_mul(limits::STATUS_SPAN_MS));
        let mut open = self.open.lock();
        let full = open.lists.get(&span).is_none_or(|l| l.next >> limits::STATUS_INDEX_BITS != 0);
        if full {
            let over: Vec<Millis> = open.lists.range(..now).map(|(end, _)| *end).collect();
            for end in over {
                open.lists.remove(&end);
            }
            if open.counter >> COUNTER_BITS != 0 {
                return Err(Fault::new("status lists were assigned 2,048 list numbers without seeing a new record"));
            }
            let number = open.base.as_u64() << COUNTER_BITS | open.counter;
            open.counter += 1;
            let permutation = Permutation::new(&self.key, number);
            open.lists.insert(span, List { number, next: 0, permutation });
        }
        let Some(list) = open.lists.get_mut(&span) else { return Err(Fault::new("a status list went missing")) };
        let index = list.permutation.at(list.next);
        list.next += 1;
        Ok(StatusListIndex { list: list.number, index })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[n; 32])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn it_is_a_permutation_whatever_key_and_list(bytes: [u8; 32], list: u64) {
            let p = Permutation::new(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), list);
            let size = 1u32 << limits::STATUS_INDEX_BITS;
            let mut seen = vec![false; size as usize];
            for n in 0..size {
                let to = p.at(n) as usize;
                prop_assert!(!seen[to], "{} is met twice", to);
                seen[to] = true;
            }
        }
    }

    #[test]
    fn neighbours_do_not_stay_neighbours_and_keys_and_lists_differ() {
        let (a, b, c) = (Permutation::new(&key(1), 7), Permutation::new(&key(2), 7), Permutation::new(&key(1), 8));
        let near = (0..10_000u32).filter(|n| a.at(*n).abs_diff(a.at(n + 1)) < 1_000).count();
        // Expected by chance: 2 · 1,000 / 2^20 of 10,000, which is 19.
        assert!(near < 60, "{near}");
        assert!((0..1_000).filter(|n| a.at(*n) == b.at(*n) || a.at(*n) == c.at(*n)).count() < 5);
    }

    #[test]
    fn a_list_holds_what_ends_together_and_no_place_is_given_twice() {
        let allocator = StatusListAllocator::new(Seq::from_u64(77).unwrap(), &[1; 32]);
        let mut seen = BTreeSet::new();
        let mut spans = BTreeSet::new();
        for n in 0..20_000u64 {
            let expires_at = Millis(1_000_000 + n % 6 * limits::STATUS_SPAN_MS);
            let place = allocator.place(expires_at, Millis(0)).unwrap();
            assert!(seen.insert(place));
            spans.insert((expires_at.0 / limits::STATUS_SPAN_MS, place.list));
        }
        assert_eq!(spans.len(), 6, "one list per span: {spans:?}");
    }

    #[test]
    fn a_full_list_is_followed_by_another_and_numbers_run_out_rather_than_repeat() {
        let allocator = StatusListAllocator::new(Seq::from_u64(77).unwrap(), &[1; 32]);
        let fill = |span: u64| allocator.place(Millis(span * limits::STATUS_SPAN_MS), Millis(0));
        let first = fill(0).unwrap().list;
        {
            let mut open = allocator.open.lock();
            open.lists.values_mut().for_each(|l| l.next = (1 << limits::STATUS_INDEX_BITS) - 1);
        }
        assert_eq!(fill(0).unwrap().list, first, "the last place");
        assert_ne!(fill(0).unwrap().list, first);
        let mut lists = BTreeSet::from([first, fill(0).unwrap().list]);
        for span in 1..(1 << COUNTER_BITS) - 1 {
            assert!(lists.insert(fill(span).unwrap().list));
        }
        assert!(fill(5_000).is_err());
        allocator.learn(Seq::from_u64(70).unwrap());
        assert!(fill(5_000).is_err(), "an older record numbers nothing");
        allocator.learn(Seq::from_u64(78).unwrap());
        assert!(lists.insert(fill(5_000).unwrap().list));
    }

    #[test]
    fn lists_whose_time_is_over_are_dropped() {
        let allocator = StatusListAllocator::new(Seq::from_u64(77).unwrap(), &[1; 32]);
        for n in 0..50 {
            let now = Millis(n * limits::STATUS_SPAN_MS);
            allocator.place(now.plus(1), now).unwrap();
        }
        assert!(allocator.open.lock().lists.len() <= 2);
    }
}
