//! When the next file begins. It is made ahead, in the background, so that an append waits for nothing but its name.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::redb::Database;

use super::segments::Segments;
use crate::store::StoreError;

/// A file with nothing in it, under a name that nobody looks for.
pub(super) struct Fresh {
    pub database: Database,
    pub aside: PathBuf,
}

/// How far the newest file has got, and the next one.
pub(super) struct Rotation {
    /// A file has enough with so many bytes.
    enough: u64,
    /// What was put into the newest one, about.
    filled: u64,
    next: Option<JoinHandle<Result<Fresh, StoreError>>>,
}

impl Rotation {
    /// For a newest file that has so much.
    pub fn new(enough: u64, filled: u64) -> Rotation {
        Rotation { enough: enough.max(1), filled, next: None }
    }

    /// More was put in: half way, the next file is begun with.
    pub fn grew(&mut self, bytes: usize, segments: &Arc<Segments>) {
        self.filled = self.filled.saturating_add(bytes as u64);
        if self.next.is_some() || self.filled < self.enough / 2 || segments.files().dir.is_none() {
            return;
        }
        let segments = segments.clone();
        let started = std::thread::Builder::new().name("store-next-file".into()).spawn(move || {
            // Those that were read from at the start, or before it was full.
            segments.close_some(0);
            segments.files().make_next()
        });
        match started {
            Ok(thread) => self.next = Some(thread),
            Err(error) => self.later(&StoreError::Failed(error.to_string())),
        }
    }

    /// The next file, where it is time for it.
    pub fn due(&mut self) -> Option<Fresh> {
        let late = self.filled >= self.enough.saturating_mul(2);
        let due = self.filled >= self.enough && self.next.as_ref().is_some_and(|next| late || next.is_finished());
        if !due {
            return None;
        }
        match self.next.take()?.join() {
            Ok(Ok(fresh)) => {
                self.filled = 0;
                Some(fresh)
            }
            Ok(Err(error)) => {
                self.later(&error);
                None
            }
            Err(_) => {
                self.later(&StoreError::Failed("making it stopped".to_owned()));
                None
            }
        }
    }

    /// Nothing is lost: the newest file goes on, and it is tried again when there is as much more in it.
    fn later(&mut self, error: &StoreError) {
        tracing::warn!(%error, "the next file of commits could not be made; the newest one goes on");
        self.filled = 0;
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        if let Some(Ok(Ok(fresh))) = self.next.take().map(JoinHandle::join) {
            drop(fresh.database);
            // A leftover costs its room, and goes when the next one is made.
            let _ = std::fs::remove_file(fresh.aside);
        }
    }
}
