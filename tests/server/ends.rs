//! When connections end.

use std::time::{Duration, Instant};

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Maintained, Record};
use mayfly::limits;

use crate::kit::{GOAWAY, PATIENCE, Up, begin_http2, frames, healthy, open_task, reason, until, until_closed, world};

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "a test that measures when a connection ends")]
async fn a_connection_is_asked_to_go_before_its_svid_ends_and_is_gone_then() {
    let up = Up::new(DevSettings::default());
    up.world.issue("agent/demo", 4_000).unwrap();
    let began = Instant::now();
    let mut stream = up.tls("agent/demo").await;
    begin_http2(&mut stream).await;
    let told = until_closed(&mut stream).await.expect("the server ends it");
    let lived = began.elapsed();
    assert!(frames(&told).contains(&GOAWAY), "{:?}", frames(&told));
    // A certificate's times are whole seconds.
    assert!(lived > Duration::from_millis(2_000) && lived < Duration::from_millis(4_500), "{lived:?}");
}

/// Replaces a world's bundle with the certificate of another CA, and moves the server to an SVID of that CA.
fn change_root(up: &Up, keep_old: bool) {
    let (_dir, other) = world(DevSettings::default());
    let mut bundle = std::fs::read_to_string(other.bundle()).unwrap();
    if keep_old {
        bundle.push_str(&std::fs::read_to_string(up.world.bundle()).unwrap());
    }
    std::fs::write(up.world.bundle(), bundle).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_root_ends_its_connections_and_revokes_what_it_vouched_for() {
    let up = Up::new(DevSettings::default());
    let mut stream = up.tls("agent/demo").await;
    begin_http2(&mut stream).await;
    let channel = up.channel("ci/demo").await;
    assert!(healthy(channel.clone()).await);
    let before = up.running().authority().ledger.peek(|s| s.bundles["dev.mayfly.internal"].anchors.clone());
    change_root(&up, false);
    let told = until_closed(&mut stream).await.expect("the server ends it");
    assert!(frames(&told).contains(&GOAWAY));
    let ledger = &up.running().authority().ledger;
    let rule = mayfly::revocation::Target::TrustAnchor(before[0]);
    assert!(ledger.peek(|s| s.rules.get(&rule).is_some()), "what it vouched for is revoked");
    assert!(ledger.peek(|s| !s.bundles["dev.mayfly.internal"].anchors.contains(&before[0])));
    until("all of its connections are gone", || up.running().connections()[0] == 0).await;
    assert!(!healthy(channel).await, "nor does it come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_root_ends_nothing() {
    let up = Up::new(DevSettings::default());
    let channel = up.channel("agent/demo").await;
    assert!(healthy(channel.clone()).await);
    change_root(&up, true);
    let ledger = &up.running().authority().ledger;
    until("both are in force", || ledger.peek(|s| s.bundles["dev.mayfly.internal"].anchors.len() == 2)).await;
    tokio::time::sleep(Duration::from_millis(limits::CLOSE_MS * 2)).await;
    assert!(healthy(channel.clone()).await);
    assert_eq!(up.running().connections()[0], 1, "the same connection");
    // Keep the connection open until it was counted.
    drop(channel);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_certificate_is_renewed_without_a_restart() {
    let up = Up::new(DevSettings::default());
    let shown = |up: &Up| {
        let (address, config) = (up.workload(), up.world.client_config("agent/demo").unwrap());
        async move {
            let stream = crate::kit::tls(address, config).await.unwrap();
            stream.get_ref().1.peer_certificates().unwrap()[0].clone()
        }
    };
    let before = shown(&up).await;
    up.world.issue(mayfly::cli::dev::SERVER, 600_000).unwrap();
    let began = tokio::time::Instant::now();
    while shown(&up).await == before {
        assert!(began.elapsed() < PATIENCE, "the old certificate is still shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A certificate with another SPIFFE ID is not loaded.
    let new = shown(&up).await;
    let (theirs, ours) = (up.world.svid("ci/demo"), up.world.svid(mayfly::cli::dev::SERVER));
    std::fs::copy(theirs.key, ours.key).unwrap();
    std::fs::copy(theirs.certificate, ours.certificate).unwrap();
    tokio::time::sleep(Duration::from_millis(2 * limits::FILE_POLL_MS)).await;
    assert_eq!(shown(&up).await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_is_under_way_and_refuses_what_is_new() {
    let mut up = Up::new(DevSettings::default());
    let mut stream = up.tls("agent/demo").await;
    begin_http2(&mut stream).await;
    until("it is open", || up.running().connections()[0] == 1).await;
    let (address, running) = (up.workload(), up.running.take().unwrap());
    let authority = running.authority().clone();
    let stopping = tokio::task::spawn_blocking(move || running.stop());
    let told = until_closed(&mut stream).await.expect("closed");
    assert!(frames(&told).contains(&GOAWAY));
    stopping.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
    let note = Record::new(Author::Mayfly("test".into()), Event::Maintained(Maintained { what: "late".into() }));
    assert!(authority.ledger.commit(ProposalKind::Change, vec![note]).await.is_err(), "the ledger is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_that_lives_too_long_is_refused() {
    let up = Up::new(DevSettings::default().with("svid.max_ttl", "\"2h\""));
    up.world.issue("agent/demo", 3 * 3600 * 1000).unwrap();
    // In TLS 1.3 the client has finished its handshake before it learns of the refusal.
    let refused = match up.world.channel("agent/demo", up.workload()).await {
        Ok(channel) => !healthy(channel).await,
        Err(_) => true,
    };
    assert!(refused);
    assert!(healthy(up.channel("ci/demo").await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_caller_is_refused_on_the_connection_that_it_has() {
    let up = Up::new(DevSettings::default());
    let channel = up.channel("agent/demo").await;
    open_task(channel.clone(), None).await.unwrap();
    let revoked = mayfly::ledger::record::TargetsRevoked {
        targets: vec![mayfly::revocation::Target::Caller(DevWorld::id("agent/demo").into()).to_record()],
        reason: "test".into(),
        keep_until: mayfly::revocation::Rules::keep_until(mayfly::system::System::real().wall()).0,
        ..Default::default()
    };
    let record = Record::new(Author::LocalUid(0), Event::Revoked(revoked));
    up.running().authority().ledger.commit(ProposalKind::Revoke, vec![record]).await.unwrap();
    let refused = open_task(channel, None).await.unwrap_err();
    assert_eq!(reason(&refused), "LOCKED", "{refused:?}");
}
