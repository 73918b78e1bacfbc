//! Revoking: what a revocation aims at, and the rules that it makes.

pub mod facts;
pub mod rules;
pub mod target;

pub use facts::{Facts, Probe, SvidFacts};
pub use rules::{Entry, Hit, Rules};
pub use target::{Sort, Target};
