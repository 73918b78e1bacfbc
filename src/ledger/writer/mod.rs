//! From a proposal to a durable, ordered record and its receipt.
//!
//! In come proposals with their records, out go receipts once the batch is durable. The commit loop is the only writer of the log. Nothing
//! here waits for a caller, and a revocation never waits for other records.

pub(crate) mod commit_loop;
pub(crate) mod durable_summary;
pub(crate) mod encoded;
pub(crate) mod group_commit;
pub(crate) mod packed;
pub(crate) mod proposal_queue;
pub(crate) mod propose;
pub(crate) mod receipt;
pub(crate) mod stall;
pub mod template;
pub(crate) mod writer_stats;
