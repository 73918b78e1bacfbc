//! A Merkle tree over the headers of all commits: what checkpoints sign, and what proofs are made of.
//!
//! Leaf n is RFC 6962's leaf hash of the header's bytes of the commit at place n + 1.
//!
//! - [`proof`]: roots, paths, proofs, and their checks. Pure.
//! - [`frontier`]: the right side, from which a tree goes on.
//! - [`stored`]: the tree in files. `kept`: what stays of it when its beginning was removed.

pub mod frontier;
pub(super) mod kept;
pub mod proof;
pub mod stored;
#[cfg(test)]
mod stored_tests;
