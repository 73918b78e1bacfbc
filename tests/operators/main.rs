//! What operators have: `doctor`, `exec`, what lies under `deploy/`, metrics and their alerts.

mod deploy;
mod doctor;
mod exec;
#[path = "../durability/kit.rs"]
#[allow(dead_code, reason = "shared with the stories of durability")]
mod kit;
#[path = "../kit/small_disk.rs"]
mod small_disk;
mod workload_api;
