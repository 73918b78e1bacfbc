//! `mayfly server restore`: turns a backup into the store of a server, in a new generation. Nothing that was revoked becomes valid again.
//!
//! Everything is written beside the data directory, made durable, and then renamed: at any moment there is either no store or the complete
//! one.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::recover::{exchange_directories, stamp};
use super::start::sealing_key;
use super::{StartFailure, StartProblem, engine, file_owner};
use mayfly_base::document::Diagnostic;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::file_path::{beside, directory_of};
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_credential::keyring::value_name;
use mayfly_ledger::backup::{BackupFile, BadBackup, SEALED_FOR};
use mayfly_ledger::recovery::recover::{RecoverError, Recovered, RestoreInputs, restore as copy};
use mayfly_ledger::recovery::snapshot;
use mayfly_store::sealing::{SealingContext, SealingKey};
use mayfly_store::{Store, StoreError};
use mayfly_verify::seq::Seq;

/// The parameters of a restore.
pub struct RestoreOptions<'a> {
    /// The backup's file.
    pub backup: &'a Path,
    /// The remains of the lost data directory, if there are any.
    pub left: Option<&'a Path>,
    /// Whether the content of the data directory is kept beside it and used as the remains.
    pub replace: bool,
    /// The newest sequence number of this ledger that anybody has seen.
    pub seen: Option<Seq>,
    /// The operator's statement that nobody was locked out since the backup was made.
    pub unlocked: bool,
    /// Whether to check only if the backup could be restored.
    pub check: bool,
}

/// The result of a restore or of a check.
pub struct RestoreResult {
    /// The backup, which is complete and sealed with the configured key.
    pub backup: BackupFile,
    /// The result of the restore; `None` for a check.
    pub recovered: Option<Recovered>,
    /// The data directory.
    pub data: PathBuf,
    /// Why the remains could not be read, if so.
    pub unread: Option<String>,
    /// The new path of the previous content of the data directory.
    pub before: Option<PathBuf>,
}

/// Why nothing was restored. If there was no store before, there is none now.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// The configuration is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Diagnostic>),
    /// The engine persists nothing.
    #[error(
        "the engine of this configuration keeps nothing on a disk, so there is nowhere to restore to\n  name another under store.engine"
    )]
    NothingKept,
    /// The data directory is not empty.
    #[error(
        "{0} is not empty: a backup is never put over what is there\n  to keep what is left, and have it read for locks: \
         mayfly server restore --replace …; what lies elsewhere is named by --left"
    )]
    NotEmpty(String),
    /// Another restore is in progress.
    #[error("{} is in use: another restore is under way, or a server has it open\n  who has it: fuser -v {}", .0.display(), .0.display())]
    InUse(PathBuf),
    /// The backup is defective.
    #[error("{}: {bad}", path.display())]
    Backup {
        /// The backup's file.
        path: PathBuf,
        /// The defect.
        bad: BadBackup,
    },
    /// The sealing key's file cannot be read.
    #[error("{0}")]
    Key(StartProblem),
    /// The backup's seal does not open.
    #[error(
        "{}: its seal does not open with this sealing key: it is a backup of another server, somebody changed it, or the key is not the one \
         of then\n  the key's copy belongs to where seal.key_file or seal.credential says", .0.display()
    )]
    Seal(PathBuf),
    /// The engine failed.
    #[error("{0}")]
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

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> NotRestored {
    let what = what.into();
    move |error| NotRestored::Io { what, error }
}

/// Restores a backup to the data directory of the configuration, or checks whether that is possible.
pub fn restore(config: &Path, wanted: &RestoreOptions<'_>, system: &System) -> Result<RestoreResult, NotRestored> {
    let config = Config::load(config, super::environment()).map_err(NotRestored::Config)?;
    let named = engine::data_dir(&config).ok_or(NotRestored::NothingKept)?;
    let data = named.canonicalize().unwrap_or_else(|_| named.to_owned());
    let key = sealing_key(&config).map_err(|why: StartFailure| NotRestored::Key(StartProblem::new(why, &config)))?;
    let bad = |bad| NotRestored::Backup { path: wanted.backup.to_owned(), bad };
    let backup = BackupFile::open(wanted.backup).map_err(bad)?;
    sealed_by(&key, &backup).then_some(()).ok_or_else(|| NotRestored::Seal(wanted.backup.to_owned()))?;
    // A check also serves drills, during which the store is in use.
    if wanted.check {
        return Ok(RestoreResult { backup, recovered: None, data, unread: None, before: None });
    }
    let replaced = wanted.replace && data.exists();
    if !replaced {
        empty(&data)?;
    }
    let left = if replaced { Some(data.as_path()) } else { wanted.left };
    let fresh = beside(&data, "restoring");
    cleared(&fresh)?;
    match written(&fresh, &backup, &config, (wanted, left), system) {
        Ok((recovered, store, (old, unread))) => {
            // The new directory belongs to the owner of its place even if root ran the command.
            let like = if data.exists() { &data } else { directory_of(&data) };
            let what = format!("giving {} to whom {} belongs", fresh.display(), like.display());
            file_owner::change_owner(&fresh, like).map_err(failed(what)).map_err(without(&fresh))?;
            let before = replaced.then(|| beside(&data, format!("before-restore-{}", stamp(system.wall()))));
            match &before {
                // Exchanged in one step, so that no server finds the place empty.
                Some(before) => {
                    exchange_directories(&fresh, &data, before).map_err(|(what, error)| NotRestored::Io { what, error })?
                }
                None => named_durably(&fresh, &data).map_err(without(&fresh))?,
            }
            drop((store, old));
            Ok(RestoreResult { backup, recovered: Some(recovered), data, unread, before })
        }
        Err(no) => Err(without(&fresh)(no)),
    }
}

/// Removes the unfinished store before an error is returned. After an exchange of names the directory is the old store, and is not removed.
fn without(fresh: &Path) -> impl Fn(NotRestored) -> NotRestored + '_ {
    move |no| {
        let _ = fs::remove_dir_all(fresh);
        no
    }
}

/// Whether the backup's digest was sealed with this key, for the store that the backup is of.
fn sealed_by(key: &SealingKey, backup: &BackupFile) -> bool {
    let seq = backup.about().seq.to_string();
    let context = SealingContext { store: backup.id(), environment: "", purpose: SEALED_FOR, name: &seq, version: 1 };
    key.open(&context, &backup.sealed()).is_ok_and(|digest| digest[..] == backup.digest()[..])
}

/// Refuses a directory with any entry.
fn empty(data: &Path) -> Result<(), NotRestored> {
    match fs::read_dir(data) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(NotRestored::NotEmpty(shell_quoted(data))),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(format!("looking into {}", data.display()))(e)),
    }
}

/// Removes what an interrupted restore left behind; a restore in progress keeps its directory locked.
fn cleared(fresh: &Path) -> Result<(), NotRestored> {
    let what = || format!("removing {}, which an earlier restore left", fresh.display());
    let old = match File::open(fresh) {
        Ok(old) => old,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(what())(e)),
    };
    match old.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(NotRestored::InUse(fresh.to_owned())),
        Err(TryLockError::Error(e)) => return Err(failed(what())(e)),
    }
    fs::remove_dir_all(fresh).map_err(failed(what()))
}

/// The remains, which stay locked until the new store is in place; or why they could not be read.
type Left = (Option<(Box<dyn Store>, PathBuf)>, Option<String>);
type Written = (Recovered, Box<dyn Store>, Left);

fn written(
    fresh: &Path,
    backup: &BackupFile,
    config: &Config,
    (wanted, rest): (&RestoreOptions<'_>, Option<&Path>),
    system: &System,
) -> Result<Written, NotRestored> {
    let store = engine::make(config, fresh, backup.id()).map_err(NotRestored::Store)?;
    let snapshots = engine::snapshots_in(fresh);
    if let Some(seq) = backup.about().snapshot {
        extract_snapshot(backup, &snapshots, seq).map_err(failed(format!("writing to {}", snapshots.display())))?;
    }
    let (mut left, mut unread) = (None, None);
    if let Some(path) = rest {
        match engine::open_damaged(config, path) {
            Ok(store) => left = Some((store, engine::snapshots_in(path))),
            Err(StoreError::InUse(_)) => return Err(NotRestored::InUse(path.to_owned())),
            Err(error) => unread = Some(format!("{}: {error}", path.display())),
        }
    }
    let names: std::collections::BTreeSet<String> = backup.list("").map_err(NotRestored::Store)?.into_iter().collect();
    let restored = RestoreInputs {
        left: left.as_ref().map(|(store, snapshots)| (&**store, snapshots.clone())),
        unlocked: wanted.unlocked,
        has_private: &|kid| names.contains(&value_name(kid)),
    };
    let seqs = (backup.about().seq, wanted.seen.unwrap_or(Seq::ZERO));
    let recovered = copy(backup, &*store, &snapshots, seqs, system.wall(), restored).map_err(NotRestored::Refused)?;
    Ok((recovered, store, (left, unread)))
}

fn extract_snapshot(backup: &BackupFile, snapshots: &Path, seq: Seq) -> io::Result<()> {
    fs::create_dir_all(snapshots)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(snapshot::path(snapshots, seq))?;
    backup.snapshot_to(&mut file)?;
    file.flush()?;
    file.sync_all()?;
    File::open(snapshots)?.sync_all()
}

/// Syncs the entries of the directory before renaming it, so that a directory with the final name is complete. An empty directory is
/// replaced.
fn named_durably(fresh: &Path, data: &Path) -> Result<(), NotRestored> {
    let what = || format!("giving {} the name {}", fresh.display(), data.display());
    File::open(fresh).and_then(|dir| dir.sync_all()).map_err(failed(what()))?;
    fs::rename(fresh, data).map_err(|e| match e.kind() {
        // Another process was faster.
        io::ErrorKind::DirectoryNotEmpty => NotRestored::NotEmpty(shell_quoted(data)),
        io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
            let what = format!("{}; a file system begins there: have store.path name a folder in it", what());
            NotRestored::Io { what, error: e }
        }
        _ => failed(what())(e),
    })?;
    let above = directory_of(data);
    File::open(above).and_then(|dir| dir.sync_all()).map_err(failed(format!("syncing {}", above.display())))
}
