//! Requests that are remembered after what they made has ended: 28 bytes each and a place, where a credential is twice as much. At full rate
//! nearly all that is remembered is of this sort.

use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::intern::Slot;
use super::seconds::{Seconds, make_room};
use crate::seq::{CredentialId, Millis};
use crate::store::Position;

/// Entries of a page: 7 KiB.
pub(super) const PAGE: usize = 256;

/// What a request made that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    id: [u8; 16],
    /// The place of its commit, the high half first: so it needs no more alignment than the rest.
    at: [u32; 2],
    /// Who asked, among those whose requests are remembered.
    pub requester: Slot,
}

impl Past {
    pub fn new(id: CredentialId, at: Position, requester: Slot) -> Past {
        Past { id: *id.as_bytes(), at: [(at >> 32) as u32, at as u32], requester }
    }

    pub fn id(&self) -> CredentialId {
        CredentialId::from_bytes(self.id)
    }

    pub fn at(&self) -> Position {
        Position::from(self.at[0]) << 32 | Position::from(self.at[1])
    }
}

/// All of them, each until its time.
#[derive(Clone, Default)]
pub(super) struct Ended {
    pages: Seconds<Vec<Past>>,
    len: usize,
}

/// The place of a page's first entry.
fn first(number: u32) -> Slot {
    number * PAGE as Slot
}

impl Ended {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What stands at a place.
    pub fn get(&self, slot: Slot) -> Option<&Past> {
        self.pages.get(slot / PAGE as Slot)?.get(slot as usize % PAGE)
    }

    /// Adds one that is remembered until then.
    pub fn add(&mut self, past: Past, until: Millis) -> Slot {
        self.len += 1;
        let second = until.seconds().saturating_add(1);
        let last = self.pages.last(second);
        let known = last.and_then(|number| Some((number, self.pages.get(number)?.len()))).filter(|(_, len)| *len < PAGE);
        let Some((number, len)) = known else { return first(self.pages.add(second, vec![past])) };
        if let Some(page) = self.pages.get_mut(number) {
            make_room(page, PAGE);
            page.push(past);
        }
        first(number) + len as Slot
    }

    /// Takes out a page whose time is over: the place of its first entry, and all of them.
    pub fn due(&mut self, now: Millis) -> Option<(Slot, Arc<Vec<Past>>)> {
        let (number, page) = self.pages.due(now.seconds())?;
        self.len -= page.len();
        Some((first(number), page))
    }

    /// All of them, each with its place.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Past)> {
        self.pages.iter().flat_map(|(number, page)| (first(number)..).zip(page))
    }
}

impl Serialize for Ended {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.pages.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Ended {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let pages = Seconds::<Vec<Past>>::deserialize(d)?;
        if pages.iter().any(|(_, page)| !(1..=PAGE).contains(&page.len())) {
            return Err(D::Error::custom("a page of requests that is none"));
        }
        let len = pages.iter().map(|(_, page)| page.len()).sum();
        Ok(Ended { pages, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(n: u32) -> Past {
        Past::new(CredentialId::from_bytes([n as u8; 16]), Position::from(n) << 33 | 7, n)
    }

    fn due(ended: &mut Ended, now: u64) -> Vec<(Slot, Past)> {
        let page = ended.due(Millis(now));
        page.map_or(Vec::new(), |(first, page)| (first..).zip(page.iter().copied()).collect())
    }

    #[test]
    fn one_takes_28_bytes() {
        assert_eq!(size_of::<Past>(), 28);
        assert_eq!((past(3).id(), past(3).at()), (CredentialId::from_bytes([3; 16]), 3 << 33 | 7));
    }

    #[test]
    fn each_stays_until_its_time_and_its_place_is_used_again() {
        let mut ended = Ended::default();
        let places = [(1, 5_000), (2, 3_000), (3, 9_000), (4, 3_999)].map(|(n, until)| ended.add(past(n), Millis(until)));
        assert_eq!(places, [0, 256, 512, 257], "what ends in one second lies together");
        let copy = ended.clone();
        assert!(due(&mut ended, 3_999).is_empty());
        assert_eq!(due(&mut ended, 4_000), [(256, past(2)), (257, past(4))]);
        assert!(due(&mut ended, 4_000).is_empty());
        assert_eq!((ended.len(), copy.len(), ended.get(256)), (2, 4, None));
        assert_eq!(ended.add(past(5), Millis(4_500)), 256);
        assert_eq!((ended.get(256), copy.get(256), copy.get(257)), (Some(&past(5)), Some(&past(2)), Some(&past(4))));
    }

    #[test]
    fn a_second_takes_as_many_pages_as_it_needs_and_all_come_back() {
        let mut ended = Ended::default();
        for n in 0..1_000 {
            let slot = ended.add(past(n), Millis(u64::from(n % 2) * 1_000));
            assert_eq!(ended.get(slot), Some(&past(n)));
        }
        assert_eq!(
            (ended.len(), ended.iter().count(), ended.iter().all(|(slot, past)| ended.get(slot) == Some(past))),
            (1_000, 1_000, true)
        );
        let bytes = postcard::to_stdvec(&ended).unwrap();
        let mut back: Ended = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((back.len(), postcard::to_stdvec(&back).unwrap()), (1_000, bytes.clone()));
        for ended in [&mut ended, &mut back] {
            let mut gone: Vec<u32> = std::iter::from_fn(|| Some(due(ended, 1_000)).filter(|page| !page.is_empty()))
                .flatten()
                .map(|(_, past)| past.requester)
                .collect();
            gone.sort_unstable();
            assert_eq!((gone, ended.len()), ((0..1_000).filter(|n| n % 2 == 0).collect(), 500));
        }
        for at in 0..bytes.len() {
            assert!(postcard::from_bytes::<Ended>(&bytes[..at]).is_err(), "cut at {at}");
        }
        let long = std::collections::BTreeMap::from([(7u64, vec![vec![past(1); PAGE + 1]])]);
        assert!(postcard::from_bytes::<Ended>(&postcard::to_stdvec(&long).unwrap()).is_err(), "longer than a page");
    }
}
