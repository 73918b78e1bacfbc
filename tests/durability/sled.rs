//! The same tests on sled: its worst failure is that its end, or everything, is silently gone.

use std::fs;
use std::path::{Path, PathBuf};

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};

use crate::kit::{Issued, world};
use crate::recover::{all_refused, as_printed, head, issue, recovered, refused, runtime, start};

/// Puts an older state of sled's folder back, but not the head file beside it.
struct Folder {
    now: PathBuf,
    then: PathBuf,
}

impl Folder {
    fn keep(world: &DevWorld) -> Folder {
        let folder = Folder { now: world.dir().join("data/ledger.sled"), then: world.dir().join("then") };
        copy(&folder.now, &folder.then);
        folder
    }

    fn put_back(&self) {
        fs::remove_dir_all(&self.now).unwrap();
        copy(&self.then, &self.now);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn a_lost_end_is_refused_with_the_seq_and_the_printed_command_mends_it() {
    let (_dir, world) = world(DevSettings { engine: DevEngine::Sled, ..DevSettings::default() });
    let runtime = runtime();
    let running = start(&world);
    let mut old: Vec<Issued> = issue(&runtime, &world, &running, &["a"]);
    running.stop();
    let folder = Folder::keep(&world);
    let running = start(&world);
    // The records that the start itself wrote are lost with the rest.
    let kept = head(&running).as_u64() - 1;
    let at = running.authority().ledger.store().head().unwrap();
    old.extend(issue(&runtime, &world, &running, &["b", "c"]));
    running.stop();
    folder.put_back();
    let said = refused(&world, &["it lost its end", &format!("commit {at}")]);
    assert!(said.contains(&format!("--after {kept}")) || said.contains("server recover"), "{said}");
    let told = recovered(&as_printed(&said));
    assert!(told.contains("generation 2"), "{told}");
    let running = start(&world);
    assert_eq!(running.authority().ledger.store().engine(), "sled");
    all_refused(&runtime, &world, &running, &old, &["a", "c"]);
    running.stop();
}

#[test]
fn a_store_that_opens_empty_is_refused() {
    let (_dir, world) = world(DevSettings { engine: DevEngine::Sled, ..DevSettings::default() });
    let runtime = runtime();
    let running = start(&world);
    issue(&runtime, &world, &running, &["a"]);
    running.stop();
    let folder = world.dir().join("data/ledger.sled");
    fs::remove_dir_all(&folder).unwrap();
    refused(&world, &["ledger.sled is gone", "BACKUP"]);
    assert!(!folder.exists());
}
