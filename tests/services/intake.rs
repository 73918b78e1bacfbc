//! Overload: exchanges for which there is no time are refused on every way of exchanging, and everything else goes on.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use mayfly::admission_queue::Ticket;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::serve::connection_table::ConnectionActivity;
use mayfly::serve::grpc::workload_routes;
use mayfly::serve::shares::ShareLimits;
use prost::Message;
use tonic_health::pb::HealthCheckRequest;

use super::locked::{call, exchange};
use super::world;

const EXCHANGE: &str = "/mayfly.v1.TokenService/Exchange";

#[test]
fn without_time_every_exchange_is_refused_and_the_rest_is_answered() {
    let w = world();
    let health = tonic_health::server::HealthReporter::new();
    let services = workload_routes(w.authority(), &health);
    let peer = w.workload("/agent/demo");
    let tickets: Vec<Ticket> = std::iter::from_fn(|| w.authority().intake.take(1).ok()).collect();
    w.run(async {
        assert_eq!(call(&services, &peer, EXCHANGE, &exchange("")).await.reason, "LIMIT_REACHED");
        let batch = pb::BatchExchangeRequest { exchanges: vec![exchange("")], ..Default::default() };
        let came = call(&services, &peer, "/mayfly.v1.TokenService/BatchExchange", &batch).await;
        assert_eq!(came.reason, "LIMIT_REACHED");
        let one = pb::StreamExchangeRequest { ask: Some(pb::stream_exchange_request::Ask::Exchange(exchange("one"))) };
        let came = call(&services, &peer, "/mayfly.v1.TokenService/StreamExchange", &one).await;
        let Some(pb::stream_exchange_response::Result::Problem(problem)) =
            pb::StreamExchangeResponse::decode(came.message).unwrap().result
        else {
            panic!("issued without time")
        };
        assert_eq!((problem.rule.as_str(), problem.retry_after.is_some()), ("intake_wait_ms", true));
        let healthy = call(&services, &peer, "/grpc.health.v1.Health/Check", &HealthCheckRequest::default()).await;
        assert_eq!(healthy.reason, "");
        let whoami = call(&services, &peer, "/mayfly.v1.TokenService/Whoami", &pb::WhoamiRequest {}).await;
        assert_eq!(whoami.reason, "");
        assert_eq!(w.authority().intake.load().refused.iter().sum::<u64>(), 3);
        drop(tickets);
        assert_eq!(call(&services, &peer, EXCHANGE, &exchange("")).await.reason, "", "there is time again");
    });
    // The deciding task gives its place back, perhaps after the answer was read.
    let given_back = (0..500).any(|n| {
        std::thread::sleep(Duration::from_millis(n.min(10)));
        w.authority().intake.load().waiting == 0
    });
    assert!(given_back, "a place is kept for who was answered");
}

// The plain path counts a request when its message was read.
#[test]
#[cfg_attr(not(feature = "fast"), ignore = "a property of the fast path")]
fn whoever_does_not_send_what_he_wants_takes_nobodys_place() {
    let w = world();
    let health = tonic_health::server::HealthReporter::new();
    let services = workload_routes(w.authority(), &health);
    let never = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let stalls = http::Request::post(EXCHANGE).header("content-type", "application/grpc").body(never).unwrap();
    w.run(async {
        let calls =
            services.clone().on_connection(w.workload("/agent/demo"), ConnectionActivity::alone(ShareLimits::AUTHENTICATED));
        let arrived = calls.arrived(&stalls);
        assert_eq!(w.authority().intake.load().waiting, 1, "it is counted when it is read");
        let answered = calls.answer(stalls, arrived, &Default::default());
        assert!(tokio::time::timeout(Duration::from_millis(20), answered).await.is_err());
        assert_eq!(w.authority().intake.load().waiting, 0);
    });
}
