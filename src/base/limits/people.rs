//! Limits of people who sign in, and of mayfly's own trust domain, its CA and its CRL.

use super::KEY_PUBLISHED_AHEAD_MAX_MS;
use super::{KEY_SIGNS_MS, KEY_VERIFIES_MS};

/// The uid that the kernel reports for every user that a user namespace does not map: the default of `/proc/sys/kernel/overflowuid`
/// (user_namespaces(7), "Unmapped user and group IDs"). As the peer of the operators' socket this uid identifies nobody.
pub const OVERFLOW_UID: u32 = 65534;
/// Longest life of a person's SVID, milliseconds. standards.md, "X.509 out": an hour at most.
pub const LOGIN_TTL_MS: u64 = 3600 * 1000;
/// Shortest configurable life of a person's SVID, milliseconds: enough for one command.
pub const LOGIN_TTL_MIN_MS: u64 = 60 * 1000;
/// Time by which a certificate's notBefore is earlier than its decision, milliseconds: for relying services whose clock is behind
/// (standards.md).
pub const SVID_BACKDATED_MS: u64 = 30 * 1000;
/// Most unexpired logins: 10,000 people who sign in once an hour, and 25 jobs a second; 1 KB each.
pub const LOGINS: usize = 100_000;
/// Most unexpired logins of one person: a laptop, a few shells, and logins that were not signed out within the hour.
pub const LOGINS_PER_PERSON: usize = 16;
/// Most `amr` values of one login. RFC 8176 has 18 names.
pub const LOGIN_AMR: usize = 18;
/// Longest `amr` value or `acr`, bytes: `acr` may be a URI (OpenID Connect Core, section 2).
pub const LOGIN_CLAIM_BYTES: usize = 256;
/// Longest `sub` of a person, bytes: OpenID Connect Core, section 2 allows 255 ASCII characters.
pub const LOGIN_SUB_BYTES: usize = 255;
/// Largest request for a login, bytes: an ID token of 16 KiB, a CSR of 4 KiB in base64, names.
pub const LOGIN_BODY_BYTES: usize = 24 * 1024;
/// Largest CSR, bytes: one of an RSA-4096 key with long names is 2 KiB.
pub const CSR_BYTES: usize = 4 * 1024;
/// Logins processed concurrently on the public listener, whose peers are unauthenticated. Each costs two signature checks; keys may have to
/// be fetched.
pub const LOGINS_AT_ONCE: usize = 32;
/// Logins processed concurrently for one source address: a quarter, so that tokens of a provider which is slow to publish its keys delay
/// only that address.
pub const LOGINS_AT_ONCE_PER_ADDRESS: usize = LOGINS_AT_ONCE / 4;
/// Oldest ID token of the device flow, milliseconds from `iat`: the token is bound to no key, so it is accepted only while it is fresh.
pub const DEVICE_TOKEN_AGE_MS: u64 = 2 * 60 * 1000;
/// Validity of a CRL, milliseconds: as long as the longest certificate in it.
pub const CRL_NEXT_UPDATE_MS: u64 = LOGIN_TTL_MS;
/// Age at which a CRL is signed again even if nothing was revoked, milliseconds: a tenth of its validity, so that nobody fetches a CRL that
/// is about to expire.
pub const CRL_RENEWED_MS: u64 = CRL_NEXT_UPDATE_MS / 10;
/// Cache lifetime of a CRL and of the bundle, seconds. The design's 10 s applies to followers only.
pub const CRL_MAX_AGE_S: u64 = 30;
/// Life of a CA certificate, milliseconds: the key's whole lifecycle from publication to removal, and a week for a server that was down.
pub const CA_LIFE_MS: u64 = KEY_PUBLISHED_AHEAD_MAX_MS + KEY_SIGNS_MS + KEY_VERIFIES_MS + 7 * 24 * 3600 * 1000;
/// `spiffe_refresh_hint` of mayfly's own bundle, seconds: the interval at which followers fetch key changes.
pub const OWN_BUNDLE_REFRESH_S: u64 = 300;
/// Most `[[attestation]]` rules. One rule per pipeline that deploys; further pipelines fit into a value list of one rule.
pub const ATTEST_RULES: usize = 1024;
/// Time within which the same token and key of a job get the same certificate again, milliseconds. A client that lost an answer retries
/// within seconds, and a job's step within a minute.
pub const ATTEST_REPEAT_MS: u64 = 60 * 1000;
/// Most job logins remembered for such retries. At some 2 KB each, 8 MB: 68 jobs a second for a minute.
pub const ATTEST_REPEATS: u64 = 4096;
/// Most claims that one rule compares. GitHub's tokens have 30.
pub const ATTEST_RULE_CLAIMS: usize = 32;
/// Most values of one claim in a rule: an organization's 256 branches or repositories; for more, use a pattern.
pub const ATTEST_RULE_VALUES: usize = 256;
/// Most claims in the record of an attested job: those that a rule compares, and the platform's own.
pub const ATTESTED_CLAIMS: usize = 64;
/// Rules for which a refusal explains why they did not match a job: as many as fit into a record.
pub const ATTEST_RULES_TOLD: usize = 4;
/// Most unexpired logins of one job's SPIFFE ID: a matrix of 256 jobs (GitHub's limit), each twice within the hour.
pub const LOGINS_PER_ATTESTED: usize = 512;
