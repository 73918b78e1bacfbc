//! Authentication at the listeners: the peers that get a connection, and the cost of a refusal.

use std::time::{Duration, Instant};

use mayfly::cli::dev::DevSettings;
use mayfly::limits;
use mayfly::serve::client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{PATIENCE, SETTINGS, Up, begin_http2, call, healthy, reason, tls, until, until_closed};

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_calls_over_mtls_and_operators_have_a_port_of_their_own() {
    let up = Up::new(DevSettings::default());
    let (workload, operator) = (up.channel("agent/demo").await, up.world.channel("operator/you", up.admin()).await.unwrap());
    assert!(healthy(workload.clone()).await && healthy(operator.clone()).await);
    assert_eq!(up.running().connections()[..2], [1, 1]);
    assert_eq!(up.running().authority().peers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_the_tls_peer_whatever_the_headers_say() {
    let up = Up::new(DevSettings::default());
    let mut client = mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient::new(up.channel("agent/demo").await);
    let mut asked = tonic::Request::new(mayfly::pb::mayfly::v1::WhoamiRequest::default());
    for name in ["x-forwarded-client-cert", "x-spiffe-id", "x-forwarded-for", "forwarded", "authorization"] {
        asked.metadata_mut().insert(name, "URI=spiffe://dev.mayfly.internal/operator/you".parse().unwrap());
    }
    let answer = format!("{:?}", client.whoami(asked).await.unwrap().into_inner());
    assert!(answer.contains("spiffe://dev.mayfly.internal/agent/demo") && !answer.contains("operator/you"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_without_a_certificate_gets_an_alert() {
    let up = Up::new(DevSettings::default());
    let server = mayfly::identity::spiffe_id::SpiffeId::parse("spiffe://dev.mayfly.internal/mayfly").unwrap();
    let config = mayfly::serve::tls::client_config(None, up.world.bundles().unwrap(), server, &mayfly::system::System::real());
    // In TLS 1.3 the client has finished its handshake before it learns of the refusal.
    let ended = async {
        let mut stream = tls(up.workload(), config.unwrap()).await?;
        begin_http2(&mut stream).await;
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 64]).await
    };
    let error = ended.await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_of_another_trust_domain_is_refused() {
    let up = Up::new(DevSettings::default());
    let (_dir, other) = crate::kit::world(DevSettings::default());
    // The other world has the same names, and another root.
    let mut config = up.world.client_config("agent/demo").unwrap();
    config.client_auth_cert_resolver = other.client_config("agent/demo").unwrap().client_auth_cert_resolver;
    // In TLS 1.3 the client has finished its handshake before it learns of the refusal.
    let refused = match client::mtls(up.workload(), config).await {
        Ok(channel) => !healthy(channel).await,
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_on_the_grpc_port_is_refused_by_alpn_or_told_to_use_http2() {
    let up = Up::new(DevSettings::default());
    let mut config = up.world.client_config("agent/demo").unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused = tls(up.workload(), config.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    config.alpn_protocols.clear();
    let mut stream = tls(up.workload(), config).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = until_closed(&mut stream).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 426 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_agreed_on_http2_is_spoken_to_first() {
    let up = Up::new(DevSettings::default());
    let mut stream = up.tls("agent/demo").await;
    // The command line waits for this frame in order to learn of a refused SVID.
    let mut frame = [0; 9];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut frame)).await.expect("before we said anything").unwrap();
    assert_eq!(frame[3], SETTINGS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_closed() {
    let up = Up::new(DevSettings::default());
    let mut tcp = TcpStream::connect(up.workload()).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = until_closed(&mut tcp).await.expect("closed");
    assert!(!answer.starts_with(b"HTTP"), "only a TLS alert: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "a test that measures how long somebody is kept waiting")]
async fn a_peer_that_stalls_holds_its_place_for_the_handshakes_time_and_gives_it_to_whoever_comes() {
    let up = Up::new(DevSettings::default().with("limits.handshakes", "1"));
    let began = Instant::now();
    let mut silent = TcpStream::connect(up.workload()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The only place is held by a silent peer: the next peer gets the place.
    assert!(healthy(up.channel("agent/demo").await).await);
    assert_eq!(until_closed(&mut silent).await, Some(Vec::new()));
    assert!(began.elapsed() < Duration::from_millis(limits::HANDSHAKE_MS), "{:?}", began.elapsed());
    // Without a next peer, the handshake time limit ends the silent one.
    let began = Instant::now();
    let mut silent = TcpStream::connect(up.workload()).await.unwrap();
    assert_eq!(until_closed(&mut silent).await, Some(Vec::new()));
    assert!(began.elapsed() >= Duration::from_millis(limits::HANDSHAKE_MS - 500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "a test that measures how long somebody is kept waiting")]
async fn a_peer_that_says_nothing_after_the_handshake_is_dropped() {
    let up = Up::new(DevSettings::default());
    let began = Instant::now();
    let mut half_open = up.tls("agent/demo").await;
    // Half of the preface, and then nothing.
    half_open.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    until_closed(&mut half_open).await.expect("closed");
    assert!(began.elapsed() < Duration::from_millis(limits::HEADER_MS + 3_000), "{:?}", began.elapsed());
    until("its place is free", || up.running().connections()[0] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_a_connection_is_closed_at_once_and_a_place_comes_back() {
    let up = Up::new(DevSettings::default().with("limits.connections", "2"));
    let (first, second) = (up.channel("agent/demo").await, up.channel("ci/demo").await);
    assert!(healthy(first.clone()).await && healthy(second.clone()).await);
    assert!(up.world.channel("mcp/echo", up.workload()).await.is_err(), "closed");
    // Operators are not affected.
    assert!(healthy(up.world.channel("operator/you", up.admin()).await.unwrap()).await);
    drop(second);
    until("a place is free", || up.running().connections()[0] == 1).await;
    assert!(healthy(up.channel("mcp/echo").await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_only_is_not_served_to_workloads() {
    let up = Up::new(DevSettings::default());
    let list = "/mayfly.v1.RevocationService/ListRules";
    let refused = call(up.channel("agent/demo").await, list, bytes::Bytes::new()).await.unwrap_err();
    assert!(["NOT_AUTHENTICATED", "DENIED_BY_POLICY"].contains(&reason(&refused).as_str()), "{refused:?}");
}
