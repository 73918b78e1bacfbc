//! The write-ahead log: its commits survive a power failure at any moment, a failure stops it, and damage is refused.

use std::path::{Path, PathBuf};

use mayfly::store::memory::MemoryStore;
use mayfly::store::redb::{self, RedbStore, StoreOptions};
use mayfly::store::wal::{Medium, WalStore};
use mayfly::store::{Precondition, Store, StoreError, StoreId};

mod torn;

use crate::dice::{Dice, setting};
use crate::torn_disk::TornDisk;

const FILES: usize = 3;
const BLOCK: usize = 4096;

const ID: [u8; 16] = [7; 16];

/// A file of 16 blocks.
fn empty() -> TornDisk {
    TornDisk::holding(vec![0; 16 * BLOCK])
}

fn before(files: &[TornDisk]) -> Result<WalStore<MemoryStore>, StoreError> {
    let media = files.iter().map(|f| Box::new(f.clone()) as Box<dyn Medium>).collect();
    WalStore::new(MemoryStore::new(StoreId::from_bytes(ID)), media)
}

/// Log files with the commits 1 to `upto`, none of which the engine has.
fn filled(upto: u64, len: usize) -> Vec<Vec<u8>> {
    let files: Vec<TornDisk> = (0..FILES).map(|_| empty()).collect();
    let store = before(&files).unwrap();
    for at in 1..=upto {
        store.append(at, &vec![at as u8; len]).unwrap();
    }
    files.iter().map(TornDisk::image).collect()
}

fn places(store: &impl Store) -> Vec<u64> {
    store.read(1, usize::MAX).unwrap().iter().map(|e| e.at).collect()
}

#[test]
fn what_the_log_has_and_the_engine_has_not_is_there() {
    // In one file, and in two: 16 blocks are 16 commits of 100 bytes.
    for upto in [5, 20] {
        let files: Vec<TornDisk> = filled(upto, 100).into_iter().map(TornDisk::holding).collect();
        let store = before(&files).unwrap();
        assert_eq!((store.oldest().unwrap(), store.head().unwrap()), (1, upto));
        assert_eq!(places(&store), (1..=upto).collect::<Vec<_>>());
        store.append(upto + 1, b"next").unwrap();
        assert_eq!(&store.read(upto + 1, 1).unwrap()[0].bytes[..], b"next");
    }
}

#[test]
fn after_a_failed_flush_nothing_is_taken_until_opened_again() {
    let files: Vec<TornDisk> = (0..FILES).map(|_| empty()).collect();
    let store = before(&files).unwrap();
    store.append(1, b"one").unwrap();
    files.iter().for_each(|f| f.fail_at_sync(0));
    assert!(matches!(store.append(2, b"two"), Err(StoreError::Failed(_))));
    // The disks work again, but their content is unknown.
    files.iter().for_each(|f| f.fail_after(u64::MAX));
    let stopped = |r: Result<(), StoreError>| match r {
        Err(StoreError::Failed(text)) => assert!(text.contains("opened again"), "{text}"),
        other => panic!("{other:?}"),
    };
    stopped(store.append(2, b"two"));
    stopped(store.append_all(2, &[b"two"]));
    stopped(store.put("a", b"2", Precondition::Any));
    stopped(store.delete("a", Precondition::Any));
    assert_eq!((store.head().unwrap(), places(&store)), (1, vec![1]));
}

/// Bytes of a log change: opening and reading give an error, or the original commits up to some position.
#[test]
fn flipped_bytes_give_what_was_written_or_an_error() {
    let good = filled(20, 3_000);
    let mut dice = Dice::new(setting("MAYFLY_SEED", 1));
    let (mut refused, mut shorter, mut whole) = (0, 0, 0);
    for _ in 0..2_000 {
        let mut bad = good.clone();
        for _ in 0..=dice.below(3) {
            let file = &mut bad[dice.below(2) as usize];
            let at = dice.below(file.len() as u64) as usize;
            file[at] ^= 1 << dice.below(8);
        }
        let files: Vec<TornDisk> = bad.into_iter().map(TornDisk::holding).collect();
        match before(&files) {
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
            Ok(store) => {
                let found = store.read(1, usize::MAX).unwrap();
                assert!(found.iter().zip(1..).all(|(e, at)| e.at == at && e.bytes[..] == [at as u8; 3_000]));
                if found.len() == 20 { whole += 1 } else { shorter += 1 }
            }
        }
    }
    println!("{refused} refused, {shorter} without the last ones, {whole} whole");
    assert!(refused > 500 && whole > 500);
}

/// A lost record in the middle, with more behind it, is an error: nothing is skipped silently.
#[test]
fn a_commit_that_is_missing_in_the_middle_is_damage() {
    let good = filled(20, 100);
    for lost in 0..15 {
        let mut bad = good.clone();
        bad[1][lost * BLOCK..(lost + 1) * BLOCK].fill(0);
        let files: Vec<TornDisk> = bad.into_iter().map(TornDisk::holding).collect();
        // Also in the file that was started last.
        let alone: Vec<TornDisk> = [0, 1].map(|n| if n == 1 { files[1].clone() } else { empty() }).into();
        assert!(matches!(before(&alone), Err(StoreError::Damaged { .. })), "{lost}");
        match before(&files) {
            Err(StoreError::Damaged { at, .. }) => assert_eq!(at, lost as u64 + 1, "{lost}"),
            Err(other) => panic!("{lost}: {other}"),
            Ok(_) => panic!("{lost} was not missed"),
        }
    }
}

/// Bytes inside a commit are never taken for a record.
#[test]
fn a_commit_that_looks_like_a_record_is_not_taken_for_one() {
    let earlier = filled(1, 100);
    let record = &earlier[1][..BLOCK];
    assert!(record.starts_with(b"mayflyWL"));
    // A commit that contains a record at the beginning of its second block: the header of 64 bytes precedes it.
    let mut sly = vec![0; BLOCK - 64];
    sly.extend_from_slice(record);
    let files: Vec<TornDisk> = (0..FILES).map(|_| empty()).collect();
    let store = before(&files).unwrap();
    store.append(1, &sly).unwrap();
    let mut torn: Vec<Vec<u8>> = files.iter().map(TornDisk::image).collect();
    assert!(torn.iter().any(|f| f[BLOCK..].starts_with(b"mayflyWL")));
    drop(store);
    let whole = before(&torn.iter().cloned().map(TornDisk::holding).collect::<Vec<_>>()).unwrap();
    assert_eq!((whole.head().unwrap(), &whole.read(1, 1).unwrap()[0].bytes[..]), (1, &sly[..]));
    // The first block did not reach the disk: at worst the start is refused.
    torn.iter_mut().for_each(|f| f[..BLOCK].fill(0));
    match before(&torn.into_iter().map(TornDisk::holding).collect::<Vec<_>>()) {
        Ok(store) => assert_eq!(store.head().unwrap(), 0),
        Err(e) => assert!(matches!(e, StoreError::Damaged { .. }), "{e}"),
    }
}

/// Records that were in a file before it was started over are in the engine.
#[test]
fn what_stood_in_a_file_before_is_not_taken() {
    let files: Vec<TornDisk> = (0..FILES).map(|_| empty()).collect();
    let store = before(&files).unwrap();
    let mut images = Vec::new();
    for at in 1..=200 {
        store.append(at, &[at as u8; 100]).unwrap();
        images.push(files.iter().map(TornDisk::image).collect::<Vec<_>>());
    }
    drop(store);
    for (image, upto) in images.into_iter().zip(1..) {
        // The engine has the former content of the file that is being written.
        let moved = upto - 1 - (upto - 1) % 16;
        let engine = MemoryStore::new(StoreId::from_bytes(ID));
        (1..=moved).for_each(|at| engine.append(at, &[at as u8; 100]).unwrap());
        let media = image.into_iter().map(|f| Box::new(TornDisk::holding(f)) as Box<dyn Medium>).collect();
        let store = WalStore::new(engine, media).unwrap();
        assert_eq!(places(&store), (1..=upto).collect::<Vec<_>>());
    }
}

#[test]
fn another_stores_log_is_not_taken() {
    let files: Vec<TornDisk> = filled(5, 100).into_iter().map(TornDisk::holding).collect();
    let media = files.iter().map(|f| Box::new(f.clone()) as Box<dyn Medium>).collect();
    let store = WalStore::new(MemoryStore::new(StoreId::from_bytes([8; 16])), media).unwrap();
    assert_eq!(store.head().unwrap(), 0);
}

fn options() -> StoreOptions {
    StoreOptions { reserve_bytes: 0, ..StoreOptions::new([9; 16]) }
}

#[test]
fn a_store_without_a_log_goes_on_with_one() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = RedbStore::open(&dir, &options()).unwrap();
    (1..=5).for_each(|at| store.append(at, &[at as u8; 100]).unwrap());
    drop(store);
    let store = redb::open(&dir, &options()).unwrap();
    store.append(6, b"six").unwrap();
    assert_eq!(places(&store), [1, 2, 3, 4, 5, 6]);
    drop(store);
    // An opener without the log would miss the commits in it.
    let Err(StoreError::Foreign(text)) = RedbStore::open(&dir, &options()) else { panic!() };
    assert!(text.contains("log"), "{text}");
    assert_eq!(redb::open(&dir, &options()).unwrap().head().unwrap(), 6);
}

/// A server that was killed: nothing was closed.
fn killed(top: &Path, upto: u64) -> PathBuf {
    let (dir, after) = (top.join("data"), top.join("after"));
    let store = redb::open(&dir, &options()).unwrap();
    (1..=upto).for_each(|at| store.append(at, &[at as u8; 100]).unwrap());
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&after).unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, after.join(path.file_name().unwrap())).unwrap();
    }
    after
}

#[test]
fn what_a_killed_server_had_in_its_log_is_there_and_is_saved_from_what_is_left() {
    let top = tempfile::tempdir().unwrap();
    let after = killed(top.path(), 9);
    let left = redb::open_damaged(&after, &options()).unwrap();
    assert_eq!(places(&left), (1..=9).collect::<Vec<_>>());
    assert!(left.append(10, b"ten").is_err());
    drop(left);
    let store = redb::open(&after, &options()).unwrap();
    assert_eq!(places(&store), (1..=9).collect::<Vec<_>>());
}

/// The newest record was acknowledged and damaged afterwards: the loss of any bit is detected. A record that was never acknowledged may be
/// lost.
#[test]
fn a_damaged_record_that_was_acknowledged_is_damage_and_a_torn_one_that_was_not_is_nothing() {
    let files: Vec<TornDisk> = (0..FILES).map(|_| empty()).collect();
    let head = TornDisk::holding(vec![0; 2 * BLOCK]);
    let open = |files: &[TornDisk], head: &TornDisk| {
        let media = files.iter().map(|f| Box::new(f.clone()) as Box<dyn Medium>).collect();
        WalStore::with_head(MemoryStore::new(StoreId::from_bytes(ID)), media, Box::new(head.clone()))
    };
    let store = open(&files, &head).unwrap();
    (1..=4).for_each(|at| store.append(at, &[at as u8; 500]).unwrap());
    let before = head.image();
    store.append(5, &[5; 500]).unwrap();
    let (whole, after) = (files.iter().map(TornDisk::image).collect::<Vec<_>>(), head.image());
    drop(store);
    let (file, record) = (1, 4 * BLOCK);
    assert!(whole[file][record..].starts_with(b"mayflyWL"));
    for bit in 0..(64 + 500) * 8 {
        let mut bad = whole.clone();
        bad[file][record + bit / 8] ^= 1 << (bit % 8);
        let bad: Vec<TornDisk> = bad.into_iter().map(TornDisk::holding).collect();
        match open(&bad, &TornDisk::holding(after.clone())) {
            Err(StoreError::Damaged { at, what }) => assert!(at == 5 && what.contains("acknowledged"), "{what}"),
            Err(other) => panic!("bit {bit}: {other}"),
            Ok(_) => panic!("bit {bit}: the last commit is gone without a word"),
        }
        if bit % 500 == 0 {
            let store = open(&bad, &TornDisk::holding(before.clone())).unwrap();
            assert_eq!(store.head().unwrap(), 4, "nobody was told of it");
        }
    }
    // Recovered commits become visible, and then count as acknowledged.
    let found: Vec<TornDisk> = whole.iter().cloned().map(TornDisk::holding).collect();
    let behind = TornDisk::holding(before);
    assert_eq!(open(&found, &behind).unwrap().head().unwrap(), 5);
    let mut bad = whole;
    bad[file][record + 100] ^= 1;
    let bad: Vec<TornDisk> = bad.into_iter().map(TornDisk::holding).collect();
    assert!(matches!(open(&bad, &behind), Err(StoreError::Damaged { at: 5, .. })));
}

#[test]
fn a_killed_server_whose_newest_record_is_damaged_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let after = killed(top.path(), 9);
    let log = after.join("wal-1");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = (0..bytes.len() / BLOCK).filter(|n| bytes[n * BLOCK..].starts_with(b"mayflyWL")).max().unwrap() * BLOCK;
    bytes[at + 70] ^= 4;
    std::fs::write(&log, &bytes).unwrap();
    match redb::open(&after, &options()) {
        Err(StoreError::Damaged { at: 9, what }) => assert!(what.contains("acknowledged"), "{what}"),
        other => panic!("{:?}", other.map(|s| s.head().unwrap())),
    }
    // A recovery can read the rest.
    assert_eq!(places(&redb::open_damaged(&after, &options()).unwrap()), (1..=8).collect::<Vec<_>>());
    std::fs::remove_file(after.join("wal-head")).unwrap();
    let Err(StoreError::Damaged { what, .. }) = redb::open(&after, &options()) else { panic!("began without it") };
    assert!(what.contains("wal-head is missing"), "{what}");
}

#[test]
fn a_file_of_the_log_that_is_missing_is_damage() {
    let top = tempfile::tempdir().unwrap();
    let after = killed(top.path(), 9);
    std::fs::remove_file(after.join("wal-1")).unwrap();
    let Err(StoreError::Damaged { what, .. }) = redb::open(&after, &options()) else { panic!("began without its log") };
    assert!(what.contains("wal-1 is missing"), "{what}");
}
