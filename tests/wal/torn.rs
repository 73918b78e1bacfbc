//! Power fails under a store and its log: what was acknowledged is there, what was not is there whole or not at all.
//!
//! `MAYFLY_CRASHES` sets the number of crashes (default 3000), `MAYFLY_SEED` the first seed. The same seed draws the same changes and crashes;
//! when the log is moved is up to the machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use ::redb::StorageBackend;
use mayfly::store::StoreError;
use mayfly::store::redb::{Options, RedbStore};
use mayfly::store::wal::{Ahead, Medium};

use crate::dice::{Dice, setting};
use crate::torn_disk::TornDisk;
use crate::torn_model::{Model, draw, make, same};
use crate::{BLOCK, FILES};

/// Crashes of one machine, one after the other: what one crash left is what the next one tears.
const CRASHES_PER_MACHINE: u64 = 25;

/// A machine's power: after so many more writes and syncs, on whatever disk, it is gone.
#[derive(Clone, Debug)]
struct Power(Arc<AtomicI64>);

impl Power {
    fn on() -> Power {
        Power(Arc::new(AtomicI64::new(i64::MAX)))
    }

    fn fails_after(&self, operations: u64) {
        self.0.store(operations as i64, SeqCst);
    }

    fn used(&self) -> io::Result<()> {
        if self.0.fetch_sub(1, SeqCst) > 0 { Ok(()) } else { Err(io::Error::other("the power is gone")) }
    }
}

/// A disk of that machine.
#[derive(Clone, Debug)]
struct Disk {
    torn: TornDisk,
    power: Power,
}

impl Disk {
    fn of(bytes: usize, power: &Power) -> Disk {
        Disk { torn: TornDisk::holding(vec![0; bytes]), power: power.clone() }
    }

    fn crash(&self, dice: &mut Dice, power: &Power) -> Disk {
        Disk { torn: self.torn.crash(dice), power: power.clone() }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.torn.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.torn.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power.used()?;
        self.torn.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.power.used()?;
        self.torn.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.power.used()?;
        StorageBackend::write(&self.torn, offset, data)
    }
}

impl Medium for Disk {
    fn bytes(&self) -> io::Result<u64> {
        self.torn.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        aligned(offset, out);
        self.torn.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        aligned(offset, data);
        assert!(offset + data.len() as u64 <= self.torn.len()?, "the log grew");
        StorageBackend::write(self, offset, data)
    }
    fn flush(&self) -> io::Result<()> {
        StorageBackend::sync_data(self)
    }
}

/// What a write past the page cache asks for.
fn aligned(offset: u64, memory: &[u8]) {
    assert_eq!((offset as usize % BLOCK, memory.len() % BLOCK, memory.as_ptr().align_offset(BLOCK)), (0, 0, 0));
}

/// A store and its log, each on its disk.
struct Machine {
    main: Disk,
    log: Vec<Disk>,
}

impl Machine {
    fn new(file: usize) -> Machine {
        let power = Power::on();
        Machine { main: Disk::of(0, &power), log: (0..FILES).map(|_| Disk::of(file, &power)).collect() }
    }

    fn open(&self, options: &Options) -> Result<Ahead<RedbStore>, StoreError> {
        let media = self.log.iter().map(|disk| Box::new(disk.clone()) as Box<dyn Medium>).collect();
        Ahead::new(RedbStore::with_backend(self.main.clone(), options)?, media)
    }

    fn fails_after(&self, operations: u64) {
        self.main.power.fails_after(operations);
    }

    fn crash(&self, dice: &mut Dice) -> Machine {
        let power = Power::on();
        Machine { main: self.main.crash(dice, &power), log: self.log.iter().map(|d| d.crash(dice, &power)).collect() }
    }
}

#[derive(Default, Debug)]
struct Tally {
    crashes: u64,
    nothing_under_way: u64,
    whole: u64,
    absent: u64,
    commits: u64,
}

fn one_machine(seed: u64, tally: &mut Tally) {
    let mut dice = Dice::new(seed);
    let options = Options { reserve_bytes: 0, cache_bytes: 1 << 20, ..Options::new([5; 16]) };
    // Files that one commit fills, that hold a few, that hold many; some commits fit in none.
    let mut machine = Machine::new([5, 13, 40][(seed % 3) as usize] * BLOCK);
    let mut model = Model::default();
    drop(machine.open(&options).unwrap());
    for crash in 0..CRASHES_PER_MACHINE {
        let store = machine.open(&options).unwrap();
        let most = if dice.chance(50) { 30 } else { 150 };
        machine.fails_after(dice.below(most));
        let mut under_way = None;
        for _ in 0..dice.below(30) + 1 {
            let change = draw(&mut dice, &model);
            match make(&store, &change) {
                Ok(()) => model.change(&change),
                Err(_) => {
                    under_way = Some(change);
                    break;
                }
            }
        }
        tally.crashes += 1;
        tally.commits += model.commits.len() as u64;
        // The power fails now at the latest, or while the store closes itself.
        let torn = if dice.chance(50) {
            machine.fails_after(0);
            Some(machine.crash(&mut dice))
        } else {
            None
        };
        drop(store);
        machine = torn.unwrap_or_else(|| machine.crash(&mut dice));
        // Opening after a crash writes too: sometimes the power fails again in it.
        if dice.chance(20) {
            machine.fails_after(dice.below(20));
            drop(machine.open(&options));
            machine = machine.crash(&mut dice);
        }
        let store = machine
            .open(&options)
            .unwrap_or_else(|e| panic!("seed {seed}, crash {crash}: it does not open: {e} (under way: {under_way:?})"));
        let Some(change) = under_way else {
            tally.nothing_under_way += 1;
            same(&store, &model).unwrap_or_else(|e| panic!("seed {seed}, crash {crash}, nothing under way: {e}"));
            continue;
        };
        let before = same(&store, &model);
        if before.is_ok() {
            tally.absent += 1;
            continue;
        }
        model.change(&change);
        same(&store, &model).unwrap_or_else(|e| {
            panic!("seed {seed}, crash {crash}, under way {change:?}:\nneither without it ({before:?})\nnor with it ({e})")
        });
        tally.whole += 1;
    }
}

#[test]
fn acknowledged_commits_survive_torn_disks() {
    let (first, crashes) = (setting("MAYFLY_SEED", 1), setting("MAYFLY_CRASHES", 3_000));
    let mut tally = Tally::default();
    for seed in first..first + crashes.div_ceil(CRASHES_PER_MACHINE) {
        one_machine(seed, &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.whole > tally.crashes / 25 && tally.absent > tally.crashes / 20, "{tally:?}");
}
