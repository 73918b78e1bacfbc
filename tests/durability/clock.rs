//! The clock of a running server is set: grants stop, revoking goes on, and no credential lives longer or shorter.

use std::sync::Arc;
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::seq::Millis;
use mayfly::system::{Clock, ManualClock, System};

use crate::kit::{Callers, TOKENS, accepts, follower, reason, retry_after, until, way_out, world};

const HOUR: i64 = 3_600_000;

/// A world whose SVIDs were made four hours ago and live for most of a day, so that no step invalidates one.
fn hours_old() -> (tempfile::TempDir, DevWorld, Arc<ManualClock>) {
    let clock = ManualClock::at(System::real().wall());
    let system = System::with_clock(clock.clone());
    let (dir, world) = world(DevSettings { system, svid_life_ms: 23 * HOUR as u64, ..DevSettings::default() });
    clock.advance(4 * HOUR as u64);
    (dir, world, clock)
}

fn stepped(from: Millis, by: i64) -> Millis {
    Millis(from.0.saturating_add_signed(by))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_clock_stops_grants_and_neither_lengthens_nor_shortens_a_life() {
    let (_dir, world, clock) = hours_old();
    let running = tokio::task::block_in_place(|| world.start()).unwrap_or_else(|no| panic!("{no}"));
    let callers = Callers::new(&world, running.addresses().workload).await;
    // The relying service has a clock of its own, which is not set.
    let theirs = ManualClock::at(clock.wall());
    let relying = follower(&world, running.addresses().workload, System::with_clock(theirs.clone())).await;
    let pass = |ms: u64| {
        clock.advance(ms);
        theirs.advance(ms);
    };
    until("it issues", || callers.serving(TOKENS)).await;
    let revoked_before = callers.exchange("").await.unwrap();
    callers.revoke(&revoked_before.id).await.unwrap();
    for by in [3 * HOUR, -3 * HOUR, HOUR, -HOUR / 2] {
        let (long, short) = (callers.exchange("").await.unwrap(), callers.exchange_for(10, "").await.unwrap());
        let doomed = callers.exchange("").await.unwrap();
        until("the follower accepts them", || async { accepts(&relying, &long.token) && accepts(&relying, &short.token) }).await;
        clock.step_to(stepped(clock.wall(), by));

        let refused = callers.exchange("").await.unwrap_err();
        assert_eq!(reason(&refused), "CLOCK_SKEW", "{refused:?}");
        assert!(
            retry_after(&refused) == Some(Duration::from_secs(30)) && way_out(&refused).contains("timedatectl"),
            "{refused:?}"
        );
        until("health says that nothing is issued", || async { !callers.serving(TOKENS).await }).await;
        assert!(callers.serving("").await);
        let shown = callers.status().await.clock.unwrap().skew.unwrap();
        assert_eq!(shown.seconds * 1000, by.abs(), "the status shows how far it is off");

        // Revoking goes on and reaches followers; its time is not the wrong one.
        let seq = callers.revoke(&doomed.id).await.unwrap();
        until("the follower has applied it", || async { relying.applied().as_u64() >= seq }).await;
        assert!(!accepts(&relying, &doomed.token) && !callers.active(&doomed.token).await);
        let written = running.authority().ledger.peek(|s| s.time);
        assert!(written.0.abs_diff(theirs.wall().0) <= 1000, "the step is not written: {written}");

        // The step expired no credential; the short one expires after its ten seconds, whatever the clock shows.
        assert!(callers.active(&long.token).await && callers.active(&short.token).await, "stepped by {by}");
        pass(12_000);
        assert!(callers.active(&long.token).await && !callers.active(&short.token).await, "stepped by {by}");
        // The follower needs a heartbeat with the present time, and then decides the same.
        until("the follower is fresh", || async { accepts(&relying, &long.token) }).await;
        pass(60_000);
        until("the follower is fresh again", || async { accepts(&relying, &long.token) }).await;
        assert!(!accepts(&relying, &short.token), "stepped by {by}: a credential outlived its end at a verifier");
        assert!(!accepts(&relying, &revoked_before.token) && !callers.active(&revoked_before.token).await);

        // The clock is right again: no restart is needed.
        clock.step_to(theirs.wall());
        let new = callers.until_exchange("it issues again by itself", Result::is_ok).await.unwrap();
        until("health says so", || callers.serving(TOKENS)).await;
        until("the follower accepts what is new", || async { accepts(&relying, &new.token) }).await;
        for gone in [&short, &doomed, &revoked_before] {
            assert!(!callers.active(&gone.token).await && !accepts(&relying, &gone.token), "nothing is revived");
        }
    }
    tokio::task::block_in_place(|| running.stop());
}

/// The host is suspended for an hour: both clocks show it, no clock has stepped, and no restart is needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_suspended_goes_on_by_itself() {
    let (_dir, world, clock) = hours_old();
    let running = tokio::task::block_in_place(|| world.start()).unwrap_or_else(|no| panic!("{no}"));
    let callers = Callers::new(&world, running.addresses().workload).await;
    until("it issues", || callers.serving(TOKENS)).await;
    let (short, long) = (callers.exchange_for(600, "").await.unwrap(), callers.exchange_for(3600, "").await.unwrap());
    let watched = callers.open_watched(5).await;
    for _ in 0..3 {
        // Shorter than the heartbeat interval, and much longer.
        clock.suspend(2_000);
    }
    clock.suspend(HOUR as u64 / 2);
    let new = callers.exchange("").await.unwrap_or_else(|no| panic!("resumed: {no:?}"));
    assert!(callers.active(&new.token).await && callers.active(&long.token).await);
    assert!(!callers.active(&short.token).await, "ten minutes are over");
    let shown = callers.status().await;
    assert!(shown.issuing.unwrap().issuing);
    // No heartbeat could arrive during the suspension: tasks receive one more interval, and then a missing heartbeat counts.
    until("one interval more is granted", || async { callers.alive(&watched).await }).await;
    assert!(callers.alive(&watched).await);
    clock.advance(6_000);
    until("nobody shows a sign of life", || async { !callers.alive(&watched).await }).await;
    // A step during a suspension is still a step.
    clock.suspend(HOUR as u64);
    clock.step_to(stepped(clock.wall(), 2 * HOUR));
    assert_eq!(reason(&callers.exchange("").await.unwrap_err()), "CLOCK_SKEW");
    clock.step_to(stepped(clock.wall(), -2 * HOUR));
    callers.until_exchange("it issues again by itself", Result::is_ok).await.unwrap();
    tokio::task::block_in_place(|| running.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn started_by_a_clock_that_stands_behind_the_ledger_it_revives_nothing() {
    let (_dir, world, clock) = hours_old();
    let running = tokio::task::block_in_place(|| world.start()).unwrap_or_else(|no| panic!("{no}"));
    let callers = Callers::new(&world, running.addresses().workload).await;
    // An exchange with a request id, so that the credential stays in memory for a while after it expired.
    let (long, short) = (callers.exchange("").await.unwrap(), callers.exchange_for(10, "short").await.unwrap());
    clock.advance(20_000);
    let doomed = callers.exchange("").await.unwrap();
    tokio::task::block_in_place(|| running.stop());

    clock.step_to(stepped(clock.wall(), -2 * HOUR));
    let running = tokio::task::block_in_place(|| world.start()).unwrap_or_else(|no| panic!("{no}"));
    let callers = Callers::new(&world, running.addresses().workload).await;
    assert_eq!(reason(&callers.exchange("").await.unwrap_err()), "CLOCK_SKEW");
    assert!(!callers.active(&short.token).await, "it had ended when the ledger was last written");
    assert!(callers.active(&long.token).await);
    callers.revoke(&doomed.id).await.unwrap();
    assert!(!callers.active(&doomed.token).await);
    // A wrong clock that was accepted at the start is not followed when it is corrected: a restart is needed.
    clock.step_to(stepped(clock.wall(), 2 * HOUR));
    let refused = callers.exchange("").await.unwrap_err();
    assert!(reason(&refused) == "CLOCK_SKEW" && way_out(&refused).contains("restarts mayfly"), "{refused:?}");
    tokio::task::block_in_place(|| running.stop());
    let running = tokio::task::block_in_place(|| world.start()).unwrap_or_else(|no| panic!("{no}"));
    let callers = Callers::new(&world, running.addresses().workload).await;
    callers.until_exchange("it issues", Result::is_ok).await.unwrap();
    assert!(callers.active(&long.token).await && !callers.active(&short.token).await && !callers.active(&doomed.token).await);
    tokio::task::block_in_place(|| running.stop());
}
