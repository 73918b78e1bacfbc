//! A span that is over, and what is told of it.

use std::borrow::Cow;

use super::context::{SpanId, TraceId};

/// Which part of a call a span is, by OpenTelemetry's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// Something within this server.
    #[default]
    Internal = 1,
    /// A call that this server answers.
    Server = 2,
    /// Somebody else is asked.
    Client = 3,
}

/// What is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A text. Never a secret, and never what a caller wrote as it likes.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// One thing that is told, by its name.
pub type Attribute = (&'static str, Value);

/// A span that is over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// What it is a part of; `None` for nothing that is known.
    pub parent: Option<SpanId>,
    /// What it is.
    pub name: Cow<'static, str>,
    /// Which part.
    pub kind: Kind,
    /// When it began, nanoseconds since 1970.
    pub start_ns: u64,
    /// When it was over.
    pub end_ns: u64,
    /// What is told of it.
    pub attributes: Vec<Attribute>,
    /// Why it failed, where it did, by something of ours or somebody's who was asked: what was refused correctly did not.
    pub failed: Option<Cow<'static, str>>,
}

/// A caller's name for something, as it may be told: what is no plain character is written out.
pub fn plain(name: &str) -> String {
    name.escape_default().to_string()
}
