//! The connectors of the shipped program on whole servers, against real upstreams: PostgreSQL from the system's packages, started on
//! loopback in a temporary directory, and a double of GitHub that verifies with an independent library (`tests/doubles/github.py`). Where one
//! of them cannot run, its tests are reported as skipped.

mod cluster;
mod gate;
mod github;
mod github_double;
mod github_kills;
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
