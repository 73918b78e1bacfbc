//! One delivery attempt of a webhook: a signed POST (Standard Webhooks), bounded in time.

use aws_lc_rs::hmac;
use http::HeaderName;

use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::config::WebhookConfig;
use mayfly_config::https::HttpsClient;
use mayfly_config::webhook_files::secrets;

/// Posts a body under its id. Returns the answered status if it confirms the delivery, else the error.
///
/// `traceparent`: the header for the receiver, if the attempt is traced.
pub(super) async fn post(
    hook: &WebhookConfig,
    system: &System,
    id: &str,
    body: &str,
    traceparent: Option<String>,
) -> Result<u16, String> {
    let now = system.wall().seconds();
    let headers = [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", now.to_string()),
        ("webhook-signature", signature(hook, id, now, body)?),
    ];
    let named = |(name, value)| (HeaderName::from_static(name), value);
    let headers = headers.into_iter().chain(traceparent.map(|parent| ("traceparent", parent))).map(named).collect();
    // Read for each attempt, so that replaced roots take effect at once.
    let https = HttpsClient::new(hook.ca.as_deref(), system).map_err(|e| e.to_string())?.within(limits::WEBHOOK_CALL_MS);
    let answer = Box::pin(https.tell(hook.url.as_str(), body.to_owned(), headers)).await;
    match answer.map_err(|e| e.to_string())?.as_u16() {
        status @ 200..=299 => Ok(status),
        status @ 300..=399 => Err(format!("{}: it answered {status}; redirects are not followed", hook.url.shown())),
        status => Err(format!("{}: it answered {status}", hook.url.shown())),
    }
}

/// `v1,` and the HMAC-SHA256 over id, time and body in base64; one signature per secret.
fn signature(hook: &WebhookConfig, id: &str, now: u64, body: &str) -> Result<String, String> {
    let secrets = secrets(&hook.secret_file).map_err(|e| e.to_string())?;
    let signed = format!("{id}.{now}.{body}");
    let one = |secret: &zeroize::Zeroizing<Vec<u8>>| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("v1,{}", data_encoding::BASE64.encode(tag.as_ref()))
    };
    Ok(secrets.iter().map(one).collect::<Vec<_>>().join(" "))
}
