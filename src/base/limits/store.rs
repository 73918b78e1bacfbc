//! Limits of the ledger and its store.

use super::VIEW_MAX_AGE_MS;

/// Most records in one commit. 0.9 µs of store CPU per record at 256 against 4.5 at 32 (measured, redb).
pub const GATHER_RECORDS: usize = 256;
/// Fewest grants in progress at which group commit splits them into halves. With 64 and 128 grants this gave no more throughput and cost a
/// twentieth of a signature more; with 256 it gives a quarter more, at the same cost (measured).
pub const GATHER_HALVES: usize = 192;
/// Buffer capacity kept from one commit for the next, bytes: a commit of `GATHER_RECORDS` full records of 600 bytes has 150 KB.
pub const COMMIT_ROOM_BYTES: usize = 256 * 1024;
/// Longest wait of a group commit, microseconds. At 45,000 records a second 180 records arrive in that time (measured).
pub const GATHER_WAIT_US: u64 = 4_000;
/// Largest commit, bytes. 76 MB in one transaction stop redb for half a second; 8 MB have no noticeable effect.
pub const COMMIT_BYTES: usize = 8 * 1024 * 1024;
/// Largest single record, bytes: a policy set and its audit context.
pub const RECORD_BYTES: usize = 512 * 1024;
/// Proposals queued for the writer, over all callers. At 45,000 a second, 0.4 s of work.
pub const QUEUE_GRANTS: usize = 16_384;
/// Revocations and other operators' proposals queued for the writer. The writer takes them first: 16 commits (`GATHER_RECORDS`).
pub const QUEUE_REVOCATIONS: usize = 4_096;
/// Expired entries examined per commit: 1,024 × 0.3 µs take less than a flush. A credential is examined twice, when it expires and when its
/// request id may be forgotten, so this is twice the number of records of a full commit.
pub const EXPIRE_PER_COMMIT: usize = 1_024;
/// Expired entries examined per commit for each table of separately allocated entries (tasks, rules, requests that issued no credential),
/// if they expired within the current second: soon after a snapshot began, each removal copies some KB. Entries that expired in an earlier
/// second do not wait.
pub const EXPIRE_ALONE_PER_COMMIT: usize = 64;
/// Most commits between snapshots. A start replays at most this many, and those that arrived while the newest snapshot was written.
pub const SNAPSHOT_EVERY_COMMITS: u64 = 50_000;
/// Records between snapshots, or half the number of credentials in memory if that is larger: a start replays them in a second or two.
pub const SNAPSHOT_EVERY_RECORDS: u64 = 1_000_000;
/// Refusals recorded individually per caller, reason and minute: the first few tell what is asked. Further refusals are counted, so
/// that a caller in a loop does not fill the disk.
pub const REFUSALS_RECORDED: u32 = 3;
/// Combinations of caller, reason and minute for which refusals are counted separately; further ones share a counter. At 500 bytes each, 2
/// MB.
pub const REFUSAL_COUNTERS: usize = 4_096;

/// Largest named value of a store, bytes. The largest are sealed arguments that await approval: four times `ARGUMENTS_BYTES`.
pub const NAMED_VALUE_BYTES: usize = 64 * 1024;
/// Longest name of a named value, bytes. The name holds a purpose, an environment and an id: twice `NAME_BYTES`.
pub const NAMED_VALUE_NAME_BYTES: usize = 512;
/// Most named values. Signing keys, and the arguments of approvals: ten times `APPROVALS`.
pub const NAMED_VALUES: usize = 100_000;
/// Disk kept free for revocations, closings and retention, bytes: 512 commits of revocations at least (`store::reserve`).
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Free disk space below which nothing is granted, bytes. A commit of 8 MiB takes 16.4 MB of new blocks (measured, redb): space for three.
pub const DISK_LOW_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of the reserve that are released at once. A commit of revocations takes 16 to 96 KB of new blocks (measured, redb).
pub const DISK_RESERVE_PIECE_BYTES: u64 = 128 * 1024;
/// Time for which a measurement of free space is reused, milliseconds. At 45,000 records a second, 2 MB are written meanwhile.
pub const DISK_STATE_MS: u64 = 100;
/// Memory for the page cache of the embedded store, bytes. The store reads almost nothing back, since the live ledger is in memory.
pub const STORE_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Approximate bytes of commits in one file of the embedded store. After a crash the files that were open are repaired: 30 ms each
/// (measured, redb).
pub const STORE_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Size from which a store file is repaired by redb's quick repair, bytes: files grow so large if the next file could not be created or if
/// they are older than segmented storage. Full repair takes a second for 2 GB (measured, redb).
pub const STORE_QUICK_REPAIR_BYTES: u64 = 4 * STORE_SEGMENT_BYTES;
/// Files of the write-ahead log of the embedded store: one is written, one is being moved into the store, one is ready.
pub const STORE_LOG_FILES: usize = 3;
/// Size of one file of the write-ahead log, bytes. Its content is moved into the store in one transaction: 40 commits of 52 KB share the
/// cost. The commits of all log files are in memory until they have been moved.
pub const STORE_LOG_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Largest log file that is accepted at the start, bytes: a larger file was not written by mayfly. Log files are read whole.
pub const STORE_LOG_FILE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes moved from the write-ahead log in one transaction, unless one commit is larger: two log files, which filled while one was
/// moved.
pub const STORE_LOG_MOVE_BYTES: usize = 4 * 1024 * 1024;
/// Files of older commits that stay open: a reader goes from one file to the next. The page cache is divided among these files, the first
/// and the newest.
pub const STORE_SEGMENTS_OPEN: usize = 2;
/// Most commits removed in one transaction; `STORE_REMOVE_BYTES` and one commit is the other limit.
pub const STORE_REMOVE_COMMITS: usize = 256;
/// Approximate bytes removed in one transaction. An append waits for the removal: 8 MiB take some 10 ms.
pub const STORE_REMOVE_BYTES: usize = 8 * 1024 * 1024;
/// Largest row in sled, key and value, bytes. Sled's pages have up to 20 rows, and a page above 131,052 bytes is stored outside of the log,
/// in a file that is never synced.
pub const SLED_ROW_BYTES: usize = 4_000;
/// Most log bytes that sled writes for a change without content: the rest of a segment of 512 KiB, and rewritten pages. With
/// `SLED_LOG_FACTOR`, twice the measured 410 KB for commits of 50 KB, which need the most.
pub const SLED_LOG_BYTES: u64 = 1024 * 1024;
/// Most log bytes that sled writes per byte of a commit: 3.7 to 5 (measured), since pages are rewritten as rows are added to them.
pub const SLED_LOG_FACTOR: u64 = 6;
/// Bytes of blocks that are allocated beyond the needs of the next change: one call for some hundred commits.
pub const SLED_AHEAD_BYTES: u64 = 1024 * 1024;
/// Rows removed from sled in one step, unless one commit has more: an append waits for a step. A commit of 1 MB has as many rows.
pub const SLED_REMOVE_ROWS: usize = 256;
/// Attempts to get sled's file lock: sled's threads release it a moment after the store was closed.
pub const SLED_LOCK_TRIES: usize = 500;
/// Pause between two such attempts, milliseconds: with jitter, five to ten seconds in all.
pub const SLED_LOCK_PAUSE_MS: u64 = 10;
/// Interval between two checks of the retained history, milliseconds. At 25 MB a second, 250 MB are written meanwhile.
pub const KEEP_LOOK_MS: u64 = 10_000;
/// History that is retained regardless of `audit.keep`, milliseconds. As `VIEW_MAX_AGE_MS`: a decision in progress finds the history that
/// it saw.
pub const KEEP_LEAST_MS: u64 = VIEW_MAX_AGE_MS;
/// Most bytes of history that one removal record covers. They are read once before their removal: a second or two of a core.
pub const KEEP_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of that history that are read at once. Reads of 8 MiB delayed commits by up to 13 ms (measured); the disk finishes a read of this
/// size in a few milliseconds.
pub const KEEP_READ_BYTES: usize = 1024 * 1024;
/// Fewest commits of one removal; fewer wait for more: a removal costs a record and a few flushes.
pub const KEEP_COMMITS: u64 = 16;
/// Largest file that is read as a sealing key, bytes: 32 bytes as hex with a line end fit twice.
pub const SEALING_KEY_FILE_BYTES: usize = 132;
/// Polling interval for new commits of the threads that derive data from history, milliseconds: five reads of a number per second.
pub const DERIVE_LOOK_MS: u64 = 200;
/// Pause of the deriving threads after each step, as a multiple of the step's time: at most a fifth of one core, about 25 MB a second.
pub const DERIVE_REST: u64 = 4;
/// Commits after which the newest leaves of the Merkle tree are synced. At 32 bytes each, 256 KiB; as many commits are read again after a
/// crash.
pub const DERIVE_FLUSH_COMMITS: u64 = 8_192;
/// Longest time until they are synced, milliseconds: few flushes in comparison with those of commits.
pub const DERIVE_FLUSH_MS: u64 = 10_000;
/// Approximate bytes of records in one block of the history index: a search reads one block per hit, 3 ms of one core.
pub const INDEX_BLOCK_BYTES: usize = 1024 * 1024;
/// Commits not covered by the index from which `status` warns. At 50 KB each, as many as one query reads without the index (`LOOK_BYTES`).
pub const INDEX_WARN_COMMITS: u64 = 1_280;
/// Blocks after which the newest part of the index is written to disk, so that a start after a kill need not read them again: a quarter of
/// a segment, so a segment of 3 MB is written two and a half times.
pub const INDEX_WRITE_BLOCKS: usize = 16;
/// Retry delay given to callers while the index is built, milliseconds. As long as the command line waits for a call: the call is refused
/// at once instead of waiting.
pub const INDEX_ASK_AGAIN_MS: u64 = 10_000;
/// Time until a part of the index that could not be written is tried again, milliseconds: each attempt reads 64 MiB.
pub const INDEX_RETRY_MS: u64 = 60_000;
/// Bytes of a backup's snapshot in one piece, and bytes of backup data in one message: as much as a sequential reader reads in one step
/// (`READER_BYTES`).
pub const BACKUP_PIECE_BYTES: usize = 1024 * 1024;
/// Longest JSON header of a backup, bytes: some 400, and room for additions of later versions.
pub const BACKUP_TEXT_BYTES: usize = 16 * 1024;
/// Longest time that a backup waits for its client to take the next message, milliseconds: removal of old history waits meanwhile.
pub const BACKUP_STALL_MS: u64 = 60_000;
/// Longest time of one commit before the disk is reported as stalled, milliseconds. A flush of a good disk takes 0.5 at p99, and one of a
/// shared disk seconds at worst; callers allow a call 10 s, and health probes run about as often.
pub const COMMIT_STALL_MS: u64 = 3_000;
/// Longest time by which the acknowledged head beside the log lags on stable storage, milliseconds: one flush more among the thousand that
/// a disk makes in that time. The lag matters only after a power failure: writes of a killed process are still in the kernel.
pub const STORE_HEAD_SYNC_MS: u64 = 1_000;
