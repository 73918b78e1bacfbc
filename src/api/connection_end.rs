//! When a connection ends: when its SVID expires, when the root that vouched for the SVID is removed, when the server stops, or when its
//! maximum age is reached.
//!
//! The peer is first asked to close (GOAWAY: open calls continue, new calls use another connection); later the connection is dropped. No
//! adjustment of a clock extends a connection's life: an end is reached when either the wall clock or the steady clock says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::connection_table::ConnectionActivity;
use super::tls::CurrentBundles;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_identity::svid::Evidence;
use mayfly_verify::seq::Millis;

/// Interval at which a sleeping connection checks the wall clock, which may have been set forward.
const LOOK: Duration = Duration::from_secs(60);

/// Whether the server stops. The value never returns to false.
pub type Stopping = watch::Receiver<bool>;

/// A counter that increases after each change of the bundles in effect.
pub type TrustChanges = watch::Receiver<u64>;

/// Why the server ends a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionEndReason {
    /// The peer's SVID expires soon.
    SvidEnds,
    /// The trust anchor that vouched for the SVID is no longer trusted.
    AnchorRemoved,
    /// The server stops.
    Stopping,
    /// The connection has reached the maximum age of its listener's connections.
    Old,
    /// All places are taken, and this holder has the most connections.
    MakesRoom,
    /// As [`ConnectionEndReason::MakesRoom`], while too many connections that were asked to make room have not closed yet.
    NoRoom,
    /// The peer does not read its answers.
    AnswersUnread,
}

impl ConnectionEndReason {
    /// Whether the connection is dropped at once, without asking the peer to close.
    pub fn is_at_once(self) -> bool {
        matches!(self, ConnectionEndReason::NoRoom | ConnectionEndReason::AnswersUnread)
    }
}

/// The ends of one connection.
pub struct ConnectionEnds {
    system: System,
    stopping: Stopping,
    /// The peer's evidence, and the bundles against which it is checked again after each trust change.
    trust: Option<(Arc<Evidence>, CurrentBundles, TrustChanges)>,
    /// When the peer is asked to close, and when the connection is dropped, by the steady clock.
    soft_at: u64,
    hard_at: u64,
    wall_end: Millis,
    why_soft: ConnectionEndReason,
    /// The connection's activity, which the connection table uses to end connections.
    activity: Arc<ConnectionActivity>,
}

impl ConnectionEnds {
    /// The ends of a connection with an SVID. `jitter` is any number: it spreads the ends of connections that began together.
    pub fn with_svid(
        evidence: Arc<Evidence>,
        bundles: CurrentBundles,
        changes: TrustChanges,
        system: System,
        stopping: Stopping,
        (activity, jitter): (Arc<ConnectionActivity>, u64),
    ) -> ConnectionEnds {
        let (wall, steady) = (system.wall(), system.steady());
        let left = evidence.not_after.since(wall);
        let margin = (left / 10).min(limits::SVID_END_MARGIN_MS);
        let margin = margin / 2 + jitter % (margin / 2).max(1);
        ConnectionEnds {
            stopping,
            soft_at: steady.saturating_add(left - margin.min(left)),
            hard_at: steady.saturating_add(left),
            wall_end: evidence.not_after,
            why_soft: ConnectionEndReason::SvidEnds,
            trust: Some((evidence, bundles, changes)),
            system,
            activity,
        }
    }

    /// The ends of a connection without an SVID, which lives for at most `life_ms`; 0 means as long as the server.
    pub fn without_svid(system: System, stopping: Stopping, life_ms: u64, activity: Arc<ConnectionActivity>) -> ConnectionEnds {
        let end = if life_ms == 0 { u64::MAX } else { system.steady().saturating_add(life_ms) };
        let hard_at = end.saturating_add(limits::CLOSE_MS);
        ConnectionEnds {
            stopping,
            soft_at: end,
            hard_at,
            wall_end: Millis(u64::MAX),
            why_soft: ConnectionEndReason::Old,
            trust: None,
            system,
            activity,
        }
    }

    /// The connection's activity.
    pub fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }

    /// Waits until the peer is to be asked to close.
    pub async fn soft(&mut self) -> ConnectionEndReason {
        let activity = self.activity.clone();
        tokio::select! {
            why = activity.ends() => why,
            why = self.by_right() => why,
        }
    }

    /// Waits until the connection loses its authorization: the server stops, trust is withdrawn, or its time has passed.
    async fn by_right(&mut self) -> ConnectionEndReason {
        loop {
            if *self.stopping.borrow() {
                return ConnectionEndReason::Stopping;
            }
            if !self.still_trusted() {
                return ConnectionEndReason::AnchorRemoved;
            }
            let left = self.left(self.soft_at);
            if left.is_zero() {
                return self.why_soft;
            }
            self.next_event(left).await;
        }
    }

    /// Waits until a connection whose peer was asked to close is to be dropped.
    pub async fn hard(&mut self, why: ConnectionEndReason) {
        let grace = |ms: u64| self.system.steady().saturating_add(ms);
        let mut at = match why {
            ConnectionEndReason::SvidEnds | ConnectionEndReason::Old => self.hard_at,
            ConnectionEndReason::AnchorRemoved | ConnectionEndReason::MakesRoom => grace(limits::CLOSE_MS).min(self.hard_at),
            ConnectionEndReason::NoRoom | ConnectionEndReason::AnswersUnread => 0,
            ConnectionEndReason::Stopping => grace(limits::SHUTDOWN_MS).min(self.hard_at),
        };
        let mut trusted = why != ConnectionEndReason::AnchorRemoved;
        loop {
            if trusted && !self.still_trusted() {
                trusted = false;
                at = at.min(self.system.steady().saturating_add(limits::CLOSE_MS));
            }
            let left = self.left(at);
            if left.is_zero() {
                return;
            }
            // A stop of the server in between changes nothing: its own deadline is later than this one, or drops the connection anyway.
            self.next_change(left).await;
        }
    }

    fn still_trusted(&mut self) -> bool {
        let Some((evidence, bundles, changes)) = &mut self.trust else { return true };
        // Mark before checking, so that a change right after the check wakes this task.
        changes.mark_unchanged();
        bundles.load().still_vouch_for(evidence)
    }

    /// Time left until a moment of the steady clock, or zero if the SVID has expired by the wall clock.
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
                // The sender of trust changes is dropped only when the server is.
                gone = changes.changed() => if gone.is_err() { std::future::pending::<()>().await },
            },
            None => nap.await,
        }
    }
}
