//! `mayfly server recover --after SEQ`: go on with what can be trusted, in a new generation. Nothing is un-revoked by it.
//!
//! The data directory is copied, not mended: what was there stays beside it. The two change places in one step, so that no server that
//! starts meanwhile finds no directory and makes an empty store.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{engine, owner};
use crate::document::Complaint;
use crate::document::command::typed;
use crate::ledger::recover::{RecoverError, Recovered, recover as copy};
use crate::ledger::snapshot;
use crate::seq::{Millis, Seq};
use crate::sources::config::Config;
use crate::store::{Store, StoreError};
use crate::system::System;

/// What a recovery did.
#[derive(Debug)]
pub struct Done {
    /// What was copied.
    pub recovered: Recovered,
    /// The data directory, as it is now.
    pub data: PathBuf,
    /// Where the old one is.
    pub before: PathBuf,
}

/// Why nothing was recovered. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum NotRecovered {
    /// The configuration is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Complaint>),
    /// An engine that keeps nothing.
    #[error(
        "the engine of this configuration keeps nothing on a disk, so there is nothing to recover\n  \
         start it: mayfly server run --config {}", typed(.0)
    )]
    NothingKept(PathBuf),
    /// There is no data directory: opening it would make an empty one.
    #[error("there is no store at {}\n  look at store.path in the configuration", .0.display())]
    NoStore(PathBuf),
    /// A server has it open.
    #[error("{} is in use by a server\n  who has it: fuser -v {}; stop that server first", .0.display(), .0.display())]
    InUse(PathBuf),
    /// The engine cannot read it at all.
    #[error("{0}\n  restore a backup: mayfly server restore --replace BACKUP")]
    Store(StoreError),
    /// The copy was refused.
    #[error("{0}")]
    Refused(RecoverError),
    /// The system did not do it.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        error: io::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> NotRecovered {
    let what = what.into();
    move |error| NotRecovered::Io { what, error }
}

/// Copies what ends at or before `after` to a fresh store, begins a generation there, and puts it in the place of the old one.
pub fn recover(config: &Path, after: Seq, reset_time: bool, system: &System) -> Result<Done, NotRecovered> {
    let file = config;
    let config = Config::load(file, super::environment()).map_err(NotRecovered::Config)?;
    let data = engine::data_dir(&config).ok_or_else(|| NotRecovered::NothingKept(file.to_owned()))?;
    // Where it really is: a link to it stays a link.
    let data = data.canonicalize().map_err(|_| NotRecovered::NoStore(data.to_owned()))?;
    engine::not_lost(&config, &data).map_err(NotRecovered::Store)?;
    if !engine::is_in(&config, &data) {
        return Err(NotRecovered::NoStore(data));
    }
    let now = system.wall();
    let stamp = stamp(now);
    let fresh = beside(&data, &format!("recovering-{stamp}"));
    let before = beside(&data, &format!("before-recovery-{stamp}"));
    // Held open until the directories have changed places: no server can have it meanwhile.
    let old = engine::open_damaged(&config, &data).map_err(|e| not_open(&data, e))?;
    let outcome = copy_to(&fresh, &*old, &config, after, reset_time, system);
    let recovered = match outcome {
        Ok(recovered) => recovered,
        Err(no) => {
            let _ = fs::remove_dir_all(&fresh);
            return Err(no);
        }
    };
    // Done as root, it is still the server's.
    owner::give(&fresh, &data).map_err(failed(format!("giving {} to whom {} belongs", fresh.display(), data.display())))?;
    change_places(&fresh, &data, &before).map_err(|(what, error)| NotRecovered::Io { what, error })?;
    drop(old);
    Ok(Done { recovered, data, before })
}

pub(super) fn beside(data: &Path, what: &str) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(format!(".{what}"));
    PathBuf::from(name)
}

fn not_open(dir: &Path, error: StoreError) -> NotRecovered {
    match error {
        StoreError::InUse(_) => NotRecovered::InUse(dir.to_owned()),
        other => NotRecovered::Store(other),
    }
}

/// The copy has the old store's identity: what is sealed is bound to it.
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

/// Has `fresh` take the name of `data`, whose own becomes `before`. An error says what was being done.
pub(super) fn change_places(fresh: &Path, data: &Path, before: &Path) -> Result<(), (String, io::Error)> {
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
    let above = data.parent().unwrap_or(Path::new("/"));
    File::open(above).and_then(|d| d.sync_all()).map_err(failed(format!("syncing {}", above.display())))
}

/// A moment as it stands in names of directories.
pub(super) fn stamp(now: Millis) -> String {
    format!("{}-{:03}", now.to_string().replace([':', '-'], ""), now.0 % 1000)
}
