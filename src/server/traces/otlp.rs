//! Spans in OTLP form (OTLP specification 1.5, `opentelemetry/proto/trace/v1/trace.proto`): the requests posted to a collector.

use std::borrow::Cow;

use prost::Message;

use crate::otlp::{Any, AnyValue, KeyValue, Resource, attribute, text};
use mayfly_base::trace::{Span, SpanValue};

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportTraceRequest {
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
    pub scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<OtlpSpan>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InstrumentationScope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpSpan {
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
    pub status: Option<SpanStatus>,
    /// Bit 0: sampled. Bit 8: it is known whether the parent is remote. Bit 9: the parent is remote.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SpanStatus {
    #[prost(string, tag = "2")]
    pub message: String,
    /// 2: an error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

const SAMPLED: u32 = 1;
const ERROR: i32 = 2;

fn any(value: SpanValue) -> AnyValue {
    let value = match value {
        SpanValue::Text(text) => Any::Text(text),
        SpanValue::Number(number) => Any::Number(number),
    };
    AnyValue { value: Some(value) }
}

fn span_to_otlp(span: Span) -> OtlpSpan {
    OtlpSpan {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |id| id.to_vec()),
        name: span.name.into_owned(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns.max(span.start_ns),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, any(value))).collect(),
        status: span.failed.map(|why: Cow<'_, str>| SpanStatus { message: why.into_owned(), code: ERROR }),
        flags: SAMPLED,
    }
}

/// The request with these spans, as service `mayfly`. `instance`: identifies the server.
pub(super) fn request(spans: Vec<Span>, instance: &str) -> ExportTraceRequest {
    let about = [("service.name", "mayfly"), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", instance)];
    let attributes = about.into_iter().map(|(key, value)| attribute(key, text(value))).collect();
    let scope = InstrumentationScope { name: "mayfly".into(), version: env!("CARGO_PKG_VERSION").into() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.into_iter().map(span_to_otlp).collect() }];
    ExportTraceRequest { resource_spans: vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }] }
}
