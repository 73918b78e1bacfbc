//! Requests that are remembered after what they made has ended: 28 bytes each and two places, where a credential is twice as much. At full rate
//! nearly all that is remembered is of this sort.

use serde::{Deserialize, Serialize};

use super::super::intern::Slot;
use crate::persistent::{Calendar, Pages};
use crate::seq::{CredentialId, Millis};
use crate::store::Position;

/// Entries of a page: 7 KiB.
const PAGE: usize = 256;

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
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Ended {
    entries: Pages<Past, PAGE>,
    free: Vec<Slot>,
    forgotten: Calendar<Slot>,
}

impl Ended {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// What stands at a place. Of one that is free, what stood there last.
    pub fn get(&self, slot: Slot) -> Option<&Past> {
        self.entries.get(slot as usize)
    }

    /// Adds one that is remembered until then.
    pub fn add(&mut self, past: Past, until: Millis) -> Slot {
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.entries.get_mut(slot as usize) {
                    *place = past;
                }
                slot
            }
            None => {
                self.entries.push(past);
                (self.entries.len() - 1) as Slot
            }
        };
        self.forgotten.after(until, slot);
        slot
    }

    /// Takes out one whose time is over.
    pub fn due(&mut self, now: Millis) -> Option<(Slot, Past)> {
        let slot = self.forgotten.due(now)?;
        let past = *self.get(slot)?;
        self.free.push(slot);
        Some((slot, past))
    }

    /// The places that are taken.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.forgotten.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(n: u8) -> Past {
        Past::new(CredentialId::from_bytes([n; 16]), Position::from(n) << 33 | 7, n.into())
    }

    #[test]
    fn one_takes_28_bytes() {
        assert_eq!(size_of::<Past>(), 28);
        assert_eq!((past(3).id(), past(3).at()), (CredentialId::from_bytes([3; 16]), 3 << 33 | 7));
    }

    #[test]
    fn each_stays_until_its_time_and_its_place_is_used_again() {
        let mut ended = Ended::default();
        for (n, until) in [(1, 5_000), (2, 3_000), (3, 9_000)] {
            assert_eq!(ended.add(past(n), Millis(until)), Slot::from(n) - 1);
        }
        let copy = ended.clone();
        assert!(ended.due(Millis(3_999)).is_none());
        assert_eq!(ended.due(Millis(4_000)), Some((1, past(2))));
        assert!(ended.due(Millis(4_000)).is_none());
        assert_eq!((ended.len(), copy.len()), (2, 3));
        assert_eq!(ended.add(past(4), Millis(4_500)), 1);
        assert_eq!((ended.get(1), copy.get(1)), (Some(&past(4)), Some(&past(2))));
        let back: Ended = postcard::from_bytes(&postcard::to_stdvec(&ended).unwrap()).unwrap();
        let mut slots: Vec<Slot> = back.slots().collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2]);
        assert!(slots.iter().all(|slot| back.get(*slot) == ended.get(*slot)));
    }
}
