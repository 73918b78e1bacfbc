//! A disk that another process fills: grants stop, revocations stay durable, and all of them are there afterwards.
//!
//! Runs on real small file systems (`kit/small_disk.rs`).

use std::fs::File;
use std::path::Path;

use mayfly::store::options::StoreOptions;
use mayfly::store::redb;
use mayfly::store::reserve::DiskSpace;
use mayfly::store::sled::SledStore;
use mayfly::store::{Store, StoreError};

use crate::small_disk::{Filler, on_a_small_disk};

const MIB: u64 = 1 << 20;

fn options() -> StoreOptions {
    StoreOptions { reserve_bytes: 16 * MIB, low_bytes: 8 * MIB, ..StoreOptions::new([1; 16]) }
}

#[test]
fn revocations_stay_durable_on_a_full_ext4() {
    on_a_small_disk("full::revocations_stay_durable_on_a_full_ext4", "ext4", 96, |disk| story(disk, redb_behind_a_log));
}

#[test]
fn revocations_stay_durable_on_a_full_tmpfs() {
    on_a_small_disk("full::revocations_stay_durable_on_a_full_tmpfs", "tmpfs", 96, |disk| story(disk, redb_behind_a_log));
}

#[test]
fn with_sled_they_do_on_a_full_ext4() {
    on_a_small_disk("full::with_sled_they_do_on_a_full_ext4", "ext4", 96, |disk| story(disk, sled));
}

#[test]
fn with_sled_they_do_on_a_full_tmpfs() {
    on_a_small_disk("full::with_sled_they_do_on_a_full_tmpfs", "tmpfs", 96, |disk| story(disk, sled));
}

type Open = fn(&Path) -> Box<dyn Store>;

fn redb_behind_a_log(dir: &Path) -> Box<dyn Store> {
    Box::new(redb::open(dir, &options()).unwrap())
}

fn sled(dir: &Path) -> Box<dyn Store> {
    Box::new(SledStore::open(dir, &options()).unwrap())
}

fn revocation(at: u64) -> Vec<u8> {
    at.to_be_bytes().repeat(128)
}

fn expect_all(store: &dyn Store, head: u64) {
    assert_eq!((store.oldest().unwrap(), store.head().unwrap()), (1, head));
    let found = store.read(1, usize::MAX).unwrap();
    assert_eq!(found.len() as u64, head);
    for entry in found {
        assert!(entry.bytes[..] == revocation(entry.at), "commit {}", entry.at);
    }
}

fn story(disk: &Path, open: Open) {
    let dir = disk.join("data");
    let mut now = 0;
    let mut later = || {
        now += 1000;
        now
    };
    let store = open(&dir);
    let reserve = store.reserve().unwrap().clone();
    assert_eq!(reserve.held(), 16 * MIB);
    let on_disk = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(dir.join("reserve")).unwrap()) * 512;
    assert!(on_disk >= 16 * MIB, "the reserve is not allocated: {on_disk} bytes");
    assert_eq!(reserve.state(later()), DiskSpace::Plenty);
    let mut head = 0;
    let append = |store: &dyn Store, head: &mut u64| store.append(*head + 1, &revocation(*head + 1)).map(|()| *head += 1);
    for _ in 0..50 {
        append(&*store, &mut head).unwrap();
    }

    // The disk is filled. An old result is reused for a moment; then room is low, and nothing is granted any more.
    let mut filler = Filler(File::create(disk.join("somebody-else")).unwrap());
    let before = later();
    assert_eq!(reserve.state(before), DiskSpace::Plenty);
    filler.fill();
    assert_eq!(reserve.state(before + 1), DiskSpace::Plenty);
    assert_eq!(reserve.state(later()), DiskSpace::Low);

    // Revocations go on, although the other process takes all space that the reserve frees at once. sled has allocated some blocks ahead:
    // it needs the reserve only after those.
    let mut made = 0;
    while made < 60 || (reserve.held() == 16 * MIB && made < 2000) {
        append(&*store, &mut head).unwrap();
        filler.fill();
        made += 1;
    }
    let left = reserve.held();
    println!(
        "{made} revocations on a full disk, somebody else taking the rest: {} KiB of the reserve used",
        (16 * MIB - left) / 1024
    );
    assert!(left < 16 * MIB, "the disk was never full");
    assert!(left > 0);
    assert_eq!(reserve.state(later()), DiskSpace::Low);

    // Reopened on the full disk: everything is there, and one more commit is durable.
    drop((store, reserve));
    filler.fill();
    let store = open(&dir);
    expect_all(&*store, head);
    append(&*store, &mut head).unwrap();
    let reserve = store.reserve().unwrap().clone();
    assert_eq!(reserve.state(later()), DiskSpace::Low);

    // The disk has room again; the reserve is taken back on request, and only then is there plenty.
    filler.0.set_len(0).unwrap();
    filler.0.sync_all().unwrap();
    filler = Filler(File::create(disk.join("somebody-else")).unwrap());
    assert_eq!(reserve.state(later()), DiskSpace::Low);
    assert_eq!(reserve.maintain(later()), DiskSpace::Plenty);
    assert_eq!((reserve.held(), reserve.state(later())), (16 * MIB, DiskSpace::Plenty));

    // With the reserve freed and taken by another process, the next commits fail and say why.
    reserve.release().unwrap();
    filler.fill();
    assert_eq!(reserve.state(later()), DiskSpace::Spent);
    let failed = (0..2000).find_map(|_| append(&*store, &mut head).err()).expect("a full disk takes no end of commits");
    assert!(matches!(failed, StoreError::Full(_)), "{failed:?}");
    assert!(matches!(append(&*store, &mut head), Err(StoreError::Failed(_))));
    drop((store, reserve));

    // No acknowledged commit is lost by that.
    drop(filler);
    std::fs::remove_file(disk.join("somebody-else")).unwrap();
    let store = open(&dir);
    if store.head().unwrap() > head {
        head += 1;
    }
    expect_all(&*store, head);
    append(&*store, &mut head).unwrap();
    assert_eq!(store.reserve().unwrap().state(later()), DiskSpace::Plenty);
}
