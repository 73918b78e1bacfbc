//! `StreamExchange`: requests that arrive at the same time are decided as one batch, and all answers that are ready are sent in one frame.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream as _;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::super::super::super::peer;
use super::super::super::call_trace::end_trace;
use super::super::super::token::TokenApi;
use super::super::stream::{count_latency, exchange_of, next_message, trace_of};
use super::super::{ReceivedRequest, batch as exchange_batch};
use super::decode::{RawRequest, StreamCodec};
use super::encode::{AnswerEncoder, SharedRefusal};
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::DecisionCache;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_base::trace::CallTrace;
use mayfly_credential::IssuedCredential;
use mayfly_identity::caller::Caller;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_proto::mayfly::v1 as pb;

type Message = Result<Option<Option<RawRequest>>, Status>;

/// Answers that are sent in one frame.
#[derive(Default)]
struct Batch {
    /// Encoded messages, each with its prefix.
    messages: Vec<u8>,
    /// Permits that are held until the messages are sent.
    places: Vec<OwnedSemaphorePermit>,
    /// If set, the stream ends after the messages, with this status.
    over: Option<Status>,
}

/// The answer body of a stream: all answers that are ready at one poll are sent in one frame, already encoded.
struct Answers {
    batches: mpsc::Receiver<Batch>,
    over: Option<Status>,
    ended: bool,
}

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let over = loop {
            if let Some(over) = self.over.take() {
                break over;
            }
            match ready!(self.batches.poll_recv(cx)) {
                Some(Batch { messages, over, .. }) => {
                    self.over = over;
                    if !messages.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(messages.into()))));
                    }
                }
                None => break Status::ok(""),
            }
        };
        self.ended = true;
        let mut trailers = HeaderMap::with_capacity(3);
        // A status that no header can carry is sent without its details.
        if over.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", (over.code() as i32).into());
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Receives the batches of a call that tonic accepted.
struct Method<'a>(&'a TokenApi, &'a mut Option<mpsc::Receiver<Batch>>, CallTrace);

impl StreamingService<Option<RawRequest>> for Method<'_> {
    type Response = pb::StreamExchangeResponse;
    type ResponseStream = tokio_stream::Empty<Result<pb::StreamExchangeResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Option<RawRequest>>>) -> Self::Future {
        std::future::ready(peer::caller(&request).map(|caller| {
            *self.1 = Some(answer(self.0.0.clone(), caller, request.into_inner(), std::mem::take(&mut self.2)));
            Response::new(tokio_stream::empty())
        }))
    }
}

/// Answers one call as tonic's own code does, except for the answer body.
pub async fn exchange<B>(own: &TokenApi, call: http::Request<B>, traced: CallTrace) -> http::Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let limits = (Some(limits::REQUEST_BYTES), None);
    let mut grpc = Grpc::new(StreamCodec(own.0.intake.clone())).apply_max_message_size_config(limits.0, limits.1);
    let mut batches = None;
    let response = grpc.streaming(Method(own, &mut batches, traced), call).await;
    match batches {
        Some(batches) => response.map(|_| Body::new(Answers { batches, over: None, ended: false })),
        None => response,
    }
}

/// The caller of a stream, and the recent decisions for it.
struct Sender {
    caller: Caller,
    cache: DecisionCache,
}

/// Answers the requests of a stream until the stream ends.
fn answer(
    authority: Arc<Authority>,
    caller: Caller,
    asks: Streaming<Option<RawRequest>>,
    traced: CallTrace,
) -> mpsc::Receiver<Batch> {
    let (answers, batches) = mpsc::channel(authority.bounds.load().stream_in_flight);
    tokio::spawn(drive(authority, Arc::new(Sender { caller, cache: DecisionCache::default() }), (asks, traced), answers));
    batches
}

async fn drive(
    authority: Arc<Authority>,
    sender: Arc<Sender>,
    (mut asks, traced): (Streaming<Option<RawRequest>>, CallTrace),
    answers: mpsc::Sender<Batch>,
) {
    let places = Arc::new(Semaphore::new(authority.bounds.load().stream_in_flight));
    loop {
        let Some(first) = next_message(&places, &mut asks, answers.closed()).await else { return };
        let (mut asked, mut held) = (Vec::with_capacity(limits::STREAM_ROUND), Vec::with_capacity(limits::STREAM_ROUND));
        let (mut next, read) = (Some(first), Stopwatch::start());
        let most = authority.intake.batch_size(limits::STREAM_ROUND);
        // Requests that arrived at the same time are decided as one batch: a task for each would cost as much as its decision.
        let over = loop {
            let Some((message, place)) = next.take() else { break None };
            match exchange_of(message) {
                Ok(ask) => {
                    asked.push(ask);
                    held.push(place);
                }
                Err(over) => break Some(over),
            }
            if asked.len() < most
                && let Ok(place) = places.clone().try_acquire_owned()
            {
                next = next_if_ready(&mut asks).await.map(|message| (message, place));
            }
        };
        if !asked.is_empty() {
            match authority.intake.take(asked.len()) {
                Ok(taken) => {
                    let asked = (asked, traced.clone(), read);
                    let all = answer_all(authority.clone(), sender.clone(), asked, held, answers.clone());
                    // Boxed, since a spawned future is copied several times.
                    drop(tokio::spawn(taken.run(Box::pin(all))));
                }
                Err(no) => {
                    authority.intake.refused(asked.len(), read);
                    let refused = refuse_overloaded(&authority, &sender.caller, asked, held, &no);
                    let _ = answers.send(refused).await;
                }
            }
        }
        match over {
            None => {}
            Some(None) => return traced.end(0, ""),
            Some(Some(no)) => {
                end_trace(&traced, &no);
                let _ = answers.send(Batch { over: Some(no), ..Batch::default() }).await;
                return;
            }
        }
    }
}

/// Refuses all requests, by overload.
fn refuse_overloaded(
    authority: &Authority,
    caller: &Caller,
    asks: Vec<RawRequest>,
    places: Vec<OwnedSemaphorePermit>,
    no: &Refusal,
) -> Batch {
    authority.refused_each(caller.id().as_str(), no, asks.iter().map(RawRequest::upstream), "");
    authority.exchange_metrics.overloaded(asks.iter().map(RawRequest::upstream));
    let (mut messages, alike) = (Vec::new(), SharedRefusal::new(Error::Refusal(no.clone())));
    asks.iter().for_each(|ask| alike.tell(ask.request_id(), &mut messages));
    Batch { messages, places, over: None }
}

/// The next message, if it has arrived already.
async fn next_if_ready(asks: &mut Streaming<Option<RawRequest>>) -> Option<Message> {
    std::future::poll_fn(|cx| match Pin::new(&mut *asks).poll_next(cx) {
        Poll::Ready(message) => Poll::Ready(Some(message.transpose())),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Answers each exchange when it is ready: a slow exchange does not delay the others.
async fn answer_all(
    authority: Arc<Authority>,
    sender: Arc<Sender>,
    (asks, stream, read): (Vec<RawRequest>, CallTrace, Stopwatch),
    places: Vec<OwnedSemaphorePermit>,
    answers: mpsc::Sender<Batch>,
) {
    let (count, Sender { caller, cache }) = (asks.len(), &*sender);
    let traced = |ask| (ask, trace_of(&authority, caller, &stream, read));
    let (mut wants, parts, mut begun) = exchange_batch::begin(&authority, (caller, cache), asks.into_iter().map(traced), count);
    let mut answers_of = authority.answers(&mut begun).await;
    let (mut batch, mut patterns) = (Batch::default(), AnswerEncoder::default());
    for (place, (asked, part)) in places.into_iter().zip(wants.iter_mut().zip(parts)) {
        // The exchanges are committed in order, so an exchange that is not ready is followed by none that is.
        match exchange_batch::end((&authority, cache), part, asked, &mut answers_of).await {
            Some(end) => {
                append_answer(&authority, caller, &mut patterns, asked, end, &mut batch.messages);
                batch.places.push(place);
                if batch.places.len() == 1 {
                    // The other messages mostly have the same length.
                    batch.messages.reserve(batch.messages.len().saturating_mul(count));
                }
            }
            None => {
                if let Ok(want) = std::mem::replace(asked, Err(String::new())) {
                    tokio::spawn(answer_slowly(authority.clone(), sender.clone(), (want, read), place, answers.clone()));
                }
            }
        }
    }
    drop(begun);
    count_latency(&authority, read, batch.places.len());
    let _ = answers.send(batch).await;
}

async fn answer_slowly(
    authority: Arc<Authority>,
    sender: Arc<Sender>,
    (want, read): (Box<ExchangeRequest>, Stopwatch),
    place: OwnedSemaphorePermit,
    answers: mpsc::Sender<Batch>,
) {
    let end = want.traced.clone().scope(authority.exchange_unless(&sender.caller, &want, || answers.closed())).await;
    let (mut messages, places) = (Vec::new(), vec![place]);
    append_answer(&authority, &sender.caller, &mut AnswerEncoder::default(), &mut Ok(want), end, &mut messages);
    count_latency(&authority, read, 1);
    let _ = answers.send(Batch { messages, places, over: None }).await;
}

fn append_answer(
    authority: &Authority,
    caller: &Caller,
    patterns: &mut AnswerEncoder,
    asked: &mut exchange_batch::DecodedRequest,
    end: Result<IssuedCredential, Error>,
    out: &mut Vec<u8>,
) {
    let end = exchange_batch::record_outcome(authority, caller, asked.as_deref().ok(), end);
    let request_id = match asked {
        Ok(want) => want.request_id.take().unwrap_or_default(),
        Err(id) => (&*id).into(),
    };
    match end {
        Ok(issued) => patterns.tell(&request_id, issued, out),
        Err(no) => SharedRefusal::new(no).tell(&request_id, out),
    }
}
