//! What is the same wherever something of mayfly is checked: who somebody is (X509-SVIDs), whether a token is good, what revocations say.
//!
//! No IO, and no clock but [`clock`]: messages, certificates and moments come in as values. The server decides with the same rules; clients
//! and relying services use the crate `mayfly-client`, which brings the connections.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod check;
pub mod token;

pub mod revocation;

pub mod identity;

pub mod clock;
pub mod limits;
pub mod persistent;
mod seen;
pub mod seq;
