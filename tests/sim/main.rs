//! The simulation: the real writers, verdicts, fold and followers in a world of seeded operations, beside a naive model of the rules.
//!
//! `MAYFLY_SIM_RUNS` sets the number of interleavings for each number of writers, `MAYFLY_SIM_SEED` the first seed; `MAYFLY_SIM_DEPTH` is
//! the number of records that the exhaustive exploration appends. A failure prints its seed and its shortest trace.

mod acts;
mod approval;
mod broken;
mod change;
mod check;
mod controls;
#[path = "../kit/dice.rs"]
mod dice;
mod exhaustive;
mod feed;
mod glass;
mod judge;
mod make;
mod model;
mod op;
mod people;
mod registry;
mod restart;
mod run;
mod step;
mod waits;
mod watch;
mod world;

use broken::Broken;
use dice::setting;
use run::{interleavings, run};

/// Number of interleavings for each number of writers.
fn runs() -> u64 {
    setting("MAYFLY_SIM_RUNS", if cfg!(debug_assertions) { 600 } else { 10_000 })
}

#[test]
fn with_one_writer_every_rule_holds_in_every_interleaving() {
    interleavings(1, setting("MAYFLY_SIM_SEED", 1), runs());
}

#[test]
fn with_three_writers_every_rule_holds_in_every_interleaving() {
    interleavings(3, setting("MAYFLY_SIM_SEED", 1), runs());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for (writers, seed) in [(1, 7), (3, 7), (3, 8)] {
        let once =
            || run(writers, &op::plan(seed, 120), Broken::Nothing).map(|w| w.transcript).map_err(|(_, found)| found).unwrap();
        assert_eq!(once(), once());
    }
    let other = |seed| run(3, &op::plan(seed, 120), Broken::Nothing).map(|w| w.transcript).map_err(|(_, found)| found).unwrap();
    assert_ne!(other(7), other(8));
}
