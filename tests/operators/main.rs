//! Tests of operators' tools: `doctor`, `exec`, the files under `deploy/`, metrics and their alerts.

#[path = "../kit/agent.rs"]
mod agent;
mod deploy;
mod doctor;
mod exec;
mod from_agent;
mod from_agent_trouble;
#[path = "../durability/kit.rs"]
#[allow(dead_code, reason = "shared with the stories of durability")]
mod kit;
#[path = "../kit/ports.rs"]
mod ports;
#[path = "../kit/skipped.rs"]
mod skipped;
#[path = "../kit/small_disk.rs"]
mod small_disk;
mod workload_api;
