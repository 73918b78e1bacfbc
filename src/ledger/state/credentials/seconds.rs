//! Pages of what ends in the same second. It comes in the order of time and goes page by page: a page is written to while it is the last of its
//! second, and never again but where an entry changes. So a snapshot shares nearly all of them to their end, and nobody looks for what has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::persistent::Pages;

/// Pages that a copy shares, or copies the pointers of, at once.
const TOGETHER: usize = 64;

/// No page.
const NONE: u32 = u32::MAX;

/// Pages with a number each, second by second.
pub(super) struct Seconds<P> {
    pages: Pages<Option<Numbered<P>>, TOGETHER>,
    free: Vec<u32>,
    /// The page of each second that came last.
    last: BTreeMap<u64, u32>,
}

struct Numbered<P> {
    page: Arc<P>,
    /// The one of its second that came before it.
    before: u32,
}

impl<P> Clone for Numbered<P> {
    fn clone(&self) -> Self {
        Numbered { page: self.page.clone(), before: self.before }
    }
}

impl<P> Default for Seconds<P> {
    fn default() -> Self {
        Seconds { pages: Pages::default(), free: Vec::new(), last: BTreeMap::new() }
    }
}

impl<P> Clone for Seconds<P> {
    fn clone(&self) -> Self {
        Seconds { pages: self.pages.clone(), free: self.free.clone(), last: self.last.clone() }
    }
}

impl<P> Seconds<P> {
    /// The numbers of all pages are below this.
    pub fn numbers(&self) -> u32 {
        self.pages.len() as u32
    }

    /// The page of that number.
    pub fn get(&self, number: u32) -> Option<&P> {
        Some(&*self.pages.get(number as usize)?.as_ref()?.page)
    }

    /// All pages by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &P)> {
        (0..self.numbers()).filter_map(|number| Some((number, self.get(number)?)))
    }

    /// The second's page that came last.
    pub fn last(&self, second: u64) -> Option<u32> {
        self.last.get(&second).copied()
    }

    /// Second by second the pages as they came, whatever their numbers are.
    pub fn in_order(&self) -> impl Iterator<Item = (u64, Vec<&P>)> {
        let of = |last| std::iter::successors(self.numbered(last), |page| self.numbered(page.before)).map(|page| &*page.page);
        self.last.iter().map(move |(second, last)| {
            let mut pages: Vec<&P> = of(*last).collect();
            pages.reverse();
            (*second, pages)
        })
    }

    fn numbered(&self, number: u32) -> Option<&Numbered<P>> {
        self.pages.get(number as usize)?.as_ref()
    }

    /// Adds a page that is due with a second. Its number may have been another's before.
    pub fn add(&mut self, second: u64, page: P) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.pages.push(None);
            self.numbers() - 1
        });
        let before = self.last.insert(second, number).unwrap_or(NONE);
        if let Some(place) = self.pages.get_mut(number as usize) {
            *place = Some(Numbered { page: Arc::new(page), before });
        }
        number
    }

    /// Takes out a page that is due by now, and its number. Of one second, the last that came is the first.
    pub fn due(&mut self, now: u64) -> Option<(u32, Arc<P>)> {
        let mut first = self.last.first_entry().filter(|first| *first.key() <= now)?;
        let number = *first.get();
        let Numbered { page, before } = self.pages.get_mut(number as usize).and_then(Option::take)?;
        if before == NONE {
            first.remove();
        } else {
            first.insert(before);
        }
        self.free.push(number);
        Some((number, page))
    }
}

impl<P: Clone> Seconds<P> {
    /// The page of that number, to be changed.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut P> {
        Some(Arc::make_mut(&mut self.pages.get_mut(number as usize)?.as_mut()?.page))
    }
}

/// In order, so that numbers are no matter of the state.
impl<P: Serialize> Serialize for Seconds<P> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seconds = s.serialize_map(Some(self.last.len()))?;
        for (second, pages) in self.in_order() {
            seconds.serialize_entry(&second, &pages)?;
        }
        seconds.end()
    }
}

impl<'de, P: Deserialize<'de>> Deserialize<'de> for Seconds<P> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut seconds = Seconds::default();
        for (second, pages) in BTreeMap::<u64, Vec<P>>::deserialize(d)? {
            for page in pages {
                seconds.add(second, page);
            }
        }
        Ok(seconds)
    }
}

/// Makes room for one entry more of `most`: few where few came, and never more than that.
pub(super) fn make_room<T>(page: &mut Vec<T>, most: usize) {
    if page.len() == page.capacity() {
        page.reserve_exact(page.len().clamp(1, most.saturating_sub(page.len()).max(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(seconds: &Seconds<Vec<u32>>) -> BTreeMap<u64, Vec<Vec<u32>>> {
        seconds.in_order().map(|(second, pages)| (second, pages.into_iter().cloned().collect())).collect()
    }

    proptest! {
        #[test]
        fn pages_stay_until_their_second_and_copies_stay_as_they_were(
            ops in prop::collection::vec((0u8..8, 0u64..12, any::<u32>()), 0..1_000)
        ) {
            let (mut seconds, mut model, mut copies) = (Seconds::<Vec<u32>>::default(), BTreeMap::<u64, Vec<Vec<u32>>>::new(), Vec::new());
            for (op, second, n) in ops {
                match op {
                    0..4 => {
                        let number = seconds.add(second, vec![n]);
                        prop_assert_eq!(seconds.last(second), Some(number));
                        model.entry(second).or_default().push(vec![n]);
                    }
                    4..6 => {
                        let Some(number) = seconds.last(second) else {
                            prop_assert!(!model.contains_key(&second));
                            continue;
                        };
                        seconds.get_mut(number).unwrap().push(n);
                        model.get_mut(&second).unwrap().last_mut().unwrap().push(n);
                    }
                    6 => {
                        let due = seconds.due(second);
                        let expected = model.first_entry().filter(|first| *first.key() <= second).map(|mut first| {
                            let page = first.get_mut().pop().unwrap();
                            if first.get().is_empty() { first.remove(); }
                            page
                        });
                        prop_assert_eq!(due.as_ref().map(|(_, page)| &**page), expected.as_ref());
                        prop_assert!(due.is_none_or(|(number, _)| seconds.get(number).is_none()));
                    }
                    _ => copies.push((seconds.clone(), model.clone())),
                }
                prop_assert_eq!(seconds.iter().count(), model.values().map(Vec::len).sum::<usize>());
            }
            copies.push((seconds, model));
            for (seconds, model) in copies {
                prop_assert_eq!(all(&seconds), model.clone());
                let bytes = postcard::to_stdvec(&seconds).unwrap();
                prop_assert_eq!(&bytes, &postcard::to_stdvec(&model).unwrap());
                prop_assert_eq!(all(&postcard::from_bytes(&bytes).unwrap()), model, "whatever numbers they had");
            }
        }
    }

    #[test]
    fn numbers_are_used_again() {
        let mut seconds = Seconds::default();
        for n in 0..1_000u64 {
            seconds.add(n, n);
            seconds.add(n, n);
            let gone = seconds.due(n).into_iter().chain(seconds.due(n)).map(|(number, _)| number);
            assert_eq!(gone.collect::<Vec<_>>().len(), 2);
        }
        assert!(seconds.due(u64::MAX).is_none());
        assert_eq!(seconds.numbers(), 2);
    }

    #[test]
    fn a_page_has_room_for_what_came_and_never_for_more_than_its_bound() {
        let mut page = Vec::new();
        for n in 0..100 {
            make_room(&mut page, 100);
            page.push(n);
            assert!(page.capacity() <= (2 * page.len()).min(100), "{} for {}", page.capacity(), page.len());
        }
        let mut copy = page[..37].to_vec();
        make_room(&mut copy, 40);
        assert_eq!(copy.capacity(), 40);
    }
}
