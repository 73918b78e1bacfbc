//! A record with its bytes and their hash, made once by whoever proposes it.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use super::commit::{Hash, LEAF, sha256};
use super::mold::{Cast, Mold, Own, OwnRequest, join};
use super::receipt::issued_by;
use super::record::{BadRecord, Record};
use super::state::{RequestKey, key_of};
use crate::limits;
use crate::seq::CredentialId;

/// A record with its leaf hash, encoded once by whoever proposes it.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub(super) what: What,
    /// Its leaf in the commit's tree.
    pub(super) leaf: Hash,
    /// The name of its request.
    pub(super) request: Option<RequestKey>,
    /// How long it is, bytes.
    length: usize,
}

/// Records are large, and handed from thread to thread: what can be shared is, and nothing is copied.
#[derive(Clone, Debug)]
pub(super) enum What {
    Whole(Arc<Record>, Bytes),
    Cast(Arc<Mold>, Cast),
}

thread_local! {
    /// Where a record is put together to be hashed. No secret stands in it.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Encoded {
    /// Encodes and hashes; `None` for a record above `limits::RECORD_BYTES`.
    pub fn new(record: Record) -> Option<Encoded> {
        // A leaf is hashed with a zero before it (RFC 6962, section 2.1): written there, it is one pass over one buffer.
        let mut bytes = Vec::with_capacity(1 + record.encoded_len());
        bytes.push(LEAF);
        record.encode_raw(&mut bytes);
        let mut bytes = Bytes::from(bytes);
        let (length, leaf) = hashed(&bytes)?;
        bytes.advance(1);
        Some(Encoded { request: key_of(&record), what: What::Whole(Arc::new(record), bytes), leaf, length })
    }

    /// The same for an issuance that has the rest in common with others, in `room`, where the one before it was put.
    pub fn cast(mold: &Arc<Mold>, own: &Own<'_>, room: &mut BytesMut) -> Option<Encoded> {
        let cast = mold.cast(own, room);
        let (length, leaf) = JOINED.with_borrow_mut(|bytes| {
            bytes.clear();
            bytes.push(LEAF);
            join(mold.pieces(), &cast.pieces(), bytes);
            hashed(bytes)
        })?;
        Some(Encoded { what: What::Cast(mold.clone(), cast), leaf, request: own.request.as_ref().map(OwnRequest::key), length })
    }

    /// The record. Of one that was cast, that of its mold.
    pub(super) fn record(&self) -> &Arc<Record> {
        match &self.what {
            What::Whole(record, _) => record,
            What::Cast(mold, _) => mold.record(),
        }
    }

    /// What is its own, where [`Encoded::record`] is that of its mold.
    pub(super) fn own(&self) -> Option<&Cast> {
        match &self.what {
            What::Whole(..) => None,
            What::Cast(_, cast) => Some(cast),
        }
    }

    /// The record, whole.
    pub fn whole(&self) -> Result<Arc<Record>, BadRecord> {
        match &self.what {
            What::Whole(record, _) => Ok(record.clone()),
            What::Cast(..) => Record::from_bytes(&self.bytes()).map(Arc::new),
        }
    }

    /// The credential that it issues, if it does.
    pub(super) fn issues(&self) -> Option<CredentialId> {
        self.own().map(|own| *own.credential()).or_else(|| issued_by(self.record()))
    }

    /// Its bytes.
    pub fn bytes(&self) -> Bytes {
        match &self.what {
            What::Whole(_, bytes) => bytes.clone(),
            What::Cast(mold, cast) => {
                let mut bytes = Vec::with_capacity(self.length);
                join(mold.pieces(), &cast.pieces(), &mut bytes);
                bytes.into()
            }
        }
    }

    /// How many bytes.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// The length of a record after the byte that says that it is a leaf, and its hash; `None` above `limits::RECORD_BYTES`.
fn hashed(bytes: &[u8]) -> Option<(usize, Hash)> {
    let length = bytes.len().saturating_sub(1);
    (length <= limits::RECORD_BYTES).then(|| (length, sha256(bytes)))
}
