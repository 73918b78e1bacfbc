//! The configuration: its keys, and what is found wrong before a start.

mod keys;
mod validate;
