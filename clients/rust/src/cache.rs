//! Credentials shared by equal requests: one exchange serves all concurrent callers, and its credential is reused until shortly before it
//! expires.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::revocation::Moment;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::credential::ObtainedCredential;
use crate::error::Error;
use crate::limits;

pub(crate) type ExchangeKey = [u8; 32];
pub(crate) type CachedResult = Result<Arc<ObtainedCredential>, Error>;

/// A shared credential.
struct Shared {
    live: Arc<ObtainedCredential>,
    /// From this time on, by either clock, the next caller gets a new credential.
    renew_at: Moment,
    holders: usize,
    /// How often the credential was handed out. A credential that was not handed out since is released.
    visits: u64,
}

#[derive(Default)]
struct CacheEntry {
    current: Option<Shared>,
    /// Replaced credentials that still have holders, with the number of holders.
    old: Vec<(Arc<ObtainedCredential>, usize)>,
    under_way: Option<watch::Receiver<Option<CachedResult>>>,
}

impl CacheEntry {
    fn is_fresh(&self, now: Moment) -> bool {
        self.current.as_ref().is_some_and(|s| now.steady < s.renew_at.steady && now.wall < s.renew_at.wall)
    }

    /// The current credential, unless it is about to expire. The caller is counted as a holder.
    fn visit(&mut self, now: Moment) -> Option<Arc<ObtainedCredential>> {
        let fresh = self.is_fresh(now);
        let shared = self.current.as_mut().filter(|_| fresh)?;
        shared.holders += 1;
        shared.visits += 1;
        Some(shared.live.clone())
    }
}

/// The result of a look-up.
pub(crate) enum CacheLookup {
    /// The shared credential. The caller is counted as a holder.
    Here(Arc<ObtainedCredential>),
    /// Another caller's exchange is in progress; its result arrives here.
    Wait(watch::Receiver<Option<CachedResult>>),
    /// The caller must exchange and send the result here.
    Ask(watch::Sender<Option<CachedResult>>),
    /// The cache is full; the caller must exchange for a credential of its own.
    Full,
}

/// The result of a look-up for one of several requests.
pub(crate) enum BatchLookup {
    /// The shared credential. The caller is counted as a holder.
    Here(Arc<ObtainedCredential>),
    /// The caller must exchange. With a sender: equal requests wait for the result, which is shared.
    Ask(Option<watch::Sender<Option<CachedResult>>>),
    /// The request is equal to an earlier one of the same call, at this index, for which the caller must exchange.
    Same(usize),
}

/// The shared credentials of one client.
#[derive(Default)]
pub(crate) struct Cache {
    places: Mutex<HashMap<ExchangeKey, CacheEntry>>,
}

impl Cache {
    /// Looks up the credential for a key.
    pub fn find(&self, key: ExchangeKey, now: Moment) -> CacheLookup {
        let mut places = self.places.lock();
        if places.len() >= limits::SHARED && !places.contains_key(&key) {
            return CacheLookup::Full;
        }
        let place = places.entry(key).or_default();
        if let Some(live) = place.visit(now) {
            return CacheLookup::Here(live);
        }
        if let Some(under_way) = &place.under_way {
            return CacheLookup::Wait(under_way.clone());
        }
        let (says, hears) = watch::channel(None);
        place.under_way = Some(hears);
        CacheLookup::Ask(says)
    }

    /// Looks up the credentials for several requests at once. `Err`: an exchange for one of the keys is in progress; nothing was counted or
    /// marked, so that two callers do not wait for each other.
    pub fn find_all(
        &self,
        keys: &[Option<ExchangeKey>],
        now: Moment,
    ) -> Result<Vec<BatchLookup>, watch::Receiver<Option<CachedResult>>> {
        let mut places = self.places.lock();
        let under_way = |key| places.get(key).filter(|place| !place.is_fresh(now)).and_then(|place| place.under_way.clone());
        if let Some(hears) = keys.iter().flatten().find_map(under_way) {
            return Err(hears);
        }
        let mut found: Vec<BatchLookup> = Vec::with_capacity(keys.len());
        for key in keys {
            let earlier = keys
                .iter()
                .zip(&found)
                .position(|(other, before)| key.is_some() && other == key && matches!(before, BatchLookup::Ask(Some(_))));
            found.push(match (*key, earlier) {
                (_, Some(earlier)) => BatchLookup::Same(earlier),
                (Some(key), None) if places.len() < limits::SHARED || places.contains_key(&key) => {
                    let place = places.entry(key).or_default();
                    match place.visit(now) {
                        Some(live) => BatchLookup::Here(live),
                        None => {
                            let (says, hears) = watch::channel(None);
                            place.under_way = Some(hears);
                            BatchLookup::Ask(Some(says))
                        }
                    }
                }
                _ => BatchLookup::Ask(None),
            });
        }
        Ok(found)
    }

    /// Stores the result of an exchange; it has so many holders. Returns the credential that it replaces where that one has no holder;
    /// otherwise the replaced credential is released by its last holder.
    pub fn put(
        &self,
        key: ExchangeKey,
        live: Arc<ObtainedCredential>,
        now: Moment,
        (jitter, holders): (f64, usize),
    ) -> Option<Arc<ObtainedCredential>> {
        // Renewed after 80 to 90 % of the lifetime, so that clients of the same server do not all renew at once.
        let fresh = millis(live.life.mul_f64(0.8 + jitter * 0.1));
        let renew_at = Moment { wall: now.wall.plus(fresh), steady: now.steady.saturating_add(fresh) };
        let mut places = self.places.lock();
        let place = places.entry(key).or_default();
        place.under_way = None;
        let before = place.current.replace(Shared { live, renew_at, holders, visits: 0 })?;
        if before.holders == 0 {
            return Some(before.live);
        }
        place.old.push((before.live, before.holders));
        None
    }

    /// Records that an exchange failed.
    pub fn failed(&self, key: ExchangeKey) {
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(&key) {
            place.under_way = None;
            if place.current.is_none() && place.old.is_empty() {
                places.remove(&key);
            }
        }
    }

    /// Removes a holder. `Ok`: it was the last holder of a replaced credential, which must be released now. `Err(Some)`: it was the last
    /// holder of the current credential, with the number of visits so far.
    pub fn leave(&self, key: ExchangeKey, live: &Arc<ObtainedCredential>) -> Result<Arc<ObtainedCredential>, Option<u64>> {
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

    /// Removes the current credential if it has no holder and was not handed out since.
    pub fn forget(&self, key: ExchangeKey, visits: u64) -> Option<Arc<ObtainedCredential>> {
        let mut places = self.places.lock();
        let place = places.get_mut(&key)?;
        let shared = place.current.take_if(|s| s.holders == 0 && s.visits == visits)?;
        if place.old.is_empty() && place.under_way.is_none() {
            places.remove(&key);
        }
        Some(shared.live)
    }

    /// Removes all credentials, with or without holders.
    pub fn drain(&self) -> Vec<Arc<ObtainedCredential>> {
        let places = std::mem::take(&mut *self.places.lock());
        let all =
            places.into_values().flat_map(|p| p.current.map(|s| s.live).into_iter().chain(p.old.into_iter().map(|(l, _)| l)));
        all.collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
