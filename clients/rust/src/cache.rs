//! Credentials that equal requests share: one exchange for all who ask at once, and its credential until shortly before it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::revocation::Moment;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::credential::Live;
use crate::error::Error;
use crate::limits;

pub(crate) type Key = [u8; 32];
pub(crate) type Outcome = Result<Arc<Live>, Error>;

/// One that is shared.
struct Shared {
    live: Arc<Live>,
    /// From then on, by either clock, the next who asks gets another.
    renew_at: Moment,
    holders: usize,
    /// Counts who came: one that nobody came for since is given back.
    visits: u64,
}

#[derive(Default)]
struct Place {
    current: Option<Shared>,
    /// Those that were replaced and are still held.
    old: Vec<(Arc<Live>, usize)>,
    under_way: Option<watch::Receiver<Option<Outcome>>>,
}

/// What somebody who asks is told.
pub(crate) enum Found {
    /// Here it is; the holder is counted.
    Here(Arc<Live>),
    /// Somebody asks for it already: wait for that.
    Wait(watch::Receiver<Option<Outcome>>),
    /// Ask for it, and say here what came of it.
    Ask(watch::Sender<Option<Outcome>>),
    /// There are too many: ask for one of your own.
    Full,
}

/// The shared credentials of one client.
#[derive(Default)]
pub(crate) struct Cache {
    places: Mutex<HashMap<Key, Place>>,
}

impl Cache {
    /// Looks for one.
    pub fn find(&self, key: Key, now: Moment) -> Found {
        let mut places = self.places.lock();
        if places.len() >= limits::SHARED && !places.contains_key(&key) {
            return Found::Full;
        }
        let place = places.entry(key).or_default();
        if let Some(shared) = place.current.as_mut().filter(|s| now.steady < s.renew_at.steady && now.wall < s.renew_at.wall) {
            shared.holders += 1;
            shared.visits += 1;
            return Found::Here(shared.live.clone());
        }
        if let Some(under_way) = &place.under_way {
            return Found::Wait(under_way.clone());
        }
        let (says, hears) = watch::channel(None);
        place.under_way = Some(hears);
        Found::Ask(says)
    }

    /// What came of asking: it takes its place, and nobody holds it yet. What was there before is given back when its last holder leaves;
    /// at once, where nobody holds it.
    pub fn put(&self, key: Key, live: Arc<Live>, now: Moment, jitter: f64) -> Option<Arc<Live>> {
        // Between 80 and 90 % of its life: not all who share a server's clock come back at once.
        let fresh = millis(live.life.mul_f64(0.8 + jitter * 0.1));
        let renew_at = Moment { wall: now.wall.plus(fresh), steady: now.steady.saturating_add(fresh) };
        let mut places = self.places.lock();
        let place = places.entry(key).or_default();
        place.under_way = None;
        let before = place.current.replace(Shared { live, renew_at, holders: 0, visits: 0 })?;
        if before.holders == 0 {
            return Some(before.live);
        }
        place.old.push((before.live, before.holders));
        None
    }

    /// Nothing came of asking.
    pub fn failed(&self, key: Key) {
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(&key) {
            place.under_way = None;
            if place.current.is_none() && place.old.is_empty() {
                places.remove(&key);
            }
        }
    }

    /// A holder leaves. `Ok`: it was the last of one that was replaced, which is given back now. `Err(Some)`: the last of the current one,
    /// and how many had come by then.
    pub fn leave(&self, key: Key, live: &Arc<Live>) -> Result<Arc<Live>, Option<u64>> {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(&key) else { return Err(None) };
        if let Some(shared) = place.current.as_mut().filter(|s| Arc::ptr_eq(&s.live, live)) {
            shared.holders = shared.holders.saturating_sub(1);
            return Err((shared.holders == 0).then_some(shared.visits));
        }
        let Some(at) = place.old.iter().position(|(old, _)| Arc::ptr_eq(old, live)) else { return Err(None) };
        place.old[at].1 = place.old[at].1.saturating_sub(1);
        if place.old[at].1 > 0 {
            return Err(None);
        }
        Ok(place.old.swap_remove(at).0)
    }

    /// Takes the current one out where nobody came since and nobody holds it.
    pub fn forget(&self, key: Key, visits: u64) -> Option<Arc<Live>> {
        let mut places = self.places.lock();
        let place = places.get_mut(&key)?;
        let shared = place.current.take_if(|s| s.holders == 0 && s.visits == visits)?;
        if place.old.is_empty() && place.under_way.is_none() {
            places.remove(&key);
        }
        Some(shared.live)
    }

    /// Everything, held or not.
    pub fn drain(&self) -> Vec<Arc<Live>> {
        let places = std::mem::take(&mut *self.places.lock());
        let all =
            places.into_values().flat_map(|p| p.current.map(|s| s.live).into_iter().chain(p.old.into_iter().map(|(l, _)| l)));
        all.collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
