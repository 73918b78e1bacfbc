//! The terms under which open leases are undone: the address of the upstream and the choices of the registration that a lease was opened
//! with. The terms are kept with the lease, since the registration may change or be retired before the lease is undone.
//!
//! The leases of one version of a registration have equal terms, which are stored once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use mayfly_verify::seq::LeaseId;

/// The terms of each open lease that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseTerms {
    by_lease: BTreeMap<LeaseId, Arc<str>>,
    /// The distinct terms, with the number of leases that have them.
    texts: BTreeMap<Arc<str>, u32>,
}

impl LeaseTerms {
    /// The terms of a lease; empty if it has none.
    pub fn of(&self, lease: &LeaseId) -> Arc<str> {
        self.by_lease.get(lease).cloned().unwrap_or_default()
    }

    /// Adds the terms of a lease. Empty terms are not stored.
    pub(super) fn insert(&mut self, lease: LeaseId, terms: &str) {
        if terms.is_empty() {
            return;
        }
        let text = self.texts.get_key_value(terms).map_or_else(|| Arc::from(terms), |(text, _)| text.clone());
        *self.texts.entry(text.clone()).or_default() += 1;
        if let Some(old) = self.by_lease.insert(lease, text) {
            self.less(&old);
        }
    }

    /// Forgets the terms of a lease that was closed.
    pub(super) fn remove(&mut self, lease: &LeaseId) {
        if let Some(text) = self.by_lease.remove(lease) {
            self.less(&text);
        }
    }

    fn less(&mut self, text: &Arc<str>) {
        if let Some(count) = self.texts.get_mut(text) {
            *count -= 1;
            if *count == 0 {
                self.texts.remove(text);
            }
        }
    }
}

/// Serializes the distinct terms with their leases.
impl Serialize for LeaseTerms {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut by_text: BTreeMap<&str, Vec<&LeaseId>> = BTreeMap::new();
        for (lease, text) in &self.by_lease {
            by_text.entry(text).or_default().push(lease);
        }
        by_text.serialize(s)
    }
}

impl<'de> Deserialize<'de> for LeaseTerms {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<LeaseTerms, D::Error> {
        let mut terms = LeaseTerms::default();
        for (text, leases) in BTreeMap::<String, Vec<LeaseId>>::deserialize(d)? {
            leases.into_iter().for_each(|lease| terms.insert(lease, &text));
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> LeaseId {
        LeaseId::from_bytes([n; 16])
    }

    #[test]
    fn equal_terms_are_stored_once_and_go_with_their_last_lease() {
        let mut terms = LeaseTerms::default();
        for (n, text) in [(1, "a"), (2, "a"), (3, "b"), (4, "")] {
            terms.insert(id(n), text);
        }
        assert!(Arc::ptr_eq(&terms.of(&id(1)), &terms.of(&id(2))));
        assert_eq!((&*terms.of(&id(3)), &*terms.of(&id(4)), terms.texts.len()), ("b", "", 2));
        let back: LeaseTerms = postcard::from_bytes(&postcard::to_stdvec(&terms).unwrap()).unwrap();
        assert_eq!(back, terms);
        assert!(Arc::ptr_eq(&back.of(&id(1)), &back.of(&id(2))), "shared after a restart, too");
        for n in 1..=4 {
            terms.remove(&id(n));
        }
        assert_eq!(terms, LeaseTerms::default());
    }
}
