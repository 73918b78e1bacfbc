//! The common parts of all OTLP signals (OTLP specification 1.5, "OTLP/HTTP"): the resource, attributes, and a collector's answer.

use prost::{Message, Oneof};

/// The media type of requests and answers.
pub(super) const PROTOBUF: &str = "application/x-protobuf";

/// The sender of the signals.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 3")]
    pub value: Option<Any>,
}

/// The types of value that are used.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// A collector's answer with status 200: the same for every signal.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    #[prost(string, tag = "2")]
    pub error: String,
}

pub(super) fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Any::Text(text.to_owned())) }
}

pub(super) fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value) }
}

/// The records that the collector rejects permanently, by the body of an answer with status 200. A body that cannot be decoded still counts
/// as a 200.
pub(super) fn rejected(body: &[u8]) -> Option<PartialSuccess> {
    Response::decode(body).ok()?.partial_success.filter(|partial| partial.rejected > 0)
}
