//! The tree over all commits, in files beside the store: 32 bytes per commit in files of 65,536 leaves. In memory: one hash per file, the
//! leaves of the newest file, and two frontiers.
//!
//! The tree is derived data: missing or damaged parts are rebuilt from the store. Of commits removed from the store only a frontier is left
//! (the base), from which the tree grows; proofs about earlier leaves are no longer possible. Files are written and synced before the head
//! that names them is renamed into place, and a head whose root the files do not give is rejected.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::frontier::Frontier;
use super::proof::{Node, consistency, consistent, inclusion, root_by_inclusion, root_of};
use crate::commit::{Hash, node_hash, root_hash, sha256};

/// One file holds the leaves under one node of this level.
const LEVEL: u32 = 16;
const LEAVES: u64 = 1 << LEVEL;
/// The first bytes of the head: its format.
const MAGIC: &[u8; 8] = b"mayflyt\x01";

/// Why a proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The commit was removed from the ledger, or is not there yet.
    #[error("commit {0} is not in the tree, or was removed")]
    Gone(u64),
    /// A file is damaged. The tree has to be rebuilt.
    #[error("the tree's files are damaged: {0}")]
    Damaged(String),
}

impl From<io::Error> for ProofError {
    fn from(error: io::Error) -> ProofError {
        ProofError::Damaged(error.to_string())
    }
}

/// The end of the newest leaf's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CommitEnd {
    /// The seq of the commit's last record.
    pub seq: u64,
    /// The commit's time, milliseconds.
    pub time: u64,
}

/// The tree.
#[derive(Debug)]
pub struct MerkleTree {
    /// The end of the newest leaf's commit, set by the thread that grows the tree.
    pub mark: CommitEnd,
    /// `None`: all leaves stay in memory.
    dir: Option<PathBuf>,
    base: Frontier,
    based: HashMap<Node, Hash>,
    top: Frontier,
    /// The roots of complete files, by their number.
    roots: BTreeMap<u64, Hash>,
    /// The leaves in memory: those of the newest file, or all since the base.
    newest: Vec<Hash>,
    newest_from: u64,
    /// Number of leaves that are in the files.
    written: u64,
}

impl MerkleTree {
    /// Opens the tree on the disk if it reaches the base; begins a new one over `base` if there is none or it is damaged.
    pub fn open(dir: Option<&Path>, base: &Frontier) -> io::Result<MerkleTree> {
        let Some(dir) = dir else { return Ok(MerkleTree::over(None, base.clone())) };
        fs::create_dir_all(dir)?;
        match MerkleTree::load(dir) {
            Ok(tree) if tree.top.size() >= base.size() => Ok(tree),
            Ok(_) => MerkleTree::anew(dir, base),
            Err(error) if error.kind() == io::ErrorKind::NotFound => MerkleTree::anew(dir, base),
            Err(error) => {
                tracing::warn!(%error, "the Merkle tree over the history could not be loaded and is rebuilt");
                MerkleTree::anew(dir, base)
            }
        }
    }

    fn over(dir: Option<PathBuf>, base: Frontier) -> MerkleTree {
        let from = base.size();
        let based = base.nodes().collect();
        MerkleTree {
            mark: CommitEnd::default(),
            dir,
            based,
            top: base.clone(),
            base,
            roots: BTreeMap::new(),
            newest: Vec::new(),
            newest_from: from,
            written: from,
        }
    }

    /// Deletes the files and begins a new tree over `base`.
    pub fn anew(dir: &Path, base: &Frontier) -> io::Result<MerkleTree> {
        // The head first: without it the other files are ignored.
        for name in std::iter::once(head_path(dir)).chain(files(dir)?.into_values()) {
            match fs::remove_file(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(MerkleTree::over(Some(dir.to_owned()), base.clone()))
    }

    fn load(dir: &Path) -> io::Result<MerkleTree> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let bytes = fs::read(head_path(dir))?;
        let (base, top, mark) = read_head(&bytes).ok_or_else(|| bad("its head is not one"))?;
        let mut tree = MerkleTree { mark, ..MerkleTree::over(Some(dir.to_owned()), base) };
        let from = tree.base.size() / LEAVES;
        let whole = top.size() / LEAVES;
        for number in from..whole {
            let mut root = [0; 32];
            File::open(path(dir, number))?.read_exact_at(&mut root, LEAVES * 32)?;
            tree.roots.insert(number, root);
        }
        tree.newest_from = (whole * LEAVES).max(tree.base.size());
        if top.size() > tree.newest_from {
            let file = File::open(path(dir, whole))?;
            tree.newest = read_leaves(&file, tree.newest_from, top.size())?;
        }
        (tree.written, tree.top) = (top.size(), top);
        let root = root_of(0, tree.top.size(), &mut |node| tree.node(node)).map_err(io::Error::other)?;
        if root == tree.top.root() { Ok(tree) } else { Err(bad("its files are not those that its head names")) }
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.top.size()
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        self.top.root()
    }

    /// Number of leaves at the beginning that are gone.
    pub fn base(&self) -> u64 {
        self.base.size()
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) -> io::Result<()> {
        self.top.push(leaf);
        self.newest.push(leaf);
        if self.dir.is_some() && self.top.size().is_multiple_of(LEAVES) {
            self.end_file()?;
        }
        Ok(())
    }

    /// Completes the newest file: its root is kept, and its leaves leave memory.
    fn end_file(&mut self) -> io::Result<()> {
        self.write()?;
        let number = self.top.size() / LEAVES - 1;
        let node = (LEVEL, number);
        let root = self.node(node).map_err(io::Error::other)?;
        if let Some(dir) = &self.dir {
            let file = OpenOptions::new().write(true).open(path(dir, number))?;
            file.write_all_at(&root, LEAVES * 32)?;
            file.sync_data()?;
        }
        self.roots.insert(number, root);
        self.newest.clear();
        self.newest_from = self.top.size();
        self.write_head()
    }

    /// Number of leaves that are not on the disk yet.
    pub fn unwritten(&self) -> u64 {
        if self.dir.is_some() { self.top.size() - self.written } else { 0 }
    }

    /// Writes everything so far to the disk.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.dir.is_none() || self.written == self.top.size() {
            return Ok(());
        }
        self.write()?;
        self.write_head()
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let at = self.written.max(self.newest_from);
        let new = self.newest.get((at - self.newest_from) as usize..).unwrap_or_default();
        if !new.is_empty() {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path(dir, at / LEAVES))?;
            file.write_all_at(new.as_flattened(), at % LEAVES * 32)?;
            file.sync_data()?;
        }
        self.written = self.top.size();
        Ok(())
    }

    fn write_head(&self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let (aside, at) = (dir.join("head.writing"), head_path(dir));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&head(&self.base, &self.top, self.mark))?;
            file.sync_all()?;
            fs::rename(&aside, at)
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        File::open(dir)?.sync_all()
    }

    /// Drops the part before `base`, whose commits were removed from the store: only the frontier is kept. Returns false if the frontier
    /// does not belong to this tree.
    pub fn rebase(&mut self, base: &Frontier) -> io::Result<bool> {
        if base.size() <= self.base.size() {
            return Ok(true);
        }
        if base.size() > self.top.size() {
            return Ok(false);
        }
        match root_of(0, base.size(), &mut |node| self.node(node)) {
            Ok(root) if root == base.root() => {}
            _ => return Ok(false),
        }
        (self.based, self.base) = (base.nodes().collect(), base.clone());
        let kept = base.size() / LEAVES;
        self.roots = self.roots.split_off(&kept);
        if self.newest_from < base.size() {
            self.newest.drain(..((base.size() - self.newest_from) as usize).min(self.newest.len()));
            self.newest_from = base.size();
        }
        self.flush()?;
        self.write_head()?;
        if let Some(dir) = &self.dir {
            for (_, old) in files(dir)?.into_iter().filter(|(number, _)| *number < kept) {
                fs::remove_file(old)?;
            }
        }
        Ok(true)
    }

    /// The hash of a complete subtree.
    pub fn node(&self, (level, place): Node) -> Result<Hash, ProofError> {
        if let Some(hash) = self.based.get(&(level, place)) {
            return Ok(*hash);
        }
        let (from, to) = (place << level, (place + 1) << level);
        if to <= self.base.size() || to > self.top.size() {
            return Err(ProofError::Gone(from + 1));
        }
        if level == LEVEL
            && let Some(root) = self.roots.get(&place)
        {
            return Ok(*root);
        }
        if from < self.base.size() || level > LEVEL {
            let (left, right) = ((level - 1, place * 2), (level - 1, place * 2 + 1));
            return Ok(node_hash(&self.node(left)?, &self.node(right)?));
        }
        if from >= self.newest_from {
            let range = (from - self.newest_from) as usize..(to - self.newest_from) as usize;
            return self.newest.get(range).map(root_hash).ok_or(ProofError::Gone(from + 1));
        }
        let Some(dir) = &self.dir else { return Err(ProofError::Gone(from + 1)) };
        Ok(root_hash(&read_leaves(&File::open(path(dir, from / LEAVES))?, from, to)?))
    }

    /// The audit path of a leaf, counted from 0, in the whole tree.
    pub fn inclusion(&self, at: u64) -> Result<Vec<Hash>, ProofError> {
        if at < self.base.size() || at >= self.top.size() {
            return Err(ProofError::Gone(at + 1));
        }
        let path = inclusion(at, self.top.size(), &mut |node| self.node(node))?;
        let leads = root_by_inclusion(at, self.top.size(), self.node((0, at))?, &path);
        if leads == Some(self.top.root()) { Ok(path) } else { Err(ProofError::Damaged(format!("around commit {}", at + 1))) }
    }

    /// The proof that the tree over `old` leaves is a prefix of that over `size` leaves; both must not be larger than this tree.
    pub fn consistency_to(&self, old: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
        if old == 0 || old > size || size > self.top.size() {
            return Err(ProofError::Gone(old));
        }
        consistency(old, size, &mut |node| self.node(node))
    }

    /// The root of the tree over `old` leaves, with the proof that it is a prefix of this tree.
    pub fn consistency(&self, old: u64) -> Result<(Hash, Vec<Hash>), ProofError> {
        if old == 0 || old > self.top.size() {
            return Err(ProofError::Gone(old));
        }
        let root = root_of(0, old, &mut |node| self.node(node))?;
        let proof = consistency(old, self.top.size(), &mut |node| self.node(node))?;
        let shows = consistent(old, self.top.size(), &root, &self.top.root(), &proof);
        if shows { Ok((root, proof)) } else { Err(ProofError::Damaged(format!("before commit {}", old + 1))) }
    }
}

fn head_path(dir: &Path) -> PathBuf {
    dir.join("head")
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012x}.leaves"))
}

/// The existing leaf files, by number.
fn files(dir: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|s| u64::from_str_radix(s.to_str()?, 16).ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == "leaves")) {
            found.insert(number, path);
        }
    }
    Ok(found)
}

fn read_leaves(file: &File, from: u64, to: u64) -> io::Result<Vec<Hash>> {
    let mut leaves = vec![[0; 32]; (to - from) as usize];
    file.read_exact_at(leaves.as_flattened_mut(), from % LEAVES * 32)?;
    Ok(leaves)
}

fn head(base: &Frontier, top: &Frontier, mark: CommitEnd) -> Vec<u8> {
    let base = base.to_bytes();
    let mut bytes = MAGIC.to_vec();
    for number in [mark.seq, mark.time, base.len() as u64] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(base);
    bytes.extend(top.to_bytes());
    bytes.extend(sha256(&bytes));
    bytes
}

/// Base, top and mark of a head that is undamaged.
pub fn read_head(bytes: &[u8]) -> Option<(Frontier, Frontier, CommitEnd)> {
    let (body, digest) = bytes.split_last_chunk::<32>()?;
    if sha256(body) != *digest {
        return None;
    }
    let (numbers, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<24>()?;
    let number = |n: usize| Some(u64::from_be_bytes(numbers.get(n * 8..n * 8 + 8)?.try_into().ok()?));
    let (base, top) = rest.split_at_checked(usize::try_from(number(2)?).ok()?)?;
    let (base, top) = (Frontier::from_bytes(base)?, Frontier::from_bytes(top)?);
    (base.size() <= top.size()).then_some((base, top, CommitEnd { seq: number(0)?, time: number(1)? }))
}
