//! One call on a connection: who calls is put into it, and what tonic itself refuses gets a status of our list.
//!
//! By itself tonic answers INTERNAL for a message that is not protobuf or not UTF-8, OUT_OF_RANGE for one that is too large, and
//! UNIMPLEMENTED without details for a method that is not there. The first is what we answer for our own faults.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::{Code, Status};

use super::connection::{ConnectionOutcome, InlineExecutor, NegotiatedProtocol, serve_http2};
use super::connection_end::ConnectionEnds;
use super::deadline;
use super::grpc::{
    BATCH_EXCHANGE, CallArrival, ConnectionServices, EXCHANGE, PendingCall, Services, answers_of, end_trace_by_headers,
    streams_messages,
};
use super::metered_body::{Metered, RequestMessages};
use super::peer::Peer;
use super::status::{FAULT, status};
use super::unread_answers::AnswerMessages;
use mayfly_authority::metrics::calls::CountedCall;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_base::trace::CallTrace;

/// Answers the calls of one connection of a peer, until the connection ends.
pub async fn serve<IO>(
    io: IO,
    agreed: NegotiatedProtocol,
    services: Services,
    peer: Peer,
    ends: ConnectionEnds,
    streams: u32,
) -> ConnectionOutcome
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let at_once = InlineExecutor::default();
    let (told, calls) = (at_once.clone(), services.on_connection(peer, ends.activity().clone()));
    let service = service_fn(move |call| {
        let arrived = calls.arrived(&call);
        if arrived.is_refused() {
            told.announce();
        }
        answer(&calls, call, arrived)
    });
    serve_http2(io, agreed, service, at_once, ends, streams).await
}

/// A call that is being answered: small, since it is moved into its task.
struct Answer {
    answering: PendingCall<Metered<Incoming>>,
    traced: CallTrace,
    /// Present until the call is counted.
    counted: Option<CountedCall>,
    /// The URI, unless the call is a single exchange. Cheap: the parts of a `Uri` are counted references.
    uri: Option<Uri>,
}

/// Answers one call. The caller is the TLS peer; headers are not used to identify it.
fn answer(calls: &ConnectionServices, call: Request<Incoming>, arrived: CallArrival) -> Answer {
    let refused = |no, counted| {
        let (answering, traced) = (PendingCall::Other(Box::pin(ready(no))), CallTrace::default());
        Answer { answering, traced, counted, uri: None }
    };
    if let Some(no) = not_grpc(&call) {
        return refused(no, None);
    }
    let counted = Some(calls.counted(call.uri().path(), &arrived));
    let within = match deadline::caller_timeout(call.headers()) {
        Ok(within) => within,
        Err(no) => return refused(status(Error::Refusal(no)).into_http(), counted),
    };
    let uri = (call.uri().path() != EXCHANGE).then(|| call.uri().clone());
    let traced = calls.traced(&call, &arrived);
    let messages = if streams_messages(call.uri().path()) { RequestMessages::Many } else { RequestMessages::One };
    let answering = calls.answer(call.map(|body| Metered::new(body, calls.activity().clone(), messages)), arrived, &traced);
    let answering = match within {
        None => answering,
        Some(within) => PendingCall::Other(Box::pin(async move {
            let late = || status(Error::Refusal(deadline::deadline_passed(within))).into_http();
            in_time(within, answering).await.unwrap_or_else(late)
        })),
    };
    Answer { answering, traced, counted, uri }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answering).poll(cx));
        let path = self.uri.as_ref().map_or(EXCHANGE, Uri::path);
        let answer = match replacement_status(answer.headers(), path) {
            Some(no) => no.into_http(),
            None => answer,
        };
        end_trace_by_headers(&self.traced, path, answer.headers());
        let streamed = answers_of(path) == AnswerMessages::Many;
        // Calls of Exchange and BatchExchange have any error status in their headers.
        let whole = path == EXCHANGE || path == BATCH_EXCHANGE;
        Poll::Ready(Ok(match self.counted.take() {
            Some(counted) => count_status(counted, answer, streamed, whole),
            None => answer,
        }))
    }
}

/// Counts a call whose answer begins: at once if its headers have the status or the status is known to be OK, otherwise at the end of the
/// body.
fn count_status(mut counted: CountedCall, answer: Response<Body>, streamed: bool, whole: bool) -> Response<Body> {
    if !streamed {
        counted.answered();
    }
    match code_in(answer.headers()) {
        Some(code) => {
            counted.ended(code);
            answer
        }
        None if whole => {
            counted.ended(Code::Ok as i32);
            answer
        }
        None => answer.map(|body| Body::new(StatusBody { body, counted })),
    }
}

/// The status code in headers or trailers.
fn code_in(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A body whose trailers carry the status of its call.
struct StatusBody {
    body: Body,
    counted: CountedCall,
}

impl HttpBody for StatusBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(code) = frame.trailers_ref().and_then(code_in)
        {
            self.counted.ended(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answer, if it comes within a time. A call that is late is dropped, as when its caller goes away: records that wait for the ledger
/// are still written, and a credential that was being made at an upstream is undone.
///
/// For a stream, the deadline covers only its beginning; the caller ends the stream.
async fn in_time<F: Future>(within: Duration, answering: F) -> Option<F::Output> {
    // If no time is left, the call is not begun.
    if within.is_zero() {
        return None;
    }
    tokio::time::timeout(within, answering).await.ok()
}

/// gRPC over HTTP/2, "Requests": POST, and a content type that begins with `application/grpc`.
fn not_grpc(call: &Request<Incoming>) -> Option<Response<Body>> {
    if call.method() != Method::POST {
        let mut no = plain(StatusCode::METHOD_NOT_ALLOWED);
        no.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(no);
    }
    let is_grpc = call.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    (!is_grpc).then(|| plain(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

fn plain(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// The status that replaces an answer that is a bare error of the gRPC library, whose status is in the headers. `None` for an error of
/// mayfly, and for no error.
fn replacement_status(headers: &HeaderMap, path: &str) -> Option<Status> {
    if !headers.contains_key("grpc-status") {
        return None;
    }
    let said = Status::from_header_map(headers)?;
    if said.code() == Code::Unimplemented && said.message().is_empty() && said.details().is_empty() {
        let no = Refusal::new(Reason::NotServed, format!("there is no method {path} on this listener"));
        return Some(status(Error::Refusal(no)));
    }
    codec_refusal(&said)
}

/// Translates an error of tonic's codec into a refusal; `None` if the status is not the codec's. Also used for streams, whose messages fail
/// later than their headers.
pub fn codec_refusal(said: &Status) -> Option<Status> {
    if !said.details().is_empty() {
        return None;
    }
    let no = match said.code() {
        Code::Internal if !said.message().starts_with(FAULT) => {
            Refusal::new(Reason::InvalidField, format!("the request is not a message of this method: {}", said.message()))
        }
        Code::OutOfRange | Code::ResourceExhausted => {
            Refusal::limit("request_bytes", limits::REQUEST_BYTES as u64, Duration::from_secs(0))
        }
        Code::Unimplemented => Refusal::new(Reason::NotServed, said.message().to_owned()),
        _ => return None,
    };
    Some(status(Error::Refusal(no)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::refusal::Fault;
    use tonic_types::StatusExt as _;

    fn reason(status: &Status) -> String {
        status.get_error_details().error_info().map_or_else(String::new, |i| i.reason.clone())
    }

    #[test]
    fn what_the_codec_refuses_is_the_callers_mistake() {
        let said = codec_refusal(&Status::internal("failed to decode Protobuf message: invalid tag value: 0")).unwrap();
        assert_eq!((said.code(), reason(&said).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
        let said = codec_refusal(&Status::out_of_range("Error, decoded message length too large")).unwrap();
        assert_eq!((said.code(), reason(&said).as_str()), (Code::ResourceExhausted, "LIMIT_REACHED"));
        let said = codec_refusal(&Status::unimplemented("Content is compressed with `gzip`")).unwrap();
        assert_eq!((said.code(), reason(&said).as_str()), (Code::Unimplemented, "NOT_SERVED"));
    }

    #[test]
    fn what_we_say_ourselves_stays() {
        assert!(codec_refusal(&status(Error::Fault(Fault::new("broke")))).is_none());
        for &reason in Reason::ALL {
            assert!(codec_refusal(&status(Error::Refusal(Refusal::new(reason, "no")))).is_none(), "{reason:?}");
        }
    }
}
