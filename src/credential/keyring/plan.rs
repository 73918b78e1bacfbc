//! When keys follow each other. Pure: what is due at a time, and the records that make it so.
//!
//! `Next` is published before it signs, so that verifiers know it; then it takes over and the old one only verifies, until what it signed
//! has ended. Changes of one plan are one group: there is never a moment with two active keys or none.

use std::collections::BTreeMap;

use super::purpose_name;
use crate::ledger::record::{Event, KeyAdded, KeyChanged, KeyPurpose, KeyState, Record, Revoked, Who};
use crate::ledger::state::Key;
use crate::limits;
use crate::refusal::{Reason, Refusal};
use crate::revocation::{Rules, Target};
use crate::seq::Millis;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// How keys of a purpose follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// How long a key is in use, milliseconds.
    pub every_ms: u64,
    /// A key ends with the day (UTC) that it began in, whenever that was.
    pub daily: bool,
    /// How long a key is published before it is used, milliseconds. 0 for what nobody else verifies.
    pub ahead_ms: u64,
    /// How long a key is kept after it was used, milliseconds.
    pub verifies_ms: u64,
}

impl Schedule {
    /// The schedule of a purpose.
    pub const fn of(purpose: KeyPurpose) -> Schedule {
        let verifies_ms = limits::KEY_VERIFIES_MS;
        match purpose {
            KeyPurpose::Reference => Schedule { every_ms: DAY_MS, daily: true, ahead_ms: 0, verifies_ms },
            // Whoever checks what was signed long ago has to know few keys.
            KeyPurpose::Checkpoint => {
                let ahead_ms = limits::KEY_PUBLISHED_AHEAD_MS;
                Schedule { every_ms: limits::CHECKPOINT_KEY_SIGNS_MS, daily: false, ahead_ms, verifies_ms }
            }
            KeyPurpose::Password => Schedule { every_ms: limits::KEY_SIGNS_MS, daily: false, ahead_ms: 0, verifies_ms },
            _ => Schedule { every_ms: limits::KEY_SIGNS_MS, daily: false, ahead_ms: limits::KEY_PUBLISHED_AHEAD_MS, verifies_ms },
        }
    }

    fn ends(&self, since: Millis) -> Millis {
        if self.daily { Millis((since.0 / DAY_MS + 1).saturating_mul(DAY_MS)) } else { since.plus(self.every_ms) }
    }
}

/// What is to be done to the keys of one purpose in one environment. Empty most of the time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// A key is to be made, to begin in this state.
    pub make: Option<KeyState>,
    /// Keys that change state, in order, and why.
    pub change: Vec<(Box<str>, KeyState, &'static str)>,
}

impl Plan {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.make.is_none() && self.change.is_empty()
    }

    /// The records of the plan, one group: all of it takes effect or nothing. `made` is the key that was asked for, kept already.
    pub fn records(self, made: Option<KeyAdded>, author: &Who, group: u32) -> Vec<Record> {
        let changes = self.change.into_iter().map(|(key, state, reason)| changed(&key, state, reason));
        grouped(changes.chain(made.map(Event::KeyAdded)).collect(), author, group)
    }
}

fn changed(key: &str, state: KeyState, reason: &str) -> Event {
    Event::KeyChanged(KeyChanged { key: key.to_owned(), state: state as i32, reason: reason.to_owned() })
}

fn grouped(events: Vec<Event>, author: &Who, group: u32) -> Vec<Record> {
    let group = if events.len() > 1 { group } else { 0 };
    events.into_iter().map(|e| Record { group, ..Record::new(author.clone(), e) }).collect()
}

struct Line<'a> {
    next: Option<(&'a str, &'a Key)>,
    active: Option<(&'a str, &'a Key)>,
    retired: Vec<(&'a str, &'a Key)>,
    held: usize,
}

fn line<'a>(keys: &'a BTreeMap<Box<str>, Key>, purpose: KeyPurpose, environment: &str) -> Line<'a> {
    let mut line = Line { next: None, active: None, retired: Vec::new(), held: 0 };
    for (id, key) in keys.iter().filter(|(_, k)| k.purpose == purpose && *k.environment == *environment) {
        match key.state {
            KeyState::Next => line.next = line.next.or(Some((id, key))),
            KeyState::Active => line.active = line.active.or(Some((id, key))),
            KeyState::Retired => line.retired.push((id, key)),
            _ => continue,
        }
        line.held += 1;
    }
    line
}

/// What is due for a purpose in an environment at `now` (the ledger's time). Asked again after each of its plans took effect, it comes to rest.
pub fn due(keys: &BTreeMap<Box<str>, Key>, purpose: KeyPurpose, environment: &str, now: Millis) -> Plan {
    let schedule = Schedule::of(purpose);
    let line = line(keys, purpose, environment);
    let mut plan = Plan::default();
    for (id, key) in &line.retired {
        if now >= key.since.plus(schedule.verifies_ms) {
            plan.change.push(((*id).into(), KeyState::Removed, "what it signed has ended"));
        }
    }
    match (line.active, line.next) {
        // The first, or the one before was compromised: verifiers cannot be given time.
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

fn follow(plan: &mut Plan, old: &str, ahead_ms: u64) {
    if ahead_ms > 0 {
        plan.make = Some(KeyState::Next);
    } else {
        plan.change.push((old.into(), KeyState::Retired, "another follows"));
        plan.make = Some(KeyState::Active);
    }
}

/// A rotation that somebody asked for. `ahead_ms`: how long the new key is published before it signs; 0 to sign at once.
///
/// Refused: KEY_STATE while another rotation is under way, LIMIT_REACHED above `limits::KEYS`.
pub fn rotate(keys: &BTreeMap<Box<str>, Key>, purpose: KeyPurpose, environment: &str, ahead_ms: u64) -> Result<Plan, Refusal> {
    let line = line(keys, purpose, environment);
    if let Some((next, _)) = line.next {
        let name = purpose_name(purpose);
        return Err(Refusal::new(
            Reason::KeyState,
            format!("a rotation of {name} in {environment} is under way: {next} follows"),
        ));
    }
    if line.held >= limits::KEYS {
        let wait = std::time::Duration::from_millis(limits::KEY_VERIFIES_MS);
        return Err(Refusal::limit("keys", limits::KEYS as u64, wait));
    }
    let mut plan = Plan::default();
    match line.active {
        Some((old, _)) => follow(&mut plan, old, ahead_ms),
        None => plan.make = Some(KeyState::Active),
    }
    Ok(plan)
}

fn find<'a>(keys: &'a BTreeMap<Box<str>, Key>, kid: &str) -> Result<&'a Key, Refusal> {
    keys.get(kid).ok_or_else(|| Refusal::new(Reason::NotFound, format!("there is no key {kid}")))
}

/// Removes a key that no longer signs before its time: what it signed is refused from then on.
///
/// Refused: NOT_FOUND, KEY_STATE where it signs, is about to, or is gone.
pub fn retire(
    keys: &BTreeMap<Box<str>, Key>,
    kid: &str,
    reason: &str,
    now: Millis,
    author: &Who,
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

/// Gives up a key that somebody else has: out of JWKS, and all that it signed is refused, whatever it says of itself.
/// The rule comes first; [`due`] then says what takes its place.
///
/// Refused: NOT_FOUND, KEY_STATE where that is known already.
pub fn compromise(
    keys: &BTreeMap<Box<str>, Key>,
    kid: &str,
    reason: &str,
    now: Millis,
    author: &Who,
    group: u32,
) -> Result<Vec<Record>, Refusal> {
    if find(keys, kid)?.state == KeyState::Compromised {
        return Err(Refusal::new(Reason::KeyState, format!("key {kid} is known to be compromised")));
    }
    Ok(grouped(vec![revoked(kid, reason, now), changed(kid, KeyState::Compromised, reason)], author, group))
}

fn revoked(kid: &str, reason: &str, now: Millis) -> Event {
    Event::Revoked(Revoked {
        targets: vec![Target::SigningKey(kid.into()).to_record()],
        reason: reason.to_owned(),
        keep_until: Rules::keep_until(now).0,
        ..Revoked::default()
    })
}
