//! Bounds of what is done with what was granted: uses that are reported, actions that are authorized.

use super::{CREDENTIAL_TTL_MS, VIEW_MAX_AGE_MS};

/// Uses in one report, uses. A server that reports each second tells of 1,000 a second with one call.
pub const USES_PER_REPORT: usize = 1_000;
/// Reports of uses that wait to be written, each folded by credential, tool, outcome and minute. At 250 bytes each, 16 MB.
pub const USES_WAITING: usize = 65_536;
/// The same of one server, reports. An eighth of `USES_WAITING`: at its part of `USES_WRITTEN`, 18 s of them.
pub const USES_WAITING_PER_SERVER: usize = USES_WAITING / 8;
/// Uses that one server reports a second, uses. Three calls of `USES_PER_REPORT`; each costs some microseconds, so a server takes a fiftieth of
/// one core.
pub const USES_PER_SECOND: u32 = 3_000;
/// Ended credentials of which one server's reports make us ask history, a second. A report of `USES_LOOKED_UP` each second.
pub const USES_LOOKED_UP_PER_SECOND: u32 = USES_LOOKED_UP as u32;
/// Records of uses in one second, records: a hundredth of 45,000 issuances. What is more waits.
pub const USES_WRITTEN: usize = 450;
/// How long ago a use may have been that is reported, milliseconds. As long as a credential may live (`CREDENTIAL_TTL_MS`).
pub const USE_REPORTED_MS: u64 = CREDENTIAL_TTL_MS;
/// Credentials that have ended, and of which one report makes us ask history, credentials. Each is a few milliseconds.
pub const USES_LOOKED_UP: usize = 8;
/// Ended credentials of which it is remembered what they were, for reports of uses, credentials. At 500 bytes each, 2 MB.
pub const USES_REMEMBERED: u64 = 4_096;
/// An authorized action begins within this, milliseconds: as long as a view may be old, twice.
pub const AUTHORIZATION_MS: u64 = 2 * VIEW_MAX_AGE_MS;

/// Credentials in the environment of one program that `mayfly exec` runs: servers that want several want a handful, as many as an exchange has
/// scopes.
pub const EXEC_CREDENTIALS: usize = 8;
/// How long before its end a credential is replaced where the program is started again, milliseconds: the program's own end (2 s of grace) and
/// start, and four looks at the default rate.
pub const EXEC_AHEAD_MS: u64 = 10_000;
