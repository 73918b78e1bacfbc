//! Power failures under a store and its write-ahead log: acknowledged commits are there; others are there completely or not at all.
//!
//! `MAYFLY_CRASHES` sets the number of crashes (default 3000), `MAYFLY_SEED` the first seed. The same seed gives the same changes and
//! crashes; when commits are moved from the log depends on the machine.

use mayfly::store::StoreError;
use mayfly::store::redb::{RedbStore, StoreOptions};
use mayfly::store::wal::{Medium, WalStore};

use super::{BLOCK, FILES};
use crate::dice::{Dice, setting};
use crate::torn_disk::TornDisk;
use crate::torn_model::{Model, Tally, make_some};

/// Successive crashes of one machine: each tears what the previous one left.
const CRASHES_PER_MACHINE: u64 = 25;

/// A store and its log, each on its own disk.
struct Machine {
    main: TornDisk,
    log: Vec<TornDisk>,
    /// The head file: what was acknowledged.
    head: TornDisk,
}

impl Machine {
    fn new(file: usize) -> Machine {
        let main = TornDisk::new();
        let head = main.beside(vec![0; 2 * BLOCK]);
        Machine { log: (0..FILES).map(|_| main.beside(vec![0; file])).collect(), head, main }
    }

    fn open(&self, options: &StoreOptions) -> Result<WalStore<RedbStore>, StoreError> {
        let media = self.log.iter().map(|disk| Box::new(disk.clone()) as Box<dyn Medium>).collect();
        WalStore::with_head(RedbStore::with_backend(self.main.clone(), options)?, media, Box::new(self.head.clone()))
    }

    fn fails_after(&self, operations: u64) {
        self.main.fail_after(operations);
    }

    fn crash(&self, dice: &mut Dice) -> Machine {
        let main = self.main.crash(dice);
        let head = main.beside(self.head.left(dice));
        Machine { log: self.log.iter().map(|disk| main.beside(disk.left(dice))).collect(), head, main }
    }
}

fn one_machine(seed: u64, tally: &mut Tally) {
    let mut dice = Dice::new(seed);
    let options = StoreOptions { reserve_bytes: 0, cache_bytes: 1 << 20, ..StoreOptions::new([5; 16]) };
    // Files that one commit fills, that hold a few, that hold many; some commits fit in none.
    let mut machine = Machine::new([5, 13, 40][(seed % 3) as usize] * BLOCK);
    let mut model = Model::default();
    drop(machine.open(&options).unwrap());
    for crash in 0..CRASHES_PER_MACHINE {
        let store = machine.open(&options).unwrap();
        let most = if dice.chance(50) { 30 } else { 150 };
        machine.fails_after(dice.below(most));
        let changes = dice.below(30) + 1;
        let under_way = make_some(&store, &mut model, &mut dice, changes);
        // The power fails now at the latest, or while the store closes.
        let torn = if dice.chance(50) {
            machine.fails_after(0);
            Some(machine.crash(&mut dice))
        } else {
            None
        };
        drop(store);
        machine = torn.unwrap_or_else(|| machine.crash(&mut dice));
        // Opening after a crash writes too: sometimes the power fails again during it.
        if dice.chance(20) {
            machine.fails_after(dice.below(20));
            drop(machine.open(&options));
            machine = machine.crash(&mut dice);
        }
        let store = machine
            .open(&options)
            .unwrap_or_else(|e| panic!("seed {seed}, crash {crash}: it does not open: {e} (under way: {under_way:?})"));
        tally.take(&store, &mut model, under_way, &format!("seed {seed}, crash {crash}"));
    }
}

#[test]
fn acknowledged_commits_survive_torn_disks() {
    let (first, crashes) = (setting("MAYFLY_SEED", 1), setting("MAYFLY_CRASHES", 3_000));
    let mut tally = Tally::default();
    for seed in first..first + crashes.div_ceil(CRASHES_PER_MACHINE) {
        one_machine(seed, &mut tally);
    }
    tally.shows_something();
}
