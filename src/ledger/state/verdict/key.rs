//! Verdicts on keys: the allowed state changes, and at most one active key per purpose.

use std::collections::BTreeMap;

use super::{FoldInput, GroupEffects, State, Verdict, malformed};
use crate::record::{Event, KeyAdded, KeyChanged, KeyPurpose, KeyState, RecordedTarget};
use mayfly_base::refusal::{Reason, Refusal};

impl State {
    pub(super) fn may_add_key<'a>(&self, e: &'a KeyAdded, pending: &mut GroupEffects<'a>) -> Verdict {
        let purpose = KeyPurpose::try_from(e.purpose).is_ok_and(|p| p != KeyPurpose::Unspecified);
        if !purpose || !matches!(KeyState::try_from(e.state), Ok(KeyState::Next | KeyState::Active)) {
            return Err(malformed("a key of unknown purpose, or in a state that no key begins in"));
        }
        if self.keys.contains_key(e.key.as_str()) || pending.keys.contains(&e.key.as_str()) {
            return Err(Refusal::new(Reason::AlreadyExists, format!("there is a key {} already", e.key)));
        }
        pending.keys.push(&e.key);
        pending.activates |= e.state == KeyState::Active as i32;
        Ok(())
    }

    pub(super) fn may_change_key(&self, e: &KeyChanged, pending: &mut GroupEffects<'_>) -> Verdict {
        pending.activates |= e.state == KeyState::Active as i32;
        self.key_change(&e.key, e.state)
    }

    fn key_change(&self, key: &str, to: i32) -> Verdict {
        use KeyState::{Active, Compromised, Next, Removed, Retired};
        let Some(now) = self.keys.get(key).map(|k| k.state) else {
            return Err(Refusal::new(Reason::NotFound, format!("there is no key {key}")));
        };
        let to = KeyState::try_from(to).map_err(|_| malformed("an unknown key state"))?;
        match (now, to) {
            (Next, Active) | (Active | Next, Retired) | (Retired, Removed) | (Next | Active | Retired | Removed, Compromised) => {
                Ok(())
            }
            _ => Err(Refusal::new(Reason::KeyState, format!("key {key} is {now:?} and cannot become {to:?}"))),
        }
    }

    /// At most one active key per purpose and environment once the whole group has taken effect. Otherwise two replicas that create the
    /// first key, or rotate, at once would sign with two keys, and an operator who retires "the" key would leave one active.
    pub(super) fn one_active<R: FoldInput>(&self, group: &[R]) -> Verdict {
        let mut of: BTreeMap<&str, (KeyPurpose, &str, KeyState)> =
            self.keys.iter().map(|(id, k)| (&**id, (k.purpose, &*k.environment, k.state))).collect();
        let compromised = KeyState::Compromised as i32;
        for event in group.iter().filter_map(|r| r.record().event.as_ref()) {
            let change = |id, state: i32| (id, KeyState::try_from(state).unwrap_or(KeyState::Compromised));
            let changes = match event {
                Event::KeyAdded(e) => {
                    let purpose = KeyPurpose::try_from(e.purpose).unwrap_or(KeyPurpose::Unspecified);
                    of.insert(&e.key, (purpose, &e.environment, KeyState::Next));
                    vec![change(e.key.as_str(), e.state)]
                }
                Event::KeyChanged(e) => vec![change(e.key.as_str(), e.state)],
                Event::Revoked(e) if !e.lock_only => {
                    let aims = e.targets.iter().filter_map(|t| t.aim.as_ref());
                    aims.filter_map(|a| {
                        if let RecordedTarget::SigningKey(k) = a { Some(change(k.as_str(), compromised)) } else { None }
                    })
                    .collect()
                }
                _ => continue,
            };
            for (id, state) in changes {
                if let Some(key) = of.get_mut(id) {
                    key.2 = state;
                }
            }
        }
        let mut active: BTreeMap<(i32, &str), &str> = BTreeMap::new();
        for (id, (purpose, environment, state)) in of {
            if state == KeyState::Active
                && let Some(other) = active.insert((purpose as i32, environment), id)
            {
                return Err(Refusal::new(Reason::KeyState, format!("{other} and {id} would both be active for {purpose:?}")));
            }
        }
        Ok(())
    }
}
