//! The rotation of keys. Pure: determines what is due at a time, and the records that carry it out.
//!
//! A `Next` key is published before it signs, so that verifiers know it. Then it becomes active, and the old key only verifies until
//! everything that it signed has ended. The changes of one plan form one group, so that there is always exactly one active key.

use std::collections::BTreeMap;

use super::purpose_name;
use crate::certificates::CaRotation;
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_ledger::record::{Author, Event, KeyAdded, KeyChanged, KeyPurpose, KeyState, Record, TargetsRevoked};
use mayfly_ledger::revocation::{Rules, Target};
use mayfly_ledger::state::ManagedKey;
use mayfly_verify::seq::Millis;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// The rotation schedule of a purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RotationSchedule {
    /// How long a key is active, in milliseconds.
    pub every_ms: u64,
    /// A key ends with the day (UTC) in which it became active.
    pub daily: bool,
    /// How long a key is published before it becomes active, in milliseconds. 0 for keys that nobody else verifies with.
    pub ahead_ms: u64,
    /// How long a key is kept after it was active, in milliseconds.
    pub verifies_ms: u64,
}

impl RotationSchedule {
    /// The schedule of a purpose.
    pub const fn of(purpose: KeyPurpose) -> RotationSchedule {
        let verifies_ms = limits::KEY_VERIFIES_MS;
        match purpose {
            KeyPurpose::Reference => RotationSchedule { every_ms: DAY_MS, daily: true, ahead_ms: 0, verifies_ms },
            // Long-lived, so that checkers of old checkpoints need few keys.
            KeyPurpose::Checkpoint => {
                let ahead_ms = limits::KEY_PUBLISHED_AHEAD_MS;
                RotationSchedule { every_ms: limits::CHECKPOINT_KEY_SIGNS_MS, daily: false, ahead_ms, verifies_ms }
            }
            KeyPurpose::Password => RotationSchedule { every_ms: limits::KEY_SIGNS_MS, daily: false, ahead_ms: 0, verifies_ms },
            KeyPurpose::Federation => {
                let ahead_ms = limits::FEDERATION_KEY_PUBLISHED_AHEAD_MS;
                RotationSchedule { every_ms: limits::KEY_SIGNS_MS, daily: false, ahead_ms, verifies_ms }
            }
            KeyPurpose::UpstreamCa | KeyPurpose::SshCa => {
                let (every_ms, ahead_ms) = (limits::UPSTREAM_CA_SIGNS_MS, limits::UPSTREAM_CA_PUBLISHED_AHEAD_MS);
                RotationSchedule { every_ms, daily: false, ahead_ms, verifies_ms }
            }
            _ => RotationSchedule {
                every_ms: limits::KEY_SIGNS_MS,
                daily: false,
                ahead_ms: limits::KEY_PUBLISHED_AHEAD_MS,
                verifies_ms,
            },
        }
    }

    fn ends(&self, since: Millis) -> Millis {
        if self.daily { Millis((since.0 / DAY_MS + 1).saturating_mul(DAY_MS)) } else { since.plus(self.every_ms) }
    }
}

/// The changes that are due for the keys of one purpose in one environment. Usually empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RotationPlan {
    /// A key to be generated, with this initial state.
    pub make: Option<KeyState>,
    /// The keys that change state, in order, with the new state and the reason.
    pub change: Vec<(Box<str>, KeyState, &'static str)>,
}

impl RotationPlan {
    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.make.is_none() && self.change.is_empty()
    }

    /// The records of the plan as one group, which takes effect as a whole or not at all. `made`: the stored key for
    /// [`RotationPlan::make`].
    pub fn records(self, made: Option<KeyAdded>, author: &Author, group: u32) -> Vec<Record> {
        let changes = self.change.into_iter().map(|(key, state, reason)| changed(&key, state, reason));
        grouped(changes.chain(made.map(Event::KeyAdded)).collect(), author, group)
    }
}

fn changed(key: &str, state: KeyState, reason: &str) -> Event {
    Event::KeyChanged(KeyChanged { key: key.to_owned(), state: state as i32, reason: reason.to_owned() })
}

fn grouped(events: Vec<Event>, author: &Author, group: u32) -> Vec<Record> {
    let group = if events.len() > 1 { group } else { 0 };
    events.into_iter().map(|e| Record { group, ..Record::new(author.clone(), e) }).collect()
}

struct KeyGenerations<'a> {
    next: Option<(&'a str, &'a ManagedKey)>,
    active: Option<(&'a str, &'a ManagedKey)>,
    retired: Vec<(&'a str, &'a ManagedKey)>,
    held: usize,
}

fn generations<'a>(keys: &'a BTreeMap<Box<str>, ManagedKey>, purpose: KeyPurpose, environment: &str) -> KeyGenerations<'a> {
    let mut generations = KeyGenerations { next: None, active: None, retired: Vec::new(), held: 0 };
    for (id, key) in keys.iter().filter(|(_, k)| k.purpose == purpose && *k.environment == *environment) {
        match key.state {
            KeyState::Next => generations.next = generations.next.or(Some((id, key))),
            KeyState::Active => generations.active = generations.active.or(Some((id, key))),
            KeyState::Retired => generations.retired.push((id, key)),
            _ => continue,
        }
        generations.held += 1;
    }
    generations
}

/// The changes due for a purpose in an environment at `now` (the ledger's time). After finitely many plans have been carried out, nothing
/// is due.
pub fn due(keys: &BTreeMap<Box<str>, ManagedKey>, purpose: KeyPurpose, environment: &str, now: Millis) -> RotationPlan {
    let schedule = RotationSchedule::of(purpose);
    let generations = generations(keys, purpose, environment);
    let mut plan = RotationPlan::default();
    for (id, key) in &generations.retired {
        if now >= key.since.plus(schedule.verifies_ms) {
            plan.change.push(((*id).into(), KeyState::Removed, "what it signed has ended"));
        }
    }
    match (generations.active, generations.next) {
        // There is no key yet, or the previous one was compromised: the new key must sign at once, without being published ahead.
        (None, None) => plan.make = Some(KeyState::Active),
        (None, Some((next, _))) => plan.change.push((next.into(), KeyState::Active, "there is no other")),
        (Some((old, _)), Some((next, key))) => {
            let ahead_ms = if key.publish_ahead > 0 { key.publish_ahead } else { schedule.ahead_ms };
            if now >= key.since.plus(ahead_ms) {
                plan.change.push((old.into(), KeyState::Retired, "another follows"));
                plan.change.push((next.into(), KeyState::Active, "verifiers had time to learn it"));
            }
        }
        (Some((old, key)), None) if now.plus(schedule.ahead_ms) >= schedule.ends(key.since) => {
            follow(&mut plan, old, schedule.ahead_ms);
        }
        (Some(_), None) => {}
    }
    plan
}

/// What the registration of an upstream needs of the keys of its assertions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssertionKeys {
    /// The algorithm, by its JOSE name.
    pub algorithm: &'static str,
    /// Keys follow each other only when an operator rotates them, because the other side has a copy of the JWK set.
    pub manual: bool,
}

/// As [`due`], for the issuer of an upstream's assertions. `needed`: `None` once the upstream is retired and nothing of it is left to undo.
pub fn assertions_due(
    keys: &BTreeMap<Box<str>, ManagedKey>,
    path: &str,
    needed: Option<AssertionKeys>,
    now: Millis,
) -> RotationPlan {
    let generations = generations(keys, KeyPurpose::Federation, path);
    let mut plan = due(keys, KeyPurpose::Federation, path, now);
    let Some(AssertionKeys { algorithm, manual }) = needed else {
        let end = |(id, _): (&str, &ManagedKey)| (Box::from(id), KeyState::Retired, "its upstream is retired");
        plan.change.retain(|(_, state, _)| *state == KeyState::Removed);
        plan.change.extend(generations.active.into_iter().chain(generations.next).map(end));
        plan.make = None;
        return plan;
    };
    let other =
        |(id, key): (&str, &ManagedKey)| (*key.algorithm != *algorithm).then(|| (Box::from(id), KeyState::Retired, OTHER));
    let others: Vec<_> = generations.active.and_then(other).into_iter().chain(generations.next.and_then(other)).collect();
    if generations.active.and_then(other).is_some() {
        // The new algorithm is needed at once: nothing can be issued until then. Everything that the old key signed was revoked.
        plan.change.retain(|(_, state, _)| *state == KeyState::Removed);
        plan.change.extend(others);
        match generations.next.filter(|next| other(*next).is_none()) {
            Some((next, _)) => {
                plan.change.push((next.into(), KeyState::Active, "it has the algorithm of the registration"));
                plan.make = None;
            }
            None => plan.make = Some(KeyState::Active),
        }
    } else if manual && generations.active.is_some() && plan.make == Some(KeyState::Next) {
        plan.make = None;
    }
    plan
}

/// As [`due`], for the CA of an upstream. `needed`: `None` once the upstream is retired, or issues no certificates of the kind any more.
pub fn authorities_due(
    keys: &BTreeMap<Box<str>, ManagedKey>,
    purpose: KeyPurpose,
    path: &str,
    needed: Option<CaRotation>,
    now: Millis,
) -> RotationPlan {
    let generations = generations(keys, purpose, path);
    let mut plan = due(keys, purpose, path, now);
    match needed {
        None => {
            let end =
                |(id, _): (&str, &ManagedKey)| (Box::from(id), KeyState::Retired, "its upstream issues no such certificates");
            plan.change.retain(|(_, state, _)| *state == KeyState::Removed);
            plan.change.extend(generations.active.into_iter().chain(generations.next).map(end));
            plan.make = None;
        }
        Some(CaRotation::Manual) if generations.active.is_some() && plan.make == Some(KeyState::Next) => plan.make = None,
        Some(_) => {}
    }
    plan
}

const OTHER: &str = "the registration names another algorithm";

fn follow(plan: &mut RotationPlan, old: &str, ahead_ms: u64) {
    if ahead_ms > 0 {
        plan.make = Some(KeyState::Next);
    } else {
        plan.change.push((old.into(), KeyState::Retired, "another follows"));
        plan.make = Some(KeyState::Active);
    }
}

/// A rotation on request. `ahead_ms`: how long the new key is published before it signs; 0 to sign at once.
///
/// Refused: KEY_STATE while another rotation is in progress, LIMIT_REACHED above `limits::KEYS`.
pub fn rotate(
    keys: &BTreeMap<Box<str>, ManagedKey>,
    purpose: KeyPurpose,
    environment: &str,
    ahead_ms: u64,
) -> Result<RotationPlan, Refusal> {
    let generations = generations(keys, purpose, environment);
    if let Some((next, _)) = generations.next {
        let name = purpose_name(purpose);
        return Err(Refusal::new(
            Reason::KeyState,
            format!("a rotation of {name} in {environment} is in progress: key {next} becomes active next"),
        ));
    }
    if generations.held >= limits::KEYS {
        let wait = std::time::Duration::from_millis(limits::KEY_VERIFIES_MS);
        return Err(Refusal::limit("keys", limits::KEYS as u64, wait));
    }
    let mut plan = RotationPlan::default();
    match generations.active {
        Some((old, _)) => follow(&mut plan, old, ahead_ms),
        None => plan.make = Some(KeyState::Active),
    }
    Ok(plan)
}

fn find<'a>(keys: &'a BTreeMap<Box<str>, ManagedKey>, kid: &str) -> Result<&'a ManagedKey, Refusal> {
    keys.get(kid).ok_or_else(|| Refusal::new(Reason::NotFound, format!("there is no key {kid}")))
}

/// Removes a retired key early. Everything that it signed is refused from then on.
///
/// Refused: NOT_FOUND, and KEY_STATE where the key still signs, will sign, or is removed.
pub fn retire(
    keys: &BTreeMap<Box<str>, ManagedKey>,
    kid: &str,
    reason: &str,
    now: Millis,
    author: &Author,
    group: u32,
) -> Result<Vec<Record>, Refusal> {
    let key = find(keys, kid)?;
    if key.state != KeyState::Retired {
        let no =
            Refusal::new(Reason::KeyState, format!("key {kid} is {:?}, only one that no longer signs is removed", key.state));
        return Err(no.way_out(format!("an operator runs: mayfly key rotate {}", purpose_name(key.purpose))));
    }
    Ok(grouped(vec![revoked(kid, reason, now), changed(kid, KeyState::Removed, reason)], author, group))
}

/// Marks a key as compromised: it leaves the JWKS, and everything that it signed is refused, whatever the signed content claims. The
/// revocation rule comes first; [`due`] then determines the successor.
///
/// Refused: NOT_FOUND, and KEY_STATE where the key is compromised already.
pub fn compromise(
    keys: &BTreeMap<Box<str>, ManagedKey>,
    kid: &str,
    reason: &str,
    now: Millis,
    author: &Author,
    group: u32,
) -> Result<Vec<Record>, Refusal> {
    if find(keys, kid)?.state == KeyState::Compromised {
        return Err(Refusal::new(Reason::KeyState, format!("key {kid} is known to be compromised")));
    }
    Ok(grouped(vec![revoked(kid, reason, now), changed(kid, KeyState::Compromised, reason)], author, group))
}

fn revoked(kid: &str, reason: &str, now: Millis) -> Event {
    Event::Revoked(TargetsRevoked {
        targets: vec![Target::SigningKey(kid.into()).to_record()],
        reason: reason.to_owned(),
        keep_until: Rules::keep_until(now).0,
        ..TargetsRevoked::default()
    })
}
