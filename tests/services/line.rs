//! Concurrent unary exchanges of one connection: decided in one batch, each answered individually.

use std::collections::BTreeSet;
use std::pin::pin;
use std::task::Poll;

use mayfly::pb::mayfly::v1 as pb;
use mayfly::serve::connection_table::ConnectionActivity;
use mayfly::serve::grpc::{ConnectionServices, Services, workload_routes};
use mayfly::serve::peer::Peer;
use mayfly::serve::shares::ShareLimits;
use prost::Message;

use super::locked::{Came, call_on, exchange};
use super::{World, world};

const EXCHANGE: &str = "/mayfly.v1.TokenService/Exchange";

fn services(w: &World) -> Services {
    workload_routes(w.authority(), &tonic_health::server::HealthReporter::new())
}

fn issued(came: &Came) -> pb::Issued {
    assert_eq!(came.reason, "");
    pb::ExchangeResponse::decode(came.message.clone()).unwrap().issued.unwrap()
}

fn claims(issued: &pb::Issued) -> serde_json::Value {
    let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no token") };
    let claims = bearer.token.split('.').nth(1).unwrap();
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap()
}

/// Makes all calls at once, as on one connection, each in a task of its own.
async fn together(calls: &ConnectionServices, asks: Vec<pb::ExchangeRequest>) -> Vec<Came> {
    let spawned = asks.into_iter().map(|ask| {
        let calls = calls.clone();
        tokio::spawn(async move { call_on(&calls, EXCHANGE, &ask).await })
    });
    let mut all = Vec::new();
    for one in spawned.collect::<Vec<_>>() {
        all.push(one.await.unwrap());
    }
    all
}

fn in_task(task: &str, n: usize) -> pb::ExchangeRequest {
    let task = Some(pb::exchange_request::Task::TaskId(task.to_owned()));
    pb::ExchangeRequest { task, tool: format!("tool-{n}"), ..exchange(&format!("request-{n}")) }
}

#[test]
fn each_of_those_that_came_together_has_its_own_answer() {
    let w = world();
    let calls = services(&w).on_connection(w.workload("/agent/demo"), ConnectionActivity::alone(ShareLimits::AUTHENTICATED));
    w.run(async {
        let opened = together(&calls, vec![exchange(""), exchange("")]).await;
        let tasks: Vec<String> = opened.iter().map(|came| issued(came).task_id).collect();
        assert_ne!(tasks[0], tasks[1]);
        // Two tasks alternate, with malformed requests, requests that open a task, and more than one batch.
        let mut asks: Vec<_> = (0..90).map(|n| in_task(&tasks[n % 2], n)).collect();
        asks.insert(20, pb::ExchangeRequest { upstream: String::new(), ..exchange("") });
        asks.insert(40, exchange(""));
        asks.insert(60, pb::ExchangeRequest { upstream: "nowhere".into(), ..in_task(&tasks[0], 900) });
        // Without scopes there is no subset of the permitted scopes, in an open task or in an inline one.
        asks.insert(70, pb::ExchangeRequest { scopes: Vec::new(), ..in_task(&tasks[0], 901) });
        asks.insert(80, pb::ExchangeRequest { scopes: Vec::new(), ..exchange("") });
        let came = together(&calls, asks.clone()).await;
        let mut ids = BTreeSet::new();
        for (n, (ask, came)) in asks.iter().zip(&came).enumerate() {
            match n {
                20 | 70 | 80 => assert_eq!(came.reason, "INVALID_FIELD", "{n}"),
                60 => assert_ne!(came.reason, ""),
                _ => {
                    let issued = issued(came);
                    let own = claims(&issued)["https://mayfly.dev/claims"].clone();
                    if let Some(pb::exchange_request::Task::TaskId(task)) = &ask.task {
                        assert_eq!((own["tool"].as_str(), &issued.task_id), (Some(&*ask.tool), task), "{n}");
                    }
                    ids.insert(issued.credential_id);
                }
            }
        }
        assert_eq!(ids.len(), 91, "one each");
        // A repeat returns the same credentials.
        let again = together(&calls, asks[..20].to_vec()).await;
        for (first, again) in came.iter().zip(&again) {
            let (first, again) = (issued(first), issued(again));
            assert_eq!((first.credential_id, first.seq), (again.credential_id, again.seq));
            assert_eq!(again.novelty, pb::Novelty::Same as i32);
        }
        // Concurrent repeats count as one request.
        let twins = together(&calls, vec![in_task(&tasks[0], 500); 12]).await;
        assert_eq!(twins.iter().map(|came| issued(came).credential_id).collect::<BTreeSet<_>>().len(), 1);
    });
    assert_eq!(w.authority().intake.load().waiting, 0);
}

#[test]
fn each_connection_acts_for_its_own_peer() {
    let w = world();
    let (peer, other) = (w.workload("/agent/demo"), w.workload("/agent/a"));
    let services = services(&w);
    let [calls, others] = [&peer, &other]
        .map(|peer| services.clone().on_connection(peer.clone(), ConnectionActivity::alone(ShareLimits::AUTHENTICATED)));
    let id = |peer: &Peer| match peer {
        Peer::Workload(caller) => caller.id().as_str().to_owned(),
        _ => panic!("no workload"),
    };
    w.run(async {
        for (who, calls) in [(&peer, &calls), (&other, &others), (&peer, &calls)] {
            let came = together(calls, vec![exchange(""); 3]).await;
            for one in &came {
                assert_eq!(claims(&issued(one))["sub"], id(who));
            }
        }
    });
}

// The plain path begins an exchange when its message was read.
#[test]
#[cfg_attr(not(feature = "fast"), ignore = "a property of the fast path")]
fn who_goes_before_the_round_asked_for_nothing() {
    let w = world();
    let calls = services(&w).on_connection(w.workload("/agent/demo"), ConnectionActivity::alone(ShareLimits::AUTHENTICATED));
    // On one thread, so that the batch cannot begin before the call is dropped.
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    one.block_on(async {
        let before = w.authority().ledger.peek(|s| s.head);
        {
            let ask = exchange("gone");
            let mut gone = pin!(call_on(&calls, EXCHANGE, &ask));
            let waits = std::future::poll_fn(|cx| Poll::Ready(gone.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "it is in the line, and its round has not begun");
            assert_eq!(w.authority().intake.load().waiting, 1);
        }
        // The next call is served without delay.
        let next = issued(&call_on(&calls, EXCHANGE, &exchange("next")).await);
        assert!(next.seq > before.as_u64());
        let again = issued(&call_on(&calls, EXCHANGE, &exchange("gone")).await);
        assert_eq!(again.novelty, pb::Novelty::New as i32, "the first time nothing was issued");
    });
    assert_eq!(w.authority().intake.load().waiting, 0);
}
