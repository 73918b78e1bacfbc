//! Changes of bindings by operators: a narrower version takes effect at once and revokes what it no longer covers; a new or wider binding
//! takes effect when another operator approves it.

use std::sync::Arc;

use crate::authority::Authority;
use crate::registry::changes::{ApprovalRequest, ChangePermission};
use crate::revocation::revoke::RevocationHits;
use crate::revocation::revoke_excess::{
    CausedRevocation, ChangeEffect, ChangeOptions, ExcessJudge, ExcessSearch, ExcessVerdict, NarrowingChange,
};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::record::{Author, BindingUpdated, Event, NarrowedKind, ProposedChange, ProposedChangeRecord as Recorded};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::DocumentVersion;
use mayfly_ledger::upstream::binding::Binding;
use mayfly_policy::admin;
use mayfly_verify::seq::Seq;

/// The result of changing a binding, or of a dry run.
#[derive(Clone, Debug)]
pub struct BindingChangeResult {
    /// The binding.
    pub binding: Arc<Binding>,
    /// The version in effect; for a dry run, the version that would be.
    pub version: u64,
    /// The record; `None` for a dry run.
    pub seq: Option<Seq>,
    /// The counts of the objects that the change revoked, or for a dry run would revoke.
    pub hits: RevocationHits,
    /// How many of the revoked credentials the new version would still cover.
    pub beyond: u64,
    /// The change needs a second operator.
    pub wider: bool,
}

const REASON: &str = "the binding was narrowed";

fn coarse(name: &str) -> Target {
    Target::Binding(name.into())
}

fn read(version: &DocumentVersion) -> Result<Binding, Fault> {
    Binding::from_text(&version.text).map_err(|e| Fault::new(format!("a binding in the ledger: {e}")))
}

impl Authority {
    /// Adds or replaces a binding. `before` is the version that the operator read; 0 for none.
    pub async fn set_binding(
        &self,
        operator: &Operator,
        new: Binding,
        before: u64,
        reason: &str,
        terms: &ChangeOptions,
    ) -> Result<BindingChangeResult, Error> {
        let environment = self.environment_of_binding(operator, &new)?;
        let may = self.may_change_alone::<admin::ManageUpstreams>(operator, ("binding", &new.name), Some(&environment))?;
        let _one = self.changing.lock().await;
        let now = self.ledger.settled(|s| s.bindings.get(new.name.as_str()).cloned()).await?;
        if let Some(done) = self.remembered(&may.who().name(), &terms.named).await? {
            let hits = self.hit_before(&done, &terms.named).await?;
            let (version, seq) = now.as_ref().map_or((0, None), |v| (v.version, Some(v.seq)));
            return Ok(BindingChangeResult { binding: Arc::new(new), version, seq, hits, beyond: 0, wider: false });
        }
        let version = now.as_ref().map_or(0, |v| v.version);
        if let (Some(now), 0) = (&now, before) {
            let (name, taken_away) = (&new.name, read(now)?.scopes.is_empty());
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
        let old = now.as_deref().map(read).transpose()?;
        if let Some(old) = old.as_ref().filter(|old| old.upstream != new.upstream) {
            let what = format!("is {}, and {} is for {}, for good: add another one", new.upstream, old.name, old.upstream);
            return Err(Refusal::field("binding.upstream", what).into());
        }
        if let (Some(v), true) = (&now, old.as_ref() == Some(&new)) {
            let (version, seq) = (v.version, Some(v.seq));
            let hits = RevocationHits::default();
            return Ok(BindingChangeResult { binding: Arc::new(new), version, seq, hits, beyond: 0, wider: false });
        }
        let wider = !new.within(&old.clone().unwrap_or_else(|| new.empty()));
        let alone = match may {
            ChangePermission::Yes(who) if !wider => ChangePermission::Yes(who),
            ChangePermission::Yes(who) | ChangePermission::With(who) => self.with_another(operator, who)?,
        };
        let (who, new) = (alone.who().clone(), Arc::new(new));
        let set = BindingUpdated {
            name: new.name.clone(),
            version: version + 1,
            digest: new.digest().to_vec(),
            text: new.to_text(),
            pending: false,
            looked: 0,
        };
        let event = |looked: Seq| Event::BindingSet(BindingUpdated { looked: looked.as_u64(), ..set.clone() });
        let takes = self.binding_takes(old.is_some(), &new);
        let coarse = coarse(&new.name);
        let change = NarrowingChange { who: &who, event: &event, version: set.version, takes, coarse, reason: REASON };
        if let (ChangePermission::With(_), false) = (&alone, terms.dry_run) {
            let asked = Recorded { to: Some(ProposedChange::Binding(set.clone())) };
            let why = if wider { vec![format!("binding {}", new.name)] } else { Vec::new() };
            let asking = ApprovalRequest { environment: &environment, reason, why };
            return Err(self.ask_another(change, asked, asking, terms).await);
        }
        let ChangeEffect { hits, beyond } = self.put_in_force(change, terms).await?;
        let in_force = self.ledger.settled(|s| s.bindings.get(new.name.as_str()).map(|v| v.seq)).await?;
        let seq = in_force.filter(|_| !terms.dry_run);
        Ok(BindingChangeResult { binding: new, version: set.version, seq, hits, beyond, wider })
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

    /// The revocation that a new version of a binding causes: of the credentials under the binding that the new version does not cover.
    pub(crate) fn binding_takes(&self, was_there: bool, new: &Arc<Binding>) -> CausedRevocation {
        match was_there {
            true => CausedRevocation::Found(look_of(new.clone()), Vec::new()),
            false => CausedRevocation::Nothing,
        }
    }

    /// The revocation that a requested change causes, with the version and the target that covers the whole binding.
    pub(crate) async fn asked_binding_takes(&self, set: &BindingUpdated) -> Result<(u64, CausedRevocation, Target), Error> {
        let new = Binding::from_text(&set.text).map_err(|e| Fault::new(format!("a binding that was asked for: {e}")))?;
        let was_there = self.ledger.settled(|s| s.bindings.contains_key(set.name.as_str())).await?;
        Ok((set.version, self.binding_takes(was_there, &Arc::new(new)), coarse(&set.name)))
    }

    /// Completes the narrowing of a binding that a stop interrupted.
    pub(crate) async fn finish_binding(&self, name: &str) -> Result<(), Error> {
        let _one = self.changing.lock().await;
        let Some(version) = self.ledger.settled(|s| s.bindings.get(name).cloned()).await? else { return Ok(()) };
        let Some(since) = version.narrows else { return Ok(()) };
        let look = ExcessSearch { since, ..look_of(Arc::new(read(&version)?)) };
        let who = Author::Mayfly("narrowing goes on".to_owned());
        self.finish_narrowing(look, version.version, &who, coarse(name), REASON).await?;
        Ok(())
    }

    /// All bindings by name, with their versions.
    pub async fn bindings(&self) -> Result<Vec<(Binding, Arc<DocumentVersion>)>, Error> {
        let all = self.ledger.settled(|s| s.bindings.values().cloned().collect::<Vec<_>>()).await?;
        Ok(all.into_iter().map(|version| read(&version).map(|b| (b, version))).collect::<Result<_, Fault>>()?)
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

fn look_of(new: Arc<Binding>) -> ExcessSearch {
    let name = new.name.as_str().into();
    let judge: ExcessJudge = Arc::new(move |held, _| {
        let caller = mayfly_identity::spiffe_id::SpiffeId::parse(&held.caller);
        let scopes = || held.scopes.iter().map(|s| &**s);
        let covered = caller.is_ok_and(|caller| new.covers(&caller, &held.tool, scopes()));
        if covered { ExcessVerdict::Stays } else { ExcessVerdict::Goes }
    });
    ExcessSearch { among: NarrowedKind::Binding, name, since: Seq::ZERO, records: false, judge }
}
