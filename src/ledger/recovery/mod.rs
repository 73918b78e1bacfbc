//! A state from a store: start, snapshots, verification, the removal of old records, and recovery when a store is refused.
//!
//! In comes a store, out goes a state with its head, or the reason for which the store is not used. An acknowledged record is never left
//! out silently.

pub(crate) mod checkpointing;
pub(crate) mod load;
pub mod open;
pub mod recover;
pub(crate) mod reopen;
pub(crate) mod restore;
pub mod retention;
pub mod rollback_check;
pub(crate) mod salvage;
pub mod snapshot;
pub(crate) mod verify;
