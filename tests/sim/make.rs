//! From an operation to records, decided on one writer's view. Bounds that never change are kept here, as policy keeps them; what can
//! change between the decision and its place in the order is left to the fold.

use mayfly::ledger::record::*;
use mayfly::ledger::state::{Live, Task, policy_in_force};
use mayfly::revocation::Target;
use mayfly::seq::{Seq, TaskId};

use crate::model::{DAY, MINUTE, domain};
use crate::op::{Kind, Op};
use crate::rng::Rng;
use crate::world::{World, Writer};

pub const CALLERS: [&str; 4] =
    ["spiffe://a.example/agent", "spiffe://a.example/agent/sub", "spiffe://a.example/agents", "spiffe://b.example/server"];
const UPSTREAMS: [(&str, &str); 3] = [("echo", "dev"), ("git", "dev"), ("bank", "prod")];
const SCOPES: [&str; 2] = ["read", "write"];
const TOOLS: [&str; 2] = ["t", "u"];
const ENVIRONMENTS: [&str; 2] = ["dev", "prod"];
const PEOPLE: [&str; 2] = ["ada", "bob"];

fn person(name: &str) -> Identity {
    Identity { issuer: "https://idp.example".into(), sub: name.into() }
}

fn workload(id: &str) -> Identity {
    Identity { issuer: domain(id), sub: id.into() }
}

fn svid(caller: &str, which: u32) -> SvidEvidence {
    let number = CALLERS.iter().position(|c| *c == caller).unwrap_or(9) as u8;
    let anchor = domain(caller).as_bytes()[0];
    SvidEvidence {
        anchor: vec![anchor; 32],
        issuing_key: vec![8; 32],
        serial: vec![number, 1 + (which % 2) as u8],
        not_after: u64::MAX / 2,
    }
}

/// One of a few request ids, so that they come up again.
fn request(op: &Op, caller: &str) -> Option<Request> {
    op.once_in(3, 4, 3).then(|| Request { caller: caller.into(), id: format!("r{}", (op.n[3] >> 8) % 12), digest: vec![1; 32] })
}

pub fn begin(world: &mut World) {
    let begun = GenerationBegun { generation: 1, cause: "created".into(), store: vec![1; 16], ..Default::default() };
    let mut events = vec![Event::GenerationBegun(begun)];
    let policy = |e: &str| Event::PolicySet(PolicySet { environment: e.into(), version: 1, ..Default::default() });
    events.extend(ENVIRONMENTS.map(policy));
    events.extend(UPSTREAMS.map(|(n, _)| Event::UpstreamSet(UpstreamSet { name: n.into(), version: 1, ..Default::default() })));
    events.push(Event::BindingSet(BindingSet { name: "b".into(), version: 1, ..Default::default() }));
    events.push(Event::KeyAdded(key(0, KeyState::Active)));
    for event in events {
        world.propose(0, vec![by_operator(event)], false, false);
    }
    world.pack(0);
}

/// A few tasks with credentials in them, so that there is something to lose from the first step on.
pub fn furnish(world: &mut World, seed: u32) {
    let mut rng = Rng::new(seed.into());
    for kind in [Kind::OpenRoot, Kind::OpenRoot, Kind::Inline, Kind::Inline, Kind::OpenRoot] {
        // Lives of an hour and more, nothing that waits for an approval, and the wide environment mostly.
        let long = (rng.next() as u32 & 0x0000_ff80) | 0x5500_0000 | 4 + 5 * 32;
        make(world, 0, &Op { kind, n: [rng.next() as u32, rng.next() as u32, long, rng.next() as u32 | 16] });
    }
}

fn key(number: usize, state: KeyState) -> KeyAdded {
    let (purpose, state) = (KeyPurpose::AccessToken as i32, state as i32);
    KeyAdded { key: format!("k{number}"), purpose, environment: "dev".into(), state, ..Default::default() }
}

fn by_operator(event: Event) -> Record {
    Record::new(Who::LocalUid(0), event)
}

/// Puts what the operation makes in line at a writer.
pub fn make(world: &mut World, w: usize, op: &Op) {
    let ids = [world.id(), world.id(), world.id()];
    let writer = &world.writers[w];
    let at = |record: Record| record.decided_at(writer.durable);
    let careful = op.once_in(3, 0, 2) || op.once_in(3, 1, 2);
    let (records, grant) = match op.kind {
        Kind::OpenRoot => (vec![open(writer, op, &ids[0], None).map(at)], true),
        Kind::OpenChild => (vec![task(writer, op, 1).and_then(|p| open(writer, op, &ids[0], Some(p))).map(at)], true),
        Kind::Inline => (inline(writer, op, &ids).into_iter().map(|r| Some(at(r))).collect(), true),
        Kind::Issue => (vec![task(writer, op, 1).and_then(|t| issue(writer, op, &ids[0], t)).map(at)], true),
        Kind::Batch => {
            let one = |i: usize| task(writer, op, 1 + i % 2).and_then(|t| issue(writer, op, &ids[i], t)).map(at);
            let mut batch: Vec<_> = (0..3).map(one).collect();
            // A request id stands for the whole batch.
            batch.iter_mut().skip(1).flatten().for_each(|r| r.request = None);
            (batch, true)
        }
        Kind::Derive => (vec![derive(world, w, op, &ids[0]).map(at)], true),
        Kind::Renew => (vec![renew(world, w, op, &ids[0]).map(at)], true),
        Kind::IssueApproved => (vec![approved(writer, op, &ids[0]).map(at)], true),
        Kind::Extend => (vec![extend(writer, op).map(at)], true),
        Kind::DecideApproval => (vec![decide(writer, op).map(at)], true),
        Kind::Repeat => {
            let Some(group) = op.pick(1, &world.groups).cloned() else { return };
            world.propose(w, group, op.once_in(2, 0, 2), false);
            return;
        }
        _ => (changes(world, w, op, &ids).into_iter().map(|r| Some(at(r))).collect(), false),
    };
    let records: Option<Vec<Record>> = records.into_iter().collect();
    let Some(records) = records.filter(|r| !r.is_empty()) else { return };
    world.propose(w, records, grant, grant && careful);
}

fn task<'a>(writer: &'a Writer, op: &Op, i: usize) -> Option<&'a Task> {
    let all: Vec<&Task> = writer.state.tasks.iter().collect();
    // The newer half more often: the older ones are over.
    let half = &all[if op.once_in(i, 8, 3) { 0 } else { all.len() / 2 }..];
    op.pick(i, half).copied()
}

fn live<'a>(writer: &'a Writer, op: &Op, i: usize) -> Option<&'a Live> {
    let all: Vec<&Live> = (0..writer.state.credentials.places()).filter_map(|at| writer.state.credentials.at(at)).collect();
    op.pick(i, &all).copied()
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
    let opened = TaskOpened {
        task: id.to_vec(),
        parent: parent.map_or_else(Vec::new, |p| p.terms.id.as_bytes().to_vec()),
        owner: Some(if op.once_in(2, 3, 3) { person(PEOPLE[op.n[2] as usize % 2]) } else { workload(opener) }),
        opener: opener.into(),
        callers: CALLERS.iter().map(|c| (*c).into()).collect(),
        environment: environment.clone(),
        purpose: String::new(),
        // Now and then wider than its parent: the fold has to see it.
        allowance: Some(
            parent.filter(|_| !op.once_in(2, 5, 8)).map_or(allowance(op, &environment), |p| p.terms.allowance.clone()),
        ),
        opened_at: now,
        deadline: (now + LIVES[(op.n[2] >> 5) as usize % 5]).min(most).min(within),
        max_deadline: most,
        heartbeat: if op.once_in(2, 7, 3) { 5_000 } else { 0 },
        policy_version: policy_in_force(&writer.state, &environment),
        svid: Some(svid(opener, op.n[3] >> 3)),
        approval: if op.once_in(2, 13, 30) { vec![7; 16] } else { vec![] },
        ancestor: if op.once_in(2, 15, 6) {
            live(writer, op, 3).map_or_else(Vec::new, |l| l.id.as_bytes().to_vec())
        } else {
            vec![]
        },
        break_glass: false,
    };
    Some(Record::new(Who::SpiffeId(opener.into()), Event::TaskOpened(opened)).for_request(request(op, opener)))
}

fn issue(writer: &Writer, op: &Op, id: &[u8], task: &Task) -> Option<Record> {
    let parts = (task.terms.id, &*task.terms.environment, task.deadline.0);
    issue_in(writer, op, id, parts)
}

fn issue_in(writer: &Writer, op: &Op, id: &[u8], (task, environment, deadline): (TaskId, &str, u64)) -> Option<Record> {
    const LIVES: [u64; 4] = [3_000, 30_000, 5 * MINUTE, 60 * MINUTE];
    let now = writer.now();
    let caller = *op.pick(2, &CALLERS)?;
    // Now and then through the wall between environments.
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
    let issued = Issued {
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
    Some(Record::new(Who::SpiffeId(caller.into()), Event::Issued(issued)).for_request(request(op, caller)))
}

fn inline(writer: &Writer, op: &Op, ids: &[Vec<u8>; 3]) -> Vec<Record> {
    let parent = if op.once_in(1, 6, 3) { task(writer, op, 1) } else { None };
    let Some(opened) = open(writer, op, &ids[0], parent) else { return vec![] };
    let Some(Event::TaskOpened(t)) = &opened.event else { return vec![] };
    let Some(id) = TaskId::from_slice(&ids[0]) else { return vec![] };
    let Some(issued) = issue_in(writer, op, &ids[1], (id, &t.environment, t.deadline)) else { return vec![] };
    vec![Record { request: None, ..opened }, issued]
}

/// Changes an issuance that is about to be made.
fn with(record: Record, change: impl FnOnce(&mut Issued)) -> Record {
    let mut record = record;
    if let Some(Event::Issued(i)) = &mut record.event {
        change(i);
    }
    record
}

/// A credential of ours is shown, by whomever it was passed to.
fn derive(world: &World, w: usize, op: &Op, id: &[u8]) -> Option<Record> {
    let writer = &world.writers[w];
    let state = &writer.state;
    let shown = live(writer, op, 1)?;
    let mut task = state.tasks.at(shown.task)?;
    if op.once_in(3, 6, 3) {
        // A child's work, with the parent's credential as evidence.
        task = state.tasks.iter().find(|t| t.terms.path.contains(&task.terms.id) && t.terms.id != task.terms.id).unwrap_or(task);
    }
    let mut ancestors = state.credentials.ancestors(shown).to_vec();
    ancestors.push(Ancestor { credential: shown.id.as_bytes().to_vec(), caller: state.credentials.caller(shown).into() });
    Some(with(issue(writer, op, id, task)?, |i| {
        i.ancestors = ancestors;
        i.shown = shown.id.as_bytes().to_vec();
        i.expires_at = i.expires_at.min(shown.expires_at.0);
        i.renewable_until = i.expires_at;
    }))
}

fn renew(world: &World, w: usize, op: &Op, id: &[u8]) -> Option<Record> {
    let writer = &world.writers[w];
    let old = live(writer, op, 1)?;
    let task = writer.state.tasks.at(old.task)?;
    let first = world.known.get(&old.id.as_bytes().to_vec())?;
    Some(with(issue(writer, op, id, task)?, |i| {
        let (now, end) = (i.issued_at, i.expires_at);
        let (request, fresh) = (i.svid.clone(), i.clone());
        *i = first.clone();
        (i.credential, i.svid, i.key) = (id.to_vec(), request, fresh.key);
        (i.policy_version, i.upstream_version, i.binding_version) =
            (policy_in_force(&writer.state, &i.environment), 0, writer.state.bindings.get(&*i.binding).map_or(0, |b| b.version));
        i.upstream_version = writer.state.upstreams.get(&*i.upstream).map_or(0, |u| u.version);
        (i.issued_at, i.expires_at) = (now, end.min(first.renewable_until));
        i.renews = old.id.as_bytes().to_vec();
        (i.shown, i.approval) = (vec![], vec![]);
        if first.renews.is_empty() {
            // The first of its line stands as ancestor of every renewal.
            i.ancestors.push(Ancestor { credential: old.id.as_bytes().to_vec(), caller: first.caller.clone() });
        }
    }))
}

fn approved(writer: &Writer, op: &Op, id: &[u8]) -> Option<Record> {
    let all: Vec<_> = writer.state.approvals.keys().collect();
    let approval = op.pick(3, &all)?.as_bytes().to_vec();
    let asked = writer.state.approvals.values().nth(op.index(3, all.len())?)?.task;
    let task = asked.and_then(|t| writer.state.tasks.get(&t)).or_else(|| task(writer, op, 1))?;
    Some(with(issue(writer, op, id, task)?, |i| i.approval = approval))
}

fn decide(writer: &Writer, op: &Op) -> Option<Record> {
    let all: Vec<_> = writer.state.approvals.keys().collect();
    let approval = op.pick(1, &all)?.as_bytes().to_vec();
    let decided = ApprovalDecided { approval, given: !op.once_in(2, 0, 5), reason: String::new() };
    Some(Record::new(Who::Person(person(PEOPLE[op.n[3] as usize % 2])), Event::ApprovalDecided(decided)))
}

fn extend(writer: &Writer, op: &Op) -> Option<Record> {
    let task = task(writer, op, 1)?;
    let decided_at = writer.now();
    let by = [1_000, 30_000, 10 * MINUTE, DAY][op.n[2] as usize % 4];
    let above = writer.state.tasks.upwards(task).nth(1).map_or(u64::MAX, |p| p.deadline.0);
    let most = task.terms.max_deadline.0.min(above);
    // Sometimes past what it may be.
    let deadline = if op.once_in(2, 4, 6) { decided_at + by } else { (task.deadline.0 + by).min(most) };
    let policy_version = policy_in_force(&writer.state, &task.terms.environment);
    let extended = TaskExtended { task: task.terms.id.as_bytes().to_vec(), deadline, decided_at, policy_version };
    Some(by_operator(Event::TaskExtended(extended)).for_request(request(op, &task.terms.opener)))
}

/// One target of any sort, about things that there are.
pub fn target(writer: &Writer, op: &Op, i: usize) -> TargetRecord {
    let n = op.n[i];
    let name = |items: &[&str]| items[(n >> 6) as usize % items.len()].to_owned();
    let whose = CALLERS[(n >> 8) as usize % CALLERS.len()];
    let aim = match n % 40 {
        0..=2 | 20..=29 => Aim::Credential(live(writer, op, i).map_or(vec![3; 16], |l| l.id.as_bytes().to_vec())),
        3 | 4 | 30..=33 => Aim::Task(task(writer, op, i).map_or(vec![3; 16], |t| t.terms.id.as_bytes().to_vec())),
        5 | 34 => Aim::Caller(whose.into()),
        6 => {
            Aim::Prefix(name(&["spiffe://a.example", "spiffe://a.example/agent", "spiffe://a.example/age", "spiffe://b.example"]))
        }
        7 => Aim::TrustDomain(name(&["a.example", "b.example"])),
        8 => Aim::TrustAnchor(svid(whose, 0).anchor),
        9 => Aim::Subject(if n & 64 == 0 { person("ada") } else { workload(whose) }),
        10 => Aim::Upstream(name(&["echo", "git", "bank"])),
        11 | 38 => Aim::UpstreamScope(Identity { issuer: name(&["echo", "git"]), sub: "write".into() }),
        12 => Aim::Binding("b".into()),
        13 | 35 => Aim::Tool(name(&TOOLS)),
        14 => Aim::Environment(name(&ENVIRONMENTS)),
        15 => {
            let environment = name(&ENVIRONMENTS);
            let version = policy_in_force(&writer.state, &environment) + u64::from(n >> 9) % 2;
            Aim::PolicyBelow(PolicyBelow { environment, version })
        }
        16 => Aim::SigningKey("k0".into()),
        17 | 36 => {
            let s = svid(whose, n >> 9);
            Aim::Svid(SvidTarget { trust_domain: domain(whose), issuing_key: s.issuing_key, serial: s.serial })
        }
        18 | 37 => Aim::SubjectToken(Identity { issuer: "https://idp.example".into(), sub: format!("t{}", (n >> 9) % 3) }),
        _ => Aim::Everything(true),
    };
    TargetRecord { aim: Some(aim) }
}

fn changes(world: &World, w: usize, op: &Op, ids: &[Vec<u8>; 3]) -> Vec<Record> {
    let writer = &world.writers[w];
    let (state, now) = (&writer.state, writer.now());
    let id_of = |t: &Task| t.terms.id.as_bytes().to_vec();
    // By the time of the ledger, as the product does, or by a clock that may be wrong.
    let keep_until = if op.once_in(3, 9, 3) { now } else { state.time.0 + DAY + 2 * 60 * MINUTE };
    let event = match op.kind {
        Kind::Release => {
            live(writer, op, 1).map(|l| Event::Released(Released { credential: l.id.as_bytes().to_vec(), keep_until }))
        }
        Kind::Revoke => {
            let targets = (0..1 + (op.n[0] >> 8) as usize % 3).map(|i| target(writer, op, 1 + i)).collect();
            let issued_only = op.once_in(0, 4, 2);
            Some(Event::Revoked(Revoked { targets, issued_only, reason: String::new(), keep_until, lock_only: false }))
        }
        Kind::Lock => {
            let targets = vec![target(writer, op, 1)];
            Some(Event::Revoked(Revoked { targets, lock_only: true, keep_until, ..Default::default() }))
        }
        Kind::Lift => {
            let locked: Vec<Target> =
                state.rules.entries().into_iter().filter(|(_, e)| e.lock.is_some()).map(|(t, _)| t).collect();
            let all = op.once_in(2, 0, 2);
            let targets: Vec<_> = if all { locked.iter().collect() } else { op.pick(1, &locked).into_iter().collect() };
            let targets: Vec<_> = targets.into_iter().map(Target::to_record).collect();
            (!targets.is_empty()).then_some(Event::LockLifted(LockLifted { targets, reason: String::new() }))
        }
        Kind::Hold => task(writer, op, 1)
            .map(|t| Event::TaskHeld(TaskHeld { task: id_of(t), rank: 1 + (op.n[2] % 3) as i32, reason: String::new() })),
        Kind::Resume => {
            let held: Vec<&Task> = state.tasks.iter().filter(|t| !t.holds.is_empty()).collect();
            let rank = 1 + (op.n[2] % 3) as i32;
            op.pick(1, &held).map(|t| Event::TaskResumed(TaskResumed { task: id_of(t), rank, reason: String::new() }))
        }
        Kind::Close => task(writer, op, 1).map(|t| {
            let silent = t.silent(state.time) || state.time >= t.deadline;
            let outcome = if silent { 3 } else { 1 + (op.n[2] % 4) as i32 };
            Event::TaskClosed(TaskClosed { task: id_of(t), outcome, reason: String::new(), keep_until })
        }),
        Kind::Heartbeats => {
            let tasks = state.tasks.iter().filter(|t| t.terms.heartbeat > 0 || op.once_in(2, 0, 2)).map(id_of).collect();
            Some(Event::TaskHeartbeats(TaskHeartbeats { tasks, ..Default::default() }))
        }
        Kind::AskApproval => Some(Event::ApprovalAsked(ApprovalAsked {
            approval: ids[0].clone(),
            digest: vec![1; 32],
            caller: CALLERS[op.n[2] as usize % CALLERS.len()].into(),
            task: task(writer, op, 1).map_or_else(Vec::new, id_of),
            upstream: "echo".into(),
            expires_at: now + [9_000, 10 * MINUTE][op.n[2] as usize % 2],
        })),
        Kind::UseOnce => {
            let mut digest = vec![0; 32];
            digest[0] = (op.n[1] % 3) as u8;
            Some(Event::UsedOnce(UsedOnce { digest, until: now + [5_000, 10 * MINUTE][op.n[2] as usize % 2] }))
        }
        Kind::SetPolicy => {
            let environment = ENVIRONMENTS[op.n[1] as usize % 2].to_owned();
            let version = policy_in_force(state, &environment) + 1;
            Some(Event::PolicySet(PolicySet { environment, version, ..Default::default() }))
        }
        Kind::SetBinding => {
            let version = state.bindings.get("b").map_or(1, |b| b.version + 1);
            Some(Event::BindingSet(BindingSet { name: "b".into(), version, pending: op.once_in(2, 0, 3), ..Default::default() }))
        }
        Kind::SetUpstream => return narrowed(writer, op, keep_until),
        Kind::RotateKey => return rotated(writer),
        Kind::Compromise => return compromised(writer, op, keep_until),
        Kind::Generation => return generation(world, writer, op),
        _ => None,
    };
    let caller = CALLERS[op.n[0] as usize % CALLERS.len()];
    event.map(|e| Record::new(Who::SpiffeId(caller.into()), e).for_request(request(op, caller))).into_iter().collect()
}

/// An upstream is registered anew, or disabled: narrowing revokes in the same group.
fn narrowed(writer: &Writer, op: &Op, keep_until: u64) -> Vec<Record> {
    let name = UPSTREAMS[op.n[1] as usize % 3].0.to_owned();
    let version = writer.state.upstreams.get(&*name).map_or(1, |u| u.version + 1);
    let disabled = op.once_in(2, 0, 3);
    let mut group =
        vec![by_operator(Event::UpstreamSet(UpstreamSet { name: name.clone(), version, disabled, ..Default::default() }))];
    if disabled {
        let targets = vec![TargetRecord { aim: Some(Aim::Upstream(name)) }];
        let revoked = Revoked { targets, issued_only: true, keep_until, ..Default::default() };
        group.push(by_operator(Event::Revoked(revoked)));
    }
    group
}

fn change(key: &str, state: KeyState) -> Record {
    by_operator(Event::KeyChanged(KeyChanged { key: key.into(), state: state as i32, reason: String::new() }))
}

fn rotated(writer: &Writer) -> Vec<Record> {
    let old = writer.state.active_key(KeyPurpose::AccessToken, "dev").map(|(id, _)| id.to_owned());
    let next = by_operator(Event::KeyAdded(key(writer.state.keys.len(), KeyState::Active)));
    let retired = old.map(|k| change(&k, KeyState::Retired));
    retired.into_iter().chain([next]).collect()
}

/// A key is in somebody else's hands: another takes its place.
fn compromised(writer: &Writer, op: &Op, keep_until: u64) -> Vec<Record> {
    let keys: Vec<_> = writer.state.keys.keys().cloned().collect();
    let Some(stolen) = op.pick(1, &keys) else { return vec![] };
    let mut group = vec![change(stolen, KeyState::Compromised)];
    if op.once_in(2, 0, 2) {
        let targets = vec![TargetRecord { aim: Some(Aim::SigningKey(stolen.to_string())) }];
        group.insert(0, by_operator(Event::Revoked(Revoked { targets, keep_until, ..Default::default() })));
    }
    group.push(by_operator(Event::KeyAdded(key(keys.len(), KeyState::Active))));
    group
}

/// Rare: nothing of the run so far is left after it.
fn generation(world: &World, writer: &Writer, op: &Op) -> Vec<Record> {
    if !op.once_in(1, 0, 4) {
        return vec![];
    }
    // One of several writers may be late with it.
    let number = u32::from(if op.once_in(2, 0, 4) { writer.state.head } else { world.observer.head }.generation()) + 1;
    let begun = GenerationBegun {
        generation: number,
        cause: "recovered".into(),
        store: vec![1; 16],
        after: Seq::ZERO.as_u64(),
        // Two writers cannot agree on an earlier time while both go on: a recovery is for one.
        reset_time: !world.several() && op.once_in(2, 3, 3),
    };
    vec![by_operator(Event::GenerationBegun(begun))]
}
