//! When the next file begins. It is made ahead, in the background, so that an append waits for nothing but its name.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::redb::Database;

use super::segments::{Segment, Segments};
use crate::store::StoreError;

/// A file with nothing in it, under a name that nobody looks for.
pub(super) struct Fresh {
    pub database: Database,
    pub aside: PathBuf,
}

/// How far the next file has got.
pub(super) struct Rotation {
    /// A file has enough with so many bytes.
    enough: u64,
    /// With so many the newest one is tried to be left: more where the next one could not be made.
    at: u64,
    next: Option<JoinHandle<Result<Fresh, StoreError>>>,
}

impl Rotation {
    /// A file has enough with so many bytes.
    pub fn new(enough: u64) -> Rotation {
        Rotation { enough: enough.max(1), at: enough.max(1), next: None }
    }

    /// More was put into the newest: half a file before it has enough, the next one is begun with.
    pub fn grew(&mut self, newest: &Segment, segments: &Arc<Segments>) {
        let early = self.at.saturating_sub(self.enough / 2);
        if self.next.is_some() || newest.filled() < early || segments.files().dir.is_none() {
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
            Err(error) => self.later(newest, &StoreError::Failed(error.to_string())),
        }
    }

    /// The next file, where it is time to leave the newest.
    pub fn due(&mut self, newest: &Segment) -> Option<Fresh> {
        let late = newest.filled() >= self.at.saturating_add(self.enough);
        let due = newest.filled() >= self.at && self.next.as_ref().is_some_and(|next| late || next.is_finished());
        if !due {
            return None;
        }
        match self.next.take()?.join() {
            Ok(Ok(fresh)) => {
                self.at = self.enough;
                Some(fresh)
            }
            Ok(Err(error)) => {
                self.later(newest, &error);
                None
            }
            Err(_) => {
                self.later(newest, &StoreError::Failed("making it stopped".to_owned()));
                None
            }
        }
    }

    /// Nothing is lost: the newest file goes on, and it is tried again when there is as much more in it.
    fn later(&mut self, newest: &Segment, error: &StoreError) {
        tracing::warn!(%error, "the next file of commits could not be made; the newest one goes on");
        self.at = newest.filled().saturating_add(self.enough);
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
