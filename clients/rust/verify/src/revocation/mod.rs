//! Revocation: targets, the rules that revocations create, and the follower that applies them.

mod bloom_filter;
pub mod event;
pub mod facts;
pub mod follower;
pub mod record;
pub mod rule_storage;
mod rule_table;
pub mod rules;
pub mod target;
pub mod target_kind;
mod target_text;

pub use bloom_filter::ProbeHashes;
pub use event::{FeedEvent, FeedSnapshot};
pub use facts::{Facts, Probe, SvidFacts};
pub use follower::{ChainHead, Follower, FollowerRefusal, Heartbeat, Lifetime, Moment, RolledBack};
pub use rules::{Hit, RevocationEntry, RuleSet, Rules};
pub use target::Target;
pub use target_kind::{TargetKind, TargetKinds};
