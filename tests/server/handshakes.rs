//! Refused handshakes: each is counted by its clause, and a few of each clause are logged.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::identity::spiffe_id::SpiffeId;
use mayfly::serve::tls;
use mayfly::sources::svid_files::SvidFiles;
use mayfly::system::System;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::{MAYFLY, tls as connect, until, world};
use crate::metrics::scraped;

/// A client that presents the SVID of one world and trusts the server of another.
fn showing(own: Option<(&DevWorld, &str)>, trusts: &DevWorld) -> ClientConfig {
    let own = own.map(|(world, name)| {
        let paths = world.svid(name);
        let pair = SvidFiles::new(&paths.certificate, &paths.key).load().unwrap();
        Arc::new(ArcSwap::new(pair.certified_key().clone()))
    });
    let server = SpiffeId::parse(&DevWorld::id("mayfly")).unwrap();
    tls::client_config(own, trusts.bundles().unwrap(), server, &System::real()).unwrap()
}

fn count(told: &str, listener: &str, clause: &str) -> u64 {
    let row = format!("mayfly_handshakes_refused_total{{listener=\"{listener}\",clause=\"{clause}\"}} ");
    told.lines().find_map(|line| line.strip_prefix(&row)).map_or(0, |n| n.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_handshake_is_counted_by_its_clause_and_a_few_of_a_clause_are_logged() {
    let settings = DevSettings { engine: DevEngine::Memory, ..DevSettings::default() }.with("listen.metrics", "\"127.0.0.1:0\"");
    let (_dir, ours) = world(settings);
    let (_other, strangers) = world(DevSettings::default());
    let child = ours.spawn(Path::new(MAYFLY)).unwrap();
    let addresses = child.addresses().clone();
    let metrics = addresses.metrics.unwrap();
    ours.issue("agent/long", 72 * 3_600_000).unwrap();
    // A certificate has to be valid when it is issued; this one expires a moment later.
    ours.issue("agent/brief", 1_000).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let handshake = |config: ClientConfig, to| async move {
        if let Ok(mut stream) = connect(to, config).await {
            // In TLS 1.3 the client completes the handshake before the server has examined its certificate.
            let _ = stream.read(&mut [0; 64]).await;
        }
    };
    for (clause, own) in [
        ("no_certificate", None),
        ("unknown_authority", Some((&strangers, "agent/demo"))),
        ("lives_too_long", Some((&ours, "agent/long"))),
        ("expired", Some((&ours, "agent/brief"))),
    ] {
        for (listener, address) in [("workload", addresses.workload), ("admin", addresses.admin)] {
            handshake(showing(own, &ours), address).await;
            until(clause, || count(&scraped(metrics), listener, clause) == 1).await;
        }
    }
    let mut without_h2 = showing(Some((&ours, "agent/demo")), &ours);
    without_h2.alpn_protocols = vec![b"http/1.1".to_vec()];
    handshake(without_h2, addresses.workload).await;
    until("alpn", || count(&scraped(metrics), "workload", "alpn") == 1).await;
    // A client that does not trust the server.
    handshake(showing(Some((&ours, "agent/demo")), &strangers), addresses.admin).await;
    until("refused_by_peer", || count(&scraped(metrics), "admin", "refused_by_peer") == 1).await;
    for (address, listener) in [(addresses.workload, "workload"), (addresses.public, "public")] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        until("not_tls", || count(&scraped(metrics), listener, "not_tls") == 1).await;
        drop(TcpStream::connect(address).await.unwrap());
        until("closed", || count(&scraped(metrics), listener, "closed") == 1).await;
    }
    // A stalled handshake ends after its time.
    let mut stalls = TcpStream::connect(addresses.workload).await.unwrap();
    stalls.write_all(&[22, 3, 1]).await.unwrap();
    until("too_slow", || count(&scraped(metrics), "workload", "too_slow") == 1).await;

    for _ in 0..40 {
        handshake(showing(None, &ours), addresses.workload).await;
    }
    until("all are counted", || count(&scraped(metrics), "workload", "no_certificate") == 41).await;
    let log = std::fs::read_to_string(ours.dir().join("server.log")).unwrap();
    let lines =
        |clause: &str| log.lines().filter(|l| l.contains("a handshake was refused") && l.contains(clause)).collect::<Vec<_>>();
    let of = lines("clause=\"no_certificate\"");
    // Lines of two listeners, in at most two minutes.
    assert!((2..=2 * 2 * mayfly::limits::HANDSHAKE_LOG_LINES as usize).contains(&of.len()), "{of:#?}");
    let expired = lines("clause=\"expired\"");
    assert!(expired[0].contains(&format!("claimed_id=\"{}\"", DevWorld::id("agent/brief"))), "{expired:#?}");
    assert!(expired[0].contains("127.0.0.1:") && expired[0].contains("listener=\"workload\""), "{expired:#?}");
    assert!(lines("clause=\"closed\"").is_empty(), "a probe of the port is no line");

    let channel = ours.channel("operator/you", addresses.admin).await.unwrap();
    let mut client = mayfly::pb::mayfly::v1::server_service_client::ServerServiceClient::new(channel);
    let status = client.get_status(mayfly::pb::mayfly::v1::GetStatusRequest {}).await.unwrap().into_inner();
    let told = status.refused_handshakes.iter().find(|r| (&*r.listener, &*r.clause) == ("workload", "no_certificate"));
    assert_eq!(told.unwrap().count, 41);
}
