//! A vector in pages.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A vector in pages of `N` entries. Entries never move, and a change copies at most one page.
pub struct PagedVec<T, const N: usize> {
    pages: Vec<Arc<Vec<T>>>,
}

impl<T, const N: usize> Default for PagedVec<T, N> {
    fn default() -> Self {
        PagedVec { pages: Vec::new() }
    }
}

impl<T, const N: usize> Clone for PagedVec<T, N> {
    fn clone(&self) -> Self {
        PagedVec { pages: self.pages.clone() }
    }
}

impl<T, const N: usize> PagedVec<T, N> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * N + last.len())
    }

    /// The entry at an index.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / N)?.get(at % N)
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

impl<T: Clone, const N: usize> PagedVec<T, N> {
    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        match self.pages.last_mut() {
            Some(last) if last.len() < N => {
                let page = Arc::make_mut(last);
                // A copied page has only the capacity for its content, but the last page continues to grow.
                page.reserve_exact(N - page.len());
                page.push(entry);
            }
            _ => {
                let mut page = Vec::with_capacity(N);
                page.push(entry);
                self.pages.push(Arc::new(page));
            }
        }
    }

    /// The mutable entry at an index.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let page = self.pages.get_mut(at / N).filter(|page| at % N < page.len())?;
        Arc::make_mut(page).get_mut(at % N)
    }
}

impl<T, const N: usize> Index<usize> for PagedVec<T, N> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pages[at / N][at % N]
    }
}

impl<T: Serialize, const N: usize> Serialize for PagedVec<T, N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(CountedIter(self.len(), self.iter()))
    }
}

/// An iterator with a known length, for formats that write the length first.
pub(super) struct CountedIter<I>(pub usize, pub I);

impl<I: Iterator> Iterator for CountedIter<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.1.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

impl<'de, T: Deserialize<'de> + Clone, const N: usize> Deserialize<'de> for PagedVec<T, N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + Clone, const N: usize> Visitor<'de> for Entries<T, N> {
            type Value = PagedVec<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut pages = PagedVec::default();
                while let Some(entry) = seq.next_element()? {
                    pages.push(entry);
                }
                Ok(pages)
            }
        }

        d.deserialize_seq(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Few = PagedVec<u32, 8>;

    fn counted(n: u32) -> Few {
        let mut pages = Few::default();
        (0..n).for_each(|entry| pages.push(entry));
        pages
    }

    #[test]
    fn it_is_a_vector_whose_entries_stay_where_they_are() {
        let mut pages = counted(1);
        let first: *const u32 = &pages[0];
        for n in 1..29 {
            assert_eq!(pages.len(), n as usize);
            pages.push(n);
        }
        assert!(std::ptr::eq(first, &pages[0]));
        *pages.get_mut(8).unwrap() = 70;
        assert_eq!((pages.get(8), pages.get(7), pages.get(29)), (Some(&70), Some(&7), None));
        assert_eq!(pages.get_mut(29), None);
        let bytes = postcard::to_stdvec(&pages).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&pages.iter().copied().collect::<Vec<_>>()).unwrap(), "written as a vector is");
        let back: Few = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((back.len(), back[8]), (pages.len(), 70));
    }

    #[test]
    fn a_copy_shares_what_neither_changed() {
        let mut pages = counted(20);
        let copy = pages.clone();
        *pages.get_mut(3).unwrap() = 33;
        pages.push(20);
        assert_eq!((copy[3], pages[3], copy.len(), pages.len()), (3, 33, 20, 21));
        assert!(!std::ptr::eq(&copy[0], &pages[0]) && std::ptr::eq(&copy[8], &pages[8]));
        let last: *const u32 = &pages[16];
        (21..24).for_each(|n| pages.push(n));
        assert!(std::ptr::eq(last, &pages[16]), "a page that was copied has room, too");
    }
}
