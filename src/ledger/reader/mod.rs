//! Reads of the state and of the log: views for decisions, history, searches, the index, and readers that follow the log.
//!
//! In come questions, out go records and views of one sequence number. Nothing here writes, and every scan has a bound and stops when its
//! caller has gone.

pub(crate) mod commit_scan;
pub(crate) mod derived;
pub mod history;
pub mod history_query;
pub mod index;
pub mod log_reader;
pub mod search;
pub(crate) mod view;
