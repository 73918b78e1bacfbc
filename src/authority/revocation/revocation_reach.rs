//! The progress of a revocation: credentials refused by mayfly, objects removed at upstreams, and removals verified there.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_ledger::reader::history_query::HistoryQuery;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{CredentialIssued, Event, LeaseClosed, LeaseEnd, NameKind, main_objects};
use mayfly_ledger::revocation::{Facts, Rules, Target};
use mayfly_ledger::state::State;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::{LeaseId, Millis, Seq, TaskId};

/// The progress of a revocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevocationProgress {
    /// The credentials that the revocation refuses now, without those that have expired.
    pub refused: u64,
    /// Objects at upstreams that are not removed yet.
    pub pending: u64,
    /// Objects removed, according to the upstream.
    pub undone: u64,
    /// Objects removed and verified afterwards.
    pub verified: u64,
}

/// One revocation: what it covers and no earlier rule covered.
struct RevocationCover {
    seq: Seq,
    rules: Rules,
}

impl RevocationCover {
    fn new(seq: Seq, targets: &[Target]) -> RevocationCover {
        let mut rules = Rules::default();
        targets.iter().for_each(|target| rules.add(target, Some(seq), None, Millis(u64::MAX)));
        RevocationCover { seq, rules }
    }

    fn hit(&self, state: &State, facts: &Facts<'_>) -> bool {
        self.rules.covers(facts).is_some() && state.rules.covers_before(facts, self.seq).is_none()
    }

    /// Counts a bounded number of credentials in memory, from a position on. Returns whether there are more.
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

    /// Whether the revocation hit a credential that a record in history issued.
    fn hit_then(&self, state: &State, issued: &CredentialIssued, revision: Seq) -> bool {
        let task = TaskId::from_slice(&issued.task).and_then(|id| state.tasks.get(&id));
        let path = task.map_or(&[][..], |t| &t.terms.path);
        self.hit(state, &state.facts_of_record(issued, revision, path))
    }
}

/// The objects at upstreams, according to history, that may have been live when the revocation was made.
struct UpstreamObjects {
    of: RevocationCover,
    /// The time of the revocation.
    came: Millis,
    closed: HashMap<LeaseId, (LeaseEnd, Seq)>,
    reach: RevocationProgress,
}

impl UpstreamObjects {
    /// Reads all closed leases and then all issuances with a lease, in the time in which they can have been live. `false` if part of that
    /// is not kept or was not read.
    fn look(&mut self, look: &HistoryQuery) -> Result<bool, Error> {
        let since = Millis(self.came.0.saturating_sub(limits::CREDENTIAL_TTL_MS + limits::CLOCK_SKEW_MS));
        let in_time =
            |sort, name: &str| [HistoryFilter { since: Some(since), ..HistoryFilter::named(Some(sort), name.to_owned()) }];
        // Only counters are kept of a record.
        let this = RefCell::new(self);
        look.newest(&in_time(NameKind::Event, "lease closed"), 1, |past| {
            if let Some(Event::LeaseClosed(LeaseClosed { lease, end, .. })) = &past.record.event
                && let (Some(lease), Ok(end)) = (LeaseId::from_slice(lease), LeaseEnd::try_from(*end))
            {
                this.borrow_mut().closed.insert(lease, (end, past.seq));
            }
            false
        })?;
        look.newest(&in_time(NameKind::About, main_objects::LEASED), 1, |past| {
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
            // The lease ended before the revocation, or was abandoned.
            Some((_, seq)) if seq < self.of.seq => {}
            Some((LeaseEnd::Abandoned | LeaseEnd::Unspecified, _)) => {}
            // A lease is closed only after the upstream confirmed that the object is gone.
            Some((LeaseEnd::Undone | LeaseEnd::NeverMade, _)) => {
                self.reach.undone += 1;
                self.reach.verified += 1;
            }
        }
    }
}

impl Authority {
    /// Whether a registration, also one that was retired, has a kind whose credentials the upstream makes.
    fn makes_at_upstreams(&self) -> bool {
        let versions: Vec<_> = self.ledger.peek(|state| state.upstreams.values().cloned().collect());
        let elsewhere = |upstream: Upstream| upstream.kinds.iter().any(|kind| !kind.served());
        versions.iter().any(|version| Upstream::from_text(&version.text).is_ok_and(elsewhere))
    }

    /// The progress of the revocation at `seq` with these targets. `None` if history does not reach back to everything that it may have hit
    /// at upstreams.
    pub async fn reach(&self, seq: Seq, targets: &[Target]) -> Result<Option<RevocationProgress>, Error> {
        let (of, now) = (RevocationCover::new(seq, targets), self.system.wall());
        let (mut refused, mut at) = (0, 0);
        while self.ledger.settled(|state| of.count(state, &mut at, now, &mut refused)).await? {
            tokio::task::yield_now().await;
        }
        // History is read only where something may have been made at an upstream.
        if self.ledger.peek(|state| state.leases.is_empty()) && !self.makes_at_upstreams() {
            return Ok(Some(RevocationProgress { refused, ..RevocationProgress::default() }));
        }
        let Some(made) = self.made([seq]).await.remove(&seq) else { return Ok(None) };
        let upstream = UpstreamObjects { of, came: made.at, closed: HashMap::new(), reach: RevocationProgress::default() };
        let (found, whole) = self
            .question(move |look| {
                let mut upstream = upstream;
                let whole = upstream.look(look)?;
                Ok((upstream.reach, whole))
            })
            .await?;
        Ok(whole.then_some(RevocationProgress { refused, ..found }))
    }
}
