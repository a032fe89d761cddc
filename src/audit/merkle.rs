//! Merkle tree hashing of RFC 6962 (and 9162): what a lane's head commits to, how a record is proved to
//! be in it, and how records are appended in constant memory. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Domain separation of leaves.
const LEAF_PREFIX: u8 = 0x00;
/// Domain separation of inner nodes.
const NODE_PREFIX: u8 = 0x01;

/// The hash of one leaf.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([LEAF_PREFIX]).chain_update(bytes).finalize().into()
}

/// The hash of the node above two others.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([NODE_PREFIX]).chain_update(left).chain_update(right).finalize().into()
}

/// The hash of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest(b"").into()
}

/// A tree that only grows: the roots of its complete subtrees, largest first. At most 64 hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, largest first: with the size, all there is to go on from.
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// The tree with these parts; `None` where a tree of `size` has another number of nodes.
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == nodes.len()).then_some(Self { size, nodes })
    }

    /// The nodes in base64, as they are stored.
    pub fn node_texts(&self) -> impl Iterator<Item = String> {
        self.nodes.iter().map(|node| BASE64.encode(node))
    }

    /// The tree with nodes in base64; `None` where these are none, or not those of a tree of that size.
    pub fn from_texts<'t>(size: u64, texts: impl Iterator<Item = &'t str>) -> Option<Self> {
        let node = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        Self::from_parts(size, texts.map(node).collect::<Option<Vec<Hash>>>()?)
    }

    /// Appends a leaf by its hash. Amortised, one node is hashed per leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        let mut carry = self.size;
        while carry & 1 == 1 {
            let Some(left) = self.nodes.pop() else {
                break;
            };
            node = node_hash(&left, &node);
            carry >>= 1;
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else {
            return empty_root();
        };
        nodes.fold(*last, |right, left| node_hash(left, &right))
    }

    /// Becomes a copy of `other`, in place.
    pub fn copy_from(&mut self, other: &Self) {
        self.size = other.size;
        self.nodes.clone_from(&other.nodes);
    }
}

/// The root of a tree over these leaves' hashes.
pub fn root_of(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    let mut tree = Frontier::default();
    for leaf in leaves {
        tree.push(leaf);
    }
    tree.root()
}

/// Collects the proof that leaf `index` (from 0) is in the tree of the first `size` leaves, from those
/// leaves' hashes in order, in memory for one hash per level.
#[derive(Debug)]
pub struct ProofBuilder {
    /// The subtrees whose roots make the proof, from the leaf upwards: first leaf, one past the last.
    ranges: Vec<(u64, u64)>,
    subtrees: Vec<Frontier>,
    next: u64,
}

impl ProofBuilder {
    /// `None` where `index` is not in a tree of `size`.
    pub fn new(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let mut ranges = Vec::new();
        let (mut start, mut end) = (0, size);
        // From the root down: at each level the other half belongs to the proof.
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                ranges.push((middle, end));
                end = middle;
            } else {
                ranges.push((start, middle));
                start = middle;
            }
        }
        ranges.reverse();
        let subtrees = vec![Frontier::default(); ranges.len()];
        Some(Self { ranges, subtrees, next: 0 })
    }

    /// Begins behind a tree that is known, instead of with its leaves. `false`, and nothing is changed, where that holds the leaf
    /// to be proved, or leaves were pushed before.
    pub fn begin_behind(&mut self, before: &Frontier, index: u64) -> bool {
        if before.size() > index || self.next > 0 {
            return false;
        }
        let mut start = 0;
        for node in before.nodes() {
            // Largest first: each has as many leaves as the highest bit that is left of the size says.
            let leaves = 1 << (63 - (before.size() - start).leading_zeros());
            for ((from, to), subtree) in self.ranges.iter().zip(&mut self.subtrees) {
                if (*from..*to).contains(&start) {
                    subtree.nodes.push(*node);
                    subtree.size += leaves;
                    break;
                }
            }
            start += leaves;
        }
        self.next = before.size();
        true
    }

    /// The next leaf's hash.
    pub fn push(&mut self, leaf: Hash) {
        let at = self.next;
        self.next += 1;
        for ((start, end), subtree) in self.ranges.iter().zip(&mut self.subtrees) {
            if (*start..*end).contains(&at) {
                subtree.push(leaf);
                break;
            }
        }
    }

    /// The proof, once all leaves of the tree were pushed; `None` before.
    pub fn finish(&self) -> Option<Vec<Hash>> {
        let complete = self
            .ranges
            .iter()
            .zip(&self.subtrees)
            .all(|((start, end), subtree)| subtree.size() == end - start);
        complete.then(|| self.subtrees.iter().map(Frontier::root).collect())
    }
}

/// The largest power of two below `size` (which is at least 2).
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The root that a leaf's hash and its proof lead to; `None` where the proof has not the length that
/// `index` and `size` demand.
pub fn root_from_proof(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let mut sides = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            sides.push(false);
            end = middle;
        } else {
            sides.push(true);
            start = middle;
        }
    }
    if sides.len() != proof.len() {
        return None;
    }
    let root = sides.iter().rev().zip(proof).fold(*leaf, |node, (is_right, other)| {
        if *is_right { node_hash(other, &node) } else { node_hash(&node, other) }
    });
    Some(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MTH as RFC 6962, section 2.1 defines it.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                node_hash(&by_definition(left), &by_definition(right))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn roots_are_those_of_the_standard() {
        // Test vectors of the Certificate Transparency reference implementation.
        assert_eq!(
            crate::ids::hex(&empty_root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            crate::ids::hex(&leaf_hash(b"")),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        for count in 0..70 {
            let leaves = leaves(count);
            assert_eq!(root_of(leaves.iter().copied()), by_definition(&leaves), "{count}");
        }
    }

    proptest! {
        #[test]
        fn a_proof_goes_on_behind_a_tree(size in 1u64..300, index in 0u64..300, before in 0u64..300) {
            let index = index % size;
            let leaves = leaves(size);
            let mut known = Frontier::default();
            leaves.iter().take((before % size) as usize).for_each(|leaf| known.push(*leaf));
            let mut builder = ProofBuilder::new(index, size).unwrap();
            prop_assert_eq!(builder.begin_behind(&known, index), known.size() <= index);
            if known.size() <= index {
                prop_assert!(!builder.begin_behind(&known, index) || known.size() == 0);
                leaves.iter().skip(known.size() as usize).for_each(|leaf| builder.push(*leaf));
                let proof = builder.finish().unwrap();
                let root = root_of(leaves.iter().copied());
                prop_assert_eq!(root_from_proof(&leaves[index as usize], index, size, &proof), Some(root));
            }
        }

        #[test]
        fn every_leaf_is_proved_and_no_other(size in 1u64..300, index in 0u64..300, other in 0u64..300) {
            let index = index % size;
            let leaves = leaves(size);
            let mut builder = ProofBuilder::new(index, size).unwrap();
            for leaf in &leaves {
                builder.push(*leaf);
            }
            let proof = builder.finish().unwrap();
            let root = root_of(leaves.iter().copied());
            prop_assert_eq!(root_from_proof(&leaves[index as usize], index, size, &proof), Some(root));
            if other != index {
                prop_assert_ne!(root_from_proof(&leaf_hash(&other.to_be_bytes()), index, size, &proof), Some(root));
                prop_assert_ne!(root_from_proof(&leaves[index as usize], other, size, &proof), Some(root));
            }
            let mut longer = proof;
            longer.push(root);
            prop_assert_eq!(root_from_proof(&leaves[index as usize], index, size, &longer), None);
        }
    }
}
