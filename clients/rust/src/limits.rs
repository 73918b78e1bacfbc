//! Limits of the client: how much it stores and how long it waits.

use std::time::Duration;

/// Longest duration of one call, excluding the wait for an approval. Twice the time that the server gives an upstream for making a
/// credential.
pub const CALL: Duration = Duration::from_secs(40);
/// Longest duration of all attempts of an exchange, excluding the wait for an approval: three calls of maximum duration.
pub const ATTEMPTS: Duration = Duration::from_secs(120);
/// Shortest pause between attempts. Longer than a slow flush of the server (0.5 ms at p99), too short for anybody to notice.
pub const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest pause between attempts: a server that restarts is available within seconds (start takes at most 3 s).
pub const RETRY_MAX: Duration = Duration::from_secs(2);
/// Most attempts of one exchange. With pauses that double from `RETRY_MIN` to `RETRY_MAX`, about 20 s.
pub const TRIES: usize = 16;
/// Longest duration of opening a connection: TCP, TLS and HTTP/2 on a busy host.
pub const CONNECT: Duration = Duration::from_secs(10);
/// Longest time for one of several addresses of the server, except the last: three round trips across the world (TCP, TLS, the first frame)
/// at 300 ms each, and a busy server. Three silent addresses leave 4 s of `CONNECT` for the last one.
pub const ADDRESS: Duration = Duration::from_secs(2);
/// Most addresses of the server that are tried: further ones would have no time left within `CONNECT`.
pub const ADDRESSES: usize = 4;
/// How often the files of an SVID are read. SPIRE's agents renew at half of an hour's life; a removed root takes effect within this time.
pub const POLL: Duration = Duration::from_secs(1);
/// Pause before files of an SVID are read again that did not match at first: two files are replaced within milliseconds.
pub const HALF: Duration = Duration::from_millis(100);
/// How often they are read again in that case. Half a second in total, which a wrong path also costs.
pub const HALVES: usize = 5;
/// Largest file that the client reads, bytes: the server's bound on a bundle document.
pub const FILE_BYTES: usize = mayfly_verify::limits::BUNDLE_BYTES;
/// Most credentials that are kept for sharing, at about a kilobyte each. Further calls get credentials of their own.
pub const SHARED: usize = 4096;
/// How long a shared credential is kept after its last holder left: an agent's tool calls are seconds apart. The same in the clients of all
/// languages.
pub const IDLE: Duration = Duration::from_secs(5);
/// Most credentials of one call: as many as `mayfly get` and `mayfly exec` ask for at once. The same in the clients of all languages.
pub const AT_ONCE: usize = 8;
/// Most use reports in the queue: ten times the server's bound for one report. Further uses are counted as lost.
pub const USES_WAITING: usize = 10_000;
/// Most uses in one report: the server's bound (`USES`).
pub const REPORT_USES: usize = 1_000;
/// Longest duration of one report: nobody waits for it except closing.
pub const REPORT: Duration = Duration::from_secs(5);
/// Longest pause between reports to a server that does not accept them: the uses of half a minute aggregate into few entries.
pub const USES_PAUSE: Duration = Duration::from_secs(30);
/// How long uses are collected before they are sent, so that `mayfly audit` is a second behind.
pub const USES_EVERY: Duration = Duration::from_secs(1);
/// Most exchanges queued for the stream: as many as the server accepts on one stream (1,024).
pub const LANE: usize = 1_024;
/// Longest time that closing waits for releases and reports: as long as the server's own shutdown (10 s).
pub const CLOSE: Duration = Duration::from_secs(10);
/// Shortest pause before following the feed again after an error: below a hundredth of the time that makes it stale (30 s).
pub const FOLLOW_AGAIN: Duration = Duration::from_millis(200);
/// Longest pause before following the feed again. The pause doubles up to this value while no message arrives, and is jittered so that
/// followers do not reconnect together.
pub const FOLLOW_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Longest silence of the feed. Heartbeats arrive every few seconds; after this time the feed is stale in any case, and the connection
/// counts as dead.
pub const SILENCE: Duration = Duration::from_millis(mayfly_verify::limits::FEED_MAX_AGE_MS);
/// Longest time for an answer to a call besides the feed: acknowledgements take milliseconds, and the feed is stale after 30 s.
pub const FOLLOW_CALL: Duration = Duration::from_secs(5);
/// Largest message of the SPIFFE Workload API, bytes: gRPC's default limit, which agents respect. A thousand federated bundles are 1 MB.
pub const WORKLOAD_API_BYTES: usize = 4 * 1024 * 1024;
