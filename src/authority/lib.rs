//! What mayfly does for its callers: one module per story, which checks, decides, commits to the ledger and answers.
//!
//! In come verified callers and parsed requests, out go answers or refusals. Nothing here knows gRPC, HTTP, files or sockets: `api` turns
//! messages into the types of this crate, and `config` and `server` assemble an [`authority::Authority`].
//!
//! [`exchange`] is the story of a credential from the request to its answer.
#![forbid(unsafe_code)]

pub mod admission;
pub mod audit;
pub mod authority;
pub mod backup;
pub mod exchange;
pub mod metrics;
pub mod people;
mod redecide;
pub mod registry;
pub mod revocation;
pub mod secrets;
pub mod source_health;
pub mod tasks;
pub mod trust;
pub mod webhook;
