//! The input of the fold: records, complete or templated.

use std::sync::Arc;

use super::{RequestKey, key_of};
use crate::commit::EncodedRecord;
use crate::record::{CredentialIssued, Record};

/// A record to be judged, with values derived from it already.
pub trait FoldInput {
    /// The record. For a templated issuance, the template's record; the issuance's own fields are in [`FoldInput::issuance`] and
    /// [`FoldInput::request`].
    fn record(&self) -> &Record;

    /// The issuance that this event records.
    fn issuance<'a>(&'a self, event: &'a CredentialIssued) -> Issuance<'a> {
        Issuance::whole(event)
    }

    /// The key of the record's request, if it has one.
    fn request(&self) -> Option<RequestKey> {
        key_of(self.record())
    }

    /// The caller's request id.
    fn request_id(&self) -> &str {
        self.record().request.as_ref().map_or("", |r| &r.id)
    }

    /// The sender of the request.
    fn requester(&self) -> Option<&str> {
        self.record().requester()
    }
}

impl FoldInput for Record {
    fn record(&self) -> &Record {
        self
    }
}

impl FoldInput for EncodedRecord {
    fn record(&self) -> &Record {
        self.record()
    }

    fn issuance<'a>(&'a self, event: &'a CredentialIssued) -> Issuance<'a> {
        match self.own() {
            None => Issuance::whole(event),
            Some(own) => Issuance {
                shared: event,
                credential: own.credential().as_bytes(),
                tool: own.tool(),
                template: Some(self.record()),
            },
        }
    }

    fn request(&self) -> Option<RequestKey> {
        self.request
    }

    fn request_id(&self) -> &str {
        match self.own() {
            None => self.record().request.as_ref().map_or("", |r| &r.id),
            Some(own) => own.request_id(),
        }
    }

    fn requester(&self) -> Option<&str> {
        // The requester of a templated issuance is its author.
        if self.own().is_some() { self.record().author_id() } else { self.record().requester() }
    }
}

/// An issuance as the fold reads it: the fields of its own are separate from those that it may share with others.
#[derive(Clone, Copy)]
pub struct Issuance<'a> {
    /// All fields except credential id, tool, purpose, arguments, status and token digest.
    pub(super) shared: &'a CredentialIssued,
    /// The credential's id.
    pub(super) credential: &'a [u8],
    /// The tool that the credential serves for.
    pub(super) tool: &'a str,
    /// The template that `shared` belongs to, if any: the same pointer means the same values.
    pub(super) template: Option<&'a Arc<Record>>,
}

impl<'a> Issuance<'a> {
    /// The view of a complete record.
    pub(in crate::state) fn whole(e: &'a CredentialIssued) -> Issuance<'a> {
        Issuance { shared: e, credential: &e.credential, tool: &e.tool, template: None }
    }
}
