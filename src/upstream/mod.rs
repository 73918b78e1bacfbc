//! Upstreams: what mayfly issues credentials for.
//!
//! [`registry`] is what may be registered and what must not clash; [`mod@file`] is how people write a registration down; [`target`] is where
//! it is, spelled in one way; [`findings`] is what an auditor would ask about one. [`binding`] says which workload's tool
//! may use one. [`wider`] is what a registration gives that another one does not. [`lease`] is what stands at an upstream for us, and how it comes down again.

pub mod binding;
pub mod file;
pub mod findings;
pub mod lease;
pub mod registry;
pub mod target;
#[cfg(test)]
mod tests;
pub mod wider;
