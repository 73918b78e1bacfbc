//! The invariants that must hold after every step (docs/invariants.md).

use std::collections::BTreeSet;

use mayfly::ledger::record::{Event, RecordedTarget};
use mayfly::ledger::state::{LiveCredential, State, Task, TaskPhase as RealPhase, id_token_used};
use mayfly::revocation::{Facts, FollowerRefusal, Lifetime, SvidFacts};
use mayfly::seq::{CredentialId, Millis, Seq, TaskId};
use mayfly::system::Clock;

use crate::model::{Grant, Line, Model, Phase, revokes};
use crate::registry::name_of;
use crate::world::{Found, World};

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

/// Checked after a commit.
pub fn server(world: &mut World) -> Result<(), Found> {
    credentials(world)?;
    tasks(world)?;
    crate::people::check(world)?;
    crate::glass::check(world)?;
    let (began, naive) = (world.observer.time_generation, world.time_began(world.observer.head));
    ensure!(began == naive, "time began in generation {began}, by the model in {naive}");
    counts(&world.observer)
}

/// Invariants 2, 3 and 11 for one record that was just found valid, without using the verdict's code.
pub fn fresh(model: &Model, line: &Line) -> Result<(), Found> {
    let (true, Some(event)) = (line.valid, &line.record.event) else { return Ok(()) };
    let once = |f: &dyn Fn(&Event) -> bool| {
        model.log.iter().filter(|l| l.valid).filter(|l| l.record.event.as_ref().is_some_and(f)).count() == 1
    };
    match event {
        Event::Issued(i) => {
            let grant = line.grant.as_deref().ok_or("an issuance without a grant")?;
            let before = model.covered(grant, line.record.revision, line.seq);
            ensure!(before.is_none(), "decided before and committed after a revocation: {before:?} {i:?}");
            for task in model.path(&i.task) {
                ensure!(i.expires_at <= model.deadline(&task), "a credential outlives its task: {i:?}");
                ensure!(!model.closed(&task), "issued in a closed task: {i:?}");
                let waits = model.task(&task).is_some_and(|(_, t)| !t.approval.is_empty() && model.given_at(t).is_none());
                ensure!(!waits, "issued in a task that nobody approved: {i:?}");
            }
            let shown = model.credential(&i.shown).map_or(u64::MAX, |(_, s)| s.expires_at);
            ensure!(i.expires_at <= shown, "a credential outlives its evidence: {i:?}");
            ensure!(
                i.approval.is_empty() || once(&|e| matches!(e, Event::Issued(x) if x.approval == i.approval)),
                "an approval was used twice: {i:?}"
            );
            ensure!(once(&|e| matches!(e, Event::Issued(x) if x.credential == i.credential)), "issued twice: {i:?}");
            let named = name_of(&line.record);
            let same = |l: &Line| named.is_some() && name_of(&l.record) == named;
            let live = model.credentials().into_iter().filter(|(l, x)| same(l) && model.alive(&x.credential, line.time)).count();
            ensure!(named.is_none() || live <= 1, "one request has {live} live credentials: {i:?}");
        }
        Event::TaskOpened(t) => {
            let grant = model.opening(t);
            let before = model.covered(&grant, line.record.revision, line.seq);
            ensure!(before.is_none(), "a task was opened on a view before a revocation: {before:?} {t:?}");
            ensure!(t.parent.is_empty() || t.deadline <= model.deadline(&t.parent), "a child outlives its parent: {t:?}");
            let token = t.subject_token.as_ref().map_or(u64::MAX, |token| token.expires_at);
            ensure!(t.max_deadline <= token, "a task outlives its subject token: {t:?}");
        }
        Event::Authorized(e) => {
            let decided = e.decided.as_deref().ok_or("an authorization of nothing")?;
            let before = model.covered(&model.grant(decided), line.record.revision, line.seq);
            ensure!(before.is_none(), "authorized on a view before a revocation: {before:?} {e:?}");
            ensure!(e.credential.is_empty() || model.alive(&e.credential, line.time), "with what is no good: {e:?}");
        }
        Event::LoggedIn(e) => {
            let same = |x: &Event| {
                matches!(x, Event::UsedOnce(u) if e.token.as_ref().is_some_and(|t| {
                    u.digest == id_token_used(&t.issuer, &t.id) && u.until >= line.time
                }))
            };
            ensure!(once(&same), "one token made two logins: {e:?}");
        }
        Event::TaskExtended(x) => {
            let used = |e: &Event| matches!(e, Event::TaskExtended(y) if y.approval == x.approval);
            ensure!(x.approval.is_empty() || once(&used), "more time was had twice by one approval: {x:?}");
        }
        _ => {}
    }
    Ok(())
}

fn set<T: Ord, I: IntoIterator<Item = T>>(items: I) -> BTreeSet<T> {
    items.into_iter().collect()
}

/// The facts of a credential in the state must equal those in its claims.
fn same_facts(facts: &Facts<'_>, grant: &Grant) -> bool {
    let svid = facts.svid.map(|s| (s.trust_domain.to_owned(), s.anchor.to_vec(), s.issuing_key.to_vec(), s.serial.to_vec()));
    let theirs = grant.svid.clone().map(|(td, s)| (td, s.anchor, s.issuing_key, s.serial));
    set(facts.credentials.iter().map(|c| c.as_bytes().to_vec())) == set(grant.credentials.clone())
        && set(facts.tasks.iter().map(|c| c.as_bytes().to_vec())) == set(grant.tasks.clone())
        && set(facts.identities.iter().map(|(i, s)| ((*i).to_owned(), (*s).to_owned()))) == set(grant.identities.clone())
        && set(facts.scopes.iter().map(|s| (*s).to_owned())) == set(grant.scopes.clone())
        && (facts.upstream, facts.binding, facts.tool) == (&grant.upstream[..], &grant.binding[..], &grant.tool[..])
        && (facts.environment, facts.policy, facts.key) == (&grant.environment[..], grant.policy, &grant.key[..])
        && svid == theirs
        && facts.subject_token.map(|(i, s)| (i.to_owned(), s.to_owned())) == grant.token
}

fn credentials(world: &mut World) -> Result<(), Found> {
    let (state, model) = (&world.observer, &world.model);
    for (line, i) in model.credentials() {
        world.counts.checks += 1;
        let id = CredentialId::from_slice(&i.credential).ok_or("an id")?;
        let Some(live) = state.credentials.get(&id) else {
            ensure!(i.expires_at < state.time.0, "forgotten before its end: {i:?}");
            continue;
        };
        let task = state.tasks.at(live.task()).ok_or_else(|| format!("its task was forgotten: {i:?}"))?;
        let facts = state.facts(&live, task);
        let grant = line.grant.as_deref().ok_or("an issuance without a grant")?;
        ensure!(same_facts(&facts, grant), "not explained by its record: {facts:?} {i:?}");
        if live.expires_at() <= state.time {
            continue;
        }
        let (rule, naive) = (state.rules.covers(&facts), model.covered(grant, line.record.revision, model.head));
        ensure!(rule.is_some() == naive.is_some(), "the rules say {rule:?}, the model {naive:?} of {i:?}");
        let alive = CredentialId::from_slice(&i.credential)
            .map(|id| state.evidence_alive(&id, state.time))
            .ok_or("an id of another length")?;
        ensure!(
            alive.is_ok() == model.alive(&i.credential, state.time.0),
            "the state says {alive:?} of {i:?}, the model otherwise; {:?}",
            naive
        );
    }
    Ok(())
}

fn tasks(world: &World) -> Result<(), Found> {
    let (state, model) = (&world.observer, &world.model);
    let now = state.time.0;
    let all = model.tasks();
    ensure!(state.tasks.len() <= all.len(), "tasks that nobody opened");
    for (_, t) in all {
        let naive = model.phase(&t.task, now);
        let Some(task) = TaskId::from_slice(&t.task).and_then(|id| state.tasks.get(&id)) else {
            ensure!(naive == Phase::Over, "a task that is not over was forgotten: {t:?}");
            continue;
        };
        let phase = match state.tasks.phase(task, state.time) {
            RealPhase::Over(_) => Phase::Over,
            RealPhase::PendingApproval => Phase::Pending,
            RealPhase::Held => Phase::Held,
            RealPhase::Active => Phase::Active,
        };
        ensure!(phase == naive, "a task is {phase:?}, by the model {naive:?}: {t:?}");
        let opened =
            model.path(&t.task).iter().filter_map(|id| model.task(id)).any(|(l, t)| {
                model.covered(&model.opening(t), l.record.revision, model.head).is_some() || !model.joining_stands(t)
            });
        ensure!(phase == Phase::Over || state.revoked_by(task).is_some() == opened, "revoked since it was opened: {t:?}");
        ensure!(task.deadline.0 == model.deadline(&t.task), "another deadline: {t:?}");
        let credentials = model.credentials();
        let own = credentials.iter().filter(|(_, i)| i.task == t.task).count() as u64;
        let under = credentials.iter().filter(|(_, i)| model.path(&i.task).contains(&t.task)).count() as u64;
        ensure!((task.issued, task.issued_under) == (own, under), "issued in and under it: {t:?}");
        let done = [task.done.uses, task.done.refused, task.done.authorized];
        ensure!(done == model.done(task), "done in it: {done:?}, by the model {:?}: {t:?}", model.done(task));
    }
    Ok(())
}

fn lives(state: &State) -> impl Iterator<Item = LiveCredential<'_>> {
    (0..state.credentials.places()).filter_map(|at| state.credentials.at(at))
}

/// Running counters must equal a recount.
fn counts(state: &State) -> Result<(), Found> {
    let in_memory = lives(state).count();
    ensure!(in_memory == state.credentials.len(), "places in use");
    for live in lives(state) {
        let caller = live.caller();
        let same = lives(state).filter(|l| l.caller() == caller).count();
        ensure!(same == state.credentials.live_of(caller) as usize, "credentials of {caller}");
    }
    let callers = set(state.requests.values().map(|r| r.caller.to_string()));
    for caller in callers.iter().map(String::as_str).chain(lives(state).map(|l| l.caller())) {
        let made = lives(state).filter(|l| l.answers() && l.caller() == caller).count();
        let others = state.requests.values().filter(|r| *r.caller == *caller).count();
        let ended = state.credentials.past().filter(|(asked, ..)| *asked == caller).count();
        ensure!(made + ended + others == state.credentials.remembered(caller) as usize, "request ids of {caller}");
    }
    for task in state.tasks.iter() {
        let id = task.terms.id;
        let slot = state.tasks.slot_of(&id);
        let own = lives(state).filter(|l| Some(l.task()) == slot).count();
        let under = |t: &&Task| t.terms.path.iter().rev().nth(1) == Some(&id);
        let children = state.tasks.iter().filter(under).count();
        ensure!((task.credentials as usize, task.children as usize) == (own, children), "what hangs on {id}");
        ensure!(!task.counted || task.closed.is_none(), "{id} is over and counts");
        let opened = state.tasks.iter().filter(|t| t.counted && t.terms.opener == task.terms.opener).count();
        ensure!(opened == state.tasks.opened_by(&task.terms.opener) as usize, "tasks of {}", task.terms.opener);
    }
    let entries = state.rules.entries();
    ensure!(entries.len() == state.rules.len(), "rules: {} of {}", state.rules.len(), entries.len());
    for (target, entry) in &entries {
        let past = entry.until < state.time && entry.lock.is_none();
        ensure!(!past || state.rules.ends().iter().any(|t| t == target), "nothing will drop the rule of {target}");
    }
    Ok(())
}

pub fn facts(grant: &Grant, r: u64) -> Facts<'_> {
    Facts {
        revision: Seq::from_u64(r).unwrap_or_default(),
        credentials: grant.credentials.iter().filter_map(|c| CredentialId::from_slice(c)).collect(),
        tasks: grant.tasks.iter().filter_map(|t| TaskId::from_slice(t)).collect(),
        identities: grant.identities.iter().map(|(i, s)| (&i[..], &s[..])).collect(),
        upstream: &grant.upstream,
        scopes: grant.scopes.iter().map(String::as_str).collect(),
        binding: &grant.binding,
        tool: &grant.tool,
        environment: &grant.environment,
        policy: grant.policy,
        key: &grant.key,
        svid: grant.svid.as_ref().map(|(td, s)| SvidFacts {
            trust_domain: td,
            anchor: &s.anchor,
            issuing_key: &s.issuing_key,
            serial: &s.serial,
        }),
        subject_token: grant.token.as_ref().map(|(i, s)| (&i[..], &s[..])),
        rests_on: grant.rests_on.iter().map(|ground| facts(ground, r)).collect(),
    }
}

/// A follower's answer about every credential ever issued must be the one that follows from the messages it received.
pub fn follower(world: &mut World, f: usize) -> Result<(), Found> {
    let now = world.watchers[f].moment();
    let issued: Vec<Line> = world.model.log.iter().filter(|l| l.grant.is_some()).cloned().collect();
    for line in &issued {
        let (Some(Event::Issued(i)), Some(grant)) = (&line.record.event, line.grant.as_deref()) else { continue };
        world.counts.checks += 1;
        let life = Lifetime { issued_at: Millis(i.issued_at), expires_at: Millis(i.expires_at) };
        let says = world.watchers[f].follower.check(&facts(grant, line.record.revision), life, now);
        let should = expected(world, f, line, grant);
        let same = match (&says, should) {
            (Ok(()), "ok")
            | (Err(FollowerRefusal::Key(_)), "key")
            | (Err(FollowerRefusal::NotWhole), "not whole")
            | (Err(FollowerRefusal::Stale(_)), "stale")
            | (Err(FollowerRefusal::NotYet(_)), "not yet")
            | (Err(FollowerRefusal::Expired(_)), "expired")
            | (Err(FollowerRefusal::Revoked(_)), "revoked")
            | (Err(FollowerRefusal::Held(_)), "held") => true,
            // A hold and a resumption in one commit are sent as their combined result.
            (Ok(()), "held") | (Err(FollowerRefusal::Held(_)), "ok") => within_a_commit(world, f),
            _ => false,
        };
        ensure!(same, "a follower says {says:?} where it is {should}: {i:?}");
        bury(world, f, line, grant, &says)?;
        // An attacker with the key can write any claims into the token; only the rule on the key helps, and it must.
        let forged = facts(grant, (1 << 53) - 1);
        let stolen = world.watchers[f].follower.check(&forged, life, now);
        ensure!(should != "key" || stolen.is_err(), "a forged revision passes a compromised key: {i:?}");
    }
    Ok(())
}

fn expected(world: &World, f: usize, line: &Line, grant: &Grant) -> &'static str {
    let (watcher, model) = (&world.watchers[f], &world.model);
    let now = watcher.moment();
    let (Some(Event::Issued(i)), known) = (&line.record.event, watcher.applied) else { return "" };
    let key = RecordedTarget::SigningKey(grant.key.clone());
    let lines = || model.log.iter().filter(|l| l.valid && l.seq <= known);
    if lines().filter_map(|l| l.record.event.as_ref()).any(|e| revokes(e).contains(&key)) {
        return "key";
    }
    match () {
        () if !watcher.whole => "not whole",
        () if watcher.stale(now) => "stale",
        () if i.issued_at > watcher.time(now) + 30_000 => "not yet",
        () if i.expires_at <= watcher.time(now) => "expired",
        () if model.covered(grant, line.record.revision, known).is_some() => "revoked",
        () if grant.tasks.iter().any(|t| held(model, t, known)) => "held",
        () => "ok",
    }
}

fn held(model: &Model, task: &[u8], known: Seq) -> bool {
    let mut upto = model.clone();
    upto.log.retain(|l| l.seq <= known);
    !upto.holds(task).is_empty()
}

/// The follower has received only some of the events of one commit.
fn within_a_commit(world: &World, f: usize) -> bool {
    let applied = world.watchers[f].applied;
    let end = world.heads.iter().find(|h| **h >= applied).copied().unwrap_or_default();
    world.feed.iter().any(|e| e.seq() > applied && e.seq() <= end)
}

/// Invariants 2 and 10 over time: revoked credentials stay refused, ended ones stay ended, and no follower is fresh for longer than
/// allowed.
#[allow(clippy::collapsible_match, reason = "a guard that looks things up is hard to read")]
fn bury(world: &mut World, f: usize, line: &Line, grant: &Grant, says: &Result<(), FollowerRefusal>) -> Result<(), Found> {
    let Some(Event::Issued(i)) = &line.record.event else { return Ok(()) };
    match says {
        Err(FollowerRefusal::Revoked(_) | FollowerRefusal::Key(_)) if !world.watchers[f].buried.contains(&i.credential) => {
            world.watchers[f].buried.push(i.credential.clone());
        }
        Ok(()) => {
            world.counts.accepted += 1;
            ensure!(!world.watchers[f].buried.contains(&i.credential), "came back: {i:?}");
            // If time began anew, only the follower's own clock tells how long the proof was under way.
            let lost = world.followers_stepped && world.time_began(world.watchers[f].applied) > 1;
            if !world.stepped && !lost {
                let now = world.truth.wall().0;
                ensure!(now < i.expires_at + 31_000, "accepted after its end: {i:?}");
                let steady = world.truth.steady();
                // A follower with a right clock knows the age of every proof; one with a wrong clock knows it up to twice the skew.
                let most = if world.followers_stepped { 91_000 } else { 30_000 };
                for (at, landed) in world.landed.iter().enumerate().filter(|(_, landed)| **landed + most < steady) {
                    let known = world.model.covered(grant, line.record.revision, world.heads[at]);
                    ensure!(known.is_none(), "accepted {} ms after {known:?}: {i:?}", steady - landed);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// When everything has settled: all acknowledged records must be there.
pub fn end(world: &mut World) -> Result<(), Found> {
    for ticket in &world.answered {
        for record in &world.groups[*ticket] {
            let there = world.model.log.iter().any(|l| l.valid && *l.record == *record);
            ensure!(there, "answered and lost: {record:?}");
        }
    }
    let mut again = State::default();
    for at in 0..world.store.len() {
        crate::world::fold(&mut again, at as u64 + 1, &world.store[at], world.broken)?;
        ensure!(again.digest().ok() == Some(world.digests[at]), "folded again, commit {} gives another state", at + 1);
    }
    ensure!(world.store.len() == world.digests.len(), "commits were lost");
    Ok(())
}
