//! What a decision is made on.

use std::sync::Arc;

use super::{Inner, State};
use crate::seq::{Millis, Seq};

/// Everything up to the revision, and perhaps newer. The revision goes into the record and into the credential.
pub struct View {
    inner: Arc<Inner>,
    revision: Seq,
    now: Millis,
}

impl View {
    pub(super) fn new(inner: Arc<Inner>, revision: Seq) -> View {
        let wall = inner.system.wall();
        View { inner, revision, now: wall }
    }

    /// The decision revision: all up to here was seen.
    pub fn revision(&self) -> Seq {
        self.revision
    }

    /// When the decision is made. The fold refuses what strays too far from the time of its commit.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Reads the live state for a moment. No policy runs in here: the writer waits meanwhile.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.inner.look())
    }
}
