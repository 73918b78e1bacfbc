//! A commit as those see it who derive something from history: what many of its records share is looked at once.
//!
//! It was found whole when it was written, and is again at each start: nothing is checked here but that it can be read.

use bytes::Bytes;
use prost::Message;

use super::Ledger;
use super::commit::{BadCommit, Hash, Header, leaf_hash};
use super::forward::Place;
use super::packed::{Entry, Packed, whole};
use super::record::{OwnNames, Record, Sort, names, own_names};
use super::state::seq_after;
use crate::protobuf::Fields;
use crate::refusal::Fault;
use crate::seq::Seq;
use crate::store::Position;

/// One commit, and where it stands.
#[derive(Debug)]
pub struct Glimpse {
    /// Its place.
    pub position: Position,
    /// The seq of the last record before it.
    pub before: Seq,
    /// The seq of its last record.
    pub last: Seq,
    /// Its header.
    pub header: Header,
    /// Its leaf in the tree over all commits.
    pub leaf: Hash,
    /// About how long its records are, bytes.
    pub bytes: usize,
    packed: Packed,
}

impl Glimpse {
    /// Of the bytes of a commit that follows a record.
    pub fn of(position: Position, before: Seq, bytes: &Bytes) -> Result<Glimpse, BadCommit> {
        let malformed = |what: String| BadCommit::Malformed(what);
        let packed = Packed::decode(bytes.clone()).map_err(|e| malformed(e.to_string()))?;
        let header = Header::decode(packed.header.clone()).map_err(|e| malformed(e.to_string()))?;
        let first = match (packed.records.first(), packed.entries.first()) {
            (Some(record), None) => decoded(record)?,
            (None, Some(entry)) => decoded(&whole(&packed.molds, entry)?)?,
            _ => return Err(malformed("no records, or records of two formats".to_owned())),
        };
        let first = seq_after(before, &first);
        let last = Seq::from_u64(first.as_u64() + u64::from(header.records).saturating_sub(1)).unwrap_or(first);
        let (leaf, bytes) = (leaf_hash(&packed.header), bytes.len() - packed.header.len());
        Ok(Glimpse { position, before, last, header, leaf, bytes, packed })
    }

    /// Whether any of its records is one of those. Issuances of one mold are all alike: one of them is asked about, so `wanted` may not look at
    /// what is one issuance's own ([`super::mold::Own`]).
    pub fn any(&self, wanted: impl Fn(&Record) -> bool) -> Result<bool, BadCommit> {
        for record in &self.packed.records {
            if wanted(&decoded(record)?) {
                return Ok(true);
            }
        }
        let mut seen = vec![false; self.packed.molds.len() + 1];
        for entry in &self.packed.entries {
            match seen.get_mut(entry.mold as usize).filter(|_| entry.mold > 0) {
                Some(seen) if *seen => continue,
                Some(seen) => *seen = true,
                None => {}
            }
            if wanted(&decoded(&whole(&self.packed.molds, entry)?)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Shows `see` everything that its records name; the same may come twice.
    pub fn names(&self, see: &mut dyn FnMut(Sort, &str)) -> Result<(), BadCommit> {
        for record in &self.packed.records {
            names(&decoded(record)?, see);
        }
        let mut seen = vec![false; self.packed.molds.len() + 1];
        for entry in &self.packed.entries {
            let known = entry.mold > 0 && seen.get(entry.mold as usize).copied().unwrap_or(false);
            match own(entry).filter(|_| known) {
                Some(own) => own_names(&own, see),
                None => {
                    names(&decoded(&whole(&self.packed.molds, entry)?)?, see);
                    if let Some(seen) = seen.get_mut(entry.mold as usize) {
                        *seen = true;
                    }
                }
            }
        }
        Ok(())
    }
}

fn decoded(bytes: &[u8]) -> Result<Record, BadCommit> {
    Record::decode(bytes).map_err(|e| BadCommit::Malformed(e.to_string()))
}

/// What one issuance names beside what its mold does; `None` where it is not written as a writer does.
fn own(entry: &Entry) -> Option<OwnNames<'_>> {
    // The keys of field 20 of `Record` and of field 32 of `Issued` with its length, as prost writes them.
    const ISSUED: [u8; 2] = [0xa2, 0x01];
    const TOKEN_DIGEST: [u8; 3] = [0x82, 0x02, 32];
    let [first, second, _, fourth] = entry.own.as_slice() else { return None };
    let mut fields = Fields::of(first);
    let mut request = Fields::of(fields.delimited(3)?);
    let request_id = request.text(2)?;
    let issued = fields.rest().strip_prefix(&ISSUED)?;
    let length = issued.iter().position(|byte| *byte < 0x80)?;
    let credential = Fields::of(issued.get(length + 1..)?).delimited(1)?;
    let mut fields = Fields::of(second);
    let (tool, _, arguments) = (fields.text(10)?, fields.delimited(11)?, fields.delimited(12)?);
    let token_digest = if fourth.is_empty() { &[][..] } else { fourth.strip_prefix(&TOKEN_DIGEST)? };
    Some(OwnNames { credential, request_id, tool, arguments, token_digest })
}

impl Ledger {
    /// As [`Ledger::steps`].
    pub(super) fn glimpses(&self, from: Place, bytes: usize) -> Result<Option<Vec<Glimpse>>, Fault> {
        self.each_of(from, bytes, |position, before, bytes| {
            let glimpse = Glimpse::of(position, before, bytes)?;
            Ok((glimpse.last, glimpse))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::super::commit::{ChainHead, Encoded, Opened, pack};
    use super::super::mold::{Mold, Own, OwnRequest};
    use super::super::record::{Event, Issued, KeyChanged, Who};
    use super::*;
    use crate::seq::{CredentialId, Millis};

    type Named = BTreeSet<(String, String)>;

    fn cast(mold: &Arc<Mold>, n: u8) -> Encoded {
        let (name, digest) = (format!("request-{n}"), [n; 32]);
        let own = Own {
            credential: CredentialId::from_bytes([n; 16]),
            request: n.is_multiple_of(2).then(|| OwnRequest::new("spiffe://a.example/b", &name, &digest)),
            tool: if n.is_multiple_of(3) { "" } else { "search" },
            purpose: if n.is_multiple_of(5) { "" } else { "why" },
            arguments: (!n.is_multiple_of(7)).then_some(&digest),
            status: (u64::from(n) * 100, u32::from(n)),
            token_digest: &[0x40 ^ n; 32],
        };
        Encoded::cast(mold, &own).unwrap()
    }

    fn mold(upstream: &str) -> Arc<Mold> {
        let issued = Issued {
            upstream: upstream.into(),
            task: vec![9; 16],
            scopes: vec!["read".into()],
            policies: vec!["some-policy".into()],
            ..Issued::default()
        };
        let record = Record::new(Who::SpiffeId("spiffe://a.example/b".into()), Event::Issued(Box::new(issued)));
        Arc::new(Mold::new(record).unwrap())
    }

    fn seen(show: impl FnOnce(&mut dyn FnMut(Sort, &str))) -> Named {
        let mut all = Named::new();
        show(&mut |sort, name| {
            all.insert((format!("{sort:?}"), name.to_owned()));
        });
        all
    }

    #[test]
    fn it_names_what_the_whole_records_name() {
        let (one, other) = (mold("mail"), mold("git"));
        let key = |n: u32| {
            let event = Event::KeyChanged(KeyChanged { key: format!("key-{n}"), ..Default::default() });
            Encoded::new(Record::new(Who::LocalUid(n), event)).unwrap()
        };
        let molded = |n: u8| cast(if n.is_multiple_of(4) { &one } else { &other }, n);
        let mut all = vec![key(1), key(2)];
        all.extend((1..80).map(molded));
        all.push(key(3));
        for records in [&all[..2], &all[2..], &all[..], &all[5..6], &all[81..]] {
            let bytes = Bytes::from(pack(1, ChainHead::START, Millis(5), records.iter()).0);
            let before = Seq::start_of(1);
            let glimpse = Glimpse::of(7, before, &bytes).unwrap();
            let opened = Opened::from_bytes(&bytes).unwrap();
            let whole = seen(|see| (0..opened.records.len()).for_each(|n| names(&opened.record(n).unwrap(), see)));
            assert_eq!(seen(|see| glimpse.names(see).unwrap()), whole);
            assert_eq!((glimpse.leaf, glimpse.last), (opened.leaf(), super::super::forward::last_of(&opened, before).unwrap()));
        }
    }

    #[test]
    fn of_issuances_that_are_alike_one_is_asked_about_and_says_what_each_would() {
        let (one, other) = (mold("mail"), mold("git"));
        let event = Event::KeyChanged(KeyChanged { key: "key".into(), ..Default::default() });
        let mut all = vec![Encoded::new(Record::new(Who::LocalUid(1), event)).unwrap()];
        all.extend((1..80).map(|n| cast(if n % 4 == 0 { &one } else { &other }, n)));
        let of = |record: &Record, name: &str| matches!(&record.event, Some(Event::Issued(e)) if e.upstream == name);
        for records in [&all[..], &all[1..4], &all[..1]] {
            let bytes = Bytes::from(pack(1, ChainHead::START, Millis(5), records.iter()).0);
            let glimpse = Glimpse::of(7, Seq::start_of(1), &bytes).unwrap();
            let opened = Opened::from_bytes(&bytes).unwrap();
            for name in ["mail", "git", "none"] {
                let asked = std::cell::Cell::new(0);
                let any = glimpse.any(|record| {
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
        let records: Vec<Encoded> = (1..4).map(|n| cast(&mold("mail"), n)).collect();
        let bytes = pack(1, ChainHead::START, Millis(5), records.iter()).0;
        for end in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..end]);
            // Whole in its form it may be, with fewer records than it says; reading it does no harm.
            let _ = Glimpse::of(1, Seq::ZERO, &cut).map(|glimpse| glimpse.names(&mut |_, _| {}));
        }
        for byte in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[byte] ^= 0x55;
            let _ = Glimpse::of(1, Seq::ZERO, &bad.into()).map(|glimpse| glimpse.names(&mut |_, _| {}));
        }
        assert!(Glimpse::of(1, Seq::ZERO, &Bytes::new()).is_err());
    }
}
