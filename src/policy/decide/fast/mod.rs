//! Decisions that the exchanges of a batch share, and that later batches on the same connection reuse. They permit exactly what
//! [`Decider::exchange`](super::Decider::exchange) permits for each exchange by itself.

mod batch;
mod reusable_decision;

pub use batch::BatchDecision;
pub use reusable_decision::{ReusableDecision, SharedDecision};
