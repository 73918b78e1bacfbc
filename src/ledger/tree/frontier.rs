//! The right edge of a tree: the few hashes from which the tree can grow, without the leaves.

use super::proof::{Node, cover, folded};
use crate::commit::{Hash, node_hash};

/// The complete subtrees of a tree over its first `size` leaves, the largest first. At most 63 hashes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each carried bit joins two subtrees of one size.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.nodes.push(hash);
        self.size += 1;
    }

    /// Adds a complete subtree at the end; returns false unless its place is the next one of its level.
    pub fn push_node(&mut self, (level, place): Node, hash: Hash) -> bool {
        if level > 62 || place.checked_shl(level) != Some(self.size) || self.size >> level != place {
            return false;
        }
        let mut hash = hash;
        for _ in 0..place.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.nodes.push(hash);
        self.size += 1 << level;
        true
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        folded(&self.nodes)
    }

    /// The subtrees with their node names.
    pub fn nodes(&self) -> impl Iterator<Item = (Node, Hash)> + '_ {
        cover(0, self.size).into_iter().zip(self.nodes.iter().copied())
    }

    /// The persisted form: the size in eight bytes, big endian, then the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let hashes = self.nodes.iter().flatten().copied();
        self.size.to_be_bytes().into_iter().chain(hashes).collect()
    }

    /// Decodes the form that [`Frontier::to_bytes`] writes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Frontier> {
        let (size, rest) = bytes.split_first_chunk()?;
        let size = u64::from_be_bytes(*size);
        let (nodes, left) = rest.as_chunks::<32>();
        let whole = left.is_empty() && nodes.len() == size.count_ones() as usize && size >> 63 == 0;
        whole.then(|| Frontier { size, nodes: nodes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{leaf_hash, root_hash};

    #[test]
    fn it_grows_by_leaves_and_by_subtrees_to_the_same_root() {
        let leaves: Vec<Hash> = (0..70u64).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let mut grown = Frontier::default();
        for n in 0..70usize {
            assert_eq!(grown.root(), root_hash(&leaves[..n]));
            assert_eq!(Frontier::from_bytes(&grown.to_bytes()).as_ref(), Some(&grown));
            for to in n..70usize {
                let mut by_nodes = grown.clone();
                for node in cover(n as u64, to as u64) {
                    let (from, end) = ((node.1 << node.0) as usize, ((node.1 + 1) << node.0) as usize);
                    assert!(!by_nodes.clone().push_node((node.0, node.1 + 1), [0; 32]), "not the next one");
                    assert!(by_nodes.push_node(node, root_hash(&leaves[from..end])));
                }
                assert_eq!((by_nodes.size(), by_nodes.root()), (to as u64, root_hash(&leaves[..to])));
            }
            grown.push(leaves[n]);
        }
        let bytes = grown.to_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(Frontier::from_bytes(&bytes[..cut]), None);
        }
    }
}
