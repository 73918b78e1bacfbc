//! Bounds of what peers can make the listeners hold: connections, unfinished requests, answers that they do not read.

use super::{CONNECTION_STREAMS, KEEP_ALIVE_MS, REQUEST_BYTES};

/// Part of a listener's unfinished handshakes that one source address may have without giving way to itself, as a divisor: half. Clients
/// behind one NAT come back at 256 at a time, and the other half stays open to all other addresses.
pub const HANDSHAKES_SOURCE_SHARE: usize = 2;
/// How long a peer may say nothing before its place among the handshakes is another's, milliseconds. A client speaks as soon as it is connected:
/// its first bytes come with the packet that opens the connection, or right behind it.
pub const HANDSHAKE_SILENT_MS: u64 = 50;
/// How long a peer that said something has for the rest before its place may be another's, milliseconds: one round trip around the world and
/// a client that is busy.
pub const HANDSHAKE_ANSWER_MS: u64 = 1_000;
/// Pause before an accept loop looks once more for a silent handshake that can give way, milliseconds. A hundredth of `HANDSHAKE_MS`.
pub const HANDSHAKE_LOOK_MS: u64 = 50;
/// Connections of one listener that were told to make room and have not closed yet, connections. The admin listener's quarter; beyond
/// it a connection is dropped without notice.
pub const CONNECTIONS_LEAVING: usize = 64;
/// Time between two sweeps over a listener's connections, milliseconds. An answer that two sweeps in a row find unread ends its connection,
/// so it is read within 10 to 20 s: as long as a ping may go unanswered (`KEEP_ALIVE_MS`).
pub const SWEEP_MS: u64 = KEEP_ALIVE_MS / 2;

/// What one answer that is not read yet costs beside its bytes, bytes: its stream, its headers and its task (measured: 10 KB of a `GetJwks`
/// with 1 KB of keys).
pub const UNREAD_ANSWER_BYTES: usize = 8 * 1024;
/// Unread answers of all callers of one mTLS listener, bytes. An eighth of a small server's memory, as `UNFINISHED_BYTES`.
pub const UNREAD_BYTES: usize = 512 * 1024 * 1024;
/// Unread answers of one caller, bytes. An eighth of `UNREAD_BYTES`: 7,000 answers, or 64 pages of `PAGE_BYTES`.
pub const UNREAD_BYTES_PER_CALLER: usize = UNREAD_BYTES / 8;
/// Largest answer that is given to a caller beyond its share, bytes: it says what became of a change that was made already.
pub const UNREAD_SMALL_BYTES: usize = 16 * 1024;
/// Pause before a stream looks once more whether its caller has room for its next message, milliseconds. A twentieth of a second is nothing to
/// a follower, whose feed may be 10 s old.
pub const UNREAD_LOOK_MS: u64 = 50;
/// Unread answers of the public listener, bytes: 64 MiB are 8,000 answers of 300 bytes.
pub const PUBLIC_UNREAD_BYTES: usize = 64 * 1024 * 1024;
/// Unread answers of one source address at the public listener, bytes: a quarter of `PUBLIC_UNREAD_BYTES`, since proxies hide many clients.
pub const PUBLIC_UNREAD_BYTES_PER_ADDRESS: usize = PUBLIC_UNREAD_BYTES / 4;

/// What a request costs that is not whole yet, beside the bytes of its message, bytes: its stream, headers and task (measured: 3 to 5 KB).
pub const UNFINISHED_REQUEST_BYTES: usize = 4 * 1024;
/// Unfinished requests of one caller, bytes. An eighth of `UNFINISHED_BYTES`: four connections' share, or 16,000 idle streams.
pub const UNFINISHED_BYTES_PER_CALLER: usize = super::UNFINISHED_BYTES / 8;
/// Longest time from a request's headers to the end of its message, milliseconds. 2 MiB (`REQUEST_BYTES`) need 210 KB/s: a phone's rate.
/// On a stream it counts for each message from its first byte.
pub const REQUEST_MS: u64 = 10_000;
/// Calls that are under way of one caller and are no single exchange: watches, calls that wait for an approval, lists. Eight connections
/// full of them (`CONNECTION_STREAMS`).
pub const CALLS_PER_CALLER: usize = 8 * CONNECTION_STREAMS as usize;

/// Longest time from a public request's headers to the end of its body, milliseconds: 24 KiB (`LOGIN_BODY_BYTES`) at 2.4 KB/s, the least rate
/// that is served.
pub const PUBLIC_BODY_MS: u64 = 10_000;
/// Unfinished bodies of the public listener, bytes: 340 of the largest.
pub const PUBLIC_UNFINISHED_BYTES: usize = 8 * 1024 * 1024;
/// Unfinished bodies of one source address at the public listener, bytes: 42 of the largest.
pub const PUBLIC_UNFINISHED_BYTES_PER_ADDRESS: usize = 1024 * 1024;
/// Concurrent streams on one connection of the public listener. RFC 9113, section 6.5.2 advises no fewer than 100.
pub const PUBLIC_STREAMS: u32 = 100;

/// Bytes of rows in one page of a list. A quarter of the 4 MiB that gRPC clients read; a single larger row is a page of its own.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Long calls (lists, searches, counts) that are under way of one caller; more of them wait. Twice the threads that serve them.
pub const LONG_CALLS_PER_CALLER: usize = 4;
/// Long calls that are under way of all callers of one listener: eight callers at `LONG_CALLS_PER_CALLER`, each with a page of
/// `PAGE_BYTES` in the making: 32 MiB.
pub const LONG_CALLS: usize = 8 * LONG_CALLS_PER_CALLER;

/// Log lines of one clause at one listener in a minute for refused handshakes. Enough to see who it is; a flood of all clauses at all listeners is
/// then 16 lines a second at the most.
pub const HANDSHAKE_LOG_LINES: u32 = 5;
/// Upstreams with a label of their own in the metrics; the others are counted together. Each has 8 outcomes: 1,600 series, a sixth of what one
/// target of a Prometheus of medium size has room for (10,000).
pub const METRIC_UPSTREAMS: usize = 200;
/// Largest file of a bearer token: a token of 512 characters and a line break, with room. Larger is another file.
pub const TOKEN_FILE_BYTES: usize = 1_024;
/// Shortest bearer token, characters: 16 of base64 are 96 bits, which nobody guesses over a network.
pub const TOKEN_MIN_BYTES: usize = 16;
/// Connections of the metrics listener. Two scrapers with a connection each, and whoever looks by hand; the oldest goes first.
pub const METRICS_CONNECTIONS: usize = 16;

// The largest request fits into its caller's share.
const _: () = assert!(REQUEST_BYTES <= UNFINISHED_BYTES_PER_CALLER);
/// Different questions to the audit of one operator and one sort that have a record each in a minute. A person types fewer; a script is counted.
pub const AUDIT_READS_RECORDED: usize = 10;
/// Readers of the audit that are counted at once, each with a sort. Operators are few: 40 of them with 6 sorts each.
pub const AUDIT_READERS: usize = 240;
/// What is recorded of a question to the audit, bytes. A filter with all its fields; as much of a name as the largest of them has.
pub const AUDIT_ASKED_BYTES: usize = 512;
/// How long the answer of a read waits for its record, milliseconds: half of what an operator's question may take in an incident (`HISTORY_QUESTION_WAIT_MS`).
pub const AUDIT_READ_MS: u64 = 500;
