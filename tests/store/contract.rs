//! The contract of engines: one test for each clause in `src/store/lib.rs`, run for each engine.

#![allow(clippy::disallowed_methods, reason = "a test measures how long it waited")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mayfly::limits;
use mayfly::store::redb::RedbStore;
use mayfly::store::sled::SledStore;
use mayfly::store::wal::WalStore;
use mayfly::store::{Precondition, Store, StoreError, StoredCommit};

mod removal;

use crate::engines::{Engine, Kept, Memory};
use removal::*;

macro_rules! suite {
    ($($clause:ident)*) => {
        mod memory { $(#[test] fn $clause() { super::$clause::<super::Memory>() })* }
        mod redb { $(#[test] fn $clause() { super::$clause::<super::Kept<super::RedbStore>>() })* }
        /// Nearly every commit in a file of its own.
        mod redb_in_many_files { $(#[test] fn $clause() { super::$clause::<super::Kept<super::RedbStore, 1>>() })* }
        /// A few commits per file.
        mod redb_in_files { $(#[test] fn $clause() { super::$clause::<super::Kept<super::RedbStore, 1_000>>() })* }
        /// As in a server: with a write-ahead log.
        mod redb_behind_a_log { $(#[test] fn $clause() { super::$clause::<super::Kept<super::WalStore<super::RedbStore>>>() })* }
        /// With a write-ahead log whose files hold only a few commits, in front of segment files that hold only a few more.
        mod redb_behind_a_small_log {
            $(#[test] fn $clause() { super::$clause::<super::Kept<super::WalStore<super::RedbStore>, 60_000, 16_384>>() })*
        }
        mod sled { $(#[test] fn $clause() { super::$clause::<super::Kept<super::SledStore>>() })* }
    };
}

suite! {
    an_empty_store_has_nothing
    commits_are_read_as_they_were_appended
    only_the_next_place_is_taken
    many_are_appended_as_if_one_by_one
    a_read_stops_at_its_bytes_but_gives_one
    a_commit_is_bounded
    follow_waits_for_what_is_appended
    follow_gives_up_in_time
    removal_keeps_order_and_the_newest
    removal_of_many_is_whole
    removal_in_steps_lets_others_go_between
    an_empty_store_may_begin_elsewhere
    every_expectation_of_a_put
    every_expectation_of_a_delete
    names_are_listed_by_prefix_in_byte_order
    names_and_values_are_bounded
    the_number_of_named_values_is_bounded
    all_of_it_is_there_after_opening_again
    readers_never_see_a_gap_while_appending_and_removing
    one_of_many_wins_each_compare_and_set
}

/// Bytes that identify the commit.
fn commit(at: u64, len: usize) -> Vec<u8> {
    at.to_be_bytes().into_iter().cycle().take(len).collect()
}

fn fill(store: &impl Store, upto: u64, len: usize) {
    for at in store.head().unwrap() + 1..=upto {
        store.append(at, &commit(at, len)).unwrap();
    }
}

fn places(entries: &[StoredCommit]) -> Vec<u64> {
    entries.iter().map(|e| e.at).collect()
}

fn many_are_appended_as_if_one_by_one<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    s.append_all(1, &[]).unwrap();
    assert_eq!(s.head().unwrap(), 0);
    let made: Vec<Vec<u8>> = (1..=70).map(|at| commit(at, 300)).collect();
    let all: Vec<&[u8]> = made.iter().map(Vec::as_slice).collect();
    s.append_all(1, &all[..40]).unwrap();
    assert!(matches!(s.append_all(40, &all[39..]), Err(StoreError::NotNext { asked: 40, next: 41 })));
    s.append_all(41, &all[40..]).unwrap();
    s.append(71, &commit(71, 300)).unwrap();
    let large = vec![0; limits::COMMIT_BYTES + 1];
    assert!(matches!(s.append_all(72, &[&large]), Err(StoreError::TooLarge { .. })));
    let Some(e) = e.again() else { return };
    let read = e.store().read(1, usize::MAX).unwrap();
    assert_eq!(places(&read), (1..=71).collect::<Vec<u64>>());
    assert!(read.iter().zip(&made).all(|(entry, bytes)| entry.bytes == *bytes));
    assert_eq!((e.store().oldest().unwrap(), e.store().head().unwrap()), (1, 71));
}

fn an_empty_store_has_nothing<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    assert_eq!((s.head().unwrap(), s.oldest().unwrap()), (0, 0));
    assert_eq!(s.read(0, 1000).unwrap(), []);
    assert_eq!(s.read(7, 1000).unwrap(), []);
    assert_eq!(s.named("a").unwrap(), None);
    assert_eq!(s.list("").unwrap(), Vec::<String>::new());
    s.remove_before(100).unwrap();
    assert_eq!((s.head().unwrap(), s.oldest().unwrap()), (0, 0));
}

fn commits_are_read_as_they_were_appended<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    for (i, len) in [0usize, 1, 100, 4096, 70_000, 300_000].into_iter().enumerate() {
        let at = i as u64 + 1;
        s.append(at, &commit(at, len)).unwrap();
        assert_eq!((s.oldest().unwrap(), s.head().unwrap()), (1, at));
    }
    let all = s.read(0, usize::MAX).unwrap();
    assert_eq!(places(&all), [1, 2, 3, 4, 5, 6]);
    for (entry, len) in all.iter().zip([0usize, 1, 100, 4096, 70_000, 300_000]) {
        assert!(entry.bytes == commit(entry.at, len), "commit {}", entry.at);
    }
    assert_eq!(s.read(1, usize::MAX).unwrap(), all);
    assert_eq!(places(&s.read(6, usize::MAX).unwrap()), [6]);
    assert_eq!(s.read(7, usize::MAX).unwrap(), []);
    assert_eq!(s.read(u64::MAX, usize::MAX).unwrap(), []);
}

fn only_the_next_place_is_taken<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    for (asked, next) in [(0, 1), (2, 1), (u64::MAX, 1)] {
        assert!(matches!(s.append(asked, b"x"), Err(StoreError::NotNext { asked: a, next: n }) if (a, n) == (asked, next)));
    }
    s.append(1, b"one").unwrap();
    for asked in [0, 1, 3] {
        assert!(matches!(s.append(asked, b"other"), Err(StoreError::NotNext { next: 2, .. })), "{asked}");
    }
    // None of these errors stopped the store, or changed its content.
    s.append(2, b"two").unwrap();
    let all = s.read(1, 1000).unwrap();
    assert_eq!(all.iter().map(|e| &e.bytes[..]).collect::<Vec<_>>(), [&b"one"[..], b"two"]);
}

fn a_read_stops_at_its_bytes_but_gives_one<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    fill(&**s, 10, 100);
    assert_eq!(places(&s.read(1, 0).unwrap()), [1]);
    assert_eq!(places(&s.read(3, 99).unwrap()), [3]);
    assert_eq!(places(&s.read(3, 100).unwrap()), [3]);
    assert_eq!(places(&s.read(3, 299).unwrap()), [3, 4]);
    assert_eq!(places(&s.read(3, 300).unwrap()), [3, 4, 5]);
    assert_eq!(places(&s.read(9, 10_000).unwrap()), [9, 10]);
}

fn a_commit_is_bounded<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    let most = commit(1, limits::COMMIT_BYTES);
    s.append(1, &most).unwrap();
    let over = vec![0; limits::COMMIT_BYTES + 1];
    assert!(matches!(s.append(2, &over), Err(StoreError::TooLarge { bound: limits::COMMIT_BYTES, .. })));
    s.append(2, b"small").unwrap();
    let found = s.read(1, usize::MAX).unwrap();
    assert!(found[0].bytes == most && &found[1].bytes[..] == b"small");
}

fn follow_waits_for_what_is_appended<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    fill(&**s, 3, 10);
    // No wait for a commit that is there already.
    assert_eq!(s.follow(2, Duration::ZERO).unwrap(), 3);
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let s = Arc::clone(s);
            std::thread::spawn(move || s.follow(3, Duration::from_secs(30)).unwrap())
        })
        .collect();
    std::thread::sleep(Duration::from_millis(30));
    s.append(4, b"four").unwrap();
    for waiter in waiting {
        assert_eq!(waiter.join().unwrap(), 4);
    }
}

fn follow_gives_up_in_time<E: Engine>() {
    let e = E::make(10);
    let began = Instant::now();
    assert_eq!(e.store().follow(0, Duration::from_millis(50)).unwrap(), 0);
    assert!(began.elapsed() >= Duration::from_millis(50) && began.elapsed() < Duration::from_secs(20));
}

fn every_expectation_of_a_put<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    let conflict = |r: Result<(), StoreError>| assert!(matches!(r, Err(StoreError::Conflict { name }) if name == "a"));
    conflict(s.put("a", b"1", Precondition::Value(b"")));
    s.put("a", b"1", Precondition::Absent).unwrap();
    conflict(s.put("a", b"2", Precondition::Absent));
    conflict(s.put("a", b"2", Precondition::Value(b"0")));
    conflict(s.put("a", b"2", Precondition::Value(b"")));
    assert_eq!(s.named("a").unwrap().as_deref(), Some(&b"1"[..]));
    s.put("a", b"2", Precondition::Value(b"1")).unwrap();
    s.put("a", b"3", Precondition::Any).unwrap();
    s.put("b", b"", Precondition::Any).unwrap();
    assert_eq!(s.named("a").unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(s.named("b").unwrap().as_deref(), Some(&b""[..]));
}

fn every_expectation_of_a_delete<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    s.delete("a", Precondition::Any).unwrap();
    s.delete("a", Precondition::Absent).unwrap();
    assert!(matches!(s.delete("a", Precondition::Value(b"1")), Err(StoreError::Conflict { .. })));
    s.put("a", b"1", Precondition::Any).unwrap();
    assert!(matches!(s.delete("a", Precondition::Absent), Err(StoreError::Conflict { .. })));
    assert!(matches!(s.delete("a", Precondition::Value(b"2")), Err(StoreError::Conflict { .. })));
    assert!(s.named("a").unwrap().is_some());
    s.delete("a", Precondition::Value(b"1")).unwrap();
    assert_eq!(s.named("a").unwrap(), None);
    s.put("a", b"1", Precondition::Absent).unwrap();
    s.delete("a", Precondition::Any).unwrap();
    assert_eq!(s.list("").unwrap(), Vec::<String>::new());
}

fn names_are_listed_by_prefix_in_byte_order<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    for name in ["key/b", "key/a", "key", "keys", "Key", "key/B", "0"] {
        s.put(name, b"v", Precondition::Any).unwrap();
    }
    assert_eq!(s.list("key/").unwrap(), ["key/B", "key/a", "key/b"]);
    assert_eq!(s.list("key").unwrap(), ["key", "key/B", "key/a", "key/b", "keys"]);
    assert_eq!(s.list("").unwrap(), ["0", "Key", "key", "key/B", "key/a", "key/b", "keys"]);
    assert_eq!(s.list("z").unwrap(), Vec::<String>::new());
    assert_eq!(s.list("\u{7f}~~").unwrap(), Vec::<String>::new());
}

fn names_and_values_are_bounded<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    let long = "n".repeat(limits::NAMED_VALUE_NAME_BYTES);
    s.put(&long, &vec![7; limits::NAMED_VALUE_BYTES], Precondition::Any).unwrap();
    assert_eq!(s.named(&long).unwrap().map(|v| v.len()), Some(limits::NAMED_VALUE_BYTES));
    s.put("az.AZ_09/:-", b"", Precondition::Any).unwrap();
    let over = vec![0; limits::NAMED_VALUE_BYTES + 1];
    assert!(matches!(s.put("v", &over, Precondition::Any), Err(StoreError::TooLarge { bound: limits::NAMED_VALUE_BYTES, .. })));
    for name in ["", &format!("{long}n"), "a b", "a\n", "ä", "a\0", "a*"] {
        assert!(matches!(s.put(name, b"", Precondition::Any), Err(StoreError::BadName(_))), "{name:?}");
        assert!(matches!(s.named(name), Err(StoreError::BadName(_))), "{name:?}");
        assert!(matches!(s.delete(name, Precondition::Any), Err(StoreError::BadName(_))), "{name:?}");
    }
    assert_eq!(s.list("").unwrap().len(), 2);
}

fn the_number_of_named_values_is_bounded<E: Engine>() {
    let e = E::make(5);
    let s = e.store();
    for i in 0..5 {
        s.put(&format!("n{i}"), b"v", Precondition::Any).unwrap();
    }
    assert!(matches!(s.put("n5", b"v", Precondition::Any), Err(StoreError::TooLarge { bound: 5, .. })));
    s.put("n4", b"changing one is no new one", Precondition::Any).unwrap();
    s.delete("n0", Precondition::Any).unwrap();
    s.put("n5", b"v", Precondition::Absent).unwrap();
    assert_eq!(s.list("").unwrap(), ["n1", "n2", "n3", "n4", "n5"]);
}

fn all_of_it_is_there_after_opening_again<E: Engine>() {
    let e = E::make(10);
    fill(&**e.store(), 20, 5_000);
    e.store().remove_before(4).unwrap();
    e.store().put("a", b"1", Precondition::Any).unwrap();
    e.store().put("b", b"2", Precondition::Any).unwrap();
    e.store().delete("b", Precondition::Any).unwrap();
    let (id, before) = (e.store().id(), e.store().read(0, usize::MAX).unwrap());
    let Some(e) = e.again() else { return };
    let s = e.store();
    assert_eq!(s.id(), id);
    assert_eq!((s.oldest().unwrap(), s.head().unwrap()), (4, 20));
    assert_eq!(s.read(0, usize::MAX).unwrap(), before);
    assert_eq!(s.list("").unwrap(), ["a"]);
    assert_eq!(s.named("a").unwrap().as_deref(), Some(&b"1"[..]));
    fill(&**s, 21, 10);
}

fn readers_never_see_a_gap_while_appending_and_removing<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    fill(&**s, 1, 500);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3u64)
        .map(|i| {
            let (s, done) = (Arc::clone(s), Arc::clone(&done));
            std::thread::spawn(move || {
                let (mut seen, mut reads) = (0, 0u64);
                while !done.load(Ordering::Relaxed) || reads == 0 {
                    let head = s.head().unwrap();
                    let found = s.read(head.saturating_sub(i * 3), 3_000).unwrap();
                    let first = found.first().expect("the newest always stays").at;
                    for (entry, at) in found.iter().zip(first..) {
                        assert_eq!(entry.at, at);
                        assert!(entry.bytes == commit(at, 500), "commit {at}");
                    }
                    assert!(head >= seen, "the head went back");
                    seen = head;
                    reads += 1;
                }
            })
        })
        .collect();
    for at in 2..=300 {
        s.append(at, &commit(at, 500)).unwrap();
        if at % 20 == 0 {
            s.remove_before(at - 10).unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

fn one_of_many_wins_each_compare_and_set<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    s.put("counter", &0u64.to_be_bytes(), Precondition::Absent).unwrap();
    let adders: Vec<_> = (0..4)
        .map(|_| {
            let s = Arc::clone(s);
            std::thread::spawn(move || {
                for _ in 0..25 {
                    loop {
                        let old = s.named("counter").unwrap().unwrap();
                        let new = u64::from_be_bytes(old.clone().try_into().unwrap()) + 1;
                        match s.put("counter", &new.to_be_bytes(), Precondition::Value(&old)) {
                            Ok(()) => break,
                            Err(StoreError::Conflict { .. }) => {}
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            })
        })
        .collect();
    for adder in adders {
        adder.join().unwrap();
    }
    assert_eq!(s.named("counter").unwrap().unwrap(), 100u64.to_be_bytes());
}
