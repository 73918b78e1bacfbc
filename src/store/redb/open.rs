//! Making and opening the file: what is there must be ours, of this version, and without a gap.

use std::path::Path;
use std::sync::Arc;

use ::redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend};
use parking_lot::{Condvar, Mutex};

use super::disk::Disk;
use super::{ABOUT, COMMITS, Ends, NAMED, RedbStore, engine, gap};
use crate::store::guarded::guarded;
use crate::store::options::Options;
use crate::store::reserve::Reserve;
use crate::store::{Position, StoreError, StoreId, files};

/// The file's name in the data directory.
const FILE: &str = "ledger.redb";
/// The layout of the tables. A file with a higher number is refused.
const FORMAT: u32 = 1;

impl RedbStore {
    /// Whether a store lies in `dir`, or something in its place. Nothing is opened.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(FILE).symlink_metadata().is_ok()
    }

    /// Opens the store in `dir`, making directory and file where they are missing.
    ///
    /// What is made is private and durable before this returns. A start that fails leaves nothing that a later one stumbles over.
    pub fn open(dir: &Path, options: &Options) -> Result<RedbStore, StoreError> {
        let lock = files::own_directory(dir)?;
        let path = dir.join(FILE);
        let existing = match files::open_private(&path)? {
            Some(file) => file,
            None => make(&path, options)?,
        };
        // After the file is there: a disk that is nearly full goes to the ledger first, and the reserve takes what it can.
        let reserve = match options.reserve_bytes {
            0 => None,
            bytes => Some(Arc::new(Reserve::open(dir, bytes, options.low_bytes)?)),
        };
        let shown = path.display().to_string();
        let disk = Disk::new(existing, reserve.clone()).map_err(|e| of_open(&shown, e))?;
        let db = guarded("opening", || builder(options).create_with_backend(disk).map_err(|e| of_open(&shown, e)))?;
        let mut store = adopt(db, &shown, options, false)?;
        store.reserve = reserve;
        store.file = Some(path);
        store._lock = Some(lock);
        Ok(store)
    }

    /// Opens the store in `dir` to save what is left of it: commits may be missing. It is for reading.
    pub fn open_damaged(dir: &Path, options: &Options) -> Result<RedbStore, StoreError> {
        let lock = files::own_directory(dir)?;
        let path = dir.join(FILE);
        let shown = path.display().to_string();
        let file = files::open_private(&path)?.ok_or_else(|| StoreError::Failed(format!("there is no {shown}")))?;
        let disk = Disk::new(file, None).map_err(|e| of_open(&shown, e))?;
        let db = guarded("opening", || builder(options).create_with_backend(disk).map_err(|e| of_open(&shown, e)))?;
        let mut store = adopt(db, &shown, options, true)?;
        store._lock = Some(lock);
        Ok(store)
    }

    /// Opens or makes a store on any backend of redb: the simulation's disks.
    pub fn with_backend(backend: impl StorageBackend, options: &Options) -> Result<RedbStore, StoreError> {
        let db = guarded("opening", || builder(options).create_with_backend(backend).map_err(|e| of_open("the disk", e)))?;
        let tables = || db.begin_read().map_err(engine)?.list_tables().map_err(engine).map(Iterator::count);
        if guarded("opening", tables)? == 0 {
            write_tables(&db, options.new_id)?;
        }
        adopt(db, "the disk", options, false)
    }
}

fn builder(options: &Options) -> ::redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes);
    builder
}

/// A new file: written aside, closed and synced before it gets its name, since redb refuses a file that a crash left half made.
fn make(path: &Path, options: &Options) -> Result<std::fs::File, StoreError> {
    let (file, aside) = files::begin_file(path)?;
    let shown = aside.display().to_string();
    let db = guarded("making", || builder(options).create_file(file).map_err(|e| of_open(&shown, e)))?;
    write_tables(&db, options.new_id)?;
    drop(db);
    files::finish_file(&aside, path)?;
    let made = files::open_private(path)?;
    made.ok_or_else(|| StoreError::Failed(format!("{} was removed while it was being made", path.display())))
}

fn write_tables(db: &Database, id: StoreId) -> Result<(), StoreError> {
    let write = || -> Result<(), ::redb::Error> {
        let mut tx = db.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        tx.set_quick_repair(true);
        tx.open_table(COMMITS)?;
        tx.open_table(NAMED)?;
        {
            let mut about = tx.open_table(ABOUT)?;
            about.insert("format", FORMAT.to_be_bytes().as_slice())?;
            about.insert("id", id.as_bytes().as_slice())?;
        }
        tx.commit()?;
        Ok(())
    };
    guarded("making", || write().map_err(engine))
}

/// Checks what was opened and makes the store of it.
fn adopt(db: Database, shown: &str, options: &Options, gaps: bool) -> Result<RedbStore, StoreError> {
    guarded("opening", || {
        let id = identity(&db, shown)?;
        let ends = ends(&db, gaps)?;
        Ok(RedbStore {
            db: Some(db),
            id,
            named_bound: options.named_values,
            writer: Mutex::new(None),
            ends: Mutex::new(ends),
            grown: Condvar::new(),
            reserve: None,
            file: None,
            gaps,
            _lock: None,
        })
    })
}

fn identity(db: &Database, shown: &str) -> Result<StoreId, StoreError> {
    let foreign = || StoreError::Foreign(format!("{shown} is a redb file, but no store of mayfly"));
    let tx = db.begin_read().map_err(engine)?;
    let about = tx.open_table(ABOUT).map_err(|e| match e {
        ::redb::TableError::Storage(e) => engine(e),
        _ => foreign(),
    })?;
    let row = |name: &str| Ok(about.get(name).map_err(engine)?.map(|v| v.value().to_vec()));
    let format = row("format")?.and_then(|v| v.try_into().ok()).map(u32::from_be_bytes).ok_or_else(foreign)?;
    if format != FORMAT {
        let text = format!("{shown} has store format {format}, this mayfly reads {FORMAT}; start the version that wrote it");
        return Err(StoreError::Foreign(text));
    }
    row("id")?.and_then(|v| StoreId::from_slice(&v)).ok_or_else(foreign)
}

/// First and last place. That none between is missing follows from the table's count, without reading what is between.
fn ends(db: &Database, gaps: bool) -> Result<Ends, StoreError> {
    let tx = db.begin_read().map_err(engine)?;
    tx.open_table(NAMED).map_err(engine)?;
    let table = tx.open_table(COMMITS).map_err(engine)?;
    let (Some((first, _)), Some((last, _))) = (table.first().map_err(engine)?, table.last().map_err(engine)?) else {
        return Ok(Ends::default());
    };
    let ends = Ends { oldest: first.value(), head: last.value(), first: 0 };
    if ends.oldest == 0 || ends.head == Position::MAX {
        return Err(StoreError::Damaged { at: 0, what: "there is a commit at a place that no store gives".to_owned() });
    }
    if !gaps && (ends.head - ends.oldest).checked_add(1) != Some(table.len().map_err(engine)?) {
        for (row, expected) in table.range(ends.oldest..).map_err(engine)?.zip(ends.oldest..) {
            if row.map_err(engine)?.0.value() != expected {
                return Err(gap(expected));
            }
        }
        return Err(StoreError::Damaged { at: 0, what: "the number of commits is not what their places say".to_owned() });
    }
    Ok(ends)
}

fn of_open(shown: &str, err: DatabaseError) -> StoreError {
    match err {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(shown.to_owned()),
        DatabaseError::UpgradeRequired(version) => {
            StoreError::Foreign(format!("{shown} has redb's file format {version}, which this version does not read"))
        }
        // redb's answer to a file that does not begin with its magic number.
        DatabaseError::Storage(::redb::StorageError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Foreign(format!("{shown} is no store of mayfly: {e}"))
        }
        other => match engine(other) {
            StoreError::Full(e) => StoreError::Full(format!("opening {shown}: {e}")),
            StoreError::Failed(e) => StoreError::Failed(format!("opening {shown}: {e}")),
            as_it_is => as_it_is,
        },
    }
}
