//! Revoking: what a revocation aims at, the rules that it makes, and what those who check are told of them.

pub mod event;
pub mod facts;
pub mod follower;
pub mod rules;
pub mod sort;
mod table;
pub mod target;
mod written;

pub use event::{FeedEvent, FeedSnapshot, event_of};
pub use facts::{Facts, Probe, SvidFacts};
pub use follower::{Follower, FollowerRefusal, Heartbeat, Life, Moment};
pub use rules::{Entry, Hit, Rules};
pub use sort::{Sort, Sorts};
pub use target::Target;
