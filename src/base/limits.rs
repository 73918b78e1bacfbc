//! Every limit of the product: a name, a number, a unit, and the source of the number.
//!
//! The configuration (`mayfly_config::config`) exposes the values that an operator may want to change, with these constants as defaults and
//! upper bounds. Limits of the ledger and its store are in `limits/store.rs`, of tokens of other issuers in `limits/oidc.rs`, of reported
//! uses and authorized actions in `limits/uses.rs`, of the SPIFFE Workload API in `limits/workload_api.rs`, of memory that peers can make
//! the listeners hold in `limits/serving.rs`, of traces in `limits/trace.rs`, and of log lines in `limits/log.rs`.

mod break_glass;
mod leases;
mod log;
mod oidc;
mod people;
mod secrets;
mod serving;
mod store;
mod trace;
mod upstreams;
mod uses;
mod webhook;
mod workload_api;

pub use break_glass::*;
pub use leases::*;
pub use log::*;
pub use oidc::*;
pub use people::*;
pub use secrets::*;
pub use serving::*;
pub use store::*;
pub use trace::*;
pub use upstreams::*;
pub use uses::*;
pub use webhook::*;
pub use workload_api::*;

pub use mayfly_verify::limits::*;

/// Longest remaining life of an accepted SVID, milliseconds. SPIRE's default is 1 h; some deployments use 24 h.
pub const SVID_MAX_TTL_MS: u64 = 24 * 3600 * 1000;
/// Longest JWT-SVID that is parsed, bytes. A JWT-SVID travels in a header, and a whole header list has at most `HEADER_BYTES`; SPIRE's
/// JWT-SVIDs are under 1 KiB.
pub const JWT_SVID_BYTES: usize = HEADER_BYTES as usize;
/// Most values of `aud` in a JWT-SVID. One value is recommended (JWT-SVID, section 3.2); each further audience is one more party that can
/// replay the token.
pub const JWT_SVID_AUDIENCES: usize = 16;

/// Most scopes of one grant. A scope rule is matched against each scope.
pub const SCOPES: usize = 8;
/// Longest scope, upstream, tool, environment, binding or role name, bytes. Long enough for a resource URI.
pub const NAME_BYTES: usize = 256;
/// Longest purpose or reason, bytes. A few sentences; the text is stored in every record that it caused.
pub const PURPOSE_BYTES: usize = 512;
/// Largest arguments of a tool call, bytes of JSON. Fixed by the contract of `Exchange` (token_service.proto).
pub const ARGUMENTS_BYTES: usize = 16 * 1024;
/// Deepest nesting of arguments: each level costs stack in RFC 8785's canonical form.
pub const ARGUMENTS_DEPTH: usize = 64;
/// Most targets of one revocation. 64 SPIFFE IDs of the largest size are 128 KB of one record.
pub const TARGETS: usize = 64;
/// Longest request id, bytes. Three UUIDs in text; only its digest is remembered.
pub const REQUEST_ID_BYTES: usize = 128;
/// Most exchanges in one batch (contract of `BatchExchange`). Two such batches fit one commit (`GATHER_RECORDS`).
pub const BATCH: usize = 100;
/// Most exchanges in progress on one stream. Four full commits (`GATHER_RECORDS`).
pub const STREAM_IN_FLIGHT: usize = 1024;
/// Most upstreams, most callers, most scopes and most tools that a task names, each. At 256 bytes per name one such list adds at most 16 KB
/// and the four lists 64 KB to a record, below `RECORD_BYTES`.
pub const TASK_LIST: usize = 64;

/// Shortest TTL that a caller may ask for and a registration may give by default, milliseconds. `exp` is a whole second and never later
/// than the granted end, so rounding loses up to a second, and `CREDENTIAL_LIFE_LEFT_MS` must remain.
pub const CREDENTIAL_TTL_MIN_MS: u64 = 2000;
/// Shortest life with which a credential is issued, milliseconds. A shorter life is lost to clock skew.
pub const CREDENTIAL_LIFE_LEFT_MS: u64 = 1000;
/// Life of a task if the caller asks for none, milliseconds. As long as the longest credential (`CREDENTIAL_TTL_MS`).
pub const TASK_TTL_DEFAULT_MS: u64 = 3600 * 1000;
/// Shortest heartbeat interval, milliseconds. Heartbeats are coalesced into one record a second.
pub const HEARTBEAT_MIN_MS: u64 = 5_000;
/// Longest heartbeat interval, milliseconds. As `TASK_TTL_DEFAULT_MS`: with a longer interval the task's deadline would end the task first.
pub const HEARTBEAT_MAX_MS: u64 = 3600 * 1000;
/// Minimum time for which a request id is remembered, milliseconds: ten minutes, longer than clients repeat a call (docs/decisions.md,
/// "Memory for live credentials, tasks and rules").
pub const REQUEST_ID_KEPT_MS: u64 = 600 * 1000;

/// Most live tasks in all. At 1 KB each, 1 GB.
pub const TASKS: usize = 1_000_000;
/// Most tasks that one caller opened and that have not ended. A hundred callers at this limit fill `TASKS`.
pub const TASKS_PER_CALLER: usize = 10_000;
/// Bytes of a task's terms that count against no byte limit: a usual task has less. `TASKS` bounds the number of tasks.
pub const TASK_BYTES_FREE: u64 = 1024;
/// Bytes of the terms of all tasks in memory, counting only what exceeds `TASK_BYTES_FREE` per task. As many bytes as `TASKS` tasks have
/// within `TASK_BYTES_FREE`.
pub const TASK_BYTES: u64 = 1024 * 1024 * 1024;
/// As `TASK_BYTES`, for the tasks that one caller opened: an eighth. Room for 3,000 tasks with 64 callers and 64 tools of 256 bytes; usual
/// tasks count nothing.
pub const TASK_BYTES_PER_CALLER: u64 = TASK_BYTES / 8;
/// Most unexpired credentials in memory, over all callers. At 128 bytes each, 1.3 GB.
pub const CREDENTIALS: usize = 10_000_000;
/// Most unexpired credentials of one caller. One gateway at 500 a second with the longest TTL; five such callers fill `CREDENTIALS`.
pub const CREDENTIALS_PER_CALLER: usize = 2_000_000;
/// Most request ids remembered over all callers. Allows 50,000 a second permanently (`REQUEST_ID_KEPT_MS`); at 37 bytes each, 1.1 GB.
pub const REQUEST_IDS: usize = 30_000_000;
/// Most request ids remembered for one caller. A caller at this limit is refused; its ids are never dropped early. Three such callers fill
/// `REQUEST_IDS`.
pub const REQUEST_IDS_PER_CALLER: usize = 10_000_000;
/// Most revocation rules in effect that one caller's own actions (closing tasks, returning credentials) created. A rule lasts as long as
/// the credentials that it ends would have: a gateway that returns 500 credentials of ten minutes per second stays below this limit. As
/// with `CREDENTIALS`, five callers fill `RULES`.
pub const RULES_PER_CALLER: usize = 400_000;
/// Changes of one caller per second: tasks opened (inline tasks excluded), delegated or extended, break-glass tasks opened or joined, and
/// approvals requested. Ten seconds at this rate fill `TASKS_PER_CALLER`.
pub const CHANGES_PER_SECOND: u32 = 1_000;
/// Holds and resumptions of one caller per second. Each is sent to every follower: three callers at this rate cause the 64 events per
/// second for which `FEED_LAG` is sized.
pub const HOLDS_PER_SECOND: u32 = 20;
/// Heartbeats of one caller per second: `TASKS_PER_CALLER` tasks with `HEARTBEAT_MIN_MS`, three heartbeats per interval.
pub const HEARTBEATS_PER_SECOND: u32 = 6_000;
/// Burst of a caller's rate limits, in seconds of the rate. A caller may open or close all tasks of `TASKS_PER_CALLER` in one burst.
pub const RATE_BURST_S: u32 = 10;
/// Callers whose rate of one action is tracked separately; further callers share one counter. Three times `CONNECTIONS`; at 50 bytes each,
/// 3 MB per action.
pub const CALLERS_RATED: usize = 65_536;
/// Minimum time between two sweeps of a full rate table, milliseconds: sweeping 65,536 entries takes under a millisecond.
pub const RATES_SWEEP_MS: u64 = 1_000;
/// Most revocation rules over all callers. Beyond it, callers' own actions that create a rule are refused and operators are warned. At
/// about 200 bytes each, 400 MB.
pub const RULES: usize = 2_000_000;
/// Most registered followers. Each costs a stream and, at worst, a queue of `FEED_LAG` small events.
pub const FOLLOWERS: usize = 10_000;
/// Most followers of one caller. A service of 1,250 instances fits, and eight callers at this limit fill `FOLLOWERS`. A follower that
/// vanished counts until it is removed from the list (`feed.max_age`).
pub const FOLLOWERS_PER_CALLER: usize = FOLLOWERS / 8;
/// Rule and hold events kept in memory for followers that reconnect: about 20 MB. A follower that missed older events starts from a
/// snapshot.
pub const FEED_EVENTS: usize = 65_536;
/// Events that a follower may lag before its stream ends with an error. A minute of 64 rules a second.
pub const FEED_LAG: usize = 4_096;
/// Largest distance of a record's sequence number from its decision revision, in records: the record stores the distance in 24 bits. A
/// decision is at most `VIEW_MAX_AGE_MS` and `CLOCK_SKEW_MS` old: the limit allows 400,000 records a second for that time.
pub const REVISION_BEHIND: u64 = (1 << 24) - 1;
/// Most distinct interned values (callers, tools, scopes …) of one kind.
pub const INTERNED: usize = 4_000_000;
/// Most signing keys per purpose that are not yet removed. A JWKS with 64 keys of 200 bytes has 13 KB; monthly rotation needs three keys.
pub const KEYS: usize = 64;
/// Most registered upstreams. Compiled policy and registry at 2 KB each are 20 MB.
pub const UPSTREAMS: usize = 10_000;
/// Most brackets within each other in a policy. `permit (…) when { (…) && […].contains(…) }` has three.
pub const POLICY_BRACKETS: usize = 16;
/// Most levels of operators and brackets in an expression of a policy; a chain of `||` has a level for each. Cedar's evaluator uses some
/// 35 KB of stack for a level in a debug build: all levels fit into a tenth of `POLICY_STACK_BYTES`.
pub const POLICY_DEPTH: usize = 128;
/// Most `if` within each other in a policy; an `else if` is within the `if` before it. Where the type of a condition tells its value, as of
/// `context has tool` for an action without that attribute, Cedar's validator puts a copy of the branch that counts in the place of the other
/// one and walks both, so its time doubles with each such `if`: 22 of them take 90 ms and 40 would take half a year (measured up to 24,
/// release build). A chain of `else if` is no cheaper than branches within branches. A table of decisions is several policies.
pub const POLICY_IFS: usize = 8;
/// Most policies of a policy set. Each takes up to 0.75 ms to compile, however small it is, if it applies to every action (measured,
/// release build): `POLICIES` take 0.75 s of one core.
pub const POLICIES: usize = 1_000;
/// Most violations, and most warnings, in the answer to a policy set to check: more than anybody corrects before the next check.
pub const POLICY_VIOLATIONS: usize = 200;
/// Most policy sets that callers have compiled at once. Each takes a core for as long as it is compiled, up to a second for a set of
/// `POLICIES`, also after its caller went away; the other cores decide.
pub const POLICY_COMPILATIONS: usize = 1;
/// Longest wait for one's turn to have a policy set compiled, milliseconds: half of the command line's deadline of 10 s.
pub const POLICY_COMPILATION_WAIT_MS: u64 = 5_000;
/// Stack on which policies are compiled, and evaluated where a thread's own stack is too small, bytes. Cedar's parser uses 60 KB for a
/// bracket in a debug build and 7 KB for an operator (measured). The pages that are not used take no memory.
pub const POLICY_STACK_BYTES: usize = 64 * 1024 * 1024;
/// Largest policy set, bytes of Cedar text. About 1,000 policies of usual length: 20 ms to parse and 12 ms to validate (measured with 50).
pub const POLICY_BYTES: usize = 256 * 1024;
/// Default period of past decisions that a policy diff decides again, milliseconds: an hour.
pub const POLICY_DIFF_MS: u64 = 3_600_000;
/// Most decisions that one policy diff decides again; the newest are taken. Each is decided with two policy sets at 120 µs: half a second
/// of one core in all.
pub const POLICY_DIFF_DECISIONS: usize = 2_000;
/// Most tasks, registrations and policy sets that one policy diff looks up in history, in addition to those in memory and those found
/// beside the decisions. A lookup takes a few milliseconds. Decisions that would need further lookups are reported as undetermined.
pub const POLICY_DIFF_LOOKS: usize = 32;
/// Most differing decisions that a policy diff returns: more than anybody reads.
pub const POLICY_DIFF_SAMPLES: usize = 100;
/// Most differences between the policy set in effect and its shadow policy that are counted separately within a minute, by caller, upstream
/// and policy. 10,000 at 300 bytes are 3 MB.
pub const POLICY_DIFFERENCES: usize = 10_000;
/// Most bytes of all files of a folder that `mayfly apply` reads: `UPSTREAMS` and `BINDINGS` files of 2 KB each are 40 MB.
pub const APPLY_BYTES: usize = 64 * 1024 * 1024;
/// Most names in one directory of that folder: `UPSTREAMS`, and as many again that are hidden or wrong.
pub const APPLY_NAMES: usize = 2 * UPSTREAMS;
/// Most environments that a folder for `mayfly apply` has policy sets for.
pub const APPLY_ENVIRONMENTS: usize = 64;
/// Most bindings, removed ones included: at 1 KB each, 10 MB.
pub const BINDINGS: usize = 10_000;
/// Most names per sort in the preview of a revocation: more than anybody reads.
pub const BLAST_NAMES: usize = 1_000;
/// Default number of names per sort in the preview of a revocation: a terminal screen.
pub const BLAST_NAMES_DEFAULT: usize = 20;
/// Longest wait for reads in progress before a failed store is reopened, milliseconds: a read of 4 MiB takes tens of milliseconds.
pub const REOPEN_WAIT_MS: u64 = 2_000;
/// Most policy sets that are compiled and not yet in effect: one changes at a time, and some changes are abandoned.
pub const POLICIES_PREPARED: usize = 4;
/// Most tests in a file of policy tests: several for each of a thousand policies.
pub const POLICY_TESTS: usize = 10_000;
/// Largest file of policy tests, bytes: about 300 for each test.
pub const POLICY_TESTS_BYTES: usize = 4 * 1024 * 1024;
/// Largest file that registers an upstream, bytes. 64 servers of 2 KB would need twice that, and no registration has so many.
pub const UPSTREAM_FILE_BYTES: usize = 64 * 1024;
/// Memory of the cache of policy verdicts, bytes. At about 400 each, 160,000 verdicts.
pub const VERDICT_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Longest key of the verdict cache, bytes: a caller that names 64 tools of 256 bytes must not fill the cache.
pub const VERDICT_KEY_BYTES: usize = 4 * 1024;
/// Overhead of an entry of the verdict cache in addition to its key and policy ids, bytes: two allocations and moka's own entry.
pub const VERDICT_OVERHEAD: usize = 200;
/// Memory per policy set for the cache of applicable policies, bytes. An entry ("slice") holds the policies that can apply to a set of
/// callers and a resource. Of 200 policies an entry has 5, so this holds 1,300 entries: callers differ by their roles, and resources are
/// few.
pub const SLICE_CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Overhead of a policy in such an entry, bytes, in addition to the policy itself, which is shared: Cedar's three maps of ids and its
/// handles.
pub const SLICE_POLICY_BYTES: usize = 1024;
/// Memory per policy set for callers and resources converted to Cedar entities, bytes: 5,000 pairs.
pub const SIDES_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Size of such a pair without its key, bytes: three entities, their attributes and parents.
pub const SIDES_BYTES: usize = 3 * 1024;

/// Files that a server has open in addition to its connections: listeners, the store, snapshots, files of threads. Twice the measured
/// number (30).
pub const OTHER_FILES: u64 = 64;
/// Most threads that serve workloads. Four for each core of the largest machines that can be rented today.
pub const WORKERS: usize = 1_024;
/// Open connections on the workload listener. At 64 KB each, 1.3 GB.
pub const CONNECTIONS: usize = 20_000;
/// Open connections on the admin listener. Enough for a team and its automation; a flood of workloads never reaches this listener.
pub const ADMIN_CONNECTIONS: usize = 256;
/// Open connections on the public listener. Each lives for `PUBLIC_CONNECTION_MS` at most and costs 64 KB: 260 MB.
pub const PUBLIC_CONNECTIONS: usize = 4_096;
/// Concurrent handshakes. Each takes 290 µs of a core (measured): 512 are 150 ms of work.
pub const HANDSHAKES: usize = 512;
/// Nice value of the handshake threads (sched(7)). While all cores issue credentials, a handshake thread gets a tenth of the share of
/// another thread. 512 handshakes then take 1.5 s, a third of `HANDSHAKE_MS`.
pub const HANDSHAKE_NICE: i32 = 10;
/// Listen backlog: connections that wait in the kernel until they are accepted. Linux allows as many by default (net.core.somaxconn). With
/// the usual backlog of 128, further peers would wait for a second and retry.
pub const BACKLOG: i32 = 4_096;
/// Longest handshake, milliseconds. A peer that takes longer has stalled.
pub const HANDSHAKE_MS: u64 = 5_000;
/// Longest time for a connection's first HTTP/2 frames, and for a header block on HTTP/1, milliseconds. As `HANDSHAKE_MS`.
pub const HEADER_MS: u64 = 5_000;
/// Concurrent streams (calls) on one connection.
pub const CONNECTION_STREAMS: u32 = 1_024;
/// Largest request message, bytes: 100 exchanges with arguments of 16 KiB each.
pub const REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// Largest header list, bytes. The default of widely used servers is 8 to 16 KiB; gRPC sends under 1 KiB.
pub const HEADER_BYTES: u32 = 16 * 1024;
/// Time for open calls to end when the server stops, milliseconds. A third of the 30 s that Kubernetes waits before SIGKILL.
pub const SHUTDOWN_MS: u64 = 10_000;
/// Longest time from the stop signal until the process ends, even if a part of it hangs, milliseconds: twice `SHUTDOWN_MS`, below the 30 s
/// of Kubernetes.
pub const SHUTDOWN_LAST_MS: u64 = 20_000;
/// Rows in one page of a list. At 500 bytes each, half a MB: below gRPC clients' 4 MB.
pub const PAGE: usize = 1_000;
/// Longest wait that a caller may ask for, milliseconds. Twice `FEED_MAX_AGE_MS`: by then a follower has applied the rule or has been
/// removed from the list.
pub const WAIT_MS: u64 = 60_000;
/// Default number of rows in one page of a list. Two screens.
pub const PAGE_DEFAULT: usize = 100;
/// Most approvals that are pending, usable or recently ended. At 4 KB each, 40 MB; more than people decide in a day.
pub const APPROVALS: usize = 10_000;
/// Most pending or usable approvals of one caller. A caller in a loop must not fill the list that people look at.
pub const APPROVALS_PER_CALLER: usize = 64;
/// Largest terms of a task that needs an approval, bytes: nobody reads more. With all of `APPROVALS` at this size, 80 MB.
pub const APPROVAL_TERMS_BYTES: usize = 8 * 1024;
/// Longest text of an operator's request in an approval, bytes: nobody reads more. With all of `APPROVALS` at this size, 80 MB.
pub const CALL_TEXT_BYTES: usize = 8 * 1024;
/// Most changes that wait for a second operator. Each may be a policy set, so at most 16 MB.
pub const CHANGES_WAITING: usize = 64;
/// Longest time that a call waits for an approval, milliseconds: a minute, the time that proxies commonly allow a call. If the approver
/// decides later, the caller finds out by retrying the request.
pub const APPROVAL_WAIT_MS: u64 = 60_000;
/// Most people that a registration names as approvers. As `TASK_LIST`.
pub const APPROVERS: usize = TASK_LIST;
/// Longest time from the request for an approval until the approval is used, milliseconds: 24 h, as `TASK_TTL_MS`. Rules are kept as long.
pub const APPROVAL_TTL_MS: u64 = TASK_TTL_MS;
/// Default time from the request for an approval until it is used, milliseconds: an hour.
pub const APPROVAL_TTL_DEFAULT_MS: u64 = 3_600_000;
/// Time before a registration expires at which a warning is given, milliseconds: 14 days.
pub const REGISTRATION_WARN_MS: u64 = 14 * 24 * 3_600_000;
/// Time without a live credential after which a registration counts as unused, milliseconds: 30 days, so that monthly jobs count as use.
pub const UNUSED_AFTER_MS: u64 = 30 * 24 * 3_600_000;
/// TTL above which a registration of high-impact credentials is reported as broad, milliseconds: 15 minutes, as AWS's shortest session.
pub const BROAD_TTL_MS: u64 = 900_000;
/// Longest search for credentials that a narrower policy set or registration would refuse, milliseconds: somebody waits for it. Credentials
/// that were not examined by then are revoked by a coarser rule.
pub const NARROWING_LOOK_MS: u64 = 10_000;
/// Most groups of credentials (caller, upstream, scopes, tool) that this search distinguishes: 10,000 with 64 ids each are 20 MB for the
/// seconds of the search. Beyond it a coarser rule is used.
pub const NARROWING_GROUPS: usize = 10_000;
/// Entries that a list, or a count of affected credentials, examines under one lock. At 0.2 µs each under 1 ms: the writer waits meanwhile.
pub const LIST_WALK: usize = 4_096;
/// Longest name of a follower, which distinguishes the instances of one caller, bytes: a host name and a pid.
pub const FOLLOWER_NAME_BYTES: usize = 128;
/// Largest authorization details of an exchange (RFC 9396), bytes of JSON. As large as arguments.
pub const AUTHORIZATION_DETAILS_BYTES: usize = ARGUMENTS_BYTES;
/// Use reports in one call. At 200 bytes each a tenth of `REQUEST_BYTES`.
pub const USES: usize = 1_000;
/// Pause between two attempts to reopen a failed store, milliseconds. Opening takes 1 to 19 ms (measured): a tenth of one core at most.
pub const REOPEN_PAUSE_MS: u64 = 200;
/// Pause between two pings on a quiet connection, milliseconds. A peer that vanished holds its connection for this time and
/// `KEEP_ALIVE_ANSWER_MS`.
pub const KEEP_ALIVE_MS: u64 = 20_000;
/// Longest wait for the answer to a ping, milliseconds. Half of `KEEP_ALIVE_MS`: a lost packet is retransmitted within it.
pub const KEEP_ALIVE_ANSWER_MS: u64 = 10_000;
/// Longest time before its SVID expires at which a connection is asked to close, milliseconds: open calls then have that long. If less of
/// the SVID is left, a tenth of the remaining life.
pub const SVID_END_MARGIN_MS: u64 = 30_000;
/// Time for open calls after their connection lost its authorization, milliseconds. A commit takes a few milliseconds: calls in progress
/// can be answered, new work cannot begin.
pub const CLOSE_MS: u64 = 500;
/// Longest life of a connection on the public listener, milliseconds: its peers are unauthenticated and must not hold connections for long.
pub const PUBLIC_CONNECTION_MS: u64 = 60_000;
/// Flow-control window of one stream, bytes: the amount that a peer may send before a handler has consumed it.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Flow-control window of one connection, bytes. See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes buffered on one stream for a peer that does not read. As `STREAM_WINDOW_BYTES`, for the other direction.
pub const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Most exchanges of one stream that are decided as one batch: 0.5 ms of one core.
pub const STREAM_ROUND: usize = 32;
/// Time that deciding such a batch may take, microseconds: if decisions are slow, a batch has fewer exchanges. Twice the usual time of a
/// batch.
pub const STREAM_ROUND_US: u64 = 1_000;
/// Time for which decisions made for one batch are reused for later batches of the same connection, milliseconds. At 5,000 exchanges a
/// second on one connection, a task of a hundred exchanges has ended by then.
pub const SERIES_LASTS_MS: u64 = 20;
/// Tasks for which a connection keeps reusable decisions: the task in use and the one before it.
pub const SERIES_KEPT: usize = 2;
/// Longest queueing time of exchanges before they are decided, milliseconds: an exchange that would wait longer is refused. People do not
/// notice a tenth of a second; 256 decisions of 0.4 ms, which no cache answers, fit on one thread.
pub const INTAKE_WAIT_MS: u64 = 100;
/// Work of deciding that the admission queue hands to the scheduler at once, microseconds per thread. A tenth of `REFUSED_WITHIN_MS`.
pub const INTAKE_TURN_US: usize = 500;
/// Queueing time up to which exchanges go to the scheduler immediately, microseconds: half of the 5 ms within which a call is refused at
/// the latest, and more than 256 cached decisions take on two cores.
pub const INTAKE_CROWD_US: u64 = 2_500;
/// Assumed cost of a decision before any was measured, nanoseconds: with a signature and without evaluating a policy (measured).
pub const INTAKE_DECISION_NS: u64 = 25_000;
/// Time from reading a call to refusing it for lack of capacity, milliseconds. At most a tenth of the first retry delay of usual clients,
/// so that the refusal adds little to that delay.
pub const REFUSED_WITHIN_MS: u64 = 5;
/// Bytes of incomplete messages of one connection: eight messages of the largest size.
pub const CONNECTION_UNFINISHED_BYTES: usize = 8 * REQUEST_BYTES;
/// Bytes of incomplete messages of all connections: an eighth of a small server's memory.
pub const UNFINISHED_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of answers of one connection that are sent in one write: a few TLS records (16 KiB, RFC 8446, section 5.1).
pub const GATHERED_BYTES: usize = 64 * 1024;
/// Polling interval of certificate and bundle files, milliseconds: a stat and a read of a few KB each.
pub const FILE_POLL_MS: u64 = 2_000;
/// Interval between two checks for missed heartbeats, milliseconds. A fifth of `HEARTBEAT_MIN_MS`.
pub const TASK_TICK_MS: u64 = 1_000;
/// Bytes of imported records in one group: a quarter of a commit (`COMMIT_BYTES`).
pub const IMPORT_BYTES: usize = COMMIT_BYTES / 4;

/// Bits of an index in a status list: 2^20 entries of one bit are 128 KiB, or 2.4 KiB compressed where one in 10,000 is revoked.
pub const STATUS_INDEX_BITS: u32 = 20;
/// The credentials of one status list expire within this time of each other, milliseconds: a list is no longer needed soon after its
/// credentials expired.
pub const STATUS_SPAN_MS: u64 = 600 * 1000;

/// Cache lifetime of the JWKS, milliseconds. Minutes, as caches of JWKS commonly use; the compromise of a key does not wait for it, since
/// the feed announces it.
pub const JWKS_MAX_AGE_MS: u64 = 300 * 1000;
/// Time for which a key is published before it signs, milliseconds: twice `JWKS_MAX_AGE_MS`, so that one failed fetch does no harm.
pub const KEY_PUBLISHED_AHEAD_MS: u64 = 2 * JWKS_MAX_AGE_MS;
/// Time for which a key signs, milliseconds. NIST SP 800-57 part 1, table 1 allows 1 to 3 years; a month keeps the rotation path exercised.
pub const KEY_SIGNS_MS: u64 = 30 * 24 * 3600 * 1000;
/// Time for which a key signs checkpoints, milliseconds: a year, the shortest period that NIST SP 800-57 part 1, table 1 has for such keys.
pub const CHECKPOINT_KEY_SIGNS_MS: u64 = 365 * 24 * 3600 * 1000;
/// Longest signed note that is parsed, bytes: a checkpoint is under 500, the statement of an export under 20 KB with the longest filter.
pub const NOTE_BYTES: usize = 32 * 1024;
/// Most signatures of a note. C2SP's checkpoints also carry the signatures of witnesses.
pub const NOTE_SIGNATURES: usize = 16;
/// Longest line of an export, bytes: the largest record (`RECORD_BYTES`), once in base64 and once readable.
pub const EXPORT_LINE_BYTES: usize = 4 * RECORD_BYTES;
/// Polling interval of the continuous export for new commits, milliseconds. As `DERIVE_LOOK_MS`.
pub const EXPORT_LOOK_MS: u64 = DERIVE_LOOK_MS;
/// Interval at which the continuous export stores its position, milliseconds. Each store is a durable write; after a crash, records since
/// the last stored position are exported again.
pub const EXPORT_NOTE_MS: u64 = 1_000;
/// Longest wait for a syslog or a collector, milliseconds. As long as the command line waits for a call.
pub const EXPORT_CALL_MS: u64 = 10_000;
/// Longest wait for an export to end at shutdown, milliseconds: a fifth of `SHUTDOWN_MS`. Records beyond the last stored position are
/// exported again.
pub const EXPORT_END_MS: u64 = 2_000;
/// Largest answer of a collector that is read, bytes. The answer's message names the rejected records.
pub const EXPORT_ANSWER_BYTES: usize = 64 * 1024;
/// Largest key file that the verification of an export reads, bytes: as a bundle of `KEYS` keys.
pub const CHECK_KEYS_BYTES: usize = 64 * 1024;
/// Longest time that a checkpoint waits until the Merkle tree covers the newest commit, milliseconds. A third of the longest wait that a
/// caller may ask for.
pub const CHECKPOINT_WAIT_MS: u64 = WAIT_MS / 3;
/// Bytes of history that one call of VerifyLedger reads. About a second of one core.
pub const VERIFY_CALL_BYTES: usize = HISTORY_BYTES;
/// Time for which a key verifies after its last signature, milliseconds: the longest TTL, a view's age, and skew on both sides.
pub const KEY_VERIFIES_MS: u64 = CREDENTIAL_TTL_MS + VIEW_MAX_AGE_MS + 2 * CLOCK_SKEW_MS;

/// Bytes of history that one call of VerifyLedger, or one lookup that no index covers, reads. Reading and hashing take about a second of
/// one core.
pub const HISTORY_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of history that one query reads with the help of the index, and bytes that it reads of the part that the index does not cover.
/// Scanning names alone takes a third of a second of one core (200 MB a second, measured).
pub const LOOK_BYTES: usize = 64 * 1024 * 1024;
/// Time for which one query reads the part that the index does not cover, milliseconds: the whole answer is to be there within a second.
pub const LOOK_UNCOVERED_MS: u64 = 400;
/// Bytes of the newest history that one query reads record by record. Hashing and decoding take half a second of one core.
pub const LOOK_BACK_BYTES: usize = 16 * 1024 * 1024;
/// Concurrent queries that read history: each uses a whole core.
pub const HISTORY_QUESTIONS: usize = 2;
/// Longest time that a query waits for one of these places, milliseconds: two other queries end in that time.
pub const HISTORY_QUESTION_WAIT_MS: u64 = 500;
/// Time spent on finding the causes of the rules and locks in one list, milliseconds. A list without some causes is better than no list.
pub const CAUSES_LOOK_MS: u64 = 300;
/// Bytes of history that one page of a search may read. A quarter of a second of one core: pages keep arriving while a long search runs.
pub const SEARCH_BYTES: usize = 64 * 1024 * 1024;
/// Concurrent sequential readers of the ledger (tails and exports). Each holds about `READER_BYTES` and the records of one commit.
pub const READERS: usize = 16;
/// Bytes of history that such a reader reads in one step. About 3 ms of one core.
pub const READER_BYTES: usize = 1024 * 1024;
/// Commits that a tail may lag after it had caught up, before its stream ends with an error. Minutes at full load (`GATHER_RECORDS`).
pub const TAIL_LAG: u64 = 65_536;
/// Bytes of records in one page of a search. With the overhead of JSON, below gRPC clients' 4 MB.
pub const SEARCH_PAGE_BYTES: usize = 1024 * 1024;
/// Records in one explanation. A task of 100 credentials is returned whole; at 1 KB each, 100 KB.
pub const EXPLAIN_RECORDS: usize = 100;
/// Commits that a watcher of credentials may lag before its stream ends with an error. At 256 records of 600 bytes each, 40 MB.
pub const WATCH_LAG: usize = 256;
/// Events queued for one watcher of credentials. One full commit (`GATHER_RECORDS`).
pub const WATCH_QUEUE: usize = 256;
/// Credentials examined under one lock of the state for a watcher: at 2 µs for each reported credential, 8 ms at worst.
pub const WATCH_WALK: u32 = 4_096;
/// Bytes of history that are read for a watcher that resumes: `WATCH_RESUME` records of a KB.
pub const WATCH_RESUME_BYTES: usize = 64 * 1024 * 1024;
/// Records that a resuming watcher may have missed. As `FEED_EVENTS`: some seconds of full load.
pub const WATCH_RESUME: usize = 65_536;
/// Pause between two keep-alive messages on a stream of credentials, milliseconds. Half of `KEEP_ALIVE_MS`.
pub const WATCH_SIGN_MS: u64 = 10_000;
/// Longest time for which an operator may have a key published before it signs, milliseconds. A week: by then every cache has fetched the
/// JWKS again.
pub const KEY_PUBLISHED_AHEAD_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
