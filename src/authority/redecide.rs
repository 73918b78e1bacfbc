//! Repeating a decision that a concurrent change made void, before the caller is told to try again.

use crate::authority::Authority;
use crate::tasks::is_reuse;
use mayfly_base::refusal::Error;
use mayfly_policy::decide::decided_on_stale_state;

/// Most attempts to decide: at the second attempt the change may be written but not yet compiled into the state that decisions use.
const ATTEMPTS: usize = 3;

/// The attempts of one call to decide.
#[derive(Default)]
pub(crate) struct DecisionAttempts {
    void: usize,
}

impl DecisionAttempts {
    /// Whether no attempt was void so far.
    pub fn is_first(&self) -> bool {
        self.void == 0
    }

    /// Counts an attempt that is void. Returns whether another one may follow.
    pub fn again(&mut self) -> bool {
        self.void += 1;
        self.void < ATTEMPTS
    }
}

/// Whether an attempt was void: the decision used a state that is no longer in effect, or a concurrent call with the same request id was
/// first.
pub(crate) fn is_void(no: &Error) -> bool {
    decided_on_stale_state(no) || is_reuse(no)
}

impl Authority {
    /// Handles the refusal of an attempt. If the attempt was void, waits until the concurrent change is durable, so that the next attempt
    /// sees it. Otherwise, and after the last attempt, the refusal is the answer.
    pub(crate) async fn redecide(
        &self,
        attempts: &mut DecisionAttempts,
        no: Error,
        void: impl FnOnce(&Error) -> bool,
    ) -> Result<(), Error> {
        match void(&no) && attempts.again() {
            true => self.ledger.settled(|_| ()).await,
            false => Err(no),
        }
    }
}
