//! Keys of OIDC issuers as a server fetches them: from a real issuer over HTTP on loopback, and over TLS with configured roots.

use std::sync::Arc;
use std::time::Duration;

use mayfly::cli::dev::DevSettings;
use mayfly::identity::oidc::OidcDefect;
use mayfly::limits;
use mayfly::oidc_issuers::{Issuers, TokenRejection};
use mayfly::sources::https::{HttpsClient, HttpsError};
use mayfly::system::System;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::Up;
use crate::provider::{Provider, answer_json};
use crate::signer::Signer;

const AUD: &str = "https://echo.example.org";
const SUBJECT: &str = "uses = [\"subject\"]";

async fn taken(issuers: &Issuers, token: &str) -> Result<String, TokenRejection> {
    issuers.verify(token, &[AUD]).await.map(|(_, token)| token.sub().to_owned())
}

/// A server that trusts the issuer, once its keys have been fetched.
async fn up(provider: &Provider, more: &str) -> (Up, Arc<Issuers>) {
    let up = Up::with_config(DevSettings::default(), &provider.section("idp", &["dev"], more));
    let issuers = up.running().authority().oidc.clone();
    let system = System::real();
    let known = &issuers.all()[0];
    for _ in 0..500 {
        if known.keys(&system).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (up, issuers)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_discovered_and_a_token_is_taken_for_what_it_says() {
    let provider = Provider::start();
    let (_up, issuers) = up(&provider, SUBJECT).await;
    assert_eq!(taken(&issuers, &provider.token(&provider.claims("ada", AUD))).await, Ok("ada".into()));
    let other = provider.token(&provider.claims("ada", "https://github.example.org"));
    assert_eq!(taken(&issuers, &other).await, Err(TokenRejection::Defect(OidcDefect::Audience)));
    let stranger = Provider::start();
    let token = stranger.token(&stranger.claims("ada", AUD));
    assert_eq!(taken(&issuers, &token).await, Err(TokenRejection::UnknownIssuer(stranger.issuer.clone())));
    // Another server claims to be the issuer and signs with its own key.
    let forged = stranger.token(&provider.claims("ada", AUD));
    assert_eq!(taken(&issuers, &forged).await, Err(TokenRejection::Defect(OidcDefect::BadSignature)));
    assert!(stranger.asked("/keys").is_empty(), "nobody asks whom a token names");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_known_is_fetched_once_for_everybody_and_then_not_for_a_while() {
    let provider = Provider::start();
    let (_up, issuers) = up(&provider, SUBJECT).await;
    assert_eq!(provider.asked("/keys").len(), 1);
    provider.rotate_to("k2", Signer::new("ES256"), true);
    let token = provider.token(&provider.claims("ada", AUD));
    // The keys were just fetched: they are not fetched again before the interval has passed, and the caller is told when to retry.
    let later = |answer: Result<String, TokenRejection>| match answer {
        Err(no @ TokenRejection::Later(..)) => {
            no.retry().is_some_and(|wait| wait <= Duration::from_millis(limits::OIDC_REFETCH_MS))
        }
        _ => false,
    };
    assert!(later(taken(&issuers, &token).await));
    assert_eq!(provider.asked("/keys").len(), 1);
    tokio::time::sleep(Duration::from_millis(limits::OIDC_REFETCH_MS + 200)).await;
    // All callers that arrive during a fetch wait for that one fetch.
    let (one, other, third) = tokio::join!(taken(&issuers, &token), taken(&issuers, &token), taken(&issuers, &token));
    assert_eq!((one, other, third), (Ok("ada".into()), Ok("ada".into()), Ok("ada".into())));
    assert_eq!(provider.asked("/keys").len(), 2);
    for n in 0..20 {
        provider.rotate_to(&format!("made-up-{n}"), Signer::new("ES256"), false);
        let made_up = provider.token(&provider.claims("ada", AUD));
        assert!(later(taken(&issuers, &made_up).await));
    }
    assert_eq!(provider.asked("/keys").len(), 2, "whoever makes up key names costs the issuer nothing more");
    // A key id that its own fetch did not find is refused permanently, and causes no more fetches.
    let made_up = provider.token(&provider.claims("ada", AUD));
    tokio::time::sleep(Duration::from_millis(limits::OIDC_REFETCH_MS + 200)).await;
    for _ in 0..2 {
        assert_eq!(taken(&issuers, &made_up).await, Err(TokenRejection::Defect(OidcDefect::UnknownKid)));
    }
    assert_eq!(provider.asked("/keys").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_at_a_url_or_in_a_file_need_no_discovery() {
    let provider = Provider::start();
    let at = format!("{SUBJECT}\njwks = \"{}/keys\"", provider.issuer);
    let (_up, issuers) = up(&provider, &at).await;
    assert_eq!(taken(&issuers, &provider.token(&provider.claims("ada", AUD))).await, Ok("ada".into()));
    assert!(provider.asked("/.well-known/openid-configuration").is_empty());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), provider.jwks().to_string()).unwrap();
    let in_file = format!("{SUBJECT}\njwks = \"{}\"", file.path().display());
    let before = provider.asked("/keys").len();
    let (_up, issuers) = up(&provider, &in_file).await;
    assert_eq!(taken(&issuers, &provider.token(&provider.claims("ada", AUD))).await, Ok("ada".into()));
    assert_eq!(provider.asked("/keys").len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_document_of_the_issuer_gives_no_keys() {
    let get = |provider: &Provider| {
        let url = format!("{}/keys", provider.issuer);
        async move { HttpsClient::new(None, &System::real()).unwrap().document(&url, limits::OIDC_DOCUMENT_BYTES).await }
    };
    let provider = Provider::start();
    let elsewhere = Provider::start();
    let to = format!("Location: {}/keys\r\n", elsewhere.issuer);
    provider.lay("/keys", move |_| (302, to.clone(), String::new()));
    assert!(matches!(get(&provider).await, Err(HttpsError::Http { .. })), "a redirect is no answer");
    assert!(elsewhere.asked("/keys").is_empty(), "and is not followed");
    provider.lay("/keys", |_| (200, String::new(), "x".repeat(limits::OIDC_DOCUMENT_BYTES + 1)));
    assert!(matches!(get(&provider).await, Err(HttpsError::Http { .. })), "too much is no answer");
    provider.lay("/keys", |_| (200, "Content-Encoding: gzip\r\n".into(), "x".into()));
    assert!(matches!(get(&provider).await, Err(HttpsError::Http { .. })), "nothing is unpacked");
    let mut document = provider.document();
    document["jwks_uri"] = format!("{}/keys", elsewhere.issuer).into();
    provider.lay("/.well-known/openid-configuration", move |_| answer_json(&document));
    let asked = mayfly::sources::oidc::discover(&HttpsClient::new(None, &System::real()).unwrap(), &provider.issuer).await;
    assert!(asked.unwrap_err().contains("another host or port"));
    let (_up, issuers) = {
        let up = Up::with_config(DevSettings::default(), &provider.section("idp", &["dev"], SUBJECT));
        let issuers = up.running().authority().oidc.clone();
        (up, issuers)
    };
    let token = provider.token(&provider.claims("ada", AUD));
    assert_eq!(taken(&issuers, &token).await, Err(TokenRejection::NoKeys("idp".into())), "without keys nobody is believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_bridged_for_a_bounded_time() {
    use mayfly::identity::oidc::{Issuer, IssuerKeys, IssuerUse};
    use mayfly::seq::Millis;
    use mayfly::system::ManualClock;
    let provider = Provider::start();
    let clock = ManualClock::at(Millis(1_795_132_800_000));
    let system = System::with_clock(clock.clone());
    let issuer = Issuer {
        name: "idp".into(),
        issuer: provider.issuer.clone(),
        environments: vec!["dev".into()],
        audience: None,
        audiences: None,
        algorithms: vec![mayfly::identity::jwk::Algorithm::Es256],
        uses: vec![IssuerUse::Subject],
        max_life_ms: 3_600_000,
        scopes_claim: None,
        groups_claim: None,
        rights: Vec::new(),
        jobs: None,
    };
    let issuers = Issuers::new([issuer], system.clone());
    let known = &issuers.all()[0];
    assert!(known.keys(&system).is_none());
    known.begin(&system);
    known.end(Some(IssuerKeys::parse(provider.jwks().to_string().as_bytes()).unwrap()), &system);
    clock.advance(limits::OIDC_KEPT_MS);
    known.end(None, &system);
    assert!(known.keys(&system).is_some(), "kept through an outage");
    // Setting the wall clock back does not make the keys younger.
    clock.step_to(Millis(0));
    clock.advance(1);
    assert!(known.keys(&system).is_none(), "and not for longer than that");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_the_roots_that_were_named_vouch_for_the_issuer() {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut asked = [0; 1024];
            let _ = tls.read(&mut asked).await;
            let body = json!({"hello": true}).to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            let _ = tls.write_all(answer.as_bytes()).await;
            let _ = tls.shutdown().await;
        }
    });
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), cert.pem()).unwrap();
    let url = format!("https://localhost:{port}/keys");
    let system = System::real();
    let body = HttpsClient::new(Some(roots.path()), &system).unwrap().document(&url, 100).await.unwrap();
    assert_eq!(&body[..], b"{\"hello\":true}");
    let by_others = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(roots.path(), by_others.pem().replace('A', "B")).unwrap();
    assert!(HttpsClient::new(Some(roots.path()), &system).is_err(), "a file without a root is told");
    let other = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&other).unwrap();
    std::fs::write(roots.path(), other.pem()).unwrap();
    let refused = HttpsClient::new(Some(roots.path()), &system).unwrap().document(&url, 100).await;
    assert!(matches!(refused, Err(HttpsError::Io { .. })), "{refused:?}");
    let plain = HttpsClient::new(None, &system).unwrap().document("http://example.org/keys", 100).await;
    assert!(matches!(plain, Err(HttpsError::Url(_))), "nothing is asked in clear beyond this machine");
}
