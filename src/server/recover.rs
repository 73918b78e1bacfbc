//! `mayfly server recover --after SEQ`: continues with the trustworthy part of a ledger, in a new generation. Nothing that was revoked
//! becomes valid again.
//!
//! The data directory is copied, not repaired: the old directory stays beside the new one. Both are exchanged in one step, so that no
//! server that starts meanwhile finds the directory missing and creates an empty store.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{engine, file_owner};
use mayfly_base::document::Diagnostic;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::file_path::{beside, directory_of};
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_ledger::recovery::recover::{RecoverError, Recovered, recover as copy};
use mayfly_ledger::recovery::snapshot;
use mayfly_store::{Store, StoreError};
use mayfly_verify::seq::{Millis, Seq};

/// The result of a recovery.
#[derive(Debug)]
pub struct RecoveryResult {
    /// The outcome of the recovery: what the new store holds, and what was left behind.
    pub recovered: Recovered,
    /// The new data directory.
    pub data: PathBuf,
    /// The path of the old data directory.
    pub before: PathBuf,
}

/// Why nothing was recovered. The data directory is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum NotRecovered {
    /// The configuration is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Diagnostic>),
    /// The engine persists nothing.
    #[error(
        "the engine of this configuration keeps nothing on a disk, so there is nothing to recover\n  \
         start it: mayfly server run --config {}", shell_quoted(.0)
    )]
    NothingKept(PathBuf),
    /// There is no data directory: opening it would create an empty one.
    #[error("there is no store at {}\n  look at store.path in the configuration", .0.display())]
    NoStore(PathBuf),
    /// A server has the store open.
    #[error("{} is in use by a server\n  who has it: fuser -v {}; stop that server first", .0.display(), .0.display())]
    InUse(PathBuf),
    /// The engine cannot read the store at all.
    #[error("{0}\n  restore a backup: mayfly server restore --replace BACKUP")]
    Store(StoreError),
    /// The copy was refused.
    #[error("{0}")]
    Refused(RecoverError),
    /// A system call failed.
    #[error("{what}: {error}")]
    Io {
        /// The operation.
        what: String,
        /// The system's error.
        error: io::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> NotRecovered {
    let what = what.into();
    move |error| NotRecovered::Io { what, error }
}

/// Copies the commits that end at or before `after` to a new store, begins a generation there, and puts the new store in the place of the
/// old one.
pub fn recover(config: &Path, after: Seq, reset_time: bool, system: &System) -> Result<RecoveryResult, NotRecovered> {
    let file = config;
    let config = Config::load(file, super::environment()).map_err(NotRecovered::Config)?;
    let data = engine::data_dir(&config).ok_or_else(|| NotRecovered::NothingKept(file.to_owned()))?;
    // The real path: a link to the data directory stays a link.
    let data = data.canonicalize().map_err(|_| NotRecovered::NoStore(data.to_owned()))?;
    engine::refuse_missing_store(&config, &data).map_err(NotRecovered::Store)?;
    if !engine::contains_store(&config, &data) {
        return Err(NotRecovered::NoStore(data));
    }
    let now = system.wall();
    let stamp = stamp(now);
    let fresh = beside(&data, format!("recovering-{stamp}"));
    let before = beside(&data, format!("before-recovery-{stamp}"));
    // Held open until the directories are exchanged: no server can open the store meanwhile.
    let old = engine::open_damaged(&config, &data).map_err(|e| not_open(&data, e))?;
    let outcome = copy_to(&fresh, &*old, &config, after, reset_time, system);
    let recovered = match outcome {
        Ok(recovered) => recovered,
        Err(no) => {
            let _ = fs::remove_dir_all(&fresh);
            return Err(no);
        }
    };
    // The new directory belongs to the server's user even if root ran the command.
    let what = format!("giving {} to whom {} belongs", fresh.display(), data.display());
    file_owner::change_owner(&fresh, &data).map_err(failed(what)).inspect_err(|_| drop(fs::remove_dir_all(&fresh)))?;
    exchange_directories(&fresh, &data, &before).map_err(|(what, error)| NotRecovered::Io { what, error })?;
    drop(old);
    Ok(RecoveryResult { recovered, data, before })
}

fn not_open(dir: &Path, error: StoreError) -> NotRecovered {
    match error {
        StoreError::InUse(_) => NotRecovered::InUse(dir.to_owned()),
        other => NotRecovered::Store(other),
    }
}

/// The copy has the old store's identity, to which sealed values are bound.
fn copy_to(
    fresh: &Path,
    old: &dyn Store,
    config: &Config,
    after: Seq,
    reset_time: bool,
    system: &System,
) -> Result<Recovered, NotRecovered> {
    let new = engine::make(config, fresh, old.id()).map_err(|e| not_open(fresh, e))?;
    let snapshots = engine::snapshots(config);
    let seen = snapshots.as_ref().and_then(|dir| snapshot::newest(dir)).unwrap_or(Seq::ZERO);
    let recovered =
        copy(old, &*new, snapshots.as_deref(), (after, seen), system.wall(), reset_time).map_err(NotRecovered::Refused)?;
    if let Some(from) = &recovered.snapshot {
        let dir = engine::snapshots_in(fresh);
        snapshot::copy(from, &dir).map_err(failed(format!("copying {} to {}", from.display(), dir.display())))?;
    }
    Ok(recovered)
}

/// Gives `fresh` the name of `data`, and the old directory the name `before`. An error names the operation.
pub(super) fn exchange_directories(fresh: &Path, data: &Path, before: &Path) -> Result<(), (String, io::Error)> {
    let failed = |what: String| move |error: io::Error| (what, error);
    let what = || format!("putting {} in the place of {}", fresh.display(), data.display());
    match renameat_with(CWD, fresh, CWD, data, RenameFlags::EXCHANGE) {
        Ok(()) => fs::rename(fresh, before).map_err(failed(format!("naming the old store {}", before.display())))?,
        // A file system that cannot exchange names (NFS, some FUSE): for a moment there is no data directory.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::rename(data, before).map_err(failed(what()))?;
            fs::rename(fresh, data).map_err(failed(what()))?;
        }
        Err(errno) => return Err(failed(what())(errno.into())),
    }
    let above = directory_of(data);
    File::open(above).and_then(|d| d.sync_all()).map_err(failed(format!("syncing {}", above.display())))
}

/// A moment in the form used in directory names.
pub(super) fn stamp(now: Millis) -> String {
    format!("{}-{:03}", now.to_string().replace([':', '-'], ""), now.0 % 1000)
}
