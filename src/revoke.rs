//! Revoking, as operators and holders do it: one record, whatever it hits.

use std::collections::BTreeSet;

use crate::admission::Admitted;
use crate::authority::Authority;
use crate::credential::Kind;
use crate::identity::caller::Caller;
use crate::ledger::Lane;
use crate::ledger::record::{Event, LockLifted, Record, Released, Revoked, Who};
use crate::ledger::state::{Live, State, Task};
use crate::limits;
use crate::refusal::{No, Reason, Refusal};
use crate::revocation::{Facts, Rules, Target};
use crate::seq::{CredentialId, Millis, Seq};
use crate::tasks::{Named, name_of};

/// The rule that wants a revocation of everything confirmed with `all`.
pub const EVERYTHING: &str = "everything";

/// What something hits, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Live credentials.
    pub credentials: u64,
    /// Open tasks that hold one of them, or are targets themselves.
    pub tasks: u64,
    /// Different callers of those credentials.
    pub callers: u64,
    /// Those of the credentials for which something was made at an upstream.
    pub elsewhere: u64,
}

/// How much may be hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Nothing was confirmed: one credential at most.
    None,
    /// So many, and a tenth more: the number moves under load.
    Count(u64),
    /// Whatever it is.
    All,
}

impl Confirm {
    pub(crate) fn allows(self, hits: u64) -> bool {
        match self {
            Confirm::None => hits <= 1,
            Confirm::Count(n) => hits <= n.saturating_add(n / 10).max(1),
            Confirm::All => true,
        }
    }
}

/// What is to be revoked.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// 1 to 64 targets.
    pub targets: Vec<Target>,
    /// New grants are not blocked.
    pub issued_only: bool,
    /// Only new grants are blocked.
    pub lock_only: bool,
    /// Why.
    pub reason: String,
    /// How much may be hit.
    pub confirm: Confirm,
    /// The request, where it named itself.
    pub named: Named,
}

/// What was revoked.
#[derive(Clone, Debug)]
pub struct Done {
    /// The rule's seq.
    pub seq: Seq,
    /// What was hit in all.
    pub hits: Hits,
    /// What each target hit, in their order.
    pub each: Vec<Hits>,
}

impl Authority {
    /// Revokes. Refused with CONFIRM_NEEDED where more would be hit than was confirmed; nothing is done then.
    pub async fn revoke(&self, operator: &Admitted, ask: &Revocation) -> Result<Done, No> {
        if ask.targets.is_empty() || ask.targets.len() > limits::TARGETS {
            return Err(No::Refusal(Refusal::field(
                "targets",
                format!("1 to {} of them, not {}", limits::TARGETS, ask.targets.len()),
            )));
        }
        let name = name_of(&operator.who());
        if let Some(before) = self.remembered(&name, &ask.named).await? {
            let (hits, each) = self.counted(Count::since(&ask.targets, before.seq, Rules::default())).await?;
            return Ok(Done { seq: before.seq, hits, each });
        }
        // It also shuts out everybody, which no number of credentials says.
        if ask.targets.contains(&Target::Everything) && !ask.lock_only && ask.confirm != Confirm::All {
            let (hits, _) = self.hits(&ask.targets).await?;
            return Err(all_confirmed(&hits));
        }
        // With everything confirmed nothing is counted first: an emergency does not wait for a number.
        let counted = match ask.confirm {
            Confirm::All => None,
            _ if ask.lock_only => None,
            confirm => {
                let (hits, each) = self.hits(&ask.targets).await?;
                if !confirm.allows(hits.credentials) {
                    return Err(confirm_needed(&hits, confirm));
                }
                Some((hits, each))
            }
        };
        let before = self.ledger.peek(|s| rules_of(&s.rules, &ask.targets));
        let revoked = Revoked {
            targets: ask.targets.iter().map(Target::to_record).collect(),
            issued_only: ask.issued_only,
            lock_only: ask.lock_only,
            reason: ask.reason.clone(),
            keep_until: Rules::keep_until(self.system.wall()).0,
        };
        let seq = self.change(operator.who(), Lane::Revoke, Event::Revoked(revoked), &ask.named).await?;
        let (hits, each) = match counted {
            Some(counted) => counted,
            None if ask.lock_only => self.hits(&ask.targets).await?,
            None => self.counted(Count::since(&ask.targets, seq, before)).await?,
        };
        self.feed.hit(seq, hits);
        Ok(Done { seq, hits, each })
    }

    /// Lifts locks. What was revoked stays revoked.
    pub async fn lift(&self, operator: &Admitted, targets: &[Target], reason: &str, named: &Named) -> Result<Seq, No> {
        let lifted = LockLifted { targets: targets.iter().map(Target::to_record).collect(), reason: reason.to_owned() };
        self.change(operator.who(), Lane::Change, Event::LockLifted(lifted), named).await
    }

    /// A holder gives its own credential back. A repeat gets the first one's seq.
    pub async fn release(&self, caller: &Caller, id: CredentialId) -> Result<Seq, No> {
        self.still_stands(caller)?;
        let rule = self
            .ledger
            .settled(|s| {
                let live = s.credentials.get(&id).filter(|l| s.credentials.caller(l) == caller.id().as_str());
                live.map(|l| l.released.then(|| s.rules.get(&Target::Credential(id)).map(|e| e.revoked)).flatten())
            })
            .await?;
        match rule {
            None => Err(No::Refusal(Refusal::new(Reason::NotFound, format!("you hold no credential {id}")))),
            Some(Some(seq)) => Ok(seq),
            Some(None) => {
                let who = Who::SpiffeId(caller.id().as_str().to_owned());
                self.within_rule_budget(&who)?;
                let released =
                    Released { credential: id.as_bytes().to_vec(), keep_until: Rules::keep_until(self.system.wall()).0 };
                Ok(self.ledger.commit(Lane::Change, vec![Record::new(who, Event::Released(released))]).await?.seq())
            }
        }
    }

    /// What targets would hit, in all and each by itself. Goes through the live credentials in pieces, so that issuing goes on.
    pub async fn hits(&self, targets: &[Target]) -> Result<(Hits, Vec<Hits>), No> {
        self.counted(Count::ahead(targets)).await
    }

    async fn counted(&self, mut count: Count) -> Result<(Hits, Vec<Hits>), No> {
        let now = self.system.wall();
        let mut at = (0, 0);
        loop {
            if !self.ledger.settled(|state| count.walk(state, &mut at, now)).await? {
                return Ok(count.done());
            }
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn confirm_needed(hits: &Hits, confirm: Confirm) -> No {
    let asked = match confirm {
        Confirm::Count(n) => format!("{n} were confirmed"),
        _ => "more than one needs a confirmation".to_owned(),
    };
    No::Refusal(
        Refusal::new(
            Reason::ConfirmNeeded,
            format!(
                "this would revoke {} live credentials of {} callers in {} tasks; {asked}; nothing was revoked",
                hits.credentials, hits.callers, hits.tasks
            ),
        )
        .way_out(format!("--confirm {}, or --confirm all", hits.credentials)),
    )
}

fn all_confirmed(hits: &Hits) -> No {
    let what = format!(
        "this would revoke everything: {} live credentials of {} callers in {} tasks; nothing was revoked",
        hits.credentials, hits.callers, hits.tasks
    );
    No::Refusal(Refusal::new(Reason::ConfirmNeeded, what).by(EVERYTHING).way_out("--confirm all, whatever the number is"))
}

/// What was in force for these targets.
fn rules_of(rules: &Rules, targets: &[Target]) -> Rules {
    let mut before = Rules::default();
    for (target, entry) in targets.iter().filter_map(|t| Some((t, rules.get(t)?))).filter(|(_, e)| e.revoked > Seq::ZERO) {
        before.add(target, Some(entry.revoked), None, Millis(u64::MAX));
    }
    before
}

/// One target as a rule, and what it hits: credentials, tasks, callers.
type One = (Rules, Hits, BTreeSet<crate::seq::TaskId>, BTreeSet<Box<str>>);

/// Counts what each target covers, by the same rules that a verifier runs.
struct Count {
    each: Vec<One>,
    all: Hits,
    tasks: BTreeSet<crate::seq::TaskId>,
    callers: BTreeSet<Box<str>>,
    /// The revocation that is counted, where it was made already.
    made: Seq,
    /// What was in force for its targets before it.
    before: Rules,
}

impl Count {
    /// What would be hit.
    fn ahead(targets: &[Target]) -> Count {
        Count::new(targets, Seq::LAST, Rules::default())
    }

    /// What a revocation at `made` hit: by what was decided before it, however late that was committed.
    fn since(targets: &[Target], made: Seq, before: Rules) -> Count {
        Count::new(targets, made, before)
    }

    fn new(targets: &[Target], made: Seq, before: Rules) -> Count {
        let each = targets.iter().map(|t| {
            let mut rules = Rules::default();
            rules.add(t, Some(made), None, Millis(u64::MAX));
            (rules, Hits::default(), BTreeSet::new(), BTreeSet::new())
        });
        let (all, tasks, callers) = (Hits::default(), BTreeSet::new(), BTreeSet::new());
        Count { each: each.collect(), all, tasks, callers, made, before }
    }

    /// Whether a task was alive when the revocation came, or is, where none was made.
    fn was_alive(&self, state: &State, task: &Task, now: Millis) -> bool {
        let over = |t: &Task| t.closed.as_ref().is_some_and(|c| c.seq != self.made) || now >= t.deadline || t.silent(now);
        !state.tasks.upwards(task).any(over)
    }

    /// Whether something else covers it, or covered it before.
    fn was_covered(&self, state: &State, facts: &Facts<'_>) -> bool {
        state.rules.covers_but(facts, self.made).is_some() || self.before.covers(facts).is_some()
    }

    /// Goes on for a bounded number of places, tasks first. Answers whether there are more.
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
            self.look(state, live, now);
        }
        *credential = end;
        end < state.credentials.places()
    }

    fn look(&mut self, state: &State, live: &Live, now: Millis) {
        let Some(task) = state.tasks.at(live.task) else { return };
        if live.released || live.expires_at <= now || !self.was_alive(state, task, now) {
            return;
        }
        let facts = state.credentials.facts(live, task);
        if self.was_covered(state, &facts) {
            return;
        }
        let elsewhere = u64::from(Kind::from_number(live.kind.into()).is_some_and(|kind| !kind.made_here()));
        let mut hit = false;
        for (rules, hits, tasks, callers) in &mut self.each {
            if rules.covers(&facts).is_some() {
                hit = true;
                hits.credentials += 1;
                hits.elsewhere += elsewhere;
                tasks.insert(task.terms.id);
                callers.insert(state.credentials.caller(live).into());
            }
        }
        if hit {
            self.all.credentials += 1;
            self.all.elsewhere += elsewhere;
            self.tasks.insert(task.terms.id);
            self.callers.insert(state.credentials.caller(live).into());
        }
    }

    /// An open task that a target reaches counts also where it holds no credential yet.
    fn open_task(&mut self, state: &State, task: &Task, now: Millis) {
        if !self.was_alive(state, task, now) {
            return;
        }
        let identities = task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str()));
        let facts = Facts {
            revision: task.terms.revision,
            tasks: task.terms.path.clone(),
            identities: identities.collect(),
            environment: &task.terms.environment,
            policy: task.terms.policy,
            ..Facts::default()
        };
        for (rules, _, tasks, _) in &mut self.each {
            if rules.covers(&facts).is_some() {
                tasks.insert(task.terms.id);
                self.tasks.insert(task.terms.id);
            }
        }
    }

    fn done(mut self) -> (Hits, Vec<Hits>) {
        self.all.tasks = self.tasks.len() as u64;
        self.all.callers = self.callers.len() as u64;
        let each = self.each.into_iter().map(|(_, hits, tasks, callers)| Hits {
            credentials: hits.credentials,
            tasks: tasks.len() as u64,
            callers: callers.len() as u64,
            elsewhere: hits.elsewhere,
        });
        (self.all, each.collect())
    }
}
