//! Tests of the sled engine alone: its folder, its head file, and what a crash leaves in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly::limits;
use mayfly::store::options::StoreOptions;
use mayfly::store::sled::SledStore;
use mayfly::store::{Precondition, Store, StoreError};

fn options() -> StoreOptions {
    StoreOptions { reserve_bytes: 0, ..StoreOptions::new([9; 16]) }
}

fn open(dir: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(dir, &options())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A closed store with five commits of three rows each and a value of several rows; returns its directory.
fn five(top: &Path) -> PathBuf {
    let dir = top.join("data");
    let store = open(&dir).unwrap();
    for at in 1..=5 {
        store.append(at, &[at as u8; 9000]).unwrap();
    }
    store.put("value", &[7; 20_000], Precondition::Absent).unwrap();
    dir
}

fn is_five(store: &SledStore) {
    assert_eq!((store.oldest().unwrap(), store.head().unwrap()), (1, 5));
    for (entry, at) in store.read(0, usize::MAX).unwrap().iter().zip(1..=5u64) {
        assert!(entry.at == at && entry.bytes[..] == [at as u8; 9000]);
    }
    assert_eq!((store.list("").unwrap(), store.named("value").unwrap().unwrap()), (vec!["value".to_owned()], vec![7; 20_000]));
}

/// Changes rows in a way that mayfly never does.
fn behind_its_back(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let config = sled::Config::new().path(dir.join("ledger.sled")).flush_every_ms(None);
    let db = (0..500).find_map(|_| config.open().inspect_err(|_| std::thread::sleep(Duration::from_millis(10))).ok()).unwrap();
    change(&db);
    db.flush().unwrap();
}

fn commit_key(at: u64, piece: u16) -> Vec<u8> {
    [b"c".as_slice(), &at.to_be_bytes(), &piece.to_be_bytes()].concat()
}

/// A copy with file modes. It starts no process: between fork and exec that process would hold the locks of other tests.
fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

fn damaged(dir: &Path, place: u64, said: &str) {
    match open(dir) {
        Err(StoreError::Damaged { at, what }) => assert!(at == place && what.contains(said), "{at}: {what}"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn what_is_made_is_private_and_all_that_there_is() {
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["ledger.head", "ledger.sled"]);
    drop(open(&dir).unwrap());
    for (path, wanted) in [("", 0o700), ("ledger.head", 0o600), ("ledger.sled", 0o700), ("ledger.sled/blobs", 0o700)] {
        assert_eq!(mode(&dir.join(path)), wanted, "{path}");
    }
    for entry in std::fs::read_dir(dir.join("ledger.sled")).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()) & 0o077, 0);
    }
}

#[test]
fn no_row_goes_to_a_file_of_its_own() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = open(&dir).unwrap();
    let value = vec![3; limits::NAMED_VALUE_BYTES];
    for n in 0..300u32 {
        // Names of 512 bytes, all different at their beginning: the most that an index page can hold.
        let name: String = format!("{:08x}", n.wrapping_mul(0x9e37_79b9)).repeat(64);
        store.put(&name, if n % 50 == 0 { &value } else { b"small" }, Precondition::Absent).unwrap();
    }
    store.append(1, &vec![1; limits::COMMIT_BYTES]).unwrap();
    store.append(2, &vec![2; limits::COMMIT_BYTES]).unwrap();
    store.remove_before(2).unwrap();
    assert_eq!(std::fs::read_dir(dir.join("ledger.sled/blobs")).unwrap().count(), 0);
    drop(store);
    let store = open(&dir).unwrap();
    assert_eq!((store.list("").unwrap().len(), store.oldest().unwrap()), (300, 2));
    assert!(store.read(2, usize::MAX).unwrap()[0].bytes[..] == vec![2; limits::COMMIT_BYTES]);
}

#[test]
fn blobs_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    std::fs::write(dir.join("ledger.sled/blobs/123"), b"x").unwrap();
    let Err(StoreError::Foreign(text)) = open(&dir) else { panic!() };
    assert!(text.contains("blobs is not empty") && text.contains("ls -l "), "{text}");
    std::fs::remove_file(dir.join("ledger.sled/blobs/123")).unwrap();
    is_five(&open(&dir).unwrap());
}

#[test]
fn a_snapshot_that_was_not_finished_is_removed() {
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    let torn = dir.join("ledger.sled/snap.FFFFFFFFFFFFFFFF.generating");
    std::fs::write(&torn, [0; 40]).unwrap();
    is_five(&open(&dir).unwrap());
    assert!(!torn.exists());
}

#[test]
fn a_second_server_is_refused_and_the_first_goes_on() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = open(&dir).unwrap();
    assert!(matches!(open(&dir), Err(StoreError::InUse(_))));
    store.append(1, b"one").unwrap();
    drop(store);
    assert_eq!(open(&dir).unwrap().head().unwrap(), 1);
}

/// Without one of its files sled would begin an empty store, and everything would be silently gone.
#[test]
fn what_sled_would_open_empty_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let good = five(top.path());
    for (n, gone) in ["ledger.sled", "ledger.sled/db", "ledger.sled/conf", "ledger.head"].into_iter().enumerate() {
        let dir = top.path().join(n.to_string());
        copy(&good, &dir);
        let path = dir.join(gone);
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.unwrap();
        let refused = open(&dir).err();
        assert!(matches!(refused, Some(StoreError::Damaged { .. } | StoreError::Foreign(_))), "{gone}: {refused:?}");
        assert!(!path.exists(), "{gone} was made anew");
    }
    // An empty sled store, as its worst failure leaves it.
    let dir = top.path().join("empty");
    copy(&good, &dir);
    std::fs::remove_dir_all(dir.join("ledger.sled")).unwrap();
    std::fs::create_dir(dir.join("ledger.sled")).unwrap();
    behind_its_back(&dir, |db| drop(db.insert(b"x", b"y").unwrap()));
    damaged(&dir, 1, "as if nothing had ever been written");
    // A power failure before everything had its name left this: nothing was acknowledged, so the store begins anew.
    let dir = top.path().join("begun");
    drop(open(&dir).unwrap());
    let fresh = top.path().join("fresh");
    std::fs::create_dir(&fresh).unwrap();
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o700)).unwrap();
    copy(&dir.join("ledger.sled"), &fresh.join("ledger.sled.new"));
    open(&fresh).unwrap().append(1, b"one").unwrap();
    assert!(!fresh.join("ledger.sled.new").exists());
}

#[test]
fn a_store_below_its_head_is_refused_with_the_place_and_read_for_recovery() {
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    let older = top.path().join("older");
    copy(&dir.join("ledger.sled"), &older);
    let store = open(&dir).unwrap();
    store.append(6, b"six").unwrap();
    store.append(7, b"seven").unwrap();
    drop(store);
    std::fs::remove_dir_all(dir.join("ledger.sled")).unwrap();
    copy(&older, &dir.join("ledger.sled"));
    damaged(&dir, 6, "it lost its end");
    let left = SledStore::open_damaged(&dir, &options()).unwrap();
    assert_eq!((left.head().unwrap(), left.read(0, usize::MAX).unwrap().len()), (5, 5));
    assert!(matches!(left.append(6, b"x"), Err(StoreError::Failed(_))));
}

/// A lost named value, which is not a commit, is noticed all the same.
#[test]
fn a_value_that_is_lost_is_missed() {
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    let older = top.path().join("older");
    copy(&dir.join("ledger.sled"), &older);
    open(&dir).unwrap().put("key", b"sealed", Precondition::Absent).unwrap();
    std::fs::remove_dir_all(dir.join("ledger.sled")).unwrap();
    copy(&older, &dir.join("ledger.sled"));
    damaged(&dir, 6, "it lost its end");
}

#[test]
fn the_head_survives_a_torn_write_and_is_refused_where_nothing_is_left_of_it() {
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    let head = dir.join("ledger.head");
    let good = std::fs::read(&head).unwrap();
    for place in [0, 4096] {
        let mut torn = good.clone();
        torn[place + 20] ^= 1;
        std::fs::write(&head, &torn).unwrap();
        is_five(&open(&dir).unwrap());
    }
    std::fs::write(&head, vec![0; 8192]).unwrap();
    damaged(&dir, 0, "says nothing that can be trusted");
    // The head file of another store.
    let other = top.path().join("other");
    drop(SledStore::open(&other, &StoreOptions { reserve_bytes: 0, ..StoreOptions::new([8; 16]) }).unwrap());
    copy(&other.join("ledger.head"), &head);
    assert!(matches!(open(&dir), Err(StoreError::Foreign(_))));
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    behind_its_back(&dir, |db| drop(db.insert(b"aformat", &2u32.to_be_bytes()).unwrap()));
    let Err(StoreError::Foreign(text)) = open(&dir) else { panic!() };
    assert!(text.contains("format 2") && text.contains("reads 1"), "{text}");
}

/// An incomplete append is not a commit, and the next append takes its place.
#[test]
fn a_commit_that_is_not_whole_is_not_there() {
    for pieces in [&[0u16][..], &[0, 1], &[1], &[u16::MAX], &[0, u16::MAX], &[1, u16::MAX]] {
        let top = tempfile::tempdir().unwrap();
        let dir = five(top.path());
        behind_its_back(&dir, |db| {
            for piece in pieces {
                let row = db.get(commit_key(5, *piece)).unwrap().unwrap();
                db.insert(commit_key(6, *piece), row).unwrap();
            }
        });
        let store = open(&dir).unwrap();
        is_five(&store);
        store.append(6, &[6; 5000]).unwrap();
        drop(store);
        let found = open(&dir).unwrap().read(6, usize::MAX).unwrap();
        assert!(found.len() == 1 && found[0].bytes[..] == [6; 5000], "{pieces:?}");
    }
}

#[test]
fn what_was_acknowledged_and_is_not_whole_is_damage() {
    for (at, piece) in [(5, 0u16), (5, 1), (5, u16::MAX)] {
        let top = tempfile::tempdir().unwrap();
        let dir = five(top.path());
        behind_its_back(&dir, |db| drop(db.remove(commit_key(at, piece)).unwrap()));
        damaged(&dir, at, "missing");
    }
    // Further back, damage is found when it is read.
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    behind_its_back(&dir, |db| drop(db.remove(commit_key(3, 1)).unwrap()));
    let store = open(&dir).unwrap();
    assert!(matches!(store.read(1, usize::MAX), Err(StoreError::Damaged { at: 3, .. })));
    drop(store);
    let left = SledStore::open_damaged(&dir, &options()).unwrap();
    assert_eq!(left.read(1, usize::MAX).unwrap().iter().map(|e| e.at).collect::<Vec<_>>(), [1, 2, 4, 5]);
}

/// The intent is the first row of a change; any number of the following rows may be there after a crash.
#[test]
fn a_change_that_was_not_finished_is_taken_back_or_finished() {
    let put = |change: u8, old: &[u8]| [&[change, 1, 2, 5][..], b"value", old].concat();
    let top = tempfile::tempdir().unwrap();
    let dir = five(top.path());
    // Seven changes: the opening, five commits, one value. Two rows of a second value for that name are there, but not the last one, which
    // would make it take effect.
    behind_its_back(&dir, |db| {
        db.insert(b"aintent", put(8, &[1, 7])).unwrap();
        for piece in 0..2u16 {
            db.insert([b"v".as_slice(), &8u64.to_be_bytes(), &piece.to_be_bytes()].concat(), vec![1; 3000]).unwrap();
        }
    });
    is_five(&open(&dir).unwrap());
    behind_its_back(&dir, |db| assert_eq!(db.scan_prefix([b"v".as_slice(), &8u64.to_be_bytes()].concat()).count(), 0));
    // A removal that stopped in the middle of a commit.
    behind_its_back(&dir, |db| {
        db.insert(b"aintent", &[20, 1, 1, 4]).unwrap();
        for (at, piece) in [(1, 0), (1, 1), (1, u16::MAX), (2, 0)] {
            db.remove(commit_key(at, piece)).unwrap();
        }
    });
    let store = open(&dir).unwrap();
    assert_eq!((store.oldest().unwrap(), store.head().unwrap()), (4, 5));
    assert_eq!(store.read(0, usize::MAX).unwrap().len(), 2);
    // A deletion that left the value's further rows.
    drop(store);
    behind_its_back(&dir, |db| {
        db.insert(b"aintent", [&[40, 1, 3, 5][..], b"value", &[7]].concat()).unwrap();
        db.remove(b"nvalue\0").unwrap();
    });
    let store = open(&dir).unwrap();
    assert_eq!(store.list("").unwrap(), Vec::<String>::new());
    store.put("a", b"1", Precondition::Absent).unwrap();
    drop(store);
    behind_its_back(&dir, |db| assert_eq!(db.scan_prefix(b"v").count(), 0));
}
