//! Power failures under a whole server: every file operation of a real `mayfly server run` under load is recorded, a server is started on
//! each directory that a power failure could have left, and asked for everything that was acknowledged (tests/power/README.md).
//!
//! `MAYFLY_IMAGES` sets the number of images (default 16; `./test --long` takes 300), `MAYFLY_CREATION_IMAGES` the number of images
//! during the very first start (default 6), `MAYFLY_SEED` the seed.

use std::process::Command;

use crate::runner;

#[test]
fn a_whole_server_survives_a_power_failure() {
    power_fails("redb", "careless");
}

#[test]
fn a_whole_server_on_sled_survives_a_power_failure() {
    power_fails("sled", "reckless");
}

fn power_fails(engine: &str, control: &'static str) {
    if !runner::possible() {
        return;
    }
    let program = runner::example("server_power");
    // A short path: the path of a Unix socket has at most 108 bytes.
    let top = tempfile::tempdir().unwrap();
    let (work, world, names) = (top.path().join("w"), top.path().join("world"), top.path().join("names"));
    let made = Command::new(&program).args(["world", engine]).arg(&world).arg(work.join("data/store")).status().unwrap();
    assert!(made.success());
    let (program, world, names) = (program.display(), world.display(), names.display());
    let mayfly = env!("CARGO_BIN_EXE_mayfly");
    let commands = [
        ("--server", format!("{mayfly} server run --config {world}/mayfly.toml --ready-file {world}/ready.json")),
        ("--load", format!("{program} load {world} {{acks}} {names}")),
        ("--check", format!("{program} check {world} {{dir}}/store {{expect}} {names}")),
    ];
    runner::run(&work, &runner::Images { under_load: 16, creation: 6 }, &runner::Outcome::Fine(control), &commands);
}
