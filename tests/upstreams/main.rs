//! The connectors of the shipped program on whole servers, against real upstreams: PostgreSQL from the system's packages, started on
//! loopback in a temporary directory, and oidc-provider from npm. Without them, the tests are reported as skipped.

mod authorization_server;
mod cluster;
mod gate;
mod kills;
mod oauth;
mod oauth_grants;
mod postgres;
mod rig;
mod secrets;
mod server;
mod several;
#[path = "../kit/skipped.rs"]
mod skipped;
