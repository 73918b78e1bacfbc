//! Pages of entries that are due in the same second. Entries are taken out in the order of time, page by page. A page is written to while
//! it is the last of its second, and later only if an entry changes. A snapshot therefore shares nearly all pages until they expire, and no
//! scan for expired entries is needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::intern::Slot;
use crate::persistent::PagedVec;
use mayfly_verify::seq::Millis;

/// Entries that are due in one second (or some of them), in the order in which they were added.
pub(super) trait ExpiryPage: Clone + Default {
    type Entry;

    /// Entries of a full page.
    const MOST: usize;

    fn entries(&self) -> &[Self::Entry];
    fn entries_mut(&mut self) -> &mut [Self::Entry];
}

/// Number of pages per chunk that a copy shares, or whose pointers it copies, at once.
const TOGETHER: usize = 64;

/// No page.
const NONE: u32 = u32::MAX;

/// Entries, each with a slot, in pages, second by second.
#[derive(Clone)]
pub(super) struct ExpiryPages<P> {
    pages: PagedVec<Option<Numbered<P>>, TOGETHER>,
    free: Vec<u32>,
    /// The newest page of each second.
    last: BTreeMap<u64, u32>,
    len: usize,
}

struct Numbered<P> {
    page: Arc<P>,
    /// The previous page of the same second.
    before: u32,
}

impl<P> Clone for Numbered<P> {
    fn clone(&self) -> Self {
        Numbered { page: self.page.clone(), before: self.before }
    }
}

impl<P> Default for ExpiryPages<P> {
    fn default() -> Self {
        ExpiryPages { pages: PagedVec::default(), free: Vec::new(), last: BTreeMap::new(), len: 0 }
    }
}

/// The slot of a page's first entry.
fn first<P: ExpiryPage>(number: u32) -> Slot {
    number * P::MOST as Slot
}

/// The page of a slot, and the index in the page.
fn split<P: ExpiryPage>(slot: Slot) -> (u32, usize) {
    (slot / P::MOST as Slot, slot as usize % P::MOST)
}

impl<P: ExpiryPage> ExpiryPages<P> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All slots are below this. Many may be empty.
    pub fn places(&self) -> Slot {
        first::<P>(self.pages.len() as u32)
    }

    fn page(&self, number: u32) -> Option<&Numbered<P>> {
        self.pages.get(number as usize)?.as_ref()
    }

    /// The entry at a slot, with its page.
    pub fn get(&self, slot: Slot) -> Option<(&P, &P::Entry)> {
        let (number, at) = split::<P>(slot);
        let page = &*self.page(number)?.page;
        Some((page, page.entries().get(at)?))
    }

    /// The entry at a slot, mutable.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut P::Entry> {
        // A missing entry must not cause a page to be copied.
        self.get(slot)?;
        let (number, at) = split::<P>(slot);
        self.page_mut(number)?.entries_mut().get_mut(at)
    }

    fn page_mut(&mut self, number: u32) -> Option<&mut P> {
        Some(Arc::make_mut(&mut self.pages.get_mut(number as usize)?.as_mut()?.page))
    }

    /// All entries with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &P::Entry)> {
        let pages = (0..self.pages.len() as u32).filter_map(|number| Some((number, self.page(number)?)));
        pages.flat_map(|(number, of)| (first::<P>(number)..).zip(of.page.entries()))
    }

    /// Adds an entry, which `push` appends to a page. The entry is due once `moment` has passed, with the next second.
    pub fn add(&mut self, moment: Millis, push: impl FnOnce(&mut P)) -> Slot {
        let second = moment.seconds().saturating_add(1);
        let last = self.last.get(&second).and_then(|number| Some((*number, self.page(*number)?.page.entries().len())));
        let (number, at) = last.filter(|(_, len)| *len < P::MOST).unwrap_or_else(|| (self.add_page(second, P::default()), 0));
        if let Some(page) = self.page_mut(number) {
            push(page);
            self.len += 1;
        }
        first::<P>(number) + at as Slot
    }

    /// Adds a page; its number may be reused.
    fn add_page(&mut self, second: u64, page: P) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.pages.push(None);
            self.pages.len() as u32 - 1
        });
        let before = self.last.insert(second, number).unwrap_or(NONE);
        self.len += page.entries().len();
        if let Some(place) = self.pages.get_mut(number as usize) {
            *place = Some(Numbered { page: Arc::new(page), before });
        }
        number
    }

    /// Takes out a page that is due by now: the slot of its first entry, and the page. Within a second, the newest page comes first.
    pub fn due(&mut self, now: Millis) -> Option<(Slot, Arc<P>)> {
        let mut last = self.last.first_entry().filter(|last| *last.key() <= now.seconds())?;
        let number = *last.get();
        let Numbered { page, before } = self.pages.get_mut(number as usize).and_then(Option::take)?;
        if before == NONE {
            last.remove();
        } else {
            last.insert(before);
        }
        self.free.push(number);
        self.len -= page.entries().len();
        Some((first::<P>(number), page))
    }
}

/// The pages second by second, in the order in which they were added, independent of their numbers.
impl<P: ExpiryPage + Serialize> Serialize for ExpiryPages<P> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seconds = s.serialize_map(Some(self.last.len()))?;
        for (second, last) in &self.last {
            let mut pages: Vec<&P> =
                std::iter::successors(self.page(*last), |of| self.page(of.before)).map(|of| &*of.page).collect();
            pages.reverse();
            seconds.serialize_entry(second, &pages)?;
        }
        seconds.end()
    }
}

impl<'de, P: ExpiryPage + Deserialize<'de>> Deserialize<'de> for ExpiryPages<P> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut seconds = ExpiryPages::default();
        for (second, pages) in BTreeMap::<u64, Vec<P>>::deserialize(d)? {
            for page in pages {
                if !(1..=P::MOST).contains(&page.entries().len()) {
                    return Err(D::Error::custom("a page with no entries, or with too many"));
                }
                seconds.add_page(second, page);
            }
        }
        Ok(seconds)
    }
}

/// Reserves room for one more entry out of `most`: small steps for small pages, and never more than `most`.
pub(super) fn make_room<T>(page: &mut Vec<T>, most: usize) {
    if page.len() == page.capacity() {
        page.reserve_exact(page.len().clamp(1, most.saturating_sub(page.len()).max(1)));
    }
}

#[cfg(test)]
#[path = "seconds_tests.rs"]
mod tests;
