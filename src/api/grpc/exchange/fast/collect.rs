//! Batching of single exchanges of one connection: exchanges that arrive at the same time are decided as one batch, as those of a stream
//! are. Their common parts are decided, encoded and written to the log once.
//!
//! A call puts its request into its connection's queue. The first call in an empty queue schedules the processing of the queue for
//! the moment when all tasks that are ready have run, which is at once if there are none.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::super::batch as exchange_batch;
use super::decode::RawRequest;
use super::encode::{AnswerEncoder, answer_of};
use mayfly_authority::admission::admission_queue::Ticket;
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::DecisionCache;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault};
use mayfly_base::trace::CallTrace;
use mayfly_identity::caller::Caller;
use mayfly_policy::exchange_request::ExchangeRequest;

/// The queue of one connection. The connection's limit of concurrent calls bounds it.
pub(in super::super::super) struct UnaryBatcher {
    authority: Arc<Authority>,
    caller: Caller,
    cache: DecisionCache,
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    ask: RawRequest,
    taken: Ticket,
    traced: CallTrace,
    reply: oneshot::Sender<Reply>,
}

/// The outcome of a batch for one call.
pub(super) enum Reply {
    /// The message that answers the call.
    Over(Result<Bytes, Error>),
    /// The exchange has to wait for something and is continued outside of the batch, so that it delays no other.
    Slow(Box<ExchangeRequest>),
}

impl UnaryBatcher {
    pub fn new(authority: Arc<Authority>, caller: Caller) -> Arc<UnaryBatcher> {
        Arc::new(UnaryBatcher { authority, caller, cache: DecisionCache::default(), waiting: Mutex::default() })
    }

    /// Puts one call into the queue. If the returned receiver is dropped before the batch begins, the call is skipped.
    pub(super) fn enter(self: &Arc<UnaryBatcher>, ask: RawRequest, taken: Ticket, traced: CallTrace) -> oneshot::Receiver<Reply> {
        let (reply, said) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.push(Waiting { ask, taken, traced, reply });
            waiting.len() == 1
        };
        if first {
            drop(tokio::spawn(self.clone().serve()));
        }
        said
    }

    /// Answers an exchange that has to wait.
    pub(super) async fn slowly(self: Arc<UnaryBatcher>, want: Box<ExchangeRequest>) -> Result<Bytes, Error> {
        let end = want.traced.clone().scope(self.authority.exchange(&self.caller, &want)).await;
        exchange_batch::record_outcome(&self.authority, &self.caller, Some(&want), end).map(answer_of)
    }

    async fn serve(self: Arc<UnaryBatcher>) {
        tokio::task::yield_now().await;
        let mut all = std::mem::take(&mut *self.waiting.lock());
        all.retain(|one| !one.reply.is_closed());
        // Group exchanges of the same task, since consecutive ones share their signing work. They arrived at the same time, so no order is
        // lost.
        if !all.is_sorted_by_key(|one| one.ask.task()) {
            all.sort_by_key(|one| one.ask.task());
        }
        let most = self.authority.intake.batch_size(limits::STREAM_ROUND);
        while all.len() > most {
            let rest = all.split_off(most);
            drop(tokio::spawn(self.clone().answer_batch(std::mem::replace(&mut all, rest))));
        }
        self.answer_batch(all).await;
    }

    async fn answer_batch(self: Arc<UnaryBatcher>, all: Vec<Waiting>) {
        let (mut asks, mut replies, mut together) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()), None);
        for Waiting { ask, taken, traced, reply } in all {
            asks.push((ask, traced));
            replies.push(reply);
            together = Some(taken.with(together));
        }
        if let Some(taken) = together {
            taken.run(self.decide(asks, replies)).await;
        }
    }

    async fn decide(&self, asks: Vec<(RawRequest, CallTrace)>, replies: Vec<oneshot::Sender<Reply>>) {
        let (authority, caller) = (&self.authority, &self.caller);
        let count = asks.len();
        let (wants, parts, mut begun) = exchange_batch::begin(authority, (caller, &self.cache), asks.into_iter(), count);
        let mut answers = authority.answers(&mut begun).await;
        let mut patterns = AnswerEncoder::default();
        for (reply, (asked, part)) in replies.into_iter().zip(wants.into_iter().zip(parts)) {
            // The answers become ready in the order of the queue: if one is not ready, none after it is.
            let said = match (exchange_batch::end((authority, &self.cache), part, &asked, &mut answers).await, asked) {
                (Some(end), asked) => {
                    Reply::Over(exchange_batch::record_outcome(authority, caller, asked.as_deref().ok(), end).map(|issued| {
                        // The answer to a batch of one shares nothing, so it bypasses the pattern.
                        if count == 1 { answer_of(issued) } else { patterns.answer(issued) }
                    }))
                }
                (None, Ok(want)) => Reply::Slow(want),
                (None, Err(_)) => Reply::Over(Err(Fault::new("a batch has an answer to no request").into())),
            };
            let _ = reply.send(said);
        }
        drop(begun);
    }
}
