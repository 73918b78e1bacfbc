//! The HTTPS calls of connectors, against TLS servers that behave and that do not.

use std::future::Future;
use std::path::Path;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream as ServerStream;

use super::*;
use mayfly_base::system::System;

const SECRET: &str = "marker-0f2c";

/// A TLS server on loopback.
struct TestServer {
    url: String,
    ca_pem: String,
}

impl TestServer {
    /// Calls `serve` for each connection, with what was read of the request until it was complete.
    async fn start<F, Served>(serve: F) -> TestServer
    where
        F: Fn(String, ServerStream<TcpStream>) -> Served + Send + Sync + 'static,
        Served: Future<Output = ()> + Send,
    {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        // Each server is an authority of its own.
        parameters.distinguished_name.push(rcgen::DnType::CommonName, data_encoding::HEXLOWER.encode(&System::real().id16()));
        let certificate = parameters.self_signed(&key).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                let request = read_request(&mut stream).await;
                serve(request, stream).await;
            }
        });
        TestServer { url, ca_pem: certificate.pem() }
    }

    /// Answers each request with the same bytes, and ends the connection.
    async fn answering(bytes: impl Into<String>) -> TestServer {
        let bytes = bytes.into();
        TestServer::start(move |_, mut stream| {
            let bytes = bytes.clone();
            async move {
                let _ = stream.write_all(bytes.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    async fn client(&self) -> UpstreamHttps {
        UpstreamAccess::new(None, System::real()).https("code", Some(&self.ca_pem)).await.unwrap()
    }
}

/// The head of a request, and the body that it announces.
async fn read_request(stream: &mut ServerStream<TcpStream>) -> String {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return text,
            Ok(n) => read.extend_from_slice(&chunk[..n]),
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

async fn outcome(client: &UpstreamHttps, url: &str) -> (CallOutcome, String) {
    let asked = UpstreamRequest::post(url).bearer(SECRET).form(&[("grant", SECRET, true)]);
    assert!(!format!("{asked:?}").contains(SECRET));
    let error = client.call(asked).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    (error.outcome, error.to_string())
}

#[tokio::test]
async fn a_call_sends_what_it_says_and_returns_the_answer() {
    let server = TestServer::start(|request, mut stream| async move {
        // The request comes back as the answer, with its secrets.
        let body = serde_json::to_string(&request).unwrap();
        let _ = stream.write_all(answer("201 Created", "retry-after: 7\r\nx-a: 1\r\nx-a: 2\r\n", &body).as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await;
    let client = server.client().await;
    let asked = UpstreamRequest::post(format!("{}/token?a=b", server.url)).basic("me", SECRET).form(&[
        ("grant_type", "client_credentials", false),
        ("scope", "a b&c=ü*", false),
        ("client_secret", SECRET, true),
    ]);
    let answer = client.call(asked).await.unwrap();
    assert_eq!(
        (answer.status, answer.retry_after(), answer.header(&HeaderName::from_static("x-a"))),
        (StatusCode::CREATED, Some(7), None)
    );
    let said: String = answer.json().unwrap();
    assert!(said.starts_with("POST /token?a=b HTTP/1.1\r\n"), "{said}");
    assert!(said.ends_with("\r\n\r\ngrant_type=client_credentials&scope=a+b%26c%3D%C3%BC*&client_secret=marker-0f2c"), "{said}");
    assert!(said.contains(&format!("authorization: Basic {}", STANDARD.encode(format!("me:{SECRET}")))), "{said}");
    assert!(said.contains("user-agent: mayfly/") && said.contains("accept: application/json"), "{said}");
    let told = answer.told(&said.replace("\r\n\r\n", " "));
    assert!(!told.contains(SECRET) && !told.contains(&STANDARD.encode(format!("me:{SECRET}"))), "{told}");
    assert!(!told.contains('\n') && told.chars().count() <= limits::UPSTREAM_TOLD_CHARACTERS + 1, "{told}");
    assert!(!format!("{answer:?}").contains(SECRET));
    // An error about the shape of a body does not quote it.
    let no = answer.json::<u64>().unwrap_err();
    assert!(no.contains("another shape") && !no.contains(SECRET), "{no}");

    let asked =
        UpstreamRequest::delete(format!("{}/installation/token", server.url)).bearer(SECRET).json(&serde_json::json!({"a": 1}));
    let said: String = client.call(asked).await.unwrap().json().unwrap();
    assert!(said.starts_with("DELETE /installation/token HTTP/1.1\r\n") && said.ends_with("\r\n\r\n{\"a\":1}"), "{said}");
    assert!(
        said.contains("authorization: Bearer marker-0f2c\r\n") && said.contains("content-type: application/json\r\n"),
        "{said}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_verified_gets_no_byte_of_the_request() {
    let server = TestServer::answering(answer("200 OK", "", "{}")).await;
    let other = TestServer::answering(answer("200 OK", "", "{}")).await;
    let (known, why) = outcome(&other.client().await, &server.url).await;
    assert_eq!(known, CallOutcome::NotSent);
    assert!(why.contains("UnknownIssuer") && why.contains("code.pem"), "{why}");
    // A name that the certificate does not have.
    let (known, why) = outcome(&server.client().await, &server.url.replace("127.0.0.1", "localhost")).await;
    assert_eq!(known, CallOutcome::NotSent, "{why}");
    // The file of roots beside the secrets wins over those of the registration.
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o700);
    std::fs::write(dir.path().join("code.pem"), &server.ca_pem).unwrap();
    let access = UpstreamAccess::new(Some(dir.path().to_owned()), System::real());
    let client = access.https("code", Some(&other.ca_pem)).await.unwrap();
    assert_eq!(client.call(UpstreamRequest::get(&server.url)).await.unwrap().status, StatusCode::OK);
    assert_eq!(outcome(&client, &other.url).await.0, CallOutcome::NotSent);
    assert_eq!(access.https("code", Some("no PEM")).await.map(|_| ()), Ok(()));
    let no = access.https("other", Some("no PEM")).await.map(|_| ()).unwrap_err();
    assert!(no.to_string().contains("server_ca") && no.outcome == CallOutcome::NotSent, "{no}");
}

fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn an_address_that_no_upstream_has_is_not_asked() {
    let server = TestServer::answering(answer("200 OK", "", "{}")).await;
    let client = server.client().await;
    for (url, said) in [
        ("https://169.254.169.254/latest/meta-data", "clouds serve"),
        ("https://0.0.0.0:1/", "no address of a server"),
        ("http://db.example/", "no https URL"),
        ("https://user@127.0.0.1/", "no https URL"),
        ("ftp://127.0.0.1/", "no https URL"),
        ("https://127.0.0.1:1/", "was not reached"),
    ] {
        let (known, why) = outcome(&client, url).await;
        assert!(known == CallOutcome::NotSent && why.contains(said), "{url}: {why}");
    }
    for defect in [
        UpstreamRequest::get(&server.url).bearer("a\nb"),
        UpstreamRequest::get(&server.url).header(ACCEPT, "a\r\nb: c"),
        UpstreamRequest::post(&server.url).body("text/plain", Zeroizing::new(vec![b'a'; limits::UPSTREAM_REQUEST_BYTES + 1])),
    ] {
        assert_eq!(client.call(defect).await.unwrap_err().outcome, CallOutcome::NotSent);
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = TestServer::start(|_, _| async { panic!("a redirect was followed") }).await;
    let location = format!("location: {}/\r\n", elsewhere.url);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
        let server = TestServer::answering(answer(status, &location, "")).await;
        let got = server.client().await.call(UpstreamRequest::get(&server.url).bearer(SECRET)).await.unwrap();
        assert_eq!(got.status.as_str(), &status[..3]);
    }
}

#[tokio::test]
async fn after_the_request_was_sent_every_error_leaves_open_what_was_done() {
    let large = "a".repeat(limits::UPSTREAM_ANSWER_BYTES + 1);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let head = format!("x-long: {}\r\n", "a".repeat(limits::ANSWER_HEAD_BYTES));
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (bytes, said) in [
        (answer("200 OK", "", &large), "more than"),
        (chunked, "more than"),
        (answer("200 OK", &head, "{}"), ""),
        (answer("200 OK", &many, "{}"), ""),
        (answer("200 OK", "content-encoding: gzip\r\n", "{}"), "compressed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_owned(), ""),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), ""),
        (String::new(), ""),
    ] {
        let server = TestServer::answering(bytes.clone()).await;
        let (known, why) = outcome(&server.client().await, &server.url).await;
        assert!(known == CallOutcome::PerhapsDone && why.contains(said), "{}: {why}", &bytes[..bytes.len().min(60)]);
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let server = TestServer::start(|_, stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let (known, why) = outcome(&server.client().await.within(100), &server.url).await;
    assert!(known == CallOutcome::PerhapsDone && why.contains("within 100 ms"), "{why}");
    // An answer that never ends.
    let server = TestServer::start(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
        std::future::pending::<()>().await;
    })
    .await;
    let (known, why) = outcome(&server.client().await.within(100), &server.url).await;
    assert!(known == CallOutcome::PerhapsDone && why.contains("within 100 ms"), "{why}");
}

#[test]
fn the_outcome_decides_whether_a_making_was_refused() {
    let refused = MakeError::from(UpstreamCallError::not_sent("h", "why"));
    assert_eq!(refused, MakeError::Refused("h: why".to_owned()));
    assert_eq!(MakeError::from(UpstreamCallError::perhaps_done("h", "why")), MakeError::Unknown("h: why".to_owned()));
    assert_eq!(&*form_encoded("a b+c/é-_.*~"), "a+b%2Bc%2F%C3%A9-_.*%7E");
}
