//! Calls for the tests of traces and log lines: exchanges with and without a `traceparent`, over real mTLS.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::kit::Up;

pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const PARENT: &str = "00f067aa0ba902b7";
/// Free text of a caller, which must not appear in a trace or a log line.
pub const PURPOSE: &str = "a purpose that only the audit holds \u{202e}";

pub fn sampled() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

pub fn ask(task: &str, request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.into())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        purpose: PURPOSE.into(),
        request_id: request_id.into(),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    }
}

/// Adds these `traceparent` headers, in order.
pub fn traced<T>(message: T, traceparents: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    for value in traceparents {
        request.metadata_mut().append("traceparent", value.parse().unwrap());
    }
    request
}

pub async fn exchange(channel: &Channel, ask: pb::ExchangeRequest, traceparents: &[&str]) -> Result<pb::Issued, Status> {
    let answer = TokenServiceClient::new(channel.clone()).exchange(traced(ask, traceparents)).await?;
    Ok(answer.into_inner().issued.unwrap())
}

/// The sequence numbers of the records that name something.
pub async fn recorded(up: &Up, name: &str) -> Vec<(u64, String, serde_json::Value)> {
    let channel = up.world.channel("operator/you", up.admin()).await.unwrap();
    let filter = pb::RecordFilter { names: name.into(), ..Default::default() };
    let request = pb::SearchRecordsRequest { filter: Some(filter), ..Default::default() };
    let found = AuditServiceClient::new(channel).search_records(request).await.unwrap().into_inner().records;
    found.into_iter().map(|r| (r.seq, r.event, serde_json::from_str(&r.body).unwrap())).collect()
}

/// The number of answers on a stream with these requests.
pub async fn stream(channel: Channel, asks: Vec<pb::ExchangeRequest>, traceparents: &[&str]) -> usize {
    let asks =
        asks.into_iter().map(|ask| pb::StreamExchangeRequest { ask: Some(pb::stream_exchange_request::Ask::Exchange(ask)) });
    let asks = tokio_stream::iter(asks.collect::<Vec<_>>());
    let answers = TokenServiceClient::new(channel).stream_exchange(traced(asks, traceparents)).await.unwrap().into_inner();
    answers.map(Result::unwrap).collect::<Vec<_>>().await.len()
}
