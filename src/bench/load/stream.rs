//! Exchanges on a bidirectional stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::tasks::TaskAssignment;
use super::{LoadAnswer, LoadConnection};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::token_service_client::TokenServiceClient;

/// The exchanges sent and not answered, with their scheduled times.
type UnderWay = Mutex<HashMap<String, (Instant, TaskAssignment)>>;

struct Sender {
    one: LoadConnection,
    send: mpsc::Sender<pb::StreamExchangeRequest>,
    under_way: UnderWay,
    /// In a closed loop, the number of exchanges that may still be sent.
    places: Semaphore,
}

/// Runs the load on a stream. A closed loop sends the next exchange on an answer, an open loop on schedule.
pub async fn run(one: LoadConnection) {
    let (send, asks) = mpsc::channel(one.in_flight as usize);
    let answers = TokenServiceClient::new(one.channel.clone()).stream_exchange(ReceiverStream::new(asks)).await;
    let answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) => return one.outcome.wrong(status.message().to_owned()),
    };
    let (rate, in_flight) = (one.rate, one.in_flight);
    let sender = Arc::new(Sender { one, send, under_way: UnderWay::default(), places: Semaphore::new(in_flight as usize) });
    match rate {
        Some(rate) => drop(tokio::spawn(pace(sender.clone(), rate))),
        None => drop(tokio::spawn(follow(sender.clone()))),
    }
    read(&sender, answers).await;
    sender.places.close();
}

async fn read(sender: &Sender, mut answers: Streaming<pb::StreamExchangeResponse>) {
    let outcome = &sender.one.outcome;
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return outcome.wrong("the server ended a stream".to_owned()),
            Err(status) => return outcome.wrong(status.message().to_owned()),
        };
        let known = sender.under_way.lock().remove(&answer.request_id);
        let Some((sent, place)) = known else { return outcome.wrong("an answer to what nobody asked".to_owned()) };
        let answer = match answer.result {
            Some(pb::stream_exchange_response::Result::Issued(issued)) => LoadAnswer::of_issued(issued),
            Some(pb::stream_exchange_response::Result::Problem(p)) => LoadAnswer::of_problem(p),
            None => LoadAnswer::empty(),
        };
        sender.one.done(sent, &place, answer);
        if outcome.stopped() {
            return;
        }
        sender.places.add_permits(1);
    }
}

impl Sender {
    async fn send(&self, due: Option<Instant>) -> bool {
        let Some((place, request)) = self.one.next().await else { return false };
        self.under_way.lock().insert(request.request_id.clone(), (due.unwrap_or_else(Instant::now), place));
        let message = pb::StreamExchangeRequest { ask: Some(pb::stream_exchange_request::Ask::Exchange(request)) };
        self.send.send(message).await.is_ok()
    }
}

/// The sending half of a closed loop. It runs apart from the task that reads answers, since it may wait for a task that one of those
/// answers opens.
async fn follow(sender: Arc<Sender>) {
    while let Ok(place) = sender.places.acquire().await {
        place.forget();
        if sender.one.outcome.stopped() || !sender.send(None).await {
            return;
        }
    }
}

async fn pace(sender: Arc<Sender>, rate: f64) {
    let began = Instant::now();
    let mut count = 0u32;
    while !sender.one.outcome.stopped() {
        let due = began + Duration::from_secs_f64(f64::from(count) / rate);
        count += 1;
        tokio::time::sleep_until(due.into()).await;
        if !sender.send(Some(due)).await {
            return;
        }
    }
}
