//! mayfly: an issuing authority for short-lived, task-scoped workload credentials.
//!
//! The modules are listed from top to bottom; a module imports only from modules below it.
#![forbid(unsafe_code)]

pub mod bindings;
pub mod break_glass;
pub mod changes;
pub mod cli;
pub mod logins;
pub mod serve;
pub mod server;
pub mod sources;
pub mod verifier;

pub mod admission;
pub mod approvals;
pub mod attest;
pub mod audit;
pub mod audit_reads;
pub mod authority;
pub mod authorize;
pub mod backup;
pub mod calls;
pub mod due;
pub mod exchange;
pub mod explain;
pub mod feed;
pub mod heartbeats;
pub mod intake;
pub mod introspect;
pub mod inventory;
pub mod keys;
pub mod leases;
pub mod lookup;
pub mod metrics;
pub mod narrow;
pub mod oidc;
pub mod openings;
pub mod operators;
pub mod own_domain;
pub mod own_svid;
pub mod peers;
pub mod people;
pub mod proof;
pub mod rates;
pub mod reach;
pub mod refusals;
pub mod registrations;
pub mod replay;
pub mod revoke;
pub mod source_health;
pub mod subjects;
pub mod tasks;
pub mod trust;
pub mod uses;
pub mod webhook;

pub mod credential;
pub mod ledger;
pub mod pb;
pub mod policies;
pub mod policy;
pub mod revocation;
pub mod sealing;
pub mod store;
pub mod upstream;

pub mod identity;

pub mod bounded_file;
pub mod document;
pub mod file_path;
pub mod limits;
pub mod log_queue;
pub mod protobuf;
pub mod refusal;
pub mod system;
pub mod trace;
pub mod whole_file;

pub use mayfly_verify::{persistent, seq};
