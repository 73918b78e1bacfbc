//! A refusal is a correct "no": one closed list, one mapping to the wire. A fault is ours.

use std::fmt;
use std::time::Duration;

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
        /// Why something was refused: the closed list. Its text is `ErrorInfo.reason`, with domain `mayfly.dev`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The text on the wire and in records.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The status code that carries it.
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
    /// The peer showed no X.509-SVID that mayfly accepts.
    NotAuthenticated = "NOT_AUTHENTICATED", Unauthenticated;
    /// The peer's SVID has expired, was revoked, or its trust anchor was removed, since the connection began.
    SvidNoLongerValid = "SVID_NO_LONGER_VALID", Unauthenticated;
    /// No policy permits it, or one forbids it.
    DeniedByPolicy = "DENIED_BY_POLICY", PermissionDenied;
    /// A revocation that covers this request also blocks new grants.
    Locked = "LOCKED", PermissionDenied;
    /// What the grant rests on was revoked.
    Revoked = "REVOKED", PermissionDenied;
    /// A SPIFFE ID, subject token or credential that is no evidence for a grant.
    EvidenceRevoked = "EVIDENCE_REVOKED", PermissionDenied;
    /// The caller may not act in this task, or for this credential.
    NotYours = "NOT_YOURS", PermissionDenied;
    /// Workload, task, upstream and credential belong to different environments.
    EnvironmentWall = "ENVIRONMENT_WALL", PermissionDenied;
    /// The task does not include this upstream, scope, tool or kind.
    OutsideTask = "OUTSIDE_TASK", PermissionDenied;
    /// The upstream's registration, or the binding that is named, does not include this scope, kind, tool or caller.
    OutsideUpstream = "OUTSIDE_UPSTREAM", PermissionDenied;
    /// A grant that would be wider than the one it rests on.
    WiderThanParent = "WIDER_THAN_PARENT", PermissionDenied;
    /// No such task, credential, upstream, key or trust domain, as far as this caller may know.
    NotFound = "NOT_FOUND", NotFound;
    /// There is one of that name already.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// The task is over, held, or not yet approved.
    TaskNotActive = "TASK_NOT_ACTIVE", FailedPrecondition;
    /// The credential was given back, revoked, or has expired.
    CredentialNotActive = "CREDENTIAL_NOT_ACTIVE", FailedPrecondition;
    /// The upstream is disabled, retired or past its expiry.
    UpstreamNotActive = "UPSTREAM_NOT_ACTIVE", FailedPrecondition;
    /// Nothing of the asked lifetime is left: a bound ends it before it would begin.
    NoLifeLeft = "NO_LIFE_LEFT", FailedPrecondition;
    /// Somebody has to approve this first.
    ApprovalNeeded = "APPROVAL_NEEDED", FailedPrecondition;
    /// `--confirm` named a number that is too small for what would be revoked.
    ConfirmNeeded = "CONFIRM_NEEDED", FailedPrecondition;
    /// The signing key is in no state for that.
    KeyState = "KEY_STATE", FailedPrecondition;
    /// Not every follower has applied it.
    FollowersBehind = "FOLLOWERS_BEHIND", FailedPrecondition;
    /// The state changed between the decision and its place in the order. Try again.
    DecidedOnOldState = "DECIDED_ON_OLD_STATE", Aborted;
    /// Older than what is kept: begin with a snapshot.
    Compacted = "COMPACTED", OutOfRange;
    /// Whoever follows has seen more of the ledger than this server has, or another history: it runs on an older copy of its data directory.
    LedgerRolledBack = "LEDGER_ROLLED_BACK", FailedPrecondition;
    /// A bound of `limits.rs` or of the configuration was reached. The bound is named.
    LimitReached = "LIMIT_REACHED", ResourceExhausted;
    /// The disk reserve is for revocations: issuing has stopped.
    DiskReserve = "DISK_RESERVE", ResourceExhausted;
    /// Not taking calls: starting, stopping, or the ledger could not be written.
    NotReady = "NOT_READY", Unavailable;
    /// The clock departs from the ledger's time by more than the allowed skew.
    ClockSkew = "CLOCK_SKEW", Unavailable;
    /// The caller's deadline passed before the answer was there. What was asked for may have been done.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// The upstream did not do what was asked.
    UpstreamFailed = "UPSTREAM_FAILED", Unavailable;
    /// A part of the interface that this version has no implementation for.
    NotServed = "NOT_SERVED", Unimplemented;
}

/// A correct "no". Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of the closed list.
    pub reason: Reason,
    /// What was refused and by which rule, for the caller. Never holds a secret or a token.
    pub message: String,
    /// The request's field that was wrong, as a path like `task.deadline`, where there is one.
    pub field: Option<&'static str>,
    /// What few refusals have.
    pub details: Option<Box<Details>>,
    /// The rule that refused it: a seq, a policy id, the name of a bound.
    pub rule: Option<String>,
    /// Who can change that, and the command to ask for it.
    pub way_out: Option<String>,
    /// When it may be worth trying again.
    pub retry_after: Option<Duration>,
}

/// What few refusals have: in a box, since a refusal is handed on a lot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Where several fields were wrong, each with what was: instead of `field`.
    pub fields: Vec<(String, String)>,
    /// The approval that is waited for, by its id.
    pub approval: Option<String>,
    /// What policy was asked, for the audit: nobody else is told.
    pub denied: Option<Denied>,
}

/// An exchange that policy refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// The environment.
    pub environment: String,
    /// The upstream and the version of its registration.
    pub upstream: (String, u64),
    /// Version of the policy set.
    pub policy: u64,
    /// The task; `None` where it would have been opened with it.
    pub task: Option<[u8; 16]>,
    /// The kind of credential, by its persisted number.
    pub kind: u8,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The tool.
    pub tool: String,
    /// What for.
    pub purpose: String,
    /// SHA-256 of the arguments.
    pub arguments: Option<[u8; 32]>,
    /// How long it would have lived, milliseconds.
    pub ttl_ms: u64,
    /// It would have renewed another one.
    pub renewal: bool,
    /// The binding that covered it; empty for none.
    pub binding: String,
    /// On whose behalf.
    pub subject: Option<DeniedSubject>,
}

/// On whose behalf an exchange was asked for that policy refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedSubject {
    /// Issuer and id.
    pub subject: (String, String),
    /// The actors, the caller outermost, by issuer and id each.
    pub actors: Vec<(String, String)>,
    /// Its groups, as its token says.
    pub groups: Vec<String>,
    /// Its scopes, as its token says.
    pub scopes: Vec<String>,
}

impl Refusal {
    /// A refusal with its reason and what to say.
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into(), field: None, details: None, rule: None, way_out: None, retry_after: None }
    }

    /// A field that is wrong: `message` says what was wrong and what would be right.
    pub fn field(field: &'static str, message: impl fmt::Display) -> Refusal {
        let mut no = Refusal::new(Reason::InvalidField, format!("{field}: {message}"));
        no.field = Some(field);
        no
    }

    /// Fields that are wrong, each with what was wrong and what would be right. Everything at once: nobody mends one to be told of the next.
    pub fn fields(wrong: Vec<(String, String)>) -> Refusal {
        let all: Vec<String> = wrong.iter().map(|(field, what)| format!("{field}: {what}")).collect();
        let mut no = Refusal::new(Reason::InvalidField, all.join("; "));
        no.details = Some(Box::new(Details { fields: wrong, ..Details::default() }));
        no
    }

    /// Which fields were wrong, each with what was.
    pub fn wrong(&self) -> impl Iterator<Item = (&str, &str)> {
        let one = self.field.map(|field| (field, self.message.as_str()));
        let several = self.details.iter().flat_map(|details| &details.fields);
        one.into_iter().chain(several.map(|(field, what)| (field.as_str(), what.as_str())))
    }

    /// A bound that was reached.
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

    /// Says what policy was asked.
    pub fn denied(mut self, denied: Denied) -> Refusal {
        self.details.get_or_insert_default().denied = Some(denied);
        self
    }

    /// Names who can change it, and the command.
    pub fn way_out(mut self, how: impl Into<String>) -> Refusal {
        self.way_out = Some(how.into());
        self
    }

    /// Says when to try again.
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

/// Something of ours broke. Its text is for the log; callers get a number to ask about.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// What broke. Never holds a secret or a token.
    pub what: String,
}

impl Fault {
    /// A fault with its description.
    pub fn new(what: impl Into<String>) -> Fault {
        Fault { what: what.into() }
    }
}

/// Everything that can come instead of an answer.
#[derive(Debug, Clone)]
pub enum No {
    /// A correct "no".
    Refusal(Refusal),
    /// Our own failure.
    Fault(Fault),
}

impl From<Refusal> for No {
    fn from(no: Refusal) -> No {
        No::Refusal(no)
    }
}

impl From<Fault> for No {
    fn from(fault: Fault) -> No {
        No::Fault(fault)
    }
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            No::Refusal(no) => no.fmt(f),
            No::Fault(fault) => fault.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_text_in_the_wire_form() {
        let texts: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
        for text in texts {
            assert!(text.len() <= 63 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{text}");
        }
    }
}
