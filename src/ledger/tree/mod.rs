//! A Merkle tree over the headers of all commits, which checkpoints sign and proofs are made of.
//!
//! Leaf n is RFC 6962's leaf hash of the header's bytes of the commit at position n + 1.
//!
//! - [`proof`]: roots, paths, proofs, and their verification. Pure.
//! - [`frontier`]: the right edge, from which a tree grows.
//! - [`stored`]: the tree in files. `retained_frontier`: the frontier that remains when the beginning of the log was removed.

pub mod frontier;
pub mod proof;
pub(super) mod retained_frontier;
pub mod stored;
#[cfg(test)]
mod stored_tests;
