//! The connectors of the shipped program on whole servers, against real upstreams: PostgreSQL from the system's packages, started on
//! loopback in a temporary directory. Without PostgreSQL, the tests are reported as skipped.

mod cluster;
mod gate;
mod kills;
mod postgres;
mod rig;
mod rotation;
mod secret;
mod secrets;
mod server;
mod several;
#[path = "../kit/skipped.rs"]
mod skipped;
