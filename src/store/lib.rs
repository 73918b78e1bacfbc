//! The interface of storage engines: commits appended durably and in order, and a few named values.
//!
//! One test suite (`tests/store/contract.rs`) runs against every engine. To add an engine: one folder here, one line in the suite.
#![forbid(unsafe_code)]

pub mod closed;
mod files;
mod head;
pub mod memory;
pub mod options;
mod panic_guard;
pub mod redb;
pub mod reserve;
pub mod sealing;
pub mod sled;
pub mod stepwise_deletion;
pub mod wal;

use std::time::Duration;

use bytes::Bytes;

use mayfly_base::limits;
pub use mayfly_verify::seq::StoreId;

/// A commit's position in the store: 1 is the first, each next one is one more; no position is skipped or reused.
pub type Position = u64;

/// Why a store operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The position is not the one after the head: another writer appended, or the caller's count is wrong.
    #[error("append at {asked}, but the next place is {next}")]
    NotNext {
        /// The requested position.
        asked: Position,
        /// The expected position.
        next: Position,
    },
    /// The disk is full. As after [`StoreError::Failed`], the store accepts no change until it was reopened.
    #[error("no space left on the disk: {0}")]
    Full(String),
    /// The content of the store is not what was written.
    #[error("the store is damaged at {at}: {what}")]
    Damaged {
        /// The first position that cannot be trusted; 0 if no position is known.
        at: Position,
        /// The damage that was found.
        what: String,
    },
    /// A named value is not in the state that the change expected.
    #[error("{name} was changed meanwhile")]
    Conflict {
        /// The value's name.
        name: String,
    },
    /// An invalid name of a named value.
    #[error("{0:?} is no name of a named value: 1 to 512 bytes of a-z A-Z 0-9 . _ / : -")]
    BadName(String),
    /// A limit of `limits.rs` is exceeded.
    #[error("{what} is above the limit of {bound}")]
    TooLarge {
        /// The quantity that is too large.
        what: &'static str,
        /// The limit, in its unit.
        bound: usize,
    },
    /// The store is already open, in another process or in this one.
    #[error("{0} is in use: another server has it open")]
    InUse(String),
    /// The data is not a store of mayfly, or was written by a newer version. Nothing in it was changed.
    #[error("{0}")]
    Foreign(String),
    /// The data directory cannot be used as it is: the problem, and the command that fixes it.
    #[error("{0}")]
    Unsafe(String),
    /// The engine failed. The store accepts no change until it was reopened.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the data is undamaged and readable by another version of mayfly.
    pub fn is_of_another_version(&self) -> bool {
        matches!(self, StoreError::Foreign(text) if text.contains("this mayfly reads") || text.contains("this version does not read"))
    }
}

/// The state in which a change expects a named value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition<'a> {
    /// Any state.
    Any,
    /// The value does not exist.
    Absent,
    /// Exactly these bytes.
    Value(&'a [u8]),
}

impl Precondition<'_> {
    /// Whether the found value is in the expected state.
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Precondition::Any => true,
            Precondition::Absent => found.is_none(),
            Precondition::Value(bytes) => found == Some(*bytes),
        }
    }

    fn check(&self, name: &str, found: Option<&[u8]>) -> Result<(), StoreError> {
        if self.holds(found) { Ok(()) } else { Err(StoreError::Conflict { name: name.to_owned() }) }
    }
}

/// One commit as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCommit {
    /// The commit's position.
    pub at: Position,
    /// The commit's bytes, unchanged.
    pub bytes: Bytes,
}

/// The contract of an engine.
///
/// - **Durability.** When [`append`](Store::append), [`put`](Store::put) or [`delete`](Store::delete) has returned `Ok`, the change is on
///   stable storage: it survives SIGKILL and a power failure.
/// - **Order.** A position is filled only when all positions before it are. What a reader has seen at a position never changes.
/// - **Crash.** After a crash during an append, either the whole commit is there or nothing of it. A commit that was never acknowledged may
///   be there.
/// - **Errors.** After [`StoreError::Failed`], [`StoreError::Full`] or [`StoreError::Damaged`] from a change, it is unknown whether the
///   change is there until the store was reopened, and every later change fails with `Failed`. Reads go on as far as they can. The other
///   errors changed nothing and stop nothing.
/// - **Threads.** All methods may be called from any thread; `append` is called by one thread at a time.
pub trait Store: Send + Sync + 'static {
    /// The store's identity: random, given when the store was made, and constant. Sealed values are bound to it.
    fn id(&self) -> StoreId;

    /// The engine's name: the value of `engine = "…"` in the configuration.
    fn engine(&self) -> &'static str;

    /// Appends one commit durably. `at` is one more than [`head`](Store::head); `bytes` ≤ `limits::COMMIT_BYTES`.
    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError>;

    /// Appends commits in order, the first at `first`, durably when it returns. For copying a log, where no caller waits for a single
    /// commit. After a crash, the commits up to some position are there; an engine may make several durable at once.
    fn append_all(&self, first: Position, commits: &[&[u8]]) -> Result<(), StoreError> {
        (first..).zip(commits).try_for_each(|(at, bytes)| self.append(at, bytes))
    }

    /// The position of the newest commit, 0 when there is none.
    fn head(&self) -> Result<Position, StoreError>;

    /// The position of the oldest commit that is kept, 0 when there is none.
    fn oldest(&self) -> Result<Position, StoreError>;

    /// Commits from `from` on, in order and without a gap: as many as fit in `max_bytes`, but at least one if there is one. Starts at the
    /// oldest kept commit if `from` is older.
    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError>;

    /// Waits at most `wait` until there is a commit after `after`; returns the head.
    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError>;

    /// Removes all commits before `before`, durably. The newest commit always stays.
    fn remove_before(&self, before: Position) -> Result<(), StoreError> {
        // In steps, so that an append waits for one step and not for all.
        while self.remove_some(before)? < before.min(self.head()?) {}
        Ok(())
    }

    /// One bounded step of [`remove_before`](Store::remove_before), for callers that let appends go in between: at most
    /// `limits::STORE_REMOVE_COMMITS` commits and about `limits::STORE_REMOVE_BYTES`, in one durable change, or one whole file of commits.
    /// Returns the oldest position after it.
    fn remove_some(&self, before: Position) -> Result<Position, StoreError>;

    /// Sets the position of an empty store's first commit, for copying a log whose beginning was removed. The setting is lost if nothing is
    /// appended before the store is closed.
    fn begin_at(&self, first: Position) -> Result<(), StoreError> {
        Err(StoreError::Failed(format!("engine {} cannot begin at {first}", self.engine())))
    }

    /// Sets a named value durably if its state is as expected. Name: 1 to 512 bytes of `[a-zA-Z0-9._/:-]`; value ≤ 64 KiB.
    fn put(&self, name: &str, value: &[u8], expect: Precondition<'_>) -> Result<(), StoreError>;

    /// A named value, `None` if it does not exist.
    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The names that begin with `prefix`, in byte order.
    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Deletes a named value durably if its state is as expected. Deleting a missing value is `Ok` with [`Precondition::Any`] and
    /// [`Precondition::Absent`].
    fn delete(&self, name: &str, expect: Precondition<'_>) -> Result<(), StoreError>;

    /// Bytes that commits and named values occupy on the disk; 0 if the engine has no disk or the number is unknown.
    fn bytes(&self) -> u64 {
        0
    }

    /// The disk reserve beside the store, if the engine has a disk.
    fn reserve(&self) -> Option<&std::sync::Arc<reserve::Reserve>> {
        None
    }
}

/// Checks the size limit of a commit, for every engine.
fn check_commit(bytes: &[u8]) -> Result<(), StoreError> {
    within("a commit", bytes.len(), limits::COMMIT_BYTES)
}

/// Only an empty store may begin at another position.
fn check_empty(head: Position, first: Position) -> Result<(), StoreError> {
    if head == 0 && first > 0 { Ok(()) } else { Err(StoreError::NotNext { asked: first, next: head + 1 }) }
}

/// Checks the limits of a named value, for every engine.
fn check_named(name: &str, value: &[u8]) -> Result<(), StoreError> {
    check_name(name)?;
    within("a named value", value.len(), limits::NAMED_VALUE_BYTES)
}

/// Checks the form of a name, for every engine.
fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/:-".contains(&b);
    if (1..=limits::NAMED_VALUE_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(StoreError::BadName(name.chars().take(64).collect()))
}

/// Checks the limit on the number of named values, when `count` exist already.
fn check_count(count: u64, bound: usize) -> Result<(), StoreError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    within("the number of named values", count.saturating_add(1), bound)
}

fn within(what: &'static str, size: usize, bound: usize) -> Result<(), StoreError> {
    if size <= bound { Ok(()) } else { Err(StoreError::TooLarge { what, bound }) }
}
