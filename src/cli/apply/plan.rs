//! The plan: what differs between a folder and the state in effect, as steps in the order in which they are made.
//!
//! The order never opens a window that neither the old nor the new state permits. A request is granted only if policy permits it, the
//! registration has it, and, where policy asks for one, a binding covers it. So first what takes: bindings and registrations become
//! narrower under the old policy, and everything permitted then was permitted before. Then the policy sets: everything permitted from then
//! on is permitted by the new policy and within both the old and the new registrations. Last what gives: registrations, then bindings.
//!
//! A step that takes and gives at once has no safe place beside another step that gives. [`conflicts`] finds these.

use std::collections::BTreeMap;

use super::document::{binding_text, upstream_text};
use super::folder::{Folder, FolderPolicy, ROLES};
use super::present::{Present, PresentBinding, PresentUpstream};
use crate::error::CliError;
use crate::policy::{differences, sources};
use crate::upstream::unversioned;
use mayfly_api::wire::binding_to_pb;
use mayfly_ledger::upstream::binding::Binding;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_ledger::upstream::widening::widened;
use mayfly_policy::PolicySet;
use mayfly_policy::action::Action;
use mayfly_proto::mayfly::v1 as pb;

/// The sort of object that a step changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// A registration.
    Upstream,
    /// A binding.
    Binding,
    /// The policy set of an environment, with its roles.
    Policy,
}

impl ObjectKind {
    /// The word for people and scripts.
    pub fn word(self) -> &'static str {
        match self {
            ObjectKind::Upstream => "upstream",
            ObjectKind::Binding => "binding",
            ObjectKind::Policy => "policy",
        }
    }
}

/// The effect of a step on its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// The object is new.
    Add,
    /// The object gets another content.
    Change,
    /// A registration is retired, a binding is removed.
    Remove,
}

/// Whether a step takes rights, gives rights, or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The step permits nothing that was not permitted before.
    Narrows,
    /// The step refuses nothing that was permitted before.
    Widens,
    /// Both, or unknown.
    Replaces,
}

impl Effect {
    fn of(takes: bool, gives: bool) -> Effect {
        match (takes, gives) {
            (_, false) => Effect::Narrows,
            (false, true) => Effect::Widens,
            (true, true) => Effect::Replaces,
        }
    }

    /// The word for people and scripts.
    pub fn word(self) -> &'static str {
        match self {
            Effect::Narrows => "narrows",
            Effect::Widens => "widens",
            Effect::Replaces => "replaces",
        }
    }
}

/// When a step is made. Steps of one phase are ordered by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Bindings that become narrower or are removed.
    BindingsNarrow,
    /// Registrations that become narrower or are retired.
    UpstreamsNarrow,
    /// Policy sets.
    Policies,
    /// New and wider registrations.
    UpstreamsWiden,
    /// New and wider bindings.
    BindingsWiden,
}

/// The request that makes a step, with the version that the plan was made from.
#[derive(Clone, Debug)]
pub enum StepRequest {
    /// `SetUpstream`.
    Upstream(Box<pb::Upstream>),
    /// `SetUpstreamState`.
    Retire { upstream: String, version: u64 },
    /// `SetBinding`.
    Binding(pb::Binding),
    /// `SetPolicy`.
    Policy { environment: String, files: pb::PolicyFiles, version: u64 },
}

/// A change.
#[derive(Debug)]
pub struct Step {
    pub kind: ObjectKind,
    pub name: String,
    pub environment: String,
    /// The upstream that the step is about; empty for a policy set.
    pub upstream: String,
    pub change: ChangeKind,
    pub effect: Effect,
    /// The difference, line by line.
    pub diff: String,
    pub request: StepRequest,
}

impl Step {
    /// When the step is made.
    pub fn phase(&self) -> Phase {
        match (self.kind, self.effect) {
            (ObjectKind::Policy, _) => Phase::Policies,
            (ObjectKind::Binding, Effect::Narrows) => Phase::BindingsNarrow,
            (ObjectKind::Upstream, Effect::Narrows) => Phase::UpstreamsNarrow,
            (ObjectKind::Upstream, _) => Phase::UpstreamsWiden,
            (ObjectKind::Binding, _) => Phase::BindingsWiden,
        }
    }

    /// The object, for messages.
    pub fn object(&self) -> String {
        format!("{} {}", self.kind.word(), self.name)
    }
}

/// The steps, and what is only told.
#[derive(Debug, Default)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The objects that are in effect and not in the folder, and stay.
    pub unmanaged: Vec<(ObjectKind, String)>,
    /// Registrations of the folder that an operator disabled. They stay disabled.
    pub disabled: Vec<String>,
}

/// Makes the plan, or tells everything in the folder that the server can never take.
pub fn make(folder: &Folder, present: &Present, prune: bool) -> Result<Plan, CliError> {
    let mut planner = Planner { folder, present, plan: Plan::default(), wrong: Vec::new(), read: BTreeMap::new() };
    planner.policies();
    planner.upstreams(prune);
    planner.bindings(prune);
    let Planner { mut plan, wrong, .. } = planner;
    if !wrong.is_empty() {
        return Err(CliError::Usage(wrong.join("\n")));
    }
    plan.steps.sort_by(|a, b| (a.phase(), &a.name).cmp(&(b.phase(), &b.name)));
    Ok(plan)
}

struct Planner<'a> {
    folder: &'a Folder,
    present: &'a Present,
    plan: Plan,
    wrong: Vec<String>,
    /// The policy sets in effect, compiled; `None` where this version does not compile them.
    read: BTreeMap<String, Option<PolicySet>>,
}

impl Planner<'_> {
    fn policies(&mut self) {
        let known = || self.present.policies.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        for environment in self.folder.environments.keys().filter(|name| !self.present.policies.contains_key(*name)) {
            let what = format!("the folder has a policy set for environment {environment}, and the server has none of that name");
            self.wrong.push(format!("{what} that you may see: it has {}", known()));
        }
        for (environment, now) in &self.present.policies {
            let Some(wanted) = self.folder.policy_of(environment) else { continue };
            let before = now.as_ref().and_then(|set| set.files.as_ref());
            if before.is_some_and(|before| same_policy(before, wanted)) {
                continue;
            }
            let files = policy_files(wanted);
            // The roles file is compared by its text: its name has no meaning.
            let named = before.cloned().map(|mut files| {
                if let Some(roles) = &mut files.roles {
                    ROLES.clone_into(&mut roles.name);
                }
                files
            });
            self.plan.steps.push(Step {
                kind: ObjectKind::Policy,
                name: environment.clone(),
                environment: environment.clone(),
                upstream: String::new(),
                change: if now.is_some() { ChangeKind::Change } else { ChangeKind::Add },
                effect: Effect::Replaces,
                diff: differences(named.as_ref(), Some(&files)),
                request: StepRequest::Policy {
                    environment: environment.clone(),
                    files,
                    version: now.as_ref().map_or(0, |set| set.version),
                },
            });
        }
    }

    fn upstreams(&mut self, prune: bool) {
        let Some(wanted) = &self.folder.upstreams else { return };
        for upstream in wanted.values() {
            self.upstream(upstream);
        }
        let others = self.present.upstreams.values().filter(|found| found.state != pb::RegistrationState::Retired);
        for PresentUpstream { upstream, version, .. } in others.filter(|found| !wanted.contains_key(&found.upstream.name)) {
            if !prune {
                self.plan.unmanaged.push((ObjectKind::Upstream, upstream.name.clone()));
                continue;
            }
            let diff = self.diff(&upstream.name, &upstream_text(&unversioned(upstream)), "");
            self.plan.steps.push(Step {
                kind: ObjectKind::Upstream,
                name: upstream.name.clone(),
                environment: upstream.environment.clone(),
                upstream: upstream.name.clone(),
                change: ChangeKind::Remove,
                effect: Effect::Narrows,
                diff,
                request: StepRequest::Retire { upstream: upstream.name.clone(), version: *version },
            });
        }
    }

    fn upstream(&mut self, wanted: &Upstream) {
        let (name, environment) = (&wanted.name, &wanted.environment);
        if !self.present.policies.contains_key(environment) {
            let known = self.present.policies.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            self.wrong
                .push(format!("upstream {name}: the server has no environment {environment} that you may see: it has {known}"));
            return;
        }
        let now = self.present.upstreams.get(name);
        match now {
            Some(now) if now.state == pb::RegistrationState::Retired => {
                self.wrong
                    .push(format!("upstream {name} is retired, and its name stays taken: give the registration another name"));
                return;
            }
            Some(now) if now.upstream.environment != *environment => {
                let what = format!("upstream {name} is in environment {}, for good", now.upstream.environment);
                self.wrong.push(format!("{what}: register another one for {environment}"));
                return;
            }
            _ => {}
        }
        if now.is_some_and(|now| now.state == pb::RegistrationState::Disabled) {
            self.plan.disabled.push(name.clone());
        }
        let (effect, before) = match now {
            Some(now) if now.upstream == *wanted => return,
            Some(now) => (self.effect(&now.upstream, wanted), upstream_text(&unversioned(&now.upstream))),
            None => (Effect::Widens, String::new()),
        };
        let version = now.map_or(0, |now| now.version);
        let request = pb::Upstream { version, ..unversioned(wanted) };
        let diff = self.diff(name, &before, &upstream_text(&request));
        self.plan.steps.push(Step {
            kind: ObjectKind::Upstream,
            name: name.clone(),
            environment: environment.clone(),
            upstream: name.clone(),
            change: if now.is_some() { ChangeKind::Change } else { ChangeKind::Add },
            effect,
            diff,
            request: StepRequest::Upstream(Box::new(request)),
        });
    }

    /// By the rule of the registry, which counts an attribute where the old or the new policy reads it.
    fn effect(&mut self, old: &Upstream, new: &Upstream) -> Effect {
        let (environment, present) = (&new.environment, self.present);
        let in_effect = self.read.entry(environment.clone()).or_insert_with(|| {
            let set = present.policies.get(environment)?.as_ref()?;
            let (policies, roles) = sources(set.files.as_ref());
            PolicySet::compile(policies, roles).ok()
        });
        let reads = |set: &PolicySet, path: &str| Action::ALL.iter().any(|action| set.reads(*action).may_read(path));
        let wanted = self.folder.policy_of(environment);
        let read = |path: &str| {
            in_effect.as_ref().is_none_or(|set| reads(set, path)) || wanted.is_some_and(|wanted| reads(&wanted.set, path))
        };
        let takes = !widened(new, old, read).is_empty() || old.other_credentials(new);
        Effect::of(takes, !widened(old, new, read).is_empty())
    }

    fn bindings(&mut self, prune: bool) {
        let Some(wanted) = &self.folder.bindings else { return };
        for binding in wanted.values() {
            self.binding(binding, prune);
        }
        let present = self.present;
        let others = present.bindings.values().filter(|found| {
            let Binding { name, upstream, scopes, .. } = &found.binding;
            !scopes.is_empty() && present.registered(upstream) && !wanted.contains_key(name)
        });
        for PresentBinding { binding, version, environment } in others {
            if !prune {
                self.plan.unmanaged.push((ObjectKind::Binding, binding.name.clone()));
                continue;
            }
            let diff = self.diff(&binding.name, &binding_text(binding), "");
            let request = pb::Binding { version: *version, ..binding_to_pb(&binding.empty()) };
            self.plan.steps.push(Step {
                kind: ObjectKind::Binding,
                name: binding.name.clone(),
                environment: environment.clone(),
                upstream: binding.upstream.clone(),
                change: ChangeKind::Remove,
                effect: Effect::Narrows,
                diff,
                request: StepRequest::Binding(request),
            });
        }
    }

    fn binding(&mut self, wanted: &Binding, prune: bool) {
        let (name, upstream) = (&wanted.name, &wanted.upstream);
        let own = self.folder.upstreams.as_ref();
        let kept = self.present.registered(upstream) && (!prune || own.is_none());
        let Some(environment) = own
            .and_then(|all| all.get(upstream))
            .map(|found| &found.environment)
            .or_else(|| self.present.upstreams.get(upstream).filter(|_| kept).map(|found| &found.upstream.environment))
        else {
            self.wrong.push(format!(
                "binding {name} is for upstream {upstream}, which is in no file and not registered, or is retired"
            ));
            return;
        };
        let now = self.present.bindings.get(name);
        if let Some(other) = now.map(|now| &now.binding.upstream).filter(|other| *other != upstream) {
            self.wrong.push(format!("binding {name} is for upstream {other}, for good: add another one for {upstream}"));
            return;
        }
        let removed = now.is_none_or(|now| now.binding.scopes.is_empty());
        let effect = match now {
            Some(now) if now.binding == *wanted => return,
            Some(now) if !removed => Effect::of(!now.binding.within(wanted), !wanted.within(&now.binding)),
            _ => Effect::Widens,
        };
        let before = now.filter(|_| !removed).map_or_else(String::new, |now| binding_text(&now.binding));
        let request = pb::Binding { version: now.map_or(0, |now| now.version), ..binding_to_pb(wanted) };
        let (environment, diff) = (environment.clone(), self.diff(name, &before, &binding_text(wanted)));
        self.plan.steps.push(Step {
            kind: ObjectKind::Binding,
            name: name.clone(),
            environment,
            upstream: upstream.clone(),
            change: if removed { ChangeKind::Add } else { ChangeKind::Change },
            effect,
            diff,
            request: StepRequest::Binding(request),
        });
    }

    fn diff(&self, name: &str, before: &str, after: &str) -> String {
        similar::TextDiff::from_lines(before, after).unified_diff().context_radius(2).header(name, name).to_string()
    }
}

/// Whether a set in effect has the texts of the folder. The order of the files has no meaning: policies are a set.
fn same_policy(before: &pb::PolicyFiles, wanted: &FolderPolicy) -> bool {
    let (policies, roles) = sources(Some(before));
    let by_name = |all: &[mayfly_base::document::SourceFile]| {
        let mut all: Vec<_> = all.iter().map(|file| (file.file.clone(), file.text.clone())).collect();
        all.sort();
        all
    };
    by_name(&policies) == by_name(&wanted.policies) && roles.text == wanted.roles.text
}

fn policy_files(wanted: &FolderPolicy) -> pb::PolicyFiles {
    let file = |file: &mayfly_base::document::SourceFile| pb::PolicyFile { name: file.file.clone(), text: file.text.clone() };
    pb::PolicyFiles { policies: wanted.policies.iter().map(file).collect(), roles: Some(file(&wanted.roles)) }
}

/// Steps that cannot be put in any order without a moment in which something is permitted that neither the old nor the new state permits.
pub fn conflicts(steps: &[Step]) -> Vec<String> {
    let replaces = |step: &&Step| step.kind != ObjectKind::Policy && step.effect == Effect::Replaces;
    let mut found = Vec::new();
    for step in steps.iter().filter(replaces) {
        let other = steps.iter().find(|other| match (step.kind, other.kind) {
            (_, ObjectKind::Policy) => other.environment == step.environment,
            (ObjectKind::Binding, ObjectKind::Upstream) => other.upstream == step.upstream && other.effect != Effect::Narrows,
            _ => false,
        });
        if let Some(other) = other {
            found.push(format!("{} takes rights and gives others, and {} changes too", step.object(), other.object()));
        }
    }
    found
}
