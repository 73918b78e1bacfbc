//! JSON and table forms of explanations.

use serde::Serialize;

use super::{AuthorView, number_or_dash, or_dash, some_seq, time, yes_no};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// An explanation.
#[derive(Serialize, Debug)]
pub struct Explanation {
    pub summary: String,
    pub findings: Vec<ExplanationStepView>,
    pub records: Vec<RecordView>,
    /// No record names the request; the findings are the newest refusals of its caller.
    pub request_unknown: bool,
}

/// One step of the explanation.
#[derive(Serialize, Debug)]
pub struct ExplanationStepView {
    pub subject: String,
    pub permits: bool,
    pub text: String,
    pub seq: Option<u64>,
}

/// A record that supports the explanation.
#[derive(Serialize, Debug)]
pub struct RecordView {
    pub seq: u64,
    pub at: Option<String>,
    pub event: String,
    pub author: Option<AuthorView>,
    pub void_because: String,
    pub group: Option<u64>,
    pub body: serde_json::Value,
}

impl From<pb::ExplainResponse> for Explanation {
    fn from(e: pb::ExplainResponse) -> Explanation {
        let finding =
            |f: pb::Finding| ExplanationStepView { subject: f.subject, permits: f.permits, text: f.text, seq: some_seq(f.seq) };
        Explanation {
            summary: e.summary,
            findings: e.findings.into_iter().map(finding).collect(),
            records: e.records.into_iter().map(RecordView::from).collect(),
            request_unknown: e.request_unknown,
        }
    }
}

impl From<pb::Record> for RecordView {
    fn from(r: pb::Record) -> RecordView {
        RecordView {
            seq: r.seq,
            at: time(r.at),
            event: r.event,
            author: AuthorView::of(r.author),
            void_because: r.void_because,
            group: some_seq(r.group),
            // A body that is not JSON is shown as text.
            body: serde_json::from_str(&r.body).unwrap_or(serde_json::Value::String(r.body)),
        }
    }
}

impl Printable for Explanation {
    fn name(&self) -> String {
        self.summary.clone()
    }
}

impl Printable for ExplanationStepView {
    fn name(&self) -> String {
        self.subject.clone()
    }
}

impl Row for ExplanationStepView {
    const COLUMNS: &'static [&'static str] = &["LOOKED AT", "PERMITS", "WHAT CAME OF IT", "RECORD"];

    fn cells(&self) -> Vec<String> {
        vec![self.subject.clone(), yes_no(self.permits), self.text.clone(), number_or_dash(self.seq)]
    }
}

impl Printable for RecordView {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

impl Row for RecordView {
    const COLUMNS: &'static [&'static str] = &["RECORD", "AT", "EVENT", "AUTHOR", "VOID BECAUSE"];
    const WIDE: &'static [&'static str] = &["CONTENT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            or_dash(self.at.as_deref()),
            self.event.clone(),
            AuthorView::text(self.author.as_ref()),
            or_dash(Some(&self.void_because)),
            self.body.to_string(),
        ]
    }
}
