//! The Merkle tree over the records of a segment, as RFC 6962 (section 2.1) defines it. Pure.
//!
//! It lets one record be proved to somebody who must not see the others: a leaf is a line without its
//! line feed, and a proof is the hashes beside the way from the leaf to the root.

use crate::audit::chain::Hash;

/// Leaves and nodes are hashed with different first bytes, so that no node can pass for a leaf.
const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];
/// A tree of 2^64 leaves has paths of this length; none is longer.
pub(super) const PATH_MAX: usize = 64;

/// The hash of a leaf.
pub(super) fn leaf(line: &[u8]) -> Hash {
    Hash::of(&[LEAF, line])
}

fn node(left: Hash, right: Hash) -> Hash {
    Hash::of(&[NODE, &left.bytes(), &right.bytes()])
}

/// A tree that grows at its end. Holds one hash for each full subtree, so that it is cheap to copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    leaves: u64,
    /// Roots of full subtrees, the largest first: one for each bit that is set in `leaves`.
    full: Vec<Hash>,
}

impl Tree {
    pub(super) const fn leaves(&self) -> u64 {
        self.leaves
    }

    pub(super) fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.leaves.trailing_ones() {
            if let Some(left) = self.full.pop() {
                hash = node(left, hash);
            }
        }
        self.full.push(hash);
        self.leaves += 1;
    }

    pub(super) fn root(&self) -> Hash {
        let mut from_the_end = self.full.iter().rev().copied();
        let last = from_the_end.next().unwrap_or_else(|| Hash::of(&[]));
        from_the_end.fold(last, |right, left| node(left, right))
    }
}

fn root_of(leaves: &[Hash]) -> Hash {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

/// What has to be hashed with the leaf at `index` to get the root, from the leaf upwards. Empty also
/// where there is no such leaf.
pub(super) fn path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    let (mut rest, mut index) = (leaves, index);
    let mut path = Vec::new();
    // From the root downwards: the left side is the largest full tree that leaves something over.
    while rest.len() > 1 && index < rest.len() {
        let (left, right) = rest.split_at(rest.len().next_power_of_two() / 2);
        if index < left.len() {
            path.push(root_of(right));
            rest = left;
        } else {
            path.push(root_of(left));
            index -= left.len();
            rest = right;
        }
    }
    path.reverse();
    path
}

/// The root that follows from a leaf, its place among `leaves`, and its path (RFC 9162, 2.1.3.2).
/// `None` when the path is not one of such a tree.
pub(super) fn root_from(leaf: Hash, index: u64, leaves: u64, path: &[Hash]) -> Option<Hash> {
    if index >= leaves {
        return None;
    }
    let (mut at, mut last) = (index, leaves - 1);
    let mut hash = leaf;
    for beside in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            hash = node(*beside, hash);
            // Levels at which this node has nothing beside it.
            while at % 2 == 0 && at != 0 {
                at /= 2;
                last /= 2;
            }
        } else {
            hash = node(hash, *beside);
        }
        at /= 2;
        last /= 2;
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The leaves and roots that certificate transparency's own implementations are tested with.
    const LEAVES: [&[u8]; 8] = [
        &[],
        &[0],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[
            0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f,
        ],
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    /// Of the tree with these many leaves, for the leaf at this index.
    const PATHS: [(usize, usize, &[&str]); 2] = [
        (
            8,
            0,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            3,
            2,
            &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
        ),
    ];

    #[test]
    fn roots_and_paths_are_those_of_rfc_6962() {
        let leaves: Vec<Hash> = LEAVES.iter().map(|it| leaf(it)).collect();
        let mut tree = Tree::default();
        for (count, root) in ROOTS.iter().enumerate() {
            assert_eq!(tree.root().to_string(), *root, "{count} leaves");
            assert_eq!(tree.leaves(), count as u64);
            leaves.get(count).into_iter().for_each(|leaf| tree.push(*leaf));
        }
        for (count, index, expected) in PATHS {
            let path = path(&leaves[..count], index);
            let shown: Vec<String> = path.iter().map(Hash::to_string).collect();
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proved_and_at_no_other_place() {
        let leaves: Vec<Hash> = (0..40_u8).map(|it| leaf(&[it])).collect();
        for count in 1..=leaves.len() {
            let root = root_of(&leaves[..count]);
            for index in 0..count {
                let path = path(&leaves[..count], index);
                for other in 0..count {
                    let proved = root_from(leaves[index], other as u64, count as u64, &path) == Some(root);
                    assert_eq!(proved, index == other, "{index} of {count} at {other}");
                }
            }
        }
        assert_eq!(root_from(leaves[0], 0, 0, &[]), None);
    }

    proptest! {
        #[test]
        fn nothing_else_is_proved(
            count in 1_usize..200,
            pick: prop::sample::Index,
            bit: prop::sample::Index,
            what in 0..4,
        ) {
            let leaves: Vec<Hash> = (0..count).map(|it| leaf(&it.to_be_bytes())).collect();
            let root = root_of(&leaves);
            let index = pick.index(count);
            let mut path = path(&leaves, index);
            prop_assert_eq!(root_from(leaves[index], index as u64, count as u64, &path), Some(root));
            let mut proved = leaves[index];
            match what {
                0 => proved = flip(proved, bit.index(256)),
                1 if !path.is_empty() => {
                    let at = bit.index(path.len());
                    path[at] = flip(path[at], bit.index(256));
                }
                2 => { path.pop(); proved = flip(proved, 0); }
                _ => path.push(root),
            }
            prop_assert_ne!(root_from(proved, index as u64, count as u64, &path), Some(root));
        }
    }

    fn flip(hash: Hash, bit: usize) -> Hash {
        let mut bytes = hash.bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Hash::from_bytes(bytes)
    }
}
