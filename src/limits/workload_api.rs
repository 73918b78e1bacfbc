//! Bounds of the SPIFFE Workload API as a source.

/// Most SVIDs of one message that are looked at: one for each entry that selects this process. SPIRE's examples have one, and a hint has to tell
/// several apart.
pub const WORKLOAD_API_SVIDS: usize = 64;
/// Longest time from connecting to an agent until its first message, milliseconds. An agent answers from memory; one that has just begun asks
/// its server first.
pub const WORKLOAD_API_FIRST_MS: u64 = 10_000;
/// The first pause after a stream that ended, milliseconds. It doubles.
pub const WORKLOAD_API_RETRY_MIN_MS: u64 = 200;
/// The longest pause, milliseconds: an agent that is back is found long before half of an SVID's life, when it would be renewed.
pub const WORKLOAD_API_RETRY_MAX_MS: u64 = 5_000;
/// Longest time that a start may be told to wait for an agent, milliseconds: a node that boots, its agent and the entry for us.
pub const WORKLOAD_API_START_MS: u64 = 600_000;
/// Longest time that a command which only looks waits for an agent, milliseconds: somebody sits before it.
pub const WORKLOAD_API_LOOK_MS: u64 = 2_000;
