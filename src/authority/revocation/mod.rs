//! Ending what was issued: revocation by operators and holders, revocation because a narrower policy, registration or binding takes effect,
//! the feed that followers learn of it by, and how far it has come.
//!
//! In come targets and operators' requests, out go records and the progress of each revocation. Rules and targets themselves are those of
//! the ledger. Nothing here may wait for other records: a revocation goes first.

pub mod feed;
pub mod leases;
pub mod revocation_reach;
pub mod revoke;
pub mod revoke_excess;
