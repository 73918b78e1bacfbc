//! Errors, grouped by how a caller can react to them.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::pb::mayfly::v1 as pb;

/// Why a credential was not obtained.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// mayfly refused. Retrying does not help; `way_out` says who can change that.
    #[error("denied: {0}")]
    Denied(Box<Refusal>),
    /// A person must approve first. The same request succeeds once the approval was given.
    #[error("approval {} is needed: {refusal}", approval_id)]
    ApprovalNeeded {
        /// The id of the pending approval, for `mayfly approval show ID`.
        approval_id: String,
        /// The server's refusal.
        refusal: Box<Refusal>,
    },
    /// The request itself is invalid; the refusal names the fields.
    #[error("invalid request: {0}")]
    Invalid(Box<Refusal>),
    /// No answer after all attempts that are safe.
    #[error("unavailable: {0}")]
    Unavailable(Box<Refusal>),
    /// A fault of the server, or an answer that this client does not understand.
    #[error("fault: {0}")]
    Fault(Box<Refusal>),
    /// A peer's identity was not accepted: the peer is not the expected server, or the server does not accept the client's SVID.
    #[error("{0}")]
    Handshake(String),
    /// Invalid settings or arguments. The text says what is missing and what would be valid.
    #[error("{0}")]
    Settings(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// A refusal by mayfly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, from the closed list of the API, such as `DENIED_BY_POLICY`. Empty where the server named none.
    pub reason: String,
    /// A description for people.
    pub message: String,
    /// The rule that refused: a sequence number, a policy's id, the name of a bound. May be empty.
    pub rule: String,
    /// The person or role that can change the decision, and the command for it. May be empty.
    pub way_out: String,
    /// The invalid fields.
    pub fields: Vec<FieldViolation>,
    /// When a retry may succeed.
    pub retry_after: Option<Duration>,
    /// Of several credentials requested at once: the upstream of the one that was refused. Empty otherwise.
    pub upstream: String,
    approval_id: String,
    code: i32,
}

/// An invalid field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path in the request.
    pub field: String,
    /// The problem, and a value that would be valid.
    pub description: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.reason.is_empty() {
            write!(f, "{}: ", self.reason)?;
        }
        f.write_str(&self.message)?;
        if !self.way_out.is_empty() {
            write!(f, "; {}", self.way_out)?;
        }
        Ok(())
    }
}

impl Error {
    /// mayfly's refusal, if it sent one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Denied(r) | Error::Invalid(r) | Error::Unavailable(r) | Error::Fault(r) => Some(r),
            Error::ApprovalNeeded { refusal, .. } => Some(refusal),
            Error::Handshake(_) | Error::Settings(_) | Error::Closed => None,
        }
    }

    /// Whether the same request may be sent again with a chance of success. A refusal for good is never retried.
    pub(crate) fn may_pass(&self) -> bool {
        let Error::Unavailable(refusal) = self else { return false };
        // The server says when a limit has room again. Without that, a retry would only add load.
        Code::from(refusal.code) != Code::ResourceExhausted || refusal.retry_after.is_some()
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|r| r.retry_after)
    }

    /// Names the upstream of the exchange that the server names by its place in the batch.
    pub(crate) fn of_batch(mut self, upstreams: &[String]) -> Error {
        let (Error::Denied(refusal)
        | Error::Invalid(refusal)
        | Error::Unavailable(refusal)
        | Error::Fault(refusal)
        | Error::ApprovalNeeded { refusal, .. }) = &mut self
        else {
            return self;
        };
        let said = std::iter::once(&refusal.message).chain(refusal.fields.iter().map(|violation| &violation.field));
        let place = said.filter_map(|text| Some(text.strip_prefix("exchanges[")?.split_once(']')?.0.to_owned())).next();
        let Some(upstream) = place.as_ref().and_then(|n| upstreams.get(n.parse::<usize>().ok()?)) else { return self };
        let prefix = format!("exchanges[{}]", place.unwrap_or_default());
        let texts = refusal.fields.iter_mut().map(|violation| &mut violation.field);
        for text in std::iter::once(&mut refusal.message).chain(texts) {
            if let Some(rest) = text.strip_prefix(&prefix) {
                *text = format!("{upstream}{rest}");
            }
        }
        refusal.upstream.clone_from(upstream);
        self
    }

    fn of(refusal: Refusal) -> Error {
        let boxed = |refusal| Box::new(refusal);
        match Code::from(refusal.code) {
            _ if refusal.reason == "APPROVAL_NEEDED" => {
                Error::ApprovalNeeded { approval_id: refusal.approval_id.clone(), refusal: boxed(refusal) }
            }
            Code::InvalidArgument => Error::Invalid(boxed(refusal)),
            Code::PermissionDenied | Code::Unauthenticated | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists => {
                Error::Denied(boxed(refusal))
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted | Code::Cancelled => {
                Error::Unavailable(boxed(refusal))
            }
            _ => Error::Fault(boxed(refusal)),
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Error {
        Error::Unavailable(Box::new(Refusal { message: message.into(), code: Code::Unavailable as i32, ..Refusal::default() }))
    }

    pub(crate) fn fault(message: impl Into<String>) -> Error {
        Error::Fault(Box::new(Refusal { message: message.into(), code: Code::Internal as i32, ..Refusal::default() }))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        let details = status.get_error_details();
        let mut refusal = Refusal { message: status.message().to_owned(), code: status.code() as i32, ..Refusal::default() };
        if let Some(info) = details.error_info() {
            let said = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
            refusal.reason = info.reason.clone();
            (refusal.rule, refusal.way_out, refusal.approval_id) = (said("rule"), said("way_out"), said("approval_id"));
        }
        let violations = details.bad_request().into_iter().flat_map(|b| &b.field_violations);
        refusal.fields =
            violations.map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() }).collect();
        refusal.retry_after = details.retry_info().and_then(|r| r.retry_delay);
        // A connection that broke during a call is not an answer. tonic reports it as UNKNOWN.
        if status.code() == Code::Unknown && refusal.reason.is_empty() {
            refusal.code = Code::Unavailable as i32;
        }
        Error::of(refusal)
    }
}

impl From<pb::Problem> for Error {
    fn from(problem: pb::Problem) -> Error {
        let delay = problem.retry_after.and_then(|d| Duration::try_from(d).ok());
        let fields = problem.field_violations.into_iter();
        Error::of(Refusal {
            reason: problem.reason,
            message: problem.message,
            rule: problem.rule,
            way_out: problem.way_out,
            fields: fields.map(|v| FieldViolation { field: v.field, description: v.description }).collect(),
            retry_after: delay,
            approval_id: problem.approval_id,
            code: problem.code,
            ..Refusal::default()
        })
    }
}
