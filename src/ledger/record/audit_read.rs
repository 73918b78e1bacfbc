//! Records of reads of the audit and of backups.

use prost::Message;

/// The kind of an audit read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AuditReadKind {
    /// Never written.
    Unspecified = 0,
    /// A page of records that match a filter.
    Search = 1,
    /// An explanation of an object from its records.
    Explain = 2,
    /// A signed export of records in order.
    Export = 3,
    /// Records as they become durable.
    Tail = 4,
    /// A credential by its id, including ended credentials from history.
    Credential = 5,
    /// A credential by a token or its digest.
    Lookup = 6,
}

/// The audit was read. Several reads of one kind within a minute may share a record.
#[derive(Clone, PartialEq, Message)]
pub struct AuditRead {
    /// The kind of read.
    #[prost(enumeration = "AuditReadKind", tag = "1")]
    pub of: i32,
    /// The first few different questions. Never contains a token.
    #[prost(string, repeated, tag = "2")]
    pub asked: Vec<String>,
    /// The number of reads. 0: the record has the result of a long read, whose beginning has a record of its own.
    #[prost(uint64, tag = "3")]
    pub reads: u64,
    /// The number of records that all these reads returned.
    #[prost(uint64, tag = "4")]
    pub returned: u64,
    /// The time of the first of these reads, milliseconds.
    #[prost(uint64, tag = "5")]
    pub since: u64,
}

/// A backup was begun, or completely sent.
#[derive(Clone, PartialEq, Message)]
pub struct BackedUp {
    /// The destination, as the operator named it. Empty if the operator named none.
    #[prost(string, tag = "1")]
    pub to: String,
    /// The sequence number of the last record in the backup.
    #[prost(uint64, tag = "2")]
    pub head: u64,
    /// Whether the backup was sent completely. Without this record, only a part may have been sent.
    #[prost(bool, tag = "3")]
    pub whole: bool,
}
