//! Persistent data structures: cloning is immediate, and a clone shares its parts with the original until one of them changes a part.
//!
//! A snapshot of a million credentials is such a clone, taken between two commits. No operation moves or copies all content, so that a
//! change takes at most as long as copying one part.

mod calendar;
mod map;
mod paged_vec;
mod slot_index;

pub use calendar::Calendar;
pub use map::PersistentMap;
pub use paged_vec::PagedVec;
pub use slot_index::{Slot, SlotIndex};
