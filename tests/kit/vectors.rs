//! The location of the shared test vectors. They are not part of the project; without them a test reports that and stops.

use std::path::PathBuf;

/// A folder of the vectors, by `MAYFLY_VECTORS` or beside the project.
pub fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MAYFLY_VECTORS").map(PathBuf::from);
    let root = root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"));
    let path = root.join(name);
    if path.is_dir() {
        return Some(path);
    }
    super::skipped::skipped(format_args!("no conformance vectors at {} (set MAYFLY_VECTORS)", path.display()));
    None
}

/// A JSON file in such a folder.
pub fn json(folder: &std::path::Path, file: &str) -> serde_json::Value {
    let text = std::fs::read(folder.join(file)).unwrap();
    serde_json::from_slice(&text).unwrap()
}
