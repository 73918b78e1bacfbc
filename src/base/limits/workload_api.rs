//! Limits of the SPIFFE Workload API as a source.

/// Most SVIDs of one message that are examined: one for each registration entry that selects this process. SPIRE's examples have one;
/// several must be distinguished by a hint.
pub const WORKLOAD_API_SVIDS: usize = 64;
/// Longest time from connecting to an agent until its first message, milliseconds. An agent answers from memory; an agent that has just
/// started asks its server first.
pub const WORKLOAD_API_FIRST_MS: u64 = 10_000;
/// First pause after a stream ended, milliseconds. The pause doubles with each failure.
pub const WORKLOAD_API_RETRY_MIN_MS: u64 = 200;
/// Longest pause, milliseconds: an agent that is available again is noticed long before half of an SVID's life has passed, when the SVID is
/// renewed.
pub const WORKLOAD_API_RETRY_MAX_MS: u64 = 5_000;
/// Longest configurable wait of a start for an agent, milliseconds: enough for a node that boots, its agent and the registration entry.
pub const WORKLOAD_API_START_MS: u64 = 600_000;
/// Longest time that a command which only inspects waits for an agent, milliseconds: a person waits for the command.
pub const WORKLOAD_API_LOOK_MS: u64 = 2_000;
