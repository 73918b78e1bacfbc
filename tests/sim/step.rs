//! Runs one operation.

use mayfly::seq::Millis;
use mayfly::system::{Clock, ManualClock};

use crate::op::{Kind, Op};
use crate::world::{Found, World};

impl World {
    pub fn step(&mut self, op: &Op) -> Result<(), Found> {
        let w = op.n[0] as usize % self.writers.len();
        let f = op.n[0] as usize % self.watchers.len();
        match op.kind {
            Kind::Pack => {
                self.pack(w);
                if op.once_in(1, 0, 2) {
                    self.land(w)?;
                }
            }
            Kind::Land => self.land(w)?,
            Kind::Fold => self.fold(w, some(op, 4))?,
            Kind::Crash => self.crash(w, op)?,
            Kind::Snapshot => self.take_snapshot()?,
            Kind::Pass => {
                const STEPS: [u64; 12] = [1, 7, 500, 1_000, 1_000, 4_000, 9_000, 20_000, 31_000, 300_001, 3_600_000, 90_000_000];
                self.pass(STEPS[op.n[1] as usize % STEPS.len()]);
                for f in 0..self.watchers.len() {
                    crate::check::follower(self, f)?;
                }
            }
            Kind::StepClock => {
                self.stepped = true;
                step_clock(&self.writers[w].clock, op);
            }
            Kind::MendClock => self.writers[w].clock.step_to(self.truth.wall()),
            Kind::Beat => {
                if op.once_in(1, 0, 2) {
                    self.fold(w, usize::MAX)?;
                }
                self.beat(w);
            }
            Kind::Deliver => self.deliver(f, some(op, 6))?,
            Kind::Lose => self.watchers[f].lose(self.broken),
            Kind::Reconnect => self.reconnect(f, op.n[1] as usize % self.writers.len())?,
            Kind::StepFollower => {
                self.followers_stepped = true;
                step_clock(&self.watchers[f].clock, op);
                crate::check::follower(self, f)?;
            }
            _ => crate::make::make(self, w, op),
        }
        let head = self.observer.head.as_u64();
        self.note(&[&[op.kind as u8][..], &head.to_be_bytes()[..]].concat());
        Ok(())
    }
}

/// All of them, or up to a few.
fn some(op: &Op, most: usize) -> usize {
    if op.once_in(2, 0, 2) { usize::MAX } else { 1 + op.n[1] as usize % most }
}

fn step_clock(clock: &ManualClock, op: &Op) {
    const BY: [i64; 6] = [10_000, 40_000, 3_600_000, 200_000_000, 29_000, 61_000];
    let by = BY[op.n[1] as usize % BY.len()] * if op.once_in(2, 0, 2) { 1 } else { -1 };
    clock.step_to(Millis(clock.wall().0.saturating_add_signed(by)));
}
