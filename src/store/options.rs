//! How an embedded store is opened: the same for each engine.

use super::StoreId;
use crate::limits;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The identity that the store gets if it is made now.
    pub new_id: StoreId,
    /// Memory for pages, bytes.
    pub cache_bytes: usize,
    /// A file of the store has enough with so many bytes of commits, where the engine keeps them in several.
    pub segment_bytes: u64,
    /// One file of the log before the engine, bytes, where it has one.
    pub log_file_bytes: u64,
    /// A file of so many bytes, where the engine looks through its files after a crash, is too large for that: it writes down with each change
    /// what it would find.
    pub quick_repair_bytes: u64,
    /// Most named values.
    pub named_values: usize,
    /// Disk kept back for revocations, bytes; 0 for none.
    pub reserve_bytes: u64,
    /// Free space below which the reserve says that room is low, bytes.
    pub low_bytes: u64,
}

impl Options {
    /// The defaults of `limits.rs`. `new_id` is 16 random bytes, used only where there is no store yet.
    pub fn new(new_id: [u8; 16]) -> Options {
        Options {
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
