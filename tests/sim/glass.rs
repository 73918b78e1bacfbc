//! Break-glass: opened by one person, joined by another, reviewed by a third; while it is open, its people make no lasting changes.

use mayfly::ledger::record::*;
use mayfly::ledger::state::{Task, policy_in_force};
use mayfly::limits::{BREAK_GLASS, BREAK_GLASS_JOIN_MS, BREAK_GLASS_MS};
use mayfly::seq::TaskId;

use crate::judge::{IN_GROUP, both, yes};
use crate::make::{ENVIRONMENTS, UPSTREAMS, person, svid, with};
use crate::model::{Grant, Line, MINUTE, Model, Says, domain, revokes};
use crate::op::Op;
use crate::people::caller;
use crate::world::{Found, World, Writer};

/// The people on call.
const NAMES: [&str; 3] = ["ada", "bob", "eve"];

fn named(op: &Op, i: usize) -> &'static str {
    NAMES[op.n[i] as usize % NAMES.len()]
}

/// The next step of a break-glass task, or a new one.
pub fn step(writer: &Writer, op: &Op, id: &[u8]) -> Vec<Record> {
    let all: Vec<_> = writer.state.break_glass_tasks.iter().collect();
    let known = op.pick(1, &all).filter(|_| !op.once_in(0, 3, 3));
    let name = named(op, 2);
    let (environment, task) = match known {
        Some((task, glass)) => (glass.environment.to_string(), task.as_bytes().to_vec()),
        None => (ENVIRONMENTS[usize::from(op.once_in(2, 4, 5))].to_owned(), id.to_vec()),
    };
    let glass = BreakGlassStepTaken {
        task,
        rights: if op.once_in(3, 6, 12) { "others".into() } else { "down".into() },
        text: "it burns".into(),
        caller: caller(name),
        policy_version: policy_in_force(&writer.state, &environment),
        decided_at: writer.now(),
        svid: Some(svid(&caller(name), op.n[3] >> 3)),
        environment,
        ..Default::default()
    };
    let record = |event| Record::new(Author::Person(person(name)), event);
    let Some((_, known)) = known else {
        return opening(writer, op, name, BreakGlassStepTaken { rights: "down".into(), ..glass });
    };
    let mut people: Vec<Principal> = known.people.iter().map(|p| p.who.clone()).collect();
    let review = known.joined() && !op.once_in(3, 9, 8);
    people.truncate(if review { 2 } else { 1 });
    if !review {
        people.push(person(name));
    }
    let reviewer = review.then(|| person(name));
    let step = if review { BreakGlassStep::Reviewed } else { BreakGlassStep::Joined } as i32;
    vec![record(Event::BreakGlass(BreakGlassStepTaken { people, reviewer, step, ..glass }))]
}

fn opening(writer: &Writer, op: &Op, name: &str, glass: BreakGlassStepTaken) -> Vec<Record> {
    let now = writer.now();
    // Sometimes for longer than a break-glass task may last, or wait.
    let longest = now + [10 * MINUTE, BREAK_GLASS_MS, BREAK_GLASS_MS, BREAK_GLASS_MS + 1][(op.n[2] >> 8) as usize % 4];
    let wait = BREAK_GLASS_JOIN_MS + u64::from(op.once_in(2, 11, 9));
    let upstreams = UPSTREAMS.iter().filter(|(_, e)| *e == glass.environment);
    let scopes = vec!["read".to_owned(), "write".to_owned()];
    let opened = TaskOpened {
        task: glass.task.clone(),
        owner: Some(person(name)),
        opener: caller(name),
        environment: glass.environment.clone(),
        purpose: "it burns".into(),
        allowance: Some(Allowance {
            upstreams: upstreams.map(|(n, _)| AllowedUpstream { name: (*n).into(), scopes: scopes.clone() }).collect(),
            any_tool: true,
            ..Default::default()
        }),
        opened_at: now,
        deadline: longest.min(now + wait),
        max_deadline: longest,
        policy_version: glass.policy_version,
        svid: glass.svid.clone(),
        break_glass: true,
        ..Default::default()
    };
    let asks = BreakGlassStepTaken { people: vec![person(name)], step: BreakGlassStep::Opened as i32, ..glass };
    let record = |event| Record::new(Author::Person(person(name)), event);
    let mut group = vec![record(Event::TaskOpened(opened.into())), record(Event::BreakGlass(asks))];
    // Sometimes without a person who asks for it.
    if op.once_in(3, 12, 9) {
        group.truncate(1);
    }
    group
}

/// A task below a break-glass task, opened by one of its people; sometimes by somebody else, or not marked as break-glass.
pub fn below(op: &Op, opened: &mut TaskOpened, parent: Option<&Task>) {
    let Some(parent) = parent.filter(|p| p.terms.break_glass && !op.once_in(1, 12, 6)) else { return };
    opened.opener = one_of(op, parent);
    opened.svid = Some(svid(&opened.opener, 0));
    opened.callers.clear();
    opened.break_glass = true;
}

/// An issuance in a break-glass task.
pub fn within(op: &Op, record: Record, task: &Task) -> Record {
    if !task.terms.break_glass || op.once_in(2, 22, 6) {
        return record;
    }
    let who = one_of(op, task);
    let record = with(record, |i| {
        (i.caller, i.break_glass) = (who.clone(), true);
        i.svid = Some(svid(&who, 0));
    });
    Record { author: Some(AuthorRecord { who: Some(Author::SpiffeId(who)) }), request: None, ..record }
}

fn one_of(op: &Op, task: &Task) -> String {
    let all: Vec<&str> = std::iter::once(&*task.terms.opener).chain(task.terms.callers.iter().map(|c| &**c)).collect();
    op.pick(3, &all).map_or_else(String::new, |c| (*c).to_owned())
}

/// Sometimes the author of a change is one of the people who may be in a break-glass task.
pub fn by_somebody(op: &Op, record: Record) -> Record {
    if record.request.is_some() || !op.once_in(3, 17, 3) {
        return record;
    }
    Record { author: Some(AuthorRecord { who: Some(Author::Person(person(named(op, 0)))) }), ..record }
}

/// A break-glass task, derived from all records about it.
struct Told<'a> {
    task: &'a [u8],
    opened: &'a TaskOpened,
    asked: Option<&'a BreakGlassStepTaken>,
    joined: Option<(&'a Line, &'a BreakGlassStepTaken)>,
    reviewed: bool,
    ended: bool,
}

impl Told<'_> {
    fn over(&self, now: u64) -> bool {
        self.ended || now >= if self.joined.is_some() { self.opened.max_deadline } else { self.opened.deadline }
    }

    fn is_of(&self, who: &Principal, caller: &str) -> bool {
        let first = self.opened.owner.as_ref() == Some(who) || self.opened.opener == caller;
        first || self.joined.is_some_and(|(_, j)| j.people.get(1) == Some(who) || j.caller == caller)
    }
}

fn author(record: &Record) -> Option<Principal> {
    match record.author.as_ref()?.who.as_ref()? {
        Author::Person(person) => Some(person.clone()),
        Author::SpiffeId(id) => Some(Principal { issuer: domain(id), sub: id.clone() }),
        _ => None,
    }
}

impl Model {
    /// All remembered ones, including those of earlier generations.
    fn break_glass_tasks(&self) -> Vec<Told<'_>> {
        let mut all: Vec<Told<'_>> = Vec::new();
        for (line, event) in self.valid() {
            match event {
                Event::TaskOpened(t) if t.break_glass && t.parent.is_empty() => {
                    all.push(Told { task: &t.task, opened: t, asked: None, joined: None, reviewed: false, ended: false });
                }
                Event::BreakGlass(e) => {
                    let Some(told) = all.iter_mut().find(|g| *g.task == *e.task) else { continue };
                    match BreakGlassStep::try_from(e.step) {
                        Ok(BreakGlassStep::Opened) => told.asked = Some(e),
                        Ok(BreakGlassStep::Joined) => told.joined = Some((line, e)),
                        _ => told.reviewed = true,
                    }
                }
                Event::GenerationBegun(g) if g.generation > 1 => {
                    all.retain(|g| g.joined.is_some());
                    all.iter_mut().for_each(|g| g.ended = true);
                }
                _ => {}
            }
            let closes = |aim: &RecordedTarget, task: &[u8]| matches!(aim, RecordedTarget::Task(id) if id == task);
            let ended = matches!(event, Event::TaskClosed(_) | Event::Revoked(_)).then(|| revokes(event)).unwrap_or_default();
            all.iter_mut().filter(|g| ended.iter().any(|aim| closes(aim, g.task))).for_each(|g| g.ended = true);
        }
        all
    }

    fn joined(&self, task: &[u8]) -> Option<(&Line, &BreakGlassStepTaken)> {
        self.break_glass_tasks().into_iter().find(|g| g.task == task)?.joined
    }

    /// When a break-glass root task ends, and whether it still waits for the second person: `None` for other tasks.
    pub fn glass_of(&self, t: &TaskOpened) -> Option<(u64, bool)> {
        let root = t.break_glass && t.parent.is_empty();
        root.then(|| if self.joined(&t.task).is_some() { (t.max_deadline, false) } else { (t.deadline, true) })
    }

    /// Whether no rule covers the second person's joining.
    pub fn joining_stands(&self, t: &TaskOpened) -> bool {
        let Some((line, _)) = self.joined(&t.task).filter(|_| t.break_glass) else { return true };
        self.joining(t).is_none_or(|grant| self.covered(&grant, line.record.revision, self.head).is_none())
    }

    /// The facts of the joining that rules match on.
    pub fn joining(&self, t: &TaskOpened) -> Option<Grant> {
        let (_, e) = self.joined(&t.task).filter(|_| t.break_glass)?;
        Some(self.of_glass(e, t.policy_version, vec![]))
    }

    fn of_glass(&self, e: &BreakGlassStepTaken, policy: u64, tasks: Vec<Vec<u8>>) -> Grant {
        let who = e.people.get(1).cloned().unwrap_or_default();
        Grant {
            tasks,
            identities: vec![(domain(&e.caller), e.caller.clone()), (who.issuer, who.sub)],
            environment: e.environment.clone(),
            policy,
            svid: e.svid.clone().map(|s| (domain(&e.caller), s)),
            ..Grant::default()
        }
    }

    /// The workloads and people who may act in a task besides its opener.
    pub fn callers(&self, t: &TaskOpened) -> Vec<String> {
        self.joined(&t.task).map_or_else(|| t.callers.clone(), |(_, e)| vec![e.caller.clone()])
    }

    fn admits(&self, t: &TaskOpened, caller: &str) -> bool {
        t.opener == caller || self.callers(t).iter().any(|c| c == caller)
    }

    /// An issuance must say whether it is in a break-glass task, and only its people receive one.
    pub fn issued_in_glass(&self, i: &CredentialIssued, t: &TaskOpened) -> bool {
        i.break_glass == t.break_glass && (!t.break_glass || (i.approval.is_empty() && self.admits(t, &i.caller)))
    }

    /// A task must stay within the bounds of break-glass.
    pub fn opens_in_glass(&self, t: &TaskOpened) -> bool {
        let parent = self.task(&t.parent).map(|(_, p)| p).filter(|_| !t.parent.is_empty());
        match parent {
            Some(p) if p.break_glass => t.break_glass && std::iter::once(&t.opener).chain(&t.callers).all(|c| self.admits(p, c)),
            _ if !t.break_glass => true,
            Some(_) => false,
            None => {
                let plain = t.callers.is_empty() && t.approval.is_empty() && t.heartbeat == 0;
                plain
                    && !self.in_group().any(|e| matches!(e, Event::TaskOpened(_)))
                    && t.max_deadline <= t.opened_at + BREAK_GLASS_MS
                    && t.deadline <= t.opened_at + BREAK_GLASS_JOIN_MS
            }
        }
    }

    /// Each break-glass task that a group opens must name the person who asked for it.
    pub fn asked_for(&self) -> bool {
        let mine = |g: &Told<'_>| {
            self.log
                .iter()
                .any(|l| l.seq == IN_GROUP && matches!(&l.record.event, Some(Event::TaskOpened(t)) if t.task == g.task))
        };
        self.break_glass_tasks().iter().filter(|g| mine(g)).all(|g| g.asked.is_some())
    }

    /// Whether the author of a lasting change acts in a break-glass task.
    pub fn lasting_from_glass(&self, event: &Event, record: &Record, time: u64) -> bool {
        let lasts = match event {
            Event::PolicySet(_)
            | Event::UpstreamSet(_)
            | Event::BindingSet(_)
            | Event::KeyAdded(_)
            | Event::KeyChanged(_)
            | Event::LockLifted(_) => true,
            Event::Revoked(r) => r.lock_only,
            Event::ApprovalDecided(d) => d.given,
            _ => false,
        };
        let Some(who) = author(record).filter(|_| lasts) else { return false };
        self.break_glass_tasks().iter().any(|g| g.joined.is_some() && !g.over(time) && g.is_of(&who, &who.sub))
    }

    pub fn break_glass_step(&self, e: &BreakGlassStepTaken, record: &Record, time: u64) -> Says {
        let Some(who) = author(record) else { return Says::Void };
        let in_force = e.policy_version > 0 && e.policy_version == self.policy(&e.environment);
        if !self.timely(e.decided_at, record.revision, time) || !in_force {
            return Says::Void;
        }
        let all = self.break_glass_tasks();
        let Some(told) = all.iter().find(|g| g.task == e.task) else { return Says::Void };
        let others = || all.iter().filter(|g| g.task != e.task);
        let free = |who: &Principal, caller: &str| !others().any(|g| g.joined.is_some() && !g.reviewed && g.is_of(who, caller));
        let first = told.opened.owner.clone().unwrap_or_default();
        let same = told.opened.environment == e.environment && told.asked.is_none_or(|a| a.rights == e.rights);
        let people = e.people.first() == Some(&first) && e.people.len() == 2;
        match BreakGlassStep::try_from(e.step) {
            Ok(BreakGlassStep::Opened) => {
                let here = self.in_group().any(|x| matches!(x, Event::TaskOpened(t) if t.task == e.task));
                let waits = others().any(|g| g.joined.is_none() && !g.over(time) && g.is_of(&who, &e.caller));
                let open = others().filter(|g| !g.reviewed && (g.joined.is_some() || !g.over(time))).count();
                let own = first == who && told.opened.opener == e.caller && e.people == [who.clone()] && same;
                yes(here && told.asked.is_none() && own && free(&who, &e.caller) && !waits && open < BREAK_GLASS)
            }
            Ok(BreakGlassStep::Joined) => {
                let stands = self.task(&e.task).is_some_and(|(line, t)| {
                    !self.closed(&e.task) && self.covered(&self.opening(t), line.record.revision, self.head).is_none()
                });
                let other = e.people.get(1) == Some(&who) && !told.is_of(&who, &e.caller);
                let fits = told.joined.is_none() && !told.over(time) && stands && other && same && people;
                let both_free = free(&first, &told.opened.opener) && free(&who, &e.caller);
                let grant = self.of_glass(e, e.policy_version, vec![e.task.clone()]);
                both(yes(fits && both_free), self.blocked(&grant, record.revision, time))
            }
            Ok(BreakGlassStep::Reviewed) => {
                let second = told.joined.and_then(|(_, j)| j.people.get(1));
                let fits = second.is_some() && e.people.get(1) == second && told.over(time) && !told.reviewed;
                let third = e.reviewer.as_ref() == Some(&who) && !told.is_of(&who, &e.caller);
                let identities = vec![(domain(&e.caller), e.caller.clone()), (who.issuer.clone(), who.sub.clone())];
                let (environment, policy) = (e.environment.clone(), e.policy_version);
                let grant = Grant { identities, environment, policy, ..Grant::default() };
                both(yes(fits && third && same && people), self.blocked(&grant, record.revision, time))
            }
            _ => Says::Void,
        }
    }
}

/// Two different people, nobody besides them, and the state agrees with the records.
pub fn check(world: &World) -> Result<(), Found> {
    let (state, model) = (&world.observer, &world.model);
    for told in model.break_glass_tasks() {
        let Some(glass) = TaskId::from_slice(told.task).and_then(|id| state.break_glass_tasks.get(&id)) else {
            return Err(format!("break-glass was forgotten: {:?}", told.opened));
        };
        let (now, naive) = (state.time, told.over(state.time.0));
        if (glass.joined(), glass.review.is_some(), glass.over(now)) != (told.joined.is_some(), told.reviewed, naive) {
            return Err(format!("the state says {glass:?}, the model that it is over: {naive}, {:?}", told.joined));
        }
    }
    for (line, i) in model.credentials().into_iter().filter(|(_, i)| i.break_glass) {
        let path = model.path(&i.task);
        let root = path.first().and_then(|t| model.joined(t));
        if root.is_none_or(|(joined, _)| joined.seq >= line.seq) {
            return Err(format!("issued in break-glass before two people opened it: {i:?}"));
        }
    }
    Ok(())
}
