//! `[[oidc_issuers]]`: the issuers whose tokens are accepted, for which purpose, and the location of their keys.

use std::path::{Path, PathBuf};

use super::values::{TEXT, names, once};
use mayfly_base::document::url::WebUrl;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_identity::jwk::Algorithm;
use mayfly_identity::oidc::discovery::issuer_url;
use mayfly_identity::oidc::{AttestationProfile, GroupScopes, Issuer, IssuerUse, Platform};

/// One section of `[[oidc_issuers]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct OidcIssuer {
    /// The requirements for the issuer's tokens.
    pub issuer: Issuer,
    /// The location of the issuer's keys.
    pub keys: IssuerKeySource,
    /// The roots for verifying the issuer's server; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// The location of an issuer's keys.
#[derive(Clone, Debug, PartialEq)]
pub enum IssuerKeySource {
    /// At the URL that the discovery document names.
    Discovered,
    /// At this URL.
    Url(String),
    /// In a file that is updated outside of mayfly.
    File(PathBuf),
}

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Rs256, Algorithm::Es256];

/// Reads the list of issuers; paths stay as written.
pub(super) fn issuers(field: &Field<'_>) -> Option<Vec<OidcIssuer>> {
    let all: Vec<OidcIssuer> = field.list(limits::OIDC_ISSUERS)?.iter().filter_map(|item| item.inside(issuer)).collect();
    let same = |a: &OidcIssuer, b: &OidcIssuer| a.issuer.name == b.issuer.name || a.issuer.issuer == b.issuer.issuer;
    once(field, all, same, |one| one.issuer.name.clone(), "one section for each issuer, each with its own name")
}

fn issuer(section: &Section<'_>) -> Option<OidcIssuer> {
    let name = section.required("name").and_then(|f| short_name(&f));
    let issuer = section.required("issuer").and_then(|f| url(&f, issuer_url));
    let environments = section.required("environments").and_then(|f| names(&f));
    let uses = section.required("uses").and_then(|f| uses(&f));
    let audience = section.optional("audience").map(|f| f.text(limits::NAME_BYTES));
    let audiences = section.optional("audiences").map(|f| audiences(&f));
    let algorithms = section.optional("algorithms").map_or(Some(ALGORITHMS.to_vec()), |f| algorithms(&f));
    let keys = section.optional("jwks").map_or(Some(IssuerKeySource::Discovered), |f| key_source(&f));
    let ca_file = section.optional("ca_file").map(|f| f.text(TEXT).map(PathBuf::from));
    let max_life_ms = section
        .optional("max_life")
        .map_or(Some(limits::OIDC_TOKEN_LIFE_DEFAULT_MS), |f| f.duration(1000, limits::OIDC_TOKEN_LIFE_MS));
    let scopes_claim = section.optional("scopes_claim").map(|f| f.text(limits::NAME_BYTES));
    let groups = section.optional("groups_claim");
    let groups_claim = groups.as_ref().map(|f| f.text(limits::NAME_BYTES));
    let rights = section.optional("rights").map_or(Some(Vec::new()), |f| rights(&f, groups.is_some()));
    let jobs = attesting(section);
    let uses = uses?;
    if uses.contains(&IssuerUse::Attest) && uses.contains(&IssuerUse::Login) {
        section.required("uses").and_then(|f| f.wrong::<()>("has login and attest", "people and jobs have issuers of their own"));
    }
    let jobs = match (jobs?, uses.contains(&IssuerUse::Attest)) {
        (None, true) => section.required("platform").map(|_| None)?,
        (Some(_), false) => section
            .required("platform")
            .and_then(|f| f.wrong(r#"is set without the use "attest""#, "add it to uses, or leave platform out"))?,
        (jobs, _) => jobs,
    };
    if audience.is_none() && uses.contains(&IssuerUse::Login) {
        // A missing audience is reported together with everything else that is missing.
        section.required("audience")?;
    }
    let issuer = Issuer {
        name: name?,
        issuer: issuer?,
        environments: environments?,
        audience: optional(audience)?,
        audiences: optional(audiences)?,
        algorithms: algorithms?,
        uses,
        max_life_ms: max_life_ms?,
        scopes_claim: optional(scopes_claim)?,
        groups_claim: optional(groups_claim)?,
        rights: rights?,
        jobs,
    };
    Some(OidcIssuer { issuer, keys: keys?, ca_file: optional(ca_file)? })
}

/// Reads `platform`, and for an unknown platform its properties.
fn attesting(section: &Section<'_>) -> Option<Option<AttestationProfile>> {
    let (id, bound) = (section.optional("id_claim"), section.optional("key_bound"));
    let Some(field) = section.optional("platform") else {
        for field in id.iter().chain(&bound) {
            field.wrong::<()>("is set without platform", "leave it out");
        }
        return id.or(bound).is_none().then_some(None);
    };
    let platform = field.one_of(&Platform::ALL)?;
    if platform != Platform::Other {
        for field in id.iter().chain(&bound) {
            field.wrong::<()>("is known of this platform", "leave it out: it is for platform = \"other\"");
        }
        let id_claim = platform.ids().first().filter(|_| id.or(bound).is_none())?;
        return Some(Some(AttestationProfile {
            platform,
            id_claim: (*id_claim).to_owned(),
            key_bound: platform.chooses_audience(),
        }));
    }
    let id_claim = id.or_else(|| section.required("id_claim"))?.text(limits::NAME_BYTES)?;
    let key_bound = bound.map_or(Some(false), |f| f.boolean())?;
    Some(Some(AttestationProfile { platform, id_claim, key_bound }))
}

/// The value of an optional field: absent is fine, a defective value is not.
fn optional<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    value.map_or(Some(None), |read| read.map(Some))
}

/// The short name is a segment of SPIFFE IDs.
pub(super) fn short_name(field: &Field<'_>) -> Option<String> {
    let text = field.text(32)?;
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain { Some(text) } else { field.wrong(format!("is {text:?}"), "1 to 32 lower-case letters, digits and hyphens") }
}

fn url(field: &Field<'_>, right: impl Fn(&str) -> bool) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    let remedy = "an https URL, like https://idp.example.org; http only on localhost, 127.0.0.1 or [::1]";
    if right(&text) { Some(text) } else { field.wrong(format!("is {text:?}"), remedy) }
}

/// Further audiences that a token's list may contain besides ours.
fn audiences(field: &Field<'_>) -> Option<Vec<String>> {
    field.list(limits::OIDC_AUDIENCES)?.iter().map(|item| item.text(limits::NAME_BYTES)).collect()
}

fn uses(field: &Field<'_>) -> Option<Vec<IssuerUse>> {
    let items = field.list(3)?;
    if items.is_empty() {
        return field.wrong("is empty", "some of login, subject, attest");
    }
    items
        .iter()
        .map(|item| item.one_of(&[("login", IssuerUse::Login), ("subject", IssuerUse::Subject), ("attest", IssuerUse::Attest)]))
        .collect()
}

fn algorithms(field: &Field<'_>) -> Option<Vec<Algorithm>> {
    let items = field.list(Algorithm::ALL.len())?;
    if items.is_empty() {
        return field.wrong("is empty", "name at least one, like RS256");
    }
    let choices: Vec<(&str, Algorithm)> = Algorithm::ALL.iter().map(|alg| (alg.name(), *alg)).collect();
    items.iter().map(|item| item.one_of(&choices)).collect()
}

fn key_source(field: &Field<'_>) -> Option<IssuerKeySource> {
    let text = field.text(TEXT)?;
    match text.contains("://") {
        true => url(field, |text| WebUrl::parse(text).is_some()).map(IssuerKeySource::Url),
        false => Some(IssuerKeySource::File(PathBuf::from(text))),
    }
}

/// Reads `rights = [{ group = "g", upstream = "u", scopes = ["s"] }]`.
fn rights(field: &Field<'_>, groups: bool) -> Option<Vec<GroupScopes>> {
    let right = |section: &Section<'_>| {
        let group = section.required("group").and_then(|f| f.text(limits::NAME_BYTES));
        let upstream = section.required("upstream").and_then(|f| f.name());
        let scopes = section.required("scopes").and_then(|f| names(&f));
        Some(GroupScopes { group: group?, upstream: upstream?, scopes: scopes? })
    };
    if !groups {
        return field.wrong("is set without groups_claim", "name the claim that holds the groups");
    }
    field.list(limits::OIDC_RIGHTS)?.iter().map(|item| item.inside(right)).collect()
}

impl OidcIssuer {
    /// The issuer with its paths joined to the configuration's directory.
    pub(super) fn below(&self, base: &Path) -> OidcIssuer {
        let mut joined = self.clone();
        joined.ca_file = self.ca_file.as_ref().map(|path| base.join(path));
        if let IssuerKeySource::File(path) = &self.keys {
            joined.keys = IssuerKeySource::File(base.join(path));
        }
        joined
    }
}
