//! The connectors of the shipped program on whole servers, against real upstreams: PostgreSQL, MariaDB and Redis from the system's packages,
//! started on loopback in temporary directories. Tests whose database is not installed are reported as skipped.

mod cluster;
mod gate;
mod kills;
mod mariadb;
mod mysql;
mod postgres;
mod redis;
mod rig;
mod secrets;
mod server;
mod several;
#[path = "../kit/skipped.rs"]
mod skipped;
