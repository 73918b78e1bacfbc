//! Changes of bindings by operators: a narrower version takes effect at once and revokes what it no longer covers; a new or wider binding
//! takes effect when another operator approves it.

use std::sync::Arc;

use crate::authority::Authority;
use crate::registry::changes::ApprovalRequest;
use crate::registry::documents::{DocumentChangeResult, ManagedDocument};
use crate::revocation::revoke_excess::{CausedRevocation, ChangeOptions, ExcessJudge, ExcessSearch, ExcessVerdict};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::record::{BindingUpdated, DocumentTable, NarrowedKind};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::DocumentVersion;
use mayfly_ledger::upstream::binding::Binding;
use mayfly_policy::admin;
use mayfly_verify::seq::Seq;

/// The binding in a version of the ledger.
pub fn bound(version: &DocumentVersion) -> Result<Binding, Fault> {
    Binding::from_text(&version.text).map_err(|e| Fault::new(format!("a binding in the ledger: {e}")))
}

impl Authority {
    /// Adds or replaces a binding. `before` is the version that the operator read; 0 for none.
    pub async fn set_binding(
        &self,
        operator: &Operator,
        new: &Binding,
        before: u64,
        reason: &str,
        terms: &ChangeOptions,
    ) -> Result<DocumentChangeResult, Error> {
        let environment = self.environment_of_binding(operator, new)?;
        let may = self.may_change_alone::<admin::ManageUpstreams>(operator, ("binding", &new.name), Some(&environment))?;
        let _one = self.changing.lock().await;
        if let Some(done) = self.document_changed_before((DocumentTable::Bindings, &new.name), may.who(), terms).await? {
            return Ok(done);
        }
        let now = self.document(DocumentTable::Bindings, &new.name).await?;
        let version = now.as_ref().map_or(0, |v| v.version);
        if let (Some(now), 0) = (&now, before) {
            let (name, taken_away) = (&new.name, bound(now)?.scopes.is_empty());
            let what = match taken_away {
                true => format!("binding {name} was taken away with version {version}, and its name stays taken"),
                false => format!("binding {name} is in force as version {version}"),
            };
            let no = Refusal::new(Reason::AlreadyExists, what).by("names are unique");
            return Err(Error::Refusal(
                no.way_out("mayfly binding change FILE --reason TEXT puts another version in force; or choose another name"),
            ));
        }
        if version != before {
            let what = format!("version {version} of {} is the newest, the change was made from {before}", new.name);
            return Err(Error::Refusal(Refusal::new(Reason::DecidedOnOldState, what)));
        }
        let old = now.as_deref().map(bound).transpose()?;
        if let Some(old) = old.as_ref().filter(|old| old.upstream != new.upstream) {
            let what = format!("is {}, and {} is for {}, for good: add another one", new.upstream, old.name, old.upstream);
            return Err(Refusal::field("binding.upstream", what).into());
        }
        if let Some(now) = now.filter(|_| old.as_ref() == Some(new)) {
            return Ok(DocumentChangeResult::unchanged(now));
        }
        let wider = !new.within(&old.unwrap_or_else(|| new.empty()));
        let set = BindingUpdated {
            name: new.name.clone(),
            version: version + 1,
            digest: new.digest().to_vec(),
            text: new.to_text(),
            pending: false,
            looked: 0,
        };
        let permission = self.permission(operator, may, wider)?;
        let why = if wider { vec![format!("binding {}", new.name)] } else { Vec::new() };
        let asking = ApprovalRequest { environment: &environment, reason, why };
        self.change_document(set, permission, asking, terms, BindingUpdated::NARROWED).await
    }

    /// Checks that the objects that a binding names exist, and returns its environment, which is that of its upstream.
    fn environment_of_binding(&self, operator: &Operator, new: &Binding) -> Result<String, Error> {
        let compiled = self.catalog.now();
        let Some(registered) = compiled.upstream(&new.upstream) else {
            // An operator who may manage no upstreams must not learn which upstreams exist.
            self.scope::<admin::ManageUpstreams>(operator)?;
            let what = format!("there is no upstream {}", new.upstream);
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, what)));
        };
        let upstream = &registered.upstream;
        self.admit::<admin::Observe>(operator, Some(&upstream.environment))?;
        match new.scopes.iter().find(|scope| upstream.scope(scope).is_none()) {
            Some(scope) => {
                let known: Vec<&str> = upstream.scopes.iter().map(|s| s.name.as_str()).collect();
                let what = format!("{scope} is no scope of {}; it has {}", upstream.name, known.join(", "));
                Err(Refusal::field("binding.scopes", what).into())
            }
            None => Ok(upstream.environment.clone()),
        }
    }

    /// All bindings by name, with their versions.
    pub async fn bindings(&self) -> Result<Vec<(Binding, Arc<DocumentVersion>)>, Error> {
        let all = self.ledger.settled(|s| s.bindings.values().cloned().collect::<Vec<_>>()).await?;
        Ok(all.into_iter().map(|version| bound(&version).map(|b| (b, version))).collect::<Result<_, Fault>>()?)
    }

    /// Whether the policy of an environment reads bindings. If it does not, bindings have no effect there.
    pub fn bindings_are_read(&self, environment: &str) -> bool {
        use mayfly_policy::action::{Action, WorkloadAction};
        let compiled = self.catalog.now();
        let reads = |set: &mayfly_policy::PolicySet| {
            let reads = set.reads(Action::Work(WorkloadAction::Exchange));
            !reads.understood() || reads.paths().any(|(path, _)| path == "context.binding")
        };
        compiled.policy(environment).is_some_and(|policy| reads(&policy.set))
    }
}

impl ManagedDocument for BindingUpdated {
    const NARROWED: &'static str = "the binding was narrowed";

    fn coarse(name: &str, _: u64) -> Target {
        Target::Binding(name.into())
    }

    /// The credentials under the binding that the new version does not cover.
    async fn takes(&self, authority: &Authority) -> Result<CausedRevocation, Error> {
        let new = Binding::from_text(&self.text).map_err(|e| Fault::new(format!("a binding that was asked for: {e}")))?;
        Ok(match authority.document(DocumentTable::Bindings, &self.name).await? {
            Some(_) => CausedRevocation::Found(look_of(new), Vec::new()),
            None => CausedRevocation::Nothing,
        })
    }

    async fn search(_: &Authority, _: &str, version: &DocumentVersion) -> Result<ExcessSearch, Error> {
        Ok(look_of(bound(version)?))
    }
}

fn look_of(new: Binding) -> ExcessSearch {
    let name = new.name.as_str().into();
    let judge: ExcessJudge = Arc::new(move |held, _| {
        let caller = mayfly_identity::spiffe_id::SpiffeId::parse(&held.caller);
        let scopes = || held.scopes.iter().map(|s| &**s);
        let covered = caller.is_ok_and(|caller| new.covers(&caller, &held.tool, scopes()));
        if covered { ExcessVerdict::Stays } else { ExcessVerdict::Goes }
    });
    ExcessSearch { among: NarrowedKind::Binding, name, since: Seq::ZERO, records: false, judge }
}
