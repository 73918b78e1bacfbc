//! The lines of an export: JSON, one thing each, in the order of the ledger. `docs/audit.md` describes them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ledger::commit::Hash;

/// The version of the format.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// The first.
    Export(Begin),
    /// Commits of which nothing is told.
    Gap(Gap),
    /// A commit of which something is told. Its records follow.
    Commit(Told),
    /// Records of that commit of which nothing is told.
    Leaves(Gap),
    /// One of its records.
    Record(Box<Whole>),
    /// The last.
    End(End),
}

/// What an export is of.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The format.
    pub format: u32,
    /// The ledger.
    pub origin: String,
    /// What was asked for; names of its parts as in `RecordFilter`.
    pub filter: serde_json::Map<String, serde_json::Value>,
    /// The first commit that was looked at; those before it were not.
    pub from: u64,
}

/// Neighbours of which nothing is told, as the roots over them: complete subtrees, as few as there are.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The roots, base64.
    pub nodes: Vec<String>,
}

/// A commit.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Its place.
    pub commit: u64,
    /// The seq of its first record.
    pub first: u64,
    /// Its header's bytes, base64.
    pub header: String,
}

/// A record.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// Its seq.
    pub seq: u64,
    /// Its bytes, base64.
    pub bytes: String,
    /// The time of its commit, for people.
    pub at: String,
    /// What happened.
    pub event: String,
    /// Who did it.
    pub author: String,
    /// Its content.
    pub body: serde_json::Value,
}

/// What the server says of the whole.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The checkpoint that the proofs lead to: a signed note.
    pub checkpoint: String,
    /// What was told and that it is everything: a signed note.
    pub statement: String,
    /// The proof that an older checkpoint stands for a beginning of this one, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
}

/// The proof from an older checkpoint (RFC 9162, section 2.1.4).
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// How many commits it stands for.
    pub size: u64,
    /// The proof's hashes, base64.
    pub nodes: Vec<String>,
}

impl Line {
    /// With its line end. What is not ASCII is written as JSON escapes: a line acts on no terminal that it is shown on.
    pub fn text(&self) -> String {
        // Maps of strings and numbers always serialize.
        let mut text = ascii(&serde_json::to_string(self).unwrap_or_default());
        text.push('\n');
        text
    }
}

/// JSON with what is not ASCII as its escapes.
pub fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // A String takes everything.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// As hashes and bytes are written.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes as they are written; `None` for anything else.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// A hash as it is written.
pub fn hash(text: &str) -> Option<Hash> {
    bytes(text)?.try_into().ok()
}

/// What the server says about an export, before it is signed. Its first line is not that of a checkpoint.
pub fn statement(origin: &str, size: u64, root: &Hash, counts: &Counts, digest: &Hash) -> String {
    let Counts { from, to, records } = counts;
    let (root, digest) = (base64(root), base64(digest));
    format!("{origin}/export\n{size}\n{root}\ncommits {from} {to}\nrecords {records}\nsha256 {digest}\n")
}

/// How much an export tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// The first commit that was looked at.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Records that fit, all of which are there.
    pub records: u64,
}
