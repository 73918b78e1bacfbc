//! Bounds of break-glass.

/// Longest life of a break-glass task, milliseconds: an hour (design, section 6).
pub const BREAK_GLASS_MS: u64 = 3_600_000;
/// Shortest life that rights may give one, milliseconds: a minute, as a task of the configuration's shortest life.
pub const BREAK_GLASS_MIN_MS: u64 = 60_000;
/// How long a break-glass task waits for its second person, milliseconds: 15 minutes, in which somebody on call answers a page.
pub const BREAK_GLASS_JOIN_MS: u64 = 900_000;
/// Most break-glass tasks that wait, are open or that nobody reviewed. Two people each, who are in no second one: more than an organisation
/// has on call.
pub const BREAK_GLASS: usize = 64;
/// Break-glass tasks that are remembered, those that were reviewed too. At 1 KB each, 1 MB; the audit knows all.
pub const BREAK_GLASS_KEPT: usize = 1_024;
/// Most rights that a policy set names for break-glass. Each is a plan for one sort of emergency.
pub const BREAK_GLASS_RIGHTS: usize = 64;
