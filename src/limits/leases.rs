//! Bounds of leases: what is made at upstreams, and undone there.

use super::{CLOCK_SKEW_MS, VIEW_MAX_AGE_MS};

/// Longest time that making something upstream may take, milliseconds. Below the 40 s after which the fold finds the issuance stale.
pub const LEASE_MAKE_MS: u64 = 20 * 1000;
/// Longest time that one attempt to undo or to look may take, milliseconds. As `LEASE_MAKE_MS`.
pub const LEASE_CALL_MS: u64 = 20 * 1000;
/// A lease that nobody's credential came of for so long was left behind, milliseconds: the fold voids an issuance that was decided
/// `VIEW_MAX_AGE_MS + CLOCK_SKEW_MS` before its commit, and a decision may be dated `CLOCK_SKEW_MS` ahead.
pub const LEASE_LEFT_MS: u64 = VIEW_MAX_AGE_MS + 2 * CLOCK_SKEW_MS + 5_000;
/// First pause between attempts to undo, milliseconds. Longer than a flaky connection, shorter than anybody waits.
pub const LEASE_RETRY_MIN_MS: u64 = 1_000;
/// Longest pause between attempts to undo, milliseconds. An upstream that is back is cleaned within 5 minutes.
pub const LEASE_RETRY_MAX_MS: u64 = 300 * 1000;
/// Leases that are undone at once, in all. Eight upstreams at their bound: one that hangs holds up no other.
pub const LEASES_UNDOING: usize = 128;
/// Leases that are undone at once at one upstream. A tenth of the 100 connections that PostgreSQL allows by default, and some.
pub const LEASES_UNDOING_PER_UPSTREAM: usize = 16;
/// Credentials that are being made elsewhere at once, in all. Eight upstreams at their bound; a connection and some 64 KB each: 16 MB.
pub const LEASES_MAKING: usize = 256;
/// Credentials that are being made at once at one upstream. A third of the 100 connections that PostgreSQL allows by default.
pub const LEASES_MAKING_PER_UPSTREAM: usize = 32;
/// Credentials of one all-or-nothing batch that are being made elsewhere at once: a quarter of `LEASES_MAKING_PER_UPSTREAM`.
pub const LEASES_MAKING_PER_BATCH: usize = 8;
/// Leases looked at while the state is held: 512 at about 1 µs stay below a flush.
pub const LEASES_LOOK: usize = 512;
/// Longest answer of an upstream that is kept with a lease, bytes. As `PURPOSE_BYTES`: enough to see why.
pub const LEASE_DETAIL_BYTES: usize = 512;
/// Records about leases that are kept apart until somebody looks; beyond, all leases are looked at. At 50,000 records a second, 80 ms.
pub const LEASE_NEWS: usize = 4_096;
/// A lease is looked at again after so long though nothing says so, milliseconds: 100,000 leases cost a third of a millisecond a second.
pub const LEASE_LOOK_AGAIN_MS: u64 = 300 * 1000;
/// How often leases are looked at when nothing wakes the one who undoes them, milliseconds. As the first pause, `LEASE_RETRY_MIN_MS`.
pub const LEASE_LOOK_MS: u64 = 1_000;
