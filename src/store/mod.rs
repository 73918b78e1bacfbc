//! What an engine must give: commits appended durably and in order, and a few named values.
//!
//! One suite (`tests/store.rs`) runs against every engine. To add an engine: one folder here, one line in the suite.

pub mod closed;
mod files;
pub mod going;
mod guarded;
mod head;
pub mod memory;
pub mod options;
pub mod redb;
pub mod reserve;
pub mod sled;
pub mod wal;

use std::time::Duration;

use bytes::Bytes;

use crate::limits;
pub use crate::seq::StoreId;

/// A commit's place in the store: 1 is the first, each next is one more, none is ever missing or used again.
pub type Position = u64;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The place is not the one after the head: somebody else appended, or the caller lost count.
    #[error("append at {asked}, but the next place is {next}")]
    NotNext {
        /// The place that was asked for.
        asked: Position,
        /// The place that would have been right.
        next: Position,
    },
    /// There is no room on the disk. As after [`StoreError::Failed`], the store takes no change until it was opened again.
    #[error("no space left on the disk: {0}")]
    Full(String),
    /// What lies in the store is not what was written there: the place, and what is wrong.
    #[error("the store is damaged at {at}: {what}")]
    Damaged {
        /// The first place that cannot be trusted; 0 where no place is known.
        at: Position,
        /// What was found.
        what: String,
    },
    /// A named value is not in the state that the change expected.
    #[error("{name} was changed meanwhile")]
    Conflict {
        /// The value's name.
        name: String,
    },
    /// A name that no named value can have.
    #[error("{0:?} is no name of a named value: 1 to 512 bytes of a-z A-Z 0-9 . _ / : -")]
    BadName(String),
    /// A bound of `limits.rs`.
    #[error("{what} is above the limit of {bound}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound, in the unit of the limit.
        bound: usize,
    },
    /// The store is open elsewhere: in another process, or a second time in this one.
    #[error("{0} is in use: another server has it open")]
    InUse(String),
    /// What lies there is no store of ours, or one that a newer version wrote. Nothing in it was changed.
    #[error("{0}")]
    Foreign(String),
    /// The data directory cannot be used as it is: what is wrong, and the command that mends it.
    #[error("{0}")]
    Unsafe(String),
    /// The engine failed. After this the store takes no change until it was opened again.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// Whether what lies there is whole, and another version of mayfly reads it.
    pub fn is_of_another_version(&self) -> bool {
        matches!(self, StoreError::Foreign(text) if text.contains("this mayfly reads") || text.contains("this version does not read"))
    }
}

/// What a change of a named value expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Anything or nothing.
    Any,
    /// No value of that name.
    Absent,
    /// Exactly these bytes.
    Value(&'a [u8]),
}

impl Expect<'_> {
    /// Whether what was found is what was expected.
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Expect::Any => true,
            Expect::Absent => found.is_none(),
            Expect::Value(bytes) => found == Some(*bytes),
        }
    }

    fn check(&self, name: &str, found: Option<&[u8]>) -> Result<(), StoreError> {
        if self.holds(found) { Ok(()) } else { Err(StoreError::Conflict { name: name.to_owned() }) }
    }
}

/// One commit as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub at: Position,
    /// Its bytes, unchanged.
    pub bytes: Bytes,
}

/// The engine's contract.
///
/// - **Durability.** When [`append`](Store::append), [`put`](Store::put) or [`delete`](Store::delete) has returned `Ok`, the change is on
///   stable storage: it is found after SIGKILL and after a power failure.
/// - **Order.** A place is filled only when all before it are. What a reader has seen at a place never changes.
/// - **Crash.** After a crash during an append, the whole commit is there or nothing of it. What was never acknowledged may be there.
/// - **Errors.** After [`StoreError::Failed`], [`StoreError::Full`] or [`StoreError::Damaged`] from a change, whether it is there is unknown
///   until the store was opened again, and every later change fails with `Failed`. Reads go on as far as they can. The other errors changed
///   nothing and stop nothing.
/// - **Threads.** All methods may be called from any thread; `append` is called by one at a time.
pub trait Store: Send + Sync + 'static {
    /// The store's identity: random, given when it was made, and the same for as long as it lives. What is sealed is bound to it.
    fn id(&self) -> StoreId;

    /// The engine's name: what `engine = "…"` in the configuration selects.
    fn engine(&self) -> &'static str;

    /// Appends one commit durably. `at` is one more than [`head`](Store::head); `bytes` ≤ `limits::COMMIT_BYTES`.
    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError>;

    /// Appends commits in their order, the first at `first`: durably when it returns. For the copy of a log, where nobody waits for any one of
    /// them. After a crash those up to some place are there; an engine may make several durable together.
    fn append_all(&self, first: Position, commits: &[&[u8]]) -> Result<(), StoreError> {
        (first..).zip(commits).try_for_each(|(at, bytes)| self.append(at, bytes))
    }

    /// The place of the newest commit, 0 when there is none.
    fn head(&self) -> Result<Position, StoreError>;

    /// The place of the oldest commit that is still kept, 0 when there is none.
    fn oldest(&self) -> Result<Position, StoreError>;

    /// Commits from `from` on, in order and without a gap, as many as fit in `max_bytes` but at least one where there is one.
    /// Starts at the oldest kept commit where `from` is older.
    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<Entry>, StoreError>;

    /// Waits until there is a commit after `after`, at most `wait`; answers with the head.
    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError>;

    /// Removes all commits before `before`, durably. The newest commit always stays.
    fn remove_before(&self, before: Position) -> Result<(), StoreError> {
        // In steps, so that an append waits for one step and not for all.
        while self.remove_some(before)? < before.min(self.head()?) {}
        Ok(())
    }

    /// One bounded step of [`remove_before`](Store::remove_before), for who lets others go between: `limits::STORE_REMOVE_COMMITS` commits and
    /// about `limits::STORE_REMOVE_BYTES` at most, in one durable change, or one whole file of them. Answers with the oldest place after it.
    fn remove_some(&self, before: Position) -> Result<Position, StoreError>;

    /// Has an empty store's first commit be at `first`: for the copy of a log whose beginning was removed. Forgotten where none is appended
    /// before the store is closed.
    fn begin_at(&self, first: Position) -> Result<(), StoreError> {
        Err(StoreError::Failed(format!("engine {} cannot begin at {first}", self.engine())))
    }

    /// Sets a named value durably if it is as expected. Name: 1 to 512 bytes of `[a-zA-Z0-9._/:-]`; value ≤ 64 KiB.
    fn put(&self, name: &str, value: &[u8], expect: Expect<'_>) -> Result<(), StoreError>;

    /// A named value, `None` where there is none.
    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The names that begin with `prefix`, in byte order.
    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Deletes a named value durably if it is as expected. Deleting what is not there is `Ok` with [`Expect::Any`] and [`Expect::Absent`].
    fn delete(&self, name: &str, expect: Expect<'_>) -> Result<(), StoreError>;

    /// Bytes that the commits and named values take on the disk, for engines that have one; 0 where that cannot be told.
    fn bytes(&self) -> u64 {
        0
    }

    /// The reserve of disk beside the store, for engines that have a disk.
    fn reserve(&self) -> Option<&std::sync::Arc<reserve::Reserve>> {
        None
    }
}

/// The bounds of an append, for every engine.
fn check_commit(bytes: &[u8]) -> Result<(), StoreError> {
    within("a commit", bytes.len(), limits::COMMIT_BYTES)
}

/// Only an empty store may begin elsewhere.
fn check_empty(head: Position, first: Position) -> Result<(), StoreError> {
    if head == 0 && first > 0 { Ok(()) } else { Err(StoreError::NotNext { asked: first, next: head + 1 }) }
}

/// The bounds of a named value, for every engine.
fn check_named(name: &str, value: &[u8]) -> Result<(), StoreError> {
    check_name(name)?;
    within("a named value", value.len(), limits::NAMED_VALUE_BYTES)
}

/// A name's form, for every engine.
fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/:-".contains(&b);
    if (1..=limits::NAMED_VALUE_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(StoreError::BadName(name.chars().take(64).collect()))
}

/// One more named value, where there are `count` already.
fn check_count(count: u64, bound: usize) -> Result<(), StoreError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    within("the number of named values", count.saturating_add(1), bound)
}

fn within(what: &'static str, size: usize, bound: usize) -> Result<(), StoreError> {
    if size <= bound { Ok(()) } else { Err(StoreError::TooLarge { what, bound }) }
}
