//! Bounds of people who sign in, of our own trust domain, its CA and its CRL.

use super::KEY_PUBLISHED_AHEAD_MAX_MS;
use super::{KEY_SIGNS_MS, KEY_VERIFIES_MS};

/// The uid by which the kernel names every user whom a user namespace does not map: the default of `/proc/sys/kernel/overflowuid`
/// (user_namespaces(7), "Unmapped user and group IDs"). As the peer of the operators' socket it identifies nobody.
pub const OVERFLOW_UID: u32 = 65534;
/// Longest life of a person's SVID, milliseconds. standards.md, "X.509 out": an hour at most.
pub const LOGIN_TTL_MS: u64 = 3600 * 1000;
/// Shortest that may be configured, milliseconds: what a person needs for one thing.
pub const LOGIN_TTL_MIN_MS: u64 = 60 * 1000;
/// How long before its decision a certificate begins, milliseconds: for relying services whose clock stands behind (standards.md).
pub const SVID_BACKDATED_MS: u64 = 30 * 1000;
/// Most logins that have not ended: 10,000 people who sign in once an hour, and 25 jobs a second; 1 KB each.
pub const LOGINS: usize = 100_000;
/// Most of one person: a laptop, a few shells, and what was not given back within the hour.
pub const LOGINS_PER_PERSON: usize = 16;
/// Most `amr` values of one login. RFC 8176 has 18 names.
pub const LOGIN_AMR: usize = 18;
/// Longest `amr` value or `acr`, bytes: `acr` may be a URI (OpenID Connect Core, section 2).
pub const LOGIN_CLAIM_BYTES: usize = 256;
/// Longest `sub`, bytes: OpenID Connect Core, section 2 has 255 ASCII characters.
pub const LOGIN_SUB_BYTES: usize = 255;
/// Largest request for a login, bytes: an ID token of 16 KiB, a CSR of 4 KiB in base64, names.
pub const LOGIN_BODY_BYTES: usize = 24 * 1024;
/// Largest CSR, bytes: one of an RSA-4096 key with long names is 2 KiB.
pub const CSR_BYTES: usize = 4 * 1024;
/// Logins that are looked at at once, on a listener that anybody calls. Each costs two signature checks; keys may have to be fetched.
pub const LOGINS_AT_ONCE: usize = 32;
/// The same of one source address: a quarter, so that tokens of a provider which is slow to tell its keys hold up one address.
pub const LOGINS_AT_ONCE_PER_ADDRESS: usize = LOGINS_AT_ONCE / 4;
/// Oldest ID token of the device flow, milliseconds from `iat`: it is bound to no key, so it is taken when it is fresh or not at all.
pub const DEVICE_TOKEN_AGE_MS: u64 = 2 * 60 * 1000;
/// How long a CRL is good, milliseconds: as long as the longest certificate in it.
pub const CRL_NEXT_UPDATE_MS: u64 = LOGIN_TTL_MS;
/// After this a CRL is signed anew, whether anything was revoked or not, milliseconds: a tenth of its life, so that nobody gets one that ends.
pub const CRL_RENEWED_MS: u64 = CRL_NEXT_UPDATE_MS / 10;
/// How long a CRL and the bundle may be kept by those who fetch them, seconds. The design's figure for followers, 10 s, is for those who follow.
pub const CRL_MAX_AGE_S: u64 = 30;
/// Life of a CA certificate, milliseconds: its key's whole way from being published to being removed, and a week for a server that stood still.
pub const CA_LIFE_MS: u64 = KEY_PUBLISHED_AHEAD_MAX_MS + KEY_SIGNS_MS + KEY_VERIFIES_MS + 7 * 24 * 3600 * 1000;
/// `spiffe_refresh_hint` of our own bundle, seconds: as often as followers of key changes ask.
pub const OWN_BUNDLE_REFRESH_S: u64 = 300;
/// Most `[[attestation]]` rules. A rule for each pipeline that deploys; more are a list of values in one.
pub const ATTEST_RULES: usize = 1024;
/// How long the same token and key of a job get the same certificate again, milliseconds. A client that lost an answer asks again within seconds, and a
/// job's step within a minute.
pub const ATTEST_REPEAT_MS: u64 = 60 * 1000;
/// Most logins of jobs that are remembered for that. At some 2 KB each, 8 MB: 68 jobs a second for a minute.
pub const ATTEST_REPEATS: u64 = 4096;
/// Most claims that one rule compares. GitHub's tokens have 30.
pub const ATTEST_RULE_CLAIMS: usize = 32;
/// Most values of one claim in a rule: each of an organization's 256 branches or repositories; a pattern takes more.
pub const ATTEST_RULE_VALUES: usize = 256;
/// Most claims that a job's record has: what a rule compares, and a platform's own.
pub const ATTESTED_CLAIMS: usize = 64;
/// Rules of which a refusal says why they were not for a job: as many as fit into a record.
pub const ATTEST_RULES_TOLD: usize = 4;
/// Most logins of one job's SPIFFE ID: a matrix of 256 jobs (GitHub's bound), each twice within the hour.
pub const LOGINS_PER_ATTESTED: usize = 512;
