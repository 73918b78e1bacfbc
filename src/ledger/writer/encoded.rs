//! A record with its encoded bytes and its leaf hash, made once by the thread that proposes the record.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use crate::commit::{Hash, LEAF, sha256};
use crate::record::{BadRecord, Record};
use crate::state::{RequestKey, key_of};
use crate::writer::receipt::issued_by;
use crate::writer::template::{IssuanceFields, IssuanceRequest, RecordTemplate, TemplatedRecord, join};
use mayfly_base::limits;
use mayfly_verify::seq::CredentialId;

/// A record with its leaf hash, encoded once by the proposing thread.
#[derive(Clone, Debug)]
pub struct EncodedRecord {
    pub(crate) what: RecordEncoding,
    /// The record's leaf hash in the commit's tree.
    pub(crate) leaf: Hash,
    /// The key of the request that the record answers.
    pub(crate) request: Option<RequestKey>,
    /// Length of the encoded record, bytes.
    length: usize,
}

/// Records are large and are handed from thread to thread: shared parts are reference-counted, and nothing is copied.
#[derive(Clone, Debug)]
pub(crate) enum RecordEncoding {
    Whole(Arc<Record>, Bytes),
    Templated(Arc<RecordTemplate>, TemplatedRecord),
}

thread_local! {
    /// Buffer in which a record is encoded to be hashed. Records contain no secret.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl EncodedRecord {
    /// Encodes and hashes; `None` for a record above `limits::RECORD_BYTES`.
    pub fn new(record: Record) -> Option<EncodedRecord> {
        // A leaf is hashed with a zero byte before it (RFC 6962, section 2.1). Writing that byte into the same buffer makes it one pass.
        let mut bytes = Vec::with_capacity(1 + record.encoded_len());
        bytes.push(LEAF);
        record.encode_raw(&mut bytes);
        let mut bytes = Bytes::from(bytes);
        let (length, leaf) = hashed(&bytes)?;
        bytes.advance(1);
        Some(EncodedRecord { request: key_of(&record), what: RecordEncoding::Whole(Arc::new(record), bytes), leaf, length })
    }

    /// Encodes an issuance that shares most of its fields with others through a record template. `room`: the buffer that holds the previous
    /// issuance's own bytes.
    pub fn from_template(template: &Arc<RecordTemplate>, own: &IssuanceFields<'_>, room: &mut BytesMut) -> Option<EncodedRecord> {
        let templated = template.fill(own, room);
        let (length, leaf) = JOINED.with_borrow_mut(|bytes| {
            bytes.clear();
            bytes.push(LEAF);
            join(template.pieces(), &templated.pieces(), bytes);
            hashed(bytes)
        })?;
        Some(EncodedRecord {
            what: RecordEncoding::Templated(template.clone(), templated),
            leaf,
            request: own.request.as_ref().map(IssuanceRequest::key),
            length,
        })
    }

    /// The record; for a templated record, the template's record without the issuance's own fields.
    pub(crate) fn record(&self) -> &Arc<Record> {
        match &self.what {
            RecordEncoding::Whole(record, _) => record,
            RecordEncoding::Templated(template, _) => template.record(),
        }
    }

    /// The issuance's own fields, when [`EncodedRecord::record`] is the template's record.
    pub(crate) fn own(&self) -> Option<&TemplatedRecord> {
        match &self.what {
            RecordEncoding::Whole(..) => None,
            RecordEncoding::Templated(_, templated) => Some(templated),
        }
    }

    /// The complete record.
    pub fn whole(&self) -> Result<Arc<Record>, BadRecord> {
        match &self.what {
            RecordEncoding::Whole(record, _) => Ok(record.clone()),
            RecordEncoding::Templated(..) => Record::from_bytes(&self.bytes()).map(Arc::new),
        }
    }

    /// The credential that the record issues, if any.
    pub(crate) fn issues(&self) -> Option<CredentialId> {
        self.own().map(|own| *own.credential()).or_else(|| issued_by(self.record()))
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> Bytes {
        match &self.what {
            RecordEncoding::Whole(_, bytes) => bytes.clone(),
            RecordEncoding::Templated(template, templated) => {
                let mut bytes = Vec::with_capacity(self.length);
                join(template.pieces(), &templated.pieces(), &mut bytes);
                bytes.into()
            }
        }
    }

    /// Length of the encoded bytes.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// The length of a record (without the leading leaf byte) and its leaf hash; `None` above `limits::RECORD_BYTES`.
fn hashed(bytes: &[u8]) -> Option<(usize, Hash)> {
    let length = bytes.len().saturating_sub(1);
    (length <= limits::RECORD_BYTES).then(|| (length, sha256(bytes)))
}
