//! Operations that grant nothing: those that revoke, lift, set or give back.

use mayfly::ledger::record::*;
use mayfly::ledger::state::{Task, policy_in_force};
use mayfly::revocation::Target;
use mayfly::seq::Seq;

use crate::make::{CALLERS, ENVIRONMENTS, TOOLS, UPSTREAMS, by_operator, key, live, person, request, svid, task, workload};
use crate::model::{DAY, MINUTE, domain};
use crate::op::{Kind, Op};
use crate::people::{CA, login};
use crate::world::{World, Writer};

/// A target of any sort, on existing things.
fn target(writer: &Writer, op: &Op, i: usize) -> TargetRecord {
    let n = op.n[i];
    let name = |items: &[&str]| items[(n >> 6) as usize % items.len()].to_owned();
    let whose = CALLERS[(n >> 8) as usize % CALLERS.len()];
    let aim = match n % 40 {
        // Sometimes a login, which is a credential, too.
        0..=2 if n & 64 == 0 && !writer.state.logins.is_empty() => {
            RecordedTarget::Credential(login(writer, op, i).map_or(vec![3; 16], |l| l.id.as_bytes().to_vec()))
        }
        0..=2 | 20..=29 => RecordedTarget::Credential(live(writer, op, i).map_or(vec![3; 16], |l| l.id().as_bytes().to_vec())),
        3 | 4 | 30..=33 => RecordedTarget::Task(task(writer, op, i).map_or(vec![3; 16], |t| t.terms.id.as_bytes().to_vec())),
        5 | 34 => RecordedTarget::Caller(whose.into()),
        6 => RecordedTarget::Prefix(name(&[
            "spiffe://a.example",
            "spiffe://a.example/agent",
            "spiffe://a.example/age",
            "spiffe://b.example",
        ])),
        7 => RecordedTarget::TrustDomain(name(&["a.example", "b.example"])),
        8 => RecordedTarget::TrustAnchor(svid(whose, 0).anchor),
        9 => RecordedTarget::Subject(if n & 64 == 0 { person("ada") } else { workload(whose) }),
        10 => RecordedTarget::Upstream(name(&["echo", "git", "bank"])),
        11 | 38 => RecordedTarget::UpstreamScope(Principal { issuer: name(&["echo", "git"]), sub: "write".into() }),
        12 => RecordedTarget::Binding("b".into()),
        13 | 35 => RecordedTarget::Tool(name(&TOOLS)),
        14 => RecordedTarget::Environment(name(&ENVIRONMENTS)),
        15 => {
            let environment = name(&ENVIRONMENTS);
            let version = policy_in_force(&writer.state, &environment) + u64::from(n >> 9) % 2;
            RecordedTarget::PolicyBelow(PolicyBelow { environment, version })
        }
        16 => RecordedTarget::SigningKey(name(&["k0", "k0", CA])),
        17 | 36 => {
            let s = svid(whose, n >> 9);
            RecordedTarget::Svid(SvidTarget { trust_domain: domain(whose), issuing_key: s.issuing_key, serial: s.serial })
        }
        18 | 37 => {
            let sub = format!("{}{}", if n & 64 == 0 { "t" } else { "id" }, (n >> 9) % 3);
            RecordedTarget::SubjectToken(Principal { issuer: "https://idp.example".into(), sub })
        }
        _ => RecordedTarget::Everything(true),
    };
    TargetRecord { aim: Some(aim) }
}

pub fn changes(world: &World, w: usize, op: &Op, ids: &[Vec<u8>; 3]) -> Vec<Record> {
    let writer = &world.writers[w];
    let (state, now) = (&writer.state, writer.now());
    let id_of = |t: &Task| t.terms.id.as_bytes().to_vec();
    // By the ledger's time, as the product does, or by a clock that may be wrong.
    let keep_until = if op.once_in(3, 9, 3) { now } else { state.time.0 + DAY + 2 * 60 * MINUTE };
    let event = match op.kind {
        Kind::Release => live(writer, op, 1)
            .map(|l| Event::Released(CredentialReleased { credential: l.id().as_bytes().to_vec(), keep_until })),
        Kind::Revoke => {
            let targets = (0..1 + (op.n[0] >> 8) as usize % 3).map(|i| target(writer, op, 1 + i)).collect();
            let issued_only = op.once_in(0, 4, 2);
            Some(Event::Revoked(TargetsRevoked { targets, issued_only, reason: String::new(), keep_until, lock_only: false }))
        }
        Kind::Lock => {
            let targets = vec![target(writer, op, 1)];
            Some(Event::Revoked(TargetsRevoked { targets, lock_only: true, keep_until, ..Default::default() }))
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
            let silent = state.time >= t.ends();
            let outcome = if silent { 3 } else { 1 + (op.n[2] % 4) as i32 };
            Event::TaskClosed(TaskClosed { task: id_of(t), outcome, reason: String::new(), keep_until })
        }),
        Kind::Heartbeats => {
            let tasks = state.tasks.iter().filter(|t| t.terms.heartbeat > 0 || op.once_in(2, 0, 2)).map(id_of).collect();
            Some(Event::TaskHeartbeats(TaskHeartbeats { tasks, ..Default::default() }))
        }
        Kind::AskApproval if op.once_in(3, 5, 3) => {
            crate::waits::ask_more(writer, op, &ids[0]).map(|asked| Event::ApprovalAsked(asked.into()))
        }
        Kind::AskApproval => crate::approval::ask(writer, op, &ids[0]).map(|asked| Event::ApprovalAsked(asked.into())),
        Kind::UseOnce => {
            let mut digest = vec![0; 32];
            digest[0] = (op.n[1] % 3) as u8;
            Some(Event::UsedOnce(UsedOnce {
                digest,
                until: now + [5_000, 10 * MINUTE][op.n[2] as usize % 2],
                ..UsedOnce::default()
            }))
        }
        Kind::SetPolicy => {
            let environment = ENVIRONMENTS[op.n[1] as usize % 2].to_owned();
            let version = policy_in_force(state, &environment) + 1;
            Some(Event::PolicySet(PolicySetUpdated { environment, version, ..Default::default() }))
        }
        Kind::SetBinding => {
            let version = state.bindings.get("b").map_or(1, |b| b.version + 1);
            Some(Event::BindingSet(BindingUpdated {
                name: "b".into(),
                version,
                pending: op.once_in(2, 0, 3),
                ..Default::default()
            }))
        }
        Kind::SetUpstream => return narrowed(writer, op, keep_until),
        Kind::RotateKey => return rotated(writer),
        Kind::Compromise => return compromised(writer, op, keep_until),
        Kind::Generation => return generation(world, writer, op),
        _ => None,
    };
    let caller = CALLERS[op.n[0] as usize % CALLERS.len()];
    event.map(|e| Record::new(Author::SpiffeId(caller.into()), e).for_request(request(op, caller))).into_iter().collect()
}

/// A new version of an upstream's registration, or its disabling: narrowing revokes in the same group.
fn narrowed(writer: &Writer, op: &Op, keep_until: u64) -> Vec<Record> {
    let name = UPSTREAMS[op.n[1] as usize % 3].0.to_owned();
    let version = writer.state.upstreams.get(&*name).map_or(1, |u| u.version + 1);
    let disabled = op.once_in(2, 0, 3);
    let mut group =
        vec![by_operator(Event::UpstreamSet(UpstreamUpdated { name: name.clone(), version, disabled, ..Default::default() }))];
    if disabled {
        let targets = vec![TargetRecord { aim: Some(RecordedTarget::Upstream(name)) }];
        let revoked = TargetsRevoked { targets, issued_only: true, keep_until, ..Default::default() };
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

/// A key is compromised, and another key replaces it.
fn compromised(writer: &Writer, op: &Op, keep_until: u64) -> Vec<Record> {
    let keys: Vec<_> = writer.state.keys.keys().filter(|key| &***key != CA).cloned().collect();
    let Some(stolen) = op.pick(1, &keys) else { return vec![] };
    let mut group = vec![change(stolen, KeyState::Compromised)];
    if op.once_in(2, 0, 2) {
        let targets = vec![TargetRecord { aim: Some(RecordedTarget::SigningKey(stolen.to_string())) }];
        group.insert(0, by_operator(Event::Revoked(TargetsRevoked { targets, keep_until, ..Default::default() })));
    }
    group.push(by_operator(Event::KeyAdded(key(writer.state.keys.len(), KeyState::Active))));
    group
}

/// Rare: nothing of the run so far remains after it.
fn generation(world: &World, writer: &Writer, op: &Op) -> Vec<Record> {
    if !op.once_in(1, 0, 4) {
        return vec![];
    }
    // Among several writers, a writer may choose a number that is no longer the next one.
    let number = u32::from(if op.once_in(2, 0, 4) { writer.state.head } else { world.observer.head }.generation()) + 1;
    let begun = GenerationBegun {
        generation: number,
        cause: "recovered".into(),
        store: vec![1; 16],
        after: Seq::ZERO.as_u64(),
        // Two writers that both continue cannot agree on an earlier time: a recovery is for one writer.
        reset_time: !world.several() && op.once_in(2, 3, 3),
    };
    vec![by_operator(Event::GenerationBegun(begun))]
}

/// A retry of a request, as its caller sends it: the credential issued for it is given back, and another replaces it.
pub fn replaced(world: &World, w: usize, op: &Op, id: &[u8]) -> Vec<Record> {
    let writer = &world.writers[w];
    let lives = crate::make::lives(writer).into_iter();
    // Sometimes a credential that is no longer bound to a request: the fold has to refuse it.
    let named: Vec<_> = lives.filter(|l| l.answers() || op.once_in(2, 20, 6)).collect();
    let Some(first) = op.pick(1, &named) else { return vec![] };
    let issued = |r: &&Record| matches!(&r.event, Some(Event::Issued(i)) if i.credential == first.id().as_bytes());
    let before = world.groups.iter().flatten().find(issued);
    let Some((before, task)) = before.zip(writer.state.tasks.at(first.task())) else { return vec![] };
    let (caller, first) = (first.caller().to_owned(), first.id().as_bytes().to_vec());
    let Some(again) = crate::make::issue(writer, op, id, task) else { return vec![] };
    let again = crate::make::with(again, |i| (i.caller, i.replaces) = (caller, first.clone()));
    let released = CredentialReleased { credential: first, keep_until: writer.now() + DAY };
    let released = Record::new(Author::Mayfly("replaced".into()), Event::Released(released));
    let again = again.for_request(before.request.clone());
    if op.once_in(2, 24, 8) { vec![again] } else { vec![released, again] }
}
