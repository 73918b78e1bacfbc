//! Nodes, roots and proofs of a Merkle tree (RFC 6962, section 2.1; RFC 9162, section 2.1), computed from a function that returns complete
//! subtrees.
//!
//! A node is named by its level and its index in that level: (0, n) is leaf n, (k, n) covers the leaves from n·2^k to (n+1)·2^k. Pure.

use crate::commit::{Hash, node_hash, sha256};

/// A complete subtree: its level, and its index in that level.
pub type Node = (u32, u64);

/// The longest possible proof, in hashes: a path on each side in a tree of 2^63 leaves.
pub const LONGEST: usize = 2 * 63;

/// The smallest list of complete subtrees that cover the leaves from `from` to `to`, in order.
pub fn cover(mut from: u64, to: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    while from < to {
        // The largest subtree that is aligned at this position and ends at `to` or before.
        let aligned = if from == 0 { 63 } else { from.trailing_zeros() };
        let fits = 63 - (to - from).leading_zeros();
        let level = aligned.min(fits);
        nodes.push((level, from >> level));
        from += 1 << level;
    }
    nodes
}

/// The root over adjacent subtrees, the largest first, as [`cover`] returns them for a tree or for its right side.
pub fn folded(nodes: &[Hash]) -> Hash {
    let Some((last, rest)) = nodes.split_last() else { return sha256(&[]) };
    rest.iter().rev().fold(*last, |right, left| node_hash(left, &right))
}

/// The number of the n leaves that are left of the root (RFC 6962, section 2.1): the largest power of two below n.
fn left_of(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// Returns the hash of a complete subtree.
type Give<'a, E> = &'a mut dyn FnMut(Node) -> Result<Hash, E>;

/// The root over the leaves from `from` to `to`, which must be a subtree, possibly an incomplete one at the right edge.
pub fn root_of<E>(from: u64, to: u64, give: Give<'_, E>) -> Result<Hash, E> {
    Ok(folded(&cover(from, to).into_iter().map(give).collect::<Result<Vec<_>, E>>()?))
}

/// The audit path of leaf `at` in the tree over `size` leaves (RFC 6962, section 2.1.1). `at` is below `size`.
pub fn inclusion<E>(at: u64, size: u64, give: Give<'_, E>) -> Result<Vec<Hash>, E> {
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + left_of(to - from);
        if at < middle {
            path.push(root_of(middle, to, give)?);
            to = middle;
        } else {
            path.push(root_of(from, middle, give)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree over `old` leaves is the beginning of that over `new` (RFC 6962, section 2.1.2). 0 < `old` ≤ `new`.
pub fn consistency<E>(old: u64, new: u64, give: Give<'_, E>) -> Result<Vec<Hash>, E> {
    let (mut from, mut to, mut whole, mut proof) = (0, new, true, Vec::new());
    while old != to {
        let middle = from + left_of(to - from);
        if old <= middle {
            proof.push(root_of(middle, to, give)?);
            to = middle;
        } else {
            proof.push(root_of(from, middle, give)?);
            (from, whole) = (middle, false);
        }
    }
    if !whole {
        proof.push(root_of(from, to, give)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The root that an audit path leads to (RFC 9162, section 2.1.3.2); `None` for an invalid path.
pub fn root_by_inclusion(at: u64, size: u64, leaf: Hash, path: &[Hash]) -> Option<Hash> {
    if at >= size {
        return None;
    }
    let (mut fnode, mut last, mut hash) = (at, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if fnode & 1 == 1 || fnode == last {
            hash = node_hash(sibling, &hash);
            if fnode & 1 == 0 {
                let zeros = fnode.trailing_zeros().min(63);
                (fnode, last) = (fnode >> zeros, last >> zeros);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (fnode, last) = (fnode >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

/// Whether a proof shows that a tree of `old` leaves with one root is a prefix of the tree of `new` leaves with the other root (RFC 9162,
/// section 2.1.4.2). The empty tree is a prefix of every tree.
pub fn consistent(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new || proof.len() > LONGEST {
        return false;
    }
    if old == new || old == 0 {
        return proof.is_empty() && if old == 0 { *old_root == sha256(&[]) } else { old_root == new_root };
    }
    let mut rest = proof.iter();
    let (mut fnode, mut last) = (old - 1, new - 1);
    let zeros = fnode.trailing_ones();
    (fnode, last) = (fnode >> zeros, last >> zeros);
    // A complete subtree is its own first node.
    let begin = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(begin) = begin else { return false };
    let (mut first, mut second) = (*begin, *begin);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == last {
            first = node_hash(sibling, &first);
            second = node_hash(sibling, &second);
            if fnode & 1 == 0 {
                let zeros = fnode.trailing_zeros().min(63);
                (fnode, last) = (fnode >> zeros, last >> zeros);
            }
        } else {
            second = node_hash(&second, sibling);
        }
        (fnode, last) = (fnode >> 1, last >> 1);
    }
    last == 0 && first == *old_root && second == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{leaf_hash, root_hash};

    fn leaves(n: u64) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn given(leaves: &[Hash]) -> impl FnMut(Node) -> Result<Hash, ()> + '_ {
        |(level, n)| {
            let (from, to) = (n << level, (n + 1) << level);
            leaves.get(from as usize..to as usize).map(root_hash).ok_or(())
        }
    }

    fn flipped(hashes: &[Hash], at: usize) -> Vec<Hash> {
        let mut bad = hashes.to_vec();
        bad[at / 32][at % 32] ^= 1;
        bad
    }

    #[test]
    fn a_cover_is_whole_in_order_and_small() {
        for from in 0..70 {
            for to in from..140 {
                let nodes = cover(from, to);
                let mut next = from;
                for (level, n) in &nodes {
                    assert_eq!(n << level, next);
                    next += 1 << level;
                }
                assert_eq!(next, to);
                assert!(nodes.len() <= 14);
            }
        }
        assert_eq!(cover(0, 1 << 40), [(40, 0)]);
        assert_eq!(cover(0, 7), [(2, 0), (1, 2), (0, 6)]);
    }

    #[test]
    fn every_path_leads_to_the_root_and_no_other_path_does() {
        for size in 1..=70 {
            let all = leaves(size);
            let root = root_hash(&all);
            assert_eq!(root_of(0, size, &mut given(&all)), Ok(root));
            for at in 0..size {
                let path = inclusion(at, size, &mut given(&all)).unwrap();
                let leaf = all[at as usize];
                assert_eq!(root_by_inclusion(at, size, leaf, &path), Some(root), "{at} of {size}");
                assert_ne!(root_by_inclusion(at, size, leaf_hash(b"other"), &path), Some(root));
                for byte in (0..path.len() * 32).step_by(if size > 20 { 13 } else { 1 }) {
                    assert_ne!(root_by_inclusion(at, size, leaf, &flipped(&path, byte)), Some(root));
                }
                let longer: Vec<Hash> = path.iter().copied().chain([leaf]).collect();
                assert_ne!(root_by_inclusion(at, size, leaf, &longer), Some(root));
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(root_by_inclusion(at, size, leaf, shorter), Some(root));
                }
                for other in (0..size).filter(|other| *other != at) {
                    assert_ne!(root_by_inclusion(other, size, leaf, &path), Some(root), "{at} as {other} of {size}");
                }
            }
            assert_eq!(root_by_inclusion(size, size, root, &[]), None);
        }
    }

    #[test]
    fn every_beginning_is_proven_and_nothing_else_is() {
        let all = leaves(70);
        for new in 1..=70 {
            let root = root_hash(&all[..new as usize]);
            for old in 1..=new {
                let before = root_hash(&all[..old as usize]);
                let proof = consistency(old, new, &mut given(&all)).unwrap();
                assert!(consistent(old, new, &before, &root, &proof), "{old} of {new}");
                for byte in (0..proof.len() * 32).step_by(11) {
                    assert!(!consistent(old, new, &before, &root, &flipped(&proof, byte)), "{old} of {new}");
                }
                let other = leaf_hash(b"other");
                assert!(!consistent(old, new, &other, &root, &proof) && !consistent(old, new, &before, &other, &proof));
                let longer: Vec<Hash> = proof.iter().copied().chain([other]).collect();
                assert!(!consistent(old, new, &before, &root, &longer));
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!consistent(old, new, &before, &root, shorter));
                }
                if old < new {
                    assert!(!consistent(new, old, &root, &before, &proof));
                }
            }
            assert!(consistent(0, new, &sha256(&[]), &root, &[]) && !consistent(0, new, &root, &root, &[]));
        }
    }

    /// Paths and proofs of the seven leaves of RFC 6962, section 2.1.3, as that section spells them out.
    #[test]
    fn the_example_of_rfc_6962_section_2_1_3() {
        let d = leaves(7);
        let two = |a: usize| node_hash(&d[a], &d[a + 1]);
        let (g, h, i, j) = (two(0), two(2), two(4), d[6]);
        let (k, l) = (node_hash(&g, &h), node_hash(&i, &j));
        let path = |at| inclusion(at, 7, &mut given(&d)).unwrap();
        assert_eq!(path(0), [d[1], h, l]);
        assert_eq!(path(3), [d[2], g, l]);
        assert_eq!(path(4), [d[5], j, k]);
        assert_eq!(path(6), [i, k]);
        let proof = |old| consistency(old, 7, &mut given(&d)).unwrap();
        assert_eq!(proof(3), [d[2], d[3], g, l]);
        assert_eq!(proof(4), [l]);
        assert_eq!(proof(6), [i, j, k]);
    }
}
