//! Rotation of segment files. The next file is created ahead in the background, so that an append only waits for its rename.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::redb::Database;

use super::segments::{SegmentFile, Segments};
use crate::StoreError;

/// An empty segment file under its temporary name.
pub(super) struct NextSegment {
    pub database: Database,
    pub aside: PathBuf,
}

/// The progress of the next file.
pub(super) struct Rotation {
    /// Bytes with which a file is full.
    enough: u64,
    /// The newest file is left at so many bytes: raised when the next file could not be created.
    at: u64,
    next: Option<JoinHandle<Result<NextSegment, StoreError>>>,
}

impl Rotation {
    /// `enough`: bytes with which a file is full.
    pub fn new(enough: u64) -> Rotation {
        Rotation { enough: enough.max(1), at: enough.max(1), next: None }
    }

    /// The newest file grew: half a file before it is full, the creation of the next file begins.
    pub fn grew(&mut self, newest: &SegmentFile, segments: &Arc<Segments>) {
        let early = self.at.saturating_sub(self.enough / 2);
        if self.next.is_some() || newest.filled() < early || segments.files().dir.is_none() {
            return;
        }
        let segments = segments.clone();
        let started = std::thread::Builder::new().name("store-next-file".into()).spawn(move || {
            // Closes files that were read at the start, or before this one was full.
            segments.close_some(0);
            segments.files().make_next()
        });
        match started {
            Ok(thread) => self.next = Some(thread),
            Err(error) => self.later(newest, &StoreError::Failed(error.to_string())),
        }
    }

    /// The next file, if it is time to leave the newest.
    pub fn due(&mut self, newest: &SegmentFile) -> Option<NextSegment> {
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

    /// Nothing is lost: the newest file is used further, and creation is retried when that much more is in it.
    fn later(&mut self, newest: &SegmentFile, error: &StoreError) {
        tracing::warn!(%error, "the next segment file could not be created; the newest segment file stays in use");
        self.at = newest.filled().saturating_add(self.enough);
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        if let Some(Ok(Ok(fresh))) = self.next.take().map(JoinHandle::join) {
            drop(fresh.database);
            // A leftover only takes space, and is removed when the next file is created.
            let _ = std::fs::remove_file(fresh.aside);
        }
    }
}
