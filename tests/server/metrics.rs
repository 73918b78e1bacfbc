//! Metrics on a whole server, as a scraper reads them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use mayfly::cli::dev::{Engine, Settings};

use crate::kit::{open_task, world};

fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// All that a scraper is told.
pub fn scraped(address: SocketAddr) -> String {
    ask(address, "GET /metrics HTTP/1.1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_on_this_host_reads_what_the_server_did_and_how_it_stands() {
    let (_dir, world) = world(Settings { engine: Engine::Memory, ..Settings::default() });
    let config = world.dir().join("mayfly.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[listen]\n", "[listen]\nmetrics = \"127.0.0.1:0\"\n")).unwrap();
    let running = world.start().unwrap();
    let address = running.addresses().metrics.unwrap();
    open_task(world.channel("agent/demo", running.addresses().workload).await.unwrap(), None).await.unwrap();
    let no = open_task(world.channel("service/echo", running.addresses().workload).await.unwrap(), None).await;
    assert!(no.is_err(), "nothing permits it");
    let scrape = || scraped(address);
    crate::kit::until("the refusal is counted", || scrape().contains("mayfly_refusals_total{reason=\"DENIED_BY_POLICY\"} 1"))
        .await;
    let told = scrape();
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("application/openmetrics-text; version=1.0.0"), "{told}");
    assert!(told.ends_with("# EOF\n"), "whole: {told}");
    for line in ["mayfly_issuing 1", "mayfly_tasks 1", "mayfly_credentials_issued_total 0", "mayfly_break_glass_open 0"] {
        assert!(told.lines().any(|l| l == line || l == format!("{line}.0")), "{line} in\n{told}");
    }
    assert!(!told.contains("spiffe://"), "names of callers are no labels");
    assert!(ask(address, "GET / HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert!(!ask(address, "nonsense").starts_with("HTTP/1.1 200"));
    // Somebody who connects and says nothing holds up the next for a bounded time only.
    let silent = TcpStream::connect(address).unwrap();
    assert!(scrape().starts_with("HTTP/1.1 200"));
    drop(silent);
}

/// What `rate` and `histogram_quantile` are asked of: bounds that only grow, the last of them infinity, and no fewer writes than it had.
#[test]
fn durable_writes_are_a_histogram() {
    let (_dir, world) = world(Settings::default());
    let config = world.dir().join("mayfly.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[listen]\n", "[listen]\nmetrics = \"127.0.0.1:0\"\n")).unwrap();
    let running = world.start().unwrap();
    let told = scraped(running.addresses().metrics.unwrap());
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    let buckets: Vec<&str> = told.lines().filter(|l| l.starts_with("mayfly_ledger_append_seconds_bucket{")).collect();
    assert!(buckets.len() == 13 && buckets.last().unwrap().contains("le=\"+Inf\""), "{told}");
    assert!(buckets.windows(2).all(|two| value(two[0]) <= value(two[1])), "{told}");
    let of = |name: &str| value(told.lines().find(|l| l.starts_with(&format!("mayfly_ledger_append_seconds_{name} "))).unwrap());
    assert!(of("count") >= 3.0 && of("count") == value(buckets.last().unwrap()) && of("sum") > 0.0, "{told}");
    assert!(told.contains("# TYPE mayfly_ledger_append_seconds histogram"), "{told}");
    let ends = value(told.lines().find(|l| l.starts_with("mayfly_certificate_ends_seconds ")).unwrap());
    let now = mayfly::system::System::real().wall().0 as f64 / 1e3;
    assert!((now..now + 3_700.0).contains(&ends), "{ends} after {now}");
    running.stop();
}
