//! The order of checks, in one place: walls, registration, rules, task, bounds, and Cedar last.
//!
//! Unknown anywhere means no. Cedar's verdict can only narrow: whatever it permits, the walls and bounds before and after it hold.

use std::sync::Arc;

use super::action::Work;
use super::bound::{Bound, Life};
use super::cache::Verdicts;
use super::catalog::{Compiled, Policy, Registered};
use super::grant::{Grant, Parts};
use super::request::{self, Counts, Question, TaskFacts};
use super::wanted::{Binding, TaskChoice, Terms, Wanted};
use crate::identity::caller::Caller;
use crate::ledger::View;
use crate::ledger::record::{self, Allowance, Identity, Issued, Request, TaskOpened, Who};
use crate::ledger::state::{Phase, Task};
use crate::limits;
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::revocation::{Facts, SvidFacts};
use crate::seq::{Millis, TaskId};
use crate::upstream::registry::{Alg, Kind, ProofOfPossession, Upstream};

/// What decisions of one server share.
pub struct Decider {
    /// Verdicts of Cedar, remembered.
    pub verdicts: Verdicts,
    /// `iss` without the environment's path.
    pub issuer: String,
    /// The longest TTL of a credential, milliseconds.
    pub longest_ms: u64,
    /// The longest life of a task, milliseconds.
    pub longest_task_ms: u64,
}

/// The task of a decision: open already, or about to be.
struct Place {
    id: TaskId,
    path: Vec<(TaskId, Identity)>,
    allowance: Allowance,
    purpose: String,
    depth: usize,
    ttl_ms: u64,
    heartbeat: bool,
    callers: Vec<String>,
    deadline: Millis,
    max_deadline: Millis,
    issued: u64,
    opens: Option<TaskOpened>,
}

fn denied(reason: Reason, what: impl Into<String>) -> No {
    No::Refusal(Refusal::new(reason, what))
}

/// A workload's identity as records write it.
pub fn identity_of(caller: &Caller) -> Identity {
    Identity { issuer: caller.id().trust_domain().to_owned(), sub: caller.id().as_str().to_owned() }
}

/// A workload's SVID as records write it.
pub fn svid_of(caller: &Caller) -> record::SvidEvidence {
    let e = caller.evidence();
    record::SvidEvidence {
        anchor: e.trust_anchor.as_bytes().to_vec(),
        issuing_key: e.issuing_key.to_vec(),
        serial: e.serial.clone(),
        not_after: e.not_after.0,
    }
}

/// The facts of a caller alone: what every call is checked against.
pub fn caller_facts<'a>(caller: &'a Caller, view: &View) -> Facts<'a> {
    let e = caller.evidence();
    let svid = SvidFacts {
        trust_domain: caller.id().trust_domain(),
        anchor: e.trust_anchor.as_bytes(),
        issuing_key: &e.issuing_key,
        serial: &e.serial,
    };
    Facts {
        revision: view.revision(),
        identities: vec![(caller.id().trust_domain(), caller.id().as_str())],
        credentials: caller.ancestor().into_iter().collect(),
        svid: Some(svid),
        ..Facts::default()
    }
}

impl Decider {
    /// Decides one exchange. A refusal names the rule and the way out.
    pub fn exchange(&self, view: &View, compiled: &Compiled, caller: &Caller, want: &Wanted, id: TaskId) -> Result<Grant, No> {
        let now = view.now();
        let registered = self.registered(compiled, &want.upstream)?;
        let upstream = &registered.upstream;
        let policy = self.inside_wall(compiled, caller, &upstream.environment)?;
        active(registered, now)?;
        self.not_locked(view, caller, want, upstream)?;
        let (scopes, sensitive) = scopes_of(upstream, &want.scopes)?;
        let kind = kind_of(upstream, want.kind)?;
        let place = match &want.task {
            TaskChoice::Named(task) => named(view, caller, *task)?,
            TaskChoice::Inline(terms) => {
                let terms = terms.with_default(&want.upstream, &want.scopes, &want.tool, &want.purpose);
                self.opening(view, compiled, policy, caller, &terms, id, Work::OpenTask)?
            }
        };
        within_task(&place, want, &scopes, kind)?;
        let life = self.life(caller, want, upstream, &place, now)?;
        let bound = self.key_binding(caller, want, upstream, &place)?;
        let permitted = self.permits(policy, caller, want, upstream, &place, kind, &scopes, life, now)?;
        let _ = sensitive;
        let draft = self.draft(caller, want, registered, policy, &place, kind, scopes, life, bound, permitted, now);
        let request = want.request_id.as_ref().map(|rid| Request {
            caller: caller.id().as_str().to_owned(),
            id: rid.clone(),
            digest: want.digest.to_vec(),
        });
        Ok(Grant::new(Parts {
            draft,
            revision: view.revision(),
            request,
            opens: place.opens,
            path: place.path,
            audience: upstream.audience.clone(),
            base_url: upstream.target.clone(),
            algorithm: upstream.alg.as_str().to_owned(),
            issuer: self.issuer_of(&upstream.environment),
            author: Who::SpiffeId(caller.id().as_str().to_owned()),
        }))
    }

    /// Decides opening a task by itself, or a child for somebody else.
    pub fn open_task(
        &self,
        view: &View,
        compiled: &Compiled,
        caller: &Caller,
        terms: &Terms,
        id: TaskId,
        delegate: bool,
    ) -> Result<TaskOpened, No> {
        let Some((first, _)) = terms.upstreams.first() else {
            return Err(No::Refusal(Refusal::field("upstreams", "is empty: name at least one upstream with its scopes")));
        };
        let environment = self.registered(compiled, first)?.upstream.environment.clone();
        let policy = self.inside_wall(compiled, caller, &environment)?;
        if let Some(hit) = view.read(|s| s.rules.blocks(&caller_facts(caller, view))) {
            return Err(No::Refusal(crate::ledger::state::refused_by(&hit, "opening a task")));
        }
        let work = if delegate { Work::DelegateTask } else { Work::OpenTask };
        let place = self.opening(view, compiled, policy, caller, terms, id, work)?;
        place.opens.ok_or_else(|| No::Fault(Fault::new("a task that is opened has no record")))
    }

    /// Decides a later deadline for a task, like opening it. `None`: it has that deadline, or a later one, already.
    pub fn extend(
        &self,
        view: &View,
        compiled: &Compiled,
        caller: &Caller,
        id: TaskId,
        deadline: Millis,
    ) -> Result<Option<u64>, No> {
        let place = named(view, caller, id)?;
        if deadline <= place.deadline {
            return Ok(None);
        }
        if deadline > place.max_deadline {
            let what = format!("no extension goes beyond {}, fixed when it was opened", place.max_deadline);
            return Err(No::Refusal(Refusal::new(Reason::NoLifeLeft, what).way_out("open another task")));
        }
        let Some(first) = place.allowance.upstreams.first() else {
            return Err(No::Fault(Fault::new("a task without an upstream")));
        };
        let environment = self.registered(compiled, &first.name)?.upstream.environment.clone();
        let policy = self.inside_wall(compiled, caller, &environment)?;
        let lists = Lists::of(&place.allowance, &place.callers);
        for allowed in &place.allowance.upstreams {
            let upstream = &self.registered(compiled, &allowed.name)?.upstream;
            let scopes: Vec<&str> = allowed.scopes.iter().map(String::as_str).collect();
            let id = place.id.to_string();
            let ask = request::Ask {
                environment: &upstream.environment,
                purpose: &place.purpose,
                scopes: &scopes,
                ttl_seconds: seconds(deadline.since(view.now())),
                task: lists.facts(&place, &upstream.environment, Some(&id)),
                now: view.now(),
                ..request::Ask::default()
            };
            self.ask(policy, &Question::work(caller.id(), Work::ExtendTask, upstream, &ask))?;
        }
        Ok(Some(policy.version))
    }

    /// `iss` of an environment: one issuer path each.
    pub fn issuer_of(&self, environment: &str) -> String {
        format!("{}/{environment}", self.issuer.trim_end_matches('/'))
    }

    fn registered<'a>(&self, compiled: &'a Compiled, name: &str) -> Result<&'a Registered, No> {
        compiled.upstream(name).ok_or_else(|| {
            No::Refusal(
                Refusal::new(Reason::NotFound, format!("there is no upstream {name}"))
                    .way_out("an operator registers it; mayfly upstream list shows those there are"),
            )
        })
    }

    /// Environments are walls: caller and upstream belong to the same one, whatever a policy says.
    fn inside_wall<'a>(&self, compiled: &'a Compiled, caller: &Caller, environment: &str) -> Result<&'a Policy, No> {
        let policy = compiled
            .policy(environment)
            .ok_or_else(|| denied(Reason::EnvironmentWall, format!("environment {environment} has no policy")))?;
        match policy.set.environment_of(caller.id()) {
            Some(own) if own == environment => Ok(policy),
            Some(own) => {
                Err(denied(Reason::EnvironmentWall, format!("{} belongs to {own}, the upstream to {environment}", caller.id())))
            }
            None => Err(No::Refusal(
                Refusal::new(Reason::EnvironmentWall, format!("{} belongs to no environment", caller.id()))
                    .way_out("an operator adds it to an environment in the roles file"),
            )),
        }
    }

    fn not_locked(&self, view: &View, caller: &Caller, want: &Wanted, upstream: &Upstream) -> Result<(), No> {
        let mut facts = caller_facts(caller, view);
        facts.upstream = &upstream.name;
        facts.scopes = want.scopes.iter().map(String::as_str).collect();
        facts.tool = &want.tool;
        facts.environment = &upstream.environment;
        facts.policy = u64::MAX;
        match view.read(|s| s.rules.blocks(&facts)) {
            Some(hit) => Err(No::Refusal(crate::ledger::state::refused_by(&hit, "issuing"))),
            None => Ok(()),
        }
    }

    /// The least of all bounds, and which one won.
    fn life(&self, caller: &Caller, want: &Wanted, upstream: &Upstream, place: &Place, now: Millis) -> Result<Life, No> {
        let ttl = &upstream.ttl;
        let life = match want.ttl_ms {
            Some(ms) if ms < ttl.min * 1000 => {
                return Err(No::Refusal(Refusal::field(
                    "ttl",
                    format!("upstream {} issues for at least {} s", upstream.name, ttl.min),
                )));
            }
            Some(ms) => Life::until(now.plus(ms), Bound::Asked),
            None => Life::until(now.plus(ttl.default * 1000), Bound::Upstream),
        };
        let life = life
            .within(now.plus(ttl.max * 1000), Bound::Upstream)
            .within(upstream.expires, Bound::UpstreamExpiry)
            .within(place.deadline, Bound::Task)
            .within(caller.evidence().not_after, Bound::Svid)
            .within(now.plus(self.longest_ms), Bound::Server);
        let life = match &want.renews {
            Some(renews) if renews.approval => {
                return Err(denied(
                    Reason::ApprovalNeeded,
                    "a credential that used up an approval is not renewed: ask for a new one",
                ));
            }
            Some(renews) => life.within(renews.until, Bound::Renewal),
            None => life,
        };
        if life.end() < now.plus(limits::CREDENTIAL_TTL_MIN_MS) {
            return Err(denied(
                Reason::NoLifeLeft,
                format!("nothing is left of its life: {:?} ends it at {}", life.by(), life.end()),
            ));
        }
        Ok(life)
    }

    fn key_binding(&self, caller: &Caller, want: &Wanted, upstream: &Upstream, place: &Place) -> Result<(Vec<u8>, Vec<u8>), No> {
        let must = upstream.proof_of_possession == ProofOfPossession::X5t;
        match want.key {
            Binding::CallerSvid => Ok((caller.evidence().leaf_sha256.to_vec(), Vec::new())),
            Binding::Unasked if must => Ok((caller.evidence().leaf_sha256.to_vec(), Vec::new())),
            Binding::Thumbprint(_) if must => Err(No::Refusal(Refusal::field(
                "key_binding",
                format!("upstream {} takes the caller's certificate only", upstream.name),
            ))),
            Binding::Thumbprint(jkt) => Ok((Vec::new(), jkt.to_vec())),
            Binding::Unasked if place.allowance.key_bound => {
                Err(No::Refusal(Refusal::field("key_binding", "is missing: the task wants every credential bound to a key")))
            }
            Binding::Unasked => Ok((Vec::new(), Vec::new())),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "everything that policy may read, gathered once")]
    fn permits(
        &self,
        policy: &Policy,
        caller: &Caller,
        want: &Wanted,
        upstream: &Upstream,
        place: &Place,
        kind: Kind,
        scopes: &[String],
        life: Life,
        now: Millis,
    ) -> Result<Vec<String>, No> {
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let digest = want.arguments.map(|d| data_encoding::BASE64URL_NOPAD.encode(&d));
        let id = place.opens.is_none().then(|| place.id.to_string());
        let lists = Lists::of(&place.allowance, &place.callers);
        let ask = request::Ask {
            environment: &upstream.environment,
            purpose: if want.purpose.is_empty() { &place.purpose } else { &want.purpose },
            tool: (!want.tool.is_empty()).then_some(&*want.tool),
            arguments_digest: digest.as_deref(),
            kind: Some(kind),
            scopes: &scopes,
            ttl_seconds: seconds(life.end().since(now)),
            renewal: want.renews.is_some(),
            task: lists.facts(place, &upstream.environment, id.as_deref()),
            counts: Counts { issued_in_task: i64::try_from(place.issued).unwrap_or(i64::MAX), ..Counts::default() },
            now,
            ..request::Ask::default()
        };
        self.ask(policy, &Question::work(caller.id(), Work::Exchange, upstream, &ask))
    }

    fn ask(&self, policy: &Policy, question: &Question<'_>) -> Result<Vec<String>, No> {
        let verdict = self.verdicts.verdict(&policy.set, question);
        if verdict.permits() {
            return Ok(verdict.by().to_vec());
        }
        let by = verdict.by();
        let (what, rule) = match &*verdict {
            super::Verdict::EngineError { .. } => {
                ("the policy engine failed, which means no".to_owned(), "policy engine".to_owned())
            }
            _ if by.is_empty() => ("no policy permits it".to_owned(), "no policy permits it".to_owned()),
            _ => (format!("policy {} forbids it", by.join(", ")), by.join(", ")),
        };
        let action = question.action().name();
        Err(No::Refusal(
            Refusal::new(Reason::DeniedByPolicy, format!("{action}: {what} (policy version {})", policy.version))
                .by(rule)
                .way_out("whoever owns the policy set changes it"),
        ))
    }

    /// A task that is about to be opened, with its record.
    #[allow(clippy::too_many_arguments, reason = "the same arguments for a task of its own, inline and for another caller")]
    fn opening(
        &self,
        view: &View,
        compiled: &Compiled,
        policy: &Policy,
        caller: &Caller,
        terms: &Terms,
        id: TaskId,
        work: Work,
    ) -> Result<Place, No> {
        let now = view.now();
        let (allowance, environment) = self.allowance(compiled, terms)?;
        let parent = terms.parent.map(|p| named(view, caller, p)).transpose()?;
        let longest = self.longest_task_ms;
        let ttl = terms.ttl_ms.unwrap_or(limits::TASK_TTL_DEFAULT_MS.min(longest));
        let max = terms.max_ttl_ms.unwrap_or(ttl);
        for (field, ms) in [("ttl", ttl), ("max_ttl", max)] {
            if ms > longest {
                return Err(No::Refusal(Refusal::field(
                    field,
                    format!("{} s, a task lives at most {} s", ms / 1000, longest / 1000),
                )));
            }
        }
        if max < ttl {
            return Err(No::Refusal(Refusal::field("max_ttl", "is shorter than ttl")));
        }
        let mut deadline = now.plus(ttl);
        let mut max_deadline = now.plus(max);
        let mut path = Vec::new();
        let (owner, depth) = match &parent {
            Some(p) => {
                if let Some(what) = allowance.wider_than(&p.allowance) {
                    return Err(denied(
                        Reason::WiderThanParent,
                        format!("a child task would be wider than its parent {}: {what}", p.id),
                    ));
                }
                deadline = deadline.min(p.deadline);
                max_deadline = max_deadline.min(p.max_deadline);
                path = p.path.clone();
                (identity_of(caller), p.depth + 1)
            }
            None => (identity_of(caller), 0),
        };
        if depth >= limits::TASK_DEPTH {
            return Err(No::Refusal(Refusal::limit("task_depth", limits::TASK_DEPTH as u64, std::time::Duration::ZERO)));
        }
        path.push((id, owner.clone()));
        let opened = TaskOpened {
            task: id.as_bytes().to_vec(),
            parent: terms.parent.map_or_else(Vec::new, |p| p.as_bytes().to_vec()),
            owner: Some(owner),
            opener: caller.id().as_str().to_owned(),
            callers: terms.callers.clone(),
            environment: environment.clone(),
            purpose: terms.purpose.clone(),
            allowance: Some(allowance.clone()),
            opened_at: now.0,
            deadline: deadline.0,
            max_deadline: max_deadline.max(deadline).0,
            heartbeat: terms.heartbeat_ms,
            policy_version: policy.version,
            svid: Some(svid_of(caller)),
            ancestor: caller.ancestor().map_or_else(Vec::new, |a| a.as_bytes().to_vec()),
            ..TaskOpened::default()
        };
        let place = Place {
            id,
            path,
            allowance,
            purpose: terms.purpose.clone(),
            depth,
            ttl_ms: ttl,
            heartbeat: terms.heartbeat_ms > 0,
            callers: terms.callers.clone(),
            deadline,
            max_deadline,
            issued: 0,
            opens: Some(opened),
        };
        self.may_open(compiled, policy, caller, terms, &place, work, now)?;
        Ok(place)
    }

    /// Opening is asked once for each upstream that the task names.
    #[allow(clippy::too_many_arguments, reason = "everything that policy may read, gathered once")]
    fn may_open(
        &self,
        compiled: &Compiled,
        policy: &Policy,
        caller: &Caller,
        terms: &Terms,
        place: &Place,
        work: Work,
        now: Millis,
    ) -> Result<(), No> {
        let lists = Lists::of(&place.allowance, &place.callers);
        for allowed in &place.allowance.upstreams {
            let upstream = &self.registered(compiled, &allowed.name)?.upstream;
            let scopes: Vec<&str> = allowed.scopes.iter().map(String::as_str).collect();
            let ask = request::Ask {
                environment: &upstream.environment,
                purpose: &terms.purpose,
                scopes: &scopes,
                ttl_seconds: seconds(place.ttl_ms),
                delegate: (work == Work::DelegateTask).then(|| terms.callers.first().map(String::as_str)).flatten(),
                task: lists.facts(place, &upstream.environment, None),
                now,
                ..request::Ask::default()
            };
            self.ask(policy, &Question::work(caller.id(), work, upstream, &ask))?;
        }
        Ok(())
    }

    /// The upstreams and scopes of a task, one by one, all of one environment.
    fn allowance(&self, compiled: &Compiled, terms: &Terms) -> Result<(Allowance, String), No> {
        let mut environment: Option<String> = None;
        let mut upstreams = Vec::with_capacity(terms.upstreams.len());
        for (name, scopes) in &terms.upstreams {
            let upstream = &self.registered(compiled, name)?.upstream;
            let own = &upstream.environment;
            if environment.get_or_insert_with(|| own.clone()) != own {
                return Err(denied(
                    Reason::EnvironmentWall,
                    format!("a task's upstreams belong to one environment; {name} belongs to {own}"),
                ));
            }
            let scopes = if scopes.is_empty() {
                upstream.scopes.iter().filter(|s| !s.sensitive).map(|s| s.name.clone()).collect()
            } else {
                scopes_of(upstream, scopes)?.0
            };
            upstreams.push(record::AllowedUpstream { name: name.clone(), scopes });
        }
        let allowance = Allowance {
            upstreams,
            tools: terms.tools.clone(),
            kinds: terms.kinds.iter().map(|k| u32::from(k.tag())).collect(),
            key_bound: terms.key_bound,
            any_tool: terms.any_tool,
        };
        Ok((allowance, environment.unwrap_or_default()))
    }

    #[allow(clippy::too_many_arguments, reason = "a record of everything that was settled")]
    fn draft(
        &self,
        caller: &Caller,
        want: &Wanted,
        registered: &Registered,
        policy: &Policy,
        place: &Place,
        kind: Kind,
        scopes: Vec<String>,
        life: Life,
        (x5t, jkt): (Vec<u8>, Vec<u8>),
        policies: Vec<String>,
        now: Millis,
    ) -> Issued {
        let upstream: &Arc<Upstream> = &registered.upstream;
        let line = want.renews.as_ref();
        Issued {
            task: place.id.as_bytes().to_vec(),
            kind: kind.tag().into(),
            caller: caller.id().as_str().to_owned(),
            upstream: upstream.name.clone(),
            scopes,
            tool: want.tool.clone(),
            purpose: if want.purpose.is_empty() { place.purpose.clone() } else { want.purpose.clone() },
            arguments: want.arguments.map_or_else(Vec::new, |d| d.to_vec()),
            environment: upstream.environment.clone(),
            issued_at: now.0,
            expires_at: life.end().0,
            renewable_until: line.map_or_else(|| place.max_deadline.min(upstream.expires), |r| r.until).0,
            bound: life.by() as u32,
            svid: Some(svid_of(caller)),
            x5t,
            jkt,
            policy_version: policy.version,
            upstream_version: registered.version,
            policies,
            renews: line.map_or_else(Vec::new, |r| r.id.as_bytes().to_vec()),
            ancestors: line.into_iter().map(|r| r.line.clone()).collect(),
            shown: caller.ancestor().map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            ..Issued::default()
        }
    }
}

/// The lists of a task as policy reads them.
struct Lists<'a> {
    upstreams: Vec<&'a str>,
    tools: Vec<&'a str>,
    callers: Vec<&'a str>,
}

impl<'a> Lists<'a> {
    fn of(allowance: &'a Allowance, callers: &'a [String]) -> Lists<'a> {
        Lists {
            upstreams: allowance.upstreams.iter().map(|u| u.name.as_str()).collect(),
            tools: allowance.tools.iter().map(String::as_str).collect(),
            callers: callers.iter().map(String::as_str).collect(),
        }
    }

    fn facts<'b>(&'b self, place: &'b Place, environment: &'b str, id: Option<&'b str>) -> TaskFacts<'b> {
        TaskFacts {
            id,
            purpose: &place.purpose,
            owner: place.path.last().map_or("", |(_, owner)| &owner.sub),
            environment,
            depth: i64::try_from(place.depth).unwrap_or(i64::MAX),
            ttl_seconds: seconds(place.ttl_ms),
            heartbeat: place.heartbeat,
            upstreams: &self.upstreams,
            tools: &self.tools,
            callers: &self.callers,
        }
    }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

fn active(registered: &Registered, now: Millis) -> Result<(), No> {
    let name = &registered.upstream.name;
    if !registered.active {
        return Err(denied(Reason::UpstreamNotActive, format!("upstream {name} is disabled or retired")));
    }
    if registered.upstream.expires <= now {
        return Err(No::Refusal(
            Refusal::new(
                Reason::UpstreamNotActive,
                format!("the registration of {name} ended at {}", registered.upstream.expires),
            )
            .way_out(format!("its owner {} renews the registration", registered.upstream.owner)),
        ));
    }
    Ok(())
}

/// The scopes asked for; each must be registered. None asked means those that are not sensitive. The flag: one of them is.
fn scopes_of(upstream: &Upstream, asked: &[String]) -> Result<(Vec<String>, bool), No> {
    let mut sensitive = false;
    for name in asked {
        match upstream.scope(name) {
            Some(scope) => sensitive |= scope.sensitive,
            None => return Err(denied(Reason::OutsideUpstream, format!("upstream {} has no scope {name}", upstream.name))),
        }
    }
    Ok((asked.to_vec(), sensitive))
}

fn kind_of(upstream: &Upstream, asked: Option<Kind>) -> Result<Kind, No> {
    let kind = asked.or_else(|| upstream.kinds.first().copied());
    let kind = kind.filter(|k| upstream.issues(*k)).ok_or_else(|| {
        let of = upstream.kinds.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ");
        denied(Reason::OutsideUpstream, format!("upstream {} issues {of}", upstream.name))
    })?;
    if !kind.served() {
        return Err(No::Refusal(Refusal::new(Reason::NotServed, format!("this version does not issue {kind}"))));
    }
    if kind == Kind::Jwt && upstream.alg != Alg::Es256 {
        return Err(No::Refusal(Refusal::new(Reason::NotServed, format!("this version does not sign {}", upstream.alg))));
    }
    Ok(kind)
}

/// A task that is open, if this caller may act in it. To others it does not exist.
fn named(view: &View, caller: &Caller, id: TaskId) -> Result<Place, No> {
    let now = view.now();
    view.read(|state| {
        let task = state.tasks.get(&id).filter(|t| t.admits(caller.id().as_str()));
        let task: &Task = task.ok_or_else(|| {
            No::Refusal(
                Refusal::new(Reason::NotFound, format!("there is no task {id} in which {} may act", caller.id()))
                    .way_out("whoever opened the task names its callers; mayfly task list shows yours"),
            )
        })?;
        match state.tasks.phase(task, now) {
            Phase::Active => {}
            Phase::Held => return Err(denied(Reason::TaskNotActive, format!("task {id} is held"))),
            Phase::PendingApproval => return Err(denied(Reason::TaskNotActive, format!("task {id} waits for an approval"))),
            Phase::Over(how) => return Err(denied(Reason::TaskNotActive, format!("task {id} is over ({how:?})"))),
        }
        let terms = &task.terms;
        Ok(Place {
            id,
            path: terms.path.iter().copied().zip(terms.owners.iter().cloned()).collect(),
            allowance: terms.allowance.clone(),
            purpose: terms.purpose.to_string(),
            depth: terms.path.len().saturating_sub(1),
            ttl_ms: task.deadline.since(terms.opened_at),
            heartbeat: terms.heartbeat > 0,
            callers: terms.callers.iter().map(ToString::to_string).collect(),
            deadline: state.tasks.upwards(task).map(|t| t.deadline).min().unwrap_or(task.deadline),
            max_deadline: terms.max_deadline,
            issued: task.issued,
            opens: None,
        })
    })
}

fn within_task(place: &Place, want: &Wanted, scopes: &[String], kind: Kind) -> Result<(), No> {
    let outside = |what: String| Err(denied(Reason::OutsideTask, format!("task {} does not include {what}", place.id)));
    let Some(allowed) = place.allowance.upstreams.iter().find(|u| u.name == want.upstream) else {
        return outside(format!("upstream {}", want.upstream));
    };
    if let Some(scope) = scopes.iter().find(|s| !allowed.scopes.contains(s)) {
        return outside(format!("scope {scope} of {}", want.upstream));
    }
    if !want.tool.is_empty() && !place.allowance.any_tool && !place.allowance.tools.contains(&want.tool) {
        return outside(format!("tool {}", want.tool));
    }
    if !place.allowance.kinds.is_empty() && !place.allowance.kinds.contains(&u32::from(kind.tag())) {
        return outside(format!("kind {kind}"));
    }
    Ok(())
}

impl Terms {
    /// A task that is opened for one exchange includes at least what that exchange asks for.
    fn with_default(&self, upstream: &str, scopes: &[String], tool: &str, purpose: &str) -> Terms {
        let mut terms = self.clone();
        if terms.upstreams.is_empty() {
            terms.upstreams.push((upstream.to_owned(), scopes.to_vec()));
        }
        if terms.tools.is_empty() && !terms.any_tool && !tool.is_empty() {
            terms.tools.push(tool.to_owned());
        }
        if terms.purpose.is_empty() {
            terms.purpose = purpose.to_owned();
        }
        terms
    }
}

/// Whether a decision was made with what is in force, so that a second one is worth making.
pub fn decided_on_old_state(no: &No) -> bool {
    matches!(no, No::Refusal(r) if r.reason == Reason::DecidedOnOldState)
}
