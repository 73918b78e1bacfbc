//! Policy: sets of policies and what they permit, the cache of verdicts, changes of sets, and random sets against Cedar.

mod access;
mod cache;
mod change;
mod kit;
mod random;
mod set;
