//! Calls: one exchange each (unary), or a batch of a hundred.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tonic::Status;

use super::direct::{Direct, encoded};
use super::{LoadAnswer, LoadConnection};
use mayfly_base::limits;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::token_service_client::TokenServiceClient;

/// The maximum number of calls of an open loop in flight on one connection. Further calls that are due are counted and not sent.
const UNDER_WAY: usize = 8 * limits::CONNECTION_STREAMS as usize;

fn answer(answered: Result<tonic::Response<pb::ExchangeResponse>, Status>) -> LoadAnswer {
    match answered {
        Ok(answer) => answer.into_inner().issued.map_or_else(LoadAnswer::empty, LoadAnswer::of_issued),
        Err(status) => LoadAnswer::of_status(&status),
    }
}

/// A closed loop of unary calls: each call follows an answer. After a refusal the loop waits a little, as a real caller would.
pub async fn unary(one: LoadConnection) {
    let mut client = TokenServiceClient::new(one.channel.clone());
    while !one.outcome.stopped() {
        let Some((place, request)) = one.next().await else { return };
        let sent = Instant::now();
        let answer = answer(client.exchange(request).await);
        let refused = matches!(answer, LoadAnswer::Refused(_));
        one.done(sent, &place, answer);
        if refused {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// An open loop of unary calls, each sent at its scheduled time. Latency counts from that time, even if the generator was late.
pub async fn unary_at(one: LoadConnection, direct: Direct, rate: f64) {
    let (one, all) = (Arc::new(one), Arc::new(Semaphore::new(UNDER_WAY)));
    let began = Instant::now();
    let mut count = 0u32;
    while !one.outcome.stopped() {
        let due = began + Duration::from_secs_f64(f64::from(count) / rate);
        count += 1;
        tokio::time::sleep_until(due.into()).await;
        let Ok(under_way) = all.clone().try_acquire_owned() else {
            one.outcome.unsent();
            continue;
        };
        let Some((place, request)) = one.next().await else { return };
        let message = match encoded(&request) {
            Ok(message) => message,
            Err(error) => return one.outcome.wrong(error.to_string()),
        };
        let (one, direct) = (one.clone(), direct.clone());
        tokio::spawn(async move {
            let _under_way = under_way;
            let answer = direct.exchange(message).await;
            one.done(due, &place, answer);
        });
    }
}

/// A closed loop of batch calls of a hundred exchanges.
pub async fn batch(one: LoadConnection) {
    let mut client = TokenServiceClient::new(one.channel.clone());
    while !one.outcome.stopped() {
        let (mut exchanges, mut places) = (Vec::with_capacity(limits::BATCH), Vec::with_capacity(limits::BATCH));
        for _ in 0..limits::BATCH {
            // A batch with an exchange that opens a task is not delayed by waiting for further exchanges.
            let next = if places.is_empty() { one.next().await } else { one.at_hand() };
            let Some((place, request)) = next else { break };
            exchanges.push(request);
            places.push(place);
        }
        if places.is_empty() {
            return;
        }
        let sent = Instant::now();
        match client.batch_exchange(pb::BatchExchangeRequest { exchanges, all_or_nothing: false }).await {
            Ok(answer) => {
                for (result, place) in answer.into_inner().results.into_iter().zip(&places) {
                    let answer = match result.result {
                        Some(pb::exchange_result::Result::Issued(issued)) => LoadAnswer::of_issued(issued),
                        Some(pb::exchange_result::Result::Problem(p)) => LoadAnswer::of_problem(p),
                        None => LoadAnswer::empty(),
                    };
                    one.done(sent, place, answer);
                }
            }
            Err(status) => places.iter().for_each(|place| one.done(sent, place, LoadAnswer::of_status(&status))),
        }
    }
}
