//! The connectors of the shipped program on whole servers, against real upstreams: PostgreSQL, MariaDB and Redis from the system's packages,
//! started on loopback in temporary directories, oidc-provider from npm, and a double of GitHub that verifies with an independent library
//! (`tests/doubles/github.py`). Where one of them cannot run, its tests are reported as skipped.

mod authorization_server;
mod cluster;
mod gate;
mod github;
mod github_double;
mod github_kills;
mod kills;
mod mariadb;
mod mysql;
mod oauth;
mod oauth_grants;
mod postgres;
mod redis;
mod rig;
mod rotation;
mod secret;
mod secrets;
mod server;
mod several;
#[path = "../kit/skipped.rs"]
mod skipped;
