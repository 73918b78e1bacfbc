//! A cache of results for tokens that were seen before, by the token's digest. The tokens themselves are not stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use crate::limits;

type Digest = [u8; 32];

/// Number of shards, each with its own lock, so that concurrent checks rarely wait for each other.
const SHARDS: usize = 16;
/// Entries in the young half of a shard.
const HALF: usize = limits::VERIFIED / SHARDS / 2;

/// A shard has two halves. When the young half is full it replaces the old half. An entry of the old half that is used becomes young again.
struct Shard<T> {
    young: HashMap<Digest, Arc<T>>,
    old: HashMap<Digest, Arc<T>>,
}

impl<T> Default for Shard<T> {
    fn default() -> Shard<T> {
        Shard { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<T> Shard<T> {
    fn get(&mut self, name: &Digest) -> Option<Arc<T>> {
        if let Some(found) = self.young.get(name) {
            return Some(found.clone());
        }
        let found = self.old.remove(name)?;
        self.put(*name, found.clone());
        Some(found)
    }

    fn put(&mut self, name: Digest, what: Arc<T>) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, what);
    }
}

/// The results for at most [`limits::VERIFIED`] tokens.
pub(crate) struct TokenCache<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
}

impl<T> Default for TokenCache<T> {
    fn default() -> TokenCache<T> {
        TokenCache { shards: Default::default() }
    }
}

/// A clone starts empty.
impl<T> Clone for TokenCache<T> {
    fn clone(&self) -> TokenCache<T> {
        TokenCache::default()
    }
}

impl<T> TokenCache<T> {
    /// The cached result for a token, or the result of `find`. Errors are not cached.
    pub fn known_or<E>(&self, token: &str, find: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut name = Digest::default();
        name.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.shard(&name).get(&name) {
            return Ok(known);
        }
        let found = Arc::new(find()?);
        self.shard(&name).put(name, found.clone());
        Ok(found)
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.shards = Default::default();
    }

    /// No operation under the lock can leave a shard in an inconsistent state, so a poisoned lock is usable.
    fn shard(&self, name: &Digest) -> MutexGuard<'_, Shard<T>> {
        self.shards[usize::from(name[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(seen: &TokenCache<u64>, n: u64) -> (u64, bool) {
        let mut found = false;
        let what = seen.known_or(&n.to_string(), || {
            found = true;
            Ok::<_, ()>(n)
        });
        (*what.unwrap(), found)
    }

    #[test]
    fn what_was_found_is_remembered_and_what_went_wrong_is_not() {
        let mut seen = TokenCache::default();
        assert_eq!(seen.known_or("1", || Err(5)), Err(5));
        assert_eq!((ask(&seen, 1), ask(&seen, 1)), ((1, true), (1, false)));
        assert_eq!(ask(&seen.clone(), 1), (1, true));
        seen.clear();
        assert_eq!(ask(&seen, 1), (1, true));
    }

    #[test]
    fn no_more_are_kept_than_there_may_be_and_those_in_use_stay() {
        let seen = TokenCache::default();
        for n in 0..4 * limits::VERIFIED as u64 {
            ask(&seen, n);
            assert_eq!(ask(&seen, 1), (1, n == 0), "somebody asks for it all the time");
        }
        let kept: usize = seen.shards.iter().map(|s| s.lock().unwrap()).map(|s| s.young.len() + s.old.len()).sum();
        assert!((limits::VERIFIED / 2..=limits::VERIFIED).contains(&kept), "{kept}");
    }
}
