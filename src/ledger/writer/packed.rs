//! The encoding of commits in the store.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::commit::{BadCommit, Hash, Header, WriterHead, root_hash, sha256};
use crate::writer::encoded::{EncodedRecord, RecordEncoding};
use crate::writer::template::{OWN_PIECES, PIECES, RecordTemplate, join};
use mayfly_base::limits;
use mayfly_proto::protobuf::{begin, message_len, number, number_len};
use mayfly_verify::seq::Millis;

/// The formats of commits: records one after the other, and records whose shared fields are written once per commit. A higher format
/// prevents the start.
pub(crate) const PLAIN: u32 = 1;
pub(crate) const TEMPLATED: u32 = 2;

/// A commit as stored. Tags are frozen.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PackedCommit {
    #[prost(bytes = "bytes", tag = "1")]
    pub header: Bytes,
    /// Format 1: the records.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub records: Vec<Bytes>,
    /// Format 2: the record templates.
    #[prost(message, repeated, tag = "3")]
    pub templates: Vec<PackedTemplate>,
    /// Format 2: the records.
    #[prost(message, repeated, tag = "4")]
    pub entries: Vec<PackedRecord>,
}

/// A record template: the shared bytes, in pieces.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PackedTemplate {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub pieces: Vec<Bytes>,
}

/// A record: complete, or the number of its template, from 1, and the bytes between the template's pieces.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PackedRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub whole: Bytes,
    #[prost(uint32, tag = "2")]
    pub template: u32,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub own: Vec<Bytes>,
}

pub(crate) const HEADER: u32 = 1;
pub(crate) const RECORD: u32 = 2;
pub(crate) const TEMPLATE: u32 = 3;
pub(crate) const ENTRY: u32 = 4;
pub(crate) const PIECE: u32 = 1;
pub(crate) const ENTRY_WHOLE: u32 = 1;
pub(crate) const ENTRY_TEMPLATE: u32 = 2;
pub(crate) const ENTRY_OWN: u32 = 3;

/// Packs records into the next commit of a writer's chain; returns the commit's bytes and the chain head after it.
///
/// Templated records are written as such: the shared fields are written once per commit.
pub fn pack<'a>(
    writer: u32,
    after: WriterHead,
    time: Millis,
    records: impl Iterator<Item = &'a EncodedRecord> + Clone,
) -> (Vec<u8>, WriterHead) {
    let mut bytes = Vec::new();
    let head = pack_into(&mut bytes, writer, after, time, records);
    (bytes, head)
}

/// As [`pack`], appending to a buffer.
pub fn pack_into<'a>(
    bytes: &mut Vec<u8>,
    writer: u32,
    after: WriterHead,
    time: Millis,
    records: impl Iterator<Item = &'a EncodedRecord> + Clone,
) -> WriterHead {
    let leaves: Vec<Hash> = records.clone().map(|r| r.leaf).collect();
    let mut templates = TemplateTable::default();
    let (mut wholes, mut own) = (0, 0);
    for record in records.clone() {
        match &record.what {
            RecordEncoding::Whole(_, bytes) => wholes += message_len(RECORD, bytes.len()) + ENTRY_HEAD,
            RecordEncoding::Templated(template, templated) => {
                templates.place(template);
                own += templated.pieces().iter().map(|p| p.len()).sum::<usize>() + ENTRY_HEAD;
            }
        }
    }
    let templated = !templates.all.is_empty();
    let header = Header {
        format: if templated { TEMPLATED } else { PLAIN },
        writer,
        number: after.number + 1,
        time: time.0,
        previous: after.hash.to_vec(),
        root: root_hash(&leaves).to_vec(),
        records: u32::try_from(leaves.len()).unwrap_or(u32::MAX),
    };
    let header = header.encode_to_vec();
    let head = WriterHead { number: after.number + 1, hash: sha256(&header), time };
    // The bytes are those that prost writes for a `PackedCommit`, but without building one: each byte is copied once.
    bytes.reserve(header.len() + ENTRY_HEAD + templates.length() + wholes + own);
    message(HEADER, &header, bytes);
    for template in &templates.all {
        begin(TEMPLATE, template.pieces().iter().map(|p| message_len(PIECE, p.len())).sum(), bytes);
        template.pieces().iter().for_each(|piece| message(PIECE, piece, bytes));
    }
    for record in records {
        match &record.what {
            RecordEncoding::Whole(_, whole) if !templated => message(RECORD, whole, bytes),
            RecordEncoding::Whole(_, whole) => {
                begin(ENTRY, message_len(ENTRY_WHOLE, whole.len()), bytes);
                message(ENTRY_WHOLE, whole, bytes);
            }
            RecordEncoding::Templated(template, templated) => {
                let (place, own) = (templates.place(template), templated.pieces());
                let length = own.iter().map(|p| message_len(ENTRY_OWN, p.len())).sum::<usize>();
                begin(ENTRY, number_len(ENTRY_TEMPLATE, place) + length, bytes);
                number(ENTRY_TEMPLATE, place, bytes);
                own.iter().for_each(|piece| message(ENTRY_OWN, piece, bytes));
            }
        }
    }
    head
}

/// Room for the bytes before a record and before its pieces.
const ENTRY_HEAD: usize = 32;

/// Writes a bytes field, also when it is empty.
fn message(tag: u32, part: &[u8], out: &mut Vec<u8>) {
    begin(tag, part.len(), out);
    out.extend_from_slice(part);
}

/// The record templates of one commit.
#[derive(Default)]
struct TemplateTable<'a> {
    all: Vec<&'a Arc<RecordTemplate>>,
}

impl<'a> TemplateTable<'a> {
    /// The number of a template, from 1. Records of one template mostly follow each other.
    fn place(&mut self, template: &'a Arc<RecordTemplate>) -> u64 {
        let known = self.all.iter().rposition(|known| Arc::ptr_eq(known, template));
        let place = known.unwrap_or_else(|| {
            self.all.push(template);
            self.all.len() - 1
        });
        place as u64 + 1
    }

    fn length(&self) -> usize {
        let pieces =
            |m: &&Arc<RecordTemplate>| m.pieces().iter().map(|p| message_len(PIECE, p.len())).sum::<usize>() + ENTRY_HEAD;
        self.all.iter().map(pieces).sum()
    }
}

/// The bytes of each record.
pub(crate) fn records_of(packed: PackedCommit, format: u32) -> Result<Vec<Bytes>, BadCommit> {
    let bad = |what: &str| BadCommit::Malformed(what.to_owned());
    if format == PLAIN {
        let plain = packed.templates.is_empty() && packed.entries.is_empty();
        return if plain { Ok(packed.records) } else { Err(bad("templates in a commit of format 1")) };
    }
    if !packed.records.is_empty() {
        return Err(bad("records of format 1 in a commit of format 2"));
    }
    let templates: Option<Vec<[Bytes; PIECES]>> = packed.templates.into_iter().map(|m| m.pieces.try_into().ok()).collect();
    let templates = templates.ok_or_else(|| bad("a template of another number of pieces"))?;
    let mut total = 0;
    let each = packed.entries.into_iter().map(|entry| {
        if entry.template == 0 {
            return if entry.own.is_empty() { Ok(entry.whole) } else { Err(bad("a whole record with pieces")) };
        }
        let template =
            templates.get(entry.template as usize - 1).ok_or_else(|| bad("a record of a template that is not there"))?;
        let own: [Bytes; OWN_PIECES] = entry.own.try_into().map_err(|_| bad("a record of another number of pieces"))?;
        if !entry.whole.is_empty() {
            return Err(bad("a record that is whole and of a template"));
        }
        let length = template.iter().chain(&own).map(Bytes::len).sum::<usize>();
        total += length;
        if total > limits::COMMIT_BYTES {
            return Err(bad("more records than a commit holds"));
        }
        let mut bytes = Vec::with_capacity(length);
        join(template, &own.each_ref().map(|piece| &piece[..]), &mut bytes);
        Ok(bytes.into())
    });
    each.collect()
}
