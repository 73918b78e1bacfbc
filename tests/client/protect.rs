//! The tower layer in front of a service: what it lets through, what it answers, and a revocation that it has seen.

use std::convert::Infallible;

use http::{Method, Request, Response, StatusCode, header};
use mayfly::cli::dev::TRUST_DOMAIN;
use mayfly_client::Verifier;
use mayfly_client::middleware::{Protect, Verified};
use mayfly_client::verifier::{Following, Settings};
use tower::{Layer as _, ServiceExt as _};

use super::kit::Up;

pub const RESOURCE: &str = "https://echo.dev.mayfly.internal/mcp";

pub async fn following(up: &Up) -> Following {
    let settings = Settings {
        follower: "echo-1".into(),
        upstreams: vec!["echo".into()],
        issuer: format!("https://{TRUST_DOMAIN}/dev"),
        audience: "https://echo.dev.mayfly.internal".into(),
    };
    let following = Verifier::begin(settings, &up.client("service/echo").await);
    tokio::time::timeout(super::kit::PATIENCE, following.until_ready()).await.unwrap();
    following
}

/// The service behind the layer: answers with the task of the call, and whether it still sees a credential in a header.
async fn behind(request: Request<()>) -> Result<Response<String>, Infallible> {
    let verified = request.extensions().get::<Verified>().unwrap();
    let leaked = request.headers().contains_key(header::AUTHORIZATION);
    let fits = verified.serves("echo:read", "read", &serde_json::json!({"n": 1}));
    let told =
        format!("{} {leaked} {}", verified.task_id().unwrap(), fits.map_or_else(|e| e.to_string(), |()| "fits".to_owned()));
    Ok(Response::new(told))
}

async fn call(protect: &Protect, path: &str, token: Option<&str>) -> (StatusCode, String, String) {
    let mut request = Request::builder().method(Method::GET).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let service = protect.layer(tower::service_fn(behind));
    let answer = service.oneshot(request.body(()).unwrap()).await.unwrap();
    let challenge = answer.headers().get(header::WWW_AUTHENTICATE).map_or("", |v| v.to_str().unwrap()).to_owned();
    (answer.status(), challenge, answer.into_body())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_as_mcp_has_it() {
    let up = Up::new();
    let verifier = following(&up).await;
    let protect = Protect::new(verifier.clone(), RESOURCE).scope("echo:read").scopes_supported(["echo:read", "echo:write"]);
    let metadata = "https://echo.dev.mayfly.internal/.well-known/oauth-protected-resource/mcp";

    let (status, challenge, _) = call(&protect, "/mcp", None).await;
    assert_eq!((status, challenge), (StatusCode::UNAUTHORIZED, format!("Bearer resource_metadata=\"{metadata}\"")));
    let (status, _, body) = call(&protect, "/.well-known/oauth-protected-resource/mcp", None).await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, body["resource"].as_str(), body["authorization_servers"][0].as_str()),
        (StatusCode::OK, Some(RESOURCE), Some("https://dev.mayfly.internal/dev"))
    );
    let (status, challenge, _) = call(&protect, "/mcp", Some("nonsense")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(challenge.contains("error=\"invalid_token\", error_description=\"malformed\""), "{challenge}");

    let mayfly = up.client("agent/demo").await;
    let good =
        mayfly.credential("echo").scope("echo:read").tool("read").arguments(&serde_json::json!({"n": 1})).get().await.unwrap();
    let (status, _, body) = call(&protect, "/mcp", Some(good.token().expose())).await;
    assert_eq!((status, body), (StatusCode::OK, format!("{} false fits", good.task_id())));
    let other =
        mayfly.credential("echo").scope("echo:read").tool("read").arguments(&serde_json::json!({"n": 2})).get().await.unwrap();
    let (_, _, body) = call(&protect, "/mcp", Some(other.token().expose())).await;
    assert!(body.ends_with("it was issued for other arguments"), "{body}");

    let narrow = mayfly.credential("echo").scope("echo:write").get().await.unwrap();
    let (status, challenge, _) = call(&protect, "/mcp", Some(narrow.token().expose())).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(challenge, format!("Bearer error=\"insufficient_scope\", scope=\"echo:read\", resource_metadata=\"{metadata}\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_refused_right_after_revoke_wait_returns() {
    let up = Up::new();
    let verifier = following(&up).await;
    let protect = Protect::new(verifier.clone(), RESOURCE);
    let mayfly = up.client("agent/demo").await;
    for _ in 0..5 {
        let credential = mayfly.credential("echo").scope("echo:read").get().await.unwrap();
        assert_eq!(call(&protect, "/mcp", Some(credential.token().expose())).await.0, StatusCode::OK);
        let told = up.operator(&["revoke", "--credential", credential.credential_id(), "--reason", "test", "--wait"]);
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let (status, challenge, _) = call(&protect, "/mcp", Some(credential.token().expose())).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(challenge.contains("error_description=\"revoked\""), "{challenge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_feed_nothing_is_let_through() {
    let up = Up::new();
    let settings = following(&up).await.settings().clone();
    let verifier = Verifier::new(settings, mayfly_client::RealClock::new());
    let credential = up.client("agent/demo").await.credential("echo").scope("echo:read").get().await.unwrap();
    let (status, ..) = call(&Protect::new(verifier, RESOURCE), "/mcp", Some(credential.token().expose())).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "it does not even know the keys");
}
