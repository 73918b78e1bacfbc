//! The section `[federation]` of a registration.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::subject::{SubjectTemplate, Vendor};
use crate::keyring::{ES256, RS256};
use mayfly_base::document::url::WebUrl;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederationSettings {
    /// Who verifies the assertion.
    pub vendor: Vendor,
    /// The signature algorithm.
    pub alg: AssertionAlg,
    /// `aud`.
    pub audience: String,
    /// `sub`.
    pub subject: SubjectTemplate,
    /// The registration consents to credentials that nothing ends before their time. Always true.
    pub irrevocable: bool,
    /// How keys follow each other.
    pub rotation: Rotation,
    /// The subject of an assertion that `mayfly upstream test` makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_subject: Option<String>,
    /// The longest life of an assertion that is handed out, seconds.
    pub life_max_s: u64,
    /// The call that gives a token for the assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<TokenExchange>,
}

/// The signature algorithm of assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssertionAlg {
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA-2048, PKCS #1 v1.5, with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
}

impl AssertionAlg {
    /// The JOSE name.
    pub const fn name(self) -> &'static str {
        match self {
            AssertionAlg::Es256 => ES256,
            AssertionAlg::Rs256 => RS256,
        }
    }
}

/// How the keys of the issuer follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// By time. The vendor fetches the JWK set.
    Automatic,
    /// When an operator says so. The vendor has a copy of the JWK set.
    Manual,
}

/// The call that gives a token for an assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenExchange {
    /// The token endpoint.
    pub url: String,
    /// The grant.
    pub grant: ExchangeGrant,
    /// The longest life of the vendor's token, seconds.
    pub token_life_s: u64,
    /// `audience` of RFC 8693.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// `resource` of RFC 8693.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `client_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The vendor's scopes for each scope of the registration.
    pub scopes: Vec<VendorScopes>,
}

/// The vendor's scopes for a scope of the registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorScopes {
    /// The scope of the registration.
    pub scope: String,
    /// The scopes that are asked of the vendor. Empty: none is sent for it.
    pub vendor: Vec<String>,
}

/// The grant by which an assertion is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExchangeGrant {
    /// RFC 8693: the assertion is the subject token.
    TokenExchange,
    /// RFC 7523, section 2.1: the assertion is the authorization grant.
    JwtBearer,
    /// RFC 7523, section 2.2: the assertion authenticates a client, which gets a token for itself.
    ClientAssertion,
}

const GRANTS: &[(&str, ExchangeGrant)] = &[
    ("token-exchange", ExchangeGrant::TokenExchange),
    ("jwt-bearer", ExchangeGrant::JwtBearer),
    ("client-assertion", ExchangeGrant::ClientAssertion),
];

impl TokenExchange {
    /// The vendor's scopes for scopes of the registration: those that are asked for, and those that policy sees.
    pub fn sent(&self, scopes: &[String]) -> impl Iterator<Item = &str> {
        self.scopes.iter().filter(|s| scopes.contains(&s.scope)).flat_map(|s| s.vendor.iter().map(String::as_str))
    }

    /// The life of an assertion that mayfly itself exchanges, milliseconds: for the call, and for the clocks of both sides.
    pub const fn assertion_life_ms(&self) -> u64 {
        5 * 60 * 1000
    }
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let vendor_field = section.required("vendor");
    let vendor = vendor_field.as_ref().and_then(|f| f.one_of(Vendor::NAMES));
    let alg_field = section.required("alg");
    let alg = alg_field.as_ref().and_then(|f| f.one_of(&[("ES256", AssertionAlg::Es256), ("RS256", AssertionAlg::Rs256)]));
    let audience = match section.optional("audience") {
        Some(field) => visible(&field),
        None => around.audience.map(str::to_owned),
    };
    let subject = match section.optional("subject") {
        Some(field) => {
            let text = field.text(limits::ASSERTION_NAME_BYTES);
            text.and_then(|text| SubjectTemplate::parse(&text).map_or_else(|(what, remedy)| field.wrong(what, remedy), Some))
        }
        None => Some(SubjectTemplate::caller()),
    };
    let irrevocable = consent(section);
    let rotation = match section.optional("rotation") {
        Some(field) => field.one_of(&[("automatic", Rotation::Automatic), ("manual", Rotation::Manual)]),
        None => Some(Rotation::Automatic),
    };
    let test_subject = match section.optional("test_subject") {
        Some(field) => visible(&field).map(Some),
        None => Some(None),
    };
    let life_max_s = seconds(section, ("life_max", "life_max_s"), limits::ASSERTION_LIFE_MS, limits::ASSERTION_LIFE_MAX_MS);
    let exchange_field = section.optional("exchange");
    let exchange = match &exchange_field {
        Some(field) => field.inside(|section| exchange(section, around)).map(Some),
        None => Some(None),
    };
    if let (Some(AssertionAlg::Es256), Some(vendor), Some(field)) = (alg, vendor, &alg_field)
        && !vendor.takes_es256()
    {
        return field.wrong("is ES256, which this vendor does not verify", "RS256");
    }
    let field = vendor_field.as_ref();
    for name in [around.environment, around.name].into_iter().flatten() {
        if let (true, Some(field)) = (name.contains('/'), field) {
            let what = format!("needs an issuer of its own for {name}, whose name has a slash");
            return field.wrong(what, "give upstream and environment names without slashes");
        }
    }
    let bound = match (&exchange, life_max_s) {
        (Some(Some(exchange)), _) => Some(("federation.exchange.token_life", exchange.token_life_s)),
        (Some(None), Some(life)) => Some(("federation.life_max", life)),
        _ => None,
    };
    if let (Some(ttl), Some((what, life)), Some(field)) = (around.ttl, bound, field)
        && ttl.max > life
    {
        let no = format!("cannot be issued for ttl.max, {} s: {what} is {life} s", ttl.max);
        return field.wrong(no, format!("lower ttl.max to {life} s, or raise {what}"));
    }
    let settings = FederationSettings {
        vendor: vendor?,
        alg: alg?,
        audience: audience?,
        subject: subject?,
        irrevocable: irrevocable?,
        rotation: rotation?,
        test_subject: test_subject?,
        life_max_s: life_max_s?,
        exchange: exchange?,
    };
    serde_json::to_value(settings).ok()
}

/// The consent to credentials that nothing ends before their time.
fn consent(section: &Section<'_>) -> Option<bool> {
    let field = section.required("irrevocable")?;
    match field.boolean()? {
        true => Some(true),
        false => field.wrong(
            "is false, and no vendor takes an assertion back before it ends",
            "true, if a credential may be used until it ends even after mayfly revoked it",
        ),
    }
}

/// A duration in whole seconds: a text like "10m" in a file, the number of seconds in the kept section.
fn seconds(section: &Section<'_>, (text, kept): (&str, &str), usual_ms: u64, most_ms: u64) -> Option<u64> {
    if let Some(field) = section.optional(kept) {
        return field.integer(1, most_ms / 1000);
    }
    match section.optional(text) {
        None => Some(usual_ms / 1000),
        Some(field) => match field.duration(1000, most_ms)? {
            ms if ms % 1000 == 0 => Some(ms / 1000),
            _ => field.wrong("has a part of a second", "whole seconds"),
        },
    }
}

/// Visible ASCII.
fn visible(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::ASSERTION_NAME_BYTES)?;
    match text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Some(text),
        false => field.wrong(format!("is {text:?}"), "visible ASCII without spaces"),
    }
}

fn exchange(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<TokenExchange> {
    let url = section.required("url").and_then(|field| {
        let text = field.text(limits::SPIFFE_ID_BYTES)?;
        match WebUrl::parse(&text).filter(|url| !url.as_str().contains('?')) {
            Some(_) => Some(text),
            None => field.wrong(format!("is {text:?}"), "the https URL of a token endpoint, without user, query and fragment"),
        }
    });
    let grant = section.required("grant").and_then(|f| f.one_of(GRANTS));
    let life = match (section.optional("token_life_s"), section.optional("token_life")) {
        (None, None) => section.required("token_life").and(None),
        _ => seconds(section, ("token_life", "token_life_s"), 0, limits::FEDERATION_TOKEN_LIFE_MAX_MS),
    };
    let text = |key| section.optional(key).map_or(Some(None), |field| visible(&field).map(Some));
    let (audience, resource, client_id) = (text("audience"), text("resource"), text("client_id"));
    let field = section.optional("scopes");
    let scopes = match &field {
        Some(field) => {
            let entries = field.list(limits::TASK_LIST)?;
            let all: Vec<Option<VendorScopes>> = entries.iter().map(|entry| entry.inside(vendor_scopes)).collect();
            all.into_iter().collect::<Option<Vec<_>>>()
        }
        None => Some(Vec::new()),
    };
    if let (Some(field), Some(scopes), Some(known)) = (&field, &scopes, around.scopes)
        && let Some(unknown) = scopes.iter().find(|s| known.iter().all(|k| k.name != s.scope))
    {
        return field.wrong(format!("has scope {:?}, which is not in scopes", unknown.scope), "add it to scopes, or correct it");
    }
    Some(TokenExchange {
        url: url?,
        grant: grant?,
        token_life_s: life?,
        audience: audience?,
        resource: resource?,
        client_id: client_id?,
        scopes: scopes?,
    })
}

fn vendor_scopes(section: &Section<'_>) -> Option<VendorScopes> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let vendor = section.required("vendor").and_then(|field| {
        let all: Vec<Option<String>> = field.list(limits::TASK_LIST)?.iter().map(visible).collect();
        all.into_iter().collect::<Option<Vec<_>>>()
    });
    Some(VendorScopes { scope: scope?, vendor: vendor? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::parse;
    use mayfly_ledger::upstream::registry::Upstream;

    const WHOLE: &str = include_str!("template.toml");

    fn uncommented() -> String {
        WHOLE.replace("\n# [federation.exchange]", "\n[federation.exchange]").replace("\n#! ", "\n")
    }

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        for text in [WHOLE.to_owned(), uncommented()] {
            let upstream = parse(&text).unwrap();
            let section = upstream.settings.of("federation").unwrap();
            let settings: FederationSettings = serde_json::from_value(section.clone()).unwrap();
            assert_eq!((settings.alg, settings.life_max_s), (AssertionAlg::Rs256, 600));
            assert_eq!(settings.exchange.is_some(), text != WHOLE);
            assert_eq!(Upstream::from_text(&upstream.to_text()).unwrap(), upstream);
            let mut table: toml::Table = toml::from_str(&text).unwrap();
            table.insert("federation".to_owned(), toml::Value::try_from(section).unwrap());
            assert_eq!(parse(&toml::to_string(&table).unwrap()).unwrap(), upstream);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        let whole = uncommented();
        for (from, to, said) in [
            ("irrevocable = true", "", "lacks federation.irrevocable"),
            ("irrevocable = true", "irrevocable = false", "no vendor takes an assertion back"),
            ("vendor = \"gcp\"", "vendor = \"gpc\"", "federation.vendor"),
            ("alg = \"RS256\"", "alg = \"HS256\"", "federation.alg"),
            ("vendor = \"gcp\"\nalg = \"RS256\"", "vendor = \"entra\"\nalg = \"ES256\"", "does not verify"),
            ("subject = \"{caller}\"", "subject = \"{sub}\"", "a placeholder that does not exist"),
            ("name = \"storage\"", "name = \"team/storage\"", "has a slash"),
            ("token_life = \"1h\"", "token_life = \"5m\"", "federation.exchange.token_life is 300 s"),
            ("grant = \"token-exchange\"", "grant = \"password\"", "federation.exchange.grant"),
            ("url = \"https://sts", "url = \"http://sts", "federation.exchange.url"),
            ("scope = \"storage:read\"", "scope = \"storage:none\"", "which is not in scopes"),
            ("token_life = \"1h\"", "", "lacks federation.exchange.token_life"),
        ] {
            assert!(whole.contains(from), "{from}");
            let no = parse(&whole.replacen(from, to, 1)).unwrap_err();
            assert!(no.contains(said), "{said} is not in: {no}");
        }
        let no = parse(&WHOLE.replace("\nmax = \"10m\"", "\nmax = \"11m\"")).unwrap_err();
        assert!(no.contains("federation.life_max is 600 s"), "{no}");
    }
}
