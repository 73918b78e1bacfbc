//! Limits of leases: credentials that are created at upstreams and deleted there.

use super::{CLOCK_SKEW_MS, VIEW_MAX_AGE_MS};

/// Longest time that creating a credential at an upstream may take, milliseconds. Below the 40 s after which the fold rejects the issuance
/// as stale.
pub const LEASE_MAKE_MS: u64 = 20 * 1000;
/// Longest time of one attempt to delete a credential at an upstream or to check for it, milliseconds. As `LEASE_MAKE_MS`.
pub const LEASE_CALL_MS: u64 = 20 * 1000;
/// Time after which a lease without an issued credential counts as abandoned, milliseconds. The fold voids an issuance that was decided
/// `VIEW_MAX_AGE_MS + CLOCK_SKEW_MS` before its commit, and a decision may be dated `CLOCK_SKEW_MS` ahead.
pub const LEASE_LEFT_MS: u64 = VIEW_MAX_AGE_MS + 2 * CLOCK_SKEW_MS + 5_000;
/// First pause between attempts to delete, milliseconds. Longer than a connection is usually interrupted, shorter than anybody waits.
pub const LEASE_RETRY_MIN_MS: u64 = 1_000;
/// Longest pause between attempts to delete, milliseconds. An upstream that is available again is cleaned up within 5 minutes.
pub const LEASE_RETRY_MAX_MS: u64 = 300 * 1000;
/// Concurrent deletions over all upstreams. Eight upstreams at their limit: an upstream that hangs delays no other.
pub const LEASES_UNDOING: usize = 128;
/// Concurrent deletions at one upstream. Somewhat more than a tenth of the 100 connections that PostgreSQL allows by default.
pub const LEASES_UNDOING_PER_UPSTREAM: usize = 16;
/// Concurrent creations of credentials over all upstreams. Eight upstreams at their limit; a connection and some 64 KB each: 16 MB.
pub const LEASES_MAKING: usize = 256;
/// Concurrent creations of credentials at one upstream. A third of the 100 connections that PostgreSQL allows by default.
pub const LEASES_MAKING_PER_UPSTREAM: usize = 32;
/// Concurrent upstream creations for one all-or-nothing batch: a quarter of `LEASES_MAKING_PER_UPSTREAM`.
pub const LEASES_MAKING_PER_BATCH: usize = 8;
/// Leases examined under one lock of the state: 512 at about 1 µs take less than a flush.
pub const LEASES_LOOK: usize = 512;
/// Longest secret that is sealed for undoing a lease, bytes: a token. Tokens that are JWTs of large services have some KB.
pub const LEASE_SECRET_BYTES: usize = 16 * 1024;
/// Interval at which a lease is examined whose upstream's answer was lost, milliseconds: what was made ends by itself, and the secret that
/// undoes it earlier may still be sealed by a task that was not done yet.
pub const LEASE_LOST_LOOK_MS: u64 = 60 * 1000;
/// Longest answer of an upstream that is stored with a lease, bytes. As `PURPOSE_BYTES`: enough to see the cause.
pub const LEASE_DETAIL_BYTES: usize = 512;
/// Records about leases that are queued individually for the lease worker; beyond it, all leases are examined. At 50,000 records a second,
/// 80 ms.
pub const LEASE_NEWS: usize = 4_096;
/// Interval after which a lease is examined even without a record about it, milliseconds: 100,000 leases cost a third of a millisecond per
/// second.
pub const LEASE_LOOK_AGAIN_MS: u64 = 300 * 1000;
/// Interval at which the lease worker examines leases if nothing wakes it, milliseconds. As the first pause, `LEASE_RETRY_MIN_MS`.
pub const LEASE_LOOK_MS: u64 = 1_000;
