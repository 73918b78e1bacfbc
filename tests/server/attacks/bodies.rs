//! Requests that never end.

use std::time::Duration;

use mayfly::limits;
use mayfly::serve::tls::client_config;
use mayfly::system::System;
use tokio::io::AsyncWriteExt as _;

use super::Rig;
use crate::kit::{tls, until_closed};
use mayfly::cli::dev::DevSettings;

#[tokio::test(flavor = "multi_thread")]
async fn a_public_body_that_comes_byte_by_byte_costs_what_one_buffer_costs_and_ends_in_time() {
    let rig = Rig::new(DevSettings::default());
    let before = rig.memory();
    let others = rig.others();
    let server = mayfly::identity::spiffe_id::SpiffeId::parse("spiffe://dev.mayfly.internal/mayfly").unwrap();
    let mut config = client_config(None, rig.world.bundles().unwrap(), server, &System::real()).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut drips = Vec::new();
    for _ in 0..100 {
        let mut stream = tls(rig.child.addresses().public, config.clone()).await.unwrap();
        drips.push(tokio::spawn(async move {
            let head =
                "POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 20000\r\n\r\n";
            let mut sent = stream.write_all(head.as_bytes()).await.is_ok();
            for _ in 0..3_000 {
                // One TLS record for each byte.
                sent = sent && stream.write_all(b" ").await.is_ok() && stream.flush().await.is_ok();
                tokio::task::yield_now().await;
            }
            let answer = until_closed(&mut stream).await.unwrap_or_default();
            String::from_utf8_lossy(&answer).into_owned()
        }));
    }
    let mut answers = Vec::new();
    for drip in drips {
        answers.push(tokio::time::timeout(Duration::from_millis(4 * limits::PUBLIC_BODY_MS), drip).await.unwrap().unwrap());
    }
    let grown = rig.peak().saturating_sub(before);
    others.saw("dripping bodies").await;
    // 300,000 bytes cost 1.3 GB if each byte keeps its own allocation.
    assert!(grown < 100, "{grown} MiB");
    let with = |code: &str| answers.iter().filter(|answer| answer.contains(code)).count();
    assert!(with(" 408 ") + with(" 503 ") >= 90, "late, or no room: {answers:?}");
    assert!(with(" 503 ") > 0, "one address has a share: {answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_message_never_ends_are_refused_in_time_and_counted_until_then() {
    let rig = Rig::new(DevSettings::default());
    let before = rig.memory();
    let others = rig.others();
    let (mut held, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut send = rig.shut("agent/demo", 65_535).await;
        for n in 0..1_000 {
            send = send.ready().await.unwrap();
            let path = if n % 2 == 0 { "TokenService/Exchange" } else { "TaskService/OpenTask" };
            let request = http::Request::post(format!("https://localhost/mayfly.v1.{path}"))
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let Ok((answer, mut body)) = send.send_request(request, false) else { break };
            let _ = body.send_data(bytes::Bytes::from_static(&[0, 0, 0, 1, 0, 7]), false);
            answers.push(answer);
            held.push(body);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = rig.peak().saturating_sub(before);
    let mut refused = 0;
    for answer in answers {
        let answer = tokio::time::timeout(Duration::from_millis(3 * limits::REQUEST_MS), answer).await.expect("an answer");
        let status = answer.as_ref().ok().and_then(|a| a.headers().get("grpc-status")).cloned();
        refused += usize::from(status.is_some_and(|code| code != "0"));
    }
    others.saw("unfinished calls").await;
    // A request takes some times as much in a build without optimization, whose futures are larger (some 18 KB with the C library's allocator).
    let times = if cfg!(debug_assertions) { 6 } else { 3 };
    let most = times * limits::UNFINISHED_BYTES_PER_CALLER as u64 / (1024 * 1024);
    assert!(grown < most, "{grown} MiB");
    assert!(refused >= 19_000, "{refused} of 20,000 were refused");
}
