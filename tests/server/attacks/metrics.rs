//! Idle connections to the metrics listener.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Rig;
use mayfly::cli::dev::DevSettings;

async fn scrape(address: std::net::SocketAddr) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_the_metrics_stop_no_scrape() {
    let rig = Rig::new(DevSettings::default().with("listen.metrics", "\"127.0.0.1:0\""));
    let address = rig.child.addresses().metrics.unwrap();
    let others = rig.others();
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.unwrap());
        let answer = tokio::time::timeout(Duration::from_secs(4), scrape(address)).await.expect("beside idle connections");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("mayfly_issuing"), "{answer}");
    }
    others.saw("idle at the metrics").await;
}
