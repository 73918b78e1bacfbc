//! Limits of tokens that other issuers signed, and of fetching the issuers' keys.

use super::{CREDENTIAL_TTL_MS, HEADER_BYTES};

/// Most OIDC issuers. Each uses a connection for a few seconds every `OIDC_REFRESH_MS` and some KB for its keys.
pub const OIDC_ISSUERS: usize = 32;
/// Longest `sub` of an OIDC token, bytes. OIDC Core allows 255 characters; the `sub` of a CI job names its repository, branch and
/// environment, of up to 255 bytes each.
pub const OIDC_SUB_BYTES: usize = 1024;
/// Most values of `aud` in a token, and most of `oidc_issuers.audiences`. Providers give two or three: the client, the API, the user-info
/// endpoint.
pub const OIDC_AUDIENCES: usize = 16;
/// Time for which a key id that an issuer did not publish is treated as unknown without asking the issuer again, milliseconds. Six times
/// `OIDC_REFETCH_MS`; with a longer time, an attacker who guesses the id of the next key could keep that key out.
pub const OIDC_MISSING_MS: u64 = 60 * 1000;
/// Retry delay given to callers while the keys of an issuer are missing, milliseconds. Half of `OIDC_REFETCH_MS`: a fetch in progress has
/// ended by then.
pub const OIDC_NO_KEYS_RETRY_MS: u64 = 5 * 1000;
/// Most unpublished key ids remembered per issuer. With `NAME_BYTES` each, 16 KB; the oldest is dropped first.
pub const OIDC_MISSING: usize = 64;
/// Longest token of an OIDC issuer that is parsed, bytes. As large as a header list may be (`HEADER_BYTES`), since the token travels in a
/// header.
pub const OIDC_TOKEN_BYTES: usize = HEADER_BYTES as usize;
/// Longest life (`exp − iat`) of such a token that can be configured, milliseconds: a day, as of an SVID. Tokens of people's providers live
/// an hour.
pub const OIDC_TOKEN_LIFE_MS: u64 = 24 * 3600 * 1000;
/// Default of the longest life of such a token, milliseconds. As the longest credential that may be issued for it (`CREDENTIAL_TTL_MS`).
pub const OIDC_TOKEN_LIFE_DEFAULT_MS: u64 = CREDENTIAL_TTL_MS;
/// Most groups or scopes of a token. Entra ID gives 200 at most. A token with more is refused: ignoring the rest could hide a group that a
/// policy forbids.
pub const OIDC_GROUPS: usize = 256;
/// Most entries per issuer that map a group to rights. At 1 KB each, 1 MB for all issuers.
pub const OIDC_RIGHTS: usize = 32;
/// Most keys of an issuer. Large providers publish under ten.
pub const OIDC_KEYS: usize = 64;
/// Largest discovery document or key set, bytes. Those of large providers are under 10 KB; 64 RSA-4096 keys with certificates are 256 KB.
pub const OIDC_DOCUMENT_BYTES: usize = 256 * 1024;
/// Largest file of CA certificates, bytes. The usual roots of a system are 220 KB.
pub const CA_FILE_BYTES: usize = 2 * 1024 * 1024;
/// Largest HTTP header section of another server's answer, bytes. As ours (`HEADER_BYTES`).
pub const ANSWER_HEAD_BYTES: usize = 16 * 1024;
/// Longest time to fetch one document: resolving, connecting, TLS and reading, milliseconds. A slow provider answers in one second.
pub const OIDC_FETCH_MS: u64 = 10_000;
/// Interval between two fetches of an issuer's keys, milliseconds: while the issuer can be reached, a withdrawn key verifies for no longer
/// than this.
pub const OIDC_REFRESH_MS: u64 = 300 * 1000;
/// Pause after a failed fetch, milliseconds. A tenth of `OIDC_REFRESH_MS`: two requests a minute to a provider in trouble.
pub const OIDC_RETRY_MS: u64 = 30 * 1000;
/// Shortest time between two fetches caused by unknown key ids, milliseconds: an attacker that invents key ids causes six requests a
/// minute, not one per id.
pub const OIDC_REFETCH_MS: u64 = 10 * 1000;
/// Longest time that a call waits for keys being fetched, milliseconds. Twice the time of a slow provider.
pub const OIDC_WAIT_MS: u64 = 2_000;
/// Time for which keys verify after the last successful fetch, milliseconds: covers an outage of an hour; after it, no token of that issuer
/// verifies.
pub const OIDC_KEPT_MS: u64 = 3600 * 1000;
