//! Options for opening an embedded store, equal for all engines.

use super::StoreId;
use mayfly_base::limits;

/// Options for opening a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The identity that the store gets if it is created now.
    pub new_id: StoreId,
    /// Memory for the page cache, bytes.
    pub cache_bytes: usize,
    /// A segment file is full with so many bytes of commits, if the engine uses several files.
    pub segment_bytes: u64,
    /// Size of one file of the write-ahead log, bytes, if the engine has one.
    pub log_file_bytes: u64,
    /// From this file size on, the engine no longer scans the file after a crash; instead it writes with each change the data that the scan
    /// would find (quick-repair). Bytes.
    pub quick_repair_bytes: u64,
    /// Maximum number of named values.
    pub named_values: usize,
    /// Disk space reserved for revocations, bytes; 0 for none.
    pub reserve_bytes: u64,
    /// Free space below which the reserve reports that room is low, bytes.
    pub low_bytes: u64,
}

impl StoreOptions {
    /// The defaults of `limits.rs`. `new_id`: 16 random bytes, used only if there is no store yet.
    pub fn new(new_id: [u8; 16]) -> StoreOptions {
        StoreOptions {
            new_id: StoreId::from_bytes(new_id),
            cache_bytes: limits::STORE_CACHE_BYTES,
            segment_bytes: limits::STORE_SEGMENT_BYTES,
            log_file_bytes: limits::STORE_LOG_FILE_BYTES,
            quick_repair_bytes: limits::STORE_QUICK_REPAIR_BYTES,
            named_values: limits::NAMED_VALUES,
            reserve_bytes: limits::DISK_RESERVE_BYTES,
            low_bytes: limits::DISK_LOW_BYTES,
        }
    }
}
