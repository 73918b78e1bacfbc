//! Upstreams: what mayfly issues credentials for.
//!
//! [`registry`] is what may be registered and what must not clash; [`mod@file`] is how people write a registration down; [`target`] is where
//! it is, spelled in one way. [`lease`] is what stands at an upstream for us, and how it comes down again.

pub mod file;
pub mod lease;
pub mod registry;
pub mod target;
#[cfg(test)]
mod tests;
