//! Limits of memory that peers can make the listeners hold: connections, unfinished requests, unread answers. Also limits of metrics and of
//! records of audit reads.

use super::{CONNECTION_STREAMS, KEEP_ALIVE_MS, REQUEST_BYTES};

/// Share of a listener's unfinished handshakes that one source address may hold, as a divisor: half. Beyond that share, a new handshake of
/// the address replaces one of its own. Clients behind one NAT reconnect at 256 at a time, and the other half stays open to all other
/// addresses.
pub const HANDSHAKES_SOURCE_SHARE: usize = 2;
/// Time after which a peer that has sent nothing may lose its place among the handshakes, milliseconds. A client sends as soon as it is
/// connected: its first bytes come with the packet that opens the connection, or right behind it.
pub const HANDSHAKE_SILENT_MS: u64 = 50;
/// Time that a peer has for the rest of the handshake after its first bytes, before it may lose its place, milliseconds: one round trip
/// around the world and a client that is busy.
pub const HANDSHAKE_ANSWER_MS: u64 = 1_000;
/// Pause before an accept loop looks again for a silent handshake that can give way, milliseconds. A hundredth of `HANDSHAKE_MS`.
pub const HANDSHAKE_LOOK_MS: u64 = 50;
/// Connections of one listener that were asked to close, to make room, and have not closed yet. A quarter of the admin listener's
/// connections; beyond the limit a connection is dropped without notice.
pub const CONNECTIONS_LEAVING: usize = 64;
/// Interval of the sweeps over a listener's connections, milliseconds. An answer that two sweeps in a row find unread ends its connection,
/// so an answer has to be read within 10 to 20 s: as long as a ping may go unanswered (`KEEP_ALIVE_MS`).
pub const SWEEP_MS: u64 = KEEP_ALIVE_MS / 2;

/// Memory of one unread answer in addition to its bytes, bytes: its stream, its headers and its task (measured: 10 KB of a `GetJwks` with 1
/// KB of keys).
pub const UNREAD_ANSWER_BYTES: usize = 8 * 1024;
/// Unread answers of all callers of one mTLS listener, bytes. An eighth of a small server's memory, as `UNFINISHED_BYTES`.
pub const UNREAD_BYTES: usize = 512 * 1024 * 1024;
/// Unread answers of one caller, bytes. An eighth of `UNREAD_BYTES`: 7,000 answers, or 64 pages of `PAGE_BYTES`.
pub const UNREAD_BYTES_PER_CALLER: usize = UNREAD_BYTES / 8;
/// Largest answer that is given to a caller beyond its share, bytes: such an answer has the result of a change that was made already.
pub const UNREAD_SMALL_BYTES: usize = 16 * 1024;
/// Pause before a stream checks again whether its caller has room for the next message, milliseconds. A twentieth of a second is nothing to
/// a follower, whose feed may be 10 s old.
pub const UNREAD_LOOK_MS: u64 = 50;
/// Unread answers of the public listener, bytes: 64 MiB are 8,000 answers of 300 bytes.
pub const PUBLIC_UNREAD_BYTES: usize = 64 * 1024 * 1024;
/// Unread answers of one source address at the public listener, bytes: a quarter of `PUBLIC_UNREAD_BYTES`, since proxies hide many clients.
pub const PUBLIC_UNREAD_BYTES_PER_ADDRESS: usize = PUBLIC_UNREAD_BYTES / 4;

/// Memory of an unfinished request in addition to the bytes of its message, bytes: its stream, headers and task (measured: 3 to 5 KB).
pub const UNFINISHED_REQUEST_BYTES: usize = 4 * 1024;
/// Unfinished requests of one caller, bytes. An eighth of `UNFINISHED_BYTES`: four connections' share, or 16,000 idle streams.
pub const UNFINISHED_BYTES_PER_CALLER: usize = super::UNFINISHED_BYTES / 8;
/// Longest time from a request's headers to the end of its message, milliseconds. 2 MiB (`REQUEST_BYTES`) need 210 KB/s: a phone's rate. On
/// a stream the limit holds for each message, counted from its first byte.
pub const REQUEST_MS: u64 = 10_000;
/// Calls in progress of one caller, except single exchanges: watches, calls that wait for an approval, lists. As many as eight full
/// connections have (`CONNECTION_STREAMS`).
pub const CALLS_PER_CALLER: usize = 8 * CONNECTION_STREAMS as usize;

/// Longest time from a public request's headers to the end of its body, milliseconds: 24 KiB (`LOGIN_BODY_BYTES`) at 2.4 KB/s, the lowest
/// supported rate.
pub const PUBLIC_BODY_MS: u64 = 10_000;
/// Unfinished bodies of the public listener, bytes: 340 of the largest.
pub const PUBLIC_UNFINISHED_BYTES: usize = 8 * 1024 * 1024;
/// Unfinished bodies of one source address at the public listener, bytes: 42 of the largest.
pub const PUBLIC_UNFINISHED_BYTES_PER_ADDRESS: usize = 1024 * 1024;
/// Concurrent streams on one connection of the public listener. RFC 9113, section 6.5.2 advises no fewer than 100.
pub const PUBLIC_STREAMS: u32 = 100;

/// Bytes of rows in one page of a list. A quarter of the 4 MiB that gRPC clients read; a single larger row is a page of its own.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Long calls (lists, searches, counts) in progress of one caller; further long calls wait. Twice the threads that serve them.
pub const LONG_CALLS_PER_CALLER: usize = 4;
/// Long calls in progress of all callers of one listener: eight callers at `LONG_CALLS_PER_CALLER`, each call with a page of `PAGE_BYTES`
/// in preparation: 32 MiB.
pub const LONG_CALLS: usize = 8 * LONG_CALLS_PER_CALLER;

/// Log lines per minute for handshakes that one clause refused at one listener. Enough to identify the peers; a flood of all clauses at all
/// listeners causes at most 16 lines a second.
pub const HANDSHAKE_LOG_LINES: u32 = 5;
/// Upstreams that have their own label in the metrics; all others are counted together. Each upstream has 8 outcomes: 1,600 series in all,
/// a sixth of the 10,000 that a medium-sized Prometheus has room for per target.
pub const METRIC_UPSTREAMS: usize = 200;
/// Largest configuration file of a server, bytes: the reference with every key and its explanation has 40 KB. A larger file is taken for
/// something else.
pub const CONFIG_FILE_BYTES: usize = 1024 * 1024;
/// Largest configuration file of the command line, bytes: it has a dozen keys.
pub const CONTEXT_FILE_BYTES: usize = 64 * 1024;
/// Largest file with the process id of a dev server, bytes: a process id of Linux has at most 7 digits (PID_MAX_LIMIT is 2^22, proc(5)),
/// and a line break, with room.
pub const PID_FILE_BYTES: usize = 32;
/// Names of a directory among which a writer looks for temporary files that killed writers of the same path left. A directory of exports or
/// backups has some hundred names; in one with more than 10,000, such as a shared `/tmp`, a temporary file may stay.
pub const PARTIAL_NAMES: usize = 10_000;
/// Largest file of a bearer token, bytes: a token of 512 characters and a line break, with room. A larger file is taken for something else.
pub const TOKEN_FILE_BYTES: usize = 1_024;
/// Shortest bearer token, characters: 16 characters of base64 are 96 bits, which cannot be guessed over a network.
pub const TOKEN_MIN_BYTES: usize = 16;
/// Connections of the metrics listener: two scrapers with a connection each, and people who query by hand. At the limit, the oldest
/// connection is closed.
pub const METRICS_CONNECTIONS: usize = 16;

// The largest request fits into the share of its caller.
const _: () = assert!(REQUEST_BYTES <= UNFINISHED_BYTES_PER_CALLER);
/// Different audit questions of one operator and one kind that have a record each in a minute. A person types fewer; further questions of a
/// script are only counted.
pub const AUDIT_READS_RECORDED: usize = 10;
/// Audit readers that are counted at the same time, each with a kind of read. Operators are few: 40 of them with 6 kinds each.
pub const AUDIT_READERS: usize = 240;
/// Longest recorded text of an audit question, bytes. Room for a filter with all its fields, and for the largest name.
pub const AUDIT_ASKED_BYTES: usize = 512;
/// Longest wait of an audit read's answer for the record of the read, milliseconds: half of the time that an operator's question may take
/// in an incident (`HISTORY_QUESTION_WAIT_MS`).
pub const AUDIT_READ_MS: u64 = 500;

/// Bytes of the message of a status, or of the problem of one item of a batch. gRPC sends a status message twice: with three bytes for each
/// byte that is not ASCII (grpc-message), and in base64 in the details, where invalid fields repeat it. Both fit into the 16 KiB of headers
/// that an HTTP/2 client accepts by default (h2).
pub const STATUS_MESSAGE_BYTES: usize = 1_500;

/// Bytes of all invalid fields of a status, with what is wrong with them: some twenty, which base64 makes a third longer.
pub const STATUS_FIELDS_BYTES: usize = 4_000;

/// Bytes of each other text in a status: the rule, the way out, the name of a field. As [`STATUS_MESSAGE_BYTES`].
pub const STATUS_PART_BYTES: usize = 400;
