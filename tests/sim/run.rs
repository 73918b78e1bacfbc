//! Runs, and the report when one violates a rule: its seed and the shortest trace that still does.

use crate::broken::Broken;
use crate::op::{Op, plan};
use crate::world::{Counts, Found, World};

/// Operations in one interleaving.
pub const LENGTH: usize = 90;

/// Runs a trace; returns the step at which a rule was violated, and the violation.
pub fn run(writers: u32, trace: &[Op], broken: Broken) -> Result<World, (usize, Found)> {
    let mut world = World::new(writers, broken);
    crate::make::begin(&mut world);
    let first = (|| {
        world.land(0)?;
        world.fold(0, 1)?;
        crate::make::furnish(&mut world, trace.first().map_or(0, |op| op.n[0]));
        world.pack(0);
        world.land(0)?;
        for w in 0..world.writers.len() {
            world.fold(w, 2)?;
        }
        (0..world.watchers.len()).try_for_each(|f| world.reconnect(f, 0))
    })();
    first.map_err(|found| (0, found))?;
    for (at, op) in trace.iter().enumerate() {
        world.step(op).map_err(|found| (at, found))?;
    }
    world.settle().map_err(|found| (trace.len(), found))?;
    Ok(world)
}

/// Leaves out operations that are not needed for the violation: halves first, then smaller parts, down to single operations.
pub fn shrink(writers: u32, trace: &[Op], broken: Broken) -> (Vec<Op>, Found) {
    let mut trace = trace.to_vec();
    let mut found = String::new();
    if let Err((at, text)) = run(writers, &trace, broken) {
        trace.truncate(at + 1);
        found = text;
    }
    let mut piece = trace.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < trace.len() {
            let mut without = trace.clone();
            without.drain(at..(at + piece).min(trace.len()));
            match run(writers, &without, broken) {
                Err((_, text)) => (trace, found) = (without, text),
                Ok(_) => at += piece,
            }
        }
        piece /= 2;
    }
    (trace, found)
}

/// Runs many seeds; fails with the first that violates a rule.
pub fn interleavings(writers: u32, first: u64, runs: u64) {
    let mut counts = Counts::default();
    for seed in first..first.saturating_add(runs) {
        let trace = plan(seed, LENGTH);
        match run(writers, &trace, Broken::Nothing) {
            Ok(world) => counts.add(&world.counts),
            Err(_) => {
                let (short, found) = shrink(writers, &trace, Broken::Nothing);
                let steps: Vec<String> = short.iter().map(|op| format!("  {op:?}")).collect();
                panic!("seed {seed} with {writers} writers, {} steps:\n{}\n{found}", short.len(), steps.join("\n"));
            }
        }
    }
    println!("{runs} interleavings with {writers} writers: {counts:?}");
    assert!(runs < 100 || counts.full(), "too little came up: {counts:?}");
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.commits += other.commits;
        self.valid += other.valid;
        self.void += other.void;
        self.refused += other.refused;
        self.answered += other.answered;
        self.crashes += other.crashes;
        self.checks += other.checks;
        self.accepted += other.accepted;
    }

    fn full(&self) -> bool {
        [self.commits, self.valid, self.void + self.refused, self.answered, self.crashes, self.checks, self.accepted]
            .iter()
            .all(|n| *n > 50)
    }
}
