//! The output of `mayfly apply`: the plan, and the outcome of each step.

use serde::Serialize;

use super::plan::{ChangeKind, ObjectKind, Step};
use super::preview::Preview;
use crate::out::{Printable, Row};
use crate::show::hits;

/// The outcome of a step.
#[derive(Clone, Debug, Default)]
pub enum StepOutcome {
    /// A dry run: nothing was done.
    #[default]
    Planned,
    /// The change is in effect.
    Done,
    /// Another operator has to approve it.
    Waits {
        /// The approval.
        approval: String,
    },
    /// The request was not sent, since a step before this one waits.
    Held {
        /// The object of the step that waits.
        by: String,
    },
    /// The request was refused, or failed.
    Failed {
        /// The reason.
        what: String,
    },
    /// No answer came: it may be in effect.
    Unknown {
        /// The reason.
        what: String,
    },
    /// The request was not sent, since a step before this one failed.
    NotDone,
}

impl StepOutcome {
    fn word(&self) -> &'static str {
        match self {
            StepOutcome::Planned => "planned",
            StepOutcome::Done => "done",
            StepOutcome::Waits { .. } => "waits",
            StepOutcome::Held { .. } => "held",
            StepOutcome::Failed { .. } => "failed",
            StepOutcome::Unknown { .. } => "unknown",
            StepOutcome::NotDone => "not_done",
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            StepOutcome::Waits { approval } => Some(approval.clone()),
            StepOutcome::Held { by } => Some(format!("after {by}")),
            StepOutcome::Failed { what } | StepOutcome::Unknown { what } => Some(what.clone()),
            StepOutcome::Planned | StepOutcome::Done | StepOutcome::NotDone => None,
        }
    }
}

/// The numbers of a revocation.
#[derive(Clone, Copy, Serialize, Debug)]
pub struct HitsView {
    credentials: u64,
    tasks: u64,
    callers: u64,
}

/// A step.
#[derive(Clone, Serialize, Debug)]
#[allow(missing_docs, reason = "they are named for what they are")]
pub struct StepView {
    pub object: &'static str,
    pub name: String,
    pub environment: String,
    pub change: &'static str,
    pub effect: &'static str,
    /// The number of credentials that the step revokes; null where the caller may not preview it.
    pub revokes: Option<HitsView>,
    /// The reasons for which the step takes a second operator; null where nobody can tell before it is sent.
    pub approval_for: Option<Vec<String>>,
    pub outcome: &'static str,
    pub detail: Option<String>,
    pub diff: String,
}

impl StepView {
    /// The view of a step.
    pub fn of(step: &Step, preview: &Preview, outcome: &StepOutcome) -> StepView {
        let change = match (step.change, step.kind) {
            (ChangeKind::Add, _) => "add",
            (ChangeKind::Change, _) => "change",
            (ChangeKind::Remove, ObjectKind::Upstream) => "retire",
            (ChangeKind::Remove, _) => "remove",
        };
        let revokes = preview.hits.map(|h| HitsView { credentials: h.credentials, tasks: h.tasks, callers: h.callers });
        StepView {
            object: step.kind.word(),
            name: step.name.clone(),
            environment: step.environment.clone(),
            change,
            effect: step.effect.word(),
            revokes,
            approval_for: preview.governs.clone(),
            outcome: outcome.word(),
            detail: outcome.detail(),
            diff: step.diff.clone(),
        }
    }

    fn revokes_text(&self) -> String {
        match self.revokes {
            None => "?".to_owned(),
            Some(HitsView { credentials: 0, .. }) => "-".to_owned(),
            Some(HitsView { credentials, tasks, callers }) => {
                hits::text(mayfly_proto::mayfly::v1::Hits { credentials, tasks, callers, ..Default::default() })
            }
        }
    }
}

impl Printable for StepView {
    fn name(&self) -> String {
        format!("{}/{}", self.object, self.name)
    }
}

impl Row for StepView {
    const COLUMNS: &'static [&'static str] = &["OBJECT", "NAME", "CHANGE", "EFFECT", "REVOKES", "APPROVAL", "OUTCOME"];
    const WIDE: &'static [&'static str] = &["ENVIRONMENT", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        let approval = match &self.approval_for {
            None => "?",
            Some(none) if none.is_empty() => "no",
            Some(_) => "yes",
        };
        vec![
            self.object.to_owned(),
            self.name.clone(),
            self.change.to_owned(),
            self.effect.to_owned(),
            self.revokes_text(),
            approval.to_owned(),
            self.outcome.replace('_', " "),
            self.environment.clone(),
            self.detail.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// An object that is in effect and not in the folder.
#[derive(Serialize, Debug)]
#[allow(missing_docs, reason = "they are named for what they are")]
pub struct UnmanagedView {
    pub object: &'static str,
    pub name: String,
}

/// The whole plan.
#[derive(Serialize, Debug)]
#[allow(missing_docs, reason = "they are named for what they are")]
pub struct ApplyView {
    pub folder: String,
    pub dry_run: bool,
    pub differs: bool,
    pub done: usize,
    pub waiting: usize,
    pub not_done: usize,
    pub steps: Vec<StepView>,
    pub unmanaged: Vec<UnmanagedView>,
    pub disabled: Vec<String>,
}

impl Printable for ApplyView {
    fn name(&self) -> String {
        self.folder.clone()
    }
}
