//! Decoding of stream requests: most are read by the fast decoder, the rest by prost, and the answers must not differ.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use mayfly::identity::caller::Caller;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::stream_exchange_response::Result as Answer;
use mayfly::serve::connection_table::ConnectionActivity;
use mayfly::serve::grpc::{Services, workload_routes};
use mayfly::serve::peer::Peer;
use mayfly::serve::shares::ShareLimits;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::kit::house::terms;
use super::locked::call;
use super::{World, refusals, world};

fn exchange(task: &str, request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.into())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: "say".into(),
        request_id: request_id.into(),
        ..Default::default()
    }
}

fn of_stream(exchange: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    prost::encoding::bytes::encode(1, &exchange.to_vec(), &mut message);
    message
}

/// The same message with its last field first.
fn turned(exchange: &pb::ExchangeRequest) -> Vec<u8> {
    let last = pb::ExchangeRequest { request_id: exchange.request_id.clone(), ..Default::default() };
    let rest = pb::ExchangeRequest { request_id: String::new(), ..exchange.clone() };
    [last.encode_to_vec(), rest.encode_to_vec()].concat()
}

/// The answers by request id, and how the stream ended.
async fn ask(services: &Services, peer: &Peer, messages: &[Vec<u8>]) -> (BTreeMap<String, Answer>, Status) {
    let mut body = Vec::new();
    for message in messages {
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.put_slice(message);
    }
    let request = http::Request::post("/mayfly.v1.TokenService/StreamExchange").header("content-type", "application/grpc");
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let calls = services.clone().on_connection(peer.clone(), ConnectionActivity::alone(ShareLimits::AUTHENTICATED));
    let arrived = calls.arrived(&request);
    let response = calls.answer(request, arrived, &Default::default()).await;
    let collected = response.into_body().collect().await.unwrap();
    let end = collected.trailers().and_then(Status::from_header_map).unwrap();
    let (mut bytes, mut answers) = (collected.to_bytes(), BTreeMap::new());
    while bytes.has_remaining() {
        assert_eq!(bytes.get_u8(), 0);
        let length = bytes.get_u32() as usize;
        let answer = pb::StreamExchangeResponse::decode(bytes.split_to(length)).unwrap();
        answers.insert(answer.request_id, answer.result.unwrap());
    }
    (answers, end)
}

fn credential(answer: &Answer) -> &str {
    match answer {
        Answer::Issued(issued) => &issued.credential_id,
        Answer::Problem(problem) => panic!("{problem:?}"),
    }
}

fn opened(w: &World, caller: &Caller) -> String {
    w.run(w.authority().open_task(caller, &terms(), &None, false)).unwrap().to_string()
}

#[test]
fn the_same_request_in_another_form_is_the_same() {
    let w = world();
    let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
    let (peer, task) = (w.workload("/agent/a"), opened(&w, &w.house.caller("/agent/a")));
    let one = exchange(&task, "1");
    let messages = ["1", "2", "3"].map(|id| of_stream(&exchange(&task, id).encode_to_vec()));
    w.run(async {
        let (first, end) = ask(&services, &peer, &messages).await;
        assert_eq!((first.len(), end.code()), (3, Code::Ok));
        let id = credential(&first["1"]);
        assert_ne!(id, credential(&first["2"]));
        let (again, _) = ask(&services, &peer, &[of_stream(&turned(&one))]).await;
        assert_eq!(credential(&again["1"]), id);
        let came = call(&services, &peer, "/mayfly.v1.TokenService/Exchange", &one).await;
        assert_eq!(pb::ExchangeResponse::decode(came.message).unwrap().issued.unwrap().credential_id, id);
        let batch = pb::BatchExchangeRequest { exchanges: vec![one.clone()], ..Default::default() };
        let came = call(&services, &peer, "/mayfly.v1.TokenService/BatchExchange", &batch).await;
        let results = pb::BatchExchangeResponse::decode(came.message).unwrap().results;
        let Some(pb::exchange_result::Result::Issued(issued)) = &results[0].result else { panic!("{results:?}") };
        assert_eq!(issued.credential_id, id);
        let other = pb::ExchangeRequest { tool: "shout".into(), ..one };
        let (other, _) = ask(&services, &peer, &[of_stream(&other.encode_to_vec())]).await;
        assert!(matches!(&other["1"], Answer::Problem(_)), "one name for two requests");
    });
}

#[test]
fn a_batch_of_all_or_nothing_is_refused_with_the_status_of_the_exchange_that_was() {
    let w = world();
    let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
    let (peer, task) = (w.workload("/agent/a"), opened(&w, &w.house.caller("/agent/a")));
    let refused = |wrong: pb::ExchangeRequest| {
        let exchanges = vec![exchange(&task, "one"), wrong, exchange(&task, "three")];
        let batch = pb::BatchExchangeRequest { exchanges, all_or_nothing: true };
        w.run(call(&services, &peer, "/mayfly.v1.TokenService/BatchExchange", &batch))
    };
    let malformed = refused(pb::ExchangeRequest { tool: "t".repeat(257), ..exchange(&task, "two") });
    assert_eq!(
        (malformed.reason.as_str(), malformed.fields.as_slice()),
        ("INVALID_FIELD", ["exchanges[1].tool".to_owned()].as_slice())
    );
    let unknown = refused(pb::ExchangeRequest { upstream: "nowhere".into(), ..exchange(&task, "two") });
    assert_eq!(unknown.fields, ["exchanges[1]"], "{unknown:?}");
    assert!(unknown.reason != "INVALID_FIELD" && !unknown.reason.is_empty(), "{unknown:?}");
    let twice = refused(exchange(&task, "one"));
    assert_eq!(
        (twice.reason.as_str(), twice.fields.as_slice()),
        ("INVALID_FIELD", ["exchanges[1].request_id".to_owned()].as_slice())
    );
    // Nothing was issued: the names of the requests are free.
    let exchanges = vec![exchange(&task, "one"), exchange(&task, "two"), exchange(&task, "three")];
    let batch = pb::BatchExchangeRequest { exchanges, all_or_nothing: true };
    let came = w.run(call(&services, &peer, "/mayfly.v1.TokenService/BatchExchange", &batch));
    assert_eq!(came.reason, "");
    let results = pb::BatchExchangeResponse::decode(came.message).unwrap().results;
    assert!(results.len() == 3 && results.iter().all(|r| matches!(r.result, Some(pb::exchange_result::Result::Issued(_)))));
    // The refusal is in the audit, with its upstream.
    w.pass(1);
    let agent = "spiffe://dev.mayfly.internal/agent/a".to_owned();
    assert_eq!(refusals(&w), [(agent, "nowhere".to_owned(), unknown.reason)]);
}

/// The contract of `BatchExchangeRequest`: without `all_or_nothing`, a request id that is there again makes a repeat.
#[test]
fn a_request_id_twice_in_a_batch_is_a_repeat() {
    let w = world();
    let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
    let (peer, task) = (w.workload("/agent/a"), opened(&w, &w.house.caller("/agent/a")));
    let other = pb::ExchangeRequest { tool: "shout".into(), ..exchange(&task, "one") };
    let exchanges = vec![exchange(&task, "one"), exchange(&task, "one"), exchange(&task, "two"), other];
    let batch = pb::BatchExchangeRequest { exchanges, all_or_nothing: false };
    let came = w.run(call(&services, &peer, "/mayfly.v1.TokenService/BatchExchange", &batch));
    let results = pb::BatchExchangeResponse::decode(came.message).unwrap().results;
    let told = results.iter().map(|one| match one.result.as_ref().unwrap() {
        pb::exchange_result::Result::Issued(issued) => issued.credential_id.clone(),
        pb::exchange_result::Result::Problem(problem) => problem.reason.clone(),
    });
    let told: Vec<String> = told.collect();
    assert!(told[0] == told[1] && told[0] != told[2] && told[0].starts_with("cred_"), "{told:?}");
    assert_eq!(told[3], "REQUEST_ID_REUSED", "{told:?}");
}

#[test]
fn what_is_wrong_is_answered_by_its_name_or_ends_the_stream() {
    let w = world();
    let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
    let (peer, task) = (w.workload("/agent/a"), opened(&w, &w.house.caller("/agent/a")));
    let good = |id: &str| of_stream(&exchange(&task, id).encode_to_vec());
    let odd = pb::ExchangeRequest { authorization_details: "[]".into(), ..exchange(&task, "odd") };
    let long = pb::ExchangeRequest { tool: "t".repeat(257), ..exchange(&task, "long") };
    let asked = [good("a"), of_stream(&odd.encode_to_vec()), of_stream(&long.encode_to_vec()), good("b")];
    let (answers, end) = w.run(ask(&services, &peer, &asked));
    assert_eq!((answers.len(), end.code()), (4, Code::Ok));
    assert_ne!(credential(&answers["a"]), credential(&answers["b"]));
    let said = |id: &str| match &answers[id] {
        Answer::Problem(problem) => format!("{}: {}", problem.reason, problem.message),
        Answer::Issued(_) => panic!("{id} is issued"),
    };
    assert_eq!(
        said("odd"),
        "INVALID_FIELD: authorization_details: must be a JSON array with one object: a credential has one kind"
    );
    assert_eq!(said("long"), "INVALID_FIELD: tool: 257 bytes, at most 256");
    let ends = [
        (good(""), "exchange.request_id"),
        (of_stream(&turned(&exchange(&task, ""))), "exchange.request_id"),
        (Vec::new(), "ask: is missing"),
        (vec![10, 9, 1], "failed to decode"),
    ];
    for (last, words) in ends {
        let (_, end) = w.run(ask(&services, &peer, &[good("c"), last]));
        assert_eq!(end.get_details_error_info().unwrap().reason, "INVALID_FIELD", "{end:?}");
        assert!(end.message().contains(words), "{end:?}");
    }
}
