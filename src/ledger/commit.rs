//! A batch of records written as one value: header, then records.
//!
//! The header carries the hash of its writer's header before it and the RFC 6962 root over the records, so that changing, dropping or
//! moving a record breaks the chain from there on.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::{Buf, Bytes};
use prost::Message;

use super::record::Record;
use super::state::{RequestKey, key_of};
use crate::limits;
use crate::seq::Millis;

/// SHA-256.
pub type Hash = [u8; 32];

/// What stands before a leaf and before a node when they are hashed (RFC 6962, section 2.1).
const LEAF: u8 = 0;
const NODE: u8 = 1;

/// The format of commits that this version writes. A higher one stops the start.
const FORMAT: u32 = 1;

/// A commit's header, as persisted. Tags are frozen.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Header {
    /// The format of this commit.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// Who wrote it: one number per replica.
    #[prost(uint32, tag = "2")]
    pub writer: u32,
    /// The writer's count of commits, from 1, one more each time.
    #[prost(uint64, tag = "3")]
    pub number: u64,
    /// When it was made, milliseconds since 1970; never less than the commit before of this writer, nor than what it had folded.
    #[prost(uint64, tag = "4")]
    pub time: u64,
    /// SHA-256 of this writer's header before, 32 zeros for its first.
    #[prost(bytes = "vec", tag = "5")]
    pub previous: Vec<u8>,
    /// RFC 6962 root over the records.
    #[prost(bytes = "vec", tag = "6")]
    pub root: Vec<u8>,
    /// How many records.
    #[prost(uint32, tag = "7")]
    pub records: u32,
}

/// A commit as it stands in the store. Tags are frozen.
#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(bytes = "bytes", tag = "1")]
    header: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    records: Vec<Bytes>,
}

/// A record with its persisted bytes and their leaf hash, made once by whoever proposes it.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The record. Large, and handed from thread to thread: shared, never copied.
    pub record: Arc<Record>,
    /// Its bytes.
    pub bytes: Bytes,
    /// Its leaf in the commit's tree.
    pub leaf: Hash,
    /// The name of its request.
    pub request: Option<RequestKey>,
}

impl Encoded {
    /// Encodes and hashes; `None` for a record above `limits::RECORD_BYTES`.
    pub fn new(record: Record) -> Option<Encoded> {
        // A leaf is hashed with a zero before it (RFC 6962, section 2.1): written there, it is one pass over one buffer.
        let mut bytes = Vec::with_capacity(1 + record.encoded_len());
        bytes.push(LEAF);
        record.encode_raw(&mut bytes);
        let mut bytes = Bytes::from(bytes);
        if bytes.len() - 1 > limits::RECORD_BYTES {
            return None;
        }
        let leaf = sha256(&bytes);
        bytes.advance(1);
        Some(Encoded { request: key_of(&record), record: Arc::new(record), bytes, leaf })
    }
}

/// Where a writer's chain stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ChainHead {
    /// The number of its newest commit, 0 for none.
    pub number: u64,
    /// SHA-256 of that commit's header, zeros for none.
    pub hash: Hash,
    /// Its time. A writer's own times never go back; those of several writers come as the store orders them.
    pub time: Millis,
}

impl ChainHead {
    /// Before a writer's first commit.
    pub const START: ChainHead = ChainHead { number: 0, hash: [0; 32], time: Millis(0) };
}

/// A commit read back and found whole in itself. Whether it continues its writer's chain is the fold's to say.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its header.
    pub header: Header,
    /// SHA-256 of the header's bytes.
    pub hash: Hash,
    /// Its records.
    pub records: Vec<Record>,
    /// Its bytes in the store.
    pub size: usize,
}

/// Why bytes are no commit, or not the next one of their writer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCommit {
    /// Written by a newer version.
    #[error("format {0} is newer than this version of mayfly reads ({FORMAT})")]
    Newer(u32),
    /// Not what a writer writes.
    #[error("{0}")]
    Malformed(String),
    /// The records are not those that the header names.
    #[error("the records do not match the root in the header")]
    Root,
    /// The header does not continue its writer's chain.
    #[error("writer {writer}: commit {found} does not continue commit {expected_after}")]
    Chain {
        /// The writer.
        writer: u32,
        /// The number found.
        found: u64,
        /// The number that it should follow.
        expected_after: u64,
    },
    /// A writer's time went backwards within a generation.
    #[error("time goes back from {from} to {to}")]
    TimeBack {
        /// The time of the commit before.
        from: Millis,
        /// This commit's time.
        to: Millis,
    },
}

/// Packs records into the next commit of a writer's chain: its bytes, and the chain's head after it.
pub fn pack(writer: u32, after: ChainHead, time: Millis, leaves: &[Hash], records: Vec<Bytes>) -> (Vec<u8>, ChainHead) {
    let header = Header {
        format: FORMAT,
        writer,
        number: after.number + 1,
        time: time.0,
        previous: after.hash.to_vec(),
        root: root_hash(leaves).to_vec(),
        records: u32::try_from(records.len()).unwrap_or(u32::MAX),
    };
    let header = Bytes::from(header.encode_to_vec());
    let head = ChainHead { number: after.number + 1, hash: sha256(&header), time };
    (Packed { header, records }.encode_to_vec(), head)
}

impl Commit {
    /// The header, its SHA-256 and the first record alone, of a commit that was found whole before.
    pub(super) fn glance(bytes: &Bytes) -> Result<(Header, Hash, Record), BadCommit> {
        let packed = Packed::decode(bytes.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        let header = Header::decode(packed.header.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        let first = packed.records.first().ok_or_else(|| BadCommit::Malformed("no records".to_owned()))?;
        let first = Record::from_bytes(first).map_err(|e| BadCommit::Malformed(e.0))?;
        Ok((header, sha256(&packed.header), first))
    }

    /// Reads a commit back and checks it in itself: format, counts, root, every record known.
    pub fn from_bytes(bytes: &Bytes) -> Result<Commit, BadCommit> {
        let packed = Packed::decode(bytes.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        let header = Header::decode(packed.header.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        if header.format > FORMAT {
            return Err(BadCommit::Newer(header.format));
        }
        if header.format == 0 || header.encoded_len() != packed.header.len() || packed.encoded_len() != bytes.len() {
            return Err(BadCommit::Malformed("not in the form that a writer writes".into()));
        }
        if header.records as usize != packed.records.len() || packed.records.is_empty() {
            return Err(BadCommit::Malformed(format!("{} records, {} named", packed.records.len(), header.records)));
        }
        let leaves: Vec<Hash> = packed.records.iter().map(|r| leaf_hash(r)).collect();
        if root_hash(&leaves)[..] != header.root[..] {
            return Err(BadCommit::Root);
        }
        let records = packed
            .records
            .iter()
            .map(|r| Record::from_bytes(r).map_err(|e| BadCommit::Malformed(e.0)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Commit { hash: sha256(&packed.header), header, records, size: bytes.len() })
    }

    /// The chain's head after this commit, if it continues `after`.
    pub fn continues(&self, after: ChainHead) -> Result<ChainHead, BadCommit> {
        if self.header.number != after.number + 1 || self.header.previous != after.hash {
            return Err(BadCommit::Chain { writer: self.header.writer, found: self.header.number, expected_after: after.number });
        }
        Ok(ChainHead { number: self.header.number, hash: self.hash, time: Millis(self.header.time) })
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// RFC 6962, section 2.1: the hash of a leaf.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    let mut ctx = digest::Context::new(&digest::SHA256);
    ctx.update(&[LEAF]);
    ctx.update(bytes);
    let mut out = [0; 32];
    out.copy_from_slice(ctx.finish().as_ref());
    out
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut node = [NODE; 65];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    sha256(&node)
}

/// RFC 6962, section 2.1: the root over leaves; the hash of nothing for none.
pub fn root_hash(leaves: &[Hash]) -> Hash {
    if leaves.is_empty() {
        return sha256(&[]);
    }
    // Level by level; an odd one out moves up unchanged, which is the tree of section 2.1.
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if let [l, r] = pair { node_hash(l, r) } else { pair[0] }).collect();
    }
    level[0]
}

#[cfg(test)]
mod tests {
    use super::super::record::{Event, Maintained, Who};
    use super::*;

    fn record(n: u32) -> Encoded {
        Encoded::new(Record::new(Who::LocalUid(n), Event::Maintained(Maintained { what: format!("{n}") }))).unwrap()
    }

    fn packed(n: u32) -> Bytes {
        let all: Vec<Encoded> = (0..n).map(record).collect();
        let leaves: Vec<Hash> = all.iter().map(|e| e.leaf).collect();
        Bytes::from(pack(1, ChainHead::START, Millis(5), &leaves, all.into_iter().map(|e| e.bytes).collect()).0)
    }

    /// RFC 6962, section 2.1, written as it stands there.
    fn by_definition(d: &[Hash]) -> Hash {
        match d.len() {
            0 => sha256(&[]),
            1 => d[0],
            n => {
                let k = 1 << (usize::BITS - 1 - (n - 1).leading_zeros());
                node_hash(&by_definition(&d[..k]), &by_definition(&d[k..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_section_2_1() {
        let leaves: Vec<Hash> = (0..70u8).map(|n| leaf_hash(&[n])).collect();
        for n in 0..leaves.len() {
            assert_eq!(root_hash(&leaves[..n]), by_definition(&leaves[..n]), "{n} leaves");
        }
        // The root of one empty leaf, from the Certificate Transparency test vectors.
        assert_eq!(
            data_encoding::HEXLOWER.encode(&root_hash(&[leaf_hash(b"")])),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }

    #[test]
    fn a_commit_reads_back_and_every_flipped_bit_is_refused_or_breaks_the_chain() {
        let bytes = packed(3);
        let whole = Commit::from_bytes(&bytes).unwrap();
        assert_eq!(whole.records.len(), 3);
        let head = whole.continues(ChainHead::START).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            if let Ok(commit) = Commit::from_bytes(&Bytes::from(bad)) {
                // A flip in the header that leaves it readable changes its hash, so the next commit does not continue it.
                assert!(commit.continues(ChainHead::START).map(|h| h.hash) != Ok(head.hash), "bit {at}");
            }
        }
    }

    #[test]
    fn a_dropped_or_swapped_record_is_refused() {
        let packed = Packed::decode(packed(3)).unwrap();
        let mut dropped = packed.clone();
        dropped.records.pop();
        assert!(Commit::from_bytes(&Bytes::from(dropped.encode_to_vec())).is_err());
        let mut swapped = packed;
        swapped.records.swap(0, 1);
        assert_eq!(Commit::from_bytes(&Bytes::from(swapped.encode_to_vec())).err(), Some(BadCommit::Root));
    }

    #[test]
    fn an_unknown_field_or_event_is_refused_not_dropped() {
        let mut bytes = record(1).bytes.to_vec();
        bytes.extend_from_slice(&[0xfa, 0x7f, 0x00]);
        assert!(Record::from_bytes(&bytes).is_err());
        let only_author = Record { event: None, ..(*record(1).record).clone() };
        assert!(Record::from_bytes(&only_author.encode_to_vec()).is_err());
    }
}
