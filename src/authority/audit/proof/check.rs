//! Verifies an export line by line, with no more memory than the hashes of one commit.
//!
//! Every commit and every record has its place in a tree, either complete or as a hash. So nothing can be changed, moved or omitted without
//! changing the roots. That a record given only as a hash does not match the filter is the server's claim, in its signed statement.

use std::io::{BufRead, Read as _};

use aws_lc_rs::digest::{Context, SHA256};
use prost::Message as _;

use super::key::NoteKey;
use super::line::{
    ConsistencyProof, ExportCounts, ExportFooter, ExportHeader, ExportLine, ExportedCommit, ExportedRecord, FORMAT, OmittedRange,
    bytes, hash, statement,
};
use super::note::{Checkpoint, NoteError, SignedNote};
use super::write::readable;
use mayfly_base::limits;
use mayfly_ledger::commit::{Hash, Header, leaf_hash};
use mayfly_ledger::record::Record;
use mayfly_ledger::tree::frontier::Frontier;
use mayfly_ledger::tree::proof::{consistent, cover};
use mayfly_verify::seq::Millis;

/// An error, and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {what}", .seq.map_or_else(String::new, |s| format!(", seq {s}")))]
pub struct ExportError {
    /// The line, from 1; for something missing, the line after it.
    pub line: u64,
    /// The record, if the error concerns one.
    pub seq: Option<u64>,
    /// The error.
    pub what: String,
    /// The lines could not be read on, so nothing is known of the export.
    pub unread: bool,
}

/// The content of a valid export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedExport {
    /// The requested filter.
    pub filter: serde_json::Map<String, serde_json::Value>,
    /// The counts of the commits and records in the export.
    pub counts: ExportCounts,
    /// The checkpoint that the proofs lead to.
    pub checkpoint: Checkpoint,
    /// The key that signed both notes; `None`: no keys were given.
    pub signer: Option<String>,
    /// The proof from an older checkpoint, if there is one.
    pub since: Option<ConsistencyProof>,
}

impl VerifiedExport {
    /// Checks that the ledger extends an older checkpoint that was kept elsewhere.
    pub fn goes_on_from(&self, old: &Checkpoint) -> Result<(), String> {
        let new = &self.checkpoint;
        if old.origin != new.origin {
            return Err(format!("the checkpoint is of {}, the export of {}", old.origin, new.origin));
        }
        let nodes = match &self.since {
            _ if old.size == new.size => Vec::new(),
            Some(since) if since.size == old.size => {
                let nodes: Option<Vec<Hash>> = since.nodes.iter().map(|n| hash(n)).collect();
                nodes.ok_or("the proof from the older checkpoint is not base64")?
            }
            _ => {
                return Err(format!(
                    "the export has no proof from a checkpoint of {} commits: export it again with --checkpoint",
                    old.size
                ));
            }
        };
        match consistent(old.size, new.size, &old.root, &new.root, &nodes) {
            true => Ok(()),
            false => {
                Err(format!("the ledger does not go on from the checkpoint of {} commits: its history was changed", old.size))
            }
        }
    }
}

/// A commit whose lines are being read.
struct OpenCommit {
    told: ExportedCommit,
    header: Header,
    records: Frontier,
    /// The first record whose readable part differs from its bytes.
    misread: Option<(u64, u64)>,
}

/// The error for a record whose bytes are as signed, but whose readable fields (`at`, `event`, `author`, `body`) were changed.
const MISREAD: &str = "the readable fields of this record differ from its signed bytes: the fields were changed";

/// A verification in progress.
pub struct ExportVerifier {
    line: u64,
    hash: Context,
    tree: Frontier,
    begin: Option<ExportHeader>,
    open: Option<OpenCommit>,
    newest: u64,
    records: u64,
    misread: Option<(u64, u64)>,
    end: Option<ExportFooter>,
}

impl Default for ExportVerifier {
    fn default() -> ExportVerifier {
        ExportVerifier {
            line: 0,
            hash: Context::new(&SHA256),
            tree: Frontier::default(),
            begin: None,
            open: None,
            newest: 0,
            records: 0,
            misread: None,
            end: None,
        }
    }
}

/// Verifies a whole export. `keys`: the keys that may have signed it; empty to skip the check of the signatures.
pub fn check(mut from: impl BufRead, keys: &[NoteKey]) -> Result<VerifiedExport, ExportError> {
    let mut check = ExportVerifier::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = limits::EXPORT_LINE_BYTES as u64 + 1;
        let read = from.by_ref().take(most).read_until(b'\n', &mut line);
        match read {
            Err(error) => return Err(ExportError { unread: true, ..check.wrong(format!("cannot be read: {error}")) }),
            Ok(0) => return check.finish(keys),
            Ok(_) => check.take(&line)?,
        }
    }
}

impl ExportVerifier {
    fn wrong(&self, what: impl Into<String>) -> ExportError {
        ExportError { line: self.line, seq: None, what: what.into(), unread: false }
    }

    fn wrong_at(&self, seq: u64, what: impl Into<String>) -> ExportError {
        ExportError { seq: Some(seq), ..self.wrong(what) }
    }

    /// Takes one line, with its line end.
    pub fn take(&mut self, line: &[u8]) -> Result<(), ExportError> {
        self.line += 1;
        if self.end.is_some() {
            return Err(self.wrong("something stands after the end"));
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            return Err(self.wrong(format!("it is cut off, or longer than {} bytes", limits::EXPORT_LINE_BYTES)));
        };
        let read: ExportLine =
            serde_json::from_slice(text).map_err(|e| self.wrong(format!("it is no line of an export: {e}")))?;
        if self.begin.is_none() != matches!(read, ExportLine::Export(_)) {
            return Err(self.wrong("an export has exactly one first line, which says what it is of"));
        }
        match read {
            ExportLine::End(end) => {
                self.close()?;
                self.end = Some(end);
                return Ok(());
            }
            ExportLine::Export(begin) => self.begin(begin)?,
            ExportLine::Gap(gap) => self.gap(&gap)?,
            ExportLine::Commit(told) => self.commit(told)?,
            ExportLine::Leaves(gap) => self.leaves(&gap)?,
            ExportLine::Record(record) => self.record(&record)?,
        }
        self.hash.update(line);
        Ok(())
    }

    fn begin(&mut self, begin: ExportHeader) -> Result<(), ExportError> {
        if begin.format != FORMAT {
            return Err(self.wrong(format!("format {} is not one that this version reads ({FORMAT})", begin.format)));
        }
        self.begin = Some(begin);
        Ok(())
    }

    fn gap(&mut self, gap: &OmittedRange) -> Result<(), ExportError> {
        self.close()?;
        let mut tree = std::mem::take(&mut self.tree);
        let pushed = self.push(&mut tree, gap, "commit");
        self.tree = tree;
        pushed
    }

    /// Adds the roots of adjacent subtrees to a tree.
    fn push(&self, tree: &mut Frontier, gap: &OmittedRange, of: &str) -> Result<(), ExportError> {
        let next = tree.size() + 1;
        if gap.from != next || gap.to < gap.from || gap.to >> 62 != 0 {
            return Err(self.wrong(format!("{of} {next} is missing: this goes on with {}", gap.from)));
        }
        let nodes = cover(gap.from - 1, gap.to);
        if nodes.len() != gap.nodes.len() {
            return Err(self.wrong(format!(
                "{} roots for {of}s {} to {}, not {}",
                gap.nodes.len(),
                gap.from,
                gap.to,
                nodes.len()
            )));
        }
        for (node, text) in nodes.into_iter().zip(&gap.nodes) {
            let root = hash(text).ok_or_else(|| self.wrong("a root that is not 32 bytes in base64"))?;
            tree.push_node(node, root);
        }
        Ok(())
    }

    fn commit(&mut self, told: ExportedCommit) -> Result<(), ExportError> {
        self.close()?;
        let next = self.tree.size() + 1;
        if told.commit != next {
            return Err(self.wrong(format!("commit {next} is missing: this is commit {}", told.commit)));
        }
        if told.first <= self.newest {
            return Err(self.wrong_at(told.first, format!("seqs do not go back, and {} came before", self.newest)));
        }
        let raw = bytes(&told.header).ok_or_else(|| self.wrong("a header that is not base64"))?;
        let header = Header::decode(&raw[..]).map_err(|e| self.wrong(format!("a header that is none: {e}")))?;
        if header.encoded_len() != raw.len() || header.records == 0 {
            return Err(self.wrong("a header that no writer writes"));
        }
        self.tree.push(leaf_hash(&raw));
        self.open = Some(OpenCommit { told, header, records: Frontier::default(), misread: None });
        Ok(())
    }

    fn leaves(&mut self, gap: &OmittedRange) -> Result<(), ExportError> {
        let Some(mut open) = self.open.take() else { return Err(self.wrong("hashes of records outside of a commit")) };
        if gap.to > u64::from(open.header.records) {
            return Err(self.wrong(format!("commit {} has {} records", open.told.commit, open.header.records)));
        }
        let next = open.records.size() + 1;
        if gap.from != next {
            let seq = open.told.first.saturating_add(next - 1);
            return Err(
                self.wrong_at(seq, format!("this record is missing here: record {} of its commit stands in its place", gap.from))
            );
        }
        self.push(&mut open.records, gap, "record")?;
        self.open = Some(open);
        Ok(())
    }

    fn record(&mut self, told: &ExportedRecord) -> Result<(), ExportError> {
        let Some(mut open) = self.open.take() else { return Err(self.wrong_at(told.seq, "a record outside of a commit")) };
        let expected = open.told.first.saturating_add(open.records.size());
        if told.seq != expected {
            return Err(self.wrong_at(expected, format!("this record is missing here: seq {} stands in its place", told.seq)));
        }
        if open.records.size() >= u64::from(open.header.records) {
            return Err(self.wrong_at(told.seq, format!("commit {} has {} records", open.told.commit, open.header.records)));
        }
        let raw = bytes(&told.bytes).ok_or_else(|| self.wrong_at(told.seq, "bytes that are not base64"))?;
        open.records.push(leaf_hash(&raw));
        let reads = Record::from_bytes(&raw).is_ok_and(|record| {
            let says = readable(&record, Millis(open.header.time));
            (&says.at, &says.event, &says.author, &says.body) == (&told.at, &told.event, &told.author, &told.body)
        });
        if !reads {
            open.misread = open.misread.or(Some((self.line, told.seq)));
        }
        (self.newest, self.records) = (told.seq, self.records + 1);
        self.open = Some(open);
        Ok(())
    }

    /// Closes a commit: its records must match its header.
    fn close(&mut self) -> Result<(), ExportError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let OpenCommit { told, header, records, misread } = open;
        let (count, whole) = (records.size(), u64::from(header.records));
        if count < whole {
            let seq = told.first.saturating_add(count);
            return Err(
                self.wrong_at(seq, format!("this record is missing: commit {} has {whole}, {count} are told of", told.commit))
            );
        }
        if records.root()[..] != header.root[..] {
            let what = format!("the records of commit {} are not those that its header names", told.commit);
            return Err(match misread {
                Some((line, seq)) => {
                    ExportError { line, seq: Some(seq), what: format!("this record was changed: {what}"), unread: false }
                }
                None => self.wrong(format!(
                    "{what}: one of seq {} to {} was changed",
                    told.first,
                    told.first.saturating_add(whole - 1)
                )),
            });
        }
        self.misread = self.misread.or(misread);
        self.newest = self.newest.max(told.first.saturating_add(whole - 1));
        Ok(())
    }

    /// Completes the verification after the last line.
    pub fn finish(self, keys: &[NoteKey]) -> Result<VerifiedExport, ExportError> {
        let (Some(end), Some(begin)) = (&self.end, &self.begin) else {
            return Err(ExportError {
                line: self.line + 1,
                ..self.wrong("it is cut off: the last line of an export is missing")
            });
        };
        let opened = |text: &str, what: &str| {
            let of_note = |e: NoteError| self.wrong(format!("{what}: {e}"));
            let note = SignedNote::parse(text).map_err(of_note)?;
            let signer = if keys.is_empty() { None } else { Some(note.signer(keys).map_err(of_note)?.name.clone()) };
            Ok::<_, ExportError>((note.text, signer))
        };
        let (text, signer) = opened(&end.checkpoint, "its checkpoint")?;
        let (said, _) = opened(&end.statement, "its statement")?;
        let checkpoint = Checkpoint::parse(&text).map_err(|e| self.wrong(format!("its checkpoint: {e}")))?;
        if checkpoint.origin != begin.origin {
            return Err(
                self.wrong(format!("its checkpoint is of {}, and it says that it is of {}", checkpoint.origin, begin.origin))
            );
        }
        if self.tree.size() != checkpoint.size {
            let missing = self.tree.size() + 1;
            return Err(self.wrong(format!("commit {missing} is missing: the checkpoint stands for {}", checkpoint.size)));
        }
        if self.tree.root() != checkpoint.root {
            return Err(self.wrong("a commit, or a root that stands for some, was changed: they do not lead to the checkpoint"));
        }
        let counts = ExportCounts { from: begin.from, to: checkpoint.size, records: self.records };
        let mut digest: Hash = [0; 32];
        digest.copy_from_slice(self.hash.clone().finish().as_ref());
        if said != statement(&begin.origin, checkpoint.size, &checkpoint.root, &counts, &digest) {
            return Err(match self.misread {
                Some((line, seq)) => ExportError { line, seq: Some(seq), what: MISREAD.into(), unread: false },
                None => self.wrong(format!(
                    "it is not what the server's statement is about: records were turned into hashes, or a line was changed; {} records \
                     are told, the statement says: {}",
                    self.records,
                    said.lines().nth(4).unwrap_or_default()
                )),
            });
        }
        Ok(VerifiedExport { filter: begin.filter.clone(), counts, checkpoint, signer, since: end.since.clone() })
    }
}
