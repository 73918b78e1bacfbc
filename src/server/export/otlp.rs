//! Export to an OpenTelemetry collector: OTLP logs as protobuf over HTTPS, or HTTP on this host (OTLP specification 1.5, "OTLP/HTTP").
//!
//! A batch is exported once the collector answers 200. Records that the collector rejects permanently are logged and not sent again, as the
//! specification requires.

use std::io;

use http::StatusCode;
use prost::Message;
use tokio::runtime::Runtime;

use super::{ExportRecord, ExportSink};
use crate::otlp::{AnyValue, PROTOBUF, Resource, attribute, rejected, text};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::config::Collector;
use mayfly_config::https::HttpsClient;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportLogsRequest {
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

/// The destination collector.
pub struct CollectorSink {
    to: Collector,
    system: System,
    /// The HTTP client and its runtime, created for the first batch.
    client: Option<(HttpsClient, Runtime)>,
    cut: u64,
}

/// Why the collector did not accept a batch.
enum NotPosted {
    /// Status 413: the batch is larger than the collector accepts.
    TooLarge,
    Error(io::Error),
}

impl CollectorSink {
    /// A destination at this address.
    pub fn new(to: Collector, system: System) -> CollectorSink {
        CollectorSink { to, system, client: None, cut: 0 }
    }

    /// Posts a request and returns the body of an answer with status 200.
    fn post(&mut self, body: Vec<u8>) -> Result<Vec<u8>, NotPosted> {
        let (https, runtime) = match &mut self.client {
            Some(client) => client,
            none => none.insert(client(&self.to, &self.system).map_err(NotPosted::Error)?),
        };
        let asked = https.post(self.to.url.as_str(), PROTOBUF, body, limits::EXPORT_ANSWER_BYTES);
        let answer = runtime.block_on(asked).map_err(|e| NotPosted::Error(io::Error::other(e)))?;
        match answer.status {
            StatusCode::OK => Ok(answer.body.to_vec()),
            StatusCode::PAYLOAD_TOO_LARGE => Err(NotPosted::TooLarge),
            status => Err(NotPosted::Error(io::Error::other(format!("it answered {status}, expected 200")))),
        }
    }

    /// Hands over a batch, split in halves if the collector finds it too large; a single record that is too large is replaced by its
    /// substitute ([`ExportRecord::cut`]).
    fn post_fitting(&mut self, batch: &[ExportRecord]) -> io::Result<()> {
        let body = match self.post(request(batch).encode_to_vec()) {
            Ok(body) => body,
            Err(NotPosted::Error(error)) => return Err(error),
            Err(NotPosted::TooLarge) => {
                return match batch {
                    [one] if one.json.contains("\"truncated\":true") => {
                        Err(io::Error::other("it finds a record of its smallest form too large"))
                    }
                    [one] => {
                        self.post_fitting(&[one.cut()])?;
                        self.cut += 1;
                        tracing::warn!(
                            event = one.event,
                            bytes = one.json.len(),
                            "a record is too large for the collector; only its seq is exported"
                        );
                        Ok(())
                    }
                    several => {
                        let (first, rest) = several.split_at(several.len() / 2);
                        self.post_fitting(first)?;
                        self.post_fitting(rest)
                    }
                };
            }
        };
        if let Some(partial) = rejected(&body) {
            tracing::error!(rejected = partial.rejected, error = partial.error, "the collector rejects records of the audit");
        }
        Ok(())
    }
}

/// A client for blocking use: the export thread waits for each answer.
fn client(to: &Collector, system: &System) -> io::Result<(HttpsClient, Runtime)> {
    let https = HttpsClient::new(to.ca.as_deref(), system).map_err(|e| io::Error::other(e.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok((https.within(limits::EXPORT_CALL_MS), runtime))
}

/// The records of a batch, as resource `mayfly`.
pub(super) fn request(batch: &[ExportRecord]) -> ExportLogsRequest {
    let record = |one: &ExportRecord| LogRecord {
        time_unix_nano: one.at.0.saturating_mul(1_000_000),
        severity_number: 9,
        body: Some(text(&one.json)),
        event_name: format!("mayfly.{}", one.event.replace(' ', "_")),
    };
    let attributes = vec![attribute("service.name", text("mayfly"))];
    let scope_logs = vec![ScopeLogs { log_records: batch.iter().map(record).collect() }];
    ExportLogsRequest { resource_logs: vec![ResourceLogs { resource: Some(Resource { attributes }), scope_logs }] }
}

impl ExportSink for CollectorSink {
    fn hand_over(&mut self, batch: &[ExportRecord]) -> io::Result<()> {
        self.post_fitting(batch).map_err(|e| {
            // Roots that were replaced take effect with the next attempt.
            self.client = None;
            io::Error::new(e.kind(), format!("the collector at {}: {e}", self.to.url.shown()))
        })
    }

    fn cut(&self) -> u64 {
        self.cut
    }
}
