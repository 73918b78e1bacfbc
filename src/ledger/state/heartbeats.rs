//! Heartbeats after an absence of the server.

use super::Tasks;
use super::tasks::Task;
use mayfly_verify::seq::Millis;

impl Tasks {
    /// The server was away: every task that was alive when it went away receives one full interval.
    pub(super) fn all_alive(&mut self, away_since: Millis, now: Millis) {
        // Only tasks with a heartbeat, so that entries shared with a snapshot are not copied needlessly.
        let beats = |t: &Task| t.terms.heartbeat > 0 && !t.silent(away_since) && t.alive_at < now;
        let alive: Vec<_> = (0..self.places()).filter(|slot| self.at(*slot).is_some_and(beats)).collect();
        for slot in alive {
            if let Some(task) = self.at_mut(slot) {
                task.alive_at = now;
            }
        }
    }
}
