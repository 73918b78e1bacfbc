//! The lines of an export: JSON, one item each, in the order of the ledger. `docs/audit.md` describes them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use mayfly_ledger::commit::Hash;

/// The version of the format.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExportLine {
    /// The first line.
    Export(ExportHeader),
    /// Commits without any exported record.
    Gap(OmittedRange),
    /// A commit with exported records, which follow.
    Commit(ExportedCommit),
    /// Records of that commit that are not exported.
    Leaves(OmittedRange),
    /// An exported record of that commit.
    Record(Box<ExportedRecord>),
    /// The last line.
    End(ExportFooter),
}

/// The parameters of an export.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExportHeader {
    /// The format.
    pub format: u32,
    /// The name of the ledger.
    pub origin: String,
    /// The requested filter; its parts are named as in `RecordFilter`.
    pub filter: serde_json::Map<String, serde_json::Value>,
    /// The first commit that was searched.
    pub from: u64,
}

/// Adjacent items that are not exported, as the roots of complete subtrees over them, as few as possible.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct OmittedRange {
    /// The first item.
    pub from: u64,
    /// The last item.
    pub to: u64,
    /// The roots, base64.
    pub nodes: Vec<String>,
}

/// A commit.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExportedCommit {
    /// The position of the commit.
    pub commit: u64,
    /// The sequence number of its first record.
    pub first: u64,
    /// The bytes of its header, base64.
    pub header: String,
}

/// A record.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExportedRecord {
    /// The sequence number.
    pub seq: u64,
    /// The bytes of the record, base64.
    pub bytes: String,
    /// The time of the commit, for people.
    pub at: String,
    /// The event.
    pub event: String,
    /// The author.
    pub author: String,
    /// The content.
    pub body: serde_json::Value,
}

/// The server's statement about the export.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExportFooter {
    /// The checkpoint that the proofs lead to: a signed note.
    pub checkpoint: String,
    /// The counts of the exported records, and the claim that the export is complete: a signed note.
    pub statement: String,
    /// The proof that the checkpoint extends an older one, if one was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<ConsistencyProof>,
}

/// The consistency proof from an older checkpoint (RFC 9162, section 2.1.4).
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyProof {
    /// The number of commits of the older checkpoint.
    pub size: u64,
    /// The hashes of the proof, base64.
    pub nodes: Vec<String>,
}

impl ExportLine {
    /// The line with its line end. Characters outside ASCII are JSON escapes, so that a line cannot act on a terminal.
    pub fn text(&self) -> String {
        // Maps of strings and numbers always serialize.
        let mut text = ascii(&serde_json::to_string(self).unwrap_or_default());
        text.push('\n');
        text
    }
}

/// Replaces characters outside ASCII by JSON escapes.
pub fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String never fails.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The encoding of hashes and bytes.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes bytes; `None` if invalid.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Decodes a hash; `None` if invalid.
pub fn hash(text: &str) -> Option<Hash> {
    bytes(text)?.try_into().ok()
}

/// The text of the server's statement about an export, which is then signed. Its first line differs from that of a checkpoint.
pub fn statement(origin: &str, size: u64, root: &Hash, counts: &ExportCounts, digest: &Hash) -> String {
    let ExportCounts { from, to, records } = counts;
    let (root, digest) = (base64(root), base64(digest));
    format!("{origin}/export\n{size}\n{root}\ncommits {from} {to}\nrecords {records}\nsha256 {digest}\n")
}

/// The numbers of what an export contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExportCounts {
    /// The first commit that was searched.
    pub from: u64,
    /// The last commit that was searched.
    pub to: u64,
    /// The number of matching records, all of which are included.
    pub records: u64,
}
