//! Limits of break-glass.

/// Longest life of a break-glass task, milliseconds: an hour, as the longest life of a credential.
pub const BREAK_GLASS_MS: u64 = 3_600_000;
/// Shortest life of a break-glass task that rights may configure, milliseconds: a minute, as the shortest task life in the configuration.
pub const BREAK_GLASS_MIN_MS: u64 = 60_000;
/// Time for which a break-glass task waits for its second person, milliseconds: 15 minutes, in which somebody on call answers a page.
pub const BREAK_GLASS_JOIN_MS: u64 = 900_000;
/// Most break-glass tasks that are waiting, open or not reviewed. Each takes two people, and a person takes part in one only: more than an
/// organisation has on call.
pub const BREAK_GLASS: usize = 64;
/// Break-glass tasks that are kept in memory, reviewed ones included. At 1 KB each, 1 MB; the audit log has all of them.
pub const BREAK_GLASS_KEPT: usize = 1_024;
/// Most break-glass rights that a policy set defines. Each right is a plan for one sort of emergency.
pub const BREAK_GLASS_RIGHTS: usize = 64;
