//! What the fold judges: records, whole or cast.

use std::sync::Arc;

use super::{RequestKey, key_of};
use crate::ledger::commit::Encoded;
use crate::ledger::record::{Issued, Record};

/// A record that is judged, and what of it is known already.
pub trait Judged {
    /// The record. Of an issuance that was cast, that of its mold: what is its own is in [`Judged::issuance`] and [`Judged::request`].
    fn record(&self) -> &Record;

    /// The issuance, whose event this is.
    fn issuance<'a>(&'a self, event: &'a Issued) -> Issuance<'a> {
        Issuance::whole(event)
    }

    /// The name of its request among those of all callers, if it has one.
    fn request(&self) -> Option<RequestKey> {
        key_of(self.record())
    }

    /// That request's id, in its caller's words.
    fn request_id(&self) -> &str {
        self.record().request.as_ref().map_or("", |r| &r.id)
    }

    /// Who sent that request.
    fn requester(&self) -> Option<&str> {
        self.record().requester()
    }
}

impl Judged for Record {
    fn record(&self) -> &Record {
        self
    }
}

impl Judged for Encoded {
    fn record(&self) -> &Record {
        self.record()
    }

    fn issuance<'a>(&'a self, event: &'a Issued) -> Issuance<'a> {
        match self.own() {
            None => Issuance::whole(event),
            Some(own) => {
                Issuance { shared: event, credential: own.credential().as_bytes(), tool: own.tool(), mold: Some(self.record()) }
            }
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
        // What is cast is asked for by its author.
        if self.own().is_some() { self.record().author_id() } else { self.record().requester() }
    }
}

/// An issuance as the fold sees it. What is one's own is beside what it may share with others.
#[derive(Clone, Copy)]
pub struct Issuance<'a> {
    /// All but credential id, tool, purpose, arguments, status and token digest.
    pub(super) shared: &'a Issued,
    /// Its id.
    pub(super) credential: &'a [u8],
    /// The tool that it serves for.
    pub(super) tool: &'a str,
    /// Where `shared` stands, where others share it: the same place, the same values.
    pub(super) mold: Option<&'a Arc<Record>>,
}

impl<'a> Issuance<'a> {
    /// That of a whole record.
    pub(in crate::ledger::state) fn whole(e: &'a Issued) -> Issuance<'a> {
        Issuance { shared: e, credential: &e.credential, tool: &e.tool, mold: None }
    }
}
