//! The storage engines: the contract that every engine keeps, and what each does when disks fail, tear writes or are full.

mod contract;
#[path = "../kit/dice.rs"]
mod dice;
#[path = "../kit/engines.rs"]
#[allow(dead_code, reason = "shared with other suites")]
mod engines;
mod failing;
#[path = "../kit/faulty.rs"]
mod faulty;
mod full;
mod redb;
mod segments;
#[path = "../kit/skipped.rs"]
mod skipped;
mod sled;
mod sled_failing;
#[path = "../kit/small_disk.rs"]
#[allow(dead_code, reason = "shared with other suites")]
mod small_disk;
mod torn;
#[path = "../kit/torn_disk.rs"]
#[allow(dead_code, reason = "shared with other suites")]
mod torn_disk;
#[path = "../kit/torn_model.rs"]
#[allow(dead_code, reason = "shared with other suites")]
mod torn_model;
mod wal;
