//! How far a revocation has come with what it hit: refused here, undone at upstreams, looked at there.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::authority::Authority;
use crate::ledger::Ledger;
use crate::ledger::history::{Past, Reached};
use crate::ledger::record::{Event, Issued, LeaseClosed, LeaseEnd};
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

/// What history says of things that were made at upstreams, from its end back to what can have been live when the revocation came.
struct Upstream {
    of: Of,
    /// When the revocation came.
    came: Millis,
    closed: HashMap<LeaseId, (LeaseEnd, Seq)>,
    reach: Reach,
}

impl Upstream {
    fn look(&mut self, ledger: &Ledger, past: Past) -> ControlFlow<()> {
        if past.at.plus(limits::CREDENTIAL_TTL_MS + limits::CLOCK_SKEW_MS) < self.came {
            return ControlFlow::Break(());
        }
        match &past.record.event {
            Some(Event::LeaseClosed(LeaseClosed { lease, end, .. })) => {
                if let (Some(lease), Ok(end)) = (LeaseId::from_slice(lease), LeaseEnd::try_from(*end)) {
                    self.closed.insert(lease, (end, past.seq));
                }
            }
            Some(Event::Issued(issued)) => {
                if let Some(lease) = LeaseId::from_slice(&issued.lease)
                    && Millis(issued.expires_at) > self.came
                    && ledger.peek(|state| self.of.hit_then(state, issued, past.record.revision()))
                {
                    self.tell(self.closed.get(&lease).copied());
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
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
        let ledger = self.ledger.clone();
        let (found, reached) = self.look_back(upstream, move |upstream, past| upstream.look(&ledger, past)).await?;
        match reached {
            Reached::Enough | Reached::Beginning => Ok(Some(Reach { refused, ..found.reach })),
            Reached::Bound(_) | Reached::Removed(_) => Ok(None),
        }
    }
}
