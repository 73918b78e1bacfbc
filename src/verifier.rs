//! The verifier for relying services, from the client crate: verifies credentials offline and follows revocations. It fails closed. The
//! server's tests use the code that relying services link.

pub use mayfly_client::verifier::{Settings, Verifier, read};
pub use mayfly_verify::check::{Checker, Message, Need, Refused, serves};
