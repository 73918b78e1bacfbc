//! Power failures under the engines, on a real file system: every file operation of a real process is recorded, and each state that a power
//! failure could have left is opened and compared (tests/power/README.md).
//!
//! `MAYFLY_IMAGES` sets the number of images (default 120), `MAYFLY_CREATION_IMAGES` that of images before the first acknowledgement
//! (default 30), `MAYFLY_SEED` the seed.

use crate::runner::{self, Images, Outcome};

fn power_fails(engine: &str, images: &Images, outcome: &Outcome) {
    if !runner::possible() {
        return;
    }
    let program = runner::example("store_power").display().to_string();
    let work = tempfile::tempdir().unwrap();
    let commands = [
        ("--server", format!("{program} {engine} write {{dir}}/store {{acks}}")),
        ("--check", format!("{program} {engine} check {{dir}}/store {{expect}}")),
    ];
    runner::run(work.path(), images, outcome, &commands);
}

#[test]
fn redb_survives_a_power_failure() {
    power_fails("redb", &Images { under_load: 120, creation: 30 }, &Outcome::Fine("careless"));
}

/// A new file every few commits, and removal of old files.
#[test]
fn redb_in_many_files_survives_a_power_failure() {
    power_fails("redb-files", &Images { under_load: 120, creation: 30 }, &Outcome::Fine("careless"));
}

#[test]
fn sled_made_safe_survives_a_power_failure() {
    power_fails("sled", &Images { under_load: 120, creation: 30 }, &Outcome::Fine("reckless"));
}

/// Without the measures of `store/sled`, the same images of the same work lose acknowledged commits.
#[test]
fn sled_as_it_comes_does_not() {
    power_fails("sled-bare", &Images { under_load: 30, creation: 5 }, &Outcome::Fails);
}
