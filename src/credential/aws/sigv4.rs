//! AWS Signature Version 4 for a POST of the Query API, and nothing else of it.

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
    /// The service: `sts` or `iam`.
    pub service: &'static str,
    /// The time, seconds since 1970.
    pub now_s: u64,
}

const FORM: &str = "application/x-www-form-urlencoded";
const SIGNED: &str = "content-type;host;x-amz-date;x-amz-security-token";

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
    let (date, stamp) = times(scope.now_s)?;
    let authorization = authorization(&host, &body, (&date, &stamp), keys, scope);
    let body = Zeroizing::new(body.as_bytes().to_vec());
    let request = UpstreamRequest::post(url).body(FORM, body).header(ACCEPT, "text/xml");
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
    host: &str,
    body: &str,
    (date, stamp): (&str, &str),
    keys: &SessionKeys,
    scope: &SigningScope<'_>,
) -> Zeroizing<String> {
    let canonical = Zeroizing::new(format!(
        "POST\n/\n\ncontent-type:{FORM}\nhost:{host}\nx-amz-date:{stamp}\nx-amz-security-token:{}\n\n{SIGNED}\n{}",
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
        "AWS4-HMAC-SHA256 Credential={id}/{within}, SignedHeaders={SIGNED}, Signature={}",
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
        let value = authorization("iam.amazonaws.com", body, (&date, &stamp), &keys, &scope);
        assert_eq!(value.rsplit_once("Signature=").unwrap().1, BOTOCORE);
    }

    const BOTOCORE: &str = "6d356ad10d910367b0d39d77d12908ad78bcfc0d7973d53ebb4196208e65e5a4";
}
