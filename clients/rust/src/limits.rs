//! Bounds of the client: how much it keeps and how long it waits.

use std::time::Duration;

/// Longest time that one call may take, beside what it waits for an approval. Twice what the server gives an upstream to make something.
pub const CALL: Duration = Duration::from_secs(40);
/// Longest time for all attempts of an exchange, beside waiting for an approval: three calls that each take all their time.
pub const ATTEMPTS: Duration = Duration::from_secs(120);
/// Shortest pause between attempts. Above a slow flush of the server (0.5 ms at p99), below what anybody notices.
pub const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest pause between attempts: a server that restarts is back within seconds (start takes at most 3 s).
pub const RETRY_MAX: Duration = Duration::from_secs(2);
/// Most attempts of one exchange. With pauses that double from `RETRY_MIN` to `RETRY_MAX`, about 20 s.
pub const TRIES: usize = 16;
/// Longest time that making a connection may take: TCP, TLS and HTTP/2 on a busy host.
pub const CONNECT: Duration = Duration::from_secs(10);
/// Longest time for one of several addresses of the server, unless it is the last: three round trips across the world (TCP, TLS, the first
/// frame) at 300 ms each, and a busy server. Three that are silent leave the last one 4 s of `CONNECT`.
pub const ADDRESS: Duration = Duration::from_secs(2);
/// Addresses of the server that are tried: those beyond would have no time left within `CONNECT`.
pub const ADDRESSES: usize = 4;
/// How often files of an SVID are read again. SPIRE's agents renew at half of an hour's life; a bundle that lost a root shows at once.
pub const POLL: Duration = Duration::from_secs(1);
/// Pause before the files of an SVID are read again that did not fit together at first: two files are replaced within milliseconds.
pub const HALF: Duration = Duration::from_millis(100);
/// How often they are read again then. Half a second, which a wrong path costs too.
pub const HALVES: usize = 5;
/// Largest file of the client, bytes: a bundle document of the server's bound.
pub const FILE_BYTES: usize = mayfly_verify::limits::BUNDLE_BYTES;
/// Most credentials that are kept for sharing. Beyond that each call has its own; a kilobyte each.
pub const SHARED: usize = 4096;
/// How long a shared credential stays for the next call after its last holder left: an agent's tool calls come seconds apart. The same in
/// every language.
pub const IDLE: Duration = Duration::from_secs(5);
/// Most use reports that wait to be sent: a server's bound for one report, ten times. What is more is counted and not sent.
pub const USES_WAITING: usize = 10_000;
/// Most uses in one report: the server's bound (`USES`).
pub const REPORT_USES: usize = 1_000;
/// Longest time that one report may take: nobody waits for it, but closing does.
pub const REPORT: Duration = Duration::from_secs(5);
/// Longest pause between reports to a server that does not take them: half a minute of uses fold into few.
pub const USES_PAUSE: Duration = Duration::from_secs(30);
/// How long use reports are gathered: what `mayfly audit` shows is a second old.
pub const USES_EVERY: Duration = Duration::from_secs(1);
/// Exchanges that wait for a place on the stream: as many as the server takes on one (1,024).
pub const LANE: usize = 1_024;
/// Longest time that closing waits for what is to be given back and reported: as long as the server's own end (10 s).
pub const CLOSE: Duration = Duration::from_secs(10);
/// Shortest pause before following the feed again after it broke: below a hundredth of what makes it stale (30 s).
pub const FOLLOW_AGAIN: Duration = Duration::from_millis(200);
/// Longest pause before that. It doubles up to here for as long as nothing comes, and is never the same for two followers.
pub const FOLLOW_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Longest silence of the feed. Its heartbeats come every few seconds, and after this it is stale anyway: the connection is dead.
pub const SILENCE: Duration = Duration::from_millis(mayfly_verify::limits::FEED_MAX_AGE_MS);
/// Longest time for one answer beside the feed: an acknowledgement is answered within milliseconds, and the feed is stale after 30 s.
pub const FOLLOW_CALL: Duration = Duration::from_secs(5);
/// Largest message of the SPIFFE Workload API, bytes: gRPC's own bound, which agents keep to. A thousand federated bundles are 1 MB.
pub const WORKLOAD_API_BYTES: usize = 4 * 1024 * 1024;
