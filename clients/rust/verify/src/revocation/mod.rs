//! Revocation: targets, the rules that revocations create, and the follower that applies them.

pub mod event;
pub mod facts;
pub mod follower;
mod marks;
pub mod record;
pub mod rules;
pub mod sort;
mod table;
pub mod target;
mod written;

pub use event::{FeedEvent, FeedSnapshot};
pub use facts::{Facts, Probe, SvidFacts};
pub use follower::{ChainHead, Follower, FollowerRefusal, Heartbeat, Life, Moment, RolledBack};
pub use marks::Asked;
pub use rules::{Entry, Hit, Rules};
pub use sort::{Sort, Sorts};
pub use target::Target;
