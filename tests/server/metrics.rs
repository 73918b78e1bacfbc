//! The metrics of a whole server, as a scraper reads them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use std::sync::Arc;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld, SERVER};
use mayfly::identity::spiffe_id::SpiffeId;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::{self as pb};
use mayfly::sources::config::Config;
use mayfly::system::System;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{Up, call, open_task, until, world};
use crate::traces_of_calls::{ask as wanting, exchange, stream};

fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The whole answer to a scraper.
pub fn scraped(address: SocketAddr) -> String {
    ask(address, "GET /metrics HTTP/1.1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_on_this_host_reads_what_the_server_did_and_how_it_stands() {
    let (_dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
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
    // A client that connects and sends nothing delays the next client for a bounded time only.
    let silent = TcpStream::connect(address).unwrap();
    assert!(scrape().starts_with("HTTP/1.1 200"));
    drop(silent);
}

/// The histogram is as `rate` and `histogram_quantile` require: cumulative buckets, the last bound infinity, and a count of at least the
/// writes of a start.
#[test]
fn durable_writes_are_a_histogram() {
    let (_dir, world) = world(DevSettings::default());
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

/// The value of a series; 0 if it is absent.
fn value(told: &str, series: &str) -> f64 {
    told.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map_or(0.0, |n| n.parse().unwrap())
}

/// Each exchange is counted for its upstream, whether it came alone, in a batch or on a stream, and each call for its method and code.
/// Names that callers make up create no series.
#[tokio::test(flavor = "multi_thread")]
async fn exchanges_and_calls_are_counted_by_what_an_objective_is_made_of() {
    let up = Up::new(DevSettings::default().with("listen.metrics", "\"127.0.0.1:0\""));
    let metrics = up.running().addresses().metrics.unwrap();
    let channel = up.channel("agent/demo").await;
    let task = open_task(channel.clone(), None).await.unwrap();
    assert!(open_task(up.channel("service/echo").await, None).await.is_err(), "nothing permits it");
    let upstream = wanting(&task, "x").upstream;
    for n in 0..3 {
        exchange(&channel, wanting(&task, &format!("unary-{n}")), &[]).await.unwrap();
    }
    let made_up = pb::ExchangeRequest { upstream: "made-up".into(), ..wanting(&task, "made-up") };
    assert!(exchange(&channel, made_up.clone(), &[]).await.is_err());
    stream(channel.clone(), (0..5).map(|n| wanting(&task, &format!("stream-{n}"))).collect(), &[]).await;
    for all_or_nothing in [false, true] {
        let exchanges = (0..4).map(|n| wanting(&task, &format!("batch-{all_or_nothing}-{n}"))).collect();
        let request = pb::BatchExchangeRequest { exchanges, all_or_nothing };
        TokenServiceClient::new(channel.clone()).batch_exchange(request).await.unwrap();
    }
    // A malformed exchange, and calls to unknown methods.
    let malformed = pb::ExchangeRequest { request_id: "x".repeat(5_000), ..wanting(&task, "") };
    assert!(exchange(&channel, malformed, &[]).await.is_err());
    assert!(call(channel.clone(), "/mayfly.v1.TokenService/Nonsense", Vec::new()).await.is_err());
    assert!(call(channel.clone(), "/who.knows/What", Vec::new()).await.is_err());

    let environment = Config::load(&up.world.config(), []).unwrap().server.environments[0].clone();
    let of = |environment: &str, upstream: &str, outcome: &str| {
        format!("mayfly_exchanges_total{{environment=\"{environment}\",upstream=\"{upstream}\",outcome=\"{outcome}\"}}")
    };
    let calls = |method: &str, code: &str| format!("mayfly_calls_total{{method=\"{method}\",code=\"{code}\"}}");
    until("the stream is over", || value(&scraped(metrics), &calls("TokenService/StreamExchange", "OK")) == 1.0).await;
    let told = scraped(metrics);
    for (series, expected) in [
        (of(&environment, &upstream, "issued"), 3.0 + 5.0 + 8.0),
        (of("other", "other", "refused"), 2.0),
        (calls("TokenService/Exchange", "OK"), 3.0),
        (calls("TokenService/BatchExchange", "OK"), 2.0),
        (calls("TaskService/OpenTask", "OK"), 1.0),
        (calls("TaskService/OpenTask", "PERMISSION_DENIED"), 1.0),
        (calls("other", "UNIMPLEMENTED"), 2.0),
    ] {
        assert_eq!(value(&told, &series), expected, "{series} in\n{told}");
    }
    assert!(!told.contains("made-up") && !told.contains("Nonsense") && !told.contains("who.knows"), "{told}");
    // Latencies of each exchange of the stream, and of each call with a single answer.
    for (method, count) in
        [("TokenService/StreamExchange", 5.0), ("TokenService/BatchExchange", 2.0), ("TaskService/OpenTask", 2.0)]
    {
        assert_eq!(value(&told, &format!("mayfly_call_seconds_count{{method=\"{method}\"}}")), count, "{method} in\n{told}");
    }
    assert!(
        told.contains("mayfly_call_seconds_bucket{le=\"0.1\",method=\"TokenService/Exchange\"}")
            || told.contains("method=\"TokenService/Exchange\",le=\"0.1\""),
        "{told}"
    );
}

/// Sends a request over TLS.
async fn over_tls(address: SocketAddr, config: ClientConfig, header: &str) -> std::io::Result<String> {
    let tcp = tokio::net::TcpStream::connect(address).await?;
    let server = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(server, tcp).await?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{header}\r\n").as_bytes()).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}

/// Metrics over HTTPS with a token: a client without both gets nothing, and the required token is that of the file.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_that_others_reach_are_told_over_tls_to_whoever_shows_the_token_of_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    let token = world.dir().join("token");
    let write = |text: &str| {
        std::fs::write(&token, text).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let text = std::fs::read_to_string(world.config()).unwrap().replace("[listen]\n", "[listen]\nmetrics = \"0.0.0.0:0\"\n");
    std::fs::write(world.config(), text + "\n[metrics]\ntls = true\ntoken_file = \"token\"\n").unwrap();
    // The server does not start without a token, with a weak token, or with a token that others may read.
    assert!(world.start().is_err());
    write("short");
    assert!(world.start().is_err());
    write("first-token-0123456789");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let no = world.start().err().unwrap().to_string();
    assert!(no.contains("may be read by others") && !no.contains("first-token"), "{no}");
    write("first-token-0123456789\n");
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let address = SocketAddr::from(([127, 0, 0, 1], running.addresses().metrics.unwrap().port()));
    let server = SpiffeId::parse(&DevWorld::id(SERVER)).unwrap();
    let client = || {
        let mut config =
            mayfly::serve::tls::client_config(None, world.bundles().unwrap(), server.clone(), &System::real()).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    };
    let with = |header: &'static str| over_tls(address, client(), header);
    let told = with("Authorization: Bearer first-token-0123456789\r\n").await.unwrap();
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("mayfly_issuing"), "{told}");
    assert!(with("authorization: bearer first-token-0123456789\r\n").await.unwrap().starts_with("HTTP/1.1 200"));
    for header in [
        "",
        "Authorization: Bearer first-token-012345678\r\n",
        "Authorization: Bearer first-token-0123456789x\r\n",
        "Authorization: Bearer  first-token-0123456789\r\n",
        "Authorization: Basic first-token-0123456789\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer x\r\nAuthorization: Bearer first-token-0123456789\r\n",
    ] {
        let refused = with(header).await.unwrap();
        assert!(
            refused.starts_with("HTTP/1.1 401") && refused.to_lowercase().contains("www-authenticate: bearer"),
            "{header}{refused}"
        );
        assert!(!refused.contains("mayfly_issuing"), "{header}");
    }
    // A client without TLS gets no metrics, and does not stop the listener.
    assert!(!ask_plain(address).contains("mayfly_"));
    let reload = || {
        let next = Config::load(&world.config(), []).unwrap();
        let _ = tokio::task::block_in_place(|| running.reload(&next));
    };
    write("second-token-0123456789");
    reload();
    for n in 0.. {
        if with("Authorization: Bearer second-token-0123456789\r\n").await.unwrap().starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(n < 200, "the new token is never asked for");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(with("Authorization: Bearer first-token-0123456789\r\n").await.unwrap().starts_with("HTTP/1.1 401"));
    // If the token file cannot be read, the previous token stays.
    std::fs::remove_file(&token).unwrap();
    reload();
    until("it is told", || {
        running.authority().sources().iter().any(|s| s.kind.as_str() == "metrics_token" && !s.problem.is_empty())
    })
    .await;
    assert!(with("Authorization: Bearer second-token-0123456789\r\n").await.unwrap().starts_with("HTTP/1.1 200"));
    running.stop();
}

fn ask_plain(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
