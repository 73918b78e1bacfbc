//! Webhooks on a whole server, with a receiver that takes them, refuses, hangs, sends elsewhere, is down, or is killed with the server.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::server_service_client::ServerServiceClient;
use mayfly::system::Stopwatch;

use crate::kit::{MAYFLY, open_task, reason, until, world};
use crate::receiver::{Answer, Got, Receiver, SECRET, hook};

pub async fn revoke(world: &DevWorld, admin: SocketAddr, n: usize) -> u64 {
    let mut client = RevocationServiceClient::new(world.channel("operator/you", admin).await.unwrap());
    let target = pb::Target { target: Some(pb::target::Target::Caller(DevWorld::id(&format!("agent/nobody-{n}")))) };
    let request = pb::RevokeRequest { targets: vec![target], reason: format!("drill {n} \u{202e}"), ..Default::default() };
    client.revoke(request).await.unwrap().into_inner().seq
}

fn seqs(events: &[Got]) -> Vec<u64> {
    events.iter().map(|e| e.json()["data"]["seq"].as_u64().unwrap()).collect()
}

pub async fn standing(world: &DevWorld, admin: SocketAddr) -> pb::Webhook {
    let mut client = ServerServiceClient::new(world.channel("operator/you", admin).await.unwrap());
    client.list_webhooks(pb::ListWebhooksRequest {}).await.unwrap().into_inner().webhooks.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_signed_and_come_in_order_and_a_receiver_that_was_down_misses_none() {
    let receiver = Receiver::new();
    let (_dir, world) = world(DevSettings { engine: mayfly::cli::dev::DevEngine::Memory, ..DevSettings::default() });
    hook(world.dir(), "pager", receiver.address, "events = [\"revoked\"]");
    let running = world.start().unwrap();
    let admin = running.addresses().admin;
    let mut expected = vec![revoke(&world, admin, 0).await];
    until("the first came", || receiver.got().len() == 1).await;
    let got = receiver.got().remove(0);
    let data = &got.json()["data"];
    assert_eq!((got.kind().as_str(), data["reason"].as_str()), ("revoked", Some("drill 0 ")), "without what acts on a screen");
    // The signature by hand: HMAC as RFC 2104 has it, over SHA-256.
    let tag = hmac(SECRET, format!("{}.{}.{}", got.id, got.time, got.body).as_bytes());
    assert_eq!(got.signature, format!("v1,{}", data_encoding::BASE64.encode(&tag)));
    // The receiver refuses for a while; nobody who revokes waits for it.
    receiver.answers(Answer::status("503 Busy"));
    for n in 1..4 {
        expected.push(revoke(&world, admin, n).await);
    }
    let mut told = standing(&world, admin).await;
    for _ in 0..200 {
        if told.failed > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        told = standing(&world, admin).await;
    }
    assert!(told.failed > 0 && told.problem.contains("503") && told.behind > 0, "{told:?}");
    assert!(!told.url.contains("k=1"), "a query may be a secret: {}", told.url);
    let mut client = ServerServiceClient::new(world.channel("operator/you", admin).await.unwrap());
    let no = client.test_webhook(pb::TestWebhookRequest { name: "pager".into() }).await.unwrap_err();
    assert_eq!(reason(&no), "UPSTREAM_FAILED");
    receiver.answers(Answer::ok());
    until("the others came", || receiver.events().len() == 4).await;
    assert_eq!(seqs(&receiver.events()), expected, "in order, none left out");
    let no = client.test_webhook(pb::TestWebhookRequest { name: "other".into() }).await.unwrap_err();
    assert_eq!(reason(&no), "NOT_FOUND");
    assert_eq!(client.test_webhook(pb::TestWebhookRequest { name: "pager".into() }).await.unwrap().into_inner().status, 204);
    assert_eq!(receiver.got().last().unwrap().kind(), "webhook.test");
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |with: u8| -> Vec<u8> { (0..64).map(|n| key.get(n).copied().unwrap_or(0) ^ with).collect() };
    let inner = mayfly::document::sha256(&[padded(0x36), message.to_vec()].concat());
    mayfly::document::sha256(&[padded(0x5c), inner.to_vec()].concat()).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_or_sends_elsewhere_holds_up_nobody_and_is_not_followed() {
    let (elsewhere, receiver) = (Receiver::new(), Receiver::new());
    receiver.answers(Answer::Nothing);
    let (_dir, world) = world(DevSettings { engine: mayfly::cli::dev::DevEngine::Memory, ..DevSettings::default() });
    hook(world.dir(), "pager", receiver.address, "");
    let running = world.start().unwrap();
    let (admin, workload) = (running.addresses().admin, running.addresses().workload);
    revoke(&world, admin, 0).await;
    let began = Stopwatch::start();
    for _ in 0..20 {
        open_task(world.channel("agent/demo", workload).await.unwrap(), None).await.unwrap();
    }
    assert!(began.us() < 5_000_000, "issuing and opening do not wait for it");
    receiver.answers(Answer::status(&format!("302 Found\r\nLocation: http://{}/", elsewhere.address)));
    let mut told = standing(&world, admin).await;
    while !told.problem.contains("302") {
        assert!(began.us() < 30_000_000, "{told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        told = standing(&world, admin).await;
    }
    assert!(told.problem.contains("redirects are not followed") && elsewhere.got().is_empty());
    let began = Stopwatch::start();
    running.stop();
    assert!(began.us() < 5_000_000, "stopping does not wait for it either");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_its_receiver_is_down_the_server_tells_all_of_it_after_its_next_start() {
    let receiver = Receiver::new();
    let address = receiver.address;
    let (_dir, world) = world(DevSettings::default());
    hook(world.dir(), "pager", address, "events = [\"revoked\", \"break_glass.*\"]\nenvironments = [\"dev\"]");
    let child = world.spawn(Path::new(MAYFLY)).unwrap();
    let admin = child.addresses().admin;
    let mut expected = vec![revoke(&world, admin, 0).await];
    until("the first came", || receiver.got().len() == 1).await;
    drop(receiver);
    for n in 1..6 {
        expected.push(revoke(&world, admin, n).await);
    }
    child.kill();
    let receiver = Receiver::on(address);
    let child = world.spawn(Path::new(MAYFLY)).unwrap();
    expected.push(revoke(&world, child.addresses().admin, 6).await);
    until("all came", || receiver.events().last().is_some_and(|e| seqs(std::slice::from_ref(e))[0] == expected[6])).await;
    let came = seqs(&receiver.events());
    let first = came[0];
    assert!(first == expected[0] || first == expected[1], "at least once: the newest before the kill may come again");
    let missed = expected.iter().position(|seq| *seq == first).unwrap();
    assert_eq!(came, expected[missed..], "nothing is lost, and the order stays");
    child.kill();
}

/// The event of a revocation has the same numbers as the operator's answer, whether the hits were counted before the revocation or after
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_revocation_has_the_numbers_that_its_operator_was_told() {
    let receiver = Receiver::new();
    let (_dir, world) = world(DevSettings { engine: mayfly::cli::dev::DevEngine::Memory, ..DevSettings::default() });
    hook(world.dir(), "pager", receiver.address, "events = [\"revoked\", \"lock.added\"]");
    let running = world.start().unwrap();
    let (workload, admin) = (running.addresses().workload, running.addresses().admin);
    let mut told = Vec::new();
    for confirm in ["", "all"] {
        for _ in 0..2 {
            open_task(world.channel("agent/demo", workload).await.unwrap(), None).await.unwrap();
        }
        let mut client = RevocationServiceClient::new(world.channel("operator/you", admin).await.unwrap());
        let target = pb::Target { target: Some(pb::target::Target::Caller(DevWorld::id("agent/demo"))) };
        let mut request =
            pb::RevokeRequest { targets: vec![target], reason: "drill".into(), issued_only: true, ..Default::default() };
        request.confirmation = (confirm == "all").then_some(pb::Confirmation { credentials: 0, all: true });
        let answer = client.revoke(request).await.unwrap().into_inner();
        told.push((answer.seq, answer.hits.unwrap()));
    }
    until("both came", || receiver.got().len() == 2).await;
    for (got, (seq, hits)) in receiver.got().iter().zip(&told) {
        let data = got.json()["data"].clone();
        assert_eq!(data["seq"], *seq);
        let expected = serde_json::json!({
            "credentials": hits.credentials, "tasks": hits.tasks, "tasks_ended": hits.tasks_ended, "callers": hits.callers,
        });
        assert_eq!(data["hits"], expected, "{data}");
    }
    running.stop();
}
