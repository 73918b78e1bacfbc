//! JSON and table forms of webhooks.

use serde::Serialize;

use super::{or_dash, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A webhook, as `webhook list` prints it.
#[derive(Serialize, Debug)]
pub struct WebhookView {
    pub name: String,
    pub url: String,
    pub events: Vec<String>,
    pub environments: Vec<String>,
    pub seq: u64,
    pub behind: u64,
    pub delivered: u64,
    pub failed: u64,
    pub problem: String,
    pub since: Option<String>,
    pub given_up: u64,
    pub given_up_newest: Vec<GivenUpEventView>,
}

/// An event whose delivery was given up.
#[derive(Serialize, Debug)]
pub struct GivenUpEventView {
    pub event_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub seq: u64,
    pub at: Option<String>,
    pub problem: String,
}

impl From<pb::Webhook> for WebhookView {
    fn from(w: pb::Webhook) -> WebhookView {
        let given_up = |e: pb::GivenUpEvent| GivenUpEventView {
            event_id: e.event_id,
            kind: e.r#type,
            seq: e.seq,
            at: time(e.at),
            problem: e.problem,
        };
        WebhookView {
            name: w.name,
            url: w.url,
            events: w.events,
            environments: w.environments,
            seq: w.seq,
            behind: w.behind,
            delivered: w.delivered,
            failed: w.failed,
            problem: w.problem,
            since: time(w.since),
            given_up: w.given_up,
            given_up_newest: w.given_up_newest.into_iter().map(given_up).collect(),
        }
    }
}

impl Printable for WebhookView {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for WebhookView {
    const COLUMNS: &'static [&'static str] = &["NAME", "URL", "DELIVERED", "FAILED", "GIVEN UP", "PROBLEM"];
    const WIDE: &'static [&'static str] = &["EVENTS", "ENVIRONMENTS", "SEQ", "BEHIND", "SINCE"];

    fn cells(&self) -> Vec<String> {
        let all = |list: &[String]| if list.is_empty() { "all".to_owned() } else { list.join(",") };
        vec![
            self.name.clone(),
            self.url.clone(),
            self.delivered.to_string(),
            self.failed.to_string(),
            self.given_up.to_string(),
            or_dash(Some(&self.problem)),
            all(&self.events),
            all(&self.environments),
            self.seq.to_string(),
            self.behind.to_string(),
            or_dash(self.since.as_deref()),
        ]
    }
}

/// The result of a test event.
#[derive(Serialize, Debug)]
pub struct WebhookTestView {
    pub webhook: String,
    pub status: u32,
}

impl Printable for WebhookTestView {
    fn name(&self) -> String {
        self.webhook.clone()
    }
}
