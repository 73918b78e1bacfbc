//! A whole server, in this process and as a process of its own, over real mTLS.

mod approvals;
mod audit;
mod bindings;
mod blast;
mod deadlines;
mod dev;
mod ends;
mod kit;
mod listeners;
mod messages;
mod policy;
mod policy_rig;
mod problems;
mod public;
mod registry;
mod socket;
mod start;
mod upkeep;
mod uses;
