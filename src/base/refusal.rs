//! Refusals and faults. A refusal is a correct "no" with a reason from one closed list and one mapping to gRPC codes; a fault is a failure
//! of the server.

use std::fmt;
use std::time::Duration;

/// The rule of refusals of operators' calls on the workload listener, whatever their reason.
pub const NO_OPERATORS_HERE: &str = "the workload listener has no operators";

/// The gRPC status code of a refusal or fault (google.rpc.Code), without a dependency on gRPC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident;)*) => {
        /// The reason of a refusal: the closed list. Its text is `ErrorInfo.reason`, with domain `mayfly.dev`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The text in answers and records.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The gRPC code that carries the reason.
            pub const fn code(self) -> Code {
                match self { $(Reason::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// A field is absent, malformed or out of range. The field is named.
    InvalidField = "INVALID_FIELD", InvalidArgument;
    /// The `request_id` was used by this caller for another request.
    RequestIdReused = "REQUEST_ID_REUSED", InvalidArgument;
    /// The peer presented no X.509-SVID that mayfly accepts.
    NotAuthenticated = "NOT_AUTHENTICATED", Unauthenticated;
    /// Since the connection began, the peer's SVID expired or was revoked, or its trust anchor was removed.
    SvidNoLongerValid = "SVID_NO_LONGER_VALID", Unauthenticated;
    /// No policy permits the request, or a policy forbids it.
    DeniedByPolicy = "DENIED_BY_POLICY", PermissionDenied;
    /// A revocation that covers this request also blocks new grants.
    Locked = "LOCKED", PermissionDenied;
    /// Something that the grant depends on was revoked.
    Revoked = "REVOKED", PermissionDenied;
    /// The SVID, subject token or credential cannot be evidence for a grant.
    EvidenceRevoked = "EVIDENCE_REVOKED", PermissionDenied;
    /// The caller may not act in this task, or for this credential.
    NotYours = "NOT_YOURS", PermissionDenied;
    /// Workload, task, upstream and credential belong to different environments.
    EnvironmentWall = "ENVIRONMENT_WALL", PermissionDenied;
    /// The task does not include this upstream, scope, tool or kind.
    OutsideTask = "OUTSIDE_TASK", PermissionDenied;
    /// The upstream's registration, or the named binding, does not include this scope, kind, tool or caller.
    OutsideUpstream = "OUTSIDE_UPSTREAM", PermissionDenied;
    /// The grant would be wider than the grant that it depends on.
    WiderThanParent = "WIDER_THAN_PARENT", PermissionDenied;
    /// The task, credential, upstream, key or trust domain does not exist, or this caller may not know of it.
    NotFound = "NOT_FOUND", NotFound;
    /// An object of that name already exists.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// The task is over, held, or not yet approved.
    TaskNotActive = "TASK_NOT_ACTIVE", FailedPrecondition;
    /// The credential was given back or revoked, or has expired.
    CredentialNotActive = "CREDENTIAL_NOT_ACTIVE", FailedPrecondition;
    /// The upstream is disabled, retired or past its expiry.
    UpstreamNotActive = "UPSTREAM_NOT_ACTIVE", FailedPrecondition;
    /// No lifetime is left: a bound ends the credential before it would begin.
    NoLifeLeft = "NO_LIFE_LEFT", FailedPrecondition;
    /// The request needs an approval first.
    ApprovalNeeded = "APPROVAL_NEEDED", FailedPrecondition;
    /// The confirmed number is too small for what would be revoked.
    ConfirmNeeded = "CONFIRM_NEEDED", FailedPrecondition;
    /// The state of the signing key does not permit the action.
    KeyState = "KEY_STATE", FailedPrecondition;
    /// Not every follower has applied the record.
    FollowersBehind = "FOLLOWERS_BEHIND", FailedPrecondition;
    /// The state changed between the decision and its place in the order. Try again.
    DecidedOnOldState = "DECIDED_ON_OLD_STATE", Aborted;
    /// The requested position is older than what is kept; the follower must begin with a snapshot.
    Compacted = "COMPACTED", OutOfRange;
    /// The follower has seen more of the ledger than this server has, or another history: the server runs on an older copy of its data
    /// directory.
    LedgerRolledBack = "LEDGER_ROLLED_BACK", FailedPrecondition;
    /// A bound of `limits.rs` or of the configuration was reached. The bound is named.
    LimitReached = "LIMIT_REACHED", ResourceExhausted;
    /// The remaining disk space is reserved for revocations; issuing has stopped.
    DiskReserve = "DISK_RESERVE", ResourceExhausted;
    /// The server takes no calls: it is starting or stopping, or the ledger could not be written.
    NotReady = "NOT_READY", Unavailable;
    /// The clock departs from the ledger's time by more than the allowed skew.
    ClockSkew = "CLOCK_SKEW", Unavailable;
    /// The caller's deadline passed before the answer was ready. The request may have been carried out.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// The upstream did not do what was asked.
    UpstreamFailed = "UPSTREAM_FAILED", Unavailable;
    /// The server's version does not implement this part of the interface.
    NotServed = "NOT_SERVED", Unimplemented;
}

/// A refusal. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason from the closed list.
    pub reason: Reason,
    /// The refused request and the rule that refused it, for the caller. Never contains a secret or a token.
    pub message: String,
    /// The invalid field of the request, as a path like `task.deadline`, if there is one.
    pub field: Option<&'static str>,
    /// Details that few refusals have.
    pub details: Option<Box<RefusalDetails>>,
    /// The rule that refused: a sequence number, a policy id, or the name of a bound.
    pub rule: Option<String>,
    /// The person or role that can lift the refusal, and the command to ask for.
    pub way_out: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// Details that few refusals have. They are boxed, since refusals are moved often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalDetails {
    /// If several fields are invalid: each field and its error, instead of `field`.
    pub fields: Vec<(String, String)>,
    /// The id of the approval that is waited for.
    pub approval: Option<String>,
    /// The request that policy evaluated, for the audit log only; not sent to the caller.
    pub denied: Option<DeniedExchange>,
}

/// An exchange that policy refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedExchange {
    /// The environment.
    pub environment: String,
    /// The upstream, and the version of its registration.
    pub upstream: (String, u64),
    /// The version of the policy set.
    pub policy: u64,
    /// The task; `None` if the exchange would have opened it.
    pub task: Option<[u8; 16]>,
    /// The kind of credential, by its persisted number.
    pub kind: u8,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The tool.
    pub tool: String,
    /// The purpose.
    pub purpose: String,
    /// SHA-256 of the arguments.
    pub arguments: Option<[u8; 32]>,
    /// The requested lifetime, milliseconds.
    pub ttl_ms: u64,
    /// Whether the exchange was a renewal.
    pub renewal: bool,
    /// The binding that covered the request; empty for none.
    pub binding: String,
    /// The authorization details; empty for none.
    pub authorization_details: String,
    /// The subject on whose behalf the caller asked.
    pub subject: Option<DeniedSubject>,
}

/// The subject of a refused exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedSubject {
    /// The issuer and id of the subject.
    pub subject: (String, String),
    /// The actors, by issuer and id each; the caller is the outermost.
    pub actors: Vec<(String, String)>,
    /// The groups of the subject, according to its token.
    pub groups: Vec<String>,
    /// The scopes of the subject, according to its token.
    pub scopes: Vec<String>,
}

impl Refusal {
    /// A refusal with its reason and message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into(), field: None, details: None, rule: None, way_out: None, retry_after: None }
    }

    /// A refusal for one invalid field: `message` tells the error and what would be valid.
    pub fn field(field: &'static str, message: impl fmt::Display) -> Refusal {
        let mut no = Refusal::new(Reason::InvalidField, format!("{field}: {message}"));
        no.field = Some(field);
        no
    }

    /// A refusal for invalid fields, each with its error and what would be valid. All errors are reported at once.
    pub fn fields(wrong: Vec<(String, String)>) -> Refusal {
        let all: Vec<String> = wrong.iter().map(|(field, what)| format!("{field}: {what}")).collect();
        let mut no = Refusal::new(Reason::InvalidField, all.join("; "));
        no.details = Some(Box::new(RefusalDetails { fields: wrong, ..RefusalDetails::default() }));
        no
    }

    /// The invalid fields, each with its error.
    pub fn wrong(&self) -> impl Iterator<Item = (&str, &str)> {
        let one = self.field.map(|field| (field, self.message.as_str()));
        let several = self.details.iter().flat_map(|details| &details.fields);
        one.into_iter().chain(several.map(|(field, what)| (field.as_str(), what.as_str())))
    }

    /// The refusal of a whole request for one of its parts, which has this name in the request, such as `exchanges[2]`. The invalid fields
    /// are those of the part; a refusal that names no field names the part itself.
    #[must_use]
    pub fn of_part(mut self, part: &str) -> Refusal {
        let mut fields: Vec<_> = self.wrong().map(|(field, what)| (format!("{part}.{field}"), what.to_owned())).collect();
        if fields.is_empty() {
            fields.push((part.to_owned(), self.message.clone()));
        }
        self.field = None;
        self.details.get_or_insert_default().fields = fields;
        self.message = format!("{part}: {}", self.message);
        self
    }

    /// A refusal for a reached bound.
    pub fn limit(name: &'static str, bound: u64, retry_after: Duration) -> Refusal {
        let mut no = Refusal::new(Reason::LimitReached, format!("the limit {name} of {bound} is reached"));
        no.rule = Some(name.to_owned());
        no.retry_after = Some(retry_after);
        no
    }

    /// Names the rule that refused.
    pub fn by(mut self, rule: impl Into<String>) -> Refusal {
        self.rule = Some(rule.into());
        self
    }

    /// Names the approval that is waited for.
    pub fn approval(mut self, id: impl Into<String>) -> Refusal {
        self.details.get_or_insert_default().approval = Some(id.into());
        self
    }

    /// Attaches the request that policy evaluated.
    pub fn denied(mut self, denied: DeniedExchange) -> Refusal {
        self.details.get_or_insert_default().denied = Some(denied);
        self
    }

    /// Names who can lift the refusal, and the command.
    pub fn way_out(mut self, how: impl Into<String>) -> Refusal {
        self.way_out = Some(how.into());
        self
    }

    /// Sets when to try again.
    pub fn retry(mut self, after: Duration) -> Refusal {
        self.retry_after = Some(after);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// A failure of the server. Its text is for the log; callers get a number to ask about.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// A description of the failure. Never contains a secret or a token.
    pub what: String,
}

impl Fault {
    /// A fault with its description.
    pub fn new(what: impl Into<String>) -> Fault {
        Fault { what: what.into() }
    }
}

/// Everything that can be returned instead of an answer.
#[derive(Debug, Clone)]
pub enum Error {
    /// A refusal.
    Refusal(Refusal),
    /// A failure of the server.
    Fault(Fault),
}

impl Error {
    /// A refusal as [`Refusal::of_part`]. A fault stays as it is: its text is for the log.
    #[must_use]
    pub fn of_part(self, part: &str) -> Error {
        match self {
            Error::Refusal(no) => Error::Refusal(no.of_part(part)),
            Error::Fault(fault) => Error::Fault(fault),
        }
    }
}

impl From<Refusal> for Error {
    fn from(no: Refusal) -> Error {
        Error::Refusal(no)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Fault(fault)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refusal(no) => no.fmt(f),
            Error::Fault(fault) => fault.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_part_names_it_in_its_fields_and_message() {
        let part = Refusal::field("ttl", "300 s at most").of_part("exchanges[2]");
        assert_eq!(part.wrong().collect::<Vec<_>>(), [("exchanges[2].ttl", "ttl: 300 s at most")]);
        assert_eq!(part.message, "exchanges[2]: ttl: 300 s at most");
        let locked = Refusal::new(Reason::Locked, "everything is locked").of_part("exchanges[0]");
        assert_eq!(locked.wrong().collect::<Vec<_>>(), [("exchanges[0]", "everything is locked")]);
        let two = Refusal::fields(vec![("a".into(), "no".into()), ("b".into(), "no".into())]).of_part("exchanges[1]");
        assert_eq!(two.wrong().map(|(field, _)| field).collect::<Vec<_>>(), ["exchanges[1].a", "exchanges[1].b"]);
    }

    #[test]
    fn every_reason_has_one_text_in_the_wire_form() {
        let texts: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
        for text in texts {
            assert!(text.len() <= 63 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{text}");
        }
    }
}
