//! Persistent data structures: a copy is taken at once and shares its pieces with the original, until one of the two changes a piece.
//!
//! A snapshot of a million credentials is such a copy, taken between two commits. None of these ever moves or copies all that it holds,
//! so that whoever waits for one change waits for a piece at most.

mod calendar;
mod map;
mod pages;
mod places;

pub use calendar::Calendar;
pub use map::Map;
pub use pages::Pages;
pub use places::{Places, Slot};
