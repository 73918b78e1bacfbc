//! StreamExchange: a bounded number of exchanges under way, answered in any order.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::Body as HttpBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::super::answer::of_codec;
use super::super::peer;
use super::super::status::{problem, status};
use super::token::Tokens;
use super::told::{Patterns, StreamCodec, Told};
use super::{note, round};
use crate::authority::Authority;
use crate::credential::Issued;
use crate::identity::caller::Caller;
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::policy::wanted::Wanted;
use crate::refusal::{No, Refusal};
use crate::system::Stopwatch;

/// It asks for an exchange, once it was looked at.
type Ask = Box<pb::StreamExchangeRequest>;
type Message = Result<Option<Ask>, Status>;
type Answer = Result<Told, Status>;
/// Each holds its place until it is taken out.
type Batch = Vec<(Answer, Option<OwnedSemaphorePermit>)>;

/// The answers of a stream.
pub struct Answers {
    batches: mpsc::Receiver<Batch>,
    now: std::vec::IntoIter<(Answer, Option<OwnedSemaphorePermit>)>,
}

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        loop {
            if let Some((answer, _place)) = self.now.next() {
                return Poll::Ready(Some(answer));
            }
            match ready!(self.batches.poll_recv(cx)) {
                Some(batch) => self.now = batch.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// The path of the method.
pub const PATH: &str = "/mayfly.v1.TokenService/StreamExchange";

struct Method(Tokens);

impl StreamingService<Ask> for Method {
    type Response = Told;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Ask>>) -> Self::Future {
        let own = &self.0;
        std::future::ready(peer::caller(&request).map(|caller| {
            let asks = request.into_inner();
            Response::new(answer(own.0.clone(), caller, asks))
        }))
    }
}

/// Answers one call as tonic's own code does, but for how answers are encoded.
pub async fn exchange<B>(own: &Tokens, call: http::Request<B>) -> http::Response<Body>
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let limits = (Some(limits::REQUEST_BYTES), None);
    let mut grpc = Grpc::new(StreamCodec).apply_max_message_size_config(limits.0, limits.1);
    grpc.streaming(Method(own.clone()), call).await
}

/// Answers what a stream asks, until it ends.
pub fn answer<S>(authority: Arc<Authority>, caller: Caller, asks: S) -> Answers
where
    S: Stream<Item = Result<Ask, Status>> + Send + Unpin + 'static,
{
    let (answers, batches) = mpsc::channel(authority.bounds.stream_in_flight);
    tokio::spawn(drive(authority, Arc::new(caller), asks, answers));
    Answers { batches, now: Vec::new().into_iter() }
}

async fn drive<S>(authority: Arc<Authority>, caller: Arc<Caller>, mut asks: S, answers: mpsc::Sender<Batch>)
where
    S: Stream<Item = Result<Ask, Status>> + Unpin,
{
    let places = Arc::new(Semaphore::new(authority.bounds.stream_in_flight));
    loop {
        // At the bound nothing more is read: HTTP/2's window holds the caller back.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let message = tokio::select! {
            message = asks.next() => message.transpose(),
            () = answers.closed() => return,
        };
        let (mut round, mut held) = (Vec::with_capacity(limits::STREAM_ROUND), Vec::with_capacity(limits::STREAM_ROUND));
        let (mut next, read) = (Some((message, place)), Stopwatch::start());
        let most = authority.intake.round(limits::STREAM_ROUND);
        // What came together is decided together: a task for each would cost as much as deciding.
        let over = loop {
            let Some((message, place)) = next.take() else { break None };
            match exchange_of(message) {
                Ok(ask) => {
                    round.push(ask);
                    held.push(place);
                }
                Err(over) => break Some(over),
            }
            if round.len() < most
                && let Ok(place) = places.clone().try_acquire_owned()
            {
                next = at_hand(&mut asks).await.map(|message| (message, place));
            }
        };
        if !round.is_empty() {
            match authority.intake.take(round.len()) {
                Ok(taken) => {
                    let all = answer_all(authority.clone(), caller.clone(), round, held, answers.clone());
                    drop(tokio::spawn(taken.run(all)));
                }
                Err(no) => {
                    let refused = no_time(&authority, &caller, round, held, &No::Refusal(no));
                    authority.intake.refused(refused.len(), read);
                    let _ = answers.send(refused).await;
                }
            }
        }
        match over {
            None => {}
            Some(None) => return,
            Some(Some(no)) => {
                let _ = answers.send(vec![(Err(no), None)]).await;
                return;
            }
        }
    }
}

/// There is no time for any of them.
fn no_time(authority: &Authority, caller: &Caller, mut asks: Vec<Ask>, places: Vec<OwnedSemaphorePermit>, no: &No) -> Batch {
    let refused = |(ask, place): (&mut pb::ExchangeRequest, _)| {
        note(authority, caller, no, &ask.upstream, "");
        let result = Some(pb::stream_exchange_response::Result::Problem(problem(no.clone())));
        let told = pb::StreamExchangeResponse { request_id: std::mem::take(&mut ask.request_id), result };
        (Ok(Told::Whole(Box::new(told))), Some(place))
    };
    asks.iter_mut().filter_map(exchange_in).zip(places).map(refused).collect()
}

fn exchange_in(ask: &mut Ask) -> Option<&mut pb::ExchangeRequest> {
    match &mut ask.ask {
        Some(pb::stream_exchange_request::Ask::Exchange(exchange)) => Some(exchange),
        None => None,
    }
}

/// The next message, if it is here already.
async fn at_hand<S: Stream<Item = Result<Ask, Status>> + Unpin>(asks: &mut S) -> Option<Message> {
    std::future::poll_fn(|cx| match Pin::new(&mut *asks).poll_next(cx) {
        Poll::Ready(message) => Poll::Ready(Some(message.transpose())),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The exchange that a message asks for, or the end of the stream and why.
fn exchange_of(message: Message) -> Result<Ask, Option<Status>> {
    let field = |field, what| Err(Some(status(No::Refusal(Refusal::field(field, what)))));
    match message {
        Ok(Some(mut ask)) => match exchange_in(&mut ask) {
            Some(exchange) if exchange.request_id.is_empty() => {
                field("exchange.request_id", "is missing: on a stream the answer is found by it")
            }
            Some(_) => Ok(ask),
            None => field("ask", "is missing, or of a sort that this version does not know"),
        },
        Ok(None) => Err(None),
        // The caller went away, or sent what is no message.
        Err(said) => Err(Some(of_codec(&said).unwrap_or(said))),
    }
}

/// Each is answered when it is ready: what takes its time holds up none of the others.
async fn answer_all(
    authority: Arc<Authority>,
    caller: Arc<Caller>,
    mut asks: Vec<Ask>,
    places: Vec<OwnedSemaphorePermit>,
    answers: mpsc::Sender<Batch>,
) {
    let count = asks.len();
    let (mut wants, parts, round) = round::begin(&authority, &caller, asks.iter_mut().filter_map(exchange_in), count);
    drop(asks);
    let (mut batch, mut patterns) = (Vec::with_capacity(count), Patterns::default());
    for (place, (asked, part)) in places.into_iter().zip(wants.iter_mut().zip(parts)) {
        // They stand in one line, so one that is not ready is followed by none that is.
        match round::end(&authority, part).await {
            Some(end) => batch.push((told(&authority, &caller, &mut patterns, asked, end), Some(place))),
            None => {
                if let Ok(want) = std::mem::replace(asked, Err(String::new())) {
                    tokio::spawn(answer_slowly(authority.clone(), caller.clone(), want, place, answers.clone()));
                }
            }
        }
    }
    drop(round);
    let _ = answers.send(batch).await;
}

async fn answer_slowly(
    authority: Arc<Authority>,
    caller: Arc<Caller>,
    want: Wanted,
    place: OwnedSemaphorePermit,
    answers: mpsc::Sender<Batch>,
) {
    let end = authority.exchange_unless(&caller, &want, || answers.closed()).await;
    let told = told(&authority, &caller, &mut Patterns::default(), &mut Ok(want), end);
    let _ = answers.send(vec![(told, Some(place))]).await;
}

fn told(
    authority: &Authority,
    caller: &Caller,
    patterns: &mut Patterns,
    asked: &mut round::Asked,
    end: Result<Issued, No>,
) -> Answer {
    let end = round::noted(authority, caller, asked.as_ref().ok(), end);
    let request_id = match asked {
        Ok(want) => want.request_id.take().unwrap_or_default(),
        Err(id) => std::mem::take(id),
    };
    match end {
        Ok(issued) => Ok(patterns.tell(request_id, issued)),
        Err(no) => {
            let result = Some(pb::stream_exchange_response::Result::Problem(problem(no)));
            Ok(Told::Whole(Box::new(pb::StreamExchangeResponse { request_id, result })))
        }
    }
}
