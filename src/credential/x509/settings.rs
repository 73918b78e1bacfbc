//! The section `[x509]` of a registration.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::certificates::{CaRotation, known_scopes, path_exists, rotation};
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::upstream::file::each;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct X509Settings {
    /// How verifiers learn that a certificate was revoked.
    pub revocation: CertificateRevocation,
    /// How the CA is followed by the next one.
    pub rotation: CaRotation,
    /// The names that scopes give.
    pub grants: Vec<NameGrant>,
}

/// How verifiers learn that a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateRevocation {
    /// By a CRL, which the certificate names.
    Crl,
    /// Not at all: noRevAvail (RFC 9608).
    None,
}

/// The names that one scope gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameGrant {
    /// The scope.
    pub scope: String,
    /// The common name of the subject: for many servers, the name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// The organization of the subject: for Kubernetes, the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The DNS names that the holder may serve under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
}

/// The names of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CertificateNames {
    /// The common name. `None`: the credential's id.
    pub common_name: Option<String>,
    /// The organization, if there is one.
    pub organization: Option<String>,
    /// The DNS names.
    pub dns_names: Vec<String>,
}

impl X509Settings {
    /// Whether certificates cannot be revoked.
    pub fn is_irrevocable(&self) -> bool {
        self.revocation == CertificateRevocation::None
    }

    /// The names that these scopes give together. Refused where a name of the subject, of which there is one, would be two.
    pub fn names(&self, scopes: &[String]) -> Result<CertificateNames, Error> {
        let mut names = CertificateNames::default();
        let granted = || self.grants.iter().filter(|grant| scopes.contains(&grant.scope));
        let one = |what: &str, of: fn(&NameGrant) -> Option<&String>| {
            // A scope without a name stands for the credential's own; together with another scope it would get the name of that one.
            let mut all: Vec<Option<&String>> = scopes.iter().map(|s| granted().find(|g| g.scope == *s).and_then(of)).collect();
            all.sort_unstable();
            all.dedup();
            match all.as_slice() {
                [] => Ok(None),
                [only] => Ok(only.cloned()),
                _ => {
                    let no = format!("give different {what}s, and a certificate has one");
                    Err(Error::Refusal(Refusal::field("scopes", no).way_out("ask for a certificate for each scope")))
                }
            }
        };
        names.common_name = one("common name", |g| g.common_name.as_ref())?;
        names.organization = one("organization", |g| g.organization.as_ref())?;
        names.dns_names = granted().flat_map(|g| g.dns_names.iter().cloned()).collect();
        names.dns_names.sort_unstable();
        names.dns_names.dedup();
        Ok(names)
    }
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let revocation_field = section.required("revocation");
    let revocation = revocation_field
        .as_ref()
        .and_then(|f| f.one_of(&[("crl", CertificateRevocation::Crl), ("none", CertificateRevocation::None)]));
    let rotation = rotation(section);
    let grants = match section.optional("grants") {
        Some(field) => {
            let read: Option<Vec<NameGrant>> = field.list(limits::TASK_LIST)?.iter().map(|entry| entry.inside(grant)).collect();
            read.and_then(|all| known_scopes(&field, around, all, |g| &g.scope))
        }
        None => Some(Vec::new()),
    };
    path_exists(section, around)?;
    if let (Some(field), Some(CertificateRevocation::None), Some(ttl)) = (&revocation_field, revocation, around.ttl)
        && ttl.max > limits::NO_REV_AVAIL_TTL_S
    {
        let what = format!("is \"none\", and ttl.max is {} s: a certificate that nothing revokes has to end soon", ttl.max);
        return field.wrong(what, format!("lower ttl.max to {} s or less, or write \"crl\"", limits::NO_REV_AVAIL_TTL_S));
    }
    serde_json::to_value(X509Settings { revocation: revocation?, rotation: rotation?, grants: grants? }).ok()
}

fn grant(section: &Section<'_>) -> Option<NameGrant> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let common_name = section.optional("common_name").map_or(Some(None), |f| subject_name(&f).map(Some));
    let organization = section.optional("organization").map_or(Some(None), |f| subject_name(&f).map(Some));
    let dns_names = match section.optional("dns_names") {
        Some(field) => each(&field, 1, dns_name).and_then(|all| match all.len() <= limits::CERTIFICATE_NAMES {
            true => Some(all),
            false => field.wrong(format!("has {} names", all.len()), format!("at most {}", limits::CERTIFICATE_NAMES)),
        }),
        None => Some(Vec::new()),
    };
    Some(NameGrant { scope: scope?, common_name: common_name?, organization: organization?, dns_names: dns_names? })
}

/// A name of a subject: printable ASCII, since servers compare names byte by byte.
fn subject_name(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::CERTIFICATE_NAME_BYTES)?;
    match text.trim() == text && !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        true => Some(text),
        false => field.wrong(format!("is {text:?}"), "printable ASCII that neither begins nor ends with a space"),
    }
}

/// A DNS name in lower case: no wildcard and no address, since either would be a name of machines that nobody listed.
fn dns_name(field: &Field<'_>) -> Option<String> {
    let text = field.text(253)?;
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let address = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    match text.split('.').all(label) && !address {
        true => Some(text),
        false => field.wrong(format!("is {text:?}"), "a DNS name in lower case, without a wildcard, like db.example.org"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::{comes_back, each_is_told, parse};

    const WHOLE: &str = include_str!("template.toml");

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        let upstream = parse(WHOLE).unwrap();
        let section = upstream.settings.of("x509").unwrap();
        let settings: X509Settings = serde_json::from_value(section.clone()).unwrap();
        assert_eq!(settings.grants.len(), 2);
        comes_back(&upstream, WHOLE, "x509");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        each_is_told(
            WHOLE,
            &[
                ("revocation = \"crl\"", "", "lacks x509.revocation"),
                ("revocation = \"crl\"", "revocation = \"ocsp\"", "x509.revocation"),
                ("revocation = \"crl\"", "revocation = \"none\"", "lower ttl.max to 600 s"),
                ("scope = \"reports:read\"", "scope = \"reports:none\"", "which is not in scopes"),
                ("common_name = \"reports_reader\"", "common_name = \" x\"", "neither begins nor ends with a space"),
                ("dns_names = [\"reports.example.org\"]", "dns_names = [\"*.example.org\"]", "without a wildcard"),
                ("dns_names = [\"reports.example.org\"]", "dns_names = [\"10.0.0.1\"]", "a DNS name"),
                ("name = \"reports\"", "name = \"team/reports\"", "has a slash"),
            ],
        );
    }

    #[test]
    fn scopes_with_different_names_do_not_share_a_certificate() {
        let upstream = parse(WHOLE).unwrap();
        let settings: X509Settings = serde_json::from_value(upstream.settings.of("x509").unwrap().clone()).unwrap();
        let names = |scopes: &[&str]| settings.names(&scopes.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["reports:read"]).unwrap().common_name.as_deref(), Some("reports_reader"));
        assert_eq!(names(&["reports:serve"]).unwrap().dns_names, ["reports.example.org"]);
        assert!(names(&["reports:read", "reports:serve"]).is_err(), "one scope's name must not become the other's");
        assert_eq!(names(&["unknown"]).unwrap(), CertificateNames::default());
    }
}
