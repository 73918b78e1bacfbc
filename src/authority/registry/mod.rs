//! What operators register and change: upstreams, bindings, policy sets; a change that grants more takes two operators ([`changes`]).
//!
//! In come texts and operators' requests, out go records. What a registration, a binding or a set means is defined in the ledger and in
//! policy. A kind of document that operators change is a file here with an implementation of [`documents::ManagedDocument`], and a line in
//! [`changes`].

pub mod bindings;
pub mod changes;
mod connections;
pub mod documents;
pub mod inventory;
pub mod policies;
pub mod registrations;
pub mod replay;
pub mod upstream_test;
