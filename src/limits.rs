//! Every bound of the product: a name, a number, a unit, and where the number comes from.
//!
//! What an operator may want to change stands in the configuration (`sources::config`), with these as defaults and ceilings. Those of the ledger
//! and its store stand in `limits/store.rs`, those of other issuers' tokens in `limits/oidc.rs`, those of what is done with what was granted
//! in `limits/uses.rs`, those of the agent that gives SVIDs in `limits/workload_api.rs`, those of what peers can make the listeners hold
//! in `limits/serving.rs`, those of traces in `limits/trace.rs`, those of log lines in `limits/log.rs`.

mod glass;
mod leases;
mod log;
mod oidc;
mod people;
mod serving;
mod store;
mod trace;
mod uses;
mod webhook;
mod workload_api;

pub use glass::*;
pub use leases::*;
pub use log::*;
pub use oidc::*;
pub use people::*;
pub use serving::*;
pub use store::*;
pub use trace::*;
pub use uses::*;
pub use webhook::*;
pub use workload_api::*;

pub use mayfly_verify::limits::*;

/// Longest life an accepted SVID may still have, milliseconds. SPIRE's default is 1 h; some run 24 h.
pub const SVID_MAX_TTL_MS: u64 = 24 * 3600 * 1000;
/// Longest JWT-SVID that is read, bytes. It travels in a header, whose list has as many at most (`HEADER_BYTES`); SPIRE's are under 1 KiB.
pub const JWT_SVID_BYTES: usize = HEADER_BYTES as usize;
/// Most values of `aud` in a JWT-SVID. One is recommended (JWT-SVID, section 3.2); each more is another who can replay it.
pub const JWT_SVID_AUDIENCES: usize = 16;

/// Most scopes of one grant. A scope rule is matched against each (design, section 2).
pub const SCOPES: usize = 8;
/// Longest scope, upstream, tool, environment, binding or role name, bytes. Long enough for a resource URI.
pub const NAME_BYTES: usize = 256;
/// Longest purpose or reason, bytes. A few sentences; it stands in every record that it caused.
pub const PURPOSE_BYTES: usize = 512;
/// Largest arguments of a tool call, bytes of JSON. Fixed by the contract of `Exchange` (token_service.proto).
pub const ARGUMENTS_BYTES: usize = 16 * 1024;
/// Deepest nesting of arguments: each level costs stack in RFC 8785's canonical form.
pub const ARGUMENTS_DEPTH: usize = 64;
/// Most targets of one revocation (design, section 2).
pub const TARGETS: usize = 64;
/// Longest request id, bytes. Three UUIDs in text; only its digest is remembered.
pub const REQUEST_ID_BYTES: usize = 128;
/// Most exchanges in one batch (contract of `BatchExchange`). With `GATHER_RECORDS` two of them fit one commit.
pub const BATCH: usize = 100;
/// Most exchanges under way on one stream. Four full commits (`GATHER_RECORDS`).
pub const STREAM_IN_FLIGHT: usize = 1024;
/// Most upstreams, callers, scopes or tools that a task names, each. 256 bytes each: 64 KB in one record, below `RECORD_BYTES`.
pub const TASK_LIST: usize = 64;

/// Shortest TTL that a caller may ask for and a registration may give by default, milliseconds: `exp` is a whole second and never after the
/// end, so up to a second of it is lost, and `CREDENTIAL_LIFE_LEFT_MS` has to be left.
pub const CREDENTIAL_TTL_MIN_MS: u64 = 2000;
/// Shortest life that a credential is issued with, milliseconds. Below this, clock skew eats it.
pub const CREDENTIAL_LIFE_LEFT_MS: u64 = 1000;
/// Life of a task when nobody asks for another, milliseconds. As long as the longest credential (`CREDENTIAL_TTL_MS`).
pub const TASK_TTL_DEFAULT_MS: u64 = 3600 * 1000;
/// Shortest heartbeat interval, milliseconds. Heartbeats are coalesced into one record a second.
pub const HEARTBEAT_MIN_MS: u64 = 5_000;
/// Longest heartbeat interval, milliseconds. As `TASK_TTL_DEFAULT_MS`: beyond, the deadline does the same.
pub const HEARTBEAT_MAX_MS: u64 = 3600 * 1000;
/// How long a request id is remembered at least, milliseconds (design, section 7).
pub const REQUEST_ID_KEPT_MS: u64 = 600 * 1000;

/// Most live tasks in all. At 1 KB each (design, section 10), 1 GB.
pub const TASKS: usize = 1_000_000;
/// Most tasks that one caller opened and that are not over. A hundred callers at it fill `TASKS`.
pub const TASKS_PER_CALLER: usize = 10_000;
/// Bytes of a task's terms that no bound counts: design, section 10. `TASKS` bounds how often they are there.
pub const TASK_BYTES_FREE: u64 = 1024;
/// Bytes of the terms of all tasks in memory, above `TASK_BYTES_FREE` of each: as much as all of `TASKS` have within it.
pub const TASK_BYTES: u64 = 1024 * 1024 * 1024;
/// The same of the tasks that one caller opened: an eighth. 3,000 tasks with 64 callers and 64 tools of 256 bytes; usual tasks count nothing.
pub const TASK_BYTES_PER_CALLER: u64 = TASK_BYTES / 8;
/// Most credentials in memory in all: those that have not ended. At 128 bytes each (design, section 10), 1.3 GB.
pub const CREDENTIALS: usize = 10_000_000;
/// The same of one caller. One gateway at 500 a second with the longest TTL; five of them fill `CREDENTIALS`.
pub const CREDENTIALS_PER_CALLER: usize = 2_000_000;
/// Most request ids remembered in all. 50,000 a second for ever (`REQUEST_ID_KEPT_MS`); at 37 bytes each, 1.1 GB.
pub const REQUEST_IDS: usize = 30_000_000;
/// Most request ids remembered for one caller. A caller at its bound is refused, never forgotten. Three of them fill `REQUEST_IDS`.
pub const REQUEST_IDS_PER_CALLER: usize = 10_000_000;
/// Most revocation rules that one caller's own acts (closing tasks, giving back) may hold in force. Each lasts as long as what it ends would
/// have: a gateway that gives 500 credentials of ten minutes a second back is below it. As of `CREDENTIALS`, five callers fill `RULES`.
pub const RULES_PER_CALLER: usize = 400_000;
/// Tasks that one caller opens by themselves, hands on or extends, a second. Ten seconds of it fill `TASKS_PER_CALLER`.
pub const CHANGES_PER_SECOND: u32 = 1_000;
/// Holds and resumptions of one caller, a second. Each reaches every follower: three callers at it are the 64 events that `FEED_LAG` is for.
pub const HOLDS_PER_SECOND: u32 = 20;
/// Signs of life of one caller, a second: `TASKS_PER_CALLER` tasks with `HEARTBEAT_MIN_MS`, each three times an interval.
pub const HEARTBEATS_PER_SECOND: u32 = 6_000;
/// Seconds' worth of a caller's rate that may come at once. Work that begins, or is given up, in one go: all tasks of `TASKS_PER_CALLER`.
pub const RATE_BURST_S: u32 = 10;
/// Callers whose rate of one act is kept apart; beyond, together. Three times `CONNECTIONS`; at 50 bytes each, 3 MB for each act.
pub const CALLERS_RATED: usize = 65_536;
/// Time between two sweeps of those rates where there is no room for another, milliseconds: 65,536 entries take under a millisecond.
pub const RATES_SWEEP_MS: u64 = 1_000;
/// Most revocation rules in all before callers' own acts that make one are refused, and operators are warned. At about 200 bytes each, 400 MB.
pub const RULES: usize = 2_000_000;
/// Most registered followers. Each costs a stream and a queue of `FEED_LAG` small events at the worst.
pub const FOLLOWERS: usize = 10_000;
/// Most of one caller. A service of 1,250 instances fits, and eight callers at it fill `FOLLOWERS`; one that vanished counts until it leaves the
/// list (`feed.max_age`).
pub const FOLLOWERS_PER_CALLER: usize = FOLLOWERS / 8;
/// Rule and hold events kept in memory for followers that come back: about 20 MB. Older ones begin with a snapshot.
pub const FEED_EVENTS: usize = 65_536;
/// Events a follower may lag before its stream ends with an error. A minute of 64 rules a second.
pub const FEED_LAG: usize = 4_096;
/// Farthest a decision revision may be behind its record, records: it is kept in 24 bits. A decision is at most `VIEW_MAX_AGE_MS` and
/// `CLOCK_SKEW_MS` old: 400,000 records a second, for so long.
pub const REVISION_BEHIND: u64 = (1 << 24) - 1;
/// Most distinct interned values (callers, tools, scopes …) of one sort.
pub const INTERNED: usize = 4_000_000;
/// Most signing keys that are not yet removed, per purpose. JWKS with 64 keys of 200 bytes are 13 KB; rotation monthly needs three.
pub const KEYS: usize = 64;
/// Most registered upstreams. Compiled policy and registry at 2 KB each are 20 MB.
pub const UPSTREAMS: usize = 10_000;
/// Largest policy set, bytes of Cedar text. About 1,000 policies: 20 ms to parse and 12 ms to validate (measured with 50).
pub const POLICY_BYTES: usize = 256 * 1024;
/// How far back decisions are decided once more where nobody says, milliseconds: an hour.
pub const POLICY_DIFF_MS: u64 = 3_600_000;
/// Most decisions that are decided once more at once, the newest: each with two sets, at 120 µs, so half a second of one core.
pub const POLICY_DIFF_DECISIONS: usize = 2_000;
/// Most tasks, registrations and policy sets of such decisions that are looked for in history, beyond those in memory and beside the decisions: at a
/// few milliseconds each. What more is missing leaves decisions undetermined.
pub const POLICY_DIFF_LOOKS: usize = 32;
/// Most of those that differ in an answer: more than anybody reads.
pub const POLICY_DIFF_SAMPLES: usize = 100;
/// Most differences between a policy set and the one beside it that are told apart in a minute: callers, upstreams and policies. 10,000 at 300
/// bytes are 3 MB.
pub const POLICY_DIFFERENCES: usize = 10_000;
/// Most bindings, those that were taken away among them: at 1 KB, 10 MB.
pub const BINDINGS: usize = 10_000;
/// Most names of each sort in an answer about what a revocation would hit: more than anybody reads.
pub const BLAST_NAMES: usize = 1_000;
/// The same where nobody says how many: what a terminal shows.
pub const BLAST_NAMES_DEFAULT: usize = 20;
/// Longest wait for reads under way before a store that failed is opened again, milliseconds: a read of 4 MiB takes tens.
pub const REOPEN_WAIT_MS: u64 = 2_000;
/// Most policy sets that are compiled and not yet in force: one changes at a time, and some were given up.
pub const POLICIES_PREPARED: usize = 4;
/// Most tests in a file of tests of a policy set: some for each of a thousand policies.
pub const POLICY_TESTS: usize = 10_000;
/// Largest file of such tests, bytes: about 300 for each.
pub const POLICY_TESTS_BYTES: usize = 4 * 1024 * 1024;
/// Largest file that registers an upstream, bytes: 64 servers of 2 KB are twice that, which nobody has.
pub const UPSTREAM_FILE_BYTES: usize = 64 * 1024;
/// Memory for remembered verdicts of policy, bytes. At about 400 each, 160,000 of them.
pub const VERDICT_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Longest key under which a verdict is remembered, bytes: a caller that names 64 tools of 256 bytes must not fill the cache.
pub const VERDICT_KEY_BYTES: usize = 4 * 1024;
/// What an entry of the verdict cache costs beside its key and policy ids, bytes: two allocations and moka's own entry.
pub const VERDICT_OVERHEAD: usize = 200;
/// Memory of a policy set for slices, bytes: the policies that can say something about some callers and a resource. Of 200 policies a slice
/// has 5, so this holds 1,300 slices: callers differ by their roles, and resources are few.
pub const SLICE_CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// What a policy costs in a slice, bytes, above the policy itself, which is shared: Cedar's three maps of ids and its handles.
pub const SLICE_POLICY_BYTES: usize = 1024;
/// Memory of a policy set for callers and resources as Cedar wants them, bytes: 5,000 pairs.
pub const SIDES_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// What such a pair costs beside its key, bytes: three entities, their attributes and parents.
pub const SIDES_BYTES: usize = 3 * 1024;

/// Files that a server has open beside its connections: listeners, the store, snapshots, threads' own. Twice what was seen (30).
pub const OTHER_FILES: u64 = 64;
/// Most threads that serve workloads. Four for each core of the largest machines that are rented today.
pub const WORKERS: usize = 1_024;
/// Connections open at once on the workload listener. At 64 KB each, 1.3 GB.
pub const CONNECTIONS: usize = 20_000;
/// Connections open at once on the admin listener. A team and its automation; a flood of workloads never reaches it.
pub const ADMIN_CONNECTIONS: usize = 256;
/// Connections open at once on the public listener. Each lives for `PUBLIC_CONNECTION_MS` at most and costs 64 KB: 260 MB.
pub const PUBLIC_CONNECTIONS: usize = 4_096;
/// Handshakes under way at once. 290 µs of a core each (measured): 512 are 150 ms of work.
pub const HANDSHAKES: usize = 512;
/// By how much threads for handshakes stand back (nice, sched(7)): where all cores issue, they get a tenth of one thread's share. 512 of them
/// then take 1.5 s, a third of `HANDSHAKE_MS`.
pub const HANDSHAKE_NICE: i32 = 10;
/// Connections that wait in the kernel until they are accepted. Linux takes as many by default (net.core.somaxconn); with the 128 that are
/// usual, peers beyond wait for a second and try again.
pub const BACKLOG: i32 = 4_096;
/// Longest handshake, milliseconds. Longer is a peer that stalls.
pub const HANDSHAKE_MS: u64 = 5_000;
/// Longest time for a connection's first HTTP/2 frames, and for a header block on HTTP/1, milliseconds. As `HANDSHAKE_MS`.
pub const HEADER_MS: u64 = 5_000;
/// Concurrent streams (calls) on one connection.
pub const CONNECTION_STREAMS: u32 = 1_024;
/// Largest request message, bytes: 100 exchanges with arguments of 16 KiB each.
pub const REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// Largest header list, bytes. The default of widely used servers is 8 to 16 KiB; gRPC sends under 1 KiB.
pub const HEADER_BYTES: u32 = 16 * 1024;
/// Longest time that open calls may take when the server stops, milliseconds. A third of the 30 s that Kubernetes waits before SIGKILL.
pub const SHUTDOWN_MS: u64 = 10_000;
/// Longest time from the signal until the process ends whatever stands still, milliseconds: twice `SHUTDOWN_MS`, below those 30 s.
pub const SHUTDOWN_LAST_MS: u64 = 20_000;
/// Rows in one page of a list. At 500 bytes each, half a MB: below gRPC clients' 4 MB.
pub const PAGE: usize = 1_000;
/// Longest wait that a caller may ask for, milliseconds. Twice `FEED_MAX_AGE_MS`: by then a follower has applied or is off the list.
pub const WAIT_MS: u64 = 60_000;
/// Rows in one page of a list when nobody asks for another number. Two screens.
pub const PAGE_DEFAULT: usize = 100;
/// Most approvals that wait or may be used, or ended lately. At 4 KB each, 40 MB; more than people decide in a day.
pub const APPROVALS: usize = 10_000;
/// Most approvals of one caller that wait or may be used. A caller in a loop must not fill the list that people look at.
pub const APPROVALS_PER_CALLER: usize = 64;
/// Largest terms of a task that somebody has to approve, bytes: nobody reads more. With all of `APPROVALS` so large, 80 MB.
pub const APPROVAL_TERMS_BYTES: usize = 8 * 1024;
/// Longest text of an operator's request in an approval, bytes: nobody reads more. With all of `APPROVALS` so large, 80 MB.
pub const CALL_TEXT_BYTES: usize = 8 * 1024;
/// Most changes that wait for another operator: each may be a policy set, so at most 16 MB.
pub const CHANGES_WAITING: usize = 64;
/// Longest wait of a call for an approval, milliseconds: a minute, as proxies give a call. Whoever decides later is asked about by a repeat.
pub const APPROVAL_WAIT_MS: u64 = 60_000;
/// Most people whom a registration names as approvers. As `TASK_LIST`.
pub const APPROVERS: usize = TASK_LIST;
/// Longest time from asking until an approval is used, milliseconds: 24 h, as `TASK_TTL_MS`. Rules are kept as long.
pub const APPROVAL_TTL_MS: u64 = TASK_TTL_MS;
/// The same where nobody says how long, milliseconds: an hour.
pub const APPROVAL_TTL_DEFAULT_MS: u64 = 3_600_000;
/// How long before its end a registration warns, milliseconds: 14 days.
pub const REGISTRATION_WARN_MS: u64 = 14 * 24 * 3_600_000;
/// A registration that had no live credential for so long is unused, milliseconds: 30 days, so that what runs monthly is in use.
pub const UNUSED_AFTER_MS: u64 = 30 * 24 * 3_600_000;
/// Longest ttl of credentials that can do much harm before a registration is called broad, milliseconds: 15 minutes, as AWS's shortest session.
pub const BROAD_TTL_MS: u64 = 900_000;
/// Longest look for what a narrower policy set or registration would refuse, milliseconds (design, section 2). What was not looked at by then
/// is revoked by something coarser.
pub const NARROWING_LOOK_MS: u64 = 10_000;
/// Most groups of credentials that are told apart while looking (caller, upstream, scopes, tool): 10,000 with 64 ids each are 20 MB for the
/// seconds of a look. Beyond it something coarser is revoked.
pub const NARROWING_GROUPS: usize = 10_000;
/// Entries that a list, or a count of what is hit, looks at in one go. At 0.2 µs each under 1 ms: the writer waits meanwhile.
pub const LIST_WALK: usize = 4_096;
/// Longest name of a follower among its caller's instances, bytes: a host name and a pid.
pub const FOLLOWER_NAME_BYTES: usize = 128;
/// Largest authorization details of an exchange (RFC 9396), bytes of JSON. As large as arguments.
pub const AUTHORIZATION_DETAILS_BYTES: usize = ARGUMENTS_BYTES;
/// Use reports in one call. At 200 bytes each a tenth of `REQUEST_BYTES`.
pub const USES: usize = 1_000;
/// Pause between two attempts to open a store that failed, milliseconds. Opening takes 1 to 19 ms (measured): a tenth of one core at most.
pub const REOPEN_PAUSE_MS: u64 = 200;
/// Pause between two pings on a quiet connection, milliseconds. A peer that vanished holds its connection this long and one answer's time.
pub const KEEP_ALIVE_MS: u64 = 20_000;
/// Longest wait for the answer to a ping, milliseconds. Half of `KEEP_ALIVE_MS`: a lost packet is sent again within it.
pub const KEEP_ALIVE_ANSWER_MS: u64 = 10_000;
/// How long before the end of its SVID a connection is asked to go, at most, milliseconds: open calls then have that long. A tenth of what
/// is left of the SVID where that is less.
pub const SVID_END_MARGIN_MS: u64 = 30_000;
/// Time that open calls have after their connection lost its right to be, milliseconds. A commit takes a few: time to answer, not to begin.
pub const CLOSE_MS: u64 = 500;
/// Longest life of a connection on the public listener, milliseconds: nobody there is known, so nobody holds one for long.
pub const PUBLIC_CONNECTION_MS: u64 = 60_000;
/// Flow-control window of one stream and of one connection, bytes: what a peer may send that no handler has taken yet.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that wait on one stream for a peer that does not read. As `STREAM_WINDOW_BYTES` the other way.
pub const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Exchanges of one stream that are decided in one go, when they came together: 0.5 ms of one core.
pub const STREAM_ROUND: usize = 32;
/// Time that deciding such a round may take, microseconds: where decisions are long, a round has fewer of them. Twice what a usual one takes.
pub const STREAM_ROUND_US: u64 = 1_000;
/// How long what was decided for a round on a connection serves the rounds that follow it, milliseconds. At 5,000 a second of one connection a
/// task of a hundred is over by then.
pub const SERIES_LASTS_MS: u64 = 20;
/// Decisions that a connection has for the rounds that follow: of the task that is in use and of the one before it.
pub const SERIES_KEPT: usize = 2;
/// Longest time that exchanges wait until they are decided, milliseconds: what would wait longer is refused. A tenth of a second is what
/// people do not notice; 256 decisions of 0.4 ms, which no cache answers, fit on one thread.
pub const INTAKE_WAIT_MS: u64 = 100;
/// Deciding that is handed to the scheduler at once where exchanges wait, microseconds for each thread. A tenth of `REFUSED_WITHIN_MS`.
pub const INTAKE_TURN_US: usize = 500;
/// What waits no longer than this, microseconds, is handed to the scheduler as it comes: half of the 5 ms in which a call is refused at the
/// latest, and more than 256 remembered decisions take on two cores.
pub const INTAKE_CROWD_US: u64 = 2_500;
/// What a decision is taken to cost before there was one, nanoseconds: with a signature, and without a policy that is asked (measured).
pub const INTAKE_DECISION_NS: u64 = 25_000;
/// Time within which a call is refused that there is no time for, from when it was read, milliseconds. A tenth of what a first retry of
/// usual clients waits at the least, so that being refused costs a caller nothing beside that.
pub const REFUSED_WITHIN_MS: u64 = 5;
/// Bytes of messages that are not whole yet, of one connection: eight of the largest.
pub const CONNECTION_UNFINISHED_BYTES: usize = 8 * REQUEST_BYTES;
/// Bytes of messages that are not whole yet, of all connections: an eighth of a small server's memory.
pub const UNFINISHED_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of answers of one connection that go out in one write: a few TLS records (16 KiB, RFC 8446, section 5.1).
pub const GATHERED_BYTES: usize = 64 * 1024;
/// Time between two looks at files of certificates and bundles, milliseconds: a stat and a read of a few KB each.
pub const FILE_POLL_MS: u64 = 2_000;
/// Time between two looks at tasks that may have missed their heartbeat, milliseconds. A fifth of `HEARTBEAT_MIN_MS`.
pub const TASK_TICK_MS: u64 = 1_000;
/// Bytes of imported records in one group: half of what a commit may hold.
pub const IMPORT_BYTES: usize = COMMIT_BYTES / 4;

/// Bits of an index in a status list: 2^20 entries of one bit are 128 KiB, or 2.4 KiB compressed where one in 10,000 is revoked.
pub const STATUS_INDEX_BITS: u32 = 20;
/// Credentials of one status list end within this of each other, milliseconds: a list is done with soon after its credentials are.
pub const STATUS_SPAN_MS: u64 = 600 * 1000;

/// How long JWKS may be kept by those who fetched it, milliseconds. Minutes, as caches of JWKS commonly keep it; a compromised key
/// does not wait for it (feed).
pub const JWKS_MAX_AGE_MS: u64 = 300 * 1000;
/// How long a key is published before it signs, milliseconds: twice `JWKS_MAX_AGE_MS`, so that one failed fetch does no harm.
pub const KEY_PUBLISHED_AHEAD_MS: u64 = 2 * JWKS_MAX_AGE_MS;
/// How long a key signs, milliseconds. NIST SP 800-57 part 1, table 1 allows 1 to 3 years; a month keeps the path in use.
pub const KEY_SIGNS_MS: u64 = 30 * 24 * 3600 * 1000;
/// How long a key signs checkpoints, milliseconds: a year, the least that NIST SP 800-57 part 1, table 1 has for such keys.
pub const CHECKPOINT_KEY_SIGNS_MS: u64 = 365 * 24 * 3600 * 1000;
/// Longest signed note that is read, bytes: a checkpoint is under 500, the statement of an export under 20 KB with the longest filter.
pub const NOTE_BYTES: usize = 32 * 1024;
/// Most signatures of a note. C2SP's checkpoints carry those of witnesses too.
pub const NOTE_SIGNATURES: usize = 16;
/// Longest line of an export, bytes: the largest record (`RECORD_BYTES`) in base64 and readable.
pub const EXPORT_LINE_BYTES: usize = 4 * RECORD_BYTES;
/// Time between two looks of the continuous export for something new, milliseconds. As `DERIVE_LOOK_MS`.
pub const EXPORT_LOOK_MS: u64 = DERIVE_LOOK_MS;
/// Time between two notes of how far it is, milliseconds: a durable write each, and what is told again after a crash.
pub const EXPORT_NOTE_MS: u64 = 1_000;
/// Longest wait for a syslog or a collector, milliseconds. As long as the command line waits for a call.
pub const EXPORT_CALL_MS: u64 = 10_000;
/// Longest wait for an export to end, milliseconds: a fifth of `SHUTDOWN_MS`. What was not noted by then is exported again.
pub const EXPORT_END_MS: u64 = 2_000;
/// Largest answer of a collector that is read, bytes. Its message says what it rejected.
pub const EXPORT_ANSWER_BYTES: usize = 64 * 1024;
/// Largest file of keys that a check of an export reads, bytes: as a bundle of `KEYS` of them.
pub const CHECK_KEYS_BYTES: usize = 64 * 1024;
/// How long a checkpoint waits until the tree reaches the newest commit, milliseconds. A third of the time that a caller may ask to wait.
pub const CHECKPOINT_WAIT_MS: u64 = WAIT_MS / 3;
/// Bytes of history that one call of VerifyLedger reads. About a second of one core.
pub const VERIFY_CALL_BYTES: usize = HISTORY_BYTES;
/// How long a key verifies after it signed for the last time, milliseconds: the longest TTL, a view's age, and skew on both sides.
pub const KEY_VERIFIES_MS: u64 = CREDENTIAL_TTL_MS + VIEW_MAX_AGE_MS + 2 * CLOCK_SKEW_MS;

/// Bytes of history that one call of a verification, or one look for a place that no index covers, reads. Reading and hashing take about a second of
/// one core.
pub const HISTORY_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of history that one question reads by the index, and of what the index does not cover: looking at names alone takes a third of a second of
/// one core (200 MB a second, measured).
pub const LOOK_BYTES: usize = 64 * 1024 * 1024;
/// How long one question reads what the index does not cover, milliseconds: the whole answer is to be there within a
/// second.
pub const LOOK_UNCOVERED_MS: u64 = 400;
/// Bytes of the newest history that one question reads record by record. Hashing and decoding take half a second of one core.
pub const LOOK_BACK_BYTES: usize = 16 * 1024 * 1024;
/// Questions that read history at once: each holds a core.
pub const HISTORY_QUESTIONS: usize = 2;
/// How long a question waits for its place among them, milliseconds: two others end in that time.
pub const HISTORY_QUESTION_WAIT_MS: u64 = 500;
/// How long the causes of rules and locks in one list are looked for, milliseconds. A list without all causes is better than none.
pub const CAUSES_LOOK_MS: u64 = 300;
/// Bytes of history that one page of a search may read. A quarter of a second of one core: pages come while a long search goes on.
pub const SEARCH_BYTES: usize = 64 * 1024 * 1024;
/// Those who read the ledger in order at once: tails and exports. Each holds about `READER_BYTES` and the records of one commit.
pub const READERS: usize = 16;
/// Bytes of history that such a reader takes at once. Some 3 ms of one core.
pub const READER_BYTES: usize = 1024 * 1024;
/// Commits that a tail may lag, once it had caught up, before its stream ends with an error. Minutes at full load (`GATHER_RECORDS`).
pub const TAIL_LAG: u64 = 65_536;
/// Bytes of records in one page of a search. With what JSON adds, below gRPC clients' 4 MB.
pub const SEARCH_PAGE_BYTES: usize = 1024 * 1024;
/// Records in one explanation. A task of 100 credentials is read at once; at 1 KB each, 100 KB.
pub const EXPLAIN_RECORDS: usize = 100;
/// Commits that a watcher of credentials may lag before its stream ends with an error. At 256 records of 600 bytes each, 40 MB.
pub const WATCH_LAG: usize = 256;
/// Events that wait for one watcher of credentials. One full commit (`GATHER_RECORDS`).
pub const WATCH_QUEUE: usize = 256;
/// Credentials looked at while the state is held, for a watcher: at 2 µs for each that is told, 8 ms at the worst.
pub const WATCH_WALK: u32 = 4_096;
/// Bytes of history that are read for a watcher who comes back: `WATCH_RESUME` records of a KB.
pub const WATCH_RESUME_BYTES: usize = 64 * 1024 * 1024;
/// Records that a watcher who comes back may have missed. As `FEED_EVENTS`: some seconds of full load.
pub const WATCH_RESUME: usize = 65_536;
/// Pause between two signs of life on a stream of credentials, milliseconds. Half of `KEEP_ALIVE_MS`.
pub const WATCH_SIGN_MS: u64 = 10_000;
/// Longest time that a key is published before it signs, when an operator asks for it, milliseconds. A week: by then
/// every cache has asked again.
pub const KEY_PUBLISHED_AHEAD_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
