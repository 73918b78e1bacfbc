//! Makes the steps of a plan in order.
//!
//! A step that waits for an approval holds back the steps that must not come before it. A step that fails ends the run: everything after
//! it stays undone, and a second run goes on from there.

use super::plan::{ObjectKind, Phase, Plan, Step};
use super::preview::{self, Preview, Terms};
use super::view::StepOutcome;
use crate::confirm::ConfirmedHits;
use crate::error::CliError;
use crate::server::ApiClient;
use mayfly_base::refusal::Reason;
use mayfly_proto::mayfly::v1 as pb;

/// The outcomes of the steps, and the error that ended the run.
#[derive(Debug, Default)]
pub struct Execution {
    /// The outcome of each step.
    pub outcomes: Vec<StepOutcome>,
    /// The error that ended it.
    pub error: Option<CliError>,
}

impl Execution {
    /// How many steps had an outcome.
    pub fn count(&self, is: impl Fn(&StepOutcome) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| is(outcome)).count()
    }
}

/// Makes the steps.
pub async fn run(
    server: &ApiClient,
    plan: &Plan,
    previews: &[Preview],
    confirmed: Option<ConfirmedHits>,
    reason: &str,
    new_id: impl Fn() -> String,
) -> Execution {
    let mut execution = Execution::default();
    let mut waiting: Vec<&Step> = Vec::new();
    for (step, before) in plan.steps.iter().zip(previews) {
        if execution.error.is_some() {
            execution.outcomes.push(StepOutcome::NotDone);
            continue;
        }
        if let Some(by) = waiting.iter().find(|waits| holds(waits, step)) {
            execution.outcomes.push(StepOutcome::Held { by: by.object() });
            continue;
        }
        let terms = Terms {
            dry_run: false,
            confirmation: confirmed.map(|confirmed| confirmation(confirmed, before)),
            reason: reason.to_owned(),
            request_id: new_id(),
        };
        let outcome = match preview::send(server, step, terms).await {
            Ok(_) => StepOutcome::Done,
            Err(CliError::Server(said)) if said.reason == Some(Reason::ApprovalNeeded) => {
                waiting.push(step);
                StepOutcome::Waits { approval: said.approval.unwrap_or_default() }
            }
            Err(error) => {
                let outcome = failed(step, &error);
                execution.error = Some(error);
                outcome
            }
        };
        execution.outcomes.push(outcome);
    }
    execution
}

/// A step is confirmed with its own number, so that the server compares it with what the step revokes.
fn confirmation(confirmed: ConfirmedHits, before: &Preview) -> pb::Confirmation {
    match confirmed {
        ConfirmedHits::All => pb::Confirmation { credentials: 0, all: true },
        ConfirmedHits::Credentials(_) => {
            pb::Confirmation { credentials: before.hits.unwrap_or_default().credentials, all: false }
        }
    }
}

/// Whether a step must not be made while another one waits.
fn holds(waits: &Step, step: &Step) -> bool {
    let same = waits.environment == step.environment;
    match (waits.phase(), step.phase()) {
        (Phase::BindingsNarrow | Phase::UpstreamsNarrow, Phase::Policies | Phase::UpstreamsWiden | Phase::BindingsWiden)
        | (Phase::Policies, Phase::UpstreamsWiden | Phase::BindingsWiden) => same,
        (Phase::BindingsNarrow, Phase::UpstreamsNarrow) | (Phase::UpstreamsWiden, Phase::BindingsWiden) => {
            waits.kind != ObjectKind::Policy && waits.upstream == step.upstream
        }
        _ => false,
    }
}

fn failed(step: &Step, error: &CliError) -> StepOutcome {
    match error {
        CliError::Server(said) if said.reason == Some(Reason::DecidedOnOldState) => StepOutcome::Failed {
            what: format!("somebody changed {} since the plan was made; nothing of theirs was overwritten", step.object()),
        },
        CliError::Server(said) if said.reason.is_some() && said.reason != Some(Reason::DeadlineExceeded) => {
            StepOutcome::Failed { what: said.message.clone() }
        }
        other => StepOutcome::Unknown { what: other.words(false).trim().to_owned() },
    }
}
