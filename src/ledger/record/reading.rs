//! Who read the ledger itself, and who took a copy of it away.

use prost::Message;

/// What of the audit is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ReadOf {
    /// Of no sort that there is.
    Unspecified = 0,
    /// Records that fit a filter, a page of them.
    Search = 1,
    /// One thing, explained from its records.
    Explain = 2,
    /// Records in order, signed.
    Export = 3,
    /// Records as they become durable.
    Tail = 4,
    /// A credential by its id, from history too.
    Credential = 5,
    /// A credential by a token or its digest.
    Lookup = 6,
}

/// Somebody read the audit. Reads of one sort that ask the same within a minute may stand in one record.
#[derive(Clone, PartialEq, Message)]
pub struct AuditRead {
    /// What was read.
    #[prost(enumeration = "ReadOf", tag = "1")]
    pub of: i32,
    /// What was asked: each question once, of the first few. Never a token.
    #[prost(string, repeated, tag = "2")]
    pub asked: Vec<String>,
    /// How many reads. 0: what came of one that was recorded before, which took its time.
    #[prost(uint64, tag = "3")]
    pub reads: u64,
    /// Records that came back, in all of them.
    #[prost(uint64, tag = "4")]
    pub returned: u64,
    /// When the first of them was.
    #[prost(uint64, tag = "5")]
    pub since: u64,
}

/// A backup was begun, or was handed over whole.
#[derive(Clone, PartialEq, Message)]
pub struct BackedUp {
    /// Where it goes, as whoever took it named that. Empty: it was not named.
    #[prost(string, tag = "1")]
    pub to: String,
    /// It has everything up to this record.
    #[prost(uint64, tag = "2")]
    pub head: u64,
    /// It was handed over whole. Until then only some of it may have been.
    #[prost(bool, tag = "3")]
    pub whole: bool,
}
