//! Power failures at random moments under the redb engine: acknowledged commits are there; others are there completely or not at all.
//!
//! `MAYFLY_CRASHES` sets the number of crashes (default 3000), `MAYFLY_SEED` the first seed. The same seed gives the same run.

use mayfly::store::redb::{RedbStore, StoreOptions};

use crate::dice::{Dice, setting};
use crate::torn_disk::TornDisk;
use crate::torn_model::{Model, Tally, make_some};

/// Successive crashes of one disk: each tears what the previous one left.
const CRASHES_PER_DISK: u64 = 25;

fn one_disk(seed: u64, tally: &mut Tally) {
    let mut dice = Dice::new(seed);
    // Files that are scanned after a crash, that become too large for it, and that always are.
    let quick_repair_bytes = [u64::MAX, 300_000, 0][(seed % 3) as usize];
    let options = StoreOptions { reserve_bytes: 0, cache_bytes: 1 << 20, quick_repair_bytes, ..StoreOptions::new([5; 16]) };
    let mut disk = TornDisk::new();
    let mut model = Model::default();
    drop(RedbStore::with_backend(disk.clone(), &options).unwrap());
    for crash in 0..CRASHES_PER_DISK {
        let store = RedbStore::with_backend(disk.clone(), &options).unwrap();
        // Half of the crashes happen at a sync, the critical moment: a change becomes durable with its last sync.
        if dice.chance(50) {
            disk.fail_at_sync(dice.below(20));
        } else {
            disk.fail_after(dice.below(100));
        }
        let changes = dice.below(12) + 1;
        let under_way = make_some(&store, &mut model, &mut dice, changes);
        // Half of the crashes happen before the store is closed, half while it closes.
        let torn = if dice.chance(50) { Some(disk.crash(&mut dice)) } else { None };
        drop(store);
        disk = torn.unwrap_or_else(|| disk.crash(&mut dice));
        // Opening after a crash writes too: sometimes the power fails again during it.
        if dice.chance(20) {
            disk.fail_after(dice.below(12));
            drop(RedbStore::with_backend(disk.clone(), &options));
            disk = disk.crash(&mut dice);
        }
        let store = RedbStore::with_backend(disk.clone(), &options)
            .unwrap_or_else(|e| panic!("seed {seed}, crash {crash}: it does not open: {e} (under way: {under_way:?})"));
        tally.take(&store, &mut model, under_way, &format!("seed {seed}, crash {crash}"));
    }
}

#[test]
fn acknowledged_commits_survive_a_torn_disk() {
    let (first, crashes) = (setting("MAYFLY_SEED", 1), setting("MAYFLY_CRASHES", 3_000));
    let mut tally = Tally::default();
    for seed in first..first + crashes.div_ceil(CRASHES_PER_DISK) {
        one_disk(seed, &mut tally);
    }
    tally.shows_something();
}

/// The simulated disk itself: without a sync, there must be images without the write, images with it, and images with a torn write.
#[test]
fn the_disk_loses_tears_and_keeps_what_was_not_synced() {
    use redb::StorageBackend;
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let disk = TornDisk::new();
        disk.set_len(8192).unwrap();
        disk.write(0, &[1; 8192]).unwrap();
        disk.sync_data().unwrap();
        disk.write(0, &[2; 8192]).unwrap();
        assert_eq!(disk.operations(), 4);
        let after = disk.crash(&mut Dice::new(seed));
        let mut image = [0; 8192];
        after.read(0, &mut image).unwrap();
        assert!(image.chunks(512).all(|unit| unit.iter().all(|b| *b == unit[0]) && (unit[0] == 1 || unit[0] == 2)));
        match image.iter().filter(|b| **b == 2).count() {
            0 => lost += 1,
            8192 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 30 && kept > 30 && torn > 30, "{lost} lost, {kept} kept, {torn} torn");
    let disk = TornDisk::new();
    disk.fail_after(1);
    disk.set_len(1).unwrap();
    assert!(disk.sync_data().is_err() && disk.write(0, &[1]).is_err());
}
