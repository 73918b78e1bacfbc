//! Spans in OTLP form (OTLP specification 1.5, `opentelemetry/proto/trace/v1/trace.proto`): the requests posted to a collector.

use std::borrow::Cow;

use prost::Message;

use crate::otlp::{Any, AnyValue, KeyValue, Resource, attribute, text};
use mayfly_base::trace::{Span, Value};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<OneSpan>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OneSpan {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// Bit 0: sampled. Bit 8: it is known whether the parent is remote. Bit 9: the parent is remote.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub message: String,
    /// 2: an error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

const SAMPLED: u32 = 1;
const ERROR: i32 = 2;

fn any(value: Value) -> AnyValue {
    let value = match value {
        Value::Text(text) => Any::Text(text),
        Value::Number(number) => Any::Number(number),
    };
    AnyValue { value: Some(value) }
}

fn one(span: Span) -> OneSpan {
    OneSpan {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |id| id.to_vec()),
        name: span.name.into_owned(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns.max(span.start_ns),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, any(value))).collect(),
        status: span.failed.map(|why: Cow<'_, str>| Status { message: why.into_owned(), code: ERROR }),
        flags: SAMPLED,
    }
}

/// The request with these spans, as service `mayfly`. `instance`: identifies the server.
pub(super) fn request(spans: Vec<Span>, instance: &str) -> Request {
    let about = [("service.name", "mayfly"), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", instance)];
    let attributes = about.into_iter().map(|(key, value)| attribute(key, text(value))).collect();
    let scope = Scope { name: "mayfly".into(), version: env!("CARGO_PKG_VERSION").into() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.into_iter().map(one).collect() }];
    Request { resource_spans: vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }] }
}
