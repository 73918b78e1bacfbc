//! Power fails under the redb engine, on a real file system: every file operation of a real process is recorded, and what a power failure
//! could have left of them is opened and compared (tests/power/README.md).
//!
//! `MAYFLY_IMAGES` sets the number of images (default 120), `MAYFLY_CREATION_IMAGES` that of those before the first acknowledgement (default
//! 30), `MAYFLY_SEED` the seed.

#[path = "power/runner.rs"]
mod runner;

#[test]
fn the_store_survives_a_power_failure() {
    if !runner::possible() {
        return;
    }
    let program = runner::example("store_power").display().to_string();
    let work = tempfile::tempdir().unwrap();
    let commands = [
        ("--server", format!("{program} write {{dir}}/store {{acks}}")),
        ("--check", format!("{program} check {{dir}}/store {{expect}}")),
    ];
    runner::run(work.path(), &runner::Images { under_load: 120, creation: 30 }, &commands);
}
