//! When a connection ends: with its SVID, with the root that vouched for it, with the server, or with its time.
//!
//! First it is asked to go (GOAWAY: open calls go on, new ones find another connection), then it is dropped. No step of a clock extends a
//! life: an end is reached when the wall clock or the steady clock says so, whichever is first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::table::Activity;
use super::tls::BundlesInForce;
use crate::identity::svid::Evidence;
use crate::limits;
use crate::seq::Millis;
use crate::system::System;

/// How often a sleeping connection looks at the wall clock, which may have been set forward.
const LOOK: Duration = Duration::from_secs(60);

/// Whether the server stops. It never goes back.
pub type Stopping = watch::Receiver<bool>;

/// Counts up with each change of the bundles in force, after the change.
pub type TrustChanges = watch::Receiver<u64>;

/// Why a connection is asked to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its SVID ends soon.
    SvidEnds,
    /// The trust anchor that vouched for it is no longer trusted.
    AnchorRemoved,
    /// The server stops.
    Stopping,
    /// It has lived as long as connections of its listener do.
    Old,
    /// All places are taken, and its holder has the most of them.
    MakesRoom,
    /// The same, where too many that make room have not gone yet.
    NoRoom,
    /// Its peer does not read what it is answered.
    AnswersUnread,
}

impl Why {
    /// The peer is not told, nor waited for.
    pub fn is_at_once(self) -> bool {
        matches!(self, Why::NoRoom | Why::AnswersUnread)
    }
}

/// The ends of one connection.
pub struct Ends {
    system: System,
    stopping: Stopping,
    /// Who it is, and what to compare that with when trust changes.
    trust: Option<(Arc<Evidence>, BundlesInForce, TrustChanges)>,
    /// Asked to go then, and gone then, by the steady clock.
    soft_at: u64,
    hard_at: u64,
    wall_end: Millis,
    why_soft: Why,
    /// What the connection does, by which it may be ended.
    activity: Arc<Activity>,
}

impl Ends {
    /// A connection of an SVID. `jitter` is any number: it spreads the ends of connections that began together.
    pub fn with_svid(
        evidence: Arc<Evidence>,
        bundles: BundlesInForce,
        changes: TrustChanges,
        system: System,
        stopping: Stopping,
        (activity, jitter): (Arc<Activity>, u64),
    ) -> Ends {
        let (wall, steady) = (system.wall(), system.steady());
        let left = evidence.not_after.since(wall);
        let margin = (left / 10).min(limits::SVID_END_MARGIN_MS);
        let margin = margin / 2 + jitter % (margin / 2).max(1);
        Ends {
            stopping,
            soft_at: steady.saturating_add(left - margin.min(left)),
            hard_at: steady.saturating_add(left),
            wall_end: evidence.not_after,
            why_soft: Why::SvidEnds,
            trust: Some((evidence, bundles, changes)),
            system,
            activity,
        }
    }

    /// A connection of somebody without an SVID that lives at most `life_ms`, 0 for as long as the server.
    pub fn without_svid(system: System, stopping: Stopping, life_ms: u64, activity: Arc<Activity>) -> Ends {
        let end = if life_ms == 0 { u64::MAX } else { system.steady().saturating_add(life_ms) };
        let hard_at = end.saturating_add(limits::CLOSE_MS);
        Ends { stopping, soft_at: end, hard_at, wall_end: Millis(u64::MAX), why_soft: Why::Old, trust: None, system, activity }
    }

    /// What the connection does.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Waits until the connection is to be asked to go.
    pub async fn soft(&mut self) -> Why {
        let activity = self.activity.clone();
        tokio::select! {
            why = activity.ends() => why,
            why = self.by_right() => why,
        }
    }

    /// Waits until it loses its right to be.
    async fn by_right(&mut self) -> Why {
        loop {
            if *self.stopping.borrow() {
                return Why::Stopping;
            }
            if !self.still_trusted() {
                return Why::AnchorRemoved;
            }
            let left = self.left(self.soft_at);
            if left.is_zero() {
                return self.why_soft;
            }
            self.next_event(left).await;
        }
    }

    /// Waits until a connection that was asked to go is to be dropped.
    pub async fn hard(&mut self, why: Why) {
        let grace = |ms: u64| self.system.steady().saturating_add(ms);
        let mut at = match why {
            Why::SvidEnds | Why::Old => self.hard_at,
            Why::AnchorRemoved | Why::MakesRoom => grace(limits::CLOSE_MS).min(self.hard_at),
            Why::NoRoom | Why::AnswersUnread => 0,
            Why::Stopping => grace(limits::SHUTDOWN_MS).min(self.hard_at),
        };
        let mut trusted = why != Why::AnchorRemoved;
        loop {
            if trusted && !self.still_trusted() {
                trusted = false;
                at = at.min(self.system.steady().saturating_add(limits::CLOSE_MS));
            }
            let left = self.left(at);
            if left.is_zero() {
                return;
            }
            // Whether the server stops meanwhile makes no difference: its own end is later than ours or drops us.
            self.next_change(left).await;
        }
    }

    fn still_trusted(&mut self) -> bool {
        let Some((evidence, bundles, changes)) = &mut self.trust else { return true };
        // Before looking, so that a change right after the look wakes us.
        changes.mark_unchanged();
        bundles.load().still_vouch_for(evidence)
    }

    /// What is left until a moment of the steady clock, or until the SVID's end by the wall clock.
    fn left(&self, at: u64) -> Duration {
        let steady = at.saturating_sub(self.system.steady());
        let past = self.wall_end <= self.system.wall();
        Duration::from_millis(if past { 0 } else { steady })
    }

    async fn next_event(&mut self, left: Duration) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = self.next_change(left) => {}
            _ = stopping.wait_for(|stops| *stops) => {}
        }
    }

    async fn next_change(&mut self, left: Duration) {
        let nap = tokio::time::sleep(left.min(LOOK));
        match &mut self.trust {
            Some((_, _, changes)) => tokio::select! {
                () = nap => {}
                // Whoever changes trust is gone only when the server is.
                gone = changes.changed() => if gone.is_err() { std::future::pending::<()>().await },
            },
            None => nap.await,
        }
    }
}
