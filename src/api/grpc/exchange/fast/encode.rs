//! Fast encoding of the answers of a stream and of a batch: the fields that consecutive answers share are encoded once.
//!
//! The bytes are identical to those that prost writes for the whole message; a test verifies this.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

use super::super::super::super::status::problem;
use super::super::answer::{about_to_pb, issued_to_pb, result_to_pb};
use super::decode::{BatchDecoder, RawBatch};
use mayfly_base::refusal::Error;
use mayfly_credential::minted::CredentialDetails;
use mayfly_credential::{CredentialMaterial, IssuedCredential, IssuedToken};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::protobuf::{begin, delimited, delimited_len, message_len, number, number_len};

// Field numbers of the messages in the protos, which are frozen.
const REQUEST_ID: u32 = 1;
const ISSUED: u32 = 2;
const RESULTS: u32 = 1;
const RESULT_ISSUED: u32 = 1;
const ANSWER_ISSUED: u32 = 1;
const BEARER: u32 = 1;
const TOKEN: u32 = 1;
const CREDENTIAL_ID: u32 = 2;
const SEQ: u32 = 10;

/// Length of the prefix of a gRPC message.
pub(super) const PREFIX: usize = 5;

/// The encoded fields that consecutive answers with a bearer token share.
pub struct AnswerTemplate {
    about: Arc<CredentialDetails>,
    header: Cow<'static, str>,
    scheme: Cow<'static, str>,
    base_url: Arc<str>,
    /// The fields of the bearer token without the token itself.
    bearer: Vec<u8>,
    /// Fields 3 to 9 of the answer, and the fields from 11 on.
    before_seq: Vec<u8>,
    after_seq: Vec<u8>,
}

impl AnswerTemplate {
    fn of(issued: &IssuedCredential) -> Option<AnswerTemplate> {
        let CredentialMaterial::Bearer { header, scheme, base_url, .. } = issued.answer() else { return None };
        let about = &issued.summary().about;
        let bearer = pb::BearerToken {
            token: String::new(),
            header_name: header.to_string(),
            scheme: scheme.to_string(),
            base_url: base_url.to_string(),
        };
        let all = about_to_pb(about);
        let after = pb::Issued {
            decision_revision: all.decision_revision,
            renewable_until: all.renewable_until,
            irrevocable: all.irrevocable,
            novelty: all.novelty,
            upstream: all.upstream.clone(),
            approval_id: all.approval_id.clone(),
            upstream_ends_at: all.upstream_ends_at,
            authorization_details: all.authorization_details.clone(),
            ..pb::Issued::default()
        };
        let before = pb::Issued {
            decision_revision: 0,
            renewable_until: None,
            irrevocable: false,
            novelty: 0,
            upstream: String::new(),
            approval_id: String::new(),
            upstream_ends_at: None,
            authorization_details: String::new(),
            ..all
        };
        Some(AnswerTemplate {
            about: about.clone(),
            header: header.clone(),
            scheme: scheme.clone(),
            base_url: base_url.clone(),
            bearer: bearer.encode_to_vec(),
            before_seq: before.encode_to_vec(),
            after_seq: after.encode_to_vec(),
        })
    }

    /// Whether the answer shares the pattern's fields. The larger parts are compared by pointer.
    fn fits(&self, issued: &IssuedCredential) -> bool {
        let CredentialMaterial::Bearer { header, scheme, base_url, .. } = issued.answer() else { return false };
        Arc::ptr_eq(&self.about, &issued.summary().about)
            && Arc::ptr_eq(&self.base_url, base_url)
            && (header, scheme) == (&self.header, &self.scheme)
    }
}

/// One result of a batch.
pub enum EncodedResult {
    /// A result that is encoded by prost.
    Whole(Box<pb::ExchangeResult>),
    /// A result that shares a pattern.
    One(TemplatedAnswer),
}

/// The parts that belong to one answer alone.
pub struct TemplatedAnswer {
    pattern: Arc<AnswerTemplate>,
    issued: IssuedCredential,
}

/// The pattern of the most recent answer.
#[derive(Default)]
pub struct AnswerEncoder(Option<Arc<AnswerTemplate>>);

impl AnswerEncoder {
    /// Appends the stream message that answers a granted request.
    pub fn tell(&mut self, request_id: &str, issued: IssuedCredential, out: &mut Vec<u8>) {
        match self.one(issued) {
            Ok(one) => {
                prefix(one.length(request_id), out);
                one.write(request_id, out);
            }
            Err(issued) => prefixed(&whole(request_id.to_owned(), *issued), out),
        }
    }

    /// The result of one exchange of a batch.
    pub fn result(&mut self, end: Result<IssuedCredential, Error>) -> EncodedResult {
        match end.map(|issued| self.one(issued)) {
            Ok(Ok(one)) => EncodedResult::One(one),
            Ok(Err(issued)) => EncodedResult::Whole(Box::new(result_to_pb(Ok(*issued)))),
            Err(no) => EncodedResult::Whole(Box::new(result_to_pb(Err(no)))),
        }
    }

    /// The message that answers a unary call.
    pub fn answer(&mut self, issued: IssuedCredential) -> Bytes {
        match self.one(issued) {
            Ok(one) => {
                let mut message = Vec::new();
                prefix(message_len(ANSWER_ISSUED, one.issued_length()), &mut message);
                begin(ANSWER_ISSUED, one.issued_length(), &mut message);
                one.write_issued(&mut message);
                message.into()
            }
            Err(issued) => answer_of(*issued),
        }
    }

    /// Returns the answer unchanged if it is no bearer token.
    fn one(&mut self, issued: IssuedCredential) -> Result<TemplatedAnswer, Box<IssuedCredential>> {
        if !self.0.as_ref().is_some_and(|pattern| pattern.fits(&issued)) {
            self.0 = AnswerTemplate::of(&issued).map(Arc::new);
        }
        match &self.0 {
            Some(pattern) => Ok(TemplatedAnswer { pattern: pattern.clone(), issued }),
            None => Err(Box::new(issued)),
        }
    }
}

/// The message that answers a unary call which shares nothing with other calls.
pub fn answer_of(issued: IssuedCredential) -> Bytes {
    let mut message = Vec::new();
    prefixed(&pb::ExchangeResponse { issued: Some(issued_to_pb(issued)) }, &mut message);
    message.into()
}

/// A refusal that answers several requests of a stream: its content is encoded once.
pub struct SharedRefusal(Vec<u8>);

impl SharedRefusal {
    /// Encodes this refusal.
    pub fn new(no: Error) -> SharedRefusal {
        let result = Some(pb::stream_exchange_response::Result::Problem(problem(no)));
        SharedRefusal(pb::StreamExchangeResponse { request_id: String::new(), result }.encode_to_vec())
    }

    /// Appends the stream message that refuses a request.
    pub fn tell(&self, request_id: &str, out: &mut Vec<u8>) {
        prefix(delimited_len(REQUEST_ID, request_id.as_bytes()) + self.0.len(), out);
        delimited(REQUEST_ID, request_id.as_bytes(), out);
        out.extend_from_slice(&self.0);
    }
}

/// Writes the prefix of a message with this many bytes: a flag and four bytes of length (gRPC over HTTP/2, "Length-Prefixed-Message").
fn prefix(length: usize, out: &mut Vec<u8>) {
    out.reserve(PREFIX + length);
    out.push(0);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

/// Appends a message with its prefix.
pub fn prefixed(message: &impl Message, out: &mut Vec<u8>) {
    prefix(message.encoded_len(), out);
    message.encode_raw(out);
}

fn whole(request_id: String, issued: IssuedCredential) -> pb::StreamExchangeResponse {
    let result = Some(pb::stream_exchange_response::Result::Issued(issued_to_pb(issued)));
    pb::StreamExchangeResponse { request_id, result }
}

impl EncodedResult {
    fn length(&self) -> usize {
        match self {
            EncodedResult::Whole(whole) => whole.encoded_len(),
            EncodedResult::One(one) => message_len(RESULT_ISSUED, one.issued_length()),
        }
    }

    fn write(&self, out: &mut impl BufMut) {
        begin(RESULTS, self.length(), out);
        match self {
            EncodedResult::Whole(whole) => whole.encode_raw(out),
            EncodedResult::One(one) => {
                begin(RESULT_ISSUED, one.issued_length(), out);
                one.write_issued(out);
            }
        }
    }
}

impl TemplatedAnswer {
    /// The token of the answer; only answers with a bearer token have a pattern.
    fn token(&self) -> Option<&IssuedToken> {
        match self.issued.answer() {
            CredentialMaterial::Bearer { token, .. } => Some(token),
            _ => None,
        }
    }

    fn bearer_length(&self) -> usize {
        self.token().map_or(0, |token| message_len(TOKEN, token.length())) + self.pattern.bearer.len()
    }

    fn issued_length(&self) -> usize {
        let id = mayfly_verify::seq::CredentialId::TEXT;
        message_len(BEARER, self.bearer_length())
            + message_len(CREDENTIAL_ID, id)
            + self.pattern.before_seq.len()
            + number_len(SEQ, self.issued.seq().as_u64())
            + self.pattern.after_seq.len()
    }

    fn length(&self, request_id: &str) -> usize {
        delimited_len(REQUEST_ID, request_id.as_bytes()) + message_len(ISSUED, self.issued_length())
    }

    fn write(&self, request_id: &str, out: &mut impl BufMut) {
        delimited(REQUEST_ID, request_id.as_bytes(), out);
        begin(ISSUED, self.issued_length(), out);
        self.write_issued(out);
    }

    fn write_issued(&self, out: &mut impl BufMut) {
        begin(BEARER, self.bearer_length(), out);
        if let Some(token) = self.token() {
            begin(TOKEN, token.length(), out);
            token.write(out);
        }
        out.put_slice(&self.pattern.bearer);
        delimited(CREDENTIAL_ID, &self.issued.summary().credential.text(), out);
        out.put_slice(&self.pattern.before_seq);
        number(SEQ, self.issued.seq().as_u64(), out);
        out.put_slice(&self.pattern.after_seq);
    }
}

/// Decodes a batch request, and encodes its results.
#[derive(Default)]
pub struct BatchCodec;

/// Encodes [`EncodedResult`]s.
pub struct BatchEncoder;

impl Codec for BatchCodec {
    type Encode = Vec<EncodedResult>;
    type Decode = RawBatch;
    type Encoder = BatchEncoder;
    type Decoder = BatchDecoder;

    fn encoder(&mut self) -> BatchEncoder {
        BatchEncoder
    }

    fn decoder(&mut self) -> BatchDecoder {
        BatchDecoder
    }
}

impl Encoder for BatchEncoder {
    type Item = Vec<EncodedResult>;
    type Error = Status;

    fn encode(&mut self, results: Vec<EncodedResult>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(results.iter().map(|result| message_len(RESULTS, result.length())).sum());
        for result in results {
            result.write(out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::refusal::Refusal;
    use mayfly_credential::kind::mint_local;
    use mayfly_credential::status_list::StatusListAllocator;
    use mayfly_credential::testing::{TestLog, full, grant, keyring, plain};
    use mayfly_ledger::Receipt;
    use mayfly_verify::seq::{CredentialId, Millis, Seq};
    use zeroize::Zeroizing;

    #[test]
    fn a_refusal_that_is_encoded_once_is_what_prost_writes_for_each() {
        let no =
            || Error::Refusal(Refusal::limit("intake_wait_ms", 100, std::time::Duration::from_millis(200)).way_out("come again"));
        let (alike, mut out, mut expected) = (SharedRefusal::new(no()), Vec::new(), Vec::new());
        for request_id in ["", "r", "a longer name \u{e9}"] {
            alike.tell(request_id, &mut out);
            let result = Some(pb::stream_exchange_response::Result::Problem(problem(no())));
            prefixed(&pb::StreamExchangeResponse { request_id: request_id.to_owned(), result }, &mut expected);
        }
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_written_is_what_prost_writes_for_the_whole() {
        const T0: Millis = Millis(1_700_000_000_000);
        let mut log = TestLog::new(T0);
        let (ring, _store) = keyring(&mut log);
        let status = StatusListAllocator::new(Seq::from_u64(5).unwrap(), &[9; 32]);
        for parts in [plain(1, T0, log.state.head), plain(2, T0, log.state.head), full(T0, log.state.head)] {
            for request_id in ["", "r", "a longer name \u{e9}"] {
                // Signing twice would give different signatures: the parts of one signed token are used for both answers.
                let id = CredentialId::from_bytes([7; 16]);
                let minted = mint_local(grant(parts.clone()), id, 1, &ring, &status, Vec::new(), T0).ok().unwrap();
                let (seq, summary, answer) = minted.reveal(Receipt::of_test(id)).unwrap().into_parts();
                let CredentialMaterial::Bearer { token, header, scheme, base_url } = answer else { panic!("no token") };
                let token = Zeroizing::new(token.into_text());
                let again = || {
                    let (token, header, scheme) = (IssuedToken::secret(token.clone()), header.clone(), scheme.clone());
                    let answer = CredentialMaterial::Bearer { token, header, scheme, base_url: base_url.clone() };
                    IssuedCredential::for_test(seq, summary.clone(), answer)
                };
                let mut patterns = AnswerEncoder::default();
                let (mut expected, mut out) = (Vec::new(), Vec::new());
                for _ in 0..2 {
                    prefixed(&whole(request_id.to_owned(), again()), &mut expected);
                    patterns.tell(request_id, again(), &mut out);
                    assert_eq!(out, expected);
                }
                let expected = pb::ExchangeResponse { issued: Some(issued_to_pb(again())) }.encode_to_vec();
                let expected = [&[0][..], &(expected.len() as u32).to_be_bytes(), &expected].concat();
                assert_eq!((&answer_of(again())[..], &patterns.answer(again())[..]), (&*expected, &*expected));
                let no = || Error::Refusal(Refusal::field("tool", "is too long"));
                let problem = result_to_pb(Err(no()));
                let results = vec![result_to_pb(Ok(again())), problem.clone(), result_to_pb(Ok(again()))];
                let expected = pb::BatchExchangeResponse { results }.encode_to_vec();
                let mut out = Vec::new();
                for told in [patterns.result(Ok(again())), patterns.result(Err(no())), patterns.result(Ok(again()))] {
                    told.write(&mut out);
                }
                assert_eq!(out, expected);
            }
        }
    }
}
