//! Tests of the redb engine alone: its file, its lock, its failures.

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mayfly::limits;
use mayfly::store::redb::{RedbStore, StoreOptions};
use mayfly::store::reserve::{DiskSpace, Reserve};
use mayfly::store::{Store, StoreError};
use redb::{Database, ReadableDatabase, TableDefinition};

const COMMITS: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");

fn options() -> StoreOptions {
    StoreOptions { reserve_bytes: 0, ..StoreOptions::new([9; 16]) }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A closed store with five commits.
fn five(dir: &Path) -> PathBuf {
    let store = RedbStore::open(dir, &options()).unwrap();
    for at in 1..=5 {
        store.append(at, &[at as u8; 3000]).unwrap();
    }
    dir.join("ledger.redb")
}

fn change_behind_its_back(file: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let db = Database::open(file).unwrap();
    let tx = db.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
}

#[test]
fn directories_and_file_are_made_private() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("a/b");
    let store = RedbStore::open(&dir, &options()).unwrap();
    assert_eq!((mode(&top.path().join("a")), mode(&dir), mode(&dir.join("ledger.redb"))), (0o700, 0o700, 0o600));
    drop(store);
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["ledger.redb"]);
}

#[test]
fn what_others_may_open_is_refused_with_the_command() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let file = five(&dir);
    for bad in [0o701, 0o750, 0o777] {
        set_mode(&dir, bad);
        let Err(StoreError::Unsafe(text)) = RedbStore::open(&dir, &options()) else { panic!("{bad:o}") };
        assert!(text.contains(&format!("chmod 700 {}", dir.display())), "{text}");
    }
    set_mode(&dir, 0o700);
    for bad in [0o604, 0o640] {
        set_mode(&file, bad);
        let Err(StoreError::Unsafe(text)) = RedbStore::open(&dir, &options()) else { panic!("{bad:o}") };
        assert!(text.contains(&format!("chmod 600 {}", file.display())), "{text}");
    }
    set_mode(&file, 0o600);
    assert_eq!(RedbStore::open(&dir, &options()).unwrap().head().unwrap(), 5);
}

#[test]
fn a_second_server_is_refused_and_the_first_goes_on() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = RedbStore::open(&dir, &options()).unwrap();
    assert!(matches!(RedbStore::open(&dir, &options()), Err(StoreError::InUse(_))));
    // Also by another path to the same directory.
    let alias = top.path().join("alias");
    symlink(&dir, &alias).unwrap();
    assert!(matches!(RedbStore::open(&alias, &options()), Err(StoreError::InUse(_))));
    // A copy of the directory entry does not help either: the file has its own lock.
    let other = top.path().join("other");
    std::fs::create_dir(&other).unwrap();
    set_mode(&other, 0o700);
    std::fs::hard_link(dir.join("ledger.redb"), other.join("ledger.redb")).unwrap();
    assert!(matches!(RedbStore::open(&other, &options()), Err(StoreError::InUse(_))));
    store.append(1, b"one").unwrap();
    drop(store);
    assert_eq!(RedbStore::open(&dir, &options()).unwrap().head().unwrap(), 1);
}

#[test]
fn another_process_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    five(&dir);
    // flock(1) holds the directory, as another server would.
    let child = std::process::Command::new("flock")
        .arg(&dir)
        .args(["sh", "-c", "echo held; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        crate::skipped::skipped("there is no flock(1) here");
        return;
    };
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let refused = RedbStore::open(&dir, &options());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(refused, Err(StoreError::InUse(_))));
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let file = five(&dir);
    for foreign in [b"SQLite format 3\0".repeat(64), vec![0; 4096], b"x".to_vec()] {
        std::fs::write(&file, &foreign).unwrap();
        assert!(matches!(RedbStore::open(&dir, &options()), Err(StoreError::Foreign(_))));
        assert!(std::fs::read(&file).unwrap() == foreign);
    }
    // A redb file of another program.
    std::fs::remove_file(&file).unwrap();
    let db = Database::create(&file).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(TableDefinition::<u64, u64>::new("commits")).unwrap();
    tx.commit().unwrap();
    drop(db);
    set_mode(&file, 0o600);
    let Err(StoreError::Foreign(text)) = RedbStore::open(&dir, &options()) else { panic!() };
    assert!(text.contains("no store of mayfly"), "{text}");
    // A directory, and a broken link.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(RedbStore::open(&dir, &options()).is_err());
}

#[test]
fn an_empty_file_is_refused_rather_than_begun_anew() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let file = five(&dir);
    std::fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    let Err(StoreError::Foreign(_)) = RedbStore::open(&dir, &options()) else { panic!("began anew over a truncated store") };
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let file = five(&dir);
    change_behind_its_back(&file, |tx| {
        tx.open_table(ABOUT).unwrap().insert("format", 1_000u32.to_be_bytes().as_slice()).unwrap();
    });
    let Err(StoreError::Foreign(text)) = RedbStore::open(&dir, &options()) else { panic!() };
    assert!(text.contains("format 1000") && text.contains("reads 4"), "{text}");
}

#[test]
fn the_identity_is_given_once() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let first = RedbStore::open(&dir, &StoreOptions { reserve_bytes: 0, ..StoreOptions::new([1; 16]) }).unwrap().id();
    let again = RedbStore::open(&dir, &StoreOptions { reserve_bytes: 0, ..StoreOptions::new([2; 16]) }).unwrap().id();
    assert_eq!((first.as_bytes(), again), (&[1; 16], first));
}

#[test]
fn a_gap_is_found_at_open_with_its_place() {
    for (gone, expected) in [(2u64, 2), (4, 4), (3, 3)] {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("data");
        let file = five(&dir);
        change_behind_its_back(&file, |tx| {
            tx.open_table(COMMITS).unwrap().remove(gone).unwrap();
        });
        let Err(StoreError::Damaged { at, .. }) = RedbStore::open(&dir, &options()) else { panic!() };
        assert_eq!(at, expected);
    }
    for place in [0u64, u64::MAX] {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("data");
        let file = five(&dir);
        change_behind_its_back(&file, |tx| {
            tx.open_table(COMMITS).unwrap().insert(place, b"x".as_slice()).unwrap();
        });
        assert!(matches!(RedbStore::open(&dir, &options()), Err(StoreError::Damaged { .. })), "{place}");
    }
}

#[test]
fn a_start_that_did_not_finish_is_done_again() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o700);
    std::fs::write(dir.join("ledger.redb.new"), [0; 5000]).unwrap();
    let store = RedbStore::open(&dir, &options()).unwrap();
    store.append(1, b"one").unwrap();
    assert!(!dir.join("ledger.redb.new").exists());
}

#[test]
fn a_reader_keeps_what_it_has_while_it_is_removed() {
    let top = tempfile::tempdir().unwrap();
    let file = five(&top.path().join("data"));
    let store = RedbStore::open(&top.path().join("data"), &options()).unwrap();
    let found = store.read(1, usize::MAX).unwrap();
    store.remove_before(5).unwrap();
    assert!(found.iter().all(|e| e.bytes[..] == [e.at as u8; 3000]));
    drop(store);
    let db = Database::open(file).unwrap();
    assert_eq!(redb::ReadableTableMetadata::len(&db.begin_read().unwrap().open_table(COMMITS).unwrap()).unwrap(), 1);
}

fn on_disk(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512
}

#[test]
fn the_reserve_is_real_blocks_and_is_given_back_and_taken_again() {
    const PIECE: u64 = limits::DISK_RESERVE_PIECE_BYTES;
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("reserve");
    // A possible remainder of an earlier reserve after a crash: the size without the blocks.
    std::fs::File::create(&file).unwrap().set_len(4 * PIECE).unwrap();
    let reserve = Reserve::open(top.path(), 4 * PIECE, 0).unwrap();
    assert_eq!((reserve.held(), reserve.state(0)), (4 * PIECE, DiskSpace::Plenty));
    assert!(on_disk(&file) >= 4 * PIECE);
    assert!(reserve.release_piece());
    assert_eq!((reserve.held(), reserve.state(0)), (3 * PIECE, DiskSpace::Low));
    assert!(on_disk(&file) < 4 * PIECE);
    assert!(reserve.restore().unwrap());
    assert_eq!((reserve.held(), reserve.state(0)), (4 * PIECE, DiskSpace::Plenty));
    reserve.release().unwrap();
    assert_eq!((reserve.held(), on_disk(&file)), (0, 0));
    assert!(!reserve.release_piece());
    drop(reserve);
    // Another configured size: a larger one is allocated, an excess is freed.
    assert_eq!(Reserve::open(top.path(), 6 * PIECE, 0).unwrap().held(), 6 * PIECE);
    assert_eq!(Reserve::open(top.path(), 2 * PIECE + 1, 0).unwrap().held(), 2 * PIECE + 1);
    assert!(on_disk(&file) < 4 * PIECE);
    // A threshold that no disk can meet.
    assert_eq!(Reserve::open(top.path(), PIECE, u64::MAX).unwrap().state(0), DiskSpace::Low);
}
