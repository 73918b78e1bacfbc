//! Record templates: issuances that share all fields but a few, where the shared fields are encoded once.
//!
//! A caller's exchanges come by the dozen and differ in few fields. The bytes are exactly those that prost writes for the whole record, so
//! a reader of the log need not know about templates.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::commit::Hash;
use crate::record::{CredentialIssued, Event, Record};
use crate::state::{RequestKey, request_key};
use mayfly_proto::protobuf::{begin, delimited, delimited_len, number, number_len};
use mayfly_verify::seq::CredentialId;

/// The request of an issuance, with its key.
#[derive(Clone, Copy, Debug)]
pub struct IssuanceRequest<'a> {
    id: &'a str,
    digest: &'a Hash,
    key: RequestKey,
}

impl<'a> IssuanceRequest<'a> {
    /// A request of this caller. `digest`: SHA-256 over all fields of the request.
    pub fn new(caller: &str, id: &'a str, digest: &'a Hash) -> IssuanceRequest<'a> {
        IssuanceRequest { key: request_key(caller, id), id, digest }
    }

    /// The caller's request id.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// SHA-256 over all fields of the request.
    pub fn digest(&self) -> &'a Hash {
        self.digest
    }

    /// The key of the request among the requests of all callers.
    pub fn key(&self) -> RequestKey {
        self.key
    }
}

/// The fields that are one issuance's own.
pub struct IssuanceFields<'a> {
    /// The credential's id.
    pub credential: CredentialId,
    /// The request; its caller is the author of the template's record.
    pub request: Option<IssuanceRequest<'a>>,
    /// The trace id of the call; empty for none.
    pub trace: &'a [u8],
    /// The tool that the credential serves for; empty for none.
    pub tool: &'a str,
    /// The purpose of the credential.
    pub purpose: &'a str,
    /// SHA-256 of the arguments.
    pub arguments: Option<&'a Hash>,
    /// The status list, and the index in that list.
    pub status: (u64, u32),
    /// SHA-256 of the credential as handed out.
    pub token_digest: &'a Hash,
}

/// A record template: the record without any issuance's own fields, and the same record as pieces of encoded bytes.
#[derive(Debug)]
pub struct RecordTemplate {
    record: Arc<Record>,
    pieces: [Vec<u8>; PIECES],
}

/// Pieces of a template: author and revision; fields 2 to 9 of the issuance; 13 to 24; 27 to 31; and from 33 on.
pub const PIECES: usize = 5;
/// An issuance's own fields lie between these pieces.
pub const OWN_PIECES: usize = PIECES - 1;

/// One issuance's own fields, encoded.
#[derive(Clone, Debug)]
pub(crate) struct TemplatedRecord {
    credential: CredentialId,
    /// Next to the bytes of neighbouring issuances: the buffer is written on one thread, and read and freed on another.
    bytes: Bytes,
    /// The end of each piece in `bytes`.
    ends: [u32; OWN_PIECES],
    /// The places of the tool and of the request's id in `bytes`.
    tool: Range<u32>,
    request_id: Range<u32>,
}

impl TemplatedRecord {
    pub fn credential(&self) -> &CredentialId {
        &self.credential
    }

    pub fn tool(&self) -> &str {
        self.text(&self.tool)
    }

    pub fn request_id(&self) -> &str {
        self.text(&self.request_id)
    }

    fn text(&self, at: &Range<u32>) -> &str {
        let bytes = self.bytes.get(at.start as usize..at.end as usize);
        bytes.and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }

    /// The encoded pieces.
    pub fn pieces(&self) -> [&[u8]; OWN_PIECES] {
        let mut start = 0;
        self.ends.map(|end| {
            let piece = self.bytes.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            piece
        })
    }
}

/// Joins the template's pieces and the issuance's own pieces to the bytes of a record.
pub(crate) fn join<P: AsRef<[u8]>>(shared: &[P; PIECES], own: &[&[u8]; OWN_PIECES], out: &mut Vec<u8>) {
    let [first, rest @ ..] = shared;
    out.extend_from_slice(first.as_ref());
    for (own, shared) in own.iter().zip(rest) {
        out.extend_from_slice(own);
        out.extend_from_slice(shared.as_ref());
    }
}

// Tags of `Record` and `CredentialIssued`, which are frozen.
const REQUEST: u32 = 3;
const REQUEST_ID: u32 = 2;
const REQUEST_DIGEST: u32 = 3;
const TRACE: u32 = 5;
const ISSUED: u32 = 20;
const CREDENTIAL: u32 = 1;
const TOOL: u32 = 10;
const PURPOSE: u32 = 11;
const ARGUMENTS: u32 = 12;
const STATUS_LIST: u32 = 25;
const STATUS_INDEX: u32 = 26;
const TOKEN_DIGEST: u32 = 32;

/// Allocation unit for the issuances' own bytes: enough for about twenty.
const ROOM: usize = 4 * 1024;

impl RecordTemplate {
    /// Makes a template. `record`: an issuance in a group by itself, with none of an issuance's own fields set. `None` for any other
    /// record.
    pub fn new(record: Record) -> Option<RecordTemplate> {
        let Some(Event::Issued(e)) = &record.event else { return None };
        let own = [&e.credential, &e.arguments, &e.token_digest, &e.certified_key].iter().any(|b| !b.is_empty())
            || [&e.tool, &e.purpose].iter().any(|s| !s.is_empty())
            || (e.status_list, e.status_index) != (0, 0);
        if own || record.request.is_some() || record.group != 0 || !record.trace.is_empty() {
            return None;
        }
        let head = Record { author: record.author.clone(), revision: record.revision, ..Record::default() }.encode_to_vec();
        let e = (**e).clone();
        let first = CredentialIssued {
            task: e.task,
            kind: e.kind,
            caller: e.caller,
            subject: e.subject,
            actors: e.actors,
            upstream: e.upstream,
            scopes: e.scopes,
            details: e.details,
            ..CredentialIssued::default()
        };
        let second = CredentialIssued {
            binding: e.binding,
            environment: e.environment,
            issued_at: e.issued_at,
            expires_at: e.expires_at,
            renewable_until: e.renewable_until,
            bound: e.bound,
            svid: e.svid,
            subject_token: e.subject_token,
            ancestors: e.ancestors,
            key: e.key,
            x5t: e.x5t,
            jkt: e.jkt,
            ..CredentialIssued::default()
        };
        let third = CredentialIssued {
            policy_version: e.policy_version,
            upstream_version: e.upstream_version,
            binding_version: e.binding_version,
            approval: e.approval,
            lease: e.lease,
            ..CredentialIssued::default()
        };
        let fourth = CredentialIssued {
            policies: e.policies,
            renews: e.renews,
            shown: e.shown,
            replaces: e.replaces,
            break_glass: e.break_glass,
            subject_claims: e.subject_claims,
            access: e.access,
            ..CredentialIssued::default()
        };
        let [first, second, third, fourth] = [first, second, third, fourth].map(|piece| piece.encode_to_vec());
        Some(RecordTemplate { record: Arc::new(record), pieces: [head, first, second, third, fourth] })
    }

    /// The shared fields as a record that is not a real issuance: ids, tool, purpose, arguments, status, digest, request and trace are
    /// empty.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// The template's encoded pieces.
    pub(crate) fn pieces(&self) -> &[Vec<u8>; PIECES] {
        &self.pieces
    }

    /// Encodes one issuance's own fields into `room`, behind those of the previous issuance.
    pub(crate) fn fill(&self, own: &IssuanceFields<'_>, room: &mut BytesMut) -> TemplatedRecord {
        let [_, shared @ ..] = &self.pieces;
        let arguments: &[u8] = own.arguments.map_or(&[], |a| a);
        let issued = shared.iter().map(Vec::len).sum::<usize>()
            + delimited_len(CREDENTIAL, own.credential.as_bytes())
            + delimited_len(TOOL, own.tool.as_bytes())
            + delimited_len(PURPOSE, own.purpose.as_bytes())
            + delimited_len(ARGUMENTS, arguments)
            + number_len(STATUS_LIST, own.status.0)
            + number_len(STATUS_INDEX, own.status.1.into())
            + delimited_len(TOKEN_DIGEST, own.token_digest);
        // Extra capacity for numbers and tags, which all fit into it.
        let names = own.request.map_or(0, |r| r.id.len() + r.digest.len()) + own.trace.len() + own.tool.len() + own.purpose.len();
        let length = names + 160;
        if room.capacity() < length {
            *room = BytesMut::with_capacity(length.max(ROOM));
        }
        let bytes = room;
        let mut request_id = 0..0;
        if let Some(r) = own.request {
            begin(REQUEST, delimited_len(REQUEST_ID, r.id.as_bytes()) + delimited_len(REQUEST_DIGEST, r.digest), bytes);
            delimited(REQUEST_ID, r.id.as_bytes(), bytes);
            request_id = tail(bytes, r.id.len());
            delimited(REQUEST_DIGEST, r.digest, bytes);
        }
        delimited(TRACE, own.trace, bytes);
        begin(ISSUED, issued, bytes);
        delimited(CREDENTIAL, own.credential.as_bytes(), bytes);
        let before_tool = end(bytes);
        delimited(TOOL, own.tool.as_bytes(), bytes);
        let tool = tail(bytes, own.tool.len());
        delimited(PURPOSE, own.purpose.as_bytes(), bytes);
        delimited(ARGUMENTS, arguments, bytes);
        let before_status = end(bytes);
        number(STATUS_LIST, own.status.0, bytes);
        number(STATUS_INDEX, own.status.1.into(), bytes);
        let before_digest = end(bytes);
        delimited(TOKEN_DIGEST, own.token_digest, bytes);
        let ends = [before_tool, before_status, before_digest, end(bytes)];
        TemplatedRecord { credential: own.credential, bytes: bytes.split().freeze(), ends, tool, request_id }
    }
}

/// Everything in a record is shorter than `limits::RECORD_BYTES`, or the record is refused.
fn end(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// The range of the bytes that were written last.
fn tail(bytes: &[u8], length: usize) -> Range<u32> {
    end(&bytes[..bytes.len() - length])..end(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Ancestor, Author, Principal, RequestRecord, SubjectClaims, SvidEvidence, TokenEvidence};
    use mayfly_verify::seq::Seq;

    fn shared() -> impl Strategy<Value = CredentialIssued> {
        let names = (".{0,40}", ".{0,300}", vec(".{1,20}", 0..4), ".{0,20}", vec(".{1,9}", 0..3));
        let numbers = (0..12u32, any::<u64>(), any::<u64>(), 0..9u32, any::<u64>());
        (names, numbers, any::<bool>(), vec(any::<u8>(), 0..40)).prop_map(|(names, numbers, derived, some)| CredentialIssued {
            task: vec![7; 16],
            kind: numbers.0,
            caller: names.0.clone(),
            upstream: names.1,
            scopes: names.2,
            environment: names.3.clone(),
            policies: names.4,
            issued_at: numbers.1,
            expires_at: numbers.2,
            bound: numbers.3,
            policy_version: numbers.4,
            upstream_version: 3,
            key: "k1".into(),
            jkt: some.clone(),
            svid: (!derived).then(|| SvidEvidence {
                anchor: vec![1; 32],
                issuing_key: vec![2; 32],
                serial: some.clone(),
                not_after: 9,
            }),
            subject: derived.then(|| Principal { issuer: names.3.clone(), sub: names.0.clone() }),
            subject_token: derived.then(|| TokenEvidence { issuer: "i".into(), id: "t".into(), expires_at: 5 }),
            ancestors: if derived { vec![Ancestor { credential: vec![4; 16], caller: names.0 }] } else { Vec::new() },
            details: if derived { "[]".into() } else { String::new() },
            binding: names.3,
            shown: some,
            subject_claims: derived.then(|| SubjectClaims { groups: vec!["g".into()], scopes: Vec::new() }),
            ..CredentialIssued::default()
        })
    }

    proptest! {
        #[test]
        fn what_is_cast_is_what_prost_writes_for_the_whole(
            issued in shared(),
            revision in 0u64..1 << 40,
            names in ("[a-z]{0,20}", ".{0,200}", proptest::option::of(".{1,130}")),
            arguments: Option<[u8; 32]>,
            trace: Option<[u8; 16]>,
            status: (u64, u32),
            digest: [u8; 32],
        ) {
            let (tool, purpose, id) = names;
            let author = Author::SpiffeId(issued.caller.clone());
            let revision = Seq::from_u64(revision).unwrap_or(Seq::ZERO);
            let asked = id.as_deref().map(|id| IssuanceRequest::new(&issued.caller, id, &[8; 32]));
            let template = RecordTemplate::new(Record::new(author.clone(), Event::Issued(Box::new(issued.clone()))).decided_at(revision)).unwrap();
            let credential = CredentialId::from_bytes([3; 16]);
            let own = IssuanceFields {
                credential, request: asked, trace: trace.as_ref().map_or(&[], |t| t), tool: &tool, purpose: &purpose, arguments: arguments.as_ref(),
                status, token_digest: &digest,
            };
            let whole = CredentialIssued {
                credential: credential.as_bytes().to_vec(), tool: tool.clone(), purpose: purpose.clone(),
                arguments: arguments.map_or_else(Vec::new, |a| a.to_vec()), status_list: status.0, status_index: status.1,
                token_digest: digest.to_vec(), ..issued
            };
            let request = asked.as_ref().map(|a| RequestRecord { caller: String::new(), id: a.id.to_owned(), digest: a.digest.to_vec() });
            let whole = Record::new(author, Event::Issued(Box::new(whole))).decided_at(revision).for_request(request);
            let whole = Record { trace: trace.map_or_else(Vec::new, |t| t.to_vec()), ..whole };
            let templated = template.fill(&own, &mut BytesMut::new());
            let mut joined = Vec::new();
            join(template.pieces(), &templated.pieces(), &mut joined);
            prop_assert_eq!(joined, whole.encode_to_vec());
            prop_assert_eq!(templated.tool(), tool);
            prop_assert_eq!(templated.request_id(), asked.map_or("", |a| a.id));
        }
    }

    #[test]
    fn what_has_fields_of_its_own_is_no_template() {
        let plain = || CredentialIssued { caller: "spiffe://a/b".into(), ..CredentialIssued::default() };
        let record = |e: CredentialIssued| Record::new(Author::SpiffeId("spiffe://a/b".into()), Event::Issued(Box::new(e)));
        assert!(RecordTemplate::new(record(plain())).is_some());
        for own in [
            CredentialIssued { credential: vec![1; 16], ..plain() },
            CredentialIssued { tool: "t".into(), ..plain() },
            CredentialIssued { purpose: "p".into(), ..plain() },
            CredentialIssued { arguments: vec![1; 32], ..plain() },
            CredentialIssued { status_index: 1, ..plain() },
            CredentialIssued { token_digest: vec![1; 32], ..plain() },
        ] {
            assert!(RecordTemplate::new(record(own)).is_none());
        }
        assert!(RecordTemplate::new(Record { group: 1, ..record(plain()) }).is_none());
        let request = RequestRecord { caller: String::new(), id: "1".into(), digest: vec![0; 32] };
        assert!(RecordTemplate::new(record(plain()).for_request(Some(request))).is_none());
    }
}
