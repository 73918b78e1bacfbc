//! A commit: a batch of records written as one value, the header followed by the records.
//!
//! The header carries the hash of the same writer's previous header and the RFC 6962 root over the records, so changing, dropping or moving
//! a record breaks the chain from there on.

use aws_lc_rs::digest;
use bytes::Bytes;
use prost::Message;

use super::record::Record;
pub use super::writer::encoded::EncodedRecord;
use super::writer::packed::{PackedCommit, TEMPLATED, records_of};
pub use super::writer::packed::{pack, pack_into};
use mayfly_verify::seq::Millis;

/// SHA-256.
pub type Hash = [u8; 32];

/// Prefix bytes of a leaf and of a node when they are hashed (RFC 6962, section 2.1).
pub(super) const LEAF: u8 = 0;
const NODE: u8 = 1;

/// A commit's header, as persisted. Tags are frozen.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Header {
    /// The format of this commit.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// The writer: one number per replica.
    #[prost(uint32, tag = "2")]
    pub writer: u32,
    /// The writer's count of commits, from 1, increasing by one.
    #[prost(uint64, tag = "3")]
    pub number: u64,
    /// When the commit was made, milliseconds since 1970; never less than the time of this writer's previous commit, nor than the time of
    /// what it had folded.
    #[prost(uint64, tag = "4")]
    pub time: u64,
    /// SHA-256 of this writer's previous header; 32 zeros for its first commit.
    #[prost(bytes = "vec", tag = "5")]
    pub previous: Vec<u8>,
    /// RFC 6962 root over the records.
    #[prost(bytes = "vec", tag = "6")]
    pub root: Vec<u8>,
    /// Number of records.
    #[prost(uint32, tag = "7")]
    pub records: u32,
}

/// The head of a writer's chain of commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct WriterHead {
    /// The number of the writer's newest commit, 0 for none.
    pub number: u64,
    /// SHA-256 of that commit's header, zeros for none.
    pub hash: Hash,
    /// The time of that commit. One writer's times never go back; the times of several writers come in the order of the store.
    pub time: Millis,
}

impl WriterHead {
    /// The chain head before a writer's first commit.
    pub const START: WriterHead = WriterHead { number: 0, hash: [0; 32], time: Millis(0) };
}

/// A commit that was read back and is internally consistent. Whether it continues its writer's chain is decided by the fold.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The header.
    pub header: Header,
    /// SHA-256 of the header's bytes.
    pub hash: Hash,
    /// The records.
    pub records: Vec<Record>,
    /// Size of the commit in the store, bytes.
    pub size: usize,
}

/// Why bytes are not a commit, or not the next commit of their writer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCommit {
    /// Written by a newer version.
    #[error("format {0} is newer than this version of mayfly reads ({TEMPLATED})")]
    Newer(u32),
    /// The bytes are not in the form that a writer writes.
    #[error("{0}")]
    Malformed(String),
    /// The records do not match the root in the header.
    #[error("the records do not match the root in the header")]
    Root,
    /// The header does not continue its writer's chain.
    #[error("writer {writer}: commit {found} does not continue commit {expected_after}")]
    Chain {
        /// The writer.
        writer: u32,
        /// The number of the commit that was found.
        found: u64,
        /// The number of the commit that should precede it.
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

impl Commit {
    /// Decodes only the header, its SHA-256 and leaf hash, and the first record of a commit that was verified before.
    pub(super) fn glance(bytes: &Bytes) -> Result<(Header, [Hash; 2], Record), BadCommit> {
        let packed = PackedCommit::decode(bytes.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        let header = Header::decode(packed.header.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        let hashes = [sha256(&packed.header), leaf_hash(&packed.header)];
        let records = records_of(packed, header.format)?;
        let first = records.first().ok_or_else(|| BadCommit::Malformed("no records".to_owned()))?;
        let first = Record::from_bytes(first).map_err(|e| BadCommit::Malformed(e.0))?;
        Ok((header, hashes, first))
    }

    /// Reads a commit back and checks it by itself: format, counts, root, and that every record decodes.
    pub fn from_bytes(bytes: &Bytes) -> Result<Commit, BadCommit> {
        let opened = EncodedCommit::from_bytes(bytes)?;
        let records = opened.records.iter().map(|r| decoded(r)).collect::<Result<Vec<_>, _>>()?;
        Ok(Commit { hash: sha256(&opened.header_bytes), header: opened.header, records, size: bytes.len() })
    }

    /// The chain head after this commit, if the commit continues `after`.
    pub fn continues(&self, after: WriterHead) -> Result<WriterHead, BadCommit> {
        if self.header.number != after.number + 1 || self.header.previous != after.hash {
            return Err(BadCommit::Chain { writer: self.header.writer, found: self.header.number, expected_after: after.number });
        }
        Ok(WriterHead { number: self.header.number, hash: self.hash, time: Millis(self.header.time) })
    }
}

/// A verified commit with its records left encoded, as proofs need it. A record is decoded only on request.
#[derive(Debug, Clone)]
pub struct EncodedCommit {
    /// The header.
    pub header: Header,
    /// The header's bytes, as they were hashed.
    pub header_bytes: Bytes,
    /// The bytes of each record.
    pub records: Vec<Bytes>,
    /// The hash of each record as a leaf of the header's root.
    pub leaves: Vec<Hash>,
}

impl EncodedCommit {
    /// Checks format, counts and root; decodes no record.
    pub fn from_bytes(bytes: &Bytes) -> Result<EncodedCommit, BadCommit> {
        let packed = PackedCommit::decode(bytes.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        let header_bytes = packed.header.clone();
        let header = Header::decode(header_bytes.clone()).map_err(|e| BadCommit::Malformed(e.to_string()))?;
        if header.format > TEMPLATED {
            return Err(BadCommit::Newer(header.format));
        }
        if header.format == 0 || header.encoded_len() != header_bytes.len() || packed.encoded_len() != bytes.len() {
            return Err(BadCommit::Malformed("not in the form that a writer writes".into()));
        }
        let records = records_of(packed, header.format)?;
        if header.records as usize != records.len() || records.is_empty() {
            return Err(BadCommit::Malformed(format!("{} records, {} named", records.len(), header.records)));
        }
        let leaves: Vec<Hash> = records.iter().map(|r| leaf_hash(r)).collect();
        if root_hash(&leaves)[..] != header.root[..] {
            return Err(BadCommit::Root);
        }
        Ok(EncodedCommit { header, header_bytes, records, leaves })
    }

    /// The commit's leaf in the tree over all commits: the RFC 6962 leaf hash of the header's bytes.
    pub fn leaf(&self) -> Hash {
        leaf_hash(&self.header_bytes)
    }

    /// Decodes record number `at`, from 0.
    pub fn record(&self, at: usize) -> Result<Record, BadCommit> {
        let bytes = self.records.get(at).ok_or_else(|| BadCommit::Malformed(format!("no record {at}")))?;
        decoded(bytes)
    }
}

fn decoded(bytes: &[u8]) -> Result<Record, BadCommit> {
    Record::from_bytes(bytes).map_err(|e| BadCommit::Malformed(e.0))
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

/// RFC 6962, section 2.1: the hash of a node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
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
    // Level by level; an unpaired node moves up unchanged, which gives the tree of section 2.1.
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if let [l, r] = pair { node_hash(l, r) } else { pair[0] }).collect();
    }
    level[0]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::{Author, CredentialIssued, Event, Maintained};
    use super::super::writer::template::{IssuanceFields, IssuanceRequest, RecordTemplate};
    use super::*;
    use mayfly_verify::seq::CredentialId;

    fn record(n: u32) -> EncodedRecord {
        EncodedRecord::new(Record::new(Author::LocalUid(n), Event::Maintained(Maintained { what: format!("{n}") }))).unwrap()
    }

    fn packed(n: u32) -> Bytes {
        let all: Vec<EncodedRecord> = (0..n).map(record).collect();
        Bytes::from(pack(1, WriterHead::START, Millis(5), all.iter()).0)
    }

    /// RFC 6962, section 2.1, implemented literally.
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
        let head = whole.continues(WriterHead::START).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            if let Ok(commit) = Commit::from_bytes(&Bytes::from(bad)) {
                // A flipped bit in a header that still decodes changes the header's hash, so the next commit does not continue it.
                assert!(commit.continues(WriterHead::START).map(|h| h.hash) != Ok(head.hash), "bit {at}");
            }
        }
    }

    /// Issuances of two record templates, one after the other, with records of other kinds between them.
    fn templated() -> Vec<EncodedRecord> {
        let template = |upstream: &str| {
            let issued =
                CredentialIssued { upstream: upstream.into(), scopes: vec!["read".into()], ..CredentialIssued::default() };
            let record = Record::new(Author::SpiffeId("spiffe://a.example/b".into()), Event::Issued(Box::new(issued)));
            Arc::new(RecordTemplate::new(record).unwrap())
        };
        let (one, other) = (template("one"), template("other"));
        let filled = |template: &Arc<RecordTemplate>, n: u8| {
            let (name, digest) = (format!("r{n}"), [n; 32]);
            let request = IssuanceRequest::new("spiffe://a.example/b", &name, &digest);
            let own = IssuanceFields {
                credential: CredentialId::from_bytes([n; 16]),
                request: n.is_multiple_of(2).then_some(request),
                trace: &[],
                tool: if n == 1 { "" } else { "tool" },
                purpose: "why",
                arguments: None,
                status: (1, u32::from(n)),
                token_digest: &[n; 32],
            };
            EncodedRecord::from_template(template, &own, &mut bytes::BytesMut::new()).unwrap()
        };
        vec![record(1), filled(&one, 1), filled(&other, 2), filled(&one, 3), record(2), filled(&other, 4)]
    }

    #[test]
    fn what_shares_a_template_reads_back_whole_and_every_flipped_bit_is_refused_or_breaks_the_chain() {
        let all = templated();
        let plain: Vec<EncodedRecord> = all.iter().map(|e| EncodedRecord::new((*e.whole().unwrap()).clone()).unwrap()).collect();
        let (bytes, head) = pack(1, WriterHead::START, Millis(5), all.iter());
        let (longer, _) = pack(1, WriterHead::START, Millis(5), plain.iter());
        assert!(bytes.len() < longer.len(), "{} of {}", bytes.len(), longer.len());
        let (bytes, longer) = (Bytes::from(bytes), Bytes::from(longer));
        let (short, long) = (Commit::from_bytes(&bytes).unwrap(), Commit::from_bytes(&longer).unwrap());
        assert_eq!((short.header.format, long.header.format), (2, 1));
        // Both formats give the same records and the same root.
        assert_eq!((&short.records, &short.header.root), (&long.records, &long.header.root));
        assert_eq!(short.continues(WriterHead::START).unwrap(), head);
        for (encoded, record) in all.iter().zip(&short.records) {
            assert_eq!(encoded.bytes().len(), encoded.length());
            assert_eq!(*encoded.whole().unwrap(), *record);
        }
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            if let Ok(commit) = Commit::from_bytes(&Bytes::from(bad)) {
                assert!(commit.continues(WriterHead::START).map(|h| h.hash) != Ok(head.hash), "bit {at}");
            }
        }
    }

    #[test]
    fn a_commit_does_not_grow_beyond_its_bound_when_it_is_read() {
        let (bytes, _) = pack(1, WriterHead::START, Millis(5), templated().iter());
        let packed = PackedCommit::decode(&bytes[..]).unwrap();
        let mut large = packed.clone();
        large.templates[0].pieces[4] = vec![0; 400_000].into();
        let of_it = large.entries.iter().find(|e| e.template == 1).unwrap().clone();
        large.entries = vec![of_it; 30];
        let refused = Commit::from_bytes(&large.encode_to_vec().into()).unwrap_err().to_string();
        assert_eq!(refused, "more records than a commit holds");
        for (change, why) in [
            ((|p| p.templates[0].pieces.truncate(4)) as fn(&mut PackedCommit), "a template of another number of pieces"),
            (|p| p.entries[1].own.truncate(3), "a record of another number of pieces"),
            (|p| p.entries[1].template = 9, "a record of a template that is not there"),
            (|p| p.entries[1].whole = vec![1].into(), "a record that is whole and of a template"),
            (|p| p.entries[0].own.push(Bytes::new()), "a whole record with pieces"),
            (|p| p.records.push(vec![1].into()), "records of format 1 in a commit of format 2"),
        ] {
            let mut bad = packed.clone();
            change(&mut bad);
            assert_eq!(Commit::from_bytes(&bad.encode_to_vec().into()).unwrap_err().to_string(), why);
        }
        let mut plain = PackedCommit::decode(self::packed(1)).unwrap();
        plain.templates = packed.templates;
        let refused = Commit::from_bytes(&plain.encode_to_vec().into()).unwrap_err().to_string();
        assert_eq!(refused, "templates in a commit of format 1");
    }

    #[test]
    fn a_dropped_or_swapped_record_is_refused() {
        let packed = PackedCommit::decode(packed(3)).unwrap();
        let mut dropped = packed.clone();
        dropped.records.pop();
        assert!(Commit::from_bytes(&Bytes::from(dropped.encode_to_vec())).is_err());
        let mut swapped = packed;
        swapped.records.swap(0, 1);
        assert_eq!(Commit::from_bytes(&Bytes::from(swapped.encode_to_vec())).err(), Some(BadCommit::Root));
    }

    #[test]
    fn an_unknown_field_or_event_is_refused_not_dropped() {
        let mut bytes = record(1).bytes().to_vec();
        bytes.extend_from_slice(&[0xfa, 0x7f, 0x00]);
        assert!(Record::from_bytes(&bytes).is_err());
        let only_author = Record { event: None, ..(**record(1).record()).clone() };
        assert!(Record::from_bytes(&only_author.encode_to_vec()).is_err());
    }
}
