//! Calls of the Query API: STS AssumeRoleWithWebIdentity, which needs no signature, and the answers in XML.

use http::header::ACCEPT;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::access::https::{UpstreamHttps, UpstreamRequest, UpstreamResponse};
use crate::connector::MakeError;
use mayfly_verify::seq::Millis;

/// The keys of a session.
pub struct SessionKeys {
    /// AccessKeyId.
    pub access_key_id: String,
    /// SecretAccessKey.
    pub secret_access_key: Zeroizing<String>,
    /// SessionToken.
    pub session_token: Zeroizing<String>,
    /// When the session ends.
    pub expires_at: Millis,
}

/// A session that is asked for.
pub struct SessionOrder<'a> {
    /// The role's ARN.
    pub role: &'a str,
    /// RoleSessionName.
    pub name: &'a str,
    /// DurationSeconds.
    pub seconds: u64,
    /// The session policy, JSON.
    pub policy: Option<&'a str>,
    /// The assertion.
    pub assertion: &'a str,
    /// The issuer of the assertion, for errors.
    pub issuer: &'a str,
}

/// Assumes a role by an assertion.
pub async fn assume(client: &UpstreamHttps, url: &str, order: &SessionOrder<'_>) -> Result<SessionKeys, MakeError> {
    let seconds = order.seconds.to_string();
    let mut fields = vec![
        ("Action", "AssumeRoleWithWebIdentity", false),
        ("Version", "2011-06-15", false),
        ("RoleArn", order.role, false),
        ("RoleSessionName", order.name, false),
        ("DurationSeconds", &seconds, false),
        ("WebIdentityToken", order.assertion, true),
    ];
    fields.extend(order.policy.map(|policy| ("Policy", policy, false)));
    let answer = client.call(UpstreamRequest::post(url).form(&fields).header(ACCEPT, "text/xml")).await?;
    if !answer.status.is_success() {
        let no = format!("{}{}", problem(&answer, &format!("assuming {}", order.role)), remedy(&answer, order));
        return Err(if answer.status.is_server_error() { MakeError::Unknown(no) } else { MakeError::Refused(no) });
    }
    keys(&answer).ok_or_else(|| MakeError::Unknown(format!("the answer of {url} has no complete credentials")))
}

fn keys(answer: &UpstreamResponse) -> Option<SessionKeys> {
    let text = std::str::from_utf8(answer.body()).ok()?;
    let text = element(text, "Credentials")?;
    let value = |name: &str| unescaped(element(text, name)?).filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_graphic()));
    let ends = OffsetDateTime::parse(element(text, "Expiration")?.trim(), &Rfc3339).ok()?;
    Some(SessionKeys {
        access_key_id: value("AccessKeyId")?.to_string(),
        secret_access_key: value("SecretAccessKey")?,
        session_token: value("SessionToken")?,
        expires_at: Millis(u64::try_from(ends.unix_timestamp()).ok()?.checked_mul(1000)?),
    })
}

/// What AWS says of a call that it refused.
pub fn problem(answer: &UpstreamResponse, what: &str) -> String {
    let text = std::str::from_utf8(answer.body()).unwrap_or_default();
    let part = |name: &str| element(text, name).and_then(unescaped).map(|t| answer.told(&t)).unwrap_or_default();
    format!("{what}: status {} {} {}", answer.status.as_u16(), part("Code"), part("Message")).trim_end().to_owned()
}

/// The code of an error.
pub fn code(answer: &UpstreamResponse) -> String {
    let text = std::str::from_utf8(answer.body()).unwrap_or_default();
    element(text, "Code").unwrap_or_default().trim().to_owned()
}

fn remedy(answer: &UpstreamResponse, order: &SessionOrder<'_>) -> String {
    let SessionOrder { role, issuer, seconds, .. } = order;
    match code(answer).as_str() {
        "AccessDenied" => format!(
            "; to mend it: the trust policy of {role} has to allow sts:AssumeRoleWithWebIdentity and sts:TagSession to the provider {issuer}, \
             with conditions on aud and sub that this assertion meets"
        ),
        "InvalidIdentityToken" => format!(
            "; to mend it: IAM needs an OpenID Connect provider for {issuer} with this audience, and {issuer} has to be reachable for AWS"
        ),
        "ValidationError" => format!("; if it is the duration: MaxSessionDuration of {role} has to be {seconds} s or more"),
        _ => String::new(),
    }
}

/// The content of the first element of that name.
pub fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// A text without the escapes of XML. `None` for an escape that XML does not define.
pub fn unescaped(text: &str) -> Option<Zeroizing<String>> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    while let Some((plain, from)) = rest.split_once('&') {
        out.push_str(plain);
        let (name, after) = from.split_once(';')?;
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            other => {
                let number = other.strip_prefix('#')?;
                let value = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(value)?
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_escapes_are_undone() {
        let text = "<A><Code>Access</Code><Message>a &lt;b&gt; &amp;#38; &#38;&#x26; c</Message></A>";
        assert_eq!(element(text, "Code"), Some("Access"));
        assert_eq!(unescaped(element(text, "Message").unwrap()).unwrap().as_str(), "a <b> &#38; && c");
        assert_eq!(element(text, "None"), None);
        assert_eq!(element("<Code>open", "Code"), None);
        for wrong in ["&nbsp;", "& ", "&#xD800;", "&#99999999999;"] {
            assert!(unescaped(wrong).is_none(), "{wrong}");
        }
    }
}
