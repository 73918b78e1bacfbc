//! sled on a disk whose syncs fail, and on bytes that changed: errors, and nothing more is taken until it was opened again.

use std::path::Path;
use std::process::Command;

use mayfly::store::options::Options;
use mayfly::store::sled::SledStore;
use mayfly::store::{Expect, Store, StoreError};

#[path = "kit/dice.rs"]
mod dice;

fn open(dir: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(dir, &Options { reserve_bytes: 0, ..Options::new([9; 16]) })
}

/// Runs the named test again under `kit/failing_sync.c`; there, tells the story with the file whose presence makes syncs fail.
fn with_failing_syncs(test: &str, variable: &str, story: impl FnOnce(&Path)) {
    if let Some(path) = std::env::var_os(variable) {
        story(Path::new(&path));
        println!("STORY TOLD");
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let library = top.path().join("failing_sync.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kit/failing_sync.c");
    let built = Command::new("cc").args(["-O2", "-fPIC", "-shared", "-o"]).arg(&library).arg(source).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("SKIPPED: making syncs fail needs cc");
        return;
    }
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LD_PRELOAD", &library)
        .env(variable, top.path().join("fail"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("STORY TOLD"), "{out}\n{err}");
}

#[test]
fn after_a_failed_flush_nothing_is_taken_until_opened_again() {
    with_failing_syncs("after_a_failed_flush_nothing_is_taken_until_opened_again", "FAIL_FSYNC", story);
}

/// The head file alone.
#[test]
fn what_the_head_file_does_not_have_is_not_acknowledged() {
    with_failing_syncs("what_the_head_file_does_not_have_is_not_acknowledged", "FAIL_FDATASYNC", story);
}

fn story(fail: &Path) {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let store = open(&dir).unwrap();
    store.append(1, b"one").unwrap();
    store.put("a", b"1", Expect::Any).unwrap();
    std::fs::write(fail, b"").unwrap();
    let failed = store.append(2, &[2; 20_000]);
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    // The disk is well again, but nobody knows what is on it.
    std::fs::remove_file(fail).unwrap();
    let stopped = |r: Result<(), StoreError>| match r {
        Err(StoreError::Failed(text)) => assert!(text.contains("opened again"), "{text}"),
        other => panic!("{other:?}"),
    };
    stopped(store.append(2, b"two"));
    stopped(store.put("a", b"2", Expect::Any));
    stopped(store.delete("a", Expect::Any));
    stopped(store.remove_before(2).and_then(|()| store.append(2, b"two")));
    assert_eq!((store.head().unwrap(), &store.read(1, 9).unwrap()[0].bytes[..]), (1, &b"one"[..]));
    // It does not open while they fail, either.
    std::fs::write(fail, b"").unwrap();
    drop(store);
    assert!(open(&dir).is_err());
    std::fs::remove_file(fail).unwrap();
    let store = open(&dir).unwrap();
    let head = store.head().unwrap();
    assert!(head == 1 || head == 2);
    assert_eq!(&store.read(1, 1).unwrap()[0].bytes[..], b"one");
    store.append(head + 1, b"next").unwrap();
    assert_eq!(store.named("a").unwrap().unwrap(), b"1");
}

/// Bytes of the files change: opening and reading give errors or what was written, and no panic comes out.
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
    let mut dice = dice::Dice::new(1);
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
