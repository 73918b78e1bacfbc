//! Places in pieces. A vector of a million entries is copied when it grows, which stops the writer for a tenth of a second; here what is
//! there never moves.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// Entries of one piece: at 128 bytes each half a megabyte.
const PIECE: usize = 4_096;

/// A vector that grows by pieces.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Vec<T>", into = "Vec<T>", bound(serialize = "T: Serialize + Clone", deserialize = "T: Deserialize<'de>"))]
pub(super) struct Slab<T> {
    pieces: Vec<Vec<T>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { pieces: Vec::new() }
    }
}

impl<T> From<Vec<T>> for Slab<T> {
    fn from(all: Vec<T>) -> Slab<T> {
        let mut slab = Slab::default();
        all.into_iter().for_each(|entry| slab.push(entry));
        slab
    }
}

impl<T> From<Slab<T>> for Vec<T> {
    fn from(slab: Slab<T>) -> Vec<T> {
        slab.pieces.into_iter().flatten().collect()
    }
}

impl<T> Slab<T> {
    pub fn push(&mut self, entry: T) {
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => last.push(entry),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(entry);
                self.pieces.push(piece);
            }
        }
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * PIECE + last.len())
    }

    pub fn get(&self, at: usize) -> Option<&T> {
        self.pieces.get(at / PIECE)?.get(at % PIECE)
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pieces[at / PIECE][at % PIECE]
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pieces[at / PIECE][at % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vector_whose_entries_stay_where_they_are() {
        let mut slab = Slab::default();
        slab.push(0u32);
        let first: *const u32 = &slab[0];
        for n in 1..3 * PIECE as u32 + 5 {
            assert_eq!(slab.len(), n as usize);
            slab.push(n);
        }
        assert!(std::ptr::eq(first, &slab[0]));
        slab[PIECE] = 7;
        assert_eq!((slab.get(PIECE), slab.get(PIECE - 1), slab.get(slab.len())), (Some(&7), Some(&(PIECE as u32 - 1)), None));
        let bytes = postcard::to_stdvec(&slab).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&Vec::from(slab.clone())).unwrap(), "written as a vector is");
        let back: Slab<u32> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((back.len(), back[PIECE]), (slab.len(), 7));
    }
}
