//! Tests of the tree in files: over restarts, after removals, after damage.

use super::frontier::Frontier;
use super::proof::{consistent, root_by_inclusion};
use super::stored::{MerkleTree, ProofError, read_head};
use crate::commit::{Hash, leaf_hash, root_hash};

fn leaf(n: u64) -> Hash {
    leaf_hash(&n.to_be_bytes())
}

fn leaves(n: u64) -> Vec<Hash> {
    (0..n).map(leaf).collect()
}

fn grow(tree: &mut MerkleTree, to: u64) {
    (tree.size()..to).for_each(|n| tree.push(leaf(n)).unwrap());
}

fn frontier(n: u64) -> Frontier {
    let mut frontier = Frontier::default();
    leaves(n).into_iter().for_each(|leaf| frontier.push(leaf));
    frontier
}

const FILE: u64 = 65_536;

fn proves(tree: &MerkleTree, at: u64) {
    let path = tree.inclusion(at).unwrap();
    assert_eq!(root_by_inclusion(at, tree.size(), leaf(at), &path), Some(tree.root()), "{at}");
}

#[test]
fn it_says_the_same_after_a_restart_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let size = 2 * FILE + 100;
    let mut tree = MerkleTree::open(Some(dir.path()), &Frontier::default()).unwrap();
    for step in [7, 300, FILE, FILE + 5, size] {
        grow(&mut tree, step);
        tree.flush().unwrap();
        let root = tree.root();
        drop(tree);
        tree = MerkleTree::open(Some(dir.path()), &Frontier::default()).unwrap();
        assert_eq!((tree.size(), tree.root()), (step, root));
    }
    assert_eq!(tree.root(), root_hash(&leaves(size)));
    for at in [0, 1, FILE - 1, FILE, 2 * FILE - 1, 2 * FILE, size - 1] {
        proves(&tree, at);
    }
    for old in [1, 300, FILE, FILE + 1, 2 * FILE, size - 1, size] {
        let (root, proof) = tree.consistency(old).unwrap();
        assert_eq!(root, root_hash(&leaves(old)));
        assert!(consistent(old, size, &root, &tree.root(), &proof));
    }
    assert!(matches!(tree.inclusion(size), Err(ProofError::Gone(_))));
    assert!(matches!(tree.consistency(size + 1), Err(ProofError::Gone(_))));
    // Leaves that were not flushed are missing after the restart, and the flushed ones are right.
    grow(&mut tree, size + 50);
    drop(tree);
    assert_eq!(MerkleTree::open(Some(dir.path()), &Frontier::default()).unwrap().size(), size);
}

#[test]
fn it_goes_on_after_what_is_before_was_removed() {
    for (dir, removed) in [(None, 300), (Some(()), 300), (Some(()), FILE + 77), (Some(()), 2 * FILE)] {
        let folder = dir.map(|()| tempfile::tempdir().unwrap());
        let path = folder.as_ref().map(tempfile::TempDir::path);
        let size = 2 * FILE + 100;
        let mut tree = MerkleTree::open(path, &Frontier::default()).unwrap();
        grow(&mut tree, size);
        let root = tree.root();
        assert!(!tree.rebase(&frontier(size + 1)).unwrap(), "it is not there yet");
        let mut other = frontier(removed - 1);
        other.push(leaf_hash(b"other"));
        assert!(!tree.rebase(&other).unwrap(), "another tree's");
        assert!(tree.rebase(&frontier(removed)).unwrap());
        for again in [false, true] {
            if again && let Some(path) = path {
                tree = MerkleTree::open(Some(path), &frontier(removed)).unwrap();
            }
            assert_eq!((tree.size(), tree.root(), tree.base()), (size, root, removed));
            for at in [removed, removed + 1, size - 1] {
                proves(&tree, at);
            }
            assert!(matches!(tree.inclusion(removed - 1), Err(ProofError::Gone(_))));
            for old in [removed, removed + 1, size - 1] {
                assert_eq!(tree.consistency(old).unwrap().0, root_hash(&leaves(old)));
            }
        }
        grow(&mut tree, size + 9);
        assert_eq!(tree.root(), root_hash(&leaves(size + 9)));
        if let Some(path) = path {
            let count = std::fs::read_dir(path).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some()).count();
            assert_eq!(count as u64, 3 - removed / FILE, "files that nothing is left of are gone");
        }
    }
    // Built over a base alone, as after its files were lost.
    let mut tree = MerkleTree::open(None, &frontier(1000)).unwrap();
    grow(&mut tree, 1500);
    assert_eq!(tree.root(), root_hash(&leaves(1500)));
    (1000..1500).for_each(|at| proves(&tree, at));
}

#[test]
fn damage_is_noticed_and_the_tree_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = MerkleTree::open(Some(dir.path()), &Frontier::default()).unwrap();
    grow(&mut tree, FILE + 100);
    tree.flush().unwrap();
    let flip = |name: &str, at: usize| {
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    // A damaged leaf of a completed file is noticed by the proof that needs it.
    flip("000000000000.leaves", 32 * 500);
    assert!(matches!(tree.inclusion(501), Err(ProofError::Damaged(_))));
    proves(&tree, FILE + 3);
    flip("000000000000.leaves", 32 * 500);
    proves(&tree, 501);
    drop(tree);
    for (name, at) in [("000000000001.leaves", 5), ("000000000000.leaves", (FILE * 32) as usize), ("head", 20), ("head", 0)] {
        flip(name, at);
        let saved: Vec<_> = ["head", "000000000000.leaves", "000000000001.leaves"]
            .map(|n| (n, std::fs::read(dir.path().join(n)).unwrap()))
            .into();
        assert_eq!(MerkleTree::open(Some(dir.path()), &Frontier::default()).unwrap().size(), 0, "{name}");
        saved.into_iter().for_each(|(n, bytes)| std::fs::write(dir.path().join(n), bytes).unwrap());
        flip(name, at);
    }
    assert_eq!(MerkleTree::open(Some(dir.path()), &Frontier::default()).unwrap().size(), FILE + 100);
    assert!(read_head(b"").is_none());
}
