//! Limits of reported uses of credentials and of authorized actions.

use super::{CREDENTIAL_TTL_MS, VIEW_MAX_AGE_MS};

/// Most uses in one report. A server that reports every second can report 1,000 uses a second with one call.
pub const USES_PER_REPORT: usize = 1_000;
/// Use reports queued for the writer, each folded by credential, tool, outcome and minute. At 250 bytes each, 16 MB.
pub const USES_WAITING: usize = 65_536;
/// Queued use reports of one server. An eighth of `USES_WAITING`: 18 s at the rate of `USES_WRITTEN`.
pub const USES_WAITING_PER_SERVER: usize = USES_WAITING / 8;
/// Uses that one server reports per second. Three calls of `USES_PER_REPORT`; a use costs some microseconds, so a server takes a fiftieth
/// of one core.
pub const USES_PER_SECOND: u32 = 3_000;
/// Ended credentials per second that one server's reports may have looked up in history. A report of `USES_LOOKED_UP` each second.
pub const USES_LOOKED_UP_PER_SECOND: u32 = USES_LOOKED_UP as u32;
/// Records of uses written per second: a hundredth of 45,000 issuances. Further records wait.
pub const USES_WRITTEN: usize = 450;
/// Age up to which a use may be reported, milliseconds. As long as a credential may live (`CREDENTIAL_TTL_MS`).
pub const USE_REPORTED_MS: u64 = CREDENTIAL_TTL_MS;
/// Ended credentials that one report may have looked up in history. Each lookup takes a few milliseconds.
pub const USES_LOOKED_UP: usize = 8;
/// Ended credentials whose data is cached for use reports. At 500 bytes each, 2 MB.
pub const USES_REMEMBERED: u64 = 4_096;
/// Time within which an authorized action must begin, milliseconds: twice the largest age of a view.
pub const AUTHORIZATION_MS: u64 = 2 * VIEW_MAX_AGE_MS;

/// Most credentials in the environment of one program that `mayfly exec` runs: as many as an exchange has scopes; programs need a handful.
pub const EXEC_CREDENTIALS: usize = 8;
/// Time before a credential's expiry at which `mayfly exec` replaces it if the program has to be restarted, milliseconds: covers the end of
/// the program (2 s of grace), its start, and four checks at the default rate.
pub const EXEC_AHEAD_MS: u64 = 10_000;
