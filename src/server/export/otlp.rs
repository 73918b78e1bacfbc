//! To an OpenTelemetry collector on this host or network: OTLP logs as protobuf over HTTP/1.1 (OTLP specification 1.5, "OTLP/HTTP").
//!
//! A batch is exported once the collector answers 200. What it says that it rejects for good is logged and not sent again, as the
//! specification asks.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use prost::Message;

use super::syslog::resolved;
use super::{Sink, Told};
use crate::limits;
use crate::sources::config::Collector;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LogRecord {
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// 9: INFO.
    #[prost(int32, tag = "2")]
    pub severity_number: i32,
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    #[prost(string, tag = "12")]
    pub event_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A text; the other sorts of value are not used.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(string, tag = "1")]
    pub text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error: String,
}

/// A collector.
pub struct ToCollector {
    to: Collector,
}

impl ToCollector {
    /// At this address.
    pub fn new(to: Collector) -> ToCollector {
        ToCollector { to }
    }

    fn post(&self, body: &[u8]) -> io::Result<Vec<u8>> {
        let patience = Duration::from_millis(limits::EXPORT_CALL_MS);
        let mut stream = TcpStream::connect_timeout(&resolved(&self.to.address)?, patience)?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_read_timeout(Some(patience))?;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.to.path,
            self.to.address,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.take(limits::EXPORT_ANSWER_BYTES).read_to_end(&mut answer)?;
        answered(&answer)
    }
}

/// The body of an answer with status 200.
pub(super) fn answered(answer: &[u8]) -> io::Result<Vec<u8>> {
    let text = String::from_utf8_lossy(answer.get(..answer.len().min(200)).unwrap_or_default()).into_owned();
    let line = text.lines().next().unwrap_or_default();
    let status = line.split(' ').nth(1).unwrap_or_default();
    if !line.starts_with("HTTP/1.") || status != "200" {
        let shown: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(io::Error::other(format!("it answered {shown:?}, expected status 200")));
    }
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    Ok(body.and_then(|at| answer.get(at..)).unwrap_or_default().to_vec())
}

fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue { text: text.to_owned() })
}

/// The records of a batch, as the service `mayfly`.
pub(super) fn request(batch: &[Told]) -> Request {
    let record = |one: &Told| LogRecord {
        time_unix_nano: one.at.0.saturating_mul(1_000_000),
        severity_number: 9,
        body: text(&one.json),
        event_name: format!("mayfly.{}", one.event.replace(' ', "_")),
    };
    let attributes = vec![KeyValue { key: "service.name".into(), value: text("mayfly") }];
    let scope_logs = vec![ScopeLogs { log_records: batch.iter().map(record).collect() }];
    Request { resource_logs: vec![ResourceLogs { resource: Some(Resource { attributes }), scope_logs }] }
}

impl Sink for ToCollector {
    fn hand_over(&mut self, batch: &[Told]) -> io::Result<()> {
        let failed = |e: io::Error| io::Error::new(e.kind(), format!("the collector at {}: {e}", self.to.address));
        let body = self.post(&request(batch).encode_to_vec()).map_err(failed)?;
        // Chunked or not understood, it is still a 200.
        let partial = Response::decode(&body[..]).ok().and_then(|r| r.partial_success).filter(|p| p.rejected > 0);
        if let Some(partial) = partial {
            tracing::error!(rejected = partial.rejected, error = partial.error, "the collector rejects records of the audit");
        }
        Ok(())
    }
}
