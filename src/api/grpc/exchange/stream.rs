//! `StreamExchange`: a bounded number of concurrent exchanges, answered in any order.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::super::super::call_handler::codec_refusal;
use super::super::super::status::{problem, status};
use super::super::call_trace::end_trace;
use super::answer::issued_to_pb;
use super::{ReceivedRequest, STREAM_EXCHANGE, exchange_one};
use mayfly_authority::authority::Authority;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_base::trace::CallTrace;
use mayfly_credential::IssuedCredential;
use mayfly_identity::caller::Caller;
use mayfly_proto::mayfly::v1 as pb;

type Answer = Result<pb::StreamExchangeResponse, Status>;

/// Answers the requests of a stream until the stream ends.
pub(in super::super) fn answer(
    authority: Arc<Authority>,
    caller: Caller,
    asks: Streaming<pb::StreamExchangeRequest>,
    traced: CallTrace,
) -> mpsc::Receiver<Answer> {
    let (answers, answered) = mpsc::channel(authority.bounds.load().stream_in_flight);
    tokio::spawn(drive(authority, caller, (asks, traced), answers));
    answered
}

async fn drive(
    authority: Arc<Authority>,
    caller: Caller,
    (mut asks, traced): (Streaming<pb::StreamExchangeRequest>, CallTrace),
    answers: mpsc::Sender<Answer>,
) {
    let places = Arc::new(Semaphore::new(authority.bounds.load().stream_in_flight));
    loop {
        let Some((message, place)) = next_message(&places, &mut asks, answers.closed()).await else { return };
        let read = Stopwatch::start();
        let ask = message.map(|message| message.map(|m| m.ask.map(|pb::stream_exchange_request::Ask::Exchange(ask)| ask)));
        let ask = match exchange_of(ask) {
            Ok(ask) => ask,
            Err(None) => return traced.end(0, ""),
            Err(Some(no)) => {
                end_trace(&traced, &no);
                let _ = answers.send(Err(no)).await;
                return;
            }
        };
        match authority.intake.take(1) {
            Ok(taken) => {
                let one = (ask, traced.clone(), read);
                let answer = answer_one(authority.clone(), caller.clone(), one, place, answers.clone());
                drop(tokio::spawn(taken.run(Box::pin(answer))));
            }
            Err(no) => {
                authority.intake.refused(1, read);
                authority.refused(caller.id().as_str(), &no, ask.upstream(), "");
                authority.exchange_metrics.overloaded(std::iter::once(ask.upstream()));
                let _ = answers.send(Ok(response(ask.request_id, Err(Error::Refusal(no))))).await;
            }
        }
    }
}

/// The next message of a stream, once there is a place for its answer; `None` if the caller is gone. At the limit of places nothing is read, and
/// HTTP/2 flow control holds the caller back.
pub(super) async fn next_message<T>(
    places: &Arc<Semaphore>,
    asks: &mut Streaming<T>,
    gone: impl Future<Output = ()>,
) -> Option<(Result<Option<T>, Status>, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    tokio::select! {
        message = asks.message() => Some((message, place)),
        () = gone => None,
    }
}

/// The exchange in a message, or the end of the stream with its status. `Ok(Some(None))`: a message without a field that this version
/// knows.
pub(super) fn exchange_of<R: ReceivedRequest>(message: Result<Option<Option<R>>, Status>) -> Result<R, Option<Status>> {
    let field = |field, what| Err(Some(status(Error::Refusal(Refusal::field(field, what)))));
    match message {
        Ok(Some(Some(ask))) if ask.request_id().is_empty() => {
            field("exchange.request_id", "is missing: on a stream the answer is found by it")
        }
        Ok(Some(Some(ask))) => Ok(ask),
        Ok(Some(None)) => field("ask", "is missing, or of a sort that this version does not know"),
        Ok(None) => Err(None),
        // The caller went away, or sent a malformed message.
        Err(said) => Err(Some(codec_refusal(&said).unwrap_or(said))),
    }
}

async fn answer_one(
    authority: Arc<Authority>,
    caller: Caller,
    (ask, stream, read): (pb::ExchangeRequest, CallTrace, Stopwatch),
    place: OwnedSemaphorePermit,
    answers: mpsc::Sender<Answer>,
) {
    let traced = trace_of(&authority, &caller, &stream, read);
    let request_id = ask.request_id.clone();
    let end = exchange_one(&authority, &caller, (ask, traced), || answers.closed()).await;
    count_latency(&authority, read, 1);
    let _ = answers.send(Ok(response(request_id, end))).await;
    drop(place);
}

/// The trace of one exchange of a stream.
pub(super) fn trace_of(authority: &Authority, caller: &Caller, stream: &CallTrace, read: Stopwatch) -> CallTrace {
    let traced = authority.tracer.on_stream(stream, STREAM_EXCHANGE, read);
    traced.note(|| vec![("mayfly.caller", caller.id().as_str().into())]);
    traced
}

/// Counts the latency of exchanges, from reading to answering. A stream as a whole has no latency.
pub(super) fn count_latency(authority: &Authority, read: Stopwatch, exchanges: usize) {
    if exchanges > 0 {
        let metrics = &authority.call_metrics;
        metrics.took(metrics.method(STREAM_EXCHANGE), read.us(), exchanges as u64);
    }
}

fn response(request_id: String, end: Result<IssuedCredential, Error>) -> pb::StreamExchangeResponse {
    use pb::stream_exchange_response::Result as Outcome;
    let result = match end {
        Ok(issued) => Outcome::Issued(issued_to_pb(issued)),
        Err(no) => Outcome::Problem(problem(no)),
    };
    pb::StreamExchangeResponse { request_id, result: Some(result) }
}
