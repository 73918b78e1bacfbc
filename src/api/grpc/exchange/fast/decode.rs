//! Requests as received: decoded at once by the fast decoder, as nearly all are, or by prost.

use std::sync::Arc;

use bytes::Buf as _;
use prost::Message as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::super::{CheckedRequest, ReceivedRequest};
use mayfly_authority::admission::admission_queue::AdmissionQueue;
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly_policy::fast_decode::{self, ExchangeDecoder};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::protobuf::Fields;
use mayfly_verify::seq::TaskId;

/// One exchange request. The variants are boxed: the value is moved several times before it is used.
pub enum RawRequest {
    /// Decoded by the fast decoder, and well formed.
    Plain(Box<ExchangeRequest>),
    /// Not decoded except for its names: the server was at capacity when the request arrived.
    Unread(Box<[u8]>),
    /// Decoded by prost.
    Other(Box<pb::ExchangeRequest>),
}

impl RawRequest {
    /// Decodes a message that is one exchange. `None`: the message is no exchange.
    pub fn read(message: &[u8]) -> Option<RawRequest> {
        match fast_decode::read(message) {
            Some(want) => Some(RawRequest::Plain(Box::new(want))),
            None => pb::ExchangeRequest::decode(message).ok().map(RawRequest::from),
        }
    }

    /// The open task that the request names.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            RawRequest::Plain(want) => match want.task {
                TaskChoice::Named(task) => Some(task),
                TaskChoice::Inline(_) => None,
            },
            RawRequest::Unread(message) => RawRequest::read(message)?.task(),
            RawRequest::Other(ask) => match &ask.task {
                Some(pb::exchange_request::Task::TaskId(task)) => task.parse().ok(),
                _ => None,
            },
        }
    }
}

impl ReceivedRequest for RawRequest {
    fn request_id(&self) -> &str {
        match self {
            RawRequest::Plain(want) => want.request_id.as_deref().unwrap_or_default(),
            RawRequest::Unread(message) => fast_decode::names(message).map_or("", |(_, request_id)| request_id),
            RawRequest::Other(ask) => &ask.request_id,
        }
    }

    fn upstream(&self) -> &str {
        match self {
            RawRequest::Plain(want) => &want.upstream,
            RawRequest::Unread(message) => fast_decode::names(message).map_or("", |(upstream, _)| upstream),
            RawRequest::Other(ask) => &ask.upstream,
        }
    }

    fn check(self) -> CheckedRequest {
        match self {
            RawRequest::Plain(want) => Ok(want),
            RawRequest::Unread(message) => match RawRequest::read(&message) {
                Some(sent) => sent.check(),
                None => {
                    let request_id = fast_decode::names(&message).map_or("", |(_, request_id)| request_id);
                    Err(Box::new((request_id.to_owned(), Refusal::field("exchange", "is no ExchangeRequest"))))
                }
            },
            RawRequest::Other(ask) => ask.check(),
        }
    }
}

impl From<pb::ExchangeRequest> for RawRequest {
    fn from(ask: pb::ExchangeRequest) -> RawRequest {
        RawRequest::Other(Box::new(ask))
    }
}

/// Decodes what prost decodes. Answers of a stream are encoded where they are made.
pub struct StreamCodec(pub Arc<AdmissionQueue>);

/// Decodes the requests of one stream.
pub struct StreamDecoder {
    reader: ExchangeDecoder,
    intake: Arc<AdmissionQueue>,
}

impl StreamDecoder {
    /// The exchange of a `StreamExchangeRequest`, if the fast decoder can read it.
    fn plain(&mut self, message: &[u8]) -> Option<RawRequest> {
        let exchange = exchange_of(message)?;
        if self.intake.is_full() && fast_decode::names(exchange).is_some() {
            return Some(RawRequest::Unread(exchange.into()));
        }
        Some(RawRequest::Plain(Box::new(self.reader.read(exchange)?)))
    }
}

/// The content of the only field of a `StreamExchangeRequest`.
fn exchange_of(message: &[u8]) -> Option<&[u8]> {
    const EXCHANGE: u8 = 1;
    let mut fields = Fields::of(message);
    let exchange = fields.delimited(EXCHANGE)?;
    fields.end().map(|()| exchange)
}

impl Codec for StreamCodec {
    type Encode = pb::StreamExchangeResponse;
    type Decode = Option<RawRequest>;
    type Encoder = ProstEncoder<pb::StreamExchangeResponse>;
    type Decoder = StreamDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> StreamDecoder {
        StreamDecoder { reader: ExchangeDecoder::default(), intake: self.0.clone() }
    }
}

impl Decoder for StreamDecoder {
    /// `None`: the message has no field that this version knows.
    type Item = Option<RawRequest>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        if let Some(sent) = at_once(bytes, |message| self.plain(message)) {
            return Ok(Some(Some(sent)));
        }
        let message: pb::StreamExchangeRequest = by_prost(bytes)?;
        Ok(Some(message.ask.map(|pb::stream_exchange_request::Ask::Exchange(exchange)| exchange.into())))
    }
}

/// The exchanges of one BatchExchange call.
#[derive(Default)]
pub struct RawBatch {
    /// The exchanges.
    pub exchanges: Vec<RawRequest>,
    /// Whether either all of them are issued or none.
    pub all_or_nothing: bool,
}

impl RawBatch {
    /// Decodes a `BatchExchangeRequest` if the fast decoder can. Its exchanges may have any form.
    fn plain(message: &[u8]) -> Option<RawBatch> {
        const EXCHANGES: u8 = 1;
        const ALL_OR_NOTHING: u8 = 2;
        let (mut fields, mut reader) = (Fields::of(message), ExchangeDecoder::default());
        let mut exchanges = Vec::new();
        loop {
            let exchange = match fields.delimited(EXCHANGES)? {
                [] => break,
                // A batch that is too large is refused regardless of its content.
                _ if exchanges.len() == limits::BATCH => return None,
                exchange => exchange,
            };
            exchanges.push(match reader.read(exchange) {
                Some(want) => RawRequest::Plain(Box::new(want)),
                None => pb::ExchangeRequest::decode(exchange).ok()?.into(),
            });
        }
        let all_or_nothing = fields.number(ALL_OR_NOTHING)? != 0;
        fields.end()?;
        Some(RawBatch { exchanges, all_or_nothing })
    }
}

/// The same batch as prost decodes it.
impl From<pb::BatchExchangeRequest> for RawBatch {
    fn from(ask: pb::BatchExchangeRequest) -> RawBatch {
        RawBatch { exchanges: ask.exchanges.into_iter().map(RawRequest::from).collect(), all_or_nothing: ask.all_or_nothing }
    }
}

/// Decodes the request of a batch.
#[derive(Default)]
pub struct BatchDecoder;

impl Decoder for BatchDecoder {
    type Item = RawBatch;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<RawBatch>, Status> {
        match at_once(bytes, RawBatch::plain) {
            Some(batch) => Ok(Some(batch)),
            None => by_prost(bytes).map(|ask: pb::BatchExchangeRequest| Some(ask.into())),
        }
    }
}

/// Decodes a message that is contiguous in the buffer. If `read` fails, the buffer is unchanged.
fn at_once<T>(bytes: &mut DecodeBuf<'_>, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let length = bytes.remaining();
    let message = Some(bytes.chunk()).filter(|chunk| chunk.len() == length)?;
    let read = read(message)?;
    bytes.advance(length);
    Some(read)
}

/// Decodes with prost, and refuses with the same error text as tonic.
fn by_prost<T: prost::Message + Default>(bytes: &mut DecodeBuf<'_>) -> Result<T, Status> {
    T::decode(bytes).map_err(|no| Status::internal(no.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(n: u8, odd: bool) -> pb::ExchangeRequest {
        let task = Some(pb::exchange_request::Task::TaskId(TaskId::from_bytes([n / 2; 16]).to_string()));
        let details = if odd { "[]".to_owned() } else { String::new() };
        pb::ExchangeRequest {
            task,
            upstream: "echo".into(),
            scopes: vec!["echo:read".into()],
            request_id: format!("{n}"),
            authorization_details: details,
            ..pb::ExchangeRequest::default()
        }
    }

    fn wants(all: impl IntoIterator<Item = RawRequest>) -> Vec<CheckedRequest> {
        all.into_iter().map(RawRequest::check).collect()
    }

    #[test]
    fn a_message_of_a_stream_is_read_as_prost_reads_it() {
        let mut decoder = StreamCodec(AdmissionQueue::new(1)).decoder();
        for n in 0..4 {
            let exchange = ask(n, false);
            let message = pb::StreamExchangeRequest { ask: Some(pb::stream_exchange_request::Ask::Exchange(exchange.clone())) };
            let message = message.encode_to_vec();
            let sent = decoder.plain(&message).unwrap();
            assert_eq!(
                (sent.request_id(), sent.upstream(), sent.task()),
                (&*n.to_string(), "echo", Some(TaskId::from_bytes([n / 2; 16])))
            );
            assert_eq!(wants([sent]), wants([exchange.into()]));
            // prost merges the second occurrence into the first.
            assert!(decoder.plain(&[&message[..], &message].concat()).is_none());
            assert!(decoder.plain(&message[..message.len() - 1]).is_none());
            assert!(decoder.plain(&message[2..]).is_none());
        }
        assert!(decoder.plain(&[]).is_none());
    }

    #[test]
    fn what_there_is_no_time_for_is_not_looked_into_and_can_be_read_later() {
        let intake = AdmissionQueue::new(1);
        let mut decoder = StreamCodec(intake.clone()).decoder();
        let message = |ask: &pb::ExchangeRequest| {
            let ask = Some(pb::stream_exchange_request::Ask::Exchange(ask.clone()));
            pb::StreamExchangeRequest { ask }.encode_to_vec()
        };
        assert!(matches!(decoder.plain(&message(&ask(1, false))), Some(RawRequest::Plain(_))));
        let tickets: Vec<_> = std::iter::from_fn(|| intake.take(100).ok()).collect();
        for odd in [false, true] {
            let sent = decoder.plain(&message(&ask(1, odd))).unwrap();
            assert!(matches!(sent, RawRequest::Unread(_)));
            assert_eq!((sent.request_id(), sent.upstream(), sent.task()), ("1", "echo", Some(TaskId::from_bytes([0; 16]))));
            assert_eq!(wants([sent]), wants([ask(1, odd).into()]));
        }
        let (unnamed, inline) = (
            pb::ExchangeRequest { request_id: String::new(), ..ask(1, false) },
            pb::ExchangeRequest { task: Some(pb::exchange_request::Task::OpenTask(pb::TaskTerms::default())), ..ask(1, false) },
        );
        assert!(matches!(decoder.plain(&message(&unnamed)), Some(RawRequest::Plain(_))), "nothing could be answered to it");
        assert!(decoder.plain(&message(&inline)).is_none(), "as always");
        // Truncated in the part that was not decoded.
        let cut = RawRequest::Unread([&ask(1, false).encode_to_vec()[..], &[0x0a, 9]].concat().into());
        let (request_id, no) = *cut.check().unwrap_err();
        assert_eq!((&*request_id, no.field), ("1", Some("exchange")));
        drop(tickets);
        assert!(matches!(decoder.plain(&message(&ask(1, false))), Some(RawRequest::Plain(_))));
    }

    #[test]
    fn a_message_is_read_as_prost_reads_it() {
        for odd in [false, true] {
            let sent = RawRequest::read(&ask(1, odd).encode_to_vec()).unwrap();
            assert_eq!((matches!(sent, RawRequest::Other(_)), sent.request_id(), sent.upstream()), (odd, "1", "echo"));
            assert_eq!(sent.task(), Some(TaskId::from_bytes([0; 16])));
            assert_eq!(wants([sent]), wants([ask(1, odd).into()]));
        }
        assert!(RawRequest::read(&[1]).is_none());
    }

    #[test]
    fn a_batch_is_read_as_prost_reads_it() {
        for (count, all_or_nothing) in [(0, true), (1, false), (5, true), (u8::try_from(limits::BATCH).unwrap(), false)] {
            let exchanges = (0..count).map(|n| ask(n, n % 4 == 3)).collect();
            let batch = pb::BatchExchangeRequest { exchanges, all_or_nothing };
            let message = batch.encode_to_vec();
            let read = RawBatch::plain(&message).unwrap();
            assert_eq!(read.all_or_nothing, all_or_nothing);
            assert!(read.exchanges.iter().enumerate().all(|(n, sent)| matches!(sent, RawRequest::Other(_)) == (n % 4 == 3)));
            assert_eq!(wants(read.exchanges), wants(RawBatch::from(batch.clone()).exchanges));
            assert!(RawBatch::plain(&[&message[..], &[3 << 3, 1]].concat()).is_none(), "a field that nobody knows");
        }
        let exchanges = vec![ask(1, false); limits::BATCH + 1];
        assert!(RawBatch::plain(&pb::BatchExchangeRequest { exchanges, all_or_nothing: true }.encode_to_vec()).is_none());
        assert!(RawBatch::plain(&[10, 1, 1]).is_none(), "an exchange that is none");
    }
}
