//! What happened: one record per event, with its audit context. Never a secret, a signature or a whole token.
//!
//! The tags are persisted and frozen: a field is added, never changed or used again. `tests/vectors/records` holds samples of each
//! past version. A record whose event is unknown to this version stops the start: unknown means no.

mod approval;
mod credential;
mod due;
mod event_names;
mod glass;
mod login;
mod names;
mod registry;
mod revocation;
mod task;

pub use approval::*;
pub use credential::*;
pub use due::*;
pub use event_names::{EVENT_NAMES, event_name};
pub use glass::*;
pub use login::*;
pub use names::{Named, OwnNames, Sort, about, names, own_names};
pub use registry::*;
pub use revocation::*;
pub use task::*;

pub use mayfly_verify::revocation::record::Identity;

use prost::Message;

use crate::identity::caller::Caller;
use crate::limits;
use crate::seq::Seq;

/// One event and who caused it.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// Who asked for it.
    #[prost(message, optional, tag = "1")]
    pub author: Option<Author>,
    /// Decision revision: everything up to this seq was seen by the decision. 0 for what is no grant.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// The request that this came from, where it named one.
    #[prost(message, optional, tag = "3")]
    pub request: Option<Request>,
    /// Records of one commit with the same number above 0 stand or are void together.
    #[prost(uint32, tag = "4")]
    pub group: u32,
    /// The trace of the call that it came from (W3C Trace Context), where there was one: as its caller said, or our own.
    #[prost(bytes = "vec", tag = "5")]
    pub trace: Vec<u8>,
    /// What happened.
    #[prost(
        oneof = "Event",
        tags = "10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 30, 31, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 60, 61, 70, 71, 72, 80, 81, 82"
    )]
    pub event: Option<Event>,
}

/// Who caused a record.
#[derive(Clone, PartialEq, Message)]
pub struct Author {
    /// One of these.
    #[prost(oneof = "Who", tags = "1, 2, 3, 4")]
    pub who: Option<Who>,
}

/// The kinds of author.
#[derive(Clone, PartialEq, Eq, prost::Oneof, serde::Serialize, serde::Deserialize)]
pub enum Who {
    /// A workload or operator, by SPIFFE ID.
    #[prost(string, tag = "1")]
    SpiffeId(String),
    /// A person, by issuer and subject.
    #[prost(message, tag = "2")]
    Person(Identity),
    /// A peer of the local socket, by uid.
    #[prost(uint32, tag = "3")]
    LocalUid(u32),
    /// mayfly itself, with the cause.
    #[prost(string, tag = "4")]
    Mayfly(String),
}

/// A request that may be repeated.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Who sent it: request ids of different callers have nothing to do with each other. Empty for the record's author, by SPIFFE ID, as
    /// nearly always ([`Record::requester`]).
    #[prost(string, tag = "1")]
    pub caller: String,
    /// The caller's name for it.
    #[prost(string, tag = "2")]
    pub id: String,
    /// SHA-256 over everything that was asked.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
}

/// Everything that can happen.
#[allow(clippy::large_enum_variant, reason = "the largest, an issuance, is nearly all of them")]
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// A generation of the log begins; all that was issued before is revoked.
    #[prost(message, tag = "10")]
    GenerationBegun(GenerationBegun),
    /// A task was opened.
    #[prost(message, boxed, tag = "11")]
    TaskOpened(Box<TaskOpened>),
    /// A task and everything under it ended.
    #[prost(message, tag = "12")]
    TaskClosed(TaskClosed),
    /// A task and everything under it is refused until resumed.
    #[prost(message, tag = "13")]
    TaskHeld(TaskHeld),
    /// A hold ended.
    #[prost(message, tag = "14")]
    TaskResumed(TaskResumed),
    /// A task's deadline moved.
    #[prost(message, tag = "15")]
    TaskExtended(TaskExtended),
    /// Tasks that showed signs of life.
    #[prost(message, tag = "16")]
    TaskHeartbeats(TaskHeartbeats),
    /// A credential was issued.
    #[prost(message, boxed, tag = "20")]
    Issued(Box<Issued>),
    /// A holder gave its credential back.
    #[prost(message, tag = "21")]
    Released(Released),
    /// An action was authorized with a credential that was issued before.
    #[prost(message, tag = "22")]
    Authorized(Authorized),
    /// Where a credential was used.
    #[prost(message, tag = "23")]
    UsesReported(UsesReported),
    /// Refusals, one or counted.
    #[prost(message, tag = "24")]
    Refused(Refused),
    /// Targets were revoked.
    #[prost(message, tag = "30")]
    Revoked(Revoked),
    /// Locks were lifted.
    #[prost(message, tag = "31")]
    LockLifted(LockLifted),
    /// The policy set of an environment.
    #[prost(message, tag = "40")]
    PolicySet(PolicySet),
    /// An upstream's registration.
    #[prost(message, tag = "41")]
    UpstreamSet(UpstreamSet),
    /// Which tool may use which upstream.
    #[prost(message, tag = "42")]
    BindingSet(BindingSet),
    /// A trust domain's bundle.
    #[prost(message, tag = "43")]
    BundleSet(BundleSet),
    /// A key of ours.
    #[prost(message, tag = "44")]
    KeyAdded(KeyAdded),
    /// A key of ours changed state.
    #[prost(message, tag = "45")]
    KeyChanged(KeyChanged),
    /// A break-glass task was opened, joined or reviewed.
    #[prost(message, tag = "46")]
    BreakGlass(BreakGlass),
    /// An owner of registrations left, or is back.
    #[prost(message, tag = "47")]
    OwnerLeft(OwnerLeft),
    /// A narrower version has revoked all that it would refuse.
    #[prost(message, tag = "48")]
    Narrowed(Narrowed),
    /// The policy set beside the one in force would have decided otherwise.
    #[prost(message, boxed, tag = "49")]
    PolicyDiffered(Box<PolicyDiffered>),
    /// An approval was asked for.
    #[prost(message, boxed, tag = "50")]
    ApprovalAsked(Box<ApprovalAsked>),
    /// An approval was given or refused.
    #[prost(message, tag = "51")]
    ApprovalDecided(ApprovalDecided),
    /// Something that may be used once was used: a token id, an assertion.
    #[prost(message, tag = "52")]
    UsedOnce(UsedOnce),
    /// Something is about to be made upstream.
    #[prost(message, tag = "60")]
    LeaseOpened(LeaseOpened),
    /// What was made upstream is gone, or its undoing was given up.
    #[prost(message, tag = "61")]
    LeaseClosed(LeaseClosed),
    /// A snapshot of the state was written.
    #[prost(message, tag = "70")]
    SnapshotTaken(SnapshotTaken),
    /// The store moved to another engine, or was exported. Context for the audit.
    #[prost(message, tag = "71")]
    Maintained(Maintained),
    /// The oldest commits are removed from the store.
    #[prost(message, tag = "72")]
    HistoryRemoved(HistoryRemoved),
    /// A person signed in.
    #[prost(message, boxed, tag = "80")]
    LoggedIn(Box<LoggedIn>),
    /// A person gave a login back.
    #[prost(message, tag = "81")]
    LoggedOut(LoggedOut),
    /// Something fell due by time alone.
    #[prost(message, tag = "82")]
    FellDue(FellDue),
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a record: {0}")]
pub struct BadRecord(pub String);

impl Who {
    /// Who calls: a person who signed in, else the workload.
    pub fn of(caller: &Caller) -> Who {
        match caller.person() {
            Some(person) => Who::Person(Identity { issuer: person.issuer.to_string(), sub: person.subject.to_string() }),
            None => Who::SpiffeId(caller.id().as_str().to_owned()),
        }
    }

    /// The SPIFFE ID, where it has one.
    pub fn spiffe_id(&self) -> Option<&str> {
        match self {
            Who::SpiffeId(id) => Some(id),
            _ => None,
        }
    }

    /// Who has that name, as [`Who::name`] writes those of workloads and people.
    pub fn named(name: &str) -> Who {
        match name.split_once('#').filter(|_| !name.starts_with("spiffe://")) {
            Some((issuer, sub)) => Who::Person(Identity { issuer: issuer.to_owned(), sub: sub.to_owned() }),
            None => Who::SpiffeId(name.to_owned()),
        }
    }

    /// As requests' senders and `context.approvals.people` are written.
    pub fn name(&self) -> String {
        match self {
            Who::SpiffeId(id) => id.clone(),
            Who::Person(person) => person.name(),
            Who::LocalUid(uid) => format!("local-uid:{uid}"),
            Who::Mayfly(cause) => format!("mayfly:{cause}"),
        }
    }
}

impl Request {
    /// Who sent it: the author of what came of it, who is not named a second time, or another. `None`: nobody did.
    pub fn sender<'a>(&'a self, author: &'a Who) -> Option<&'a str> {
        match self.caller.as_str() {
            "" => author.spiffe_id(),
            caller => Some(caller),
        }
    }
}

impl Record {
    /// A record by this author.
    pub fn new(author: Who, event: Event) -> Record {
        Record {
            author: Some(Author { who: Some(author) }),
            revision: 0,
            request: None,
            group: 0,
            trace: Vec::new(),
            event: Some(event),
        }
    }

    /// Notes the decision revision.
    pub fn decided_at(mut self, revision: Seq) -> Record {
        self.revision = revision.as_u64();
        self
    }

    /// Notes the request it came from. A caller who is the author is not written twice.
    pub fn for_request(mut self, request: Option<Request>) -> Record {
        let own = |r: &Request| self.author_id() == Some(r.caller.as_str());
        self.request = request.map(|r| if own(&r) { Request { caller: String::new(), ..r } } else { r });
        self
    }

    /// Who sent the request that this came from; `None` where it named none, or nobody sent it.
    pub fn requester(&self) -> Option<&str> {
        self.request.as_ref()?.sender(self.author.as_ref()?.who.as_ref()?)
    }

    /// The author's SPIFFE ID, where it has one.
    pub fn author_id(&self) -> Option<&str> {
        self.author.as_ref()?.who.as_ref()?.spiffe_id()
    }

    /// Decodes strictly: author and event known, size in bounds, and encoding again gives the same bytes, so that nothing a newer
    /// version wrote is dropped unseen.
    pub fn from_bytes(bytes: &[u8]) -> Result<Record, BadRecord> {
        if bytes.len() > limits::RECORD_BYTES {
            return Err(BadRecord(format!("{} bytes, above the limit of {}", bytes.len(), limits::RECORD_BYTES)));
        }
        let record = Record::decode(bytes).map_err(|e| BadRecord(e.to_string()))?;
        if record.event.is_none() {
            return Err(BadRecord("an event that this version does not know".into()));
        }
        if record.author.as_ref().and_then(|a| a.who.as_ref()).is_none() {
            return Err(BadRecord("an author that this version does not know".into()));
        }
        if record.encoded_len() != bytes.len() {
            return Err(BadRecord("fields that this version does not know".into()));
        }
        Ok(record)
    }

    /// The author, for people and the audit.
    pub fn author_text(&self) -> String {
        match self.author.as_ref().and_then(|a| a.who.as_ref()) {
            Some(Who::SpiffeId(id)) => id.clone(),
            Some(Who::Person(p)) => format!("{} ({})", p.sub, p.issuer),
            Some(Who::LocalUid(uid)) => format!("local uid {uid}"),
            Some(Who::Mayfly(cause)) => format!("mayfly ({cause})"),
            None => String::new(),
        }
    }

    /// The decision revision.
    pub fn revision(&self) -> Seq {
        Seq::from_u64(self.revision).unwrap_or(Seq::ZERO)
    }
}
