//! Revoking: what a revocation aims at, the rules that it makes, and what those who check are told of them.

pub mod event;
pub mod facts;
pub mod follower;
pub mod rules;
pub mod target;

pub use event::{FeedEvent, FeedSnapshot, event_of};
pub use facts::{Facts, Probe, SvidFacts};
pub use follower::{Follower, FollowerRefusal, Heartbeat, Life, Moment};
pub use rules::{Entry, Hit, Rules};
pub use target::{Sort, Target};
