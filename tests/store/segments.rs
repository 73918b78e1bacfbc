//! The segment files of the redb engine: when the next begins, when one is removed, and what is refused.

use std::path::{Path, PathBuf};

use mayfly::store::redb::{RedbStore, StoreOptions};
use mayfly::store::{Precondition, Store, StoreError};
use redb::{Database, TableDefinition};

const COMMITS: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");

/// Files that hold about ten of the commits that `fill` makes.
fn options() -> StoreOptions {
    StoreOptions { reserve_bytes: 0, segment_bytes: 30_000, ..StoreOptions::new([9; 16]) }
}

fn open(dir: &Path) -> RedbStore {
    RedbStore::open(dir, &options()).unwrap()
}

fn refused(dir: &Path) -> StoreError {
    match RedbStore::open(dir, &options()) {
        Ok(_) => panic!("it was opened"),
        Err(e) => e,
    }
}

fn bytes(at: u64) -> Vec<u8> {
    at.to_be_bytes().repeat(400)
}

fn fill(store: &RedbStore, upto: u64) {
    for at in store.head().unwrap() + 1..=upto {
        store.append(at, &bytes(at)).unwrap();
    }
}

/// A closed store with a hundred commits.
fn hundred(dir: &Path) -> Vec<PathBuf> {
    fill(&open(dir), 100);
    let files = files(dir);
    assert!(files.len() > 4, "{files:?}");
    files
}

/// The segment files beside the main one, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = all.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("ledger-")).collect();
    files.sort();
    files
}

/// The position in a file's name.
fn first_of(file: &Path) -> u64 {
    let name = file.file_stem().unwrap().to_str().unwrap();
    name.rsplit('-').next().unwrap().parse().unwrap()
}

fn behind_its_back(file: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let db = Database::open(file).unwrap();
    let tx = db.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
}

fn all_of(store: &RedbStore) -> Vec<u64> {
    let entries = store.read(0, usize::MAX).unwrap();
    assert!(entries.iter().all(|e| e.bytes == bytes(e.at)));
    entries.iter().map(|e| e.at).collect()
}

#[test]
fn commits_go_into_one_file_after_the_other_and_are_read_across_them() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let files = hundred(&dir);
    for (n, pair) in files.windows(2).enumerate() {
        assert!(first_of(&pair[1]) - first_of(&pair[0]) <= 20, "a file has enough some time");
        assert!(pair[0].file_name().unwrap().to_str().unwrap().starts_with(&format!("ledger-{:06}-", n + 1)));
    }
    let store = open(&dir);
    assert_eq!((store.oldest().unwrap(), store.head().unwrap()), (1, 100));
    assert_eq!(all_of(&store), (1..=100).collect::<Vec<_>>());
    for from in 1..=100 {
        assert_eq!(store.read(from, 0).unwrap()[0].at, from);
    }
    let across = first_of(&files[2]) - 1;
    let two = store.read(across, 2 * bytes(0).len()).unwrap();
    assert_eq!(two.iter().map(|e| e.at).collect::<Vec<_>>(), [across, across + 1]);
    fill(&store, 110);
    assert_eq!(all_of(&store).len(), 110);
}

#[test]
fn what_is_removed_goes_with_its_file_and_leaves_the_disk() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let files_before = hundred(&dir);
    let store = open(&dir);
    store.put("a", b"stays", Precondition::Absent).unwrap();
    let before = store.bytes();
    // Into the middle of a file, and step by step.
    let middle = first_of(&files_before[2]) + 3;
    store.remove_before(middle).unwrap();
    assert_eq!(files(&dir), files_before[2..]);
    assert!(store.bytes() < before);
    assert_eq!((store.oldest().unwrap(), all_of(&store)[0]), (middle, middle));
    drop(store);
    let store = open(&dir);
    assert_eq!((store.oldest().unwrap(), all_of(&store)), (middle, (middle..=100).collect()));
    // Exactly up to the beginning of a file.
    let next = first_of(&files_before[3]);
    store.remove_before(next).unwrap();
    assert_eq!((files(&dir), all_of(&store)[0]), (files_before[3..].to_vec(), next));
    store.remove_before(u64::MAX).unwrap();
    assert_eq!((all_of(&store), files(&dir).len()), (vec![100], 1));
    assert_eq!(store.named("a").unwrap().unwrap(), b"stays");
    drop(store);
    let store = open(&dir);
    fill(&store, 150);
    assert_eq!(all_of(&store), (100..=150).collect::<Vec<_>>());
}

#[test]
fn what_a_crash_left_of_a_file_that_was_removed_goes_at_the_next_start() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let files_before = hundred(&dir);
    let middle = first_of(&files_before[2]);
    open(&dir).remove_before(middle).unwrap();
    // The full length, as when it was renamed, or less: its content is never read.
    let left = files_before[0].with_extension("redb.going");
    std::fs::write(&left, [7; 5_000]).unwrap();
    let store = open(&dir);
    assert!(!left.exists());
    assert_eq!((files(&dir), all_of(&store)), (files_before[2..].to_vec(), (middle..=100).collect()));
}

#[test]
fn a_file_that_is_missing_is_damage() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let files = hundred(&dir);
    let aside = top.path().join("aside");
    for gone in 1..files.len() - 1 {
        std::fs::rename(&files[gone], &aside).unwrap();
        assert!(matches!(refused(&dir), StoreError::Damaged { at, .. } if at == first_of(&files[gone - 1])));
        std::fs::rename(&aside, &files[gone]).unwrap();
    }
    // The oldest file beside the main one: noticed at the end of the main one.
    std::fs::rename(&files[0], &aside).unwrap();
    assert!(matches!(refused(&dir), StoreError::Damaged { at, .. } if at == first_of(&files[0])));
    std::fs::rename(&aside, &files[0]).unwrap();
    assert_eq!(all_of(&open(&dir)).len(), 100);
}

#[test]
fn commits_that_are_missing_at_the_end_of_a_file_are_damage() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let files = hundred(&dir);
    let cut = |file: &Path, at: u64| behind_its_back(file, |tx| drop(tx.open_table(COMMITS).unwrap().remove(at).unwrap()));
    // The file before the newest: noticed at the start.
    let [.., before, newest] = &files[..] else { panic!() };
    let last = first_of(newest) - 1;
    cut(before, last);
    assert!(matches!(refused(&dir), StoreError::Damaged { at, .. } if at == last));
    behind_its_back(before, |tx| drop(tx.open_table(COMMITS).unwrap().insert(last, bytes(last).as_slice()).unwrap()));
    // A file further back: noticed when it is read.
    let last = first_of(&files[2]) - 1;
    cut(&files[1], last);
    let Err(StoreError::Damaged { at, .. }) = open(&dir).read(1, usize::MAX) else { panic!() };
    assert_eq!(at, last);
    // At the beginning of a file, when the files before it are there.
    let first = first_of(&files[3]);
    cut(&files[3], first);
    let Err(StoreError::Damaged { at, .. }) = open(&dir).read(first - 1, usize::MAX) else { panic!() };
    assert_eq!(at, first);
    // The rest can be salvaged.
    let saved = RedbStore::open_damaged(&dir, &options()).unwrap();
    assert_eq!(all_of(&saved), (1..=100).filter(|at| ![last, first].contains(at)).collect::<Vec<_>>());
}

/// The power fails between the creation of a file and its first commit.
#[test]
fn a_file_that_was_just_begun_with_takes_the_next_commit() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let newest = hundred(&dir).pop().unwrap();
    let first = first_of(&newest);
    behind_its_back(&newest, |tx| tx.open_table(COMMITS).unwrap().retain(|_, _| false).unwrap());
    let store = open(&dir);
    assert_eq!((store.oldest().unwrap(), store.head().unwrap()), (1, first - 1));
    assert_eq!(all_of(&store).len() as u64, first - 1);
    assert_eq!(store.read(first, usize::MAX).unwrap(), []);
    store.remove_before(u64::MAX).unwrap();
    assert_eq!(all_of(&store), [first - 1], "the newest stays, whatever file it is in");
    fill(&store, 120);
    assert_eq!(all_of(&store), (first - 1..=120).collect::<Vec<_>>());
}

#[test]
fn a_file_of_somebody_else_is_refused_by_its_name_or_its_store() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let files = hundred(&dir);
    for name in ["ledger-1-2.redb", "ledger-.redb", "ledger-000000-00000000000000000005.redb", "ledger-copy.redb"] {
        std::fs::copy(&files[0], dir.join(name)).unwrap();
        assert!(matches!(refused(&dir), StoreError::Foreign(text) if text.contains(name)), "{name}");
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    // Two files with one number.
    let other = dir.join("ledger-000001-00000000000000000099.redb");
    std::fs::copy(&files[0], &other).unwrap();
    assert!(matches!(refused(&dir), StoreError::Damaged { .. }));
    std::fs::remove_file(other).unwrap();
    let newest = files.last().unwrap();
    behind_its_back(newest, |tx| drop(tx.open_table(ABOUT).unwrap().insert("id", [8; 16].as_slice()).unwrap()));
    assert!(matches!(refused(&dir), StoreError::Foreign(text) if text.contains("belongs to another store")));
    behind_its_back(newest, |tx| drop(tx.open_table(ABOUT).unwrap().insert("id", [9; 16].as_slice()).unwrap()));
    assert_eq!(all_of(&open(&dir)).len(), 100);
}

#[test]
fn where_the_next_file_cannot_be_made_the_newest_goes_on() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = open(&dir);
    // At the path of the next file there is something that is not a file.
    let place = dir.join("next.redb.new");
    std::fs::create_dir(&place).unwrap();
    fill(&store, 60);
    assert_eq!((all_of(&store).len(), files(&dir)), (60, vec![]));
    std::fs::remove_dir(&place).unwrap();
    fill(&store, 120);
    assert!(files(&dir).len() > 1);
    drop(store);
    assert!(!place.exists(), "what was made ahead goes with the store");
    // A remainder left by a kill does not matter.
    std::fs::write(&place, [0; 5000]).unwrap();
    let store = open(&dir);
    let before = files(&dir).len();
    fill(&store, 160);
    assert!(files(&dir).len() > before);
    assert_eq!(all_of(&store), (1..=160).collect::<Vec<_>>());
}

#[test]
fn a_store_of_one_file_goes_on_in_several() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let one = StoreOptions { segment_bytes: u64::MAX, ..options() };
    let store = RedbStore::open(&dir, &one).unwrap();
    fill(&store, 50);
    drop(store);
    assert_eq!(files(&dir), Vec::<PathBuf>::new());
    let format = |n: u32| {
        behind_its_back(&dir.join("ledger.redb"), |tx| {
            tx.open_table(ABOUT).unwrap().insert("format", n.to_be_bytes().as_slice()).unwrap();
        });
    };
    format(1);
    let store = open(&dir);
    fill(&store, 100);
    assert_eq!((all_of(&store).len(), files(&dir).is_empty()), (100, false));
    drop(store);
    let db = Database::open(dir.join("ledger.redb")).unwrap();
    let about = redb::ReadableDatabase::begin_read(&db).unwrap().open_table(ABOUT).unwrap();
    let now = about.get("format").unwrap().unwrap().value().to_vec();
    assert_eq!(now, 2u32.to_be_bytes(), "a version that knows of one file does not pass over the others");
}
