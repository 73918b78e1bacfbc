//! The records of the ledger: one record per event, with its audit context. A record never contains a secret, a signature or a whole token.
//!
//! The tags are persisted and frozen: fields are added, never changed or reused. `tests/vectors/records` holds samples of each past
//! version. A record whose event this version does not know prevents the start.

mod approval;
mod audit_read;
mod break_glass;
mod credential;
mod deadline;
mod document;
mod event_names;
mod login;
mod names;
mod registry;
mod revocation;
mod secret;
mod task;

pub use approval::*;
pub use audit_read::*;
pub use break_glass::*;
pub use credential::*;
pub use deadline::*;
pub use document::*;
pub use event_names::{EVENT_NAMES, event_name};
pub use login::*;
pub use names::{IssuanceNames, NameKind, RecordName, issuance_names, main_objects, names};
pub use registry::*;
pub use revocation::*;
pub use secret::*;
pub use task::*;

pub use mayfly_verify::revocation::record::Principal;

use prost::Message;

use mayfly_base::limits;
use mayfly_identity::caller::Caller;
use mayfly_verify::seq::Seq;

/// One event, with its author.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// The author.
    #[prost(message, optional, tag = "1")]
    pub author: Option<AuthorRecord>,
    /// Decision revision: the decision saw everything up to this seq. 0 for records that are not grants.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// The request that caused the record, if the caller named one.
    #[prost(message, optional, tag = "3")]
    pub request: Option<RequestRecord>,
    /// Records of one commit with the same number above 0 take effect together or are void together.
    #[prost(uint32, tag = "4")]
    pub group: u32,
    /// The trace id of the call (W3C Trace Context), if any: the caller's, or mayfly's own.
    #[prost(bytes = "vec", tag = "5")]
    pub trace: Vec<u8>,
    /// The event.
    #[prost(
        oneof = "Event",
        tags = "10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 30, 31, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 60, 61, 62, 63, 70, 71, 72, 80, 81, 82, 90, 91"
    )]
    pub event: Option<Event>,
}

/// The author of a record.
#[derive(Clone, PartialEq, Message)]
pub struct AuthorRecord {
    /// The kind of author, with its name.
    #[prost(oneof = "Author", tags = "1, 2, 3, 4")]
    pub who: Option<Author>,
}

/// The kinds of author.
#[derive(Clone, PartialEq, Eq, prost::Oneof, serde::Serialize, serde::Deserialize)]
pub enum Author {
    /// A workload or operator, by SPIFFE ID.
    #[prost(string, tag = "1")]
    SpiffeId(String),
    /// A person, by issuer and subject.
    #[prost(message, tag = "2")]
    Person(Principal),
    /// A peer of the local socket, by uid.
    #[prost(uint32, tag = "3")]
    LocalUid(u32),
    /// mayfly itself, with the cause.
    #[prost(string, tag = "4")]
    Mayfly(String),
}

/// A request that may be retried.
#[derive(Clone, PartialEq, Message)]
pub struct RequestRecord {
    /// The sender: request ids of different callers are independent. Empty if the sender is the record's author by SPIFFE ID, as in nearly
    /// every record ([`Record::requester`]).
    #[prost(string, tag = "1")]
    pub caller: String,
    /// The caller's request id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// SHA-256 over all fields of the request.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
}

/// All events.
#[allow(clippy::large_enum_variant, reason = "the largest, an issuance, is nearly all of them")]
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// A generation of the log begins; everything issued before is revoked.
    #[prost(message, tag = "10")]
    GenerationBegun(GenerationBegun),
    /// A task was opened.
    #[prost(message, boxed, tag = "11")]
    TaskOpened(Box<TaskOpened>),
    /// A task and everything under it ended.
    #[prost(message, tag = "12")]
    TaskClosed(TaskClosed),
    /// A task and everything under it is on hold: refused until resumed.
    #[prost(message, tag = "13")]
    TaskHeld(TaskHeld),
    /// A hold ended.
    #[prost(message, tag = "14")]
    TaskResumed(TaskResumed),
    /// A task's deadline moved.
    #[prost(message, tag = "15")]
    TaskExtended(TaskExtended),
    /// Heartbeats of tasks.
    #[prost(message, tag = "16")]
    TaskHeartbeats(TaskHeartbeats),
    /// A credential was issued.
    #[prost(message, boxed, tag = "20")]
    Issued(Box<CredentialIssued>),
    /// A holder gave its credential back.
    #[prost(message, tag = "21")]
    Released(CredentialReleased),
    /// An action was authorized; nothing was issued.
    #[prost(message, tag = "22")]
    Authorized(ActionAuthorized),
    /// Uses of a credential.
    #[prost(message, tag = "23")]
    UsesReported(UsesReported),
    /// Refusals, single or counted.
    #[prost(message, tag = "24")]
    Refused(RequestsRefused),
    /// Targets were revoked.
    #[prost(message, tag = "30")]
    Revoked(TargetsRevoked),
    /// Locks were lifted.
    #[prost(message, tag = "31")]
    LockLifted(LockLifted),
    /// The policy set of an environment.
    #[prost(message, tag = "40")]
    PolicySet(PolicySetUpdated),
    /// An upstream's registration.
    #[prost(message, tag = "41")]
    UpstreamSet(UpstreamUpdated),
    /// Which tool may use which upstream.
    #[prost(message, tag = "42")]
    BindingSet(BindingUpdated),
    /// A trust domain's bundle.
    #[prost(message, tag = "43")]
    BundleSet(BundleUpdated),
    /// A key of mayfly.
    #[prost(message, tag = "44")]
    KeyAdded(KeyAdded),
    /// A key of mayfly changed state.
    #[prost(message, tag = "45")]
    KeyChanged(KeyChanged),
    /// A break-glass task was opened, joined or reviewed.
    #[prost(message, tag = "46")]
    BreakGlass(BreakGlassStepTaken),
    /// An owner of registrations left, or returned.
    #[prost(message, tag = "47")]
    OwnerLeft(OwnerLeft),
    /// The revocation of everything that a narrower version would refuse is complete.
    #[prost(message, tag = "48")]
    Narrowed(NarrowingCompleted),
    /// The shadow policy set would have decided differently.
    #[prost(message, boxed, tag = "49")]
    PolicyDiffered(Box<PolicyDiffered>),
    /// An approval was asked for.
    #[prost(message, boxed, tag = "50")]
    ApprovalAsked(Box<ApprovalRequested>),
    /// An approval was given or refused.
    #[prost(message, tag = "51")]
    ApprovalDecided(ApprovalDecided),
    /// A single-use id was used: a token id, an assertion.
    #[prost(message, tag = "52")]
    UsedOnce(UsedOnce),
    /// A lease was opened: something is about to be created at an upstream.
    #[prost(message, tag = "60")]
    LeaseOpened(LeaseOpened),
    /// A lease was closed: the object at the upstream is gone, or undoing it was abandoned.
    #[prost(message, tag = "61")]
    LeaseClosed(LeaseClosed),
    /// A version of an upstream's static secret was stored.
    #[prost(message, tag = "62")]
    SecretStored(SecretStored),
    /// An upstream's static secret changed.
    #[prost(message, tag = "63")]
    SecretChanged(SecretChanged),
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
    /// A deadline was reached.
    #[prost(message, tag = "82")]
    FellDue(DeadlineReached),
    /// The audit was read.
    #[prost(message, tag = "90")]
    AuditRead(AuditRead),
    /// A backup was begun, or completely sent.
    #[prost(message, tag = "91")]
    BackedUp(BackedUp),
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a record: {0}")]
pub struct BadRecord(pub String);

impl Author {
    /// The caller as an author: the person who signed in, else the workload.
    pub fn of(caller: &Caller) -> Author {
        match caller.person() {
            Some(person) => Author::Person(Principal { issuer: person.issuer.to_string(), sub: person.subject.to_string() }),
            None => Author::SpiffeId(caller.id().as_str().to_owned()),
        }
    }

    /// The author's SPIFFE ID, if it has one.
    pub fn spiffe_id(&self) -> Option<&str> {
        match self {
            Author::SpiffeId(id) => Some(id),
            _ => None,
        }
    }

    /// The author with this name, as [`Author::name`] writes those of workloads and people.
    pub fn named(name: &str) -> Author {
        match name.split_once('#').filter(|_| !name.starts_with("spiffe://")) {
            Some((issuer, sub)) => Author::Person(Principal { issuer: issuer.to_owned(), sub: sub.to_owned() }),
            None => Author::SpiffeId(name.to_owned()),
        }
    }

    /// The author's name, as it is written for senders of requests and in `context.approvals.people`.
    pub fn name(&self) -> String {
        match self {
            Author::SpiffeId(id) => id.clone(),
            Author::Person(person) => person.name(),
            Author::LocalUid(uid) => format!("local-uid:{uid}"),
            Author::Mayfly(cause) => format!("mayfly:{cause}"),
        }
    }
}

impl RequestRecord {
    /// The name of the request's sender: the stored one, or the record's author if none is stored. `None`: the request has no sender.
    pub fn sender<'a>(&'a self, author: &'a Author) -> Option<&'a str> {
        match self.caller.as_str() {
            "" => author.spiffe_id(),
            caller => Some(caller),
        }
    }
}

impl Record {
    /// A record with this author.
    pub fn new(author: Author, event: Event) -> Record {
        Record {
            author: Some(AuthorRecord { who: Some(author) }),
            revision: 0,
            request: None,
            group: 0,
            trace: Vec::new(),
            event: Some(event),
        }
    }

    /// Sets the decision revision.
    pub fn decided_at(mut self, revision: Seq) -> Record {
        self.revision = revision.as_u64();
        self
    }

    /// Sets the request. A sender who is the author is not stored a second time.
    pub fn for_request(mut self, request: Option<RequestRecord>) -> Record {
        let own = |r: &RequestRecord| self.author_id() == Some(r.caller.as_str());
        self.request = request.map(|r| if own(&r) { RequestRecord { caller: String::new(), ..r } } else { r });
        self
    }

    /// The sender of the request; `None` if there is no request, or no sender.
    pub fn requester(&self) -> Option<&str> {
        self.request.as_ref()?.sender(self.author.as_ref()?.who.as_ref()?)
    }

    /// The author's SPIFFE ID, if it has one.
    pub fn author_id(&self) -> Option<&str> {
        self.author.as_ref()?.who.as_ref()?.spiffe_id()
    }

    /// Decodes strictly: author and event are known, the size is within bounds, and encoding again gives the same bytes, so that no field
    /// of a newer version is silently dropped.
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

    /// The author in readable form, for people and the audit.
    pub fn author_text(&self) -> String {
        match self.author.as_ref().and_then(|a| a.who.as_ref()) {
            Some(Author::SpiffeId(id)) => id.clone(),
            Some(Author::Person(p)) => format!("{} ({})", p.sub, p.issuer),
            Some(Author::LocalUid(uid)) => format!("local uid {uid}"),
            Some(Author::Mayfly(cause)) => format!("mayfly ({cause})"),
            None => String::new(),
        }
    }

    /// The decision revision.
    pub fn revision(&self) -> Seq {
        Seq::from_u64(self.revision).unwrap_or(Seq::ZERO)
    }
}
