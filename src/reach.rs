//! How far a revocation has come with what it hit: refused here, undone at upstreams, looked at there.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::authority::Authority;
use crate::ledger::look::Look;
use crate::ledger::record::{Event, Issued, LeaseClosed, LeaseEnd, Sort, about};
use crate::ledger::search::Filter;
use crate::ledger::state::State;
use crate::limits;
use crate::refusal::No;
use crate::revocation::{Facts, Rules, Target};
use crate::seq::{LeaseId, Millis, Seq, TaskId};

/// How far a revocation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Credentials that it refuses now. What has ended by its time is refused by that.
    pub refused: u64,
    /// Things made at upstreams that are not undone yet.
    pub pending: u64,
    /// Undone, as the upstream said.
    pub undone: u64,
    /// Undone, and looked at afterwards.
    pub verified: u64,
}

/// One revocation: what it covers and nothing before it did.
struct Of {
    seq: Seq,
    rules: Rules,
}

impl Of {
    fn new(seq: Seq, targets: &[Target]) -> Of {
        let mut rules = Rules::default();
        targets.iter().for_each(|target| rules.add(target, Some(seq), None, Millis(u64::MAX)));
        Of { seq, rules }
    }

    fn hit(&self, state: &State, facts: &Facts<'_>) -> bool {
        self.rules.covers(facts).is_some() && state.rules.covers_before(facts, self.seq).is_none()
    }

    /// Counts credentials in memory from a place on, a bounded number of them. Answers whether there are more.
    fn count(&self, state: &State, at: &mut u32, now: Millis, refused: &mut u64) -> bool {
        let places = state.credentials.places();
        let end = at.saturating_add(limits::LIST_WALK as u32).min(places);
        let live = (*at..end).filter_map(|slot| state.credentials.at(slot)).filter(|live| live.expires_at() > now);
        let hit = live.filter(|live| {
            let Some(task) = state.tasks.at(live.task()) else { return false };
            let over = state.tasks.upwards(task).any(|t| t.closed.as_ref().is_some_and(|c| c.seq < self.seq));
            !over && self.hit(state, &state.facts(live, task))
        });
        *refused += hit.count() as u64;
        *at = end;
        end < places
    }

    /// Whether it hit what a record of the past issued.
    fn hit_then(&self, state: &State, issued: &Issued, revision: Seq) -> bool {
        let task = TaskId::from_slice(&issued.task).and_then(|id| state.tasks.get(&id));
        let path = task.map_or(&[][..], |t| &t.terms.path);
        self.hit(state, &state.facts_of_record(issued, revision, path))
    }
}

/// What history says of things that were made at upstreams and can have been live when the revocation came.
struct Upstream {
    of: Of,
    /// When the revocation came.
    came: Millis,
    closed: HashMap<LeaseId, (LeaseEnd, Seq)>,
    reach: Reach,
}

impl Upstream {
    /// Looks at all leases that were closed and then at all that was issued with a lease, in the time in which that can have been live. False where
    /// not all of it is kept, or was seen.
    fn look(&mut self, look: &Look) -> Result<bool, No> {
        let since = Millis(self.came.0.saturating_sub(limits::CREDENTIAL_TTL_MS + limits::CLOCK_SKEW_MS));
        let in_time = |sort, name: &str| [Filter { since: Some(since), ..Filter::named(Some(sort), name.to_owned()) }];
        // Nothing is kept of a record but what is counted here.
        let this = RefCell::new(self);
        look.newest(&in_time(Sort::Event, "lease closed"), 1, |past| {
            if let Some(Event::LeaseClosed(LeaseClosed { lease, end, .. })) = &past.record.event
                && let (Some(lease), Ok(end)) = (LeaseId::from_slice(lease), LeaseEnd::try_from(*end))
            {
                this.borrow_mut().closed.insert(lease, (end, past.seq));
            }
            false
        })?;
        look.newest(&in_time(Sort::About, about::LEASED), 1, |past| {
            let mut this = this.borrow_mut();
            if let Some(Event::Issued(issued)) = &past.record.event
                && let Some(lease) = LeaseId::from_slice(&issued.lease)
                && Millis(issued.expires_at) > this.came
                && look.peek(|state| this.of.hit_then(state, issued, past.record.revision()))
            {
                let closed = this.closed.get(&lease).copied();
                this.tell(closed);
            }
            false
        })?;
        Ok(look.unseen().is_none() && look.peek(|state| state.removed.before <= 1 || state.removed.time < since))
    }

    fn tell(&mut self, closed: Option<(LeaseEnd, Seq)>) {
        match closed {
            None => self.reach.pending += 1,
            // Gone before it came, or given up: no longer ours to undo.
            Some((_, seq)) if seq < self.of.seq => {}
            Some((LeaseEnd::Abandoned | LeaseEnd::Unspecified, _)) => {}
            // A lease is closed only when its upstream was asked again whether it is gone.
            Some((LeaseEnd::Undone | LeaseEnd::NeverMade, _)) => {
                self.reach.undone += 1;
                self.reach.verified += 1;
            }
        }
    }
}

impl Authority {
    /// How far the revocation at `seq` with these targets has come. `None` where history does not reach back to all that it may have hit
    /// at upstreams.
    pub async fn reach(&self, seq: Seq, targets: &[Target]) -> Result<Option<Reach>, No> {
        let (of, now) = (Of::new(seq, targets), self.system.wall());
        let (mut refused, mut at) = (0, 0);
        while self.ledger.settled(|state| of.count(state, &mut at, now, &mut refused)).await? {
            tokio::task::yield_now().await;
        }
        if !self.leases.any_kind() && self.ledger.peek(|state| state.leases.is_empty()) {
            return Ok(Some(Reach { refused, ..Reach::default() }));
        }
        let Some(made) = self.made([seq]).await.remove(&seq) else { return Ok(None) };
        let upstream = Upstream { of, came: made.at, closed: HashMap::new(), reach: Reach::default() };
        let (found, whole) = self
            .question(move |look| {
                let mut upstream = upstream;
                let whole = upstream.look(look)?;
                Ok((upstream.reach, whole))
            })
            .await?;
        Ok(whole.then_some(Reach { refused, ..found }))
    }
}
