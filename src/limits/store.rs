//! Bounds of the ledger and what keeps it.

use super::VIEW_MAX_AGE_MS;

/// Most records gathered into one commit. 0.9 µs of store CPU per record at 256 against 4.5 at 32 (measured, redb).
pub const GATHER_RECORDS: usize = 256;
/// Fewest grants under way that are gathered by halves. With 64 and 128 that brought no more a second and cost a twentieth of a signature more; with
/// 256 it brings a quarter more, at the same cost (measured).
pub const GATHER_HALVES: usize = 192;
/// Room that is kept from one commit for the next, bytes: one of `GATHER_RECORDS` whole records of 600 bytes is 150 KB.
pub const COMMIT_ROOM_BYTES: usize = 256 * 1024;
/// Longest wait while gathering, microseconds. At 45,000 a second 180 records gather in it (measured; design, section 2).
pub const GATHER_WAIT_US: u64 = 4_000;
/// Largest commit, bytes. 76 MB in one transaction stop redb for half a second; 8 MB do not show.
pub const COMMIT_BYTES: usize = 8 * 1024 * 1024;
/// Largest single record, bytes: a policy set and its audit context.
pub const RECORD_BYTES: usize = 512 * 1024;
/// Proposals waiting for the writer, in all. At 45,000 a second, 0.4 s of work.
pub const QUEUE_GRANTS: usize = 16_384;
/// Revocations and other operators' work waiting for the writer. They go first: 16 commits (`GATHER_RECORDS`).
pub const QUEUE_REVOCATIONS: usize = 4_096;
/// Expired entries looked at per commit: 1,024 × 0.3 µs stay below a flush. A credential is looked at twice, at its end and when its request
/// id may be forgotten, so this is twice what a full commit brings.
pub const EXPIRE_PER_COMMIT: usize = 1_024;
/// The same of each thing that lies alone (tasks, rules, requests that made no credential), as long as it came due in this very second: soon after
/// a snapshot was begun each of them has some KB copied. What came due in a second before does not wait.
pub const EXPIRE_ALONE_PER_COMMIT: usize = 64;
/// Commits between snapshots at the most. So many a start folds, and what came while the newest was written.
pub const SNAPSHOT_EVERY_COMMITS: u64 = 50_000;
/// Records between snapshots, or half as many as there are credentials in memory if these are more: what a start folds in a second or two.
pub const SNAPSHOT_EVERY_RECORDS: u64 = 1_000_000;
/// Refusals recorded one by one per caller, reason and minute (design, section 2: the first few); beyond, counted.
pub const REFUSALS_RECORDED: u32 = 3;
/// Callers, reasons and minutes for which refusals are counted apart; beyond, together. At 500 bytes each, 2 MB.
pub const REFUSAL_COUNTERS: usize = 4_096;

/// Largest named value of a store, bytes (design, section 3).
pub const NAMED_VALUE_BYTES: usize = 64 * 1024;
/// Longest name of a named value, bytes. A purpose, an environment and an id: twice `NAME_BYTES`.
pub const NAMED_VALUE_NAME_BYTES: usize = 512;
/// Most named values (design, section 3).
pub const NAMED_VALUES: usize = 100_000;
/// Disk kept free for revocations, closings and retention, bytes: 512 commits of revocations at least (`store::reserve`).
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Free space below which nothing is granted, bytes. A commit of 8 MiB takes 16.4 MB of new blocks (measured, redb): three of them.
pub const DISK_LOW_BYTES: u64 = 64 * 1024 * 1024;
/// How much of the reserve is given back at once, bytes. A commit of revocations takes 16 to 96 KB of new blocks (measured, redb).
pub const DISK_RESERVE_PIECE_BYTES: u64 = 128 * 1024;
/// How long an answer about free space is good for, milliseconds. At 45,000 records a second, 2 MB are written meanwhile.
pub const DISK_STATE_MS: u64 = 100;
/// Memory that the embedded store may use for pages, bytes. It reads almost nothing back: a live ledger is in memory.
pub const STORE_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Commits in one file of the embedded store, bytes, about. After a crash the files that were open are looked through: 30 ms each (measured,
/// redb).
pub const STORE_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// A file from so many bytes on is not looked through, where the next one could not be made or it is from before there were several: a second
/// for 2 GB (measured, redb).
pub const STORE_QUICK_REPAIR_BYTES: u64 = 4 * STORE_SEGMENT_BYTES;
/// Files of the log before the embedded store: one is written, one is moved, one is ready.
pub const STORE_LOG_FILES: usize = 3;
/// One file of that log, bytes. What is in it is moved in one transaction: 40 commits of 52 KB share its cost. All files' commits are in memory
/// until they were moved.
pub const STORE_LOG_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// A file of the log that is larger is none of ours, bytes: it is read whole at the start.
pub const STORE_LOG_FILE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most that is moved from the log in one transaction, bytes, or one commit: two files of it, which came while one was moved.
pub const STORE_LOG_MOVE_BYTES: usize = 4 * 1024 * 1024;
/// Files of older commits that stay open, files: who reads goes from one to the next. With the first and the newest they share what there is
/// for pages.
pub const STORE_SEGMENTS_OPEN: usize = 2;
/// Removals in one transaction: at most this many commits, or `STORE_REMOVE_BYTES` and one commit.
pub const STORE_REMOVE_COMMITS: usize = 256;
/// Bytes removed in one transaction, about. An append waits for it: 8 MiB are some 10 ms.
pub const STORE_REMOVE_BYTES: usize = 8 * 1024 * 1024;
/// Largest row in sled, key and value, bytes. Its pages have up to 20 rows, and a page above 131,052 bytes leaves the log for a file that is
/// never synced.
pub const SLED_ROW_BYTES: usize = 4_000;
/// Log that sled writes at most for a change with no bytes: what is left of a segment of 512 KiB, and pages written again. With
/// `SLED_LOG_FACTOR`, twice what was measured for commits of 50 KB, which take the most: 410 KB.
pub const SLED_LOG_BYTES: u64 = 1024 * 1024;
/// Log that sled writes at most for each byte of a commit: 3.7 to 5 (measured), since pages are written again as rows come to them.
pub const SLED_LOG_FACTOR: u64 = 6;
/// Blocks that are allocated beyond what the next change needs, bytes: one call for some hundred commits.
pub const SLED_AHEAD_BYTES: u64 = 1024 * 1024;
/// Rows removed from sled in one step, or one commit: an append waits for a step. A commit of 1 MB has as many.
pub const SLED_REMOVE_ROWS: usize = 256;
/// Attempts to get a lock of sled's: its threads give it back a moment after the store was closed.
pub const SLED_LOCK_TRIES: u32 = 500;
/// Pause between two of them: five seconds in all.
pub const SLED_LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
/// Time between two looks at how much history is kept, milliseconds. At 25 MB a second, 250 MB are written meanwhile.
pub const KEEP_LOOK_MS: u64 = 10_000;
/// History that stays whatever `audit.keep` says, milliseconds. As `VIEW_MAX_AGE_MS`: what a decision under way has seen is there.
pub const KEEP_LEAST_MS: u64 = VIEW_MAX_AGE_MS;
/// Bytes of history that one record of a removal stands for, at most. Read once before they go: a second or two of a core.
pub const KEEP_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of them that are read at once. Beside reads of 8 MiB commits took up to 13 ms to be written (measured); of this much the disk has
/// done in a few.
pub const KEEP_READ_BYTES: usize = 1024 * 1024;
/// Fewer commits than these wait for more: a removal is a record and a few flushes of its own.
pub const KEEP_COMMITS: u64 = 16;
/// Largest file that is read as a sealing key, bytes: 32 bytes as hex with a line end fit twice.
pub const SEALING_KEY_FILE_BYTES: usize = 132;
/// Time between two looks for new commits by who derives from history, milliseconds: five looks a second at a number.
pub const DERIVE_LOOK_MS: u64 = 200;
/// How long who derives from history rests after each piece, times what that took: a fifth of one core at most, 25 MB a second or so.
pub const DERIVE_REST: u64 = 4;
/// Commits after which the tree's newest leaves are synced. At 32 bytes each, 256 KiB; as many are read again after a crash.
pub const DERIVE_FLUSH_COMMITS: u64 = 8_192;
/// Time after which they are in any case, milliseconds: few flushes beside those of commits.
pub const DERIVE_FLUSH_MS: u64 = 10_000;
/// Bytes of records in one block of the index of history, about: what a search reads for one hit, 3 ms of one core.
pub const INDEX_BLOCK_BYTES: usize = 1024 * 1024;
/// Commits beyond which `status` warns that the index does not cover them. At 50 KB each, as many as one question reads without it (`LOOK_BYTES`).
pub const INDEX_WARN_COMMITS: u64 = 1_280;
/// Blocks of the newest part of the index after which it is written down, so that a start after a kill need not read them again: a quarter of a
/// segment, so a segment of 3 MB is written two and a half times.
pub const INDEX_WRITE_BLOCKS: usize = 16;
/// When to ask again while the index is built, milliseconds. As long as the command line waits for a call: it says so at once, instead of waiting.
pub const INDEX_ASK_AGAIN_MS: u64 = 10_000;
/// Time until a part of the index that could not be written is tried again, milliseconds: it reads 64 MiB for it.
pub const INDEX_RETRY_MS: u64 = 60_000;
/// Bytes of a backup's snapshot in one piece, and of any of it in one message, bytes: as much as a reader takes at once (`READER_BYTES`).
pub const BACKUP_PIECE_BYTES: usize = 1024 * 1024;
/// What a backup says of itself in JSON, bytes: some 400, and room for what a later version adds.
pub const BACKUP_TEXT_BYTES: usize = 16 * 1024;
/// How long a backup waits for its reader to take the next message, milliseconds: history that is due stays for as long.
pub const BACKUP_STALL_MS: u64 = 60_000;
/// Longest time that one commit may take before its disk is said to stand still, milliseconds. A flush of a good disk takes 0.5 at p99, and one
/// of a disk that is shared seconds at the worst; a call is given 10 s by its caller, and a probe of health asks about as often.
pub const COMMIT_STALL_MS: u64 = 3_000;
/// Longest time that the acknowledged head beside the log is behind on stable storage, milliseconds: one flush more among the thousand that a
/// disk makes in that time. It counts after a power failure only: what a killed process had written, the kernel still has.
pub const STORE_HEAD_SYNC_MS: u64 = 1_000;
