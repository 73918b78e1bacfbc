//! The subjects of assertions, and what vendors accept of an assertion.

use serde::{Deserialize, Serialize};

use mayfly_base::limits;

/// The form of `sub`: text with placeholders. What a vendor's configuration matches, so a registration never changes it silently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectTemplate(String);

/// The placeholders, and what stands for each.
const PLACEHOLDERS: [&str; 5] = ["{caller}", "{caller_path}", "{trust_domain}", "{environment}", "{upstream}"];
/// The placeholders whose values differ between the callers of an upstream.
const CALLERS: [&str; 3] = ["{caller}", "{caller_path}", "{trust_domain}"];

impl SubjectTemplate {
    /// `sub` is the SPIFFE ID of the caller.
    pub fn caller() -> SubjectTemplate {
        SubjectTemplate("{caller}".to_owned())
    }

    /// Parses a template. The error says what is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<SubjectTemplate, (String, &'static str)> {
        const REMEDY: &str =
            "text with at most one of {caller}, {caller_path} and {trust_domain}, and with {environment} and {upstream}";
        let mut rest = text.to_owned();
        for placeholder in PLACEHOLDERS {
            rest = rest.replace(placeholder, "");
        }
        if rest.contains(['{', '}']) {
            return Err((format!("is {text:?}, with a placeholder that does not exist"), REMEDY));
        }
        if !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err((format!("is {text:?}"), "visible ASCII without spaces"));
        }
        // Two texts that a caller influences could be read as others in another division.
        let of_callers: usize = CALLERS.iter().map(|one| text.matches(one).count()).sum();
        if of_callers > 1 {
            return Err((format!("is {text:?}, with more than one placeholder of the caller"), REMEDY));
        }
        Ok(SubjectTemplate(text.to_owned()))
    }

    /// The subject of a caller.
    pub fn of(&self, caller: &str, environment: &str, upstream: &str) -> String {
        let (domain, path) = caller.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).unwrap_or((caller, ""));
        // From left to right, so that a replaced text is not searched again.
        let values = [caller, path, domain, environment, upstream];
        let (mut out, mut rest) = (String::new(), self.0.as_str());
        while let Some(at) = rest.find('{') {
            let (plain, from) = rest.split_at(at);
            out.push_str(plain);
            match PLACEHOLDERS.iter().zip(values).find(|(name, _)| from.starts_with(**name)) {
                Some((name, value)) => {
                    out.push_str(value);
                    rest = from.get(name.len()..).unwrap_or_default();
                }
                None => {
                    out.push('{');
                    rest = from.get(1..).unwrap_or_default();
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// A vendor, for the limits of what it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// Amazon Web Services, IAM OIDC providers.
    Aws,
    /// Google Cloud, workload identity federation.
    Gcp,
    /// Microsoft Entra, federated identity credentials.
    Entra,
    /// Kubernetes, JWT authenticators of the API server.
    Kubernetes,
    /// HashiCorp Vault and OpenBao, the auth method `jwt`.
    Vault,
    /// Another one.
    Other,
}

impl Vendor {
    /// The values in a registration.
    pub const NAMES: &'static [(&'static str, Vendor)] = &[
        ("aws", Vendor::Aws),
        ("gcp", Vendor::Gcp),
        ("entra", Vendor::Entra),
        ("kubernetes", Vendor::Kubernetes),
        ("vault", Vendor::Vault),
        ("other", Vendor::Other),
    ];

    /// Whether the vendor verifies ES256. Entra verifies RS256 only.
    pub const fn takes_es256(self) -> bool {
        !matches!(self, Vendor::Entra)
    }

    /// The shortest and the longest subject, and the longest issuer and audience, in characters.
    const fn bounds(self) -> (usize, usize, usize) {
        match self {
            // SubjectFromWebIdentityToken and Audience of the answer have 6 to 255 and 1 to 255 characters.
            Vendor::Aws => (6, 255, 255),
            // The attribute google.subject has up to 127 bytes; an allowed audience has up to 256 characters.
            Vendor::Gcp => (1, 127, 256),
            // Issuer, subject and audience of a federated identity credential have up to 600 characters each.
            Vendor::Entra => (1, 600, 600),
            Vendor::Kubernetes | Vendor::Vault | Vendor::Other => (1, limits::ASSERTION_NAME_BYTES, limits::ASSERTION_NAME_BYTES),
        }
    }

    /// Checks an assertion against the limits of the vendor. The error names the limit, and what mends it.
    pub fn check(self, issuer: &str, subject: &str, audience: &str) -> Result<(), String> {
        let (least, most, other) = self.bounds();
        let name = Vendor::NAMES.iter().find(|(_, vendor)| *vendor == self).map_or("", |(name, _)| name);
        if subject.len() < least || subject.len() > most {
            return Err(format!(
                "the subject {subject} has {} characters, and {name} accepts {least} to {most}; to mend it: set federation.subject, \
                 for example to {{caller_path}}",
                subject.len()
            ));
        }
        for (what, text) in [("issuer", issuer), ("audience", audience)] {
            if text.len() > other {
                return Err(format!("the {what} {text} has {} characters, and {name} accepts {other}", text.len()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_made_of_the_closed_list_only() {
        let of =
            |template: &str| SubjectTemplate::parse(template).unwrap().of("spiffe://td.example/ns/a{upstream}/b", "prod", "aws");
        assert_eq!(of("{caller}"), "spiffe://td.example/ns/a{upstream}/b", "a caller's text is not searched again");
        assert_eq!(of("mayfly:{environment}:{upstream}:{caller_path}"), "mayfly:prod:aws:ns/a{upstream}/b");
        assert_eq!(of("{trust_domain}"), "td.example");
        assert_eq!(of("fixed"), "fixed");
        for wrong in ["{sub}", "{caller", "a b", "{caller}{caller_path}", "{caller}{caller}", "}"] {
            assert!(SubjectTemplate::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_limits_of_vendors_are_checked() {
        let long = "s".repeat(128);
        for (vendor, subject, good) in [
            (Vendor::Gcp, &long[..127], true),
            (Vendor::Gcp, &long[..], false),
            (Vendor::Aws, &long[..], true),
            (Vendor::Aws, "short", false),
            (Vendor::Entra, &"s".repeat(600)[..], true),
            (Vendor::Entra, &"s".repeat(601)[..], false),
        ] {
            assert_eq!(vendor.check("https://i", subject, "aud").is_ok(), good, "{vendor:?} {}", subject.len());
        }
        let no = Vendor::Gcp.check("https://i", &long, "aud").unwrap_err();
        assert!(no.contains("128 characters") && no.contains("1 to 127") && no.contains("federation.subject"), "{no}");
        assert!(Vendor::Aws.check("https://i", "subject", &"a".repeat(256)).is_err());
    }
}
