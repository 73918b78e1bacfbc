//! Durability of a whole server: full disks, failed flushes, clocks that step, and recovery.

mod after;
mod backup;
mod clock;
mod disk;
mod flush;
mod follow;
mod keep;
mod kit;
mod recover;
#[path = "../kit/skipped.rs"]
mod skipped;
mod sled;
#[path = "../kit/small_disk.rs"]
mod small_disk;
