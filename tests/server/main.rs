//! A whole server, in this process and as a process of its own, over real mTLS.

mod approvals;
mod approvals_of_tasks;
mod attacks;
mod attest;
mod attest_cli;
mod audit;
mod behalf;
mod bindings;
mod blast;
mod break_glass;
mod break_glass_bounds;
mod check;
mod collector;
mod deadlines;
mod dev;
mod ends;
mod handshakes;
mod hostile;
mod kit;
mod listeners;
mod log_reader;
mod logs;
mod messages;
mod metrics;
mod oidc;
mod people;
mod people_approve;
mod people_glass;
mod people_owner;
mod people_rig;
mod policy;
mod policy_rig;
mod policy_targets;
#[path = "../kit/ports.rs"]
mod ports;
mod problems;
#[path = "../kit/oidc.rs"]
#[allow(dead_code, reason = "other tests ask it otherwise")]
mod provider;
mod public;
mod reach;
mod receiver;
mod registry;
mod reload;
mod scenario;
#[path = "../kit/signer.rs"]
#[allow(dead_code, reason = "other tests sign otherwise")]
mod signer;
mod socket;
mod sources;
mod start;
mod traces;
mod traces_of_calls;
mod two_people;
mod upkeep;
mod uses;
mod webhook_trouble;
mod webhooks;
