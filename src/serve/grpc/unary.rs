//! `Exchange`, which nearly all calls of its kind are, answered without what tonic makes ready for a stream of messages: a tenth of the
//! CPU of a unary issuance.
//!
//! Only what is just one plain message is answered here. Everything else, and everything that is wrong, goes to tonic as it came.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tonic::codegen::Service as _;

use super::super::peer::{self, Peer};
use super::super::status::status;
use super::line::Line;
use super::routes::Arrived;
use super::sent::Sent;
use super::token::Tokens;
use super::told::PREFIX;
use crate::limits;
use crate::pb::mayfly::v1::token_service_server::TokenServiceServer;
use crate::refusal::{No, Refusal};
use crate::system::Stopwatch;
use crate::trace::Traced;

/// The path of the method.
pub const PATH: &str = "/mayfly.v1.TokenService/Exchange";

/// Answers one call, in the line of its connection where it has one.
pub async fn exchange<B>(
    tokens: &mut TokenServiceServer<Tokens>,
    (own, line): (&Tokens, Option<Arc<Line>>),
    peer: Peer,
    call: Request<B>,
    (arrived, traced): (Arrived, Traced),
) -> Result<Response<Body>, Infallible>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
{
    let Arrived { read, mut taken } = arrived;
    let (mut parts, mut body) = call.into_parts();
    let mut came = VecDeque::new();
    let mut only: Option<Bytes> = None;
    if !parts.headers.contains_key("grpc-encoding") {
        loop {
            let frame = std::future::poll_fn(|cx| {
                let frame = Pin::new(&mut body).poll_frame(cx);
                if frame.is_pending() {
                    // Whoever does not send what he wants has no place among those who wait.
                    taken = None;
                }
                frame
            });
            let Some(frame) = frame.await else { break };
            match frame {
                Ok(frame) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Ok(frame) if only.is_none() && frame.is_data() => only = frame.into_data().ok(),
                other => {
                    came.push_back(other);
                    break;
                }
            }
        }
    }
    // Before it is decoded: refusing is to cost next to nothing.
    let (taken, read) = taken.map_or_else(|| (own.0.intake.take(1), Stopwatch::start()), |taken| (taken, read));
    let taken = match taken {
        Ok(taken) => taken,
        Err(no) => {
            let no = no_time(own, &peer, no);
            own.0.intake.refused(1, read);
            return Ok(no);
        }
    };
    let ask = only.as_ref().filter(|_| came.is_empty()).and_then(|body| message(body));
    let Some(ask) = ask else {
        drop(taken); // it is taken in there
        only.into_iter().for_each(|first| came.push_front(Ok(Frame::data(first))));
        parts.extensions.insert(peer);
        return Box::pin(traced.scope(tokens.call(Request::from_parts(parts, Replay { came, rest: body })))).await;
    };
    let answer = match peer::caller_of(Some(&peer)) {
        Ok(caller) => match line.filter(|line| line.is_of(&caller)) {
            Some(line) => line.exchange(ask, taken, traced).await.map_err(status),
            None => Line::new(own.0.clone(), caller).exchange(ask, taken, traced).await.map_err(status),
        },
        Err(no) => Err(no),
    };
    Ok(match answer {
        Ok(message) => response(message),
        Err(no) => no.into_http(),
    })
}

/// There is no time for it, whatever it asks for: the same answer to everybody, which is encoded once.
fn no_time(own: &Tokens, peer: &Peer, no: Refusal) -> Response<Body> {
    static HEADERS: OnceLock<HeaderMap> = OnceLock::new();
    if let Peer::Workload(caller) | Peer::Admin(caller) = peer {
        own.0.refused(caller.id().as_str(), &no, "exchange", "");
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = HEADERS.get_or_init(|| status(No::Refusal(no)).into_http::<Body>().into_parts().0.headers).clone();
    response
}

/// The one message that a body is.
fn message(body: &[u8]) -> Option<Sent> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    let plain = prefix[0] == 0 && prefix[1..] == length && message.len() <= limits::REQUEST_BYTES;
    if plain { Sent::read(message) } else { None }
}

fn response(message: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Whole { message: Some(message), ended: false }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One message, and that all went well.
struct Whole {
    message: Option<Bytes>,
    ended: bool,
}

impl HttpBody for Whole {
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

/// A body of which something was read already.
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
