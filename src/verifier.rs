//! For relying services: verifies credentials offline, and follows revocations. Fails closed. It is the client crate's, so that what the
//! server's own tests hold is what relying services link.

pub use mayfly_client::verifier::{Settings, Verifier, read};
pub use mayfly_verify::check::{Checker, Message, Need, Refused, serves};
