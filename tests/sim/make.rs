//! Makes records from an operation, decided on one writer's view. Limits that never change are kept here, as policy keeps them; anything
//! that can change between the decision and its place in the order is left to the fold.

use mayfly::ledger::record::*;
use mayfly::ledger::state::{LiveCredential, Task, id_for, policy_in_force, request_key};
use mayfly::seq::TaskId;

use crate::dice::Dice;
use crate::model::{DAY, MINUTE, domain};
use crate::op::{Kind, Op};
use crate::registry::name_of;
use crate::world::{World, Writer};

pub const CALLERS: [&str; 4] =
    ["spiffe://a.example/agent", "spiffe://a.example/agent/sub", "spiffe://a.example/agents", "spiffe://b.example/server"];
pub const UPSTREAMS: [(&str, &str); 3] = [("echo", "dev"), ("git", "dev"), ("bank", "prod")];
const SCOPES: [&str; 2] = ["read", "write"];
pub const TOOLS: [&str; 2] = ["t", "u"];
pub const ENVIRONMENTS: [&str; 2] = ["dev", "prod"];
pub const PEOPLE: [&str; 2] = ["ada", "bob"];

pub fn person(name: &str) -> Principal {
    Principal { issuer: "https://idp.example".into(), sub: name.into() }
}

pub fn workload(id: &str) -> Principal {
    Principal { issuer: domain(id), sub: id.into() }
}

pub fn svid(caller: &str, which: u32) -> SvidEvidence {
    let number = CALLERS.iter().position(|c| *c == caller).unwrap_or(9) as u8;
    let anchor = domain(caller).as_bytes()[0];
    SvidEvidence {
        anchor: vec![anchor; 32],
        issuing_key: vec![8; 32],
        serial: vec![number, 1 + (which % 2) as u8],
        not_after: u64::MAX / 2,
    }
}

/// A request id out of a few, so that ids repeat.
pub fn request(op: &Op, caller: &str) -> Option<RequestRecord> {
    op.once_in(3, 4, 3).then(|| RequestRecord {
        caller: caller.into(),
        id: format!("r{}", (op.n[3] >> 8) % 12),
        digest: vec![1; 32],
    })
}

pub fn begin(world: &mut World) {
    let begun = GenerationBegun { generation: 1, cause: "created".into(), store: vec![1; 16], ..Default::default() };
    let mut events = vec![Event::GenerationBegun(begun)];
    let policy = |e: &str| Event::PolicySet(PolicySetUpdated { environment: e.into(), version: 1, ..Default::default() });
    events.extend(ENVIRONMENTS.map(policy));
    events
        .extend(UPSTREAMS.map(|(n, _)| Event::UpstreamSet(UpstreamUpdated { name: n.into(), version: 1, ..Default::default() })));
    events.push(Event::BindingSet(BindingUpdated { name: "b".into(), version: 1, ..Default::default() }));
    events.push(Event::KeyAdded(key(0, KeyState::Active)));
    events.push(Event::KeyAdded(crate::people::ca()));
    for event in events {
        world.propose(0, vec![by_operator(event)], false, false);
    }
    world.pack(0);
}

/// A few tasks with credentials, so that there is something to revoke from the first step on.
pub fn furnish(world: &mut World, seed: u32) {
    let mut dice = Dice::new(seed.into());
    for kind in [Kind::OpenRoot, Kind::OpenRoot, Kind::Inline, Kind::Inline, Kind::OpenRoot] {
        // Lives of an hour and more, nothing that waits for an approval, and mostly the environment with several upstreams.
        let long = (dice.roll() as u32 & 0x0000_ff80) | 0x5500_0000 | (4 + 5 * 32);
        make(world, 0, &Op { kind, n: [dice.roll() as u32, dice.roll() as u32, long, dice.roll() as u32 | 16] });
    }
}

pub fn key(number: usize, state: KeyState) -> KeyAdded {
    let (purpose, state) = (KeyPurpose::AccessToken as i32, state as i32);
    KeyAdded { key: format!("k{number}"), purpose, environment: "dev".into(), state, ..Default::default() }
}

pub fn by_operator(event: Event) -> Record {
    Record::new(Author::LocalUid(0), event)
}

/// Proposes the operation's records at a writer.
pub fn make(world: &mut World, w: usize, op: &Op) {
    let ids = [world.id(), world.id(), world.id()];
    let writer = &world.writers[w];
    let at = |record: Record| record.decided_at(writer.durable);
    let careful = op.once_in(3, 0, 2) || op.once_in(3, 1, 2);
    let (records, grant) = match op.kind {
        Kind::OpenRoot => (waiting(writer, op, open(writer, op, &ids[0], None)).into_iter().map(|r| r.map(at)).collect(), true),
        Kind::OpenChild => {
            let child = task(writer, op, 1).and_then(|p| open(writer, op, &ids[0], Some(p)));
            (waiting(writer, op, child).into_iter().map(|r| r.map(at)).collect(), true)
        }
        Kind::Inline => (inline(writer, op, &ids).into_iter().map(|r| Some(at(r))).collect(), true),
        Kind::Issue => (vec![task(writer, op, 1).and_then(|t| issue(writer, op, &ids[0], t)).map(at)], true),
        Kind::Batch => {
            let one = |i: usize| task(writer, op, 1 + i % 2).and_then(|t| issue(writer, op, &ids[i], t)).map(at);
            let mut batch: Vec<_> = (0..3).map(one).collect();
            // The request id stands for the whole batch.
            batch.iter_mut().skip(1).flatten().for_each(|r| r.request = None);
            (batch, true)
        }
        Kind::Derive => (vec![derive(world, w, op, &ids[0]).map(at)], true),
        Kind::Renew => (vec![renew(world, w, op, &ids[0]).map(at)], true),
        Kind::Replace => (crate::change::replaced(world, w, op, &ids[0]).into_iter().map(|r| Some(at(r))).collect(), true),
        Kind::IssueApproved => (vec![crate::approval::used(writer, op, &ids[0]).map(at)], true),
        Kind::Authorize => (vec![crate::acts::authorize(writer, op).map(at)], true),
        Kind::BreakGlass => (crate::glass::step(writer, op, &ids[0]).into_iter().map(|r| Some(at(r))).collect(), true),
        Kind::SignIn => (crate::people::sign_in(writer, op, &ids[0]).into_iter().map(|r| Some(at(r))).collect(), true),
        Kind::SignOut => (vec![crate::people::sign_out(writer, op).map(at)], false),
        Kind::ReportUses => return crate::acts::report(world, w, op),
        Kind::Extend => (vec![extend(writer, op).map(at)], true),
        Kind::DecideApproval => (vec![crate::approval::decide(writer, op).map(at)], true),
        Kind::Repeat => {
            let Some(group) = op.pick(1, &world.groups).cloned() else { return };
            world.propose(w, group, op.once_in(2, 0, 2), false);
            return;
        }
        _ => {
            let by = |r| Some(at(crate::glass::by_somebody(op, r)));
            (crate::change::changes(world, w, op, &ids).into_iter().map(by).collect(), false)
        }
    };
    let records: Option<Vec<Record>> = records.into_iter().collect();
    let Some(mut records) = records.filter(|r| !r.is_empty()) else { return };
    // Sometimes an id that does not belong to its request.
    if !op.once_in(3, 24, 5) {
        records.iter_mut().for_each(name_after_request);
    }
    world.propose(w, records, grant, grant && careful);
}

fn name_after_request(record: &mut Record) {
    let Some(key) = name_of(record).map(|(caller, id)| request_key(caller, id)) else { return };
    if let Some(Event::Issued(i)) = &mut record.event
        && let Ok(own) = i.credential.as_slice().try_into()
    {
        i.credential = id_for(Some(&key), own).as_bytes().to_vec();
    }
}

pub fn task<'a>(writer: &'a Writer, op: &Op, i: usize) -> Option<&'a Task> {
    let all: Vec<&Task> = writer.state.tasks.iter().collect();
    // The newer half more often: most of the older ones are over.
    let half = &all[if op.once_in(i, 8, 3) { 0 } else { all.len() / 2 }..];
    op.pick(i, half).copied()
}

pub fn live<'a>(writer: &'a Writer, op: &Op, i: usize) -> Option<LiveCredential<'a>> {
    op.pick(i, &lives(writer)).copied()
}

/// All credentials in memory in the order of issuance, independent of their slots.
pub fn lives(writer: &Writer) -> Vec<LiveCredential<'_>> {
    let credentials = &writer.state.credentials;
    let mut all: Vec<LiveCredential<'_>> = (0..credentials.places()).filter_map(|at| credentials.at(at)).collect();
    all.sort_unstable_by_key(|live| live.seq());
    all
}

fn allowance(op: &Op, environment: &str) -> Allowance {
    let upstreams = UPSTREAMS.iter().filter(|(_, e)| *e == environment);
    let scopes: Vec<String> = SCOPES[..1 + usize::from(!op.once_in(2, 9, 4))].iter().map(|s| (*s).into()).collect();
    Allowance {
        upstreams: upstreams.map(|(n, _)| AllowedUpstream { name: (*n).into(), scopes: scopes.clone() }).collect(),
        tools: if op.once_in(2, 11, 4) { vec!["t".into()] } else { vec![] },
        any_tool: !op.once_in(2, 11, 4),
        ..Default::default()
    }
}

/// A task with its approval request if it waits; sometimes without one.
fn waiting(writer: &Writer, op: &Op, opened: Option<Record>) -> Vec<Option<Record>> {
    let waits = |r: &Record| matches!(&r.event, Some(Event::TaskOpened(t)) if !t.approval.is_empty()) && !op.once_in(3, 15, 9);
    let asked = opened.as_ref().filter(|r| waits(r)).and_then(|r| crate::waits::ask(writer, op, r));
    std::iter::once(opened).chain(asked.map(Some)).collect()
}

fn open(writer: &Writer, op: &Op, id: &[u8], parent: Option<&Task>) -> Option<Record> {
    const LIVES: [u64; 5] = [20_000, 5 * MINUTE, 60 * MINUTE, 10 * 60 * MINUTE, DAY];
    let now = writer.now();
    let opener = *op.pick(0, &CALLERS)?;
    let environment = match parent {
        Some(p) => p.terms.environment.to_string(),
        None => ENVIRONMENTS[usize::from(op.once_in(2, 0, 4))].into(),
    };
    let most = parent.map_or(u64::MAX, |p| p.terms.max_deadline.0).min(now + LIVES[op.n[2] as usize % 5].max(MINUTE));
    let within = parent.map_or(u64::MAX, |p| p.deadline.0);
    let mut opened = TaskOpened {
        task: id.to_vec(),
        parent: parent.map_or_else(Vec::new, |p| p.terms.id.as_bytes().to_vec()),
        owner: Some(if op.once_in(2, 3, 3) { person(PEOPLE[op.n[2] as usize % 2]) } else { workload(opener) }),
        opener: opener.into(),
        callers: CALLERS.iter().map(|c| (*c).into()).collect(),
        environment: environment.clone(),
        purpose: String::new(),
        // Sometimes wider than its parent: the fold has to refuse it.
        allowance: Some(
            parent.filter(|_| !op.once_in(2, 5, 8)).map_or(allowance(op, &environment), |p| p.terms.allowance.as_ref().clone()),
        ),
        opened_at: now,
        deadline: (now + LIVES[(op.n[2] >> 5) as usize % 5]).min(most).min(within),
        max_deadline: most,
        heartbeat: if op.once_in(2, 7, 3) { 5_000 } else { 0 },
        policy_version: policy_in_force(&writer.state, &environment),
        svid: Some(svid(opener, op.n[3] >> 3)),
        approval: if op.once_in(2, 13, 15) { id.iter().map(|b| b ^ 0xff).collect() } else { vec![] },
        ..Default::default()
    };
    crate::people::behind(writer, op, &mut opened);
    crate::glass::below(op, &mut opened, parent);
    let opener = opened.opener.clone();
    let asked = request(op, &opener);
    Some(Record::new(Author::SpiffeId(opener), Event::TaskOpened(opened.into())).for_request(asked))
}

pub fn issue(writer: &Writer, op: &Op, id: &[u8], task: &Task) -> Option<Record> {
    let parts = (task.terms.id, &*task.terms.environment, task.deadline.0);
    issue_in(writer, op, id, parts).map(|record| crate::glass::within(op, record, task))
}

fn issue_in(writer: &Writer, op: &Op, id: &[u8], (task, environment, deadline): (TaskId, &str, u64)) -> Option<Record> {
    const LIVES: [u64; 4] = [3_000, 30_000, 5 * MINUTE, 60 * MINUTE];
    let now = writer.now();
    let caller = *op.pick(2, &CALLERS)?;
    // Sometimes across environments.
    let (upstream, environment) = match UPSTREAMS.iter().filter(|(_, e)| *e == environment).count() {
        _ if op.once_in(2, 8, 25) => UPSTREAMS[op.n[1] as usize % 3],
        2 => UPSTREAMS[(op.n[2] >> 9) as usize % 2],
        _ => UPSTREAMS[2],
    };
    let binding = if op.once_in(2, 12, 4) { "b" } else { "" };
    let end = (now + LIVES[(op.n[2] >> 4) as usize % 4]).min(deadline);
    let (signer, _) = writer.state.active_key(KeyPurpose::AccessToken, "dev")?;
    let token = TokenEvidence { issuer: "https://idp.example".into(), id: format!("t{}", op.n[3] % 3), expires_at: now + DAY };
    let ada = op.once_in(2, 16, 4);
    let issued = CredentialIssued {
        credential: id.to_vec(),
        task: task.as_bytes().to_vec(),
        kind: 1,
        caller: caller.into(),
        subject: ada.then(|| person("ada")),
        actors: if ada { vec![workload(caller)] } else { vec![] },
        upstream: upstream.into(),
        scopes: SCOPES[..1 + op.n[2] as usize % 2].iter().map(|s| (*s).into()).collect(),
        tool: TOOLS[(op.n[2] >> 2) as usize % 2].into(),
        binding: binding.into(),
        environment: environment.into(),
        issued_at: now,
        expires_at: end,
        renewable_until: if op.once_in(2, 14, 2) { deadline } else { end },
        svid: Some(svid(caller, op.n[3] >> 3)),
        subject_token: ada.then_some(token),
        key: signer.into(),
        policy_version: policy_in_force(&writer.state, environment),
        upstream_version: writer.state.upstreams.get(upstream).map_or(0, |u| u.version),
        binding_version: writer.state.bindings.get(binding).map_or(0, |b| b.version),
        ..Default::default()
    };
    Some(Record::new(Author::SpiffeId(caller.into()), Event::Issued(issued.into())).for_request(request(op, caller)))
}

fn inline(writer: &Writer, op: &Op, ids: &[Vec<u8>; 3]) -> Vec<Record> {
    let parent = if op.once_in(1, 6, 3) { task(writer, op, 1) } else { None };
    let Some(opened) = open(writer, op, &ids[0], parent) else { return vec![] };
    let Some(Event::TaskOpened(t)) = &opened.event else { return vec![] };
    let Some(id) = TaskId::from_slice(&ids[0]) else { return vec![] };
    let Some(issued) = issue_in(writer, op, &ids[1], (id, &t.environment, t.deadline)) else { return vec![] };
    let (glass, opener) = (t.break_glass, t.opener.clone());
    let issued =
        if glass { with(Record { request: None, ..issued }, |i| (i.caller, i.break_glass) = (opener, true)) } else { issued };
    vec![Record { request: None, ..opened }, issued]
}

/// Changes an issuance that is about to be made.
pub fn with(record: Record, change: impl FnOnce(&mut CredentialIssued)) -> Record {
    let mut record = record;
    if let Some(Event::Issued(i)) = &mut record.event {
        change(i);
    }
    record
}

/// A credential of mayfly is presented by any caller that it was passed to.
fn derive(world: &World, w: usize, op: &Op, id: &[u8]) -> Option<Record> {
    let writer = &world.writers[w];
    let state = &writer.state;
    let shown = live(writer, op, 1)?;
    let mut task = state.tasks.at(shown.task())?;
    if op.once_in(3, 6, 3) {
        // Work of a child task, with the parent's credential as evidence.
        task = state.tasks.iter().find(|t| t.terms.path.contains(&task.terms.id) && t.terms.id != task.terms.id).unwrap_or(task);
    }
    let mut ancestors = shown.ancestors().to_vec();
    ancestors.push(Ancestor { credential: shown.id().as_bytes().to_vec(), caller: shown.caller().into() });
    Some(with(issue(writer, op, id, task)?, |i| {
        i.ancestors = ancestors;
        i.shown = shown.id().as_bytes().to_vec();
        i.expires_at = i.expires_at.min(shown.expires_at().0);
        i.renewable_until = i.expires_at;
    }))
}

fn renew(world: &World, w: usize, op: &Op, id: &[u8]) -> Option<Record> {
    let writer = &world.writers[w];
    let old = live(writer, op, 1)?;
    let task = writer.state.tasks.at(old.task())?;
    let first = world.known.get(&old.id().as_bytes()[..])?;
    Some(with(issue(writer, op, id, task)?, |i| {
        let (now, end) = (i.issued_at, i.expires_at);
        let (request, fresh) = (i.svid.clone(), i.clone());
        *i = first.clone();
        (i.credential, i.svid, i.key) = (id.to_vec(), request, fresh.key);
        (i.policy_version, i.upstream_version, i.binding_version) =
            (policy_in_force(&writer.state, &i.environment), 0, writer.state.bindings.get(&*i.binding).map_or(0, |b| b.version));
        i.upstream_version = writer.state.upstreams.get(&*i.upstream).map_or(0, |u| u.version);
        (i.issued_at, i.expires_at) = (now, end.min(first.renewable_until));
        i.renews = old.id().as_bytes().to_vec();
        (i.shown, i.approval) = (vec![], vec![]);
        if first.renews.is_empty() {
            // The first credential of a line is an ancestor of every renewal.
            i.ancestors.push(Ancestor { credential: old.id().as_bytes().to_vec(), caller: first.caller.clone() });
        }
    }))
}

fn extend(writer: &Writer, op: &Op) -> Option<Record> {
    let task = task(writer, op, 1)?;
    let decided_at = writer.now();
    let by = [1_000, 30_000, 10 * MINUTE, DAY][op.n[2] as usize % 4];
    let above = writer.state.tasks.upwards(task).nth(1).map_or(u64::MAX, |p| p.deadline.0);
    let most = task.terms.max_deadline.0.min(above);
    // Sometimes beyond the maximum.
    let deadline = if op.once_in(2, 4, 6) { decided_at + by } else { (task.deadline.0 + by).min(most) };
    let policy_version = policy_in_force(&writer.state, &task.terms.environment);
    let id = task.terms.id.as_bytes().to_vec();
    let extended = TaskExtended { task: id, deadline, decided_at, policy_version, ..Default::default() };
    Some(crate::waits::extension(writer, op, task, extended))
}
