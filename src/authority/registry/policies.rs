//! Operators' changes of policy sets: the set in effect, and the shadow set.
//!
//! Credentials that a new set refuses and the previous one permitted are revoked with the change (see
//! [`crate::revocation::revoke_excess`]). Changes of what governs (see [`mayfly_policy::GovernanceRules`]), and changes for which policy
//! requires an approval, need another operator first (see [`crate::registry::changes`]).

use std::sync::Arc;

use crate::admission::{no_environment, permit_within};
use crate::authority::Authority;
use crate::exchange::lookup::not_kept;
use crate::registry::changes::ApprovalRequest;
use crate::registry::documents::{DocumentChangeResult, ManagedDocument};
use crate::revocation::revoke_excess::{CausedRevocation, ChangeOptions, ExcessJudge, ExcessSearch, ExcessVerdict};
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::reader::history::HistoryRecord;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{DocumentFields, DocumentTable, NameKind, NarrowedKind, PolicySetUpdated, main_objects};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::DocumentVersion;
use mayfly_policy::decide::{PolicyComparison, reads_records};
use mayfly_policy::set::files;
use mayfly_policy::unpermitted_actions;
use mayfly_policy::{OperatorAction, PolicySet, admin};
use mayfly_verify::seq::Seq;

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
    pub async fn policy_version(
        &self,
        environment: &str,
        audit: bool,
        number: Option<u64>,
    ) -> Result<Arc<DocumentVersion>, Error> {
        let in_force = self.document(table(audit), environment).await?;
        match (in_force, number) {
            (Some(v), None) => Ok(v),
            (Some(v), Some(n)) if v.version == n => Ok(v),
            (_, Some(n)) => self.past_policy(environment, audit, n).await,
            (_, None) if audit => {
                let what = format!("environment {environment} has no shadow policy set");
                Err(Error::Refusal(Refusal::new(Reason::NotFound, what)))
            }
            (_, None) => Err(self.nowhere(environment)),
        }
    }

    /// A version that is not in effect, from history.
    async fn past_policy(&self, environment: &str, audit: bool, number: u64) -> Result<Arc<DocumentVersion>, Error> {
        let none = {
            let what = format!("environment {environment} has no version {number} of its policy set");
            move || Error::Refusal(Refusal::new(Reason::NotFound, what.clone()))
        };
        // A version that never took effect is not in history, even if an operator requested it.
        let newest = self.document(table(audit), environment).await?.map_or(0, |v| v.version);
        if number == 0 || number > newest {
            return Err(none());
        }
        let of = environment.to_owned();
        let is_it = move |d: &DocumentFields<'_>| d.table == table(audit) && d.name == of && d.version == number;
        let named = HistoryFilter::named(Some(NameKind::About), main_objects::policy(environment, audit, number));
        let what = format!("version {number} of the policy set of {environment}");
        self.question(move |look| {
            let fits = |past: &HistoryRecord| set_in(past).as_ref().is_some_and(&is_it);
            let Some(past) = look.newest(&[named], 1, fits)?.pop() else {
                look.saw_all(&what)?;
                return Err(look.removed().map_or_else(none, |removed| not_kept(&what, removed)));
            };
            let set = set_in(&past).ok_or_else(|| Fault::new(format!("the record at {} has no policy set", past.seq)))?;
            let by = past.record.author.as_ref().and_then(|a| a.who.clone()).map(Box::new);
            Ok(Arc::new(DocumentVersion::of(&set, (past.seq, past.at), by)))
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
                return Ok((self.recorded_set(&version.text).await?, Some(version.version)));
            }
            PolicySetSource::Version(number) => {
                let version = self.policy_version(environment, false, Some(*number)).await?;
                return Ok((self.recorded_set(&version.text).await?, Some(*number)));
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

    async fn recorded_set(&self, text: &str) -> Result<Arc<PolicySet>, Error> {
        if let Some(known) = self.catalog.known(&mayfly_base::document::sha256(text.as_bytes())) {
            return Ok(known);
        }
        let text = text.to_owned();
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
    pub fn keeps_operators(&self, environment: &str, new: &PolicySet) -> Result<(), Error> {
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
    ) -> Result<DocumentChangeResult, Error> {
        let PolicyChangeRequest { environment, audit, .. } = setting;
        let may = self.may_change_alone::<admin::ManagePolicy>(operator, ("policy", environment), Some(environment))?;
        let _one = self.changing.lock().await;
        if let Some(before) = self.document_changed_before((table(*audit), environment), may.who(), terms).await? {
            return Ok(before);
        }
        let new = match &setting.from {
            Some(from) => Some(self.policy_from(environment, from).await?.0),
            None if *audit => None,
            None => return Err(Refusal::field("set", "is missing: an environment is never without a policy set").into()),
        };
        let now = self.document(table(*audit), environment).await?;
        let version = now.as_ref().map_or(0, |v| v.version);
        if version != setting.read {
            let what = format!("version {version} is the newest of {environment}, the change was made from {}", setting.read);
            return Err(Error::Refusal(Refusal::new(Reason::DecidedOnOldState, what)));
        }
        if let Some(now) = now.filter(|v| new.as_ref().map(|set| *set.digest()) == v.active.then_some(v.digest)) {
            return Ok(DocumentChangeResult::unchanged(now));
        }
        let text = new.as_ref().map_or("", |set| set.to_text());
        let set = PolicySetUpdated {
            environment: environment.clone(),
            version: version + 1,
            digest: mayfly_base::document::sha256(text.as_bytes()).to_vec(),
            text: text.to_owned(),
            audit_only: *audit,
            looked: 0,
        };
        let governs = match (&setting.from, new) {
            (Some(from), Some(new)) if !audit => {
                self.keeps_operators(environment, &new)?;
                let governs = self.governs(environment, from, &new);
                // The compiled set is kept, so that it is not compiled again when it takes effect.
                self.catalog.prepare(new);
                governs
            }
            _ => Vec::new(),
        };
        let permission = self.permission(operator, may, !governs.is_empty())?;
        let asking = ApprovalRequest { environment, reason: &setting.reason, why: governs };
        self.change_document(set, permission, asking, terms, PolicySetUpdated::NARROWED).await
    }

    fn look_of_policy(&self, environment: &str, old: Option<Arc<PolicySet>>, new: Arc<PolicySet>) -> ExcessSearch {
        let (compiled, verdicts, access) = (self.catalog.now(), self.decider.verdicts.clone(), self.decider.access.clone());
        let records = reads_records(&new) || old.as_ref().is_some_and(|old| reads_records(old));
        let anew = PolicyComparison::new(old, new);
        let judge: ExcessJudge = Arc::new(move |held, now| {
            let Some(registered) = compiled.upstream(&held.upstream) else { return ExcessVerdict::Goes };
            let goes = anew.refuses((&verdicts, &*access), &registered.upstream, held, now);
            if goes { ExcessVerdict::Goes } else { ExcessVerdict::Stays }
        });
        ExcessSearch { among: NarrowedKind::Policy, name: environment.into(), since: Seq::ZERO, records, judge }
    }
}

impl ManagedDocument for PolicySetUpdated {
    const NARROWED: &'static str = "the policy set was narrowed";

    fn coarse(environment: &str, version: u64) -> Target {
        Target::PolicyBelow(environment.into(), version)
    }

    /// A search of all live credentials of the environment. The compiled set is kept for the code that follows the ledger.
    async fn takes(&self, authority: &Authority) -> Result<CausedRevocation, Error> {
        if self.audit_only {
            return Ok(CausedRevocation::Nothing);
        }
        let new = authority.recorded_set(&self.text).await?;
        authority.keeps_operators(&self.environment, &new)?;
        let old = authority.catalog.now().policy(&self.environment).map(|p| p.set.clone());
        authority.catalog.prepare(new.clone());
        Ok(CausedRevocation::Found(authority.look_of_policy(&self.environment, old, new), Vec::new()))
    }

    async fn search(authority: &Authority, environment: &str, version: &DocumentVersion) -> Result<ExcessSearch, Error> {
        let new = authority.recorded_set(&version.text).await?;
        Ok(authority.look_of_policy(environment, None, new))
    }
}

/// The policy set in a record. If the record approves a requested change, the set is in the request.
fn set_in(past: &HistoryRecord) -> Option<DocumentFields<'_>> {
    past.record.event.as_ref()?.document_in_history()
}

fn table(audit: bool) -> DocumentTable {
    if audit { DocumentTable::ShadowPolicies } else { DocumentTable::Policies }
}
