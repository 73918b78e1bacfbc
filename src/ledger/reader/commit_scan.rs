//! Scans a commit's bytes without decoding every record, for consumers that derive data from the history: fields that many records share
//! are read once.
//!
//! Nothing is verified here beyond that the bytes can be read: the commit was verified when it was written, and is verified again at each
//! start.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::Ledger;
use crate::commit::{BadCommit, Hash, Header, leaf_hash};
use crate::reader::log_reader::LogCursor;
use crate::reader::search::before_of;
use crate::record::{IssuanceNames, Record, RecordName, issuance_names, names};
use crate::state::seq_after;
use crate::writer::packed::{ENTRY, ENTRY_OWN, ENTRY_TEMPLATE, ENTRY_WHOLE, HEADER, PIECE, RECORD, TEMPLATE};
use crate::writer::template::{OWN_PIECES, PIECES, join};
use mayfly_base::refusal::Fault;
use mayfly_proto::protobuf::Fields;
use mayfly_store::Position;
use mayfly_verify::seq::Seq;

/// One scanned commit with its position.
#[derive(Debug)]
pub struct ScannedCommit {
    /// The commit's position.
    pub position: Position,
    /// The seq of the last record before the commit.
    pub before: Seq,
    /// The seq of the commit's last record.
    pub last: Seq,
    /// The header.
    pub header: Header,
    /// The commit's leaf in the tree over all commits.
    pub leaf: Hash,
    /// Approximate length of the commit's records, bytes.
    pub bytes: usize,
    packed: Bytes,
}

impl ScannedCommit {
    /// Scans the bytes of a commit, given the seq of the last record before it.
    pub fn of(position: Position, before: Seq, bytes: &Bytes) -> Result<ScannedCommit, BadCommit> {
        ScannedCommit::made(position, bytes, |header, first| {
            let first = seq_after(before, first);
            let last = Seq::from_u64(first.as_u64() + u64::from(header.records).saturating_sub(1)).unwrap_or(first);
            (before, last)
        })
    }

    /// Scans the bytes of a commit, given the seq of its last record.
    pub fn ending(position: Position, last: Seq, bytes: &Bytes) -> Result<ScannedCommit, BadCommit> {
        ScannedCommit::made(position, bytes, |header, first| (before_of(first, u64::from(header.records), last), last))
    }

    /// The commit's bytes.
    pub fn packed(&self) -> &Bytes {
        &self.packed
    }

    fn made(
        position: Position,
        bytes: &Bytes,
        seqs: impl FnOnce(&Header, &Record) -> (Seq, Seq),
    ) -> Result<ScannedCommit, BadCommit> {
        let (mut header_bytes, mut templates, mut first) = (&[][..], Vec::new(), None);
        each(bytes, |tag, value| {
            match (tag, value) {
                (HEADER, Value::Bytes(header)) => header_bytes = header,
                (TEMPLATE, Value::Bytes(template)) => templates.push(pieces(template, PIECE)?),
                (RECORD, Value::Bytes(record)) if first.is_none() => first = Some(decoded(record)?),
                (ENTRY, Value::Bytes(entry)) if first.is_none() => {
                    first = Some(decoded(&whole(&templates, &Entry::of(entry)?)?)?)
                }
                _ => {}
            }
            Ok(())
        })?;
        let header = Header::decode(header_bytes).map_err(|e| malformed(&e.to_string()))?;
        let (before, last) = seqs(&header, &first.ok_or_else(|| malformed("no records"))?);
        let (leaf, length) = (leaf_hash(header_bytes), bytes.len() - header_bytes.len());
        Ok(ScannedCommit { position, before, last, header, leaf, bytes: length, packed: bytes.clone() })
    }

    /// Whether any record of the commit is wanted. Issuances of one template are tested once, so `wanted` must not look at fields that are
    /// one issuance's own ([`crate::writer::template::IssuanceFields`]).
    pub fn any(&self, wanted: impl Fn(&Record) -> bool) -> Result<bool, BadCommit> {
        let (mut templates, mut seen, mut found) = (Vec::new(), Vec::new(), false);
        each(&self.packed, |tag, value| {
            match (tag, value) {
                _ if found => {}
                (TEMPLATE, Value::Bytes(template)) => {
                    templates.push(pieces(template, PIECE)?);
                    seen.push(false);
                }
                (RECORD, Value::Bytes(record)) => found = wanted(&decoded(record)?),
                (ENTRY, Value::Bytes(entry)) => {
                    let entry = Entry::of(entry)?;
                    let seen = entry.template.checked_sub(1).and_then(|at| seen.get_mut(at));
                    if !seen.is_some_and(|seen| std::mem::replace(seen, true)) {
                        found = wanted(&decoded(&whole(&templates, &entry)?)?);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `see` with every name in the commit's records; a name may come more than once.
    pub fn names(&self, see: &mut dyn FnMut(RecordName<'_>)) -> Result<(), BadCommit> {
        let (mut templates, mut seen) = (Vec::new(), Vec::new());
        let all = |record: &[u8], see: &mut dyn FnMut(RecordName<'_>)| {
            names(&decoded(record)?, &mut |sort, name| see(RecordName::Text(sort, name)));
            Ok(())
        };
        each(&self.packed, |tag, value| match (tag, value) {
            (TEMPLATE, Value::Bytes(template)) => {
                templates.push(pieces(template, PIECE)?);
                seen.push(false);
                Ok(())
            }
            (RECORD, Value::Bytes(record)) => all(record, see),
            (ENTRY, Value::Bytes(entry)) => {
                let entry = Entry::of(entry)?;
                let seen = entry.template.checked_sub(1).and_then(|at| seen.get_mut(at));
                match (own(&entry), seen) {
                    (Some(own), Some(true)) => issuance_names(&own, see),
                    (_, seen) => {
                        all(&whole(&templates, &entry)?, see)?;
                        if let Some(seen) = seen {
                            *seen = true;
                        }
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        })
    }
}

fn malformed(what: &str) -> BadCommit {
    BadCommit::Malformed(what.to_owned())
}

fn decoded(bytes: &[u8]) -> Result<Record, BadCommit> {
    Record::decode(bytes).map_err(|e| malformed(&e.to_string()))
}

enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// Calls `see` with each field of a message, in order. A commit contains no other wire types than these.
fn each<'a>(mut message: &'a [u8], mut see: impl FnMut(u32, Value<'a>) -> Result<(), BadCommit>) -> Result<(), BadCommit> {
    let bad = |e: prost::DecodeError| malformed(&e.to_string());
    while !message.is_empty() {
        let (tag, wire) = decode_key(&mut message).map_err(bad)?;
        let number = decode_varint(&mut message).map_err(bad)?;
        let value = match wire {
            WireType::Varint => Value::Number(number),
            WireType::LengthDelimited => {
                let parts = usize::try_from(number).ok().and_then(|length| message.split_at_checked(length));
                let (value, rest) = parts.ok_or_else(|| malformed("cut off"))?;
                message = rest;
                Value::Bytes(value)
            }
            _ => return Err(malformed("a field of a type that no commit has")),
        };
        see(tag, value)?;
    }
    Ok(())
}

/// The pieces of a record template.
fn pieces(message: &[u8], piece: u32) -> Result<[&[u8]; PIECES], BadCommit> {
    let mut all = PiecesOf::default();
    each(message, |tag, value| match value {
        Value::Bytes(bytes) if tag == piece => all.push(bytes),
        _ => Ok(()),
    })?;
    all.whole()
}

/// Collects exactly `N` pieces.
struct PiecesOf<'a, const N: usize> {
    all: [&'a [u8]; N],
    count: usize,
}

impl<const N: usize> Default for PiecesOf<'_, N> {
    fn default() -> Self {
        PiecesOf { all: [&[]; N], count: 0 }
    }
}

impl<'a, const N: usize> PiecesOf<'a, N> {
    fn push(&mut self, piece: &'a [u8]) -> Result<(), BadCommit> {
        *self.all.get_mut(self.count).ok_or_else(|| malformed("too many pieces"))? = piece;
        self.count += 1;
        Ok(())
    }

    fn whole(self) -> Result<[&'a [u8]; N], BadCommit> {
        if self.count == N { Ok(self.all) } else { Err(malformed("too few pieces")) }
    }
}

/// A record in a commit of format 2, as it is stored.
struct Entry<'a> {
    whole: &'a [u8],
    /// The number of the record's template, from 1.
    template: usize,
    own: PiecesOf<'a, OWN_PIECES>,
}

impl<'a> Entry<'a> {
    fn of(message: &'a [u8]) -> Result<Entry<'a>, BadCommit> {
        let mut entry = Entry { whole: &[], template: 0, own: PiecesOf::default() };
        each(message, |tag, value| {
            match (tag, value) {
                (ENTRY_WHOLE, Value::Bytes(whole)) => entry.whole = whole,
                (ENTRY_TEMPLATE, Value::Number(template)) => entry.template = usize::try_from(template).unwrap_or(usize::MAX),
                (ENTRY_OWN, Value::Bytes(piece)) => entry.own.push(piece)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(entry)
    }
}

/// The complete bytes of one record.
fn whole<'a>(templates: &[[&'a [u8]; PIECES]], entry: &Entry<'a>) -> Result<Cow<'a, [u8]>, BadCommit> {
    let Some(at) = entry.template.checked_sub(1) else { return Ok(entry.whole.into()) };
    let template = templates.get(at).ok_or_else(|| malformed("a record of a template that is not there"))?;
    if entry.own.count != OWN_PIECES {
        return Err(malformed("a record of another number of pieces"));
    }
    let mut bytes = Vec::new();
    join(template, &entry.own.all, &mut bytes);
    Ok(bytes.into())
}

/// The names that one issuance has in addition to its template's; `None` when the bytes are not in the form that a writer writes.
fn own<'a>(entry: &Entry<'a>) -> Option<IssuanceNames<'a>> {
    // The keys of field 20 of `Record` and of field 32 of `CredentialIssued` with its length, as prost encodes them.
    const ISSUED: [u8; 2] = [0xa2, 0x01];
    const TOKEN_DIGEST: [u8; 3] = [0x82, 0x02, 32];
    let PiecesOf { all: [first, second, _, fourth], count: OWN_PIECES } = entry.own else { return None };
    let mut fields = Fields::of(first);
    let mut request = Fields::of(fields.delimited(3)?);
    let request_id = request.text(2)?;
    let trace = fields.delimited(5)?;
    let issued = fields.rest().strip_prefix(&ISSUED)?;
    let length = issued.iter().position(|byte| *byte < 0x80)?;
    let credential = Fields::of(issued.get(length + 1..)?).delimited(1)?;
    let mut fields = Fields::of(second);
    let (tool, _, arguments) = (fields.text(10)?, fields.delimited(11)?, fields.delimited(12)?);
    let token_digest = if fourth.is_empty() { &[][..] } else { fourth.strip_prefix(&TOKEN_DIGEST)? };
    Some(IssuanceNames { credential, request_id, trace, tool, arguments, token_digest })
}

impl Ledger {
    /// As [`Ledger::steps`], with scanned commits.
    pub(crate) fn scan_commits(&self, from: LogCursor, bytes: usize) -> Result<Option<Vec<ScannedCommit>>, Fault> {
        self.each_of(from, bytes, |position, before, bytes| {
            let scanned = ScannedCommit::of(position, before, bytes)?;
            Ok((scanned.last, scanned))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::commit::{EncodedCommit, EncodedRecord, WriterHead, pack};
    use crate::record::{Author, CredentialIssued, Event, KeyChanged, NameKind};
    use crate::writer::template::{IssuanceFields, IssuanceRequest, RecordTemplate};
    use mayfly_verify::seq::{CredentialId, Millis};

    type Seen = BTreeSet<(String, String)>;

    fn filled(template: &Arc<RecordTemplate>, n: u8) -> EncodedRecord {
        let (name, digest) = (format!("request-{n}"), [n; 32]);
        let own = IssuanceFields {
            credential: CredentialId::from_bytes([n; 16]),
            request: n.is_multiple_of(2).then(|| IssuanceRequest::new("spiffe://a.example/b", &name, &digest)),
            trace: if n.is_multiple_of(11) { &digest[..16] } else { &[] },
            tool: if n.is_multiple_of(3) { "" } else { "search" },
            purpose: if n.is_multiple_of(5) { "" } else { "why" },
            arguments: (!n.is_multiple_of(7)).then_some(&digest),
            status: (u64::from(n) * 100, u32::from(n)),
            token_digest: &[0x40 ^ n; 32],
        };
        EncodedRecord::from_template(template, &own, &mut bytes::BytesMut::new()).unwrap()
    }

    fn template(upstream: &str) -> Arc<RecordTemplate> {
        let issued = CredentialIssued {
            upstream: upstream.into(),
            task: vec![9; 16],
            scopes: vec!["read".into()],
            policies: vec!["some-policy".into()],
            ..CredentialIssued::default()
        };
        let record = Record::new(Author::SpiffeId("spiffe://a.example/b".into()), Event::Issued(Box::new(issued)));
        Arc::new(RecordTemplate::new(record).unwrap())
    }

    fn seen(show: impl FnOnce(&mut dyn FnMut(NameKind, &str))) -> Seen {
        let mut all = Seen::new();
        show(&mut |sort, name| {
            all.insert((format!("{sort:?}"), name.to_owned()));
        });
        all
    }

    #[test]
    fn it_names_what_the_whole_records_name() {
        let (one, other) = (template("mail"), template("git"));
        let key = |n: u32| {
            let event = Event::KeyChanged(KeyChanged { key: format!("key-{n}"), ..Default::default() });
            EncodedRecord::new(Record::new(Author::LocalUid(n), event)).unwrap()
        };
        let templated = |n: u8| filled(if n.is_multiple_of(4) { &one } else { &other }, n);
        let mut all = vec![key(1), key(2)];
        all.extend((1..80).map(templated));
        all.push(key(3));
        for records in [&all[..2], &all[2..], &all[..], &all[5..6], &all[81..]] {
            let bytes = Bytes::from(pack(1, WriterHead::START, Millis(5), records.iter()).0);
            let before = Seq::start_of(1);
            let scanned = ScannedCommit::of(7, before, &bytes).unwrap();
            let opened = EncodedCommit::from_bytes(&bytes).unwrap();
            let whole = seen(|see| (0..opened.records.len()).for_each(|n| names(&opened.record(n).unwrap(), see)));
            let shown = seen(|see| {
                let text = &mut |named: RecordName<'_>| match named {
                    RecordName::Text(sort, name) => see(sort, name),
                    RecordName::Digest(digest) => see(NameKind::Other, &data_encoding::HEXLOWER.encode(digest)),
                };
                scanned.names(text).unwrap();
            });
            assert_eq!(shown, whole);
            assert_eq!(
                (scanned.leaf, scanned.last),
                (opened.leaf(), crate::reader::log_reader::last_seq_of(&opened, before).unwrap())
            );
        }
    }

    #[test]
    fn of_issuances_that_are_alike_one_is_asked_about_and_says_what_each_would() {
        let (one, other) = (template("mail"), template("git"));
        let event = Event::KeyChanged(KeyChanged { key: "key".into(), ..Default::default() });
        let mut all = vec![EncodedRecord::new(Record::new(Author::LocalUid(1), event)).unwrap()];
        all.extend((1..80).map(|n| filled(if n % 4 == 0 { &one } else { &other }, n)));
        let of = |record: &Record, name: &str| matches!(&record.event, Some(Event::Issued(e)) if e.upstream == name);
        for records in [&all[..], &all[1..4], &all[..1]] {
            let bytes = Bytes::from(pack(1, WriterHead::START, Millis(5), records.iter()).0);
            let scanned = ScannedCommit::of(7, Seq::start_of(1), &bytes).unwrap();
            let opened = EncodedCommit::from_bytes(&bytes).unwrap();
            for name in ["mail", "git", "none"] {
                let asked = std::cell::Cell::new(0);
                let any = scanned.any(|record| {
                    asked.set(asked.get() + 1);
                    of(record, name)
                });
                let whole = (0..opened.records.len()).any(|n| of(&opened.record(n).unwrap(), name));
                assert_eq!((any.unwrap(), asked.get() <= 3), (whole, true), "{name} of {}", records.len());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_commit_are_refused() {
        let records: Vec<EncodedRecord> = (1..4).map(|n| filled(&template("mail"), n)).collect();
        let bytes = pack(1, WriterHead::START, Millis(5), records.iter()).0;
        for end in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..end]);
            // The bytes may be well-formed but hold fewer records than the header says; reading them must not panic.
            let _ = ScannedCommit::of(1, Seq::ZERO, &cut).map(|scanned| scanned.names(&mut |_| {}));
        }
        for byte in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[byte] ^= 0x55;
            let _ = ScannedCommit::of(1, Seq::ZERO, &bad.into()).map(|scanned| scanned.names(&mut |_| {}));
        }
        assert!(ScannedCommit::of(1, Seq::ZERO, &Bytes::new()).is_err());
    }
}
