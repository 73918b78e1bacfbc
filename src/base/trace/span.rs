//! Finished spans and their attributes.

use std::borrow::Cow;

use super::context::{SpanId, TraceId};

/// The kind of a span, by OpenTelemetry's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SpanKind {
    /// Work within this server.
    #[default]
    Internal = 1,
    /// A call that this server answers.
    Server = 2,
    /// A call to another server.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpanValue {
    /// A text. Never a secret, and never a caller's free text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> SpanValue {
        SpanValue::Text(text.to_owned())
    }
}

impl From<String> for SpanValue {
    fn from(text: String) -> SpanValue {
        SpanValue::Text(text)
    }
}

impl From<u64> for SpanValue {
    fn from(number: u64) -> SpanValue {
        SpanValue::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// An attribute: name and value.
pub type SpanAttribute = (&'static str, SpanValue);

/// A finished span.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// The trace id.
    pub trace: TraceId,
    /// The span id.
    pub id: SpanId,
    /// The parent span; `None` where there is none or it is unknown.
    pub parent: Option<SpanId>,
    /// The span's name.
    pub name: Cow<'static, str>,
    /// The span's kind.
    pub kind: SpanKind,
    /// The start, in nanoseconds since 1970.
    pub start_ns: u64,
    /// The end, in nanoseconds since 1970.
    pub end_ns: u64,
    /// The attributes.
    pub attributes: Vec<SpanAttribute>,
    /// The error, if mayfly or a server that it called failed. A correct refusal is not an error.
    pub failed: Option<Cow<'static, str>>,
}

/// A caller's text in a form that may be exported: every character outside printable ASCII is escaped.
pub fn plain(name: &str) -> String {
    name.escape_default().to_string()
}
