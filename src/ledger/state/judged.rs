//! What the fold judges: records, whole or cast.

use std::sync::Arc;

use super::{RequestKey, request_key};
use crate::ledger::commit::Encoded;
use crate::ledger::record::{Issued, Record};

/// A record that is judged, and what of it is known already.
pub trait Judged {
    /// The record. Of an issuance that was cast, that of its mold: what is its own is in [`Judged::issuance`] and [`Judged::named`].
    fn record(&self) -> &Record;

    /// The issuance, whose event this is.
    fn issuance<'a>(&'a self, event: &'a Issued) -> Issuance<'a> {
        Issuance::whole(event)
    }

    /// The request that it names, if it does.
    fn named(&self) -> Option<Named<'_>> {
        let record = self.record();
        record.request.as_ref().map(|r| Named { key: request_key(record.requester().unwrap_or_default(), &r.id), id: &r.id })
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

    fn named(&self) -> Option<Named<'_>> {
        let key = self.request?;
        match self.own() {
            None => self.record().request.as_ref().map(|r| Named { key, id: &r.id }),
            Some(own) => Some(Named { key, id: own.request_id() }),
        }
    }

    fn requester(&self) -> Option<&str> {
        // What is cast is asked for by its author.
        if self.own().is_some() { self.record().author_id() } else { self.record().requester() }
    }
}

/// A request by its name among those of all callers, and in its caller's words.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// [`request_key`].
    pub key: RequestKey,
    /// The id.
    pub id: &'a str,
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
