//! `Exchange`, the most frequent call, answered without tonic's preparations for a stream of messages, which cost a tenth of the CPU of a
//! unary issuance.
//!
//! Only calls with exactly one uncompressed message are answered here. All other calls, including malformed ones, are passed to tonic
//! unchanged.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use super::super::super::super::connection_table::ConnectionActivity;
use super::super::super::super::peer::{self, Peer};
use super::super::super::super::status::status;
use super::super::super::routes::{CallArrival, ConnectionServices};
use super::collect::Reply;
use super::decode::RawRequest;
use super::encode::PREFIX;
use mayfly_authority::authority::Authority;
use mayfly_authority::metrics::exchanges::ExchangeOutcome;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_base::trace::CallTrace;

/// One call. The future is written by hand: it is moved a few times before its first poll, and as an async function it has 4 KB.
pub struct UnaryExchange<B: HttpBody> {
    calls: ConnectionServices,
    traced: CallTrace,
    state: State<B>,
}

#[allow(clippy::large_enum_variant, reason = "all begin with the largest; a box would cost each an allocation")]
enum State<B: HttpBody> {
    /// Reads the request.
    Reads(Reading<B>),
    /// Waits for the result of its batch.
    Waits(oneshot::Receiver<Reply>),
    /// The slow path, which few calls need.
    Other(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
    Over,
}

/// A call whose body is not completely read.
struct Reading<B: HttpBody> {
    parts: Parts,
    body: B,
    only: Option<Bytes>,
    came: VecDeque<Result<Frame<Bytes>, B::Error>>,
    arrived: CallArrival,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Reading<B> {
    /// Reads a body of one message; of any other body, as much as is needed to recognize it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.parts.headers.contains_key("grpc-encoding") {
            return Poll::Ready(());
        }
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    // A caller that does not send its request must not hold a place in the admission queue.
                    self.arrived.taken = None;
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Poll::Ready(Some(Ok(frame))) if self.only.is_none() && frame.is_data() => self.only = frame.into_data().ok(),
                Poll::Ready(Some(other)) => {
                    self.came.push_back(other);
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl<B> UnaryExchange<B>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
{
    /// A call of this method, batched with others of its connection.
    pub(in super::super::super) fn new(
        calls: ConnectionServices,
        call: Request<B>,
        arrived: CallArrival,
        traced: CallTrace,
    ) -> UnaryExchange<B> {
        let (parts, body) = call.into_parts();
        UnaryExchange { calls, traced, state: State::Reads(Reading { parts, body, only: None, came: VecDeque::new(), arrived }) }
    }

    /// Decodes the request, if there is time for it.
    fn begin(&mut self, read: Reading<B>) -> ControlFlow<Response<Body>, State<B>> {
        let Reading { mut parts, body, only, mut came, arrived } = read;
        let (calls, authority) = (&self.calls, self.calls.authority());
        // Checked before decoding: a refusal must cost next to nothing.
        let (taken, read) = match arrived.taken {
            Some(taken) => (taken, arrived.read),
            None => (authority.intake.take(1), Stopwatch::start()),
        };
        // A caller that does not read its answers is refused before anything is issued.
        if let Err(no) = calls.activity().share().may_answer(0) {
            return ControlFlow::Break(status(Error::Refusal(no)).into_http());
        }
        let taken = match taken {
            Ok(taken) => taken,
            Err(no) => {
                let no = overload_response(authority, calls.peer(), no);
                authority.intake.refused(1, read);
                return ControlFlow::Break(no);
            }
        };
        let ask = only.as_ref().filter(|_| came.is_empty()).and_then(|body| message(body));
        let Some(ask) = ask else {
            drop(taken); // it is taken in there
            only.into_iter().for_each(|first| came.push_front(Ok(Frame::data(first))));
            parts.extensions.insert(calls.peer().clone());
            let (mut tokens, traced) = (calls.tokens(), self.traced.clone());
            let call = Request::from_parts(parts, Replay { came, rest: body });
            return ControlFlow::Continue(State::Other(Box::pin(async move {
                let Ok(answer) = traced.scope(tokens.call(call)).await;
                answer
            })));
        };
        match calls.batcher() {
            Some(batcher) => ControlFlow::Continue(State::Waits(batcher.enter(ask, taken, std::mem::take(&mut self.traced)))),
            None => {
                let no = peer::caller_of(Some(calls.peer())).err();
                ControlFlow::Break(no.unwrap_or_else(|| fault("a caller without a queue")).into_http())
            }
        }
    }

    /// Handles the result of the batch.
    fn heard(&self, said: Option<Reply>) -> ControlFlow<Response<Body>, State<B>> {
        match (said, self.calls.batcher()) {
            (Some(Reply::Over(end)), _) => ControlFlow::Break(unary_response(end, self.calls.activity())),
            (Some(Reply::Slow(want)), Some(batcher)) => {
                let (slowly, activity) = (batcher.clone().slowly(want), self.calls.activity().clone());
                ControlFlow::Continue(State::Other(Box::pin(async move { unary_response(slowly.await, &activity) })))
            }
            (Some(Reply::Slow(_)) | None, _) => ControlFlow::Break(fault("a batch ended without an answer").into_http()),
        }
    }
}

impl<B> Future for UnaryExchange<B>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
{
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let this = &mut *self;
        loop {
            let next = match &mut this.state {
                State::Reads(reading) => {
                    ready!(reading.poll(cx));
                    match std::mem::replace(&mut this.state, State::Over) {
                        State::Reads(read) => this.begin(read),
                        _ => return Poll::Pending,
                    }
                }
                State::Waits(said) => {
                    let said = ready!(Pin::new(said).poll(cx)).ok();
                    this.heard(said)
                }
                State::Other(other) => ControlFlow::Break(ready!(other.as_mut().poll(cx))),
                // The call is answered and is not polled again.
                State::Over => return Poll::Pending,
            };
            match next {
                ControlFlow::Continue(state) => this.state = state,
                ControlFlow::Break(answer) => {
                    this.state = State::Over;
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

fn unary_response(end: Result<Bytes, Error>, activity: &Arc<ConnectionActivity>) -> Response<Body> {
    match end {
        Ok(message) => response(activity.unread(message)),
        Err(no) => status(no).into_http(),
    }
}

fn fault(what: &str) -> Status {
    status(Fault::new(what).into())
}

/// The refusal of an overloaded server: the answer is the same for all callers and is encoded once.
fn overload_response(authority: &Authority, peer: &Peer, no: Refusal) -> Response<Body> {
    static HEADERS: OnceLock<HeaderMap> = OnceLock::new();
    if let Peer::Workload(caller) | Peer::Admin(caller) = peer {
        authority.refused(caller.id().as_str(), &no, "exchange", "");
    }
    // The request is not decoded, so its upstream is unknown.
    authority.exchange_metrics.count_stray(ExchangeOutcome::Overloaded);
    let mut response = Response::new(Body::empty());
    *response.headers_mut() =
        HEADERS.get_or_init(|| status(Error::Refusal(no)).into_http::<Body>().into_parts().0.headers).clone();
    response
}

/// Decodes a body that consists of one message.
fn message(body: &[u8]) -> Option<RawRequest> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    let plain = prefix[0] == 0 && prefix[1..] == length && message.len() <= limits::REQUEST_BYTES;
    if plain { RawRequest::read(message) } else { None }
}

fn response(message: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(UnaryBody { message: Some(message), ended: false }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An answer of one message with the status OK.
struct UnaryBody {
    message: Option<Bytes>,
    ended: bool,
}

impl HttpBody for UnaryBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A body whose first frames were read already and are replayed.
struct Replay<B: HttpBody> {
    came: VecDeque<Result<Frame<Bytes>, B::Error>>,
    rest: B,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Replay<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.came.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_empty() && self.rest.is_end_stream()
    }
}
