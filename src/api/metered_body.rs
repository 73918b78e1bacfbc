//! Limits incomplete requests in bytes (per connection, per caller and in total) and in time.
//!
//! A message may have `limits::REQUEST_BYTES` and a connection `limits::CONNECTION_STREAMS` calls: without a further limit one peer could
//! make the server hold gigabytes of messages that never end. Messages that arrive complete cost nothing here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::connection_table::ConnectionActivity;
use super::status::status;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};

/// How many messages a request has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestMessages {
    /// A single message: the request has to be complete in time.
    One,
    /// Any number: each message has to be complete in time, counted from its first byte.
    Many,
}

/// A request's body, whose incomplete message is counted.
pub struct Metered<B> {
    body: B,
    activity: Arc<ConnectionActivity>,
    messages: RequestMessages,
    message: Message,
    /// Bytes of the incomplete message.
    begun: usize,
    /// Bytes that are currently counted for this request.
    held: usize,
    /// Whether the request waits for its peer; then the cost of its stream is counted.
    waits: bool,
    /// The time in which the request or message has to be complete.
    within: Duration,
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Metered<B> {
    /// Counts for a connection and its holder.
    pub fn new(body: B, activity: Arc<ConnectionActivity>, messages: RequestMessages) -> Metered<B> {
        let within = Duration::from_millis(limits::REQUEST_MS);
        Metered { body, activity, messages, message: Message::default(), begun: 0, held: 0, waits: false, within, late: None }
    }

    fn hold(&mut self) -> Result<(), Refusal> {
        let bytes = self.begun + if self.waits { limits::UNFINISHED_REQUEST_BYTES } else { 0 };
        let before = std::mem::replace(&mut self.held, bytes);
        if bytes > before {
            return self.activity.take_unfinished(bytes - before);
        }
        if before > bytes {
            self.activity.give_unfinished(before - bytes);
        }
        Ok(())
    }

    /// The peer has sent nothing more: from now on the request is counted, and its time runs.
    fn poll_waits(&mut self, cx: &mut Context<'_>) -> Result<(), Refusal> {
        if !std::mem::replace(&mut self.waits, true) {
            self.hold()?;
        }
        if self.messages == RequestMessages::Many && self.begun == 0 {
            self.late = None;
            return Ok(());
        }
        let within = self.within;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(within)));
        if late.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        let what = format!("the request was not whole within {} s", limits::REQUEST_MS / 1000);
        Err(Refusal::new(Reason::DeadlineExceeded, what).by("request_ms"))
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        if self.held > 0 {
            self.activity.give_unfinished(self.held);
        }
    }
}

/// The position of a body within its length-prefixed messages (gRPC over HTTP/2, "Length-Prefixed-Message").
#[derive(Default)]
struct Message {
    prefix: [u8; 5],
    /// Received bytes of the prefix.
    begun: usize,
    /// Outstanding bytes of the message.
    left: usize,
    /// Received bytes of the message.
    came: usize,
}

impl Message {
    /// Advances by received bytes. Returns the number of held bytes of an incomplete message.
    fn take(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            if self.begun < self.prefix.len() {
                let n = bytes.len().min(self.prefix.len() - self.begun);
                let (now, rest) = bytes.split_at(n);
                if let Some(room) = self.prefix.get_mut(self.begun..self.begun + n) {
                    room.copy_from_slice(now);
                }
                self.begun += n;
                bytes = rest;
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            } else {
                let n = bytes.len().min(self.left);
                (self.left, self.came) = (self.left - n, self.came + n);
                bytes.advance(n);
            }
            if self.begun == self.prefix.len() && self.left == 0 {
                *self = Message::default();
            }
        }
        self.begun + self.came
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Metered<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let refused = |no| Poll::Ready(Some(Err(status(Error::Refusal(no)))));
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => return self.poll_waits(cx).map_or_else(refused, |()| Poll::Pending),
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Poll::Ready(None) => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            let whole = self.message.take(data);
            if self.messages == RequestMessages::Many && (whole == 0 || whole < self.begun) {
                // A message was completed; the time of the next one starts anew.
                self.late = None;
            }
            self.begun = whole;
            if let Err(no) = self.hold() {
                return refused(no);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::ShareLimits;
    use proptest::prelude::*;

    fn message(size: usize) -> Vec<u8> {
        [&[0][..], &(size as u32).to_be_bytes(), &vec![7; size]].concat()
    }

    #[test]
    fn only_what_is_not_whole_is_held() {
        let mut at = Message::default();
        assert_eq!(at.take(&message(10)), 0);
        assert_eq!(at.take(&[message(3), message(0), message(9)[..7].to_vec()].concat()), 7);
        assert_eq!(at.take(&[7; 7]), 0);
        assert_eq!(at.take(&[0, 0]), 2);
        // An announced length whose bytes never arrive holds no more than the received bytes.
        assert_eq!(at.take(&[255, 255, 255, 1, 2, 3]), 8);
    }

    /// The chunks that a peer sends; afterwards it stays silent.
    struct Drip(Vec<&'static [u8]>);

    impl Body for Drip {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if self.0.is_empty() {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0.remove(0))))))
        }
    }

    async fn refused(body: &mut Metered<Drip>) -> String {
        use http_body_util::BodyExt as _;
        use tonic_types::StatusExt as _;
        loop {
            if let Err(no) = body.frame().await.unwrap() {
                let info = no.get_error_details().error_info().cloned().unwrap();
                return info.metadata.get("rule").cloned().unwrap_or_default();
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_drips_is_refused_when_its_time_is_over() {
        let activity = ConnectionActivity::alone(ShareLimits::AUTHENTICATED);
        let within = Duration::from_millis(30);
        let body = |sent: &[&'static [u8]], messages| {
            let mut body = Metered::new(Drip(sent.to_vec()), activity.clone(), messages);
            body.within = within;
            body
        };
        for (sent, messages) in [
            (vec![], RequestMessages::One),
            (vec![&[0, 0, 0, 0, 9, 1][..]], RequestMessages::One),
            (vec![&[0, 0, 0, 0, 1, 1, 0][..]], RequestMessages::Many),
        ] {
            assert_eq!(refused(&mut body(&sent, messages)).await, "request_ms", "{sent:?}");
        }
        // Between two messages of a stream no time limit runs.
        let mut idle = body(&[&[0, 0, 0, 0, 1, 1]], RequestMessages::Many);
        let waits = tokio::time::timeout(10 * within, refused(&mut idle));
        assert!(waits.await.is_err());
        drop(idle);
        assert!(activity.take_unfinished(limits::CONNECTION_UNFINISHED_BYTES).is_ok(), "all was given back");
    }

    #[tokio::test]
    async fn a_caller_holds_no_more_than_its_share_and_gets_it_back() {
        let activity = ConnectionActivity::alone(ShareLimits::AUTHENTICATED);
        let mut first = Metered::new(Drip(vec![&[0, 0, 0, 0, 9]]), activity.clone(), RequestMessages::One);
        activity.take_unfinished(limits::CONNECTION_UNFINISHED_BYTES - 4).unwrap();
        assert_eq!(refused(&mut first).await, "connection_unfinished_bytes");
        drop(first);
        activity.take_unfinished(4).unwrap();
        activity.give_unfinished(limits::CONNECTION_UNFINISHED_BYTES);
        // On more connections than the limit of one connection allows.
        let most = limits::UNFINISHED_BYTES_PER_CALLER;
        activity.share().take_unfinished(most - 4).unwrap();
        let mut second = Metered::new(Drip(vec![&[0, 0, 0, 0, 9]]), activity.clone(), RequestMessages::One);
        assert_eq!(refused(&mut second).await, "unfinished_bytes_per_caller");
    }

    proptest! {
        /// However the bytes are cut into frames, the held bytes are those after the last complete message.
        #[test]
        fn cuts_do_not_matter(sizes in proptest::collection::vec(0usize..40, 0..12), tail in 0usize..30, cuts in proptest::collection::vec(1usize..20, 1..60)) {
            let mut all: Vec<u8> = sizes.iter().flat_map(|s| message(*s)).collect();
            all.extend_from_slice(&message(40)[..tail]);
            let (mut at, mut rest, mut held) = (Message::default(), &all[..], 0);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                held = at.take(now);
                rest = later;
            }
            prop_assert_eq!(held, tail);
        }
    }
}
