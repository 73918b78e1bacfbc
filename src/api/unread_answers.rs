//! Counts answers until they are read.
//!
//! HTTP/2 lets a peer send requests without reading answers: its receive window stays at 0, and every answer waits in the server. Each
//! answer is therefore counted for its caller and its listener until its last byte has been sent, and an answer that waits too long ends
//! its connection ([`ConnectionActivity`](super::connection_table::ConnectionActivity)).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::connection_table::{CallUnderWay, ConnectionActivity};
use super::status::status;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};

/// How many messages an answer has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerMessages {
    /// A single message: if the caller has no room for it, the answer is refused.
    One,
    /// A stream: while its caller has no room, the next message waits.
    Many,
}

/// Counts the answer of a call that is not a single exchange.
pub fn counted(
    answer: Response<Body>,
    answers: AnswerMessages,
    activity: &Arc<ConnectionActivity>,
    call: CallUnderWay,
) -> Response<Body> {
    let counted = |body| Counted { body: Some(body), answers, waits: None, activity: activity.clone(), _call: call };
    answer.map(|body| Body::new(counted(body)))
}

struct Counted {
    body: Option<Body>,
    answers: AnswerMessages,
    /// The sleep until the next check for room.
    waits: Option<Pin<Box<Sleep>>>,
    activity: Arc<ConnectionActivity>,
    /// The call is in progress until its answer has been sent.
    _call: CallUnderWay,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while this.answers == AnswerMessages::Many && this.activity.share().may_answer(0).is_err() {
            let look = Duration::from_millis(limits::UNREAD_LOOK_MS);
            ready!(this.waits.get_or_insert_with(|| Box::pin(sleep(look))).as_mut().poll(cx));
            this.waits = None;
        }
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let data = match frame.into_data() {
            Ok(data) if data.is_empty() => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        // A small answer reports the result of a change and is sent in any case.
        if this.answers == AnswerMessages::One
            && data.len() > limits::UNREAD_SMALL_BYTES
            && let Err(no) = this.activity.share().may_answer(data.len())
        {
            // Dropped here, so that nothing more of the answer is held.
            this.body = None;
            return Poll::Ready(Some(trailers(no)));
        }
        Poll::Ready(Some(Ok(Frame::data(this.activity.unread(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // The stream may end earlier than the body does, so the body's hint does not apply.
        SizeHint::default()
    }
}

/// The trailers that end an answer instead of its message.
fn trailers(no: Refusal) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    let status = status(Error::Refusal(no));
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::ShareLimits;
    use http_body_util::{BodyExt as _, Full};

    fn of_bytes(size: usize, answers: AnswerMessages, activity: &Arc<ConnectionActivity>) -> Body {
        let body = Full::new(Bytes::from(vec![7; size]));
        counted(Response::new(Body::new(body)), answers, activity, activity.call().unwrap()).into_body()
    }

    fn answer(size: usize, activity: &Arc<ConnectionActivity>) -> Body {
        of_bytes(size, AnswerMessages::One, activity)
    }

    #[tokio::test]
    async fn the_next_message_of_a_stream_waits_for_room_instead() {
        let activity = ConnectionActivity::alone(ShareLimits::AUTHENTICATED);
        activity.share().take_unread(limits::UNREAD_BYTES_PER_CALLER + 1);
        let mut stream = of_bytes(100_000, AnswerMessages::Many, &activity);
        let waits = tokio::time::timeout(Duration::from_millis(3 * limits::UNREAD_LOOK_MS), stream.frame()).await;
        assert!(waits.is_err());
        activity.share().give_unread(1);
        assert!(stream.frame().await.unwrap().unwrap().is_data());
    }

    #[tokio::test]
    async fn an_answer_counts_until_its_bytes_are_dropped() {
        let activity = ConnectionActivity::alone(ShareLimits::AUTHENTICATED);
        let most = limits::UNREAD_BYTES_PER_CALLER;
        let mut unread = Vec::new();
        let size = 1024 * 1024;
        while activity.share().may_answer(size).is_ok() {
            unread.push(answer(size, &activity).frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(unread.len(), most / (size + limits::UNREAD_ANSWER_BYTES));
        // Beyond the limit a large answer is refused, and a small one, which reports the result of a change, is not.
        let refused = answer(size, &activity).frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(refused.get("grpc-status").unwrap(), "8");
        let small = answer(100, &activity).frame().await.unwrap().unwrap();
        assert!(small.is_data());
        // A slice of an answer keeps the whole answer in memory.
        let mut last = unread.pop().unwrap();
        drop((unread, small));
        let piece = last.split_to(10);
        drop(last);
        assert!(activity.share().may_answer(most - size).is_err());
        drop(piece);
        assert!(activity.share().may_answer(most).is_ok());
    }
}
