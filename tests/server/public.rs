//! The public HTTPS listener.

use mayfly::cli::dev::DevSettings;
use mayfly::serve::tls::client_config;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;

use crate::kit::{GOAWAY, Up, begin_http2, frames, tls, until_closed};

/// A client without a certificate, with HTTP/1.1 or the offered protocols.
fn anybody(up: &Up, alpn: &[&[u8]]) -> ClientConfig {
    let server = mayfly::identity::spiffe_id::SpiffeId::parse("spiffe://dev.mayfly.internal/mayfly").unwrap();
    let system = mayfly::system::System::real();
    let mut config = client_config(None, up.world.bundles().unwrap(), server, &system).unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

/// One request over HTTP/1.1.
async fn ask(up: &Up, line: &str, more: &str) -> Answer {
    let mut stream = tls(up.running().addresses().public, anybody(up, &[b"http/1.1"])).await.unwrap();
    let text = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let answer = String::from_utf8(until_closed(&mut stream).await.unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_an_environment_are_there_for_everybody() {
    let up = Up::new(DevSettings::default());
    let jwks = ask(&up, "GET /dev/jwks.json", "").await;
    assert_eq!(jwks.code, 200, "{}", jwks.head);
    for header in
        ["content-type: application/jwk-set+json", "cache-control: public, max-age=300", "access-control-allow-origin: *"]
    {
        assert!(jwks.head.contains(header), "{}", jwks.head);
    }
    let document: serde_json::Value = serde_json::from_str(&jwks.body).unwrap();
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "the first key of its environment");
    assert_eq!((&keys[0]["kty"], &keys[0]["alg"], &keys[0]["use"]), (&"EC".into(), &"ES256".into(), &"sig".into()));
    assert!(keys[0].get("d").is_none(), "no private part");
    let tag = jwks.head.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap();
    let again = ask(&up, "GET /dev/jwks.json", &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!((again.code, again.body.as_str()), (304, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_names_the_issuer_that_stands_in_tokens() {
    let up = Up::new(DevSettings::default().with("server.issuer", "\"https://sts.example.org/mayfly\""));
    let found = ask(&up, "GET /.well-known/oauth-authorization-server/mayfly/dev", "").await;
    assert_eq!(found.code, 200);
    let document: serde_json::Value = serde_json::from_str(&found.body).unwrap();
    assert_eq!(document["issuer"], "https://sts.example.org/mayfly/dev");
    assert_eq!(document["jwks_uri"], "https://sts.example.org/mayfly/dev/jwks.json");
    assert_eq!(ask(&up, "GET /mayfly/dev/jwks.json", "").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_what_is_not_there() {
    let up = Up::new(DevSettings::default());
    let health = ask(&up, "GET /healthz", "").await;
    assert_eq!((health.code, health.body.as_str()), (200, "ok\n"));
    assert!(health.head.contains("cache-control: no-store"));
    for (line, code) in [
        ("GET /prod/jwks.json", 404),
        ("GET /.well-known/oauth-authorization-server/prod", 404),
        ("GET /..%2fdev/jwks.json", 404),
        ("GET /", 404),
        ("POST /dev/jwks.json", 405),
        ("HEAD /dev/jwks.json", 200),
    ] {
        assert_eq!(ask(&up, line, "").await.code, code, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_the_bound_are_refused() {
    let up = Up::new(DevSettings::default());
    let mut stream = tls(up.running().addresses().public, anybody(&up, &[b"http/1.1"])).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-large: {}", "x".repeat(64 * 1024));
    // The server may close while the client still writes, perhaps before its answer was read.
    let _ = stream.write_all(head.as_bytes()).await;
    let answer = String::from_utf8(until_closed(&mut stream).await.expect("closed")).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_http2_and_stops_in_good_order() {
    let mut up = Up::new(DevSettings::default());
    let mut stream = tls(up.running().addresses().public, anybody(&up, &[b"h2"])).await.unwrap();
    begin_http2(&mut stream).await;
    crate::kit::until("it is open", || up.running().connections()[3] == 1).await;
    let running = up.running.take().unwrap();
    let stopped = tokio::task::spawn_blocking(move || running.stop());
    let told = until_closed(&mut stream).await.expect("closed");
    assert!(frames(&told).contains(&GOAWAY));
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_never_ends_is_cut_off() {
    let up = Up::new(DevSettings::default());
    let mut stream = tls(up.running().addresses().public, anybody(&up, &[b"http/1.1"])).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.unwrap();
    until_closed(&mut stream).await.expect("closed");
}
