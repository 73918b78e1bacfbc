//! Power failures during a restore: afterwards there is either no store or all of it (tests/power/README.md).
//!
//! `MAYFLY_CREATION_IMAGES` sets the number of images during the restore (default 60), `MAYFLY_IMAGES` that of images after it was reported
//! as done (default 10), `MAYFLY_SEED` the seed.

use std::process::Command;

use crate::runner;

#[test]
fn power_that_fails_in_the_middle_of_a_restore_leaves_nothing_or_the_whole() {
    if !runner::possible() {
        return;
    }
    let program = runner::example("restore_power");
    let top = tempfile::tempdir().unwrap();
    let (work, world, backup) = (top.path().join("w"), top.path().join("world"), top.path().join("backup"));
    let made = Command::new(&program).arg("make").arg(&world).arg(work.join("data/store")).arg(&backup).status().unwrap();
    assert!(made.success());
    let (program, world, backup) = (program.display(), world.display(), backup.display());
    let mayfly = env!("CARGO_BIN_EXE_mayfly");
    let restore = format!("{mayfly} server restore --unlocked --config {world}/mayfly.toml {backup} >/dev/null 2>&1");
    let commands = [
        ("--server", format!("sh -c 'echo \"w 1\" >>{{acks}} && {restore} && echo \"W 1\" >>{{acks}}'")),
        ("--check", format!("{program} check {world} {{dir}}/store {{expect}}")),
    ];
    runner::run(&work, &runner::Images { under_load: 10, creation: 60 }, &runner::Outcome::Fine("careless"), &commands);
}
