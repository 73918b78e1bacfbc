//! sled on a disk whose syncs fail, and on changed bytes: it returns errors, and accepts nothing more until it was reopened.

use std::path::Path;
use std::process::Command;

use mayfly::store::options::StoreOptions;
use mayfly::store::sled::SledStore;
use mayfly::store::{Precondition, Store, StoreError};

fn open(dir: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(dir, &StoreOptions { reserve_bytes: 0, ..StoreOptions::new([9; 16]) })
}

const TEST: &str = "sled_failing::after_a_failed_sync_or_write_nothing_is_taken_until_opened_again";

/// A change has three syncs and writes, of the log and of the head; each of them fails once.
#[test]
fn after_a_failed_sync_or_write_nothing_is_taken_until_opened_again() {
    if let Some(told) = std::env::var_os("FAILING_DISK") {
        let told = Path::new(&told);
        for (what, which) in [("sync", "1"), ("sync", "2"), ("write", "1"), ("write", "2"), ("sync", "always")] {
            story(&told.join(what), which);
        }
        println!("STORY TOLD");
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let library = top.path().join("failing_disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kit/failing_disk.c");
    let built = Command::new("cc").args(["-O2", "-fPIC", "-shared", "-o"]).arg(&library).arg(source).status();
    if !built.is_ok_and(|status| status.success()) {
        crate::skipped::skipped("making a disk fail needs cc");
        return;
    }
    std::fs::create_dir(top.path().join("told")).unwrap();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env("LD_PRELOAD", &library)
        .env("FAILING_DISK", top.path().join("told"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("STORY TOLD"), "{out}\n{err}");
}

fn story(told: &Path, which: &str) {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = open(&dir).unwrap();
    store.append(1, b"one").unwrap();
    store.put("a", b"1", Precondition::Any).unwrap();
    std::fs::write(told, which).unwrap();
    let failed = store.append(2, b"not acknowledged");
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{} {which}: {failed:?}", told.display());
    // The disk works again, but its content is unknown.
    std::fs::remove_file(told).unwrap();
    let stopped = |r: Result<(), StoreError>| match r {
        Err(StoreError::Failed(text)) => assert!(text.contains("opened again"), "{text}"),
        other => panic!("{other:?}"),
    };
    stopped(store.append(2, b"two"));
    stopped(store.put("a", b"2", Precondition::Any));
    stopped(store.delete("a", Precondition::Any));
    assert_eq!((store.head().unwrap(), &store.read(1, 9).unwrap()[0].bytes[..]), (1, &b"one"[..]));
    // The store does not open while nothing can be synced.
    drop(store);
    std::fs::write(told.with_file_name("sync"), "always").unwrap();
    assert!(open(&dir).is_err());
    std::fs::remove_file(told.with_file_name("sync")).unwrap();
    let store = open(&dir).unwrap();
    let head = store.head().unwrap();
    assert!(head == 1 || head == 2);
    assert_eq!(&store.read(1, 1).unwrap()[0].bytes[..], b"one");
    store.append(head + 1, b"next").unwrap();
    assert_eq!(store.named("a").unwrap().unwrap(), b"1");
}

/// Bytes of the files change: opening and reading give errors or the original content, and never panic.
#[test]
fn flipped_bytes_never_end_the_thread_that_opens_or_reads() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = open(&dir).unwrap();
    for at in 1..=5 {
        store.append(at, &[at as u8; 9000]).unwrap();
    }
    drop(store);
    drop(open(&dir).unwrap());
    let folder = dir.join("ledger.sled");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    files.push(dir.join("ledger.head"));
    let good: Vec<_> = files.iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let mut dice = crate::dice::Dice::new(1);
    let (mut refused, mut unread, mut whole) = (0, 0, 0);
    for _ in 0..150 {
        for entry in std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
            std::fs::remove_file(entry).unwrap();
        }
        for (path, bytes) in &good {
            std::fs::write(path, bytes).unwrap();
        }
        for _ in 0..=dice.below(3) {
            let (path, bytes) = &good[dice.below(good.len() as u64) as usize];
            let used = bytes.iter().rposition(|b| *b != 0).unwrap() as u64 + 1;
            let mut bad = std::fs::read(path).unwrap();
            bad[dice.below(used) as usize] ^= 1 << dice.below(8);
            std::fs::write(path, bad).unwrap();
        }
        let Ok(store) = open(&dir) else {
            refused += 1;
            continue;
        };
        match store.read(1, usize::MAX) {
            Ok(found) => {
                assert!(found.len() == 5 && found.iter().zip(1..).all(|(e, at)| e.bytes[..] == [at as u8; 9000]));
                whole += 1;
            }
            Err(_) => unread += 1,
        }
    }
    println!("{refused} not opened, {unread} not read, {whole} read");
    assert!(refused > 0 && whole > 0);
}
