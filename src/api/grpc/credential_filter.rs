//! The filter of credential lists and watches.

use super::super::wire;
use super::request_checks;
use mayfly_authority::admission::operators::OperatorScope;
use mayfly_base::refusal::Refusal;
use mayfly_ledger::State;
use mayfly_ledger::record::CredentialIssued;
use mayfly_ledger::revocation::{Facts, Rules};
use mayfly_ledger::state::{LiveCredential, Login, facts_of_record};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, Seq, TaskId};

/// A checked filter. A credential must match all fields that were given.
#[derive(Default)]
pub struct CredentialCriteria {
    caller: Option<String>,
    task: Option<TaskId>,
    upstream: Option<String>,
    environment: Option<String>,
    kind: Option<u8>,
    state: Option<pb::CredentialState>,
    covered_by: Option<Rules>,
    /// The environments that the operator may see. `None`: all, or the environment that the filter names.
    sees: Option<OperatorScope<admin::Observe>>,
}

/// The attributes that are compared first: cheap to get, and the same for credentials in memory and in records.
struct CredentialAttributes<'a> {
    caller: &'a str,
    upstream: &'a str,
    environment: &'a str,
    kind: u8,
    path: &'a [TaskId],
}

impl CredentialCriteria {
    /// Checks the filter of a request.
    pub fn of(filter: Option<&pb::CredentialFilter>) -> Result<CredentialCriteria, Refusal> {
        let Some(f) = filter else { return Ok(CredentialCriteria::default()) };
        let named = |field, value| Ok::<_, Refusal>(request_checks::filter(field, value)?.map(str::to_owned));
        let state = match pb::CredentialState::try_from(f.state) {
            Ok(pb::CredentialState::Unspecified) => None,
            Ok(state) => Some(state),
            Err(_) => return Err(Refusal::field("filter.state", format!("{} is no state that this version knows", f.state))),
        };
        let covered_by = f.covered_by.as_ref().map(|t| wire::target_from_pb("filter.covered_by", t)).transpose()?;
        Ok(CredentialCriteria {
            caller: named("filter.caller", &f.caller)?,
            task: match &*f.task_id {
                "" => None,
                id => Some(exchange_request::id("filter.task_id", id)?),
            },
            upstream: named("filter.upstream", &f.upstream)?,
            environment: named("filter.environment", &f.environment)?,
            kind: exchange_request::kind("filter.kind", f.kind)?.map(|k| k.tag()),
            state,
            covered_by: covered_by.map(|target| {
                // As if the target were revoked after everything else: the rule covers every matching credential.
                let mut rules = Rules::default();
                let last = Seq::LAST;
                rules.add(&target, Some(last), None, Millis(u64::MAX));
                rules
            }),
            sees: None,
        })
    }

    /// Restricts the filter to the environments that the operator may see.
    pub fn keep_to(&mut self, sees: Option<OperatorScope<admin::Observe>>) {
        self.sees = sees;
    }

    /// The environment to which the filter is restricted.
    pub fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }

    fn outside(&self, o: &CredentialAttributes<'_>) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
        is(&self.caller, o.caller)
            && is(&self.upstream, o.upstream)
            && is(&self.environment, o.environment)
            && self.sees.as_ref().is_none_or(|sees| sees.has(o.environment))
            && self.kind.is_none_or(|k| k == o.kind)
            && self.task.is_none_or(|t| o.path.contains(&t))
    }

    fn covered(&self, facts: &Facts<'_>) -> bool {
        self.covered_by.as_ref().is_none_or(|rules| rules.covers(facts).is_some())
    }

    /// Whether a credential in memory matches, regardless of its state.
    pub fn fits(&self, state: &State, live: &LiveCredential<'_>) -> bool {
        let Some(task) = state.tasks.at(live.task()) else { return false };
        let outside = CredentialAttributes {
            caller: live.caller(),
            upstream: live.upstream(),
            environment: live.environment(),
            kind: live.kind(),
            path: &task.terms.path,
        };
        self.outside(&outside) && (self.covered_by.is_none() || self.covered(&state.facts(live, task)))
    }

    /// Whether a person's login matches, regardless of its state.
    pub fn fits_login(&self, login: &Login) -> bool {
        let (caller, environment) = (&*login.caller, &*login.environment);
        let outside = CredentialAttributes { caller, upstream: "", environment, kind: Kind::X509.tag(), path: &[] };
        self.outside(&outside) && (self.covered_by.is_none() || self.covered(&login.facts()))
    }

    /// Whether a credential known by its record matches, regardless of its state.
    pub fn fits_record(&self, issued: &CredentialIssued, revision: Seq, path: &[TaskId]) -> bool {
        let outside = CredentialAttributes {
            caller: &issued.caller,
            upstream: &issued.upstream,
            environment: &issued.environment,
            kind: u8::try_from(issued.kind).unwrap_or(0),
            path,
        };
        self.outside(&outside) && (self.covered_by.is_none() || self.covered(&facts_of_record(issued, revision, path)))
    }

    /// Whether a list includes credentials of this state: active and held ones, unless the filter names a state.
    pub fn lists(&self, state: pb::CredentialState) -> bool {
        match self.state {
            Some(wanted) => wanted == state,
            None => matches!(state, pb::CredentialState::Active | pb::CredentialState::Held),
        }
    }

    /// Whether a watcher gets events of this state: of every state, unless the filter names one.
    pub fn tells(&self, state: i32) -> bool {
        self.state.is_none_or(|wanted| wanted as i32 == state)
    }
}
