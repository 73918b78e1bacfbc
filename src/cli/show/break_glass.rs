//! JSON and table forms of break-glass tasks.

use serde::Serialize;

use super::{AuthorView, or_dash, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A break-glass task, as `break-glass show` and `break-glass list` print it.
#[derive(Serialize, Debug)]
pub struct BreakGlassView {
    pub task_id: String,
    pub state: String,
    pub rights: String,
    pub environment: String,
    pub people: Vec<AuthorView>,
    pub reasons: Vec<String>,
    pub upstreams: Vec<super::task::AllowanceView>,
    pub live_credentials: u64,
    pub issued_credentials: u64,
    pub opened_at: Option<String>,
    pub join_by: Option<String>,
    pub deadline: Option<String>,
    pub ended_at: Option<String>,
    pub unreviewed: bool,
    pub reviewer: Option<AuthorView>,
    pub reviewed_at: Option<String>,
    pub review: String,
}

impl From<pb::BreakGlass> for BreakGlassView {
    fn from(g: pb::BreakGlass) -> BreakGlassView {
        let task = g.task.unwrap_or_default();
        let upstreams = task.terms.unwrap_or_default().upstreams.into_iter();
        BreakGlassView {
            task_id: task.task_id,
            state: super::task::state(task.state),
            rights: g.rights,
            environment: task.environment,
            people: g.people.into_iter().filter_map(|p| AuthorView::of(Some(p))).collect(),
            reasons: g.reasons,
            upstreams: upstreams.map(|a| super::task::AllowanceView { upstream: a.upstream, scopes: a.scopes }).collect(),
            live_credentials: task.live_credentials,
            issued_credentials: task.issued_credentials,
            opened_at: time(task.opened_at),
            join_by: time(g.join_by),
            deadline: time(g.deadline),
            ended_at: time(g.ended_at),
            unreviewed: g.unreviewed,
            reviewer: AuthorView::of(g.reviewer),
            reviewed_at: time(g.reviewed_at),
            review: g.review,
        }
    }
}

impl BreakGlassView {
    fn reviewed(&self) -> String {
        match &self.reviewer {
            Some(who) => AuthorView::text(Some(who)),
            None if self.unreviewed => "nobody yet".to_owned(),
            None => "-".to_owned(),
        }
    }
}

impl Printable for BreakGlassView {
    fn name(&self) -> String {
        self.task_id.clone()
    }
}

impl Row for BreakGlassView {
    const COLUMNS: &'static [&'static str] = &["TASK", "STATE", "RIGHTS", "ENVIRONMENT", "PEOPLE", "OPENED", "REVIEWED BY"];
    const WIDE: &'static [&'static str] = &["REASONS", "ENDED", "ISSUED", "REVIEW"];

    fn cells(&self) -> Vec<String> {
        let people: Vec<String> = self.people.iter().map(|who| AuthorView::text(Some(who))).collect();
        vec![
            self.task_id.clone(),
            self.state.clone(),
            self.rights.clone(),
            self.environment.clone(),
            people.join(", "),
            or_dash(self.opened_at.as_deref()),
            self.reviewed(),
            self.reasons.join("; "),
            or_dash(self.ended_at.as_deref()),
            self.issued_credentials.to_string(),
            or_dash(Some(&self.review)),
        ]
    }
}
