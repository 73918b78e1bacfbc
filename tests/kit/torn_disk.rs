//! A disk in memory that loses power as real disks do, as a backend of redb and as a file of a write-ahead log: unsynced writes are torn,
//! dropped and reordered, determined by a seed.
//!
//! The model is that of `tests/power/replay.py`. Each unit of 512 or 4096 bytes holds, independently of all others, some version between
//! its synced one and the newest. The length is a prefix of the pending changes of length, independent of the data. Synced data stays.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use mayfly::store::wal::Medium;
use redb::StorageBackend;

use crate::dice::Dice;

/// The alignment, in the file and in memory, of a write that bypasses the page cache.
const BLOCK: usize = 4096;

/// One change that was not synced yet.
#[derive(Debug)]
enum Pending {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
struct Platters {
    /// The content that a power failure preserves.
    synced: Vec<u8>,
    /// The content that the running program reads.
    now: Vec<u8>,
    pending: Vec<Pending>,
    /// Operations that still work before the power fails, over all disks of the machine; `None` while no failure is planned.
    fuse: Arc<Mutex<Option<u64>>>,
    /// Syncs that still work before the power fails in the next one.
    sync_fuse: Option<u64>,
    operations: u64,
}

/// A disk; its clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct TornDisk(Arc<Mutex<Platters>>);

impl TornDisk {
    /// An empty disk.
    pub fn new() -> TornDisk {
        TornDisk::default()
    }

    /// A disk with this content.
    pub fn holding(image: Vec<u8>) -> TornDisk {
        TornDisk(Arc::new(Mutex::new(Platters { synced: image.clone(), now: image, ..Platters::default() })))
    }

    /// Another disk of the same machine with this content: both lose power together.
    pub fn beside(&self, image: Vec<u8>) -> TornDisk {
        let fuse = self.platters().fuse.clone();
        TornDisk(Arc::new(Mutex::new(Platters { synced: image.clone(), now: image, fuse, ..Platters::default() })))
    }

    fn platters(&self) -> MutexGuard<'_, Platters> {
        locked(&self.0)
    }

    /// After `operations` further writes, changes of length and syncs the power fails: every operation then fails.
    pub fn fail_after(&self, operations: u64) {
        *locked(&self.platters().fuse) = Some(operations);
    }

    /// After `syncs` further syncs the power fails in the next one: everything before it was written, and it and all later operations fail.
    pub fn fail_at_sync(&self, syncs: u64) {
        self.platters().sync_fuse = Some(syncs);
    }

    /// The number of writes, changes of length and syncs so far.
    pub fn operations(&self) -> u64 {
        self.platters().operations
    }

    /// The content after the power returns, as a new disk. Writes of remaining holders of this disk have no effect on it.
    pub fn crash(&self, dice: &mut Dice) -> TornDisk {
        TornDisk::holding(self.left(dice))
    }

    /// The content after the power returns, as an image.
    pub fn left(&self, dice: &mut Dice) -> Vec<u8> {
        torn(&self.platters(), dice)
    }

    /// The content that the running program reads.
    pub fn image(&self) -> Vec<u8> {
        self.platters().now.clone()
    }

    fn operate<T>(&self, act: impl FnOnce(&mut Platters) -> T) -> io::Result<T> {
        let mut platters = self.platters();
        match locked(&platters.fuse).as_mut() {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        platters.operations += 1;
        Ok(act(&mut platters))
    }
}

impl Medium for TornDisk {
    fn bytes(&self) -> io::Result<u64> {
        self.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        aligned(offset, out);
        StorageBackend::read(self, offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        aligned(offset, data);
        assert!(offset + data.len() as u64 <= self.len()?, "the log grew");
        StorageBackend::write(self, offset, data)
    }

    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}

fn aligned(offset: u64, memory: &[u8]) {
    assert_eq!((offset as usize % BLOCK, memory.len() % BLOCK, memory.as_ptr().align_offset(BLOCK)), (0, 0, 0));
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|e| e.into_inner())
}

/// One of the images that a power failure can leave.
fn torn(disk: &Platters, dice: &mut Dice) -> Vec<u8> {
    let unit = if dice.chance(50) { 512 } else { 4096 };
    // The plain cases, none and all of the changes, are as likely as the mixed one.
    let taken = dice.below(3);
    let newest = disk.pending.len();
    let mut image = disk.synced.clone();
    let lengths: Vec<usize> =
        disk.pending.iter().filter_map(|p| if let Pending::Length(n) = p { Some(*n) } else { None }).collect();
    let upto = match dice.below(3) {
        0 => 0,
        1 => lengths.len(),
        _ => dice.below(lengths.len() as u64 + 1) as usize,
    };
    let length = upto.checked_sub(1).map_or(disk.synced.len(), |i| lengths[i]);
    // For each unit, the number of its writes that reached the disk.
    let mut writes: HashMap<usize, Vec<usize>> = HashMap::new();
    for (i, pending) in disk.pending.iter().enumerate() {
        let Pending::Write { at, data } = pending else { continue };
        for u in at / unit..=(at + data.len().max(1) - 1) / unit {
            writes.entry(u).or_default().push(i);
        }
    }
    let mut units: Vec<_> = writes.into_iter().collect();
    units.sort();
    for (u, order) in units {
        let last = match taken {
            0 => 0,
            1 => order.len(),
            _ if dice.chance(45) => order.len(),
            _ if dice.chance(60) => 0,
            _ => dice.below(order.len() as u64 + 1) as usize,
        };
        for &i in order.iter().take(last) {
            debug_assert!(i < newest);
            let Pending::Write { at, data } = &disk.pending[i] else { continue };
            let (from, to) = ((*at).max(u * unit), (at + data.len()).min((u + 1) * unit));
            if image.len() < to {
                image.resize(to, 0);
            }
            image[from..to].copy_from_slice(&data[from - at..to - at]);
        }
    }
    image.resize(length, 0);
    image
}

impl StorageBackend for TornDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platters().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.platters();
        let from = offset as usize;
        let Some(found) = platters.now.get(from..from + out.len()) else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        };
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(|p| {
            p.now.resize(len as usize, 0);
            p.pending.push(Pending::Length(len as usize));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        {
            let mut platters = self.platters();
            match platters.sync_fuse.as_mut() {
                Some(0) => {
                    platters.sync_fuse = None;
                    *locked(&platters.fuse) = Some(0);
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        self.operate(|p| {
            for pending in std::mem::take(&mut p.pending) {
                match pending {
                    Pending::Write { at, data } => {
                        if p.synced.len() < at + data.len() {
                            p.synced.resize(at + data.len(), 0);
                        }
                        p.synced[at..at + data.len()].copy_from_slice(&data);
                    }
                    Pending::Length(n) => p.synced.resize(n, 0),
                }
            }
            debug_assert_eq!(p.synced.len(), p.now.len());
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(|p| {
            let at = offset as usize;
            if p.now.len() < at + data.len() {
                p.now.resize(at + data.len(), 0);
                p.pending.push(Pending::Length(at + data.len()));
            }
            p.now[at..at + data.len()].copy_from_slice(data);
            p.pending.push(Pending::Write { at, data: data.to_vec() });
        })
    }
}
