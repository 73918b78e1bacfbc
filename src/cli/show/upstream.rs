//! Parts of upstreams, and the findings of reports.

use serde::Serialize;

use super::answer::Answer;
use super::printed;
use crate::out::tree::OrderedJson;
use mayfly_proto::mayfly::v1 as pb;

/// The text for an approver.
pub fn approver(approver: pb::Approver) -> String {
    match approver.who {
        Some(pb::approver::Who::SpiffeId(id)) => id,
        Some(pb::approver::Who::Person(p)) => format!("{} ({})", p.sub, p.issuer),
        None => String::new(),
    }
}

/// One finding of a report.
#[derive(Serialize)]
pub struct ReportFinding(OrderedJson);

impl ReportFinding {
    /// The findings for an upstream.
    pub fn of(upstream: &pb::Upstream, problem: pb::RegistrationProblem) -> Vec<ReportFinding> {
        let found = upstream.findings.iter().filter(|f| f.problem() == problem);
        let row = |f| {
            let of = Answer::named(&upstream.upstream).pick(upstream, "upstream environment owner state");
            ReportFinding(of.pick(f, "problem at text").json().clone())
        };
        found.map(row).collect()
    }

    fn json(&self) -> &OrderedJson {
        &self.0
    }
}

printed!(ReportFinding, finding, "upstream",
    ["UPSTREAM": "upstream", "ENVIRONMENT": "environment", "OWNER": "owner", "AT": "at", "FINDING": "text"], ["STATE": "state"]);
