//! Webhooks with failing receivers: unavailable for more than a day, failing in TLS, or giving unusable answers.

use std::path::Path;
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::serve::client;
use mayfly::server::RunningServer;
use mayfly::system::{ManualClock, Stopwatch, System};
use mayfly::webhook::WebhookStatus;

use crate::kit::{PATIENCE, self_signed, until, world};
use crate::receiver::{Answer, Receiver, hook, hook_at};
use crate::webhooks::revoke;

const HOUR: u64 = 3_600_000;

fn standing(running: &RunningServer, name: &str) -> WebhookStatus {
    let all = running.authority().webhooks.get().unwrap().standing();
    all.into_iter().find(|standing| standing.name == name).unwrap()
}

/// Over the socket, where no SVID expires by the clock.
async fn revoked(world: &DevWorld, n: usize) -> u64 {
    let socket = client::unix(&world.dir().join("run/admin.sock")).await.unwrap();
    let target = pb::Target { target: Some(pb::target::Target::Caller(DevWorld::id(&format!("agent/nobody-{n}")))) };
    let request = pb::RevokeRequest { targets: vec![target], reason: "drill".into(), ..Default::default() };
    RevocationServiceClient::new(socket).revoke(request).await.unwrap().into_inner().seq
}

fn told(receiver: &Receiver) -> Vec<u64> {
    receiver.events().iter().map(|e| e.json()["data"]["seq"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_an_event_is_given_up_counted_and_listed_and_what_is_younger_is_told() {
    let clock = ManualClock::at(System::real().wall());
    let system = System::with_clock(clock.clone());
    let (_dir, world) = world(DevSettings { system, svid_life_ms: 24 * HOUR, ..DevSettings::default() });
    let receiver = Receiver::new();
    hook(world.dir(), "pager", receiver.address, "events = [\"revoked\"]");
    let running = tokio::task::block_in_place(|| world.start()).unwrap();
    receiver.answers(Answer::status("503 Busy"));
    let old = [revoked(&world, 0).await, revoked(&world, 1).await];
    until("it failed", || standing(&running, "pager").failed > 0).await;
    clock.advance(23 * HOUR);
    let young = revoked(&world, 2).await;
    let failed = standing(&running, "pager").failed;
    until("it is tried for longer than 23 hours", || standing(&running, "pager").failed > failed).await;
    assert_eq!(standing(&running, "pager").dead, 0);
    clock.advance(2 * HOUR);
    until("what is a day old is given up", || standing(&running, "pager").dead == 2).await;
    let now = standing(&running, "pager");
    let dead: Vec<u64> = now.dead_newest.iter().map(|dead| dead.seq).collect();
    assert_eq!((dead.as_slice(), now.delivered), (&old[..], 0));
    assert!(now.dead_newest.iter().all(|dead| dead.kind == "revoked" && dead.problem.contains("503")), "{now:?}");
    receiver.answers(Answer::ok());
    until("what is younger came", || told(&receiver) == [young]).await;
    until("it is well again", || standing(&running, "pager").problem.is_empty()).await;

    // An event that was given up stays given up, and stays listed, after a restart.
    running.stop();
    world.renew().unwrap();
    let running = tokio::task::block_in_place(|| world.start()).unwrap();
    let again = standing(&running, "pager");
    assert_eq!((again.dead, again.dead_newest), (2, now.dead_newest));
    let next = revoked(&world, 3).await;
    until("it goes on", || told(&receiver).last() == Some(&next)).await;
    assert!(!told(&receiver).iter().any(|seq| old.contains(seq)));
}

/// A server with a webhook for a receiver at `https://localhost`, verified with the roots of a file.
fn told_by_tls(dir: &Path, receiver: &Receiver, roots: &str) {
    std::fs::write(dir.join("hook-ca.pem"), roots).unwrap();
    hook_at(dir, "pager", &format!("https://localhost:{}/hook", receiver.address.port()), "ca = \"hook-ca.pem\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_receiver_is_known_by_the_operators_own_ca_and_by_its_name_and_by_nothing_else() {
    let (config, own) = self_signed("localhost");
    let (_, others) = self_signed("localhost");
    let receiver = Receiver::with_tls(config);
    let (_dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    told_by_tls(world.dir(), &receiver, &others);
    let running = world.start().unwrap();
    let seq = revoke(&world, running.addresses().admin, 0).await;
    until("somebody else's CA is told", || standing(&running, "pager").problem.contains("certificate")).await;
    assert!(receiver.got().is_empty(), "nothing is said to who is not known");
    // The roots are read for each attempt: the right roots need no restart.
    std::fs::write(world.dir().join("hook-ca.pem"), own).unwrap();
    until("it came", || told(&receiver) == [seq]).await;

    let (config, own) = self_signed("elsewhere.example");
    let receiver = Receiver::with_tls(config);
    let (_dir, other) = crate::kit::world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    told_by_tls(other.dir(), &receiver, &own);
    let running = other.start().unwrap();
    revoke(&other, running.addresses().admin, 0).await;
    until("another name is told", || standing(&running, "pager").problem.contains("certificate")).await;
    assert!(receiver.got().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_costs_more_than_its_bound_however_long_it_gets() {
    let [silent, head, body] = [Receiver::new(), Receiver::new(), Receiver::new()];
    silent.answers(Answer::Nothing);
    head.answers(Answer::Endless(String::new(), format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(4096))));
    body.answers(Answer::Endless("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".into(), "x".repeat(4096)));
    let (_dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    for (name, receiver) in [("silent", &silent), ("head", &head), ("body", &body)] {
        hook(world.dir(), name, receiver.address, "events = [\"revoked\"]");
    }
    let running = world.start().unwrap();
    let began = Stopwatch::start();
    let admin = running.addresses().admin;
    let sent = [revoke(&world, admin, 0).await, revoke(&world, admin, 1).await];
    // Of an answer the head is read, up to its limit; the body is never read.
    until("both were told to who answers without an end", || told(&body) == sent).await;
    until("a head without an end is none", || standing(&running, "head").failed >= 2).await;
    let most = 4 * (limits::ANSWER_HEAD_BYTES as u64 + (8 << 20));
    assert!(head.said() < most && body.said() < most, "{} and {} of {most}", head.said(), body.said());
    assert!(standing(&running, "head").problem.contains("message head is too large"), "{:?}", standing(&running, "head"));
    while !standing(&running, "silent").problem.contains("did not answer within 8000 ms") {
        assert!(began.us() < PATIENCE.as_micros() as u64, "{:?}", standing(&running, "silent"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = Stopwatch::start();
    running.stop();
    assert!(began.us() < 5_000_000, "stopping waits for none of them");
}
