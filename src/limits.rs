//! Every bound of the product: its name, its value, its unit, and where the value comes from.
//!
//! Bounds that an operator may want to change are settings of the configuration (`sources::config`), with these values as defaults and
//! ceilings. Further bounds: the ledger and its store in `limits/store.rs`, tokens of other issuers in `limits/oidc.rs`, use reports in
//! `limits/uses.rs`, the SPIFFE agent in `limits/workload_api.rs`, memory of the listeners that peers can occupy in `limits/serving.rs`,
//! traces in `limits/trace.rs`, log lines in `limits/log.rs`.

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

/// Maximum remaining life of an accepted SVID, milliseconds. SPIRE's default is 1 h; some run 24 h.
pub const SVID_MAX_TTL_MS: u64 = 24 * 3600 * 1000;
/// Longest JWT-SVID that is read, bytes. It travels in a header, and a header list has at most as many (`HEADER_BYTES`); SPIRE's JWT-SVIDs
/// are under 1 KiB.
pub const JWT_SVID_BYTES: usize = HEADER_BYTES as usize;
/// Most values of `aud` in a JWT-SVID. One is recommended (JWT-SVID, section 3.2); each further audience can replay the token.
pub const JWT_SVID_AUDIENCES: usize = 16;

/// Most scopes of one grant. A scope rule is matched against each (design, section 2).
pub const SCOPES: usize = 8;
/// Longest scope, upstream, tool, environment, binding or role name, bytes. Long enough for a resource URI.
pub const NAME_BYTES: usize = 256;
/// Longest purpose or reason, bytes. A few sentences; every record that it caused contains it.
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
/// Most exchanges in progress on one stream. Four full commits (`GATHER_RECORDS`).
pub const STREAM_IN_FLIGHT: usize = 1024;
/// Most upstreams, callers, scopes or tools that a task names, each. At 256 bytes each, 64 KB in one record, below `RECORD_BYTES`.
pub const TASK_LIST: usize = 64;

/// Shortest TTL that a caller may request and that a registration may have as default, milliseconds. `exp` is a whole second not after the
/// end, which loses up to a second, and `CREDENTIAL_LIFE_LEFT_MS` must remain.
pub const CREDENTIAL_TTL_MIN_MS: u64 = 2000;
/// Shortest life that a credential is issued with, milliseconds. A shorter one is lost to clock skew.
pub const CREDENTIAL_LIFE_LEFT_MS: u64 = 1000;
/// Default life of a task, milliseconds. That of the longest credential (`CREDENTIAL_TTL_MS`).
pub const TASK_TTL_DEFAULT_MS: u64 = 3600 * 1000;
/// Shortest heartbeat interval, milliseconds. Heartbeats are coalesced into one record a second.
pub const HEARTBEAT_MIN_MS: u64 = 5_000;
/// Longest heartbeat interval, milliseconds. As `TASK_TTL_DEFAULT_MS`: beyond it, the deadline has the same effect.
pub const HEARTBEAT_MAX_MS: u64 = 3600 * 1000;
/// How long a request id is remembered at least, milliseconds (design, section 7).
pub const REQUEST_ID_KEPT_MS: u64 = 600 * 1000;

/// Most live tasks in all. At 1 KB each (design, section 10), 1 GB.
pub const TASKS: usize = 1_000_000;
/// Most open tasks that one caller opened. A hundred callers at this bound fill `TASKS`.
pub const TASKS_PER_CALLER: usize = 10_000;
/// Bytes of a task's terms that are not counted against `TASK_BYTES` (design, section 10). `TASKS` bounds their total.
pub const TASK_BYTES_FREE: u64 = 1024;
/// Bytes of the terms of all tasks in memory, counted above `TASK_BYTES_FREE` of each: as much as the uncounted bytes of all `TASKS`.
pub const TASK_BYTES: u64 = 1024 * 1024 * 1024;
/// Bytes of the terms of tasks opened by one caller, counted in the same way: an eighth. 3,000 tasks with 64 callers and 64 tools of 256
/// bytes; typical tasks count nothing.
pub const TASK_BYTES_PER_CALLER: u64 = TASK_BYTES / 8;
/// Most live credentials in memory. At 128 bytes each (design, section 10), 1.3 GB.
pub const CREDENTIALS: usize = 10_000_000;
/// Most live credentials of one caller. One gateway at 500 a second with the longest TTL; five such callers fill `CREDENTIALS`.
pub const CREDENTIALS_PER_CALLER: usize = 2_000_000;
/// Most request ids remembered in total. 50,000 a second continuously (`REQUEST_ID_KEPT_MS`); at 37 bytes each, 1.1 GB.
pub const REQUEST_IDS: usize = 30_000_000;
/// Most request ids remembered for one caller. At the bound a caller's requests are refused; ids are never forgotten early. Three callers
/// fill `REQUEST_IDS`.
pub const REQUEST_IDS_PER_CALLER: usize = 10_000_000;
/// Most revocation rules in effect that one caller's own changes (closing tasks, giving back credentials) may make. A rule lasts as long as
/// what it ends would have: a gateway that gives back 500 credentials of ten minutes a second stays below it. As for `CREDENTIALS`, five
/// callers fill `RULES`.
pub const RULES_PER_CALLER: usize = 400_000;
/// Tasks that one caller opens separately, delegates or extends, per second. Ten seconds of it fill `TASKS_PER_CALLER`.
pub const CHANGES_PER_SECOND: u32 = 1_000;
/// Holds and resumptions of one caller, per second. Each is sent to every follower: three callers at this bound make the 64 events that
/// `FEED_LAG` is sized for.
pub const HOLDS_PER_SECOND: u32 = 20;
/// Heartbeats of one caller, per second: `TASKS_PER_CALLER` tasks with `HEARTBEAT_MIN_MS`, each sending three per interval.
pub const HEARTBEATS_PER_SECOND: u32 = 6_000;
/// Burst of a caller's rate, in seconds of that rate. Work that begins or is given up at once: all tasks of `TASKS_PER_CALLER`.
pub const RATE_BURST_S: u32 = 10;
/// Callers with a rate bucket of their own, per act; further callers share one. Three times `CONNECTIONS`; at 50 bytes each, 3 MB for each
/// act.
pub const CALLERS_RATED: usize = 65_536;
/// Time between two sweeps of the rate buckets when there is no room for another, milliseconds: 65,536 entries take under a millisecond.
pub const RATES_SWEEP_MS: u64 = 1_000;
/// Revocation rules in total at which callers' own changes that make a rule are refused, and operators are warned. At about 200 bytes each,
/// 400 MB.
pub const RULES: usize = 2_000_000;
/// Most registered followers. Each costs a stream and at worst a queue of `FEED_LAG` small events.
pub const FOLLOWERS: usize = 10_000;
/// Most registered followers of one caller. A service of 1,250 instances fits, and eight callers at the bound fill `FOLLOWERS`; a
/// disconnected follower counts until it leaves the list (`feed.max_age`).
pub const FOLLOWERS_PER_CALLER: usize = FOLLOWERS / 8;
/// Rule and hold events kept in memory for followers that reconnect: about 20 MB. A follower that missed more gets a snapshot.
pub const FEED_EVENTS: usize = 65_536;
/// Events that a follower may lag before its stream ends with an error. A minute of 64 rules a second.
pub const FEED_LAG: usize = 4_096;
/// The largest distance between a decision revision and its record, records; it is stored in 24 bits. A decision is at most
/// `VIEW_MAX_AGE_MS` plus `CLOCK_SKEW_MS` old: 400,000 records a second for that time.
pub const REVISION_BEHIND: u64 = (1 << 24) - 1;
/// Most distinct interned values (callers, tools, scopes …) of one kind.
pub const INTERNED: usize = 4_000_000;
/// Most signing keys that are not yet removed, per purpose. JWKS with 64 keys of 200 bytes are 13 KB; rotation monthly needs three.
pub const KEYS: usize = 64;
/// Most registered upstreams. Compiled policy and registry at 2 KB each are 20 MB.
pub const UPSTREAMS: usize = 10_000;
/// Largest policy set, bytes of Cedar text. About 1,000 policies: 20 ms to parse and 12 ms to validate (measured with 50).
pub const POLICY_BYTES: usize = 256 * 1024;
/// How far back recorded requests are decided again by default, milliseconds: an hour.
pub const POLICY_DIFF_MS: u64 = 3_600_000;
/// Most recorded requests that one call decides again, the newest: each with two sets at 120 µs, so half a second of one core.
pub const POLICY_DIFF_DECISIONS: usize = 2_000;
/// Most tasks, registrations and policy sets of such requests that are read from history, at a few milliseconds each. Requests whose parts
/// are still missing stay undetermined.
pub const POLICY_DIFF_LOOKS: usize = 32;
/// Most differing decisions in an answer: more than anybody reads.
pub const POLICY_DIFF_SAMPLES: usize = 100;
/// Most differences between the policy set in effect and the shadow set that are distinguished in a minute, by caller, upstream and policy.
/// 10,000 at 300 bytes are 3 MB.
pub const POLICY_DIFFERENCES: usize = 10_000;
/// Most bindings, including removed ones: at 1 KB, 10 MB.
pub const BINDINGS: usize = 10_000;
/// Most names of each kind in an answer about what a revocation would hit: more than anybody reads.
pub const BLAST_NAMES: usize = 1_000;
/// The default number of such names: what a terminal shows.
pub const BLAST_NAMES_DEFAULT: usize = 20;
/// Longest wait for reads in progress before a failed store is reopened, milliseconds: a read of 4 MiB takes tens.
pub const REOPEN_WAIT_MS: u64 = 2_000;
/// Most policy sets that are compiled but not in effect: one changes at a time, and some changes were abandoned.
pub const POLICIES_PREPARED: usize = 4;
/// Most tests in a file of policy tests: some for each of a thousand policies.
pub const POLICY_TESTS: usize = 10_000;
/// Largest file of policy tests, bytes: about 300 for each.
pub const POLICY_TESTS_BYTES: usize = 4 * 1024 * 1024;
/// Largest file of an upstream's registration, bytes. 64 servers of 2 KB are twice that, which no registration has.
pub const UPSTREAM_FILE_BYTES: usize = 64 * 1024;
/// Memory of the policy decision cache, bytes. At about 400 each, 160,000 decisions.
pub const VERDICT_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Longest key of a cached policy decision, bytes: a caller that names 64 tools of 256 bytes must not fill the cache.
pub const VERDICT_KEY_BYTES: usize = 4 * 1024;
/// Cost of an entry of the decision cache beside its key and policy ids, bytes: two allocations and moka's own entry.
pub const VERDICT_OVERHEAD: usize = 200;
/// Memory of a policy set for slices, bytes; a slice holds the policies that can apply to some callers and a resource. Of 200 policies a
/// slice has 5, so this holds 1,300 slices: callers differ by their roles, and resources are few.
pub const SLICE_CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Cost of a policy in a slice, bytes, beside the policy itself, which is shared: Cedar's three maps of ids and its handles.
pub const SLICE_POLICY_BYTES: usize = 1024;
/// Memory of a policy set for callers and resources in the form that Cedar takes, bytes: 5,000 pairs.
pub const SIDES_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Cost of such a pair beside its key, bytes: three entities, their attributes and parents.
pub const SIDES_BYTES: usize = 3 * 1024;

/// Files that a server has open beside its connections: listeners, the store, snapshots, those of threads. Twice the observed number (30).
pub const OTHER_FILES: u64 = 64;
/// Most threads that serve workloads. Four for each core of the largest rentable machines.
pub const WORKERS: usize = 1_024;
/// Connections open at once on the workload listener. At 64 KB each, 1.3 GB.
pub const CONNECTIONS: usize = 20_000;
/// Connections open at once on the admin listener. A team and its automation; a flood of workloads never reaches it.
pub const ADMIN_CONNECTIONS: usize = 256;
/// Connections open at once on the public listener. Each lives for `PUBLIC_CONNECTION_MS` at most and costs 64 KB: 260 MB.
pub const PUBLIC_CONNECTIONS: usize = 4_096;
/// Handshakes in progress at once. 290 µs of a core each (measured): 512 are 150 ms of work.
pub const HANDSHAKES: usize = 512;
/// The nice value of handshake threads (sched(7)): if all cores issue, they get a tenth of one thread's share. 512 handshakes then take 1.5
/// s, a third of `HANDSHAKE_MS`.
pub const HANDSHAKE_NICE: i32 = 10;
/// Connections that wait in the kernel to be accepted. Linux's default limit (net.core.somaxconn); with the common 128, further peers wait
/// a second and try again.
pub const BACKLOG: i32 = 4_096;
/// Longest handshake, milliseconds. A peer that takes longer stalls.
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
/// Longest time from the stop signal until the process exits whatever still runs, milliseconds: twice `SHUTDOWN_MS`, below the 30 s of
/// Kubernetes.
pub const SHUTDOWN_LAST_MS: u64 = 20_000;
/// Rows in one page of a list. At 500 bytes each, half a MB: below gRPC clients' 4 MB.
pub const PAGE: usize = 1_000;
/// Longest wait that a caller may request, milliseconds. Twice `FEED_MAX_AGE_MS`: by then a follower has applied the record or is off the
/// list.
pub const WAIT_MS: u64 = 60_000;
/// Default number of rows in one page of a list. Two screens.
pub const PAGE_DEFAULT: usize = 100;
/// Most approvals that wait, are usable or ended recently. At 4 KB each, 40 MB; more than people decide in a day.
pub const APPROVALS: usize = 10_000;
/// Most approvals of one caller that wait or are usable. A caller in a loop must not fill the list that approvers read.
pub const APPROVALS_PER_CALLER: usize = 64;
/// Largest terms of a task that needs an approval, bytes: approvers read no more. If all `APPROVALS` were so large, 80 MB.
pub const APPROVAL_TERMS_BYTES: usize = 8 * 1024;
/// Longest text of an operator's request in an approval, bytes: approvers read no more. If all `APPROVALS` were so large, 80 MB.
pub const CALL_TEXT_BYTES: usize = 8 * 1024;
/// Most changes that wait for another operator: each may be a policy set, so at most 16 MB.
pub const CHANGES_WAITING: usize = 64;
/// Longest wait of a call for an approval, milliseconds: a minute, the timeout of common proxies. A later decision is found by repeating
/// the call.
pub const APPROVAL_WAIT_MS: u64 = 60_000;
/// Most approvers that a registration names. As `TASK_LIST`.
pub const APPROVERS: usize = TASK_LIST;
/// Longest time from requesting an approval until its use, milliseconds: 24 h, as `TASK_TTL_MS`. Rules are kept as long.
pub const APPROVAL_TTL_MS: u64 = TASK_TTL_MS;
/// Default of that time, milliseconds: an hour.
pub const APPROVAL_TTL_DEFAULT_MS: u64 = 3_600_000;
/// How long before its expiry a registration warns, milliseconds: 14 days.
pub const REGISTRATION_WARN_MS: u64 = 14 * 24 * 3_600_000;
/// How long a registration without a live credential counts as used, milliseconds: 30 days, so that monthly jobs count as use.
pub const UNUSED_AFTER_MS: u64 = 30 * 24 * 3_600_000;
/// Longest TTL of credentials that can do much harm before their registration is reported as broad, milliseconds: 15 minutes, as AWS's
/// shortest session.
pub const BROAD_TTL_MS: u64 = 900_000;
/// Longest search for what a narrower policy set or registration would refuse, milliseconds (design, section 2). Credentials not searched
/// by then are revoked by a coarser target.
pub const NARROWING_LOOK_MS: u64 = 10_000;
/// Most groups of credentials that the search distinguishes (caller, upstream, scopes, tool): 10,000 with 64 ids each are 20 MB during a
/// search. Beyond that, a coarser target revokes.
pub const NARROWING_GROUPS: usize = 10_000;
/// Entries that a list, or a count of hits, visits under one lock. At 0.2 µs each under 1 ms, during which the writer waits.
pub const LIST_WALK: usize = 4_096;
/// Longest name of a follower, unique among its caller's instances, bytes: a host name and a pid.
pub const FOLLOWER_NAME_BYTES: usize = 128;
/// Largest authorization details of an exchange (RFC 9396), bytes of JSON. As large as arguments.
pub const AUTHORIZATION_DETAILS_BYTES: usize = ARGUMENTS_BYTES;
/// Use reports in one call. At 200 bytes each a tenth of `REQUEST_BYTES`.
pub const USES: usize = 1_000;
/// Pause between two attempts to open a failed store, milliseconds. Opening takes 1 to 19 ms (measured): a tenth of one core at most.
pub const REOPEN_PAUSE_MS: u64 = 200;
/// Pause between two pings on an idle connection, milliseconds. A vanished peer holds its connection for this time plus
/// `KEEP_ALIVE_ANSWER_MS`.
pub const KEEP_ALIVE_MS: u64 = 20_000;
/// Longest wait for the answer to a ping, milliseconds. Half of `KEEP_ALIVE_MS`: a lost packet is retransmitted within it.
pub const KEEP_ALIVE_ANSWER_MS: u64 = 10_000;
/// How long before the expiry of its SVID a connection is asked to close, at most, milliseconds: open calls then have that long. A tenth of
/// the SVID's remaining life if that is less.
pub const SVID_END_MARGIN_MS: u64 = 30_000;
/// Time that open calls have after their connection is no longer admitted, milliseconds. A commit takes a few: time to answer, not to
/// begin.
pub const CLOSE_MS: u64 = 500;
/// Longest life of a connection on the public listener, milliseconds: its callers are unauthenticated, so none may hold one for long.
pub const PUBLIC_CONNECTION_MS: u64 = 60_000;
/// Flow-control window of one stream, bytes: what a peer may send before a handler takes it.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Flow-control window of one connection, bytes. See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes queued on one stream for a peer that does not read. As `STREAM_WINDOW_BYTES`, in the other direction.
pub const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Exchanges of one stream that are decided as one batch, if they were read at once: 0.5 ms of one core.
pub const STREAM_ROUND: usize = 32;
/// Time that deciding such a batch may take, microseconds: if decisions are slow, a batch has fewer of them. Twice the time of a typical
/// batch.
pub const STREAM_ROUND_US: u64 = 1_000;
/// How long a decision of a batch serves the following batches on the same connection, milliseconds. At 5,000 a second of one connection a
/// task of a hundred is over by then.
pub const SERIES_LASTS_MS: u64 = 20;
/// Decisions that a connection keeps for the following batches: that of the task in use and that of the task before it.
pub const SERIES_KEPT: usize = 2;
/// Longest time that exchanges wait to be decided, milliseconds; exchanges that would wait longer are refused. People do not notice a tenth
/// of a second; 256 uncached decisions of 0.4 ms fit on one thread.
pub const INTAKE_WAIT_MS: u64 = 100;
/// Deciding that is handed to the scheduler at once if exchanges wait, microseconds for each thread. A tenth of `REFUSED_WITHIN_MS`.
pub const INTAKE_TURN_US: usize = 500;
/// An expected wait up to which exchanges are handed to the scheduler as they come, microseconds: half of the 5 ms within which a call is
/// refused, and more than 256 cached decisions take on two cores.
pub const INTAKE_CROWD_US: u64 = 2_500;
/// Assumed cost of a decision before one was measured, nanoseconds: with a signature and without evaluating a policy (measured).
pub const INTAKE_DECISION_NS: u64 = 25_000;
/// Time within which a call is refused for lack of time, counted from when it was read, milliseconds. A tenth of the shortest first retry
/// delay of common clients, so that the refusal adds little to a retry.
pub const REFUSED_WITHIN_MS: u64 = 5;
/// Bytes of incomplete messages of one connection: eight of the largest.
pub const CONNECTION_UNFINISHED_BYTES: usize = 8 * REQUEST_BYTES;
/// Bytes of incomplete messages of all connections: an eighth of a small server's memory.
pub const UNFINISHED_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of answers of one connection that are written at once: a few TLS records (16 KiB, RFC 8446, section 5.1).
pub const GATHERED_BYTES: usize = 64 * 1024;
/// Polling interval of the files of certificates and bundles, milliseconds: a stat and a read of a few KB each.
pub const FILE_POLL_MS: u64 = 2_000;
/// Interval between two checks for missed heartbeats, milliseconds. A fifth of `HEARTBEAT_MIN_MS`.
pub const TASK_TICK_MS: u64 = 1_000;
/// Bytes of imported records in one group: half of what the queue packs into one commit (`COMMIT_BYTES / 2`).
pub const IMPORT_BYTES: usize = COMMIT_BYTES / 4;

/// Bits of an index in a status list: 2^20 entries of one bit are 128 KiB, or 2.4 KiB compressed where one in 10,000 is revoked.
pub const STATUS_INDEX_BITS: u32 = 20;
/// Credentials of one status list expire within this time of each other, milliseconds: a list is obsolete soon after its credentials are.
pub const STATUS_SPAN_MS: u64 = 600 * 1000;

/// How long clients may cache a JWKS, milliseconds. Minutes, as is common for JWKS; a compromised key is announced by the feed and does not
/// wait for it.
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
/// Longest line of an export, bytes: the largest record (`RECORD_BYTES`) in base64 and in readable form.
pub const EXPORT_LINE_BYTES: usize = 4 * RECORD_BYTES;
/// Polling interval of the continuous export, milliseconds. As `DERIVE_LOOK_MS`.
pub const EXPORT_LOOK_MS: u64 = DERIVE_LOOK_MS;
/// Interval at which the continuous export stores its progress, milliseconds: a durable write each, and the amount exported again after a
/// crash.
pub const EXPORT_NOTE_MS: u64 = 1_000;
/// Longest wait for a syslog or a collector, milliseconds. As long as the command line waits for a call.
pub const EXPORT_CALL_MS: u64 = 10_000;
/// Longest wait for an export to end, milliseconds: a fifth of `SHUTDOWN_MS`. Records whose export was not stored by then are exported
/// again.
pub const EXPORT_END_MS: u64 = 2_000;
/// Largest answer of a collector that is read, bytes. Its message tells what the collector rejected.
pub const EXPORT_ANSWER_BYTES: usize = 64 * 1024;
/// Largest file of keys that the verification of an export reads, bytes: a bundle of `KEYS` keys.
pub const CHECK_KEYS_BYTES: usize = 64 * 1024;
/// How long a checkpoint waits until the tree reaches the newest commit, milliseconds. A third of the longest wait that a caller may
/// request.
pub const CHECKPOINT_WAIT_MS: u64 = WAIT_MS / 3;
/// Bytes of history that one call of VerifyLedger reads. About a second of one core.
pub const VERIFY_CALL_BYTES: usize = HISTORY_BYTES;
/// How long a key verifies after its last signature, milliseconds: the longest TTL, a view's age, and skew on both sides.
pub const KEY_VERIFIES_MS: u64 = CREDENTIAL_TTL_MS + VIEW_MAX_AGE_MS + 2 * CLOCK_SKEW_MS;

/// Bytes of history that one call of a verification, or one search for a position that no index covers, reads. Reading and hashing take
/// about a second of one core.
pub const HISTORY_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of history that one query reads through the index, and of what the index does not cover: scanning names alone takes a third of a
/// second of one core (200 MB a second, measured).
pub const LOOK_BYTES: usize = 64 * 1024 * 1024;
/// How long one query reads what the index does not cover, milliseconds: the whole answer has to be there within a second.
pub const LOOK_UNCOVERED_MS: u64 = 400;
/// Bytes of the newest history that one query reads record by record. Hashing and decoding take half a second of one core.
pub const LOOK_BACK_BYTES: usize = 16 * 1024 * 1024;
/// Concurrent queries that read history: each holds a core.
pub const HISTORY_QUESTIONS: usize = 2;
/// How long a query waits for a place among them, milliseconds: two others end in that time.
pub const HISTORY_QUESTION_WAIT_MS: u64 = 500;
/// How long one list searches for the origins of its rules and locks, milliseconds. A list without all origins is better than none.
pub const CAUSES_LOOK_MS: u64 = 300;
/// Bytes of history that one page of a search may read. A quarter of a second of one core, so that pages arrive during a long search.
pub const SEARCH_BYTES: usize = 64 * 1024 * 1024;
/// Concurrent readers that read the ledger in order: tails and exports. Each holds about `READER_BYTES` and the records of one commit.
pub const READERS: usize = 16;
/// Bytes of history that such a reader takes at once. About 3 ms of one core.
pub const READER_BYTES: usize = 1024 * 1024;
/// Commits that a tail may lag, once it has caught up, before its stream ends with an error. Minutes at full load (`GATHER_RECORDS`).
pub const TAIL_LAG: u64 = 65_536;
/// Bytes of records in one page of a search. With JSON's overhead, below gRPC clients' 4 MB.
pub const SEARCH_PAGE_BYTES: usize = 1024 * 1024;
/// Records in one explanation. A task of 100 credentials is read at once; at 1 KB each, 100 KB.
pub const EXPLAIN_RECORDS: usize = 100;
/// Commits that a watcher of credentials may lag before its stream ends with an error. At 256 records of 600 bytes each, 40 MB.
pub const WATCH_LAG: usize = 256;
/// Events queued for one watcher of credentials. One full commit (`GATHER_RECORDS`).
pub const WATCH_QUEUE: usize = 256;
/// Credentials visited under one lock of the state, for a watcher: at 2 µs for each reported one, 8 ms at worst.
pub const WATCH_WALK: u32 = 4_096;
/// Bytes of history that are read for a watcher that resumes: `WATCH_RESUME` records of a KB.
pub const WATCH_RESUME_BYTES: usize = 64 * 1024 * 1024;
/// Records that a watcher that resumes may have missed. As `FEED_EVENTS`: some seconds of full load.
pub const WATCH_RESUME: usize = 65_536;
/// Interval of heartbeats on a stream of credentials, milliseconds. Half of `KEEP_ALIVE_MS`.
pub const WATCH_SIGN_MS: u64 = 10_000;
/// Longest time that an operator may have a key published before it signs, milliseconds. A week: by then every cache has been refreshed.
pub const KEY_PUBLISHED_AHEAD_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
