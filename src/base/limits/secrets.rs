//! Limits of static secrets.

/// Largest static secret, bytes. A PEM private key of RSA-8192 has 6.4 KB, a kubeconfig with certificates 6 KB; with the seal and what is kept
/// beside it, it stays below the 64 KiB of a named value.
pub const STATIC_SECRET_BYTES: usize = 32 * 1024;
/// Versions of one secret that are not over: the one in use, one that a rotation made, and some that the vendor has not revoked yet.
pub const SECRET_LIVE_VERSIONS: usize = 8;
/// Versions of one secret that are over and still listed. The audit has all of them.
pub const SECRET_ENDED_VERSIONS: usize = 8;

/// How long a version that was rotated away stays valid, where the registration does not say, milliseconds. As the longest ttl that most
/// registrations have.
pub const SECRET_OVERLAP_MS: u64 = 3_600_000;
/// Longest overlap, milliseconds: a month, for holders that read their secret once at a deployment.
pub const SECRET_OVERLAP_MOST_MS: u64 = 31 * 86_400_000;
/// Shortest interval of rotations, milliseconds. Vendors limit how often keys are made; an hour is below what any of them suggests.
pub const SECRET_ROTATION_LEAST_MS: u64 = 3_600_000;
/// Longest interval of rotations, milliseconds: two years.
pub const SECRET_ROTATION_MOST_MS: u64 = 731 * 86_400_000;
/// How late an ended credential is noticed before mayfly assumes that the server was down, milliseconds. A running server notices within
/// seconds.
pub const SECRET_LATE_MS: u64 = 300_000;

/// How long an assertion for the login at a secret's source is valid, milliseconds. One call and some skew of clocks; AWS and OpenBao accept
/// any time in the future.
pub const SECRET_SOURCE_ASSERTION_MS: u64 = 120_000;
/// Largest answer of a secret's source, bytes: a secret of `STATIC_SECRET_BYTES` with every byte escaped in JSON as six, and the fields beside
/// it. AWS Secrets Manager has values of at most 65,536 bytes, OpenBao entries of at most 512 KiB.
pub const SECRET_SOURCE_ANSWER_BYTES: usize = 512 * 1024;

/// Largest answer of a rotation hook, bytes: a secret of `STATIC_SECRET_BYTES` with every byte escaped in JSON as two, and an id.
pub const HOOK_ANSWER_BYTES: usize = 80 * 1024;
/// Time limit of one call of a rotation hook, where the configuration does not say, milliseconds. Some calls of a vendor's API.
pub const HOOK_TIMEOUT_MS: u64 = 30_000;
/// Longest time limit of one call of a rotation hook, milliseconds: ten minutes, for vendors whose keys take time to become valid.
pub const HOOK_TIMEOUT_MOST_MS: u64 = 600_000;
/// Arguments of a rotation hook's command, with the program. Far more than a program with a few options has.
pub const HOOK_ARGUMENTS: usize = 32;
/// Rotation hooks in a configuration. More static secrets than one server should have.
pub const ROTATION_HOOKS: usize = 256;
/// Steps of rotations that run at once: each may be a process.
pub const SECRET_ROTATIONS: usize = 4;
/// The first pause after a failed step of a rotation, milliseconds: longer than the hiccup of a network.
pub const SECRET_RETRY_MIN_MS: u64 = 2_000;
/// The longest pause between two attempts of a step, milliseconds: vendors limit how often keys are made.
pub const SECRET_RETRY_MAX_MS: u64 = 15 * 60_000;
