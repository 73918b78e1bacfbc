//! Bounds of tokens that other issuers signed, and of fetching their keys.

use super::{CREDENTIAL_TTL_MS, HEADER_BYTES};

/// Most OIDC issuers. Each keeps a connection a few seconds every `OIDC_REFRESH_MS` and some KB of keys.
pub const OIDC_ISSUERS: usize = 32;
/// Longest `sub` of an OIDC token, bytes. OIDC Core allows 255 characters; a job's names its repository, branch and environment, of up to 255 bytes each.
pub const OIDC_SUB_BYTES: usize = 1024;
/// Most values of `aud` in a token, and most of `oidc_issuers.audiences`. Providers give two or three: the client, the API, the user-info endpoint.
pub const OIDC_AUDIENCES: usize = 16;
/// How long a key id that an issuer did not publish is taken for unknown without asking the issuer again, milliseconds. Six fetches' rate
/// (`OIDC_REFETCH_MS`); longer would let somebody who guesses the id of the next key keep it out.
pub const OIDC_MISSING_MS: u64 = 60 * 1000;
/// When to try again where the keys of an issuer are not at hand, milliseconds. Half of `OIDC_REFETCH_MS`: a fetch under way has ended by then.
pub const OIDC_NO_KEYS_RETRY_MS: u64 = 5 * 1000;
/// Most key ids that are remembered as not published, for each issuer. With `NAME_BYTES` each, 16 KB; the oldest goes first.
pub const OIDC_MISSING: usize = 64;
/// Longest token of an OIDC issuer that is read, bytes. As large as a header list may be (`HEADER_BYTES`): it travels in one.
pub const OIDC_TOKEN_BYTES: usize = HEADER_BYTES as usize;
/// Longest life (`exp − iat`) of such a token, milliseconds: a day, as an SVID's. What a person's provider issues lives an hour.
pub const OIDC_TOKEN_LIFE_MS: u64 = 24 * 3600 * 1000;
/// The same where nobody sets it, milliseconds. As the longest credential that may come of it (`CREDENTIAL_TTL_MS`).
pub const OIDC_TOKEN_LIFE_DEFAULT_MS: u64 = CREDENTIAL_TTL_MS;
/// Most groups or scopes that are read of a token. Entra ID gives 200 at most; more could hide one that a policy forbids, so it is refused.
pub const OIDC_GROUPS: usize = 256;
/// Most lines of an issuer that say what a group may. At 1 KB each, 1 MB for all issuers.
pub const OIDC_RIGHTS: usize = 32;
/// Most keys of an issuer. Large providers publish under ten.
pub const OIDC_KEYS: usize = 64;
/// Largest discovery document or key set, bytes. Those of large providers are under 10 KB; 64 RSA-4096 keys with certificates are 256 KB.
pub const OIDC_DOCUMENT_BYTES: usize = 256 * 1024;
/// Largest file of CA certificates, bytes. The usual roots of a system are 220 KB.
pub const CA_FILE_BYTES: usize = 2 * 1024 * 1024;
/// Largest head of somebody else's answer, bytes. As ours (`HEADER_BYTES`).
pub const ANSWER_HEAD_BYTES: usize = 16 * 1024;
/// Longest time for one document: resolving, connecting, TLS and reading, milliseconds. A slow provider answers in one second.
pub const OIDC_FETCH_MS: u64 = 10_000;
/// Time between two fetches of an issuer's keys, milliseconds: a key that it withdrew verifies for no longer, while it can be reached.
pub const OIDC_REFRESH_MS: u64 = 300 * 1000;
/// Pause after a fetch that failed, milliseconds. A tenth of `OIDC_REFRESH_MS`: two requests a minute to a provider in trouble.
pub const OIDC_RETRY_MS: u64 = 30 * 1000;
/// Shortest time between two fetches because of a key that is not known, milliseconds: whoever makes up key names costs the provider six
/// requests a minute, not one for each.
pub const OIDC_REFETCH_MS: u64 = 10 * 1000;
/// Longest wait of a call for keys that are being fetched for it, milliseconds. Twice what a slow provider takes.
pub const OIDC_WAIT_MS: u64 = 2_000;
/// How long keys verify after the last fetch that succeeded, milliseconds: an outage of an hour; after it, nothing of that issuer does.
pub const OIDC_KEPT_MS: u64 = 3600 * 1000;
