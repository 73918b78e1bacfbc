//! Views: the state that a decision is made on.

use std::sync::Arc;

use crate::{Inner, State};
use mayfly_verify::seq::{Millis, Seq};

/// A view contains everything up to its revision, and possibly newer records. The revision goes into the record and into the credential.
pub struct View {
    inner: Arc<Inner>,
    revision: Seq,
    now: Millis,
}

impl View {
    pub(crate) fn new(inner: Arc<Inner>, revision: Seq) -> View {
        let wall = inner.system.wall();
        View { inner, revision, now: wall }
    }

    /// The decision revision: all records up to it were seen.
    pub fn revision(&self) -> Seq {
        self.revision
    }

    /// The time of the decision. The fold refuses a decision whose time is too far from the time of its commit.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Reads the live state for a moment. Policies must not run in here: the writer waits for the lock.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.inner.look())
    }
}
