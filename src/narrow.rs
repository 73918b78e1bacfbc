//! Narrowing revokes: what was issued and would be refused by what comes into force is found by deciding about it once more.
//!
//! It is looked for before the change, so that its number can be shown and what is found is revoked in the change's own group. What is issued
//! between the look and the change is looked for after it, before anybody is answered: from the change on, a decision with the version before
//! is void. A start goes on where that was cut short.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::authority::Authority;
use crate::ledger::Lane;
use crate::ledger::record::{Event, Narrowed, Narrowing, Record, Revoked, Who};
use crate::ledger::state::{Remembered, State};
use crate::limits;
use crate::policy::decide::Held;
use crate::refusal::{Fault, No};
use crate::revocation::{Rules, Target};
use crate::revoke::Hits;
use crate::seq::{CredentialId, Millis, Seq};
use crate::store::Position;
use crate::tasks::Named;

/// What becomes of something that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It may stay.
    Stays,
    /// It would be refused, and one of the change's own targets covers it.
    Covered,
    /// It would be refused.
    Goes,
}

/// The verdict about one.
pub(crate) type Judge = Arc<dyn Fn(&Held, Millis) -> Fate + Send + Sync>;

/// What is looked at.
#[derive(Clone)]
pub(crate) struct Look {
    /// Live credentials of this upstream, binding, or environment.
    pub among: Narrowing,
    /// Its name.
    pub name: Box<str>,
    /// Only what was issued after it.
    pub since: Seq,
    /// Deciding needs what only records know.
    pub records: bool,
    /// The verdict.
    pub judge: Judge,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// How many would be refused.
    pub count: u64,
    /// Those of them that no target of the change covers.
    uncovered: u64,
    /// The first of these: at most as many as a revocation has targets.
    ids: Vec<CredentialId>,
    /// All were looked at.
    whole: bool,
    /// Everything up to this seq was looked at.
    pub looked: Seq,
}

impl Found {
    /// Targets that cover what was found beside what `others` cover: one by one, or all by `coarse`, which covers the others, too.
    pub fn targets(&self, others: Vec<Target>, coarse: Target) -> Vec<Target> {
        if self.whole && self.uncovered == self.ids.len() as u64 && others.len() + self.ids.len() <= limits::TARGETS {
            return others.into_iter().chain(self.ids.iter().map(|id| Target::Credential(*id))).collect();
        }
        vec![coarse]
    }
}

impl Authority {
    /// Looks for live credentials that may not stay, in pieces, so that issuing goes on.
    pub(crate) async fn look_for(&self, look: &Look) -> Result<Found, No> {
        let began = self.system.steady();
        let looked = self.ledger.settled(|s| s.head).await?;
        let mut found = Found { count: 0, uncovered: 0, ids: Vec::new(), whole: true, looked };
        let mut at = 0;
        loop {
            let now = self.system.wall();
            let (piece, more) = self.ledger.settled(|state| piece(state, look, &mut at, now)).await?;
            let piece = if look.records { self.with_records(piece)? } else { piece };
            let judge = look.judge.clone();
            let judged = move || piece.iter().map(|held| (held.id, judge(held, now))).collect::<Vec<_>>();
            let judged = tokio::task::spawn_blocking(judged).await;
            let judged = judged.map_err(|e| Fault::new(format!("deciding again: {e}")))?;
            found.count += judged.iter().filter(|(_, fate)| *fate != Fate::Stays).count() as u64;
            let goes: Vec<CredentialId> = judged.iter().filter(|(_, fate)| *fate == Fate::Goes).map(|(id, _)| *id).collect();
            found.uncovered += goes.len() as u64;
            let room = limits::TARGETS.saturating_sub(found.ids.len());
            found.ids.extend(goes.into_iter().take(room));
            if !more {
                return Ok(found);
            }
            if self.system.steady().saturating_sub(began) > limits::NARROWING_LOOK_MS {
                found.whole = false;
                return Ok(found);
            }
        }
    }

    /// What only records know, each commit read once.
    fn with_records(&self, mut piece: Vec<Held>) -> Result<Vec<Held>, No> {
        let mut commits: BTreeMap<Position, Vec<usize>> = BTreeMap::new();
        for (n, held) in piece.iter().enumerate() {
            commits.entry(held.at).or_default().push(n);
        }
        for (at, numbers) in commits {
            let records = self.ledger.records_at(at)?;
            for n in numbers {
                let Some(held) = piece.get_mut(n) else { continue };
                let own = records.iter().find_map(|r| match &r.event {
                    Some(Event::Issued(e)) if e.credential == held.id.as_bytes() => Some(e),
                    _ => None,
                });
                held.with_record(
                    own.ok_or_else(|| Fault::new(format!("commit {at} does not hold the issuance of {}", held.id)))?,
                );
            }
        }
        Ok(piece)
    }

    /// The records of a change that takes back: the change first, which answers for its request.
    pub(crate) fn narrowing(&self, change: Record, who: &Who, targets: &[Target], reason: &str) -> Vec<Record> {
        let rules = targets.chunks(limits::TARGETS).map(|some| self.takes_back(who, some, reason, true));
        std::iter::once(change).chain(rules).collect()
    }

    /// A record that revokes.
    pub(crate) fn takes_back(&self, who: &Who, targets: &[Target], reason: &str, issued_only: bool) -> Record {
        let revoked = Revoked {
            targets: targets.iter().map(Target::to_record).collect(),
            issued_only,
            reason: reason.to_owned(),
            keep_until: Rules::keep_until(self.system.wall()).0,
            ..Revoked::default()
        };
        Record::new(who.clone(), Event::Revoked(revoked))
    }

    /// What a change hit that was made before, by its first record's place: counted again.
    pub(crate) async fn hit_before(&self, before: &Remembered, named: &Named) -> Result<Hits, No> {
        let Some((id, _)) = named else { return Ok(Hits::default()) };
        let records = self.ledger.records_at(before.at)?;
        let own = records.iter().position(|r| r.request.as_ref().is_some_and(|r| r.id == *id));
        let of_group = |first: usize| records.get(first..)?.split_first();
        let Some((change, rest)) = own.and_then(of_group) else { return Ok(Hits::default()) };
        let mut targets = Vec::new();
        for record in rest.iter().take_while(|r| r.group > 0 && r.group == change.group) {
            let Some(Event::Revoked(e)) = &record.event else { continue };
            targets.extend(e.targets.iter().filter_map(|t| Target::from_record(t).ok()));
        }
        match (targets.is_empty(), before.seq.next()) {
            (false, Some(made)) => self.hit_since(&targets, made).await,
            _ => Ok(Hits::default()),
        }
    }

    /// Looks once more, for what was issued after the first look, and says in the ledger that all is done.
    pub(crate) async fn finish_narrowing(
        &self,
        look: Look,
        version: u64,
        who: &Who,
        coarse: Target,
        reason: &str,
    ) -> Result<Hits, No> {
        let found = self.look_for(&look).await?;
        let done = Narrowed { what: look.among as i32, name: look.name.to_string(), version };
        let done = Record::new(who.clone(), Event::Narrowed(done));
        if found.uncovered == 0 && found.whole {
            self.ledger.commit(Lane::Change, vec![done]).await?;
            return Ok(Hits::default());
        }
        let targets = found.targets(Vec::new(), coarse);
        let (hits, _) = self.hits(&targets).await?;
        self.ledger.commit(Lane::Revoke, self.narrowing(done, who, &targets, reason)).await?;
        Ok(hits)
    }
}

/// The next few places, as far as they concern the look. Whether there are more.
fn piece(state: &State, look: &Look, at: &mut u32, now: Millis) -> (Vec<Held>, bool) {
    let places = state.credentials.places();
    let end = at.saturating_add(limits::LIST_WALK as u32).min(places);
    let live = (*at..end).filter_map(|slot| state.credentials.at(slot));
    let among = live.filter(|live| {
        let name = match look.among {
            Narrowing::Policy => live.environment(),
            Narrowing::Upstream => live.upstream(),
            Narrowing::Binding => live.binding(),
            Narrowing::Unspecified => return false,
        };
        *name == *look.name && live.seq() > look.since
    });
    let alive = among.filter(|live| state.evidence_alive(&live.id(), now).is_ok());
    let held = alive.filter_map(|live| state.tasks.at(live.task()).map(|task| Held::of(state, &live, task))).collect();
    *at = end;
    (held, end < places)
}
