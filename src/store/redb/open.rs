//! Creates and opens the files: existing files must be mayfly's, of a known version, and without a gap.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, WriteTransaction};
use parking_lot::{Condvar, Mutex};

use super::reserved_file::ReservedFile;
use super::rotation::{NextSegment, Rotation};
use super::segments::{self, SegmentFile, Segments};
use super::{ABOUT, COMMITS, Ends, Flush, NAMED, RedbStore, Writer, engine, gap, transact};
use crate::files::{self, DirectoryLock};
use crate::options::StoreOptions;
use crate::panic_guard::guarded;
use crate::reserve::Reserve;
use crate::stepwise_deletion;
use crate::wal::WalStore;
use crate::{Position, StoreError, StoreId};
use mayfly_base::limits;

/// The main file's name in the data directory.
const FILE: &str = "ledger.redb";
/// The temporary name of the next segment file.
const NEXT: &str = "next.redb";
/// The format of the tables and files. A file with a higher number is refused. 1: everything in one file; 2: no write-ahead log.
const FORMAT: u32 = 2;
const ONE_FILE: u32 = 1;
/// Format of the main file only: the newest commits may be in a write-ahead log beside it.
const LOGGED: u32 = 3;
/// As [`LOGGED`], with a head file that says which commits were acknowledged.
const HEADED: u32 = 4;

/// Opens the store in `dir` with a write-ahead log; [`RedbStore::open`] opens one without. A store that had no log gets one, and older
/// versions refuse it from then on.
pub fn open(dir: &Path, options: &StoreOptions) -> Result<WalStore<RedbStore>, StoreError> {
    let store = RedbStore::open_as(dir, options, true)?;
    if store.format < LOGGED {
        WalStore::<RedbStore>::make_in(dir, options.log_file_bytes)?;
        store.set_format(LOGGED)?;
    }
    let headed = store.format >= HEADED;
    let ahead = WalStore::open_in(dir, store, headed)?;
    if !headed {
        ahead.engine_behind().set_format(HEADED)?;
    }
    Ok(ahead)
}

/// Opens the store in `dir` and its write-ahead log for salvage: commits may be missing. Read-only.
pub fn open_damaged(dir: &Path, options: &StoreOptions) -> Result<WalStore<RedbStore>, StoreError> {
    WalStore::open_damaged_in(dir, RedbStore::open_damaged(dir, options)?)
}

impl RedbStore {
    /// Whether a store, or something in its place, is in `dir`. Opens nothing.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(FILE).symlink_metadata().is_ok()
    }

    /// Opens the store in `dir`, creating directory and file if they are missing.
    ///
    /// Created files are private and durable before this returns. A start that fails leaves nothing that prevents a later one. A store with
    /// a write-ahead log is refused.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<RedbStore, StoreError> {
        RedbStore::open_as(dir, options, false)
    }

    fn open_as(dir: &Path, options: &StoreOptions, logged: bool) -> Result<RedbStore, StoreError> {
        let lock = files::own_directory(dir)?;
        stepwise_deletion::delete_leftovers(dir).map_err(|e| files::failed("giving back what was removed from", dir, &e))?;
        let path = dir.join(FILE);
        let existing = match files::open_private(&path)? {
            Some(file) => file,
            None => make(&path, options)?,
        };
        // After the file exists: on a nearly full disk the ledger comes first, and the reserve takes what is left.
        let reserve = match options.reserve_bytes {
            0 => None,
            bytes => Some(Arc::new(Reserve::open(dir, bytes, options.low_bytes)?)),
        };
        let opened = Opening { dir: Some(dir.to_owned()), reserve, gaps: false, logged };
        opened.adopt(existing, &path, options, lock)
    }

    /// Opens the store in `dir` for salvage: commits may be missing. Read-only.
    pub fn open_damaged(dir: &Path, options: &StoreOptions) -> Result<RedbStore, StoreError> {
        let lock = files::own_directory(dir)?;
        let path = dir.join(FILE);
        let shown = path.display();
        let file = files::open_private(&path)?.ok_or_else(|| StoreError::Failed(format!("there is no {shown}")))?;
        let opened = Opening { dir: Some(dir.to_owned()), reserve: None, gaps: true, logged: true };
        opened.adopt(file, &path, options, lock)
    }

    /// Opens or creates a store on any redb backend, for the simulation's disks. Such a store has a single file of any size.
    pub fn with_backend(backend: impl StorageBackend, options: &StoreOptions) -> Result<RedbStore, StoreError> {
        const SHOWN: &str = "the disk";
        let cache = options.cache_bytes;
        let db = guarded("opening", || builder(cache).create_with_backend(backend).map_err(|e| of_open(SHOWN, e)))?;
        let tables = || db.begin_read().map_err(engine)?.list_tables().map_err(engine).map(Iterator::count);
        if guarded("opening", tables)? == 0 {
            write_tables(&db, options.new_id, true)?;
        }
        let opened = Opening { dir: None, reserve: None, gaps: false, logged: false };
        guarded("opening", || opened.store(db, None, SHOWN, options))
    }

    /// Sets the format to the one with a write-ahead log, or with a log and a head file.
    fn set_format(&self, format: u32) -> Result<(), StoreError> {
        let set = |tx: &WriteTransaction| set_format(tx, format);
        self.writer.lock().change(|| self.transact_named(set))
    }
}

/// The inputs of opening a store.
struct Opening {
    dir: Option<PathBuf>,
    reserve: Option<Arc<Reserve>>,
    gaps: bool,
    /// The store has a write-ahead log.
    logged: bool,
}

impl Opening {
    fn adopt(self, main: File, path: &Path, options: &StoreOptions, lock: DirectoryLock) -> Result<RedbStore, StoreError> {
        let shown = path.display().to_string();
        files::from_disk(&main, path)?;
        let disk = ReservedFile::new(main, self.reserve.clone()).map_err(|e| of_open(&shown, e))?;
        let mut store = guarded("opening", || {
            let db = builder(options.cache_bytes).create_with_backend(disk).map_err(|e| of_open(&shown, e))?;
            self.store(db, Some(path.to_owned()), &shown, options)
        })?;
        store._lock = Some(lock);
        Ok(store)
    }

    /// Checks an opened database and makes the store from it.
    fn store(self, db: Database, path: Option<PathBuf>, shown: &str, options: &StoreOptions) -> Result<RedbStore, StoreError> {
        let (gaps, reserve) = (self.gaps, self.reserve);
        let (id, format) = identity(&db, shown)?;
        db.begin_read().map_err(engine)?.open_table(NAMED).map_err(engine)?;
        if format >= LOGGED && !self.logged {
            return Err(StoreError::Foreign(format!("{shown} has a log before it, which would be passed over")));
        }
        if format == ONE_FILE && !gaps {
            // Set before a second file exists: a version that knows only one file would overlook it.
            transact(&db, Flush::Marked, |tx| set_format(tx, FORMAT)).map_err(engine)?;
        }
        let (cache_bytes, large) = (options.cache_bytes, options.quick_repair_bytes);
        let files = SegmentOpener { dir: self.dir, id, cache_bytes, large, reserve: reserve.clone(), gaps };
        let segments = Arc::new(Segments::open(db, path, files)?);
        let ends = ends(&segments, gaps)?;
        let rotation = Rotation::new(options.segment_bytes);
        Ok(RedbStore {
            segments,
            id,
            named_bound: options.named_values,
            writer: Mutex::new(Writer::new(rotation)),
            ends: Mutex::new(ends),
            grown: Condvar::new(),
            reserve,
            gaps,
            format,
            _lock: None,
        })
    }
}

/// How the files of one store are opened and created.
pub(super) struct SegmentOpener {
    /// The directory; `None` if the store has a single file and cannot get another.
    pub dir: Option<PathBuf>,
    id: StoreId,
    cache_bytes: usize,
    /// Files of so many bytes are too large to be scanned after a crash.
    pub large: u64,
    reserve: Option<Arc<Reserve>>,
    gaps: bool,
}

impl SegmentOpener {
    /// Opens a segment file, whose name contains its first position.
    pub fn open(&self, path: &Path, first: Position) -> Result<Database, StoreError> {
        let shown = path.display().to_string();
        let file = files::open_private(path)?.ok_or_else(|| StoreError::Failed(format!("there is no {shown}")))?;
        files::from_disk(&file, path)?;
        let disk = ReservedFile::new(file, self.reserve.clone()).map_err(|e| of_open(&shown, e))?;
        let db = builder(self.cache_bytes).create_with_backend(disk).map_err(|e| of_open(&shown, e))?;
        let (found, _) = identity(&db, &shown)?;
        if found != self.id {
            return Err(StoreError::Foreign(format!("{shown} belongs to another store")));
        }
        match rows(&db, self.gaps)? {
            Some((at, _)) if at < first => {
                Err(StoreError::Damaged { at, what: format!("{shown} has a commit from before its beginning") })
            }
            _ => Ok(db),
        }
    }

    /// Creates the next segment file under a temporary name; its content is durable.
    pub fn make_next(&self) -> Result<NextSegment, StoreError> {
        let dir = self.dir.as_deref().ok_or_else(segments::closed)?;
        if self.reserve.as_ref().is_some_and(|r| r.is_low()) {
            return Err(StoreError::Full("what is left is kept for revocations".to_owned()));
        }
        let (file, aside) = files::begin_file(&dir.join(NEXT))?;
        let shown = aside.display().to_string();
        let synced = file.try_clone().map_err(|e| files::failed("sharing", &aside, &e))?;
        let disk = ReservedFile::new(file, self.reserve.clone()).map_err(|e| of_open(&shown, e))?;
        let create = || builder(self.cache_bytes).create_with_backend(disk).map_err(|e| of_open(&shown, e));
        let database = guarded("making", create)?;
        write_tables(&database, self.id, false)?;
        synced.sync_all().map_err(|e| files::failed("syncing", &aside, &e))?;
        Ok(NextSegment { database, aside })
    }
}

/// `cache_bytes`: the cache of all files together; each file has its own share.
fn builder(cache_bytes: usize) -> ::redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes / (limits::STORE_SEGMENTS_OPEN + 2));
    builder
}

/// Creates a file under a temporary name, and closes and syncs it before the rename, because redb refuses a file that a crash left half
/// made.
fn make(path: &Path, options: &StoreOptions) -> Result<std::fs::File, StoreError> {
    let (file, aside) = files::begin_file(path)?;
    let shown = aside.display().to_string();
    let db = guarded("making", || builder(options.cache_bytes).create_file(file).map_err(|e| of_open(&shown, e)))?;
    write_tables(&db, options.new_id, true)?;
    drop(db);
    files::finish_file(&aside, path)?;
    let made = files::open_private(path)?;
    made.ok_or_else(|| StoreError::Failed(format!("{} was removed while it was being made", path.display())))
}

/// `main`: with the table of named values.
fn write_tables(db: &Database, id: StoreId, main: bool) -> Result<(), StoreError> {
    let tables = |tx: &WriteTransaction| {
        tx.open_table(COMMITS)?;
        if main {
            tx.open_table(NAMED)?;
        }
        let mut about = tx.open_table(ABOUT)?;
        about.insert("format", FORMAT.to_be_bytes().as_slice())?;
        about.insert("id", id.as_bytes().as_slice())?;
        Ok(())
    };
    guarded("making", || transact(db, Flush::Marked, tables).map_err(engine))
}

fn set_format(tx: &WriteTransaction, format: u32) -> super::Done {
    tx.open_table(ABOUT)?.insert("format", &format.to_be_bytes()[..]).map(drop).map_err(Into::into)
}

/// The store's identity, and the format.
fn identity(db: &Database, shown: &str) -> Result<(StoreId, u32), StoreError> {
    let foreign = || StoreError::Foreign(format!("{shown} is a redb file, but no store of mayfly"));
    let tx = db.begin_read().map_err(engine)?;
    let about = tx.open_table(ABOUT).map_err(|e| match e {
        ::redb::TableError::Storage(e) => engine(e),
        _ => foreign(),
    })?;
    let row = |name: &str| Ok(about.get(name).map_err(engine)?.map(|v| v.value().to_vec()));
    let format = row("format")?.and_then(|v| v.try_into().ok()).map(u32::from_be_bytes).ok_or_else(foreign)?;
    if ![ONE_FILE, FORMAT, LOGGED, HEADED].contains(&format) {
        let text = format!("{shown} has store format {format}, this mayfly reads {HEADED}; start the version that wrote it");
        return Err(StoreError::Foreign(text));
    }
    let id = row("id")?.and_then(|v| StoreId::from_slice(&v)).ok_or_else(foreign)?;
    Ok((id, format))
}

/// First and last position in one file. The table's count shows that no position between them is missing, without reading the rows.
fn rows(db: &Database, gaps: bool) -> Result<Option<(Position, Position)>, StoreError> {
    let tx = db.begin_read().map_err(engine)?;
    let table = tx.open_table(COMMITS).map_err(engine)?;
    let (Some((first, _)), Some((last, _))) = (table.first().map_err(engine)?, table.last().map_err(engine)?) else {
        return Ok(None);
    };
    let (first, last) = (first.value(), last.value());
    if first == 0 || last == Position::MAX {
        return Err(StoreError::Damaged { at: 0, what: "there is a commit at a place that no store gives".to_owned() });
    }
    if !gaps && (last - first).checked_add(1) != Some(table.len().map_err(engine)?) {
        for (row, expected) in table.range(first..).map_err(engine)?.zip(first..) {
            if row.map_err(engine)?.0.value() != expected {
                return Err(gap(expected));
            }
        }
        return Err(StoreError::Damaged { at: 0, what: "the number of commits is not what their places say".to_owned() });
    }
    Ok(Some((first, last)))
}

/// First and last position of all files. The files between the two oldest and the two newest are checked when they are read.
fn ends(segments: &Segments, gaps: bool) -> Result<Ends, StoreError> {
    let all = segments.all();
    let rows = |segment: &SegmentFile| match segments.opened(segment)? {
        Some(db) => rows(&db, gaps),
        None => Ok(None),
    };
    let (mut head, mut after) = (None, None);
    for (n, segment) in all.iter().rev().enumerate() {
        if n >= 2 && head.is_some() {
            break;
        }
        match rows(segment)? {
            Some((_, last)) if gaps || after.is_none_or(|after| after == last + 1) => head = head.or(Some(last)),
            Some((_, last)) => return Err(gap(last + 1)),
            // A segment without commits is allowed if it is the newest, just begun, or the main one, which stays when its commits were
            // removed.
            None if gaps || after.is_none() || segment.is_main() => {}
            None => return Err(gap(segment.first())),
        }
        after = Some(segment.first());
    }
    let Some(head) = head else {
        let what = "there are files of commits, and no commits";
        let none = Err(StoreError::Damaged { at: 0, what: what.to_owned() });
        return if all.len() == 1 { Ok(Ends::default()) } else { none };
    };
    for (n, segment) in all.iter().enumerate() {
        let Some((oldest, last)) = rows(segment)? else { continue };
        return match all.get(n + 1).filter(|after| !gaps && after.first() != last + 1) {
            None => Ok(Ends { oldest, head, first: 0 }),
            Some(_) => Err(gap(last + 1)),
        };
    }
    Err(gap(head))
}

fn of_open(shown: &str, err: DatabaseError) -> StoreError {
    match err {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(shown.to_owned()),
        DatabaseError::UpgradeRequired(version) => {
            StoreError::Foreign(format!("{shown} has redb's file format {version}, which this version does not read"))
        }
        // redb's error for a file that does not begin with its magic number.
        DatabaseError::Storage(::redb::StorageError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Foreign(format!("{shown} is no store of mayfly: {e}"))
        }
        DatabaseError::Storage(::redb::StorageError::Io(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged { at: 0, what: format!("{shown} is cut off: {e}") }
        }
        other => match engine(other) {
            StoreError::Full(e) => StoreError::Full(format!("opening {shown}: {e}")),
            StoreError::Failed(e) => StoreError::Failed(format!("opening {shown}: {e}")),
            as_it_is => as_it_is,
        },
    }
}
