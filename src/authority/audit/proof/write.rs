//! Writes the lines of an export, in order.

use aws_lc_rs::digest::{Context, SHA256};

use super::line::{
    ConsistencyProof, ExportCounts, ExportFooter, ExportHeader, ExportLine, ExportedCommit, ExportedRecord, FORMAT, OmittedRange,
    base64,
};
use crate::audit::explain::body;
use mayfly_base::refusal::Fault;
use mayfly_ledger::commit::{Hash, root_hash};
use mayfly_ledger::reader::log_reader::LogCommit;
use mayfly_ledger::reader::search::Match;
use mayfly_ledger::tree::proof::{Node, cover};

/// Writes one export. Its output must be written unchanged, since the statement at the end contains the SHA-256 of all lines before.
pub struct ExportWriter {
    hash: Context,
    /// The next commit that is not covered yet.
    next: u64,
    counts: ExportCounts,
}

impl ExportWriter {
    /// Begins an export. Returns the writer and the first line.
    pub fn new(origin: &str, filter: serde_json::Map<String, serde_json::Value>, from: u64) -> (ExportWriter, String) {
        let mut writer = ExportWriter { hash: Context::new(&SHA256), next: 1, counts: ExportCounts { from, to: 0, records: 0 } };
        let begin = ExportHeader { format: FORMAT, origin: origin.to_owned(), filter, from };
        let line = writer.line(&ExportLine::Export(begin));
        (writer, line)
    }

    fn line(&mut self, line: &ExportLine) -> String {
        let text = line.text();
        self.hash.update(text.as_bytes());
        text
    }

    /// Covers all commits up to one without exporting records of them. Empty if there are none.
    pub fn gap<E>(&mut self, to: u64, mut give: impl FnMut(Node) -> Result<Hash, E>) -> Result<String, E> {
        if to < self.next {
            return Ok(String::new());
        }
        let nodes = cover(self.next - 1, to).into_iter().map(|node| Ok(base64(&give(node)?)));
        let gap = OmittedRange { from: self.next, to, nodes: nodes.collect::<Result<_, E>>()? };
        self.next = to + 1;
        Ok(self.line(&ExportLine::Gap(gap)))
    }

    /// Exports the matching records of a commit, and the hashes of its other records. All earlier commits must be covered.
    pub fn told(&mut self, step: &LogCommit, matches: &[Match]) -> Result<String, Fault> {
        let commit = &step.commit;
        let count = commit.records.len() as u64;
        let first = step.last.as_u64() + 1 - count;
        let header = base64(&commit.header_bytes);
        let mut text = self.line(&ExportLine::Commit(ExportedCommit { commit: step.position, first, header }));
        self.next = step.position + 1;
        let mut next = 1;
        for one in matches {
            let at = one.past.seq.as_u64() + 1 - first;
            text.push_str(&self.leaves(commit, next, at - 1));
            let place = usize::try_from(at - 1).unwrap_or(usize::MAX);
            let bytes = commit.records.get(place).ok_or_else(|| Fault::new("a record that its commit does not have"))?;
            text.push_str(&self.line(&ExportLine::Record(Box::new(ExportedRecord {
                seq: one.past.seq.as_u64(),
                bytes: base64(bytes),
                ..readable(&one.past.record, one.past.at)
            }))));
            self.counts.records += 1;
            next = at + 1;
        }
        text.push_str(&self.leaves(commit, next, count));
        Ok(text)
    }

    fn leaves(&mut self, commit: &mayfly_ledger::commit::EncodedCommit, from: u64, to: u64) -> String {
        if to < from {
            return String::new();
        }
        let node = |(level, place): Node| {
            let range = (place << level) as usize..((place + 1) << level) as usize;
            base64(&root_hash(commit.leaves.get(range).unwrap_or_default()))
        };
        let nodes = cover(from - 1, to).into_iter().map(node).collect();
        self.line(&ExportLine::Leaves(OmittedRange { from, to, nodes }))
    }

    /// The counts of the exported records and the SHA-256 of all lines, for the statement; `to` is the last commit.
    pub fn sum(&self, to: u64) -> (ExportCounts, Hash) {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.hash.clone().finish().as_ref());
        (ExportCounts { to, ..self.counts }, digest)
    }

    /// The last line. `since`: the size of an older checkpoint, with the proof from there.
    pub fn end(checkpoint: String, statement: String, since: Option<(u64, Vec<Hash>)>) -> String {
        let since = since.map(|(size, nodes)| ConsistencyProof { size, nodes: nodes.iter().map(|n| base64(n)).collect() });
        ExportLine::End(ExportFooter { checkpoint, statement, since }).text()
    }
}

/// The readable part of a line, made from the record alone.
pub fn readable(record: &mayfly_ledger::record::Record, at: mayfly_verify::seq::Millis) -> ExportedRecord {
    ExportedRecord {
        seq: 0,
        bytes: String::new(),
        at: at.to_string(),
        event: record.event.as_ref().map_or_else(String::new, |e| body::name(e).to_owned()),
        author: record.author_text(),
        body: body::json(record),
    }
}
