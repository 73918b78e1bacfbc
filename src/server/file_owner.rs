//! File ownership of a data directory that an operator created as root: it gets the owner of the directory that it replaces.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

/// Gives everything in a tree, durably, to the owner of `like`, if this process may do so: as root.
pub(super) fn change_owner(tree: &Path, like: &Path) -> io::Result<()> {
    let owner = fs::metadata(like)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    each(tree, &|path| lchown(path, Some(owner.uid()), Some(owner.gid())))
}

/// Depth first: a directory is synced after everything in it has its owner.
fn each(path: &Path, act: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            each(&entry?.path(), act)?;
        }
    }
    act(path)?;
    if kind.is_dir() || kind.is_file() { File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_made_belongs_to_whom_it_was_made_for() {
        if !rustix::process::geteuid().is_root() {
            return println!("SKIPPED: nobody but root gives files away");
        }
        let folder = tempfile::tempdir().unwrap();
        let (like, tree) = (folder.path().join("like"), folder.path().join("tree"));
        fs::create_dir(&like).unwrap();
        fs::create_dir_all(tree.join("history/part")).unwrap();
        fs::write(tree.join("history/part/file"), "x").unwrap();
        change_owner(&tree, &like).unwrap();
        assert_eq!(fs::metadata(&tree).unwrap().uid(), 0, "root's, as it was");
        lchown(&like, Some(1234), Some(4321)).unwrap();
        change_owner(&tree, &like).unwrap();
        for path in ["", "history", "history/part", "history/part/file"] {
            let found = fs::metadata(tree.join(path)).unwrap();
            assert_eq!((found.uid(), found.gid()), (1234, 4321), "{path}");
        }
    }
}
