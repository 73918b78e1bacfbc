//! `[[webhooks]]`: the receivers of events.

use std::path::{Path, PathBuf};

use super::values::{LIST, TEXT, list, once};
use mayfly_authority::webhook::{TYPES, names_some};
use mayfly_base::document::url::WebUrl;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;

/// One section of `[[webhooks]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The webhook's name.
    pub name: String,
    /// The URL to which events are posted.
    pub url: WebUrl,
    /// The roots for verifying the receiver, PEM; required for https.
    pub ca: Option<PathBuf>,
    /// The file with the signing secrets.
    pub secret_file: PathBuf,
    /// Types and groups of events; empty for all.
    pub events: Vec<String>,
    /// Environments; empty for all.
    pub environments: Vec<String>,
}

/// One section as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WebhookEntry {
    name: String,
    url: WebUrl,
    ca: Option<String>,
    secret_file: String,
    events: Vec<String>,
    environments: Vec<String>,
}

impl WebhookEntry {
    pub(super) fn joined(&self, base: &Path) -> WebhookConfig {
        WebhookConfig {
            name: self.name.clone(),
            url: self.url.clone(),
            ca: self.ca.as_ref().map(|ca| base.join(ca)),
            secret_file: base.join(&self.secret_file),
            events: self.events.clone(),
            environments: self.environments.clone(),
        }
    }
}

pub(super) fn webhook_url(field: &Field<'_>) -> Option<WebUrl> {
    let text = field.text(limits::NAME_BYTES * 4)?;
    let remedy = "https://HOST/PATH, or http://127.0.0.1:PORT/PATH on this host; without user and fragment";
    WebUrl::parse(&text).or_else(|| field.wrong(format!("is {text:?}"), remedy))
}

pub(super) fn webhooks(field: &Field<'_>) -> Option<Vec<WebhookEntry>> {
    let entries: Vec<WebhookEntry> = field.list(limits::WEBHOOKS)?.iter().filter_map(|item| entry(item)).collect();
    once(field, entries, |a, b| a.name == b.name, |entry| entry.name.clone(), "give each a name of its own")
}

fn entry(item: &Field<'_>) -> Option<WebhookEntry> {
    let section: Section<'_> = item.section()?;
    let name = section.required("name").and_then(|f| name(&f));
    let url = section.required("url").and_then(|f| webhook_url(&f));
    let ca = section.optional("ca").map(|f| f.text(TEXT));
    let secret_file = section.required("secret_file").and_then(|f| f.text(TEXT));
    let events = section.optional("events").map_or(Some(Vec::new()), |f| some(&f, event));
    let environments = section.optional("environments").map_or(Some(Vec::new()), |f| some(&f, |f| f.name()));
    section.finish();
    let url = url?;
    if url.https && ca.is_none() {
        return item.wrong("lacks ca", "name the file of the roots that vouch for the receiver, PEM");
    }
    let ca = match ca {
        Some(ca) => Some(ca?),
        None => None,
    };
    let (secret_file, events, environments) = (secret_file?, events?, environments?);
    Some(WebhookEntry { name: name?, url, ca, secret_file, events, environments })
}

/// The webhook's name, which is part of the name of its value in the store.
fn name(field: &Field<'_>) -> Option<String> {
    let name = field.name()?;
    let plain = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if plain { Some(name) } else { field.wrong(format!("is {name:?}"), "at most 64 letters, digits and ._-") }
}

/// A list that may be empty; an empty list stands for all.
fn some(field: &Field<'_>, read: impl Fn(&Field<'_>) -> Option<String>) -> Option<Vec<String>> {
    if field.list(LIST)?.is_empty() { Some(Vec::new()) } else { list(field, read) }
}

fn event(field: &Field<'_>) -> Option<String> {
    let pattern = field.text(limits::NAME_BYTES)?;
    match names_some(&pattern) {
        true => Some(pattern),
        false => field.wrong(format!("is {pattern:?}, which is no event"), TYPES.join(", ")),
    }
}
