//! Environments of operators. An action in one environment is decided by the policy of that environment alone, an action across several by
//! each of them, and lists show what the operator may see.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use crate::admission::{Admitted, no_environment};
use crate::authority::Authority;
use mayfly_base::refusal::Error;
use mayfly_identity::caller::Operator;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{Author, Event, NameKind, Record, TargetRecord, names};
use mayfly_ledger::revocation::Target;
use mayfly_policy::catalog::CompiledCatalog;
use mayfly_policy::{OperatorActionType, OperatorContext, admin};
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, TaskId};

/// The environments that an object belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Environments {
    /// The given environments, at least one: the policy of each is evaluated.
    Of(BTreeSet<String>),
    /// No environment, like a trust bundle or the server's status. An operator of any environment may see it; a change is decided by the
    /// policy of each environment.
    Server,
    /// All environments, or unknown ones: the policy of each environment is evaluated.
    Every,
}

impl Environments {
    /// One environment.
    pub fn one(name: &str) -> Environments {
        Environments::Of([name.to_owned()].into())
    }

    /// The given environments; `Every` if there are none.
    fn these_or_every(names: BTreeSet<String>) -> Environments {
        if names.is_empty() { Environments::Every } else { Environments::Of(names) }
    }

    /// The union of both.
    pub fn and(self, others: Environments) -> Environments {
        match (self, others) {
            (Environments::Every, _) | (_, Environments::Every) => Environments::Every,
            (Environments::Server, rest) | (rest, Environments::Server) => rest,
            (Environments::Of(mut these), Environments::Of(more)) => {
                these.extend(more);
                Environments::Of(these)
            }
        }
    }
}

/// The kind and the name of a target, as policy reads them: `context.target_kind` and `context.target`.
pub(crate) struct NamedTarget {
    kind: &'static str,
    name: String,
}

impl NamedTarget {
    fn of(target: &Target) -> NamedTarget {
        let text = target.to_string();
        let name = text.split_once(':').map_or("", |(_, name)| name).to_owned();
        NamedTarget { kind: target.sort().word(), name }
    }

    /// The context of an action on this target, if there is one. A target without a name, like everything, has a kind only.
    pub(crate) fn within<'a>(about: Option<&'a NamedTarget>, act: OperatorContext<'a>) -> OperatorContext<'a> {
        match about {
            Some(NamedTarget { kind, name }) => {
                OperatorContext { target_kind: Some(kind), target: Some(name.as_str()).filter(|name| !name.is_empty()), ..act }
            }
            None => act,
        }
    }
}

/// The environments in which an operator is permitted the action `A`: at least one. Made by [`Authority::scope`] only.
#[derive(Clone, Debug)]
pub struct OperatorScope<A: OperatorActionType> {
    who: Author,
    /// `None`: all environments.
    environments: Option<BTreeSet<String>>,
    action: PhantomData<A>,
}

impl<A: OperatorActionType> OperatorScope<A> {
    pub(crate) fn new(who: Author, environments: Option<BTreeSet<String>>) -> OperatorScope<A> {
        OperatorScope { who, environments, action: PhantomData }
    }

    /// The operator, in the form that records use.
    pub fn who(&self) -> Author {
        self.who.clone()
    }

    /// Whether the scope is every environment.
    pub fn everywhere(&self) -> bool {
        self.environments.is_none()
    }

    /// Whether the scope includes an environment. The empty name stands for objects of no environment, which an operator of any environment
    /// may see.
    pub fn has(&self, environment: &str) -> bool {
        environment.is_empty() || self.environments.as_ref().is_none_or(|all| all.contains(environment))
    }

    /// Whether an object of these environments may be shown completely.
    pub fn has_all(&self, environments: &Environments) -> bool {
        match environments {
            Environments::Of(names) => names.iter().all(|name| self.has(name)),
            Environments::Server => true,
            Environments::Every => self.everywhere(),
        }
    }

    /// Whether a rule over these environments concerns an environment of the scope. A rule over everything concerns each.
    pub fn has_some(&self, environments: &Environments) -> bool {
        match environments {
            Environments::Of(names) => names.iter().any(|name| self.has(name)),
            Environments::Server | Environments::Every => true,
        }
    }
}

impl Authority {
    /// Admits an operator to an action on an object of these environments.
    pub fn admit_in<A: OperatorActionType>(
        &self,
        operator: &Operator,
        environments: &Environments,
    ) -> Result<Admitted<A>, Error> {
        self.admit_about(operator, environments, None)
    }

    /// Like [`Authority::admit_in`], for an action on a target that policy may read.
    fn admit_about<A: OperatorActionType>(
        &self,
        operator: &Operator,
        environments: &Environments,
        about: Option<&NamedTarget>,
    ) -> Result<Admitted<A>, Error> {
        let admit = |environment| {
            let act = OperatorContext { environment, now: self.system.wall(), ..OperatorContext::default() };
            self.admit_to(operator, &NamedTarget::within(about, act))
        };
        let Environments::Of(names) = environments else { return admit(None) };
        let mut last = None;
        for name in names {
            last = Some(admit(Some(name.as_str()))?);
        }
        // An empty set is treated like all environments.
        last.map_or_else(|| admit(None), Ok)
    }

    /// Whether an operator may see an object of these environments.
    pub fn may_see<A: OperatorActionType>(&self, operator: &Operator, environments: &Environments) -> Result<(), Error> {
        match environments {
            Environments::Server => self.scope::<A>(operator).map(drop),
            _ => self.admit_in::<A>(operator, environments).map(drop),
        }
    }

    /// Admits an operator to an action on an object that was looked up. An operator who is permitted the action nowhere is refused before
    /// the answer tells whether the object exists; `None`: it does not exist, and the operator may know that.
    pub fn admit_to_found<A: OperatorActionType>(
        &self,
        operator: &Operator,
        found: Option<&str>,
    ) -> Result<Option<Admitted<A>>, Error> {
        match found {
            Some(environment) => self.admit(operator, Some(environment).filter(|e| !e.is_empty())).map(Some),
            None => self.scope::<A>(operator).map(|_| None),
        }
    }

    /// Admits an operator to revoke, lock or inspect these targets: in each environment that a target reaches.
    pub async fn admit_to_targets<A: OperatorActionType>(
        &self,
        operator: &Operator,
        targets: &[Target],
    ) -> Result<Admitted<A>, Error> {
        let named: Vec<NamedTarget> = targets.iter().map(NamedTarget::of).collect();
        // An operator who is permitted the action on a target nowhere triggers no search.
        for about in &named {
            self.scope_about::<A>(operator, Some(about))?;
        }
        let mut admitted = None;
        for (target, about) in targets.iter().zip(&named) {
            let environments = match (self.environments_of_target(target), target) {
                (Some(environments), _) => environments,
                (None, Target::Credential(id)) => {
                    // An operator of every environment does not wait for a search of history, where ended objects are.
                    if let Ok(everywhere) = self.admit_about::<A>(operator, &Environments::Every, Some(about)) {
                        admitted = Some(everywhere);
                        continue;
                    }
                    match self.issuance(*id).await.ok().flatten() {
                        Some(found) => Environments::one(&found.issued()?.environment),
                        None => Environments::Every,
                    }
                }
                (None, _) => Environments::Every,
            };
            admitted = Some(self.admit_about(operator, &environments, Some(about))?);
        }
        admitted.map_or_else(|| self.admit(operator, None), Ok)
    }

    /// The part of a list that an operator may see. `None`: all of it, or all of the requested environment.
    pub fn scope_of<A: OperatorActionType>(
        &self,
        operator: &Operator,
        asked: Option<&str>,
    ) -> Result<Option<OperatorScope<A>>, Error> {
        match asked {
            Some(environment) => {
                self.admit::<A>(operator, Some(environment))?;
                let compiled = self.catalog.now();
                // Only a caller of the local socket gets here for an environment that does not exist, and may see all names.
                if compiled.policy(environment).is_none() {
                    let known: Vec<&str> = compiled.environments().map(|(name, _)| name).collect();
                    return Err(Error::Refusal(no_environment(environment, &known)));
                }
                Ok(None)
            }
            None => Ok(Some(self.scope(operator)?).filter(|scope| !scope.everywhere())),
        }
    }

    /// The environments that a target reaches; `None` for a credential or task that is not in memory.
    pub fn environments_of_target(&self, target: &Target) -> Option<Environments> {
        let compiled = self.catalog.now();
        let upstream = |name: &str| match compiled.upstream(name) {
            Some(registered) => Environments::one(&registered.upstream.environment),
            None => Environments::Every,
        };
        Some(match target {
            Target::Credential(id) => Environments::one(&self.environment_of_credential(id)?),
            Target::Task(id) => Environments::one(&self.environment_of_task(id)?),
            Target::Caller(id) => environments_of_caller(&compiled, id),
            Target::Prefix(prefix) => environments_under(&compiled, prefix),
            Target::TrustDomain(domain) | Target::Svid(domain, ..) => {
                environments_under(&compiled, &format!("spiffe://{domain}"))
            }
            Target::Upstream(name) | Target::UpstreamScope(name, _) => upstream(name),
            Target::Binding(name) => {
                compiled.binding(name).map_or(Environments::Every, |bound| upstream(&bound.binding.upstream))
            }
            Target::Environment(name) | Target::PolicyBelow(name, _) if compiled.policy(name).is_some() => {
                Environments::one(name)
            }
            Target::SigningKey(id) => {
                let environment = self.ledger.peek(|s| s.keys.get(id).map(|key| key.environment.to_string()));
                environment.filter(|name| !name.is_empty()).map_or(Environments::Every, |name| Environments::one(&name))
            }
            // The environment is unknown.
            Target::Environment(_) | Target::PolicyBelow(..) => Environments::Every,
            Target::TrustAnchor(_) | Target::Subject(..) | Target::SubjectToken(..) | Target::Tool(_) | Target::Everything => {
                Environments::Every
            }
        })
    }

    /// The environment of a credential or a person's login, if it is in memory.
    pub fn environment_of_credential(&self, id: &CredentialId) -> Option<String> {
        self.ledger.peek(|s| {
            let login = || s.logins.get(id).map(|login| login.environment.to_string());
            s.credentials.get(id).map(|live| live.environment().to_owned()).or_else(login)
        })
    }

    /// The environment of a task, if it is in memory.
    pub fn environment_of_task(&self, id: &TaskId) -> Option<String> {
        self.ledger.peek(|s| s.tasks.get(id).map(|task| task.terms.environment.to_string()))
    }

    /// Whether a rule over a target may be shown: the target reaches an environment of the scope.
    pub fn sees_target(&self, scope: &OperatorScope<admin::Observe>, target: &Target) -> bool {
        scope.everywhere() || self.environments_of_target(target).is_some_and(|environments| scope.has_some(&environments))
    }

    /// The environments that a record belongs to: those that it names, and those of its upstreams, tasks, credentials and callers. A record
    /// that names none and is not about the server may be of any environment.
    pub fn environments_of_record(&self, record: &Record) -> Environments {
        let compiled = self.catalog.now();
        let of_targets = |targets: &[TargetRecord]| {
            let of = |t| Target::from_record(t).ok().and_then(|t| self.environments_of_target(&t)).unwrap_or(Environments::Every);
            targets.iter().map(of).fold(Environments::Server, Environments::and)
        };
        match &record.event {
            Some(Event::Revoked(e)) => return of_targets(&e.targets),
            Some(Event::LockLifted(e)) => return of_targets(&e.targets),
            _ => {}
        }
        let (mut found, mut callers) = (BTreeSet::new(), BTreeSet::new());
        names(record, &mut |sort, text| match sort {
            NameKind::Environment => drop(found.insert(text.to_owned())),
            NameKind::Upstream => found.extend(compiled.upstream(text).map(|r| r.upstream.environment.clone())),
            NameKind::Task => found.extend(text.parse().ok().and_then(|id| self.environment_of_task(&id))),
            NameKind::Workload => {
                callers.extend(SpiffeId::parse(text).ok().map(|id| walls_of(&compiled, &id)).into_iter().flatten())
            }
            NameKind::Other => found.extend(self.environment_of_other(&compiled, text)),
            NameKind::Event | NameKind::Tool | NameKind::About => {}
        });
        match (found.is_empty(), &record.event) {
            (false, _) => Environments::Of(found),
            (true, Some(event)) if of_the_server(event) => Environments::Server,
            (true, _) => Environments::these_or_every(callers),
        }
    }

    /// The environment of a credential, approval, lease, key or binding in memory, by the name that a record gives it.
    fn environment_of_other(&self, compiled: &CompiledCatalog, name: &str) -> Option<String> {
        if let Some(environment) = name.parse().ok().and_then(|id| self.environment_of_credential(&id)) {
            return Some(environment);
        }
        let upstream = |name: &str| compiled.upstream(name).map(|registered| registered.upstream.environment.clone());
        let (approval, lease) = (name.parse::<ApprovalId>().ok(), name.parse::<LeaseId>().ok());
        let found = self.ledger.peek(|s| {
            let approval = approval.and_then(|id| s.approvals.get(&id)).map(|a| a.asked.environment.clone());
            let lease = || lease.and_then(|id| s.leases.get(&id)).and_then(|l| upstream(&l.upstream));
            let key = || s.keys.get(name).map(|key| key.environment.to_string());
            approval.or_else(lease).or_else(key)
        });
        let bound = || compiled.binding(name).and_then(|bound| upstream(&bound.binding.upstream));
        found.or_else(bound).filter(|environment| !environment.is_empty())
    }

    /// The environments that have a policy set but are not served by this server, with the number of their live credentials.
    pub fn environments_not_served(&self) -> Vec<(String, u64)> {
        let compiled = self.catalog.now();
        let left: Vec<&str> = compiled.environments().map(|(name, _)| name).filter(|name| !self.decider.serves(name)).collect();
        if left.is_empty() {
            return Vec::new();
        }
        self.ledger.peek(|s| {
            let by_upstream = s.credentials.by_upstream();
            let counted = left.iter().map(|name| {
                let of = |upstream: &str| compiled.upstream(upstream).is_some_and(|r| r.upstream.environment == *name);
                let live = by_upstream.iter().filter(|(upstream, _)| of(upstream)).map(|(_, (live, _))| live).sum();
                ((*name).to_owned(), live)
            });
            counted.collect()
        })
    }

    /// The environments that an operator operates, each with the actions that policy permits there.
    pub fn operates(&self, operator: &Operator) -> Vec<(String, Vec<&'static str>)> {
        let compiled = self.catalog.now();
        let mut all = Vec::new();
        for environment in compiled.environments() {
            let actions = self.permitted_in(operator, environment);
            if !actions.is_empty() {
                all.push((environment.0.to_owned(), actions));
            }
        }
        all
    }
}

/// The environments whose own policy set assigns a workload to them.
fn walls_of(compiled: &CompiledCatalog, id: &SpiffeId) -> Vec<String> {
    let within = compiled.environments().filter(|(name, policy)| policy.set.environment_of(id) == Some(*name));
    within.map(|(name, _)| name.to_owned()).collect()
}

/// The environments where a caller belongs and those that it operates: locking out an operator concerns each environment that it operates.
fn environments_of_caller(compiled: &CompiledCatalog, id: &str) -> Environments {
    let Ok(caller) = SpiffeId::parse(id) else { return Environments::Every };
    let mut names: BTreeSet<String> = walls_of(compiled, &caller).into_iter().collect();
    names.extend(operated_under(compiled, id, true));
    Environments::these_or_every(names)
}

/// The environments of all callers under a prefix of whole segments.
fn environments_under(compiled: &CompiledCatalog, prefix: &str) -> Environments {
    let walls = compiled.environments().filter(|(name, policy)| policy.set.has_members_under(name, prefix));
    let mut names: BTreeSet<String> = walls.map(|(name, _)| name.to_owned()).collect();
    names.extend(operated_under(compiled, prefix, false));
    Environments::these_or_every(names)
}

fn operated_under(compiled: &CompiledCatalog, id: &str, exact: bool) -> Vec<String> {
    let operated = compiled.environments().filter(|(_, policy)| policy.set.operators_at(id, exact));
    operated.map(|(name, _)| name.to_owned()).collect()
}

/// Whether an event is about the server and its ledger, which belong to no environment.
fn of_the_server(event: &Event) -> bool {
    matches!(
        event,
        Event::GenerationBegun(_)
            | Event::SnapshotTaken(_)
            | Event::Maintained(_)
            | Event::HistoryRemoved(_)
            | Event::BackedUp(_)
            | Event::BundleSet(_)
            | Event::KeyAdded(_)
            | Event::KeyChanged(_)
            | Event::OwnerLeft(_)
    )
}
