//! What peers sent of messages that are not whole yet, bounded per connection and in all.
//!
//! A message may have `limits::REQUEST_BYTES` and a connection `limits::CONNECTION_STREAMS` calls: without a bound of its own one peer could
//! have the server hold gigabytes of messages that never end. Messages that come whole cost nothing here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

use super::status::status;
use crate::limits;
use crate::refusal::{No, Refusal};

/// Of the whole process.
static IN_ALL: AtomicUsize = AtomicUsize::new(0);

/// What one connection may hold.
#[derive(Clone, Default)]
pub struct Budget {
    own: Arc<AtomicUsize>,
}

impl Budget {
    fn take(&self, bytes: usize) -> Result<(), Refusal> {
        let own = self.own.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = IN_ALL.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let over = |name, bound: usize| Err(Refusal::limit(name, bound as u64, Duration::from_secs(1)));
        if own > limits::CONNECTION_UNFINISHED_BYTES {
            return over("connection_unfinished_bytes", limits::CONNECTION_UNFINISHED_BYTES);
        }
        if all > limits::UNFINISHED_BYTES {
            return over("unfinished_bytes", limits::UNFINISHED_BYTES);
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        IN_ALL.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A request's body, its unfinished message counted.
pub struct Metered<B> {
    body: B,
    budget: Budget,
    message: Message,
    held: usize,
}

impl<B> Metered<B> {
    /// Counted against a connection's budget.
    pub fn new(body: B, budget: Budget) -> Metered<B> {
        Metered { body, budget, message: Message::default(), held: 0 }
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = std::mem::replace(&mut self.held, bytes);
        if bytes > before {
            return self.budget.take(bytes - before);
        }
        if before > bytes {
            self.budget.give_back(before - bytes);
        }
        Ok(())
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        if self.held > 0 {
            self.budget.give_back(self.held);
        }
    }
}

/// Where in its length-prefixed messages a body stands (gRPC over HTTP/2, "Length-Prefixed-Message").
#[derive(Default)]
struct Message {
    prefix: [u8; 5],
    /// Bytes of the prefix that came.
    begun: usize,
    /// Bytes of the message that are to come.
    left: usize,
    /// Bytes of it that came.
    came: usize,
}

impl Message {
    /// Goes on by what came. Answers with the bytes that are held of a message that is not whole.
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
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        let held = frame.data_ref().map(|data| self.message.take(data));
        if let Some(Err(no)) = held.map(|held| self.hold(held)) {
            return Poll::Ready(Some(Err(status(No::Refusal(no)))));
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
        // A length that never comes holds no more than what came.
        assert_eq!(at.take(&[255, 255, 255, 1, 2, 3]), 8);
    }

    #[test]
    fn a_connection_holds_no_more_than_its_budget_and_gets_it_back() {
        let (budget, empty) = (Budget::default(), || http_body_util::Empty::<Bytes>::new());
        let most = limits::CONNECTION_UNFINISHED_BYTES;
        let mut first = Metered::new(empty(), budget.clone());
        first.hold(most - 10).unwrap();
        let mut second = Metered::new(empty(), budget.clone());
        second.hold(10).unwrap();
        let no = second.hold(11).unwrap_err();
        assert_eq!(no.rule.as_deref(), Some("connection_unfinished_bytes"));
        drop(second);
        first.hold(5).unwrap();
        assert_eq!(budget.own.load(Ordering::Relaxed), 5);
        drop(first);
        assert_eq!(budget.own.load(Ordering::Relaxed), 0);
    }

    proptest! {
        /// However the bytes are cut into frames, what is held is what lies beyond the last whole message.
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
