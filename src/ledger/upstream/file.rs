//! The TOML form of a registration, one per file. A file that lacks required fields is refused with the list of all missing fields.

use std::sync::Arc;

use super::registry::{
    Alg, Approver, BlastRadius, Classification, Kind, Privilege, ProofOfPossession, RegisteredScope, Ttl, Upstream,
};
use super::settings::{KindSettings, SettingsContext, SettingsReader};
use super::target::target_url;
use mayfly_base::document::{Diagnostic, Document, Field, Section, SourceFile};
use mayfly_base::limits;
use mayfly_identity::spiffe_id::SpiffeId;

/// Maximum length of a list in a registration.
const LIST: usize = limits::TASK_LIST;

/// Parses the registration in a file. The error lists everything that is wrong with the file. `readers`: the kinds besides mayfly's own that
/// the registration may name.
pub fn parse(source: &SourceFile, readers: &[SettingsReader]) -> Result<Upstream, Vec<Diagnostic>> {
    let document = Document::parse(source)?;
    let root = document.root();
    let upstream = read(&root, readers);
    root.finish();
    document.finish(upstream)
}

/// Reads every field before it returns on a missing one, so that all complaints are reported at once.
fn read(root: &Section<'_>, readers: &[SettingsReader]) -> Option<Upstream> {
    let name = root.required("name").and_then(|f| f.name());
    let owner = root.required("owner").and_then(|f| f.text(limits::NAME_BYTES));
    let purpose = root.required("purpose").and_then(|f| f.text(limits::PURPOSE_BYTES));
    let environment = root.required("environment").and_then(|f| f.name());
    let audience = root.required("audience").and_then(|f| audience(&f));
    let target = root.required("target").and_then(|f| target(&f));
    let kinds_field = root.required("kinds");
    let kinds = kinds_field.as_ref().and_then(|f| each(f, 1, |f| kind(f, readers)));
    // A credential that the upstream makes is checked by the upstream itself, which may have no SVID.
    let servers = match kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind.served())) {
        true => root.required("servers").and_then(|f| each(&f, 1, spiffe_id)),
        false => root.optional("servers").map_or(Some(Vec::new()), |f| each(&f, 0, spiffe_id)),
    };
    let approvers = root.required("approvers").and_then(|f| each(&f, 0, approver));
    let scopes = root.required("scopes").and_then(|f| scopes(&f));
    let expires = root.required("expires").and_then(|f| f.moment());
    let classification = root.required("classification").and_then(|f| f.inside(classification));
    let ttl = root.required("ttl").and_then(|f| f.inside(ttl));
    let rotation_field = root.optional("rotation");
    let rotation = rotation_field.as_ref().map_or(Some(None), |f| rotation(f).map(Some));
    let around = SettingsContext {
        name: name.as_deref(),
        environment: environment.as_deref(),
        target: target.as_deref(),
        scopes: scopes.as_deref(),
        audience: audience.as_deref(),
        ttl,
        rotation,
    };
    let settings = settings(root, readers, kinds.as_deref(), &around);
    let jwt = root.optional("jwt");
    let (alg, proof_of_possession) = match &jwt {
        Some(field) => field.inside(jwt_section)?,
        None => (Alg::Es256, ProofOfPossession::None),
    };
    let upstream = Upstream {
        name: name?,
        owner: owner?,
        purpose: purpose?,
        environment: environment?,
        classification: classification?,
        audience: audience?,
        target: target?,
        servers: servers?,
        approvers: approvers?,
        kinds: kinds?,
        scopes: scopes?,
        ttl: ttl?,
        expires: expires?,
        alg,
        proof_of_possession,
        rotation: rotation?,
        settings: Arc::new(settings?),
    };
    match (jwt, rotation_field) {
        (Some(field), _) if !upstream.issues(Kind::Jwt) => {
            field.wrong("is for kind jwt", "add \"jwt\" to kinds, or leave the section out")
        }
        (_, Some(field)) if !upstream.issues(Kind::Secret) => {
            field.wrong("is for kind secret", "add \"secret\" to kinds, or leave it out")
        }
        _ => Some(upstream),
    }
}

/// A list of at least `min` distinct values.
pub fn each<T: PartialEq>(field: &Field<'_>, min: usize, read: impl Fn(&Field<'_>) -> Option<T>) -> Option<Vec<T>> {
    let items = field.list(LIST)?;
    if items.len() < min {
        return field.wrong("is empty", "name at least one");
    }
    let (mut values, mut whole) = (Vec::new(), true);
    for item in &items {
        match read(item) {
            Some(value) if values.contains(&value) => whole = item.wrong("is there twice", "name it once").unwrap_or(false),
            Some(value) => values.push(value),
            None => whole = false,
        }
    }
    whole.then_some(values)
}

pub(super) fn spiffe_id(field: &Field<'_>) -> Option<SpiffeId> {
    field.parsed(limits::SPIFFE_ID_BYTES, SpiffeId::parse)
}

pub fn approver(field: &Field<'_>) -> Option<Approver> {
    if !field.is_section() {
        return spiffe_id(field).map(Approver::SpiffeId);
    }
    field.inside(|person| {
        let issuer = person.required("issuer").and_then(|f| f.text(limits::NAME_BYTES));
        let subject = person.required("subject").and_then(|f| f.text(limits::OIDC_SUB_BYTES));
        Some(Approver::Person { issuer: issuer?, subject: subject? })
    })
}

/// A kind, whether or not this version serves it.
pub fn known_kind(field: &Field<'_>) -> Option<Kind> {
    let choices: Vec<(&str, Kind)> = Kind::ALL.iter().map(|k| (k.as_str(), *k)).collect();
    field.one_of(&choices)
}

/// A kind that mayfly makes itself, or one of `readers`.
fn kind(field: &Field<'_>, readers: &[SettingsReader]) -> Option<Kind> {
    let kind = known_kind(field)?;
    let served = |kind: &Kind| kind.served() || readers.iter().any(|reader| reader.kind == *kind);
    if served(&kind) {
        return Some(kind);
    }
    let names: Vec<&str> = Kind::ALL.iter().filter(|kind| served(kind)).map(|kind| kind.as_str()).collect();
    field.wrong(format!("is {kind}, a kind that is not served by this version"), names.join(" or "))
}

/// The sections of the kinds that upstreams make: exactly one for each such kind in `kinds`.
fn settings(
    root: &Section<'_>,
    readers: &[SettingsReader],
    kinds: Option<&[Kind]>,
    around: &SettingsContext<'_>,
) -> Option<KindSettings> {
    let (mut all, mut whole) = (KindSettings::default(), true);
    for SettingsReader { kind, read } in readers {
        let name = kind.as_str();
        // Without the list of kinds, it is unknown whether the section is required.
        let issued = kinds.map(|kinds| kinds.contains(kind));
        let field = if issued == Some(true) { root.required(name) } else { root.optional(name) };
        let section = match (&field, issued) {
            (Some(field), Some(false)) => {
                field.wrong(format!("is for kind {name}"), format!("add \"{name}\" to kinds, or leave the section out"))
            }
            (Some(field), _) => field.inside(|section| read(section, around)),
            (None, issued) => {
                whole &= issued != Some(true);
                continue;
            }
        };
        match section {
            Some(section) => all.insert(*kind, section),
            None => whole = false,
        }
    }
    whole.then_some(all)
}

fn scopes(field: &Field<'_>) -> Option<Vec<RegisteredScope>> {
    let scopes = each(field, 1, scope)?;
    let twice = scopes.iter().enumerate().find(|(i, s)| scopes.iter().take(*i).any(|before| before.name == s.name));
    match twice {
        Some((_, scope)) => field.wrong(format!("has {} twice", scope.name), "name each scope once, sensitive or not"),
        None => Some(scopes),
    }
}

fn scope(field: &Field<'_>) -> Option<RegisteredScope> {
    if field.is_section() {
        return field.inside(|scope| {
            let name = scope.required("name").and_then(|f| scope_name(&f));
            let sensitive = scope.optional("sensitive").map_or(Some(false), |f| f.boolean());
            Some(RegisteredScope { name: name?, sensitive: sensitive? })
        });
    }
    Some(RegisteredScope { name: scope_name(field)?, sensitive: false })
}

/// scope-token of RFC 6749, section 3.3: visible ASCII without quote and backslash.
pub fn scope_name(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    match text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        true => Some(text),
        false => {
            field.wrong(format!("is {text:?}"), "a scope is visible ASCII without spaces, quotes and backslashes (RFC 6749, 3.3)")
        }
    }
}

fn audience(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    match text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Some(text),
        false => field.wrong(format!("is {text:?}"), "an https URL, or another text of visible ASCII without spaces"),
    }
}

fn target(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES * 4)?;
    let remedy =
        "a base URL with scheme and host, without user, query, fragment and percent-encoding, like https://api.example.com/v1";
    target_url(&text).or_else(|| field.wrong(format!("is {text:?}"), remedy))
}

fn classification(section: &Section<'_>) -> Option<Classification> {
    let privileges: Vec<(&str, Privilege)> = Privilege::ALL.iter().map(|p| (p.as_str(), *p)).collect();
    let radii: Vec<(&str, BlastRadius)> = BlastRadius::ALL.iter().map(|r| (r.as_str(), *r)).collect();
    let system = section.required("system").and_then(|f| f.name());
    let privilege = section.required("privilege").and_then(|f| f.one_of(&privileges));
    let blast_radius = section.required("blast_radius").and_then(|f| f.one_of(&radii));
    Some(Classification { system: system?, privilege: privilege?, blast_radius: blast_radius? })
}

fn ttl(section: &Section<'_>) -> Option<Ttl> {
    let bound = |key, least| {
        let field = section.required(key)?;
        let ms = field.duration(least, limits::CREDENTIAL_TTL_MS)?;
        if ms % 1000 == 0 { Some((ms / 1000, field)) } else { field.wrong("has a part of a second", "whole seconds") }
    };
    // A `min` below the shortest TTL that can be requested has no effect, but existing registrations with such a value stay valid.
    let least = limits::CREDENTIAL_TTL_MIN_MS;
    let (min, default, max) = (bound("min", limits::CREDENTIAL_LIFE_LEFT_MS), bound("default", least), bound("max", least));
    let ((min, _), (default, at), (max, _)) = (min?, default?, max?);
    if min <= default && default <= max {
        return Some(Ttl { min, default, max });
    }
    at.wrong("is not between min and max", "min ≤ default ≤ max")
}

/// The interval of rotations, in seconds.
fn rotation(field: &Field<'_>) -> Option<u64> {
    let ms = field.duration(limits::SECRET_ROTATION_LEAST_MS, limits::SECRET_ROTATION_MOST_MS)?;
    match ms % 1000 {
        0 => Some(ms / 1000),
        _ => field.wrong("has a part of a second", "whole seconds"),
    }
}

fn jwt_section(section: &Section<'_>) -> Option<(Alg, ProofOfPossession)> {
    let alg = match section.optional("alg") {
        None => Some(Alg::Es256),
        Some(field) => match field.one_of(&[("ES256", Alg::Es256), ("RS256", Alg::Rs256)]) {
            Some(Alg::Rs256) => field.wrong("is RS256, which is not served by this version", "ES256"),
            alg => alg,
        },
    };
    let pop = match section.optional("proof_of_possession") {
        None => Some(ProofOfPossession::None),
        Some(field) => field.one_of(&[("none", ProofOfPossession::None), ("x5t", ProofOfPossession::X5t)]),
    };
    Some((alg?, pop?))
}
