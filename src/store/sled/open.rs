//! Creates and opens sled stores: existing data must be mayfly's, of a known version, complete at its end, and not behind its head file.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::sled::Db;
use parking_lot::{Condvar, Mutex, RwLock};

use super::crash_recovery::{commit, find_last_change, finish_or_undo};
use super::preallocation::Preallocator;
use super::rows::{self, ChangeIntent, END, FORMAT_KEY, ID_KEY, IntendedChange};
use super::tree::{bad_key, engine, gap, insert, intend};
use super::{Ends, SledStore, StoreOptions, Writer, seccomp_filter};
use crate::files::{self, DirectoryLock};
use crate::head::{HeadFile, HeadMark};
use crate::panic_guard::guarded;
use crate::reserve::Reserve;
use crate::{Position, StoreError, StoreId};
use mayfly_base::backoff::Backoff;
use mayfly_base::document::remedy::{Remedy, shell_quoted};
use mayfly_base::limits;

/// The folder's name in the data directory.
const FOLDER: &str = "ledger.sled";
/// The name of the head file beside the folder.
const HEAD: &str = "ledger.head";
/// The format of the rows. A store with a higher number is refused.
const FORMAT: u32 = 1;

impl SledStore {
    /// Whether a store, or something in its place, is in `dir`. Opens nothing.
    pub fn is_in(dir: &Path) -> bool {
        [FOLDER, HEAD].iter().any(|name| dir.join(name).symlink_metadata().is_ok())
    }

    /// Opens the store in `dir`, creating it if it is missing.
    ///
    /// Created files are private and durable before this returns. A start that fails leaves nothing that prevents a later one.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<SledStore, StoreError> {
        let lock = files::own_directory(dir)?;
        seccomp_filter::in_force(dir)?;
        let folder = dir.join(FOLDER);
        if folder.symlink_metadata().is_err() {
            make(dir, &folder, options)?;
        }
        // After the folder exists: on a nearly full disk the ledger comes first, and the reserve takes what is left.
        let reserve = match options.reserve_bytes {
            0 => None,
            bytes => Some(Arc::new(Reserve::open(dir, bytes, options.low_bytes)?)),
        };
        let Some((head, seen)) = HeadFile::open(&dir.join(HEAD))? else {
            let what = format!("{} is not beside it: whether it has all that was acknowledged cannot be told", HEAD);
            return Err(StoreError::Damaged { at: 0, what });
        };
        let db = start(&folder, options, reserve.as_deref())?;
        sync_all(dir, &folder)?;
        let room = Preallocator::new(&folder.join("db"), reserve.clone())?;
        let mut store = adopt(db, &folder, options, lock, seen.head)?;
        if store.id != head.id() {
            return Err(StoreError::Foreign(format!("{} is the head of another store", dir.join(HEAD).display())));
        }
        store.reserve = reserve;
        store.take_up(head, room, seen)?;
        Ok(store)
    }

    /// Opens the store in `dir` for salvage: commits may be missing, also at its end. Read-only.
    pub fn open_damaged(dir: &Path, options: &StoreOptions) -> Result<SledStore, StoreError> {
        let lock = files::own_directory(dir)?;
        seccomp_filter::in_force(dir)?;
        let folder = dir.join(FOLDER);
        let db = start(&folder, options, None)?;
        let mut store = adopt(db, &folder, options, lock, 0)?;
        store.gaps = true;
        Ok(store)
    }

    /// Finishes or undoes an interrupted change, refuses a store that is behind its head file, and enables writing.
    fn take_up(&mut self, head: HeadFile, mut room: Preallocator, seen: HeadMark) -> Result<(), StoreError> {
        let at_end = self.ends.lock().head;
        let db = self.db()?.clone();
        let known = guarded("opening", || find_last_change(&db, at_end))?;
        if known.change < seen.change || at_end < seen.head {
            let (changes, commits) = (seen.change, seen.head);
            let what = format!(
                "it ends at commit {at_end} and change {}, but {commits} and {changes} were acknowledged: it lost its end",
                known.change
            );
            return Err(StoreError::Damaged { at: at_end + 1, what });
        }
        // A number that no row has, not even a torn one.
        let change = known.change.max(known.intent.change).max(seen.change) + 1;
        guarded("opening", || {
            room.ahead(limits::SLED_ROW_BYTES)?;
            finish_or_undo(&db, &known.intent, known.done, at_end)?;
            intend(&db, &ChangeIntent { change, named: known.named, what: IntendedChange::Opened })?;
            db.flush().map(drop).map_err(engine)
        })?;
        *self.ends.get_mut() = guarded("opening", || ends(&db, at_end))?;
        head.write(HeadMark { change, head: at_end })?;
        *self.writer.get_mut() = Writer { stopped: None, change, named: known.named, safety: Some((head, room)) };
        Ok(())
    }
}

/// Creates a folder under a temporary name, and syncs it; its head file is created before the rename.
fn make(dir: &Path, folder: &Path, options: &StoreOptions) -> Result<(), StoreError> {
    if let Some((_, seen)) = HeadFile::open(&dir.join(HEAD))?
        && seen.change > 0
    {
        let what = format!("{} is gone, and {} says that {} commits were acknowledged", folder.display(), HEAD, seen.head);
        return Err(StoreError::Damaged { at: 1, what });
    }
    let mut aside = folder.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match fs::remove_dir_all(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(files::failed("removing", &aside, &e)),
        _ => {}
    }
    files::private_directory(&aside).map_err(|e| files::failed("making", &aside, &e))?;
    guarded("making", || {
        let db = config(&aside, options).open().map_err(engine)?;
        insert(&db, FORMAT_KEY, FORMAT.to_be_bytes().to_vec())?;
        insert(&db, ID_KEY, options.new_id.as_bytes().to_vec())?;
        intend(&db, &ChangeIntent { change: 0, named: 0, what: IntendedChange::Opened })?;
        db.flush().map(drop).map_err(engine)
    })?;
    sync_all(dir, &aside)?;
    HeadFile::make(&dir.join(HEAD), options.new_id, HeadMark { change: 0, head: 0 })?;
    files::give_name(&aside, folder)
}

fn config(folder: &Path, options: &StoreOptions) -> ::sled::Config {
    let cache = u64::try_from(options.cache_bytes).unwrap_or(u64::MAX);
    // mayfly flushes at each change: sled's own timer would only write half a change.
    ::sled::Config::new().path(folder).cache_capacity(cache).flush_every_ms(None)
}

/// Opens sled on a folder that contains a store.
fn start(folder: &Path, options: &StoreOptions, reserve: Option<&Reserve>) -> Result<Db, StoreError> {
    let shown = folder.display();
    for file in ["conf", "db"] {
        // Without these files sled would begin an empty store.
        if !fs::metadata(folder.join(file)).is_ok_and(|m| m.is_file() && m.len() > 0) {
            return Err(StoreError::Foreign(format!("{shown} is no store of mayfly: there is no {file} in it")));
        }
    }
    no_blobs(folder)?;
    let mut pauses = Backoff::new(limits::SLED_LOCK_PAUSE_MS, limits::SLED_LOCK_PAUSE_MS).attempts(limits::SLED_LOCK_TRIES);
    loop {
        remove_unfinished(folder)?;
        match guarded("opening", || config(folder, options).open().map_err(of_open)) {
            // sled's threads hold its lock for a moment after a store was closed; the directory lock shows that no other server has it.
            Err(StoreError::InUse(_)) if pauses.sleep() => {}
            Err(StoreError::Full(_)) if reserve.is_some_and(Reserve::release_piece) => {}
            Err(StoreError::Failed(e)) => return Err(StoreError::Failed(format!("opening {shown}: {e}"))),
            Err(StoreError::InUse(_)) => return Err(StoreError::InUse(shown.to_string())),
            done => return done,
        }
    }
}

fn of_open(err: ::sled::Error) -> StoreError {
    match err {
        ::sled::Error::Io(e) if e.kind() == io::ErrorKind::Other && e.to_string().contains("could not acquire lock") => {
            StoreError::InUse(e.to_string())
        }
        ::sled::Error::Unsupported(what) => StoreError::Foreign(what),
        other => engine(other),
    }
}

/// sled never syncs its blob files, so their content cannot be trusted.
fn no_blobs(folder: &Path) -> Result<(), StoreError> {
    let blobs = folder.join("blobs");
    let mut found = fs::read_dir(&blobs).map_err(|e| files::failed("looking into", &blobs, &e))?;
    if found.next().is_none() {
        return Ok(());
    }
    let remedy = Remedy::new("to see what is there, which mayfly did not write", format!("ls -l {}", shell_quoted(&blobs)));
    Err(StoreError::Foreign(format!("{} is not empty: what lies there may be torn\n  {remedy}", blobs.display())))
}

/// sled would take an unfinished snapshot for the newest.
fn remove_unfinished(folder: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(|e| files::failed("looking into", folder, &e))? {
        let name = entry.file_name();
        if name.to_str().is_some_and(|n| n.starts_with("snap.") && n.ends_with(".generating")) {
            fs::remove_file(entry.path()).map_err(|e| files::failed("removing", &entry.path(), &e))?;
        }
    }
    files::sync_directory(folder)
}

/// Syncs every file and directory, because sled syncs neither its configuration nor names. At each start: the last start may have ended
/// before this.
fn sync_all(dir: &Path, folder: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(|e| files::failed("looking into", folder, &e))? {
        let path = entry.path();
        let is_file = entry.file_type().map_err(|e| files::failed("looking at", &path, &e))?.is_file();
        let mode = Permissions::from_mode(if is_file { 0o600 } else { 0o700 });
        let synced = fs::set_permissions(&path, mode).and_then(|()| File::open(&path)).and_then(|f| f.sync_all());
        synced.map_err(|e| files::failed("syncing", &path, &e))?;
    }
    files::sync_directory(folder)?;
    files::sync_directory(dir)
}

/// Checks an opened database and makes a read-only store from it. Up to the position `acknowledged`, an incomplete commit is damage.
fn adopt(
    db: Db,
    folder: &Path,
    options: &StoreOptions,
    lock: DirectoryLock,
    acknowledged: Position,
) -> Result<SledStore, StoreError> {
    let (id, ends) = guarded("opening", || {
        let id = identity(&db, folder)?;
        let head = whole_end(&db, acknowledged)?;
        Ok((id, ends(&db, head)?))
    })?;
    Ok(SledStore {
        db: Some(db),
        id,
        named_bound: options.named_values,
        writer: Mutex::new(Writer { stopped: None, change: 0, named: 0, safety: None }),
        ends: Mutex::new(ends),
        grown: Condvar::new(),
        rows: RwLock::new(()),
        reserve: None,
        file: folder.join("db"),
        gaps: false,
        _lock: lock,
    })
}

fn identity(db: &Db, folder: &Path) -> Result<StoreId, StoreError> {
    let shown = folder.display();
    let lost = || StoreError::Damaged { at: 1, what: format!("{shown} opens as if nothing had ever been written to it") };
    let format = db.get(FORMAT_KEY).map_err(engine)?.ok_or_else(lost)?;
    let format = format.as_ref().try_into().map(u32::from_be_bytes).map_err(|_| lost())?;
    if format != FORMAT {
        let text = format!("{shown} has store format {format}, this mayfly reads {FORMAT}; start the version that wrote it");
        return Err(StoreError::Foreign(text));
    }
    db.get(ID_KEY).map_err(engine)?.and_then(|id| StoreId::from_slice(&id)).ok_or_else(lost)
}

/// The position of the newest complete commit. Commits that were never acknowledged may be torn.
fn whole_end(db: &Db, acknowledged: Position) -> Result<Position, StoreError> {
    let mut before = rows::commits_from(0).end;
    loop {
        let Some(row) = db.range(rows::commits_from(0).start..before).next_back() else { return Ok(0) };
        let (at, piece) = rows::placed(&row.map_err(engine)?.0).ok_or_else(|| bad_key(0))?;
        if at == 0 || at == Position::MAX {
            return Err(StoreError::Damaged { at: 0, what: "there is a commit at a place that no store gives".to_owned() });
        }
        let torn = match commit(db, at) {
            Ok(_) if piece == END => return Ok(at),
            Ok(_) => gap(at),
            Err(e) => e,
        };
        if at <= acknowledged {
            return Err(torn);
        }
        before = rows::commit_key(at, 0).to_vec();
    }
}

fn ends(db: &Db, head: Position) -> Result<Ends, StoreError> {
    let Some(first) = db.range(rows::commits_from(0)).next().filter(|_| head > 0) else { return Ok(Ends::default()) };
    let (oldest, _) = rows::placed(&first.map_err(engine)?.0).ok_or_else(|| bad_key(0))?;
    Ok(Ends { oldest, head, first: 0 })
}
