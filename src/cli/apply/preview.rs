//! Sends the steps of a plan by the calls that the other commands use, and asks the server beforehand what each would revoke.

use std::collections::BTreeSet;

use super::plan::{ChangeKind, Effect, ObjectKind, Plan, Step, StepRequest};
use crate::error::CliError;
use crate::server::ApiClient;
use mayfly_base::document::with_key;
use mayfly_base::refusal::Reason;
use mayfly_proto::mayfly::v1::{
    self as pb, policy_service_client::PolicyServiceClient, upstream_service_client::UpstreamServiceClient,
};

/// A step before it is made: its effects, as far as the caller may know them.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// The credentials that the step would revoke. `None`: the caller may not preview it.
    pub hits: Option<pb::Hits>,
    /// The reasons for which the step takes a second operator. `None`: unknown.
    pub governs: Option<Vec<String>>,
}

/// How a step is sent.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub dry_run: bool,
    pub confirmation: Option<pb::Confirmation>,
    pub reason: String,
    pub request_id: String,
}

/// Sends a step, or asks what it would do.
pub async fn send(server: &ApiClient, step: &Step, terms: Terms) -> Result<Preview, CliError> {
    let Terms { dry_run, confirmation, reason, request_id } = terms;
    let (hits, governs) = match step.request.clone() {
        StepRequest::Upstream(upstream) => {
            let request = pb::SetUpstreamRequest { upstream: Some(*upstream), dry_run, confirmation, request_id, reason };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).set_upstream(q).await }).await?;
            (answer.hits, answer.governs)
        }
        StepRequest::Retire { upstream, version } => {
            let request = pb::SetUpstreamStateRequest {
                upstream,
                state: pb::RegistrationState::Retired.into(),
                reason,
                dry_run,
                confirmation,
                request_id,
                read_version: version,
            };
            let call = |c, q| async move { UpstreamServiceClient::new(c).set_upstream_state(q).await };
            (server.call(request, call).await?.hits, Vec::new())
        }
        StepRequest::Binding(binding) => {
            let name = binding.binding.clone();
            let request = pb::SetBindingRequest { binding: Some(binding), reason, dry_run, confirmation, request_id };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).set_binding(q).await }).await?;
            (answer.hits, answer.takes_another.then(|| format!("binding {name}")).into_iter().collect())
        }
        StepRequest::Policy { environment, files, version } => {
            let request = pb::SetPolicyRequest {
                environment,
                mode: pb::PolicyMode::Enforce.into(),
                set: Some(source(files)),
                read_version: version,
                reason,
                dry_run,
                confirmation,
                request_id,
            };
            let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).set_policy(q).await }).await?;
            (answer.hits, answer.governs)
        }
    };
    Ok(Preview { hits: Some(hits.unwrap_or_default()), governs: Some(governs) })
}

fn source(files: pb::PolicyFiles) -> pb::PolicySource {
    pb::PolicySource { from: Some(pb::policy_source::From::Files(files)) }
}

/// Asks about every step. Everything that the server would refuse for its content is told at once.
///
/// With `reading`, a caller with the right to read only gets a plan without the numbers. Otherwise a step that the caller may not make is an
/// error here, so that no run ends half-way for it.
pub async fn all(server: &ApiClient, plan: &Plan, reading: bool, new_id: impl Fn() -> String) -> Result<Vec<Preview>, CliError> {
    let (mut previews, mut wrong) = (Vec::with_capacity(plan.steps.len()), Vec::new());
    // A refusal is a record of the audit: a step that was refused once is not asked for again.
    let mut refused: BTreeSet<(bool, &str)> = BTreeSet::new();
    for step in &plan.steps {
        if waits_for_its_upstream(step, plan) {
            let governs = Some(vec![step.object()]);
            previews.push(Preview { hits: Some(pb::Hits::default()), governs });
            continue;
        }
        let right = (step.kind == ObjectKind::Policy, step.environment.as_str());
        if refused.contains(&right) {
            previews.push(without_preview(server, step).await?);
            continue;
        }
        let terms = Terms { dry_run: true, reason: "dry run".to_owned(), request_id: new_id(), confirmation: None };
        let preview = match send(server, step, terms).await {
            Ok(preview) => Ok(preview),
            Err(error) if reading && may_not(&error) => {
                refused.insert(right);
                without_preview(server, step).await
            }
            Err(error) if error.reason() == Some(Reason::AlreadyExists) && takes_over(step, plan) => {
                let taken = "audience or target of a registration that was retired".to_owned();
                Ok(Preview { hits: Some(pb::Hits::default()), governs: Some(vec![taken]) })
            }
            Err(error) => Err(error),
        };
        match preview {
            Ok(preview) => previews.push(preview),
            Err(CliError::Server(said)) if said.reason == Some(Reason::InvalidField) => {
                let fields = said.fields.iter().map(|(field, what)| format!("{}: {}", step.object(), with_key(field, what)));
                match said.fields.is_empty() {
                    true => wrong.push(format!("{}: {}", step.object(), said.message)),
                    false => wrong.extend(fields),
                }
            }
            Err(error) => return Err(error),
        }
    }
    if wrong.is_empty() { Ok(previews) } else { Err(CliError::Usage(wrong.join("\n"))) }
}

/// A new or wider binding of a registration that the same plan adds or changes: the server can judge it only after that.
fn waits_for_its_upstream(step: &Step, plan: &Plan) -> bool {
    step.kind == ObjectKind::Binding
        && step.effect != Effect::Narrows
        && plan.steps.iter().any(|other| other.kind == ObjectKind::Upstream && other.upstream == step.upstream)
}

/// A registration that may have the audience or the target of one that the same plan retires.
fn takes_over(step: &Step, plan: &Plan) -> bool {
    let retires = |other: &Step| other.kind == ObjectKind::Upstream && other.change == ChangeKind::Remove;
    step.kind == ObjectKind::Upstream && plan.steps.iter().any(retires)
}

fn may_not(error: &CliError) -> bool {
    matches!(error.reason(), Some(Reason::DeniedByPolicy | Reason::NotYours))
}

/// The part of a plan that a caller with the right to read only can know.
async fn without_preview(server: &ApiClient, step: &Step) -> Result<Preview, CliError> {
    let governs = match &step.request {
        StepRequest::Policy { environment, files, .. } => {
            let request = pb::ValidatePolicyRequest { environment: environment.clone(), set: Some(source(files.clone())) };
            let call = |c, q| async move { PolicyServiceClient::new(c).validate_policy(q).await };
            let answer = server.call(request, call).await?;
            if !answer.violations.is_empty() {
                let all = answer.violations.iter().map(|v| format!("{}: {}", step.object(), with_key(&v.field, &v.description)));
                return Err(CliError::Usage(all.collect::<Vec<_>>().join("\n")));
            }
            Some(answer.governs).filter(|governs| !governs.is_empty())
        }
        StepRequest::Binding(_) if step.effect != Effect::Narrows => Some(vec![step.object()]),
        _ => None,
    };
    Ok(Preview { hits: None, governs })
}
