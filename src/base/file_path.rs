//! Paths of files as users write them: relative ones, bare names, and names with a trailing slash.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The directory that a path's last name is in. That of a bare name is `.`: [`Path::parent`] returns an empty path for it, which the
/// operating system does not open.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        None if path.has_root() => path,
        _ => Path::new("."),
    }
}

/// The path of another file in the same directory, whose name is the path's name followed by `.suffix`. A trailing slash is left out: with
/// it, the other file would be inside the directory that the path names.
pub fn beside(path: &Path, suffix: impl AsRef<OsStr>) -> PathBuf {
    let mut name = path.components().as_path().as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_every_path_can_be_opened() {
        for (path, dir) in
            [("data", "."), ("data/", "."), ("./data", "."), ("a/data", "a"), ("/data", "/"), ("/", "/"), ("", ".")]
        {
            assert_eq!(directory_of(Path::new(path)), Path::new(dir), "{path:?}");
        }
    }

    #[test]
    fn a_file_beside_a_directory_is_not_inside_it() {
        for (path, other) in [("data", "data.new"), ("data/", "data.new"), ("a/data//", "a/data.new"), ("/data/.", "/data.new")] {
            assert_eq!(beside(Path::new(path), "new"), Path::new(other), "{path:?}");
        }
    }
}
