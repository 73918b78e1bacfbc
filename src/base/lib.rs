//! Basic parts that every crate of the server uses.
//!
//! - [`limits`]: every number that bounds something, with its source. [`refusal`]: the closed list of reasons that a caller is refused for.
//! - [`system`]: time and randomness, which come in as values. [`document`]: files that people write, with errors that name the place.
//! - [`backoff`]: the pauses between attempts. [`trace`]: spans of calls. [`log_queue`]: the queue of log lines to stderr. [`plural`]: counts in sentences.
//!
//! Nothing here knows records, requests or connections. A limit is a line in `limits`, a refusal reason a line in `refusal`.
#![forbid(unsafe_code)]

pub mod atomic_file;
pub mod backoff;
pub mod bounded_file;
pub mod document;
pub mod file_path;
pub mod limits;
pub mod log_queue;
pub mod plural;
pub mod refusal;
pub mod system;
pub mod system_roots;
pub mod trace;
