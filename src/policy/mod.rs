//! Deciding: who may have what, for how long.

pub mod grant;
