//! AWS Signature Version 4 for a POST of the Query API or of the JSON API, and nothing else of it.

use aws_lc_rs::{digest, hmac};
use data_encoding::HEXLOWER;
use http::HeaderName;
use http::header::{ACCEPT, AUTHORIZATION};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::sts::SessionKeys;
use crate::access::https::{UpstreamRequest, form_encoded};
use mayfly_base::document::url::WebUrl;

/// What a call is signed for.
pub struct SigningScope<'a> {
    /// The region.
    pub region: &'a str,
    /// The service: `sts`, `iam` or `secretsmanager`.
    pub service: &'static str,
    /// The time, seconds since 1970.
    pub now_s: u64,
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/x-amz-json-1.1";

/// The signed parts of a request.
struct SignedParts<'a> {
    media_type: &'static str,
    host: &'a str,
    body: &'a str,
    /// `X-Amz-Target`: the action of the JSON API.
    action: Option<&'static str>,
}

/// A signed call of an action.
pub fn signed(
    url: &str,
    fields: &[(&str, &str)],
    keys: &SessionKeys,
    scope: &SigningScope<'_>,
) -> Result<UpstreamRequest, String> {
    let host = WebUrl::parse(url).ok_or("the endpoint is no https URL")?.authority();
    let mut body = Zeroizing::new(String::new());
    for (name, value) in fields {
        if !body.is_empty() {
            body.push('&');
        }
        body.push_str(name);
        body.push('=');
        body.push_str(&form_encoded(value));
    }
    let parts = SignedParts { media_type: FORM, host: &host, body: &body, action: None };
    request(url, &parts, keys, scope).map(|request| request.header(ACCEPT, "text/xml"))
}

/// A signed call of the JSON API. `action`: `SERVICE.ACTION`.
pub fn signed_json(
    url: &str,
    action: &'static str,
    body: &str,
    keys: &SessionKeys,
    scope: &SigningScope<'_>,
) -> Result<UpstreamRequest, String> {
    let host = WebUrl::parse(url).ok_or("the endpoint is no https URL")?.authority();
    request(url, &SignedParts { media_type: JSON, host: &host, body, action: Some(action) }, keys, scope)
}

fn request(url: &str, parts: &SignedParts<'_>, keys: &SessionKeys, scope: &SigningScope<'_>) -> Result<UpstreamRequest, String> {
    let (date, stamp) = times(scope.now_s)?;
    let authorization = authorization(parts, (&date, &stamp), keys, scope);
    let mut request = UpstreamRequest::post(url).body(parts.media_type, Zeroizing::new(parts.body.as_bytes().to_vec()));
    if let Some(action) = parts.action {
        request = request.header(HeaderName::from_static("x-amz-target"), action);
    }
    let request = request.header(HeaderName::from_static("x-amz-date"), &stamp);
    let request = request.secret_header(HeaderName::from_static("x-amz-security-token"), &keys.session_token);
    Ok(request.secret_header(AUTHORIZATION, &authorization))
}

/// The date, and the date with the time, as a signature has them.
fn times(now_s: u64) -> Result<(String, String), String> {
    let at = i64::try_from(now_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok()).ok_or("the clock is wrong")?;
    let date = format!("{:04}{:02}{:02}", at.year(), u8::from(at.month()), at.day());
    let stamp = format!("{date}T{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second());
    Ok((date, stamp))
}

fn sha256_hex(text: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, text).as_ref())
}

/// The value of the header `Authorization`.
fn authorization(
    parts: &SignedParts<'_>,
    (date, stamp): (&str, &str),
    keys: &SessionKeys,
    scope: &SigningScope<'_>,
) -> Zeroizing<String> {
    let SignedParts { media_type, host, body, action } = parts;
    let (target, target_name) = match action {
        Some(action) => (format!("x-amz-target:{action}\n"), ";x-amz-target"),
        None => (String::new(), ""),
    };
    let names = format!("content-type;host;x-amz-date;x-amz-security-token{target_name}");
    let canonical = Zeroizing::new(format!(
        "POST\n/\n\ncontent-type:{media_type}\nhost:{host}\nx-amz-date:{stamp}\nx-amz-security-token:{}\n{target}\n{names}\n{}",
        *keys.session_token,
        sha256_hex(body.as_bytes())
    ));
    let SigningScope { region, service, .. } = scope;
    let within = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{within}\n{}", sha256_hex(canonical.as_bytes()));
    let mut key = Zeroizing::new([b"AWS4", keys.secret_access_key.as_bytes()].concat());
    for part in [date, region, service, "aws4_request"] {
        key = Zeroizing::new(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec());
    }
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
    let id = &keys.access_key_id;
    Zeroizing::new(format!(
        "AWS4-HMAC-SHA256 Credential={id}/{within}, SignedHeaders={names}, Signature={}",
        HEXLOWER.encode(signature.as_ref())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_verify::seq::Millis;

    /// The expected value is that of botocore 1.44.8 for the same request and time.
    #[test]
    fn the_signature_is_that_of_another_implementation() {
        let keys = SessionKeys {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: Zeroizing::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: Zeroizing::new("a/session+token==".to_owned()),
            expires_at: Millis(0),
        };
        let scope = SigningScope { region: "us-east-1", service: "iam", now_s: 1_440_938_160 };
        let (date, stamp) = times(scope.now_s).unwrap();
        assert_eq!(stamp, "20150830T123600Z");
        let body = "Action=GetRolePolicy&Version=2010-05-08&RoleName=reports&PolicyName=a%2Fb";
        let parts = SignedParts { media_type: FORM, host: "iam.amazonaws.com", body, action: None };
        let value = authorization(&parts, (&date, &stamp), &keys, &scope);
        assert_eq!(value.rsplit_once("Signature=").unwrap().1, BOTOCORE);
        let scope = SigningScope { service: "secretsmanager", ..scope };
        let parts = SignedParts {
            media_type: JSON,
            host: "secretsmanager.us-east-1.amazonaws.com",
            body: r#"{"SecretId":"a"}"#,
            action: Some("secretsmanager.GetSecretValue"),
        };
        let value = authorization(&parts, (&date, &stamp), &keys, &scope);
        assert_eq!(value.rsplit_once("Signature=").unwrap().1, BOTOCORE_JSON);
    }

    const BOTOCORE_JSON: &str = "b2eabcca5909289f90cd2e4f2c1d0b1f50b9e74b8bdd8628fbcebc228dc66305";
    const BOTOCORE: &str = "6d356ad10d910367b0d39d77d12908ad78bcfc0d7973d53ebb4196208e65e5a4";
}
