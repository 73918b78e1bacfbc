//! Plain sled, with one row for each commit and a flush after each change: the control that must lose data.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use mayfly::store::{Position, Precondition, Store, StoreError, StoreId, StoredCommit};

pub struct Bare(sled::Db);

fn failed(error: sled::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

fn commit_key(at: Position) -> Vec<u8> {
    [b"c".as_slice(), &at.to_be_bytes()].concat()
}

fn name_key(name: &str) -> Vec<u8> {
    [b"n", name.as_bytes()].concat()
}

impl Bare {
    pub fn open(dir: &Path) -> Result<Bare, StoreError> {
        std::fs::create_dir_all(dir).map_err(|e| StoreError::Failed(e.to_string()))?;
        let mut tries = 0;
        loop {
            match sled::Config::new().path(dir).flush_every_ms(None).open() {
                Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") && tries < 500 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                done => return done.map(Bare).map_err(failed),
            }
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush().map(drop).map_err(failed)
    }

    fn end(&self, key: Option<sled::Result<sled::IVec>>) -> Result<Position, StoreError> {
        let Some(key) = key.transpose().map_err(failed)? else { return Ok(0) };
        let at = key.get(1..).and_then(|at| at.try_into().ok()).map(u64::from_be_bytes);
        at.ok_or_else(|| StoreError::Failed("a foreign key".into()))
    }
}

impl Store for Bare {
    fn id(&self) -> StoreId {
        StoreId::from_bytes([0; 16])
    }

    fn engine(&self) -> &'static str {
        "sled-bare"
    }

    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.insert(commit_key(at), bytes).map_err(failed)?;
        self.flush()
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.end(self.0.scan_prefix(b"c").keys().next_back())
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        self.end(self.0.scan_prefix(b"c").keys().next())
    }

    fn read(&self, _: Position, _: usize) -> Result<Vec<StoredCommit>, StoreError> {
        let entry = |row: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = row.map_err(failed)?;
            Ok(StoredCommit { at: self.end(Some(Ok(key)))?, bytes: Bytes::copy_from_slice(&value) })
        };
        self.0.scan_prefix(b"c").map(entry).collect()
    }

    fn follow(&self, _: Position, _: Duration) -> Result<Position, StoreError> {
        self.head()
    }

    fn remove_some(&self, before: Position) -> Result<Position, StoreError> {
        for key in self.0.range(commit_key(0)..commit_key(before)).keys() {
            self.0.remove(key.map_err(failed)?).map_err(failed)?;
        }
        self.flush()?;
        Ok(before)
    }

    fn put(&self, name: &str, value: &[u8], _: Precondition<'_>) -> Result<(), StoreError> {
        self.0.insert(name_key(name), value).map_err(failed)?;
        self.flush()
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(name_key(name)).map_err(failed)?.map(|v| v.to_vec()))
    }

    fn list(&self, _: &str) -> Result<Vec<String>, StoreError> {
        let name = |key: sled::Result<sled::IVec>| {
            Ok(String::from_utf8_lossy(key.map_err(failed)?.get(1..).unwrap_or_default()).into_owned())
        };
        self.0.scan_prefix(b"n").keys().map(name).collect()
    }

    fn delete(&self, name: &str, _: Precondition<'_>) -> Result<(), StoreError> {
        self.0.remove(name_key(name)).map_err(failed)?;
        self.flush()
    }
}
