//! The operations on the world. An operation names things by number, taken modulo the number of things that exist when it runs, so that a
//! trace still runs when operations are left out: this makes it possible to shrink a trace.

use crate::dice::Dice;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    // Grants.
    OpenRoot,
    OpenChild,
    Inline,
    Issue,
    Derive,
    Renew,
    /// A retry of a request whose upstream cannot return the same credential again.
    Replace,
    Batch,
    Extend,
    IssueApproved,
    Authorize,
    SignIn,
    BreakGlass,
    // Revocations, and their reversals.
    Release,
    Revoke,
    Lock,
    Lift,
    Hold,
    Resume,
    Close,
    Compromise,
    SignOut,
    // All other records.
    Heartbeats,
    ReportUses,
    AskApproval,
    DecideApproval,
    UseOnce,
    SetPolicy,
    SetUpstream,
    SetBinding,
    RotateKey,
    Generation,
    /// A group that was proposed before, sent again, perhaps by another writer.
    Repeat,
    // From proposals to a log, and from a log to a state.
    Pack,
    Land,
    Fold,
    Crash,
    Snapshot,
    // Time.
    Pass,
    StepClock,
    MendClock,
    // Followers.
    Beat,
    Deliver,
    Lose,
    Reconnect,
    StepFollower,
}

/// How often each operation occurs.
const WEIGHTS: [(Kind, u32); 46] = [
    (Kind::OpenRoot, 6),
    (Kind::OpenChild, 5),
    (Kind::Inline, 5),
    (Kind::Issue, 12),
    (Kind::Derive, 8),
    (Kind::Renew, 4),
    (Kind::Replace, 6),
    (Kind::Batch, 3),
    (Kind::Extend, 3),
    (Kind::IssueApproved, 5),
    (Kind::Authorize, 6),
    (Kind::SignIn, 4),
    (Kind::BreakGlass, 6),
    (Kind::SignOut, 2),
    (Kind::ReportUses, 4),
    (Kind::Release, 4),
    (Kind::Revoke, 9),
    (Kind::Lock, 2),
    (Kind::Lift, 4),
    (Kind::Hold, 3),
    (Kind::Resume, 3),
    (Kind::Close, 4),
    (Kind::Compromise, 1),
    (Kind::Heartbeats, 3),
    (Kind::AskApproval, 3),
    (Kind::DecideApproval, 4),
    (Kind::UseOnce, 2),
    (Kind::SetPolicy, 1),
    (Kind::SetUpstream, 1),
    (Kind::SetBinding, 1),
    (Kind::RotateKey, 1),
    (Kind::Generation, 1),
    (Kind::Repeat, 6),
    (Kind::Pack, 22),
    (Kind::Land, 24),
    (Kind::Fold, 24),
    (Kind::Crash, 2),
    (Kind::Snapshot, 2),
    (Kind::Pass, 12),
    (Kind::StepClock, 2),
    (Kind::MendClock, 1),
    (Kind::Beat, 10),
    (Kind::Deliver, 22),
    (Kind::Lose, 1),
    (Kind::Reconnect, 2),
    (Kind::StepFollower, 1),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op {
    pub kind: Kind,
    pub n: [u32; 4],
}

impl Op {
    /// One of `items`, chosen by number `i`.
    pub fn pick<'a, T>(&self, i: usize, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(i, items.len())?)
    }

    pub fn index(&self, i: usize, len: usize) -> Option<usize> {
        (len > 0).then(|| self.n[i] as usize % len)
    }

    /// A choice by number `i`, shifted so that choices are independent: true once in `of`.
    pub fn once_in(&self, i: usize, shift: u32, of: u32) -> bool {
        (self.n[i] >> shift).is_multiple_of(of)
    }
}

/// The operations of one run.
pub fn plan(seed: u64, length: usize) -> Vec<Op> {
    plan_of(seed, length, &|_| true)
}

/// The operations of one run, restricted to some kinds, to search where a violation is expected.
pub fn plan_of(seed: u64, length: usize, takes: &dyn Fn(Kind) -> bool) -> Vec<Op> {
    let mut dice = Dice::new(seed);
    let weights: Vec<(Kind, u32)> = WEIGHTS.into_iter().filter(|(kind, _)| takes(*kind)).collect();
    let total: u32 = weights.iter().map(|w| w.1).sum();
    let mut one = || {
        let mut at = (dice.roll() % u64::from(total)) as u32;
        let kind = weights.iter().find(|(_, w)| at.checked_sub(*w).map(|rest| at = rest).is_none()).map_or(Kind::Pass, |w| w.0);
        let (a, b) = (dice.roll(), dice.roll());
        Op { kind, n: [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32] }
    };
    (0..length).map(|_| one()).collect()
}
