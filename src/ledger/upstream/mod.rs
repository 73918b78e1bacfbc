//! Upstreams: the systems that mayfly issues credentials for.
//!
//! [`registry`] defines registrations and their clashes; [`mod@file`] parses the TOML form of a registration; [`target`] normalizes target
//! URLs; [`findings`] lists findings that an auditor would raise. [`binding`] defines which workload's tool may use an upstream.
//! [`settings`] keeps the sections of credential kinds, and [`access`] is what they give. [`widening`] determines what a registration grants
//! beyond another one. `mayfly_credential::lease` tracks credentials that were made at upstreams, and undoes them.

pub mod access;
pub mod binding;
pub mod file;
pub mod findings;
pub mod registry;
pub mod settings;
pub mod target;
#[cfg(test)]
mod tests;
pub mod widening;
