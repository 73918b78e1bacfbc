//! Counts what a revocation covers, or would cover: visits all live credentials in pieces, so that issuing goes on.

use std::collections::BTreeSet;

use super::blast_radius::RevocationRadius;
use crate::authority::Authority;
use crate::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_credential::CredentialKind;
use mayfly_ledger::record::HoldRank;
use mayfly_ledger::revocation::{Facts, Rules, Target};
use mayfly_ledger::state::{LiveCredential, State, Task};
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

/// The number of credentials, tasks and callers that a revocation covers, or would cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevocationHits {
    /// Live credentials.
    pub credentials: u64,
    /// Open tasks that hold one of these credentials, or that end.
    pub tasks: u64,
    /// Of these tasks, those that end: nothing is granted in them any more.
    pub tasks_ended: u64,
    /// Number of different callers of those credentials.
    pub callers: u64,
    /// The number of these credentials that have a lease at an upstream.
    pub at_upstreams: u64,
}

impl Authority {
    /// The number of credentials and tasks that end with a task, if the actor may end the task. For an operator the number is always
    /// counted. For a workload the number is counted only if one piece suffices: otherwise counting would cost a thousand times as much as
    /// ending the task, as often as the workload likes.
    pub async fn ends_with(&self, actor: &Actor, id: TaskId) -> Result<Option<RevocationHits>, Error> {
        let (_, rank) = self.may_steer(actor, id)?;
        let few = |s: &State| s.tasks.places() as usize + s.credentials.to_walk() <= limits::LIST_WALK;
        if rank == HoldRank::Caller && !self.ledger.peek(few) {
            return Ok(None);
        }
        Ok(Some(self.hits(&[Target::Task(id)]).await?.0))
    }

    /// The hits of the given targets, in all and for each target. Visits the live credentials in pieces, so that issuing goes on.
    pub async fn hits(&self, targets: &[Target]) -> Result<(RevocationHits, Vec<RevocationHits>), Error> {
        self.counted(HitCounter::ahead(targets)).await
    }

    pub(super) async fn counted(&self, count: HitCounter) -> Result<(RevocationHits, Vec<RevocationHits>), Error> {
        Ok(self.walked(count).await?.done())
    }

    pub(super) async fn walked(&self, mut count: HitCounter) -> Result<HitCounter, Error> {
        let now = self.system.wall();
        self.ledger.settled(|state| count.logins(state, now)).await?;
        // Revoking one of a million credentials must not visit all of them.
        if self.ledger.settled(|state| count.find(state, now)).await? {
            return Ok(count);
        }
        let mut at = (0, 0);
        while self.ledger.settled(|state| count.walk(state, &mut at, now)).await? {
            tokio::task::yield_now().await;
        }
        Ok(count)
    }
}

/// One target as a rule, and what it covers.
struct TargetCount {
    rules: Rules,
    hits: RevocationHits,
    names: Names,
}

/// The names of what is covered, so that each is counted once.
#[derive(Default)]
struct Names {
    tasks: BTreeSet<TaskId>,
    ended: BTreeSet<TaskId>,
    callers: BTreeSet<Box<str>>,
}

impl Names {
    fn count(&self, hits: RevocationHits) -> RevocationHits {
        let tasks = self.tasks.union(&self.ended).count() as u64;
        RevocationHits { tasks, tasks_ended: self.ended.len() as u64, callers: self.callers.len() as u64, ..hits }
    }
}

/// Counts what each target covers, by the same rules that a verifier applies.
pub(super) struct HitCounter {
    each: Vec<TargetCount>,
    all: RevocationHits,
    names: Names,
    /// The seq of the revocation, if it was made already.
    made: Seq,
    /// The rules in effect for its targets before it.
    before: Rules,
    /// The targets, if all of them are credentials.
    credentials: Option<BTreeSet<CredentialId>>,
    /// The covered names, if they were asked for.
    radius: Option<RevocationRadius>,
}

impl HitCounter {
    /// Counts what these targets would cover.
    pub(super) fn ahead(targets: &[Target]) -> HitCounter {
        HitCounter::new(targets, Seq::LAST, Rules::default())
    }

    /// Also collects the covered names.
    pub(super) fn with_radius(self) -> HitCounter {
        HitCounter { radius: Some(RevocationRadius::default()), ..self }
    }

    /// The counts in all and by name.
    pub(super) fn radius(mut self) -> (RevocationHits, RevocationRadius) {
        let radius = self.radius.take().unwrap_or_default();
        (self.done().0, radius)
    }

    /// Counts what a revocation at `made` covered: everything decided before it, however late that was committed.
    pub(super) fn since(targets: &[Target], made: Seq, before: Rules) -> HitCounter {
        HitCounter::new(targets, made, before)
    }

    fn new(targets: &[Target], made: Seq, before: Rules) -> HitCounter {
        let each = targets.iter().map(|t| {
            let mut rules = Rules::default();
            rules.add(t, Some(made), None, Millis(u64::MAX));
            TargetCount { rules, hits: RevocationHits::default(), names: Names::default() }
        });
        let credential = |target: &Target| match target {
            Target::Credential(id) => Some(*id),
            _ => None,
        };
        HitCounter {
            each: each.collect(),
            all: RevocationHits::default(),
            names: Names::default(),
            made,
            before,
            credentials: targets.iter().map(credential).collect(),
            radius: None,
        }
    }

    /// Counts credentials that are named by their ids, if none of them has descendants. Returns whether the count is complete.
    fn find(&mut self, state: &State, now: Millis) -> bool {
        let Some(ids) = self.credentials.take() else { return false };
        let descended = ids.iter().any(|id| state.descent.contains_key(id));
        if descended || state.credentials.any_rests_on(&ids) != Some(false) {
            return false;
        }
        for live in ids.iter().filter_map(|id| state.credentials.get(id)) {
            self.look(state, &live, now);
        }
        true
    }

    /// Whether a task was alive at the revocation, or is alive now if none was made.
    fn was_alive(&self, state: &State, task: &Task, now: Millis) -> bool {
        let over = |t: &Task| t.closed.as_ref().is_some_and(|c| c.seq < self.made) || now >= t.ends();
        !state.tasks.upwards(task).any(over)
    }

    /// Whether another rule covers the facts, or covered them before.
    fn was_covered(&self, state: &State, facts: &Facts<'_>) -> bool {
        state.rules.covers_before(facts, self.made).is_some() || self.before.covers(facts).is_some()
    }

    /// Visits a bounded number of slots, tasks first. Returns whether there are more.
    fn walk(&mut self, state: &State, (task, credential): &mut (u32, u32), now: Millis) -> bool {
        let end = |at: u32, places: u32| at.saturating_add(limits::LIST_WALK as u32).min(places);
        if *task < state.tasks.places() {
            let end = end(*task, state.tasks.places());
            for open in (*task..end).filter_map(|slot| state.tasks.at(slot)) {
                self.open_task(state, open, now);
            }
            *task = end;
            return true;
        }
        let end = end(*credential, state.credentials.places());
        for live in (*credential..end).filter_map(|slot| state.credentials.at(slot)) {
            self.look(state, &live, now);
        }
        *credential = end;
        end < state.credentials.places()
    }

    /// Logins of people are credentials, too, and belong to no task.
    fn logins(&mut self, state: &State, now: Millis) {
        for login in state.logins.values().filter(|l| l.ended_at.is_none() && l.expires_at > now) {
            let facts = login.facts();
            if self.was_covered(state, &facts) {
                continue;
            }
            let mut hit = false;
            for one in self.each.iter_mut().filter(|one| one.rules.covers(&facts).is_some()) {
                hit = true;
                one.hits.credentials += 1;
                one.names.callers.insert(login.caller.clone());
            }
            if hit {
                self.all.credentials += 1;
                self.names.callers.insert(login.caller.clone());
            }
        }
    }

    fn look(&mut self, state: &State, live: &LiveCredential<'_>, now: Millis) {
        let Some(task) = state.tasks.at(live.task()) else { return };
        if live.released() || live.expires_at() <= now || !self.was_alive(state, task, now) {
            return;
        }
        let facts = state.facts(live, task);
        if self.was_covered(state, &facts) {
            return;
        }
        let at_upstreams = u64::from(CredentialKind::from_number(live.kind().into()).is_some_and(|kind| !kind.made_locally()));
        let mut hit = false;
        for one in self.each.iter_mut().filter(|one| one.rules.covers(&facts).is_some()) {
            hit = true;
            one.hits.credentials += 1;
            one.hits.at_upstreams += at_upstreams;
            one.names.tasks.insert(task.terms.id);
            one.names.callers.insert(live.caller().into());
        }
        if hit {
            self.all.credentials += 1;
            self.all.at_upstreams += at_upstreams;
            self.names.tasks.insert(task.terms.id);
            self.names.callers.insert(live.caller().into());
            if let Some(radius) = &mut self.radius {
                radius.add(live, task);
            }
        }
    }

    /// An open task ends, with or without credentials, if a target covers its opening or that of a task above it.
    fn open_task(&mut self, state: &State, task: &Task, now: Millis) {
        if !self.was_alive(state, task, now) {
            return;
        }
        let openings: Vec<Facts<'_>> = state.openings(task);
        if openings.iter().any(|facts| self.was_covered(state, facts)) {
            return;
        }
        for one in &mut self.each {
            if openings.iter().any(|facts| one.rules.covers(facts).is_some()) {
                one.names.ended.insert(task.terms.id);
                self.names.ended.insert(task.terms.id);
            }
        }
    }

    fn done(self) -> (RevocationHits, Vec<RevocationHits>) {
        let each = self.each.iter().map(|one| one.names.count(one.hits));
        (self.names.count(self.all), each.collect())
    }
}
