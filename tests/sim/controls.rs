//! Controls of the simulation: with each defect of `broken` built in, it must find a violation.

use crate::broken::Broken;
use crate::op::{Kind, Op, plan, plan_of};
use crate::run::{LENGTH, run, shrink};

/// Interleavings to try for one defect.
const MOST: u64 = 2_000;

/// The operations to try. A defect that shows only when several operations come together is searched for among those operations.
fn operations(broken: Broken, seed: u64) -> Vec<Op> {
    use Kind::{
        AskApproval, Beat, BreakGlass, Close, DecideApproval, Deliver, Derive, Extend, Fold, Issue, Land, Lift, Lock, OpenRoot,
        Pack, Pass, Reconnect, Release, Revoke, SetBinding, SetPolicy,
    };
    let lagging = [Beat, Deliver, Fold, Issue, Land, Pack, Pass, Reconnect, Revoke];
    let approving = [AskApproval, DecideApproval, Extend, Fold, Issue, Land, OpenRoot, Pack, Pass];
    let glass = [BreakGlass, Close, Fold, Land, Lock, Lift, Pack, Pass, SetBinding, SetPolicy];
    // A task opened with a derived credential, one of whose ancestors is then revoked.
    let resting = [Derive, Fold, Issue, Land, OpenRoot, Pack, Pass, Release, Revoke];
    plan_of(seed, LENGTH, &|kind| match broken {
        Broken::FreshWithoutProof => lagging.contains(&kind),
        Broken::OpensAnyhow | Broken::TakesNoForYes | Broken::MoreTimeAgain => approving.contains(&kind),
        Broken::ForgetsTheLine => resting.contains(&kind),
        Broken::GlassLasts | Broken::GlassUnreviewed => glass.contains(&kind),
        _ => true,
    })
}

#[test]
fn every_defect_that_is_built_in_is_found() {
    for broken in Broken::ALL {
        let found = (1..=MOST).find_map(|seed| {
            let writers = match broken {
                // Only a single writer has an acknowledged end to lose.
                Broken::LosesTheLast => 1,
                // Only several writers have a view that lags, or an answer that can come too early.
                Broken::IgnoresRevision | Broken::FreshWithoutProof | Broken::AnswersEarly => 3,
                _ => 1 + 2 * (seed as u32 % 2),
            };
            run(writers, &operations(broken, seed), broken).err().map(|(_, text)| (seed, writers, text))
        });
        let Some((seed, _, text)) = found else { panic!("{broken:?} was not found in {MOST} interleavings") };
        println!("{broken:?}: seed {seed}: {}", text.chars().take(100).collect::<String>());
    }
}

#[test]
fn a_trace_that_breaks_a_rule_is_printed_in_its_shortest_form() {
    let broken = Broken::IgnoresClosing;
    let seed = (1..=MOST).find(|seed| run(3, &plan(*seed, LENGTH), broken).is_err()).expect("a seed that finds it");
    let (short, found) = shrink(3, &plan(seed, LENGTH), broken);
    assert!(short.len() <= 8, "{} steps are left: {short:?}", short.len());
    assert!(!found.is_empty() && run(3, &short, broken).is_err());
    for at in 0..short.len() {
        let mut shorter = short.clone();
        shorter.remove(at);
        assert!(run(3, &shorter, broken).is_ok(), "step {at} is not needed");
    }
}
