//! Images of a disk at a moment of power failure: of the store alone, of a whole server, and of a restore.

mod restore;
mod runner;
mod server;
#[path = "../kit/skipped.rs"]
mod skipped;
mod store;
