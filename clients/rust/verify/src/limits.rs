//! Limits for checking SVIDs, tokens and revocations. The server re-exports them and adds its own.

/// Longest SPIFFE ID, bytes. SPIFFE-ID, section 2.3: implementations support up to 2048.
pub const SPIFFE_ID_BYTES: usize = 2048;
/// Longest trust domain name, bytes. SPIFFE-ID, section 2.3.
pub const TRUST_DOMAIN_BYTES: usize = 255;
/// Most path segments of a caller's SPIFFE ID. A prefix rule costs one probe per segment.
pub const SPIFFE_ID_SEGMENTS: usize = 16;
/// Longest chain that a peer may send, certificates. SPIRE nests three deep at most in practice; each certificate costs one signature
/// check.
pub const CHAIN_CERTIFICATES: usize = 8;
/// Most certificates above a leaf with the same Subject: SPIRE nested three deep gives all its CAs the same Subject. Path building tries
/// them in every order: seven with one Subject cost 50 times as much as this bound allows (measured), before the peer is authenticated.
pub const CHAIN_SAME_SUBJECT: usize = 3;
/// Largest single certificate of a peer, bytes. An RSA-4096 SVID with long names is under 4 KiB.
pub const CERTIFICATE_BYTES: usize = 16 * 1024;
/// Longest serial number of a certificate, bytes. RFC 5280, section 4.1.2.2.
pub const SERIAL_BYTES: usize = 20;
/// Largest bundle document, bytes. 500 RSA-4096 roots in SPIFFE JWKS form.
pub const BUNDLE_BYTES: usize = 1024 * 1024;
/// Most authorities in one bundle. SPIRE keeps one or two per server and rotates them; a federation of 100 servers stays below.
pub const BUNDLE_AUTHORITIES: usize = 256;
/// Most trust domains. Each may hold `BUNDLE_BYTES`: 1 GB in total in the worst case.
pub const TRUST_DOMAINS: usize = 1024;
/// Deepest task tree: a root and seven levels below it. A task rule is matched against each task of the path.
pub const TASK_DEPTH: usize = 8;
/// Longest actor chain. A caller or subject rule is matched against each actor.
pub const ACT_CHAIN: usize = 8;
/// Most ancestors of a credential. A credential rule is matched against each ancestor.
pub const ANCESTORS: usize = 8;
/// Most other grants that a credential depends on: the openings of its tasks, the joining of a break-glass task, its own ancestors, and
/// those of each opening (`TASK_DEPTH`, `ANCESTORS`).
pub const GROUNDS: usize = TASK_DEPTH + 1 + ANCESTORS + (TASK_DEPTH + 1) * (ANCESTORS + 1);
/// Longest TTL of a credential, milliseconds. This is how long a stolen credential can be used where nobody follows revocations.
pub const CREDENTIAL_TTL_MS: u64 = 3600 * 1000;
/// How far clocks may differ, milliseconds: between a writer and the ledger's time, and between mayfly and verifiers.
pub const CLOCK_SKEW_MS: u64 = 30 * 1000;
/// How long a follower may go without a fresh head before it refuses everything, milliseconds. Three missed views (`VIEW_MAX_AGE_MS`).
pub const FEED_MAX_AGE_MS: u64 = 30 * 1000;
/// Most commit chains whose end a heartbeat carries: one per replica that ever wrote. An embedded store has one writer, and a deployment of
/// several replicas has fewer than ten.
pub const CHAIN_HEADS: usize = 64;
/// Longest mayfly token that a verifier parses, bytes: the largest details, with every name on every path at its maximum length.
pub const TOKEN_BYTES: usize = 128 * 1024;
/// Largest file of certificates or of a key, bytes: the longest chain in PEM, which is a third larger, with text in between.
pub const PEM_FILE_BYTES: usize = 2 * CHAIN_CERTIFICATES * CERTIFICATE_BYTES;
/// Oldest view that may be decided on, milliseconds. Far above a slow flush (p99 0.5 ms, measured), far below any useful TTL.
pub const VIEW_MAX_AGE_MS: u64 = 10 * 1000;
/// Longest lifetime of a task, milliseconds. A day: longer work must be opened again by somebody who still wants it.
pub const TASK_TTL_MS: u64 = 24 * 3600 * 1000;
/// Most tokens whose verified signature one verifier remembers. Each entry holds the claims, usually 2 KiB: 32 MiB when full.
pub const VERIFIED: usize = 16_384;
