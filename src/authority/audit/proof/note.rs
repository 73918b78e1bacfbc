//! Signed notes (c2sp.org/signed-note) and checkpoints (c2sp.org/tlog-checkpoint): text, an empty line, signatures.
//!
//! A signature line has an em dash, the log's origin and, in base64, four bytes that identify the key, followed by the signature. mayfly
//! signs with ES256, so the signature is ECDSA over P-256 and SHA-256 in DER, and the key is identified as in Sigstore's logs.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key::NoteKey;
use mayfly_base::limits;
use mayfly_ledger::commit::Hash;

/// Why a text is not a note, or not one signed by a known key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text does not have the form of a note.
    #[error("it is no signed note: {0}")]
    Malformed(String),
    /// A signature claims to be by a known key and is invalid.
    #[error("the signature of key {0} is not over this text")]
    Signature(String),
    /// None of the known keys signed it.
    #[error("none of the given keys signed it")]
    NotSigned,
}

fn bad(what: impl Into<String>) -> NoteError {
    NoteError::Malformed(what.into())
}

/// A note: its text with the last line end, and its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    /// The signed text.
    pub text: String,
    signatures: Vec<(String, Vec<u8>)>,
}

impl SignedNote {
    /// Parses a note without verifying it.
    pub fn parse(note: &str) -> Result<SignedNote, NoteError> {
        if note.len() > limits::NOTE_BYTES {
            return Err(bad(format!("{} bytes, above the limit of {}", note.len(), limits::NOTE_BYTES)));
        }
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(bad("a control character"));
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or_else(|| bad("no empty line before its signatures"))?;
        let lines = lines.strip_suffix('\n').ok_or_else(|| bad("its last line does not end"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            let (name, value) = line
                .strip_prefix("\u{2014} ")
                .and_then(|rest| rest.split_once(' '))
                .ok_or_else(|| bad("a line that is no signature"))?;
            let value = STANDARD.decode(value).map_err(|_| bad("a signature that is not base64"))?;
            if value.len() < 5 || name.is_empty() {
                return Err(bad("a signature without a key"));
            }
            signatures.push((name.to_owned(), value));
        }
        if signatures.len() > limits::NOTE_SIGNATURES {
            return Err(bad(format!("more than {} signatures", limits::NOTE_SIGNATURES)));
        }
        Ok(SignedNote { text: format!("{text}\n"), signatures })
    }

    /// The key that signed the note. Signatures by unknown keys are skipped; an invalid signature by a known key is an error.
    pub fn signer<'a>(&self, keys: &'a [NoteKey]) -> Result<&'a NoteKey, NoteError> {
        for (_, value) in &self.signatures {
            let Some((id, signature)) = value.split_first_chunk::<4>() else { continue };
            if let Some(key) = keys.iter().find(|k| k.id() == *id) {
                let signed = key.signed(self.text.as_bytes(), signature);
                return if signed { Ok(key) } else { Err(NoteError::Signature(key.name.clone())) };
            }
        }
        Err(NoteError::NotSigned)
    }
}

/// Builds a note of this text with one signature.
pub fn signed(text: &str, origin: &str, key: &NoteKey, signature: &[u8]) -> String {
    let value = STANDARD.encode([&key.id()[..], signature].concat());
    format!("{text}\n\u{2014} {origin} {value}\n")
}

/// The content of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the ledger.
    pub origin: String,
    /// The number of commits.
    pub size: u64,
    /// The root of the tree over the headers of the commits.
    pub root: Hash,
    /// Further lines.
    pub more: Vec<String>,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root));
        for line in &self.more {
            // Writing to a String never fails.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Parses the text of a note.
    pub fn parse(text: &str) -> Result<Checkpoint, NoteError> {
        let body = text.strip_suffix('\n').ok_or_else(|| bad("its last line does not end"))?;
        let mut lines = body.split('\n');
        let mut next = |what: &str| lines.next().filter(|l| !l.is_empty()).ok_or_else(|| bad(format!("no line with its {what}")));
        let origin = next("origin")?.to_owned();
        let size = next("size")?;
        let number: u64 = size.parse().map_err(|_| bad("its size is no number"))?;
        if number.to_string() != size {
            return Err(bad("its size is not written as numbers are"));
        }
        let root = STANDARD.decode(next("root")?).ok().and_then(|b| Hash::try_from(b).ok());
        let root = root.ok_or_else(|| bad("its root is not 32 bytes in base64"))?;
        let more: Vec<String> = lines.map(str::to_owned).collect();
        if more.iter().any(String::is_empty) {
            return Err(bad("an empty line"));
        }
        Ok(Checkpoint { origin, size: number, root, more })
    }

    /// The rest of the further line that begins with a word.
    pub fn said(&self, word: &str) -> Option<&str> {
        self.more.iter().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    }
}
