//! Operators' changes of policy sets: the set in effect, and the shadow set.
//!
//! Credentials that a new set refuses and the previous one permitted are revoked with the change (see
//! [`crate::revocation::revoke_excess`]). Changes of what governs (see [`mayfly_policy::GovernanceRules`]), and changes for which policy
//! requires an approval, need another operator first (see [`crate::registry::changes`]).

use std::sync::Arc;

use crate::admission::{no_environment, permit_within};
use crate::authority::Authority;
use crate::exchange::lookup::not_kept;
use crate::registry::changes::{ApprovalRequest, ChangePermission};
use crate::revocation::revoke::RevocationHits;
use crate::revocation::revoke_excess::{
    CausedRevocation, ChangeEffect, ChangeOptions, ExcessJudge, ExcessSearch, ExcessVerdict, NarrowingChange,
};
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::reader::history::HistoryRecord;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{
    Author, Event, NameKind, NarrowedKind, PolicySetUpdated as SetRecord, ProposedChange, ProposedChangeRecord as Recorded,
    main_objects,
};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::{DocumentVersion, State};
use mayfly_policy::decide::{PolicyComparison, reads_records};
use mayfly_policy::set::files;
use mayfly_policy::unpermitted_actions;
use mayfly_policy::{OperatorAction, PolicySet, admin};
use mayfly_verify::seq::{Millis, Seq};

/// The source of a policy set.
#[derive(Clone, Debug)]
pub enum PolicySetSource {
    /// Files; without roles, the roles in effect are used.
    Files(Vec<SourceFile>, Option<SourceFile>),
    /// An earlier version of the enforced set.
    Version(u64),
    /// The shadow policy set.
    Audited,
    /// The policy set in effect.
    InForce,
}

/// A requested change of a policy set.
#[derive(Clone, Debug)]
pub struct PolicyChangeRequest {
    /// The environment.
    pub environment: String,
    /// Change the shadow policy set.
    pub audit: bool,
    /// The new set; `None` removes the shadow policy set.
    pub from: Option<PolicySetSource>,
    /// The version that the operator read, 0 for none.
    pub read: u64,
    /// The reason.
    pub reason: String,
}

/// A version of a policy set, from memory or history.
#[derive(Clone, Debug)]
pub struct PolicyVersion {
    /// Its number.
    pub number: u64,
    /// Its recorded form.
    pub text: String,
    /// Its record.
    pub seq: Seq,
    /// When it took effect.
    pub at: Millis,
    /// The author of the change.
    pub by: Option<Author>,
    /// The search for credentials that it refuses is still running.
    pub narrowing: bool,
}

/// The result of a change, or of a dry run.
#[derive(Clone, Debug)]
pub struct PolicyChangeResult {
    /// The version in effect; for a dry run, the version that would be.
    pub version: PolicyVersion,
    /// The counts of the objects that the change revoked, or for a dry run would revoke.
    pub hits: RevocationHits,
    /// How many of the revoked credentials the set would not have refused.
    pub beyond: u64,
    /// The parts of the change that need a second operator.
    pub governs: Vec<String>,
}

impl PolicyVersion {
    fn of(version: &DocumentVersion) -> PolicyVersion {
        PolicyVersion {
            number: version.version,
            text: version.text.to_string(),
            seq: version.seq,
            at: version.at,
            by: version.by.as_deref().cloned(),
            narrowing: version.narrows.is_some(),
        }
    }
}

/// A complaint as a field error: its place in the files, and the error.
fn place(c: &Diagnostic) -> (String, String) {
    let place = match (c.line, c.column) {
        (0, _) => c.file.clone(),
        (line, 0) => format!("{}:{line}", c.file),
        (line, column) => format!("{}:{line}:{column}", c.file),
    };
    let right = if c.remedy.is_empty() { String::new() } else { format!(": {}", c.remedy) };
    (place, format!("{}{right}", c.what))
}

fn wrong(complaints: Vec<Diagnostic>) -> Error {
    Error::Refusal(Refusal::fields(complaints.iter().map(place).collect()))
}

impl Authority {
    /// The refusal for an environment without a policy set. Policy decides about operators with an SVID in environments that have one, so
    /// an operator who gets here for another environment came over the local socket and may see all names.
    fn nowhere(&self, environment: &str) -> Error {
        let compiled = self.catalog.now();
        Error::Refusal(match compiled.policy(environment) {
            Some(_) => Refusal::new(Reason::NotFound, format!("environment {environment} has no policy set")),
            None => no_environment(environment, &compiled.environments().map(|(name, _)| name).collect::<Vec<_>>()),
        })
    }

    /// A version of a policy set. `None`: the version in effect.
    pub async fn policy_version(&self, environment: &str, audit: bool, number: Option<u64>) -> Result<PolicyVersion, Error> {
        let in_force = self.ledger.settled(|s| table(s, audit).get(environment).cloned()).await?;
        match (in_force, number) {
            (Some(v), None) => Ok(PolicyVersion::of(&v)),
            (Some(v), Some(n)) if v.version == n => Ok(PolicyVersion::of(&v)),
            (_, Some(n)) => self.past_policy(environment, audit, n).await,
            (_, None) if audit => {
                let what = format!("environment {environment} has no shadow policy set");
                Err(Error::Refusal(Refusal::new(Reason::NotFound, what)))
            }
            (_, None) => Err(self.nowhere(environment)),
        }
    }

    /// A version that is not in effect, from history.
    async fn past_policy(&self, environment: &str, audit: bool, number: u64) -> Result<PolicyVersion, Error> {
        let none = {
            let what = format!("environment {environment} has no version {number} of its policy set");
            move || Error::Refusal(Refusal::new(Reason::NotFound, what.clone()))
        };
        // A version that never took effect is not in history, even if an operator requested it.
        let newest = self.ledger.settled(|s| table(s, audit).get(environment).map_or(0, |v| v.version)).await?;
        if number == 0 || number > newest {
            return Err(none());
        }
        let of = environment.to_owned();
        let version = move |e: &SetRecord| e.environment == of && e.audit_only == audit && e.version == number;
        let named = HistoryFilter::named(Some(NameKind::About), main_objects::policy(environment, audit, number));
        let what = format!("version {number} of the policy set of {environment}");
        self.question(move |look| {
            let fits = |past: &HistoryRecord| set_in(past).is_some_and(&version);
            let Some(past) = look.newest(&[named], 1, fits)?.pop() else {
                look.saw_all(&what)?;
                return Err(look.removed().map_or_else(none, |removed| not_kept(&what, removed)));
            };
            let text = set_in(&past).map(|set| set.text.clone()).unwrap_or_default();
            let by = past.record.author.and_then(|a| a.who);
            Ok(PolicyVersion { number, text, seq: past.seq, at: past.at, by, narrowing: false })
        })
        .await
    }

    /// Builds a set from its source, with its version if it was in effect before. Compiling takes milliseconds of CPU, so it runs apart
    /// from the threads that answer.
    pub async fn policy_from(&self, environment: &str, from: &PolicySetSource) -> Result<(Arc<PolicySet>, Option<u64>), Error> {
        let compiled = self.catalog.now();
        let now = compiled.policy(environment).ok_or_else(|| self.nowhere(environment))?;
        let (policies, roles) = match from {
            PolicySetSource::InForce => return Ok((now.set.clone(), Some(now.version))),
            PolicySetSource::Audited => {
                let version = self.policy_version(environment, true, None).await?;
                if version.text.is_empty() {
                    let what = format!("the shadow policy set of {environment} was taken away");
                    return Err(Error::Refusal(Refusal::new(Reason::NotFound, what)));
                }
                return Ok((self.recorded_set(version.text).await?, Some(version.number)));
            }
            PolicySetSource::Version(number) => {
                let version = self.policy_version(environment, false, Some(*number)).await?;
                return Ok((self.recorded_set(version.text).await?, Some(*number)));
            }
            PolicySetSource::Files(policies, Some(roles)) => (policies.clone(), roles.clone()),
            PolicySetSource::Files(policies, None) => {
                let in_force = files(now.set.to_text()).map_err(|e| Fault::new(format!("the policy set in force: {e}")))?;
                (policies.clone(), in_force.1)
            }
        };
        let set = self.one_compilation(move || PolicySet::compile(policies, roles)).await?.map_err(wrong)?;
        Ok((Arc::new(set), None))
    }

    /// Compiles on a thread that may block. Few are under way at once, also of callers that went away: the permit is held until the thread
    /// is done.
    async fn one_compilation<T: Send + 'static>(&self, compile: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let permit = permit_within(
            &self.compilations,
            limits::POLICY_COMPILATION_WAIT_MS,
            ("policy_compilations", limits::POLICY_COMPILATIONS),
        )
        .await?;
        let compiled = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            compile()
        });
        Ok(compiled.await.map_err(|e| Fault::new(format!("compiling policies: {e}")))?)
    }

    async fn recorded_set(&self, text: String) -> Result<Arc<PolicySet>, Error> {
        if let Some(known) = self.catalog.known(&mayfly_base::document::sha256(text.as_bytes())) {
            return Ok(known);
        }
        Ok(Arc::new(self.one_compilation(move || PolicySet::from_text(&text)).await?.map_err(wrong)?))
    }

    /// The parts of a set that need a second operator before it takes effect.
    pub fn governs(&self, environment: &str, from: &PolicySetSource, new: &PolicySet) -> Vec<String> {
        let compiled = self.catalog.now();
        let Some(now) = compiled.policy(environment) else { return Vec::new() };
        let mut all = now.set.governing().differences(&new.governing());
        if matches!(from, PolicySetSource::Audited) {
            all.push("mode".to_owned());
        }
        all.extend(self.roots_taken_in(|domain| new.operator_domains().has(domain)));
        all
    }

    /// Warnings about a set: legal constructs that look like mistakes, each with its place.
    pub fn policy_warnings(&self, environment: &str, set: &PolicySet) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = set.warnings().iter().map(place).collect();
        let compiled = self.catalog.now();
        let unknown = set.upstreams_named().iter().filter(|name| compiled.upstream(name).is_none());
        all.extend(unknown.map(|name| ("policies".to_owned(), format!("upstream {name} is not registered"))));
        let scope = |name: &str| compiled.upstreams().any(|known| known.upstream.scope(name).is_some());
        all.extend(set.never_asked_for(scope).into_iter().map(|what| ("policies".to_owned(), format!("a policy names {what}"))));
        if !set.environments().iter().any(|name| name == environment) {
            all.push(("roles".to_owned(), format!("nobody belongs to environment {environment}: its wall refuses everybody")));
        }
        if !self.single_operator {
            all.extend(unpermitted_actions::complaint(set.nobody_may(), environment).as_ref().map(place));
        }
        all
    }

    /// Whether a set may replace the one in effect: it must leave somebody who may change policy, revoke and lock in the environment, if
    /// the set in effect does. Otherwise no operator could undo the change, and only `admin.single_operator` and a restart would help.
    pub fn stays_attended(&self, environment: &str, new: &PolicySet) -> Result<(), Error> {
        let compiled = self.catalog.now();
        let before = compiled.policy(environment).map_or(&[][..], |now| now.set.nobody_may());
        let lost: Vec<OperatorAction> = new.nobody_may().iter().filter(|admin| !before.contains(admin)).copied().collect();
        match unpermitted_actions::complaint(&lost, environment).filter(|_| !self.single_operator) {
            Some(complaint) => Err(wrong(vec![complaint])),
            None => Ok(()),
        }
    }

    /// Puts a policy set in effect, or makes it the shadow policy set.
    pub async fn set_policy(
        &self,
        operator: &Operator,
        setting: &PolicyChangeRequest,
        terms: &ChangeOptions,
    ) -> Result<PolicyChangeResult, Error> {
        let PolicyChangeRequest { environment, audit, .. } = setting;
        let may = self.may_change_alone::<admin::ManagePolicy>(operator, ("policy", environment), Some(environment))?;
        let _one = self.changing.lock().await;
        if let Some(before) = self.remembered(&may.who().name(), &terms.named).await? {
            let hits = self.hit_before(&before, &terms.named).await?;
            let version = self.policy_in_place(environment, *audit).await?;
            return Ok(PolicyChangeResult { version, hits, beyond: 0, governs: Vec::new() });
        }
        let new = match &setting.from {
            Some(from) => Some(self.policy_from(environment, from).await?.0),
            None if *audit => None,
            None => return Err(Refusal::field("set", "is missing: an environment is never without a policy set").into()),
        };
        let now = self.ledger.settled(|s| table(s, *audit).get(environment.as_str()).cloned()).await?;
        let version = now.as_ref().map_or(0, |v| v.version);
        if version != setting.read {
            let what = format!("version {version} is the newest of {environment}, the change was made from {}", setting.read);
            return Err(Error::Refusal(Refusal::new(Reason::DecidedOnOldState, what)));
        }
        let same = now.as_ref().filter(|v| new.as_ref().map(|set| *set.digest()) == v.active.then_some(v.digest));
        if let Some(now) = same {
            let version = PolicyVersion::of(now);
            return Ok(PolicyChangeResult { version, hits: RevocationHits::default(), beyond: 0, governs: Vec::new() });
        }
        let text = new.as_ref().map_or("", |set| set.to_text());
        let set = SetRecord {
            environment: environment.clone(),
            version: version + 1,
            digest: mayfly_base::document::sha256(text.as_bytes()).to_vec(),
            text: text.to_owned(),
            audit_only: *audit,
            looked: 0,
        };
        let governs = match (&setting.from, &new) {
            (Some(from), Some(new)) if !audit => {
                self.stays_attended(environment, new)?;
                self.governs(environment, from, new)
            }
            _ => Vec::new(),
        };
        let second = match may {
            ChangePermission::Yes(who) if governs.is_empty() => ChangePermission::Yes(who),
            ChangePermission::Yes(who) | ChangePermission::With(who) => self.with_another(operator, who)?,
        };
        let takes = match new {
            Some(new) if !audit => self.policy_takes(environment, new),
            _ => CausedRevocation::Nothing,
        };
        let who = second.who().clone();
        let event = |looked: Seq| Event::PolicySet(SetRecord { looked: looked.as_u64(), ..set.clone() });
        let coarse = coarse(environment, set.version);
        let change = NarrowingChange { who: &who, event: &event, version: set.version, takes, coarse, reason: REASON };
        if let (ChangePermission::With(_), false) = (&second, terms.dry_run) {
            // The operator confirms what the change will hit when requesting it, as for a change that needs no approval.
            let asked = Recorded { to: Some(ProposedChange::Policy(set.clone())) };
            let asking = ApprovalRequest { environment, reason: &setting.reason, why: governs };
            return Err(self.ask_another(change, asked, asking, terms).await);
        }
        let ChangeEffect { hits, beyond } = self.put_in_force(change, terms).await?;
        let version = match terms.dry_run {
            true => PolicyVersion {
                number: set.version,
                text: set.text,
                seq: Seq::ZERO,
                at: self.system.wall(),
                by: Some(who),
                narrowing: false,
            },
            false => self.policy_in_place(environment, *audit).await?,
        };
        Ok(PolicyChangeResult { version, hits, beyond, governs })
    }

    /// The authoritative version of a set; it may be one that removed the set.
    async fn policy_in_place(&self, environment: &str, audit: bool) -> Result<PolicyVersion, Error> {
        let found = self.ledger.settled(|s| table(s, audit).get(environment).map(|v| PolicyVersion::of(v))).await?;
        found.ok_or_else(|| self.nowhere(environment))
    }

    /// The revocation that a policy set causes when it takes effect: a search of all live credentials of its environment. The compiled set
    /// is kept for the code that follows the ledger.
    fn policy_takes(&self, environment: &str, new: Arc<PolicySet>) -> CausedRevocation {
        let old = self.catalog.now().policy(environment).map(|p| p.set.clone());
        self.catalog.prepare(new.clone());
        CausedRevocation::Found(self.look_of_policy(environment, old, new), Vec::new())
    }

    /// The revocation that a requested set causes, with the set's version and the target that covers its environment.
    pub(crate) async fn asked_policy_takes(&self, set: &SetRecord) -> Result<(u64, CausedRevocation, Target), Error> {
        let takes = match set.audit_only {
            true => CausedRevocation::Nothing,
            false => {
                let new = self.recorded_set(set.text.clone()).await?;
                self.stays_attended(&set.environment, &new)?;
                self.policy_takes(&set.environment, new)
            }
        };
        Ok((set.version, takes, coarse(&set.environment, set.version)))
    }

    fn look_of_policy(&self, environment: &str, old: Option<Arc<PolicySet>>, new: Arc<PolicySet>) -> ExcessSearch {
        let (compiled, verdicts) = (self.catalog.now(), self.decider.verdicts.clone());
        let records = reads_records(&new) || old.as_ref().is_some_and(|old| reads_records(old));
        let anew = PolicyComparison::new(old, new);
        let judge: ExcessJudge = Arc::new(move |held, now| {
            let Some(registered) = compiled.upstream(&held.upstream) else { return ExcessVerdict::Goes };
            if anew.refuses(&verdicts, &registered.upstream, held, now) { ExcessVerdict::Goes } else { ExcessVerdict::Stays }
        });
        ExcessSearch { among: NarrowedKind::Policy, name: environment.into(), since: Seq::ZERO, records, judge }
    }

    /// Completes the narrowing of an environment's policy set that a stop interrupted.
    pub(crate) async fn finish_policy(&self, environment: &str) -> Result<(), Error> {
        let _one = self.changing.lock().await;
        let Some(version) = self.ledger.settled(|s| s.policies.get(environment).cloned()).await? else { return Ok(()) };
        let Some(since) = version.narrows else { return Ok(()) };
        let new = self.recorded_set(version.text.to_string()).await?;
        let look = ExcessSearch { since, ..self.look_of_policy(environment, None, new) };
        let who = Author::Mayfly("narrowing goes on".to_owned());
        self.finish_narrowing(look, version.version, &who, coarse(environment, version.version), REASON).await?;
        Ok(())
    }
}

/// The policy set in a record. If the record approves a requested change, the set is in the request.
fn set_in(past: &HistoryRecord) -> Option<&SetRecord> {
    match &past.record.event {
        Some(Event::PolicySet(set)) => Some(set),
        Some(Event::ApprovalAsked(e)) => match e.change.as_ref().and_then(|c| c.to.as_ref()) {
            Some(ProposedChange::Policy(set)) => Some(set),
            _ => None,
        },
        _ => None,
    }
}

const REASON: &str = "the policy set was narrowed";

/// The target that covers everything that a version can take back.
fn coarse(environment: &str, version: u64) -> Target {
    Target::PolicyBelow(environment.into(), version)
}

fn table(state: &State, audit: bool) -> &std::collections::BTreeMap<Box<str>, Arc<DocumentVersion>> {
    if audit { &state.audit_policies } else { &state.policies }
}
