//! Decides whether a reported use of a credential matches its intent: the policy action `Use` over issues and uses.

use super::Decider;
use super::task_context::{TaskContext, TaskLists};
use crate::action::Action;
use crate::catalog::CompiledCatalog;
use crate::question::{DeclaredIntent, Question, UseContext};
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::View;
use mayfly_ledger::upstream::registry::Kind;
use mayfly_verify::seq::TaskId;

/// A credential's use as reported by a server of its upstream.
#[derive(Clone, Debug)]
pub struct ReportedUse<'a> {
    /// The caller that the credential was issued to.
    pub caller: &'a SpiffeId,
    /// The upstream.
    pub upstream: &'a str,
    /// The credential's scopes.
    pub scopes: &'a [String],
    /// The credential's kind.
    pub kind: Option<Kind>,
    /// The binding that permitted the credential; empty for none.
    pub binding: &'a str,
    /// The credential's task.
    pub task: TaskId,
    /// The tool that used the credential; empty for none.
    pub tool: &'a str,
    /// `accepted`, `refused` or `failed`.
    pub outcome: &'a str,
    /// The tool is named by the credential or, where the credential names none, by its task.
    pub declared: bool,
    /// The use came after the credential's end.
    pub after_end: bool,
    /// The SPIFFE ID of the reporting server.
    pub server: &'a str,
    /// Uses of the task that the ledger does not contain yet, and how many of them were refused.
    pub more: (u64, u64),
}

impl Decider {
    /// Why the task is to be held because of this use; `None`: it is not to be held. A set that permits no use at all is not consulted. A
    /// policy that cannot be evaluated holds the task.
    pub fn exceeds(&self, view: &View, compiled: &CompiledCatalog, activity: &ReportedUse<'_>) -> Option<String> {
        let upstream = &compiled.upstream(activity.upstream)?.upstream;
        let policy = compiled.policy(&upstream.environment)?;
        policy.set.permits(Action::Use).next()?;
        let place = view.read(|s| s.tasks.get(&activity.task).map(|t| TaskContext::open(s, t, activity.caller.as_str())))?;
        let scopes: Vec<&str> = activity.scopes.iter().map(String::as_str).collect();
        let (lists, mut id) = (TaskLists::of(&place), [0; TaskId::TEXT]);
        let mut counts = place.counts;
        let more = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        counts.uses_in_task = counts.uses_in_task.saturating_add(more(activity.more.0));
        counts.refused_uses_in_task = counts.refused_uses_in_task.saturating_add(more(activity.more.1));
        let used = UseContext {
            environment: &upstream.environment,
            intent: DeclaredIntent {
                purpose: place.purpose(),
                tool: (!activity.tool.is_empty()).then_some(activity.tool),
                arguments_digest: None,
                kind: activity.kind,
                scopes: &scopes,
                binding: (!activity.binding.is_empty()).then_some(activity.binding),
                access: None,
            },
            task: lists.facts(&place, &upstream.environment, Some(place.id.write(&mut id))),
            counts,
            outcome: activity.outcome,
            declared: activity.declared,
            after_end: activity.after_end,
            server: activity.server,
            now: view.now(),
        };
        let question = Question::used(activity.caller, upstream, &used);
        let verdict = self.verdicts.verdict(&policy.set, &question);
        self.audits.ask(&self.verdicts, policy, &question, verdict.permits());
        (!verdict.permits()).then(|| format!("{verdict} (policy version {})", policy.version))
    }
}
