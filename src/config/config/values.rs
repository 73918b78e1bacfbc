//! From TOML and environment to values, by the table of keys. All errors are reported together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::attestation::{self, RuleEntry};
use super::form;
use super::keys::{self, BUNDLES_VARIABLE, ConfigKey, KEYS, KeyDefault, ValueForm, is_list};
use super::oidc::{self, OidcIssuer};
use super::rotation_hooks::rotation_hooks;
pub(super) use super::webhooks::WebhookEntry;
use super::webhooks::{webhook_url, webhooks};
use mayfly_authority::secrets::hook::RotationHook;
use mayfly_base::document::quantity::{duration_ms, duration_text, size_bytes, size_text};
use mayfly_base::document::{Diagnostic, Document, Field, Section, SourceFile, nearest};
use mayfly_base::limits;
use mayfly_identity::spiffe_id::TrustDomain;

/// Longest text of a value, bytes: the longest path on Linux.
pub(super) const TEXT: usize = 4096;
/// Most entries of a list.
pub(super) const LIST: usize = 1024;

/// A value that conforms to its key's form.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ConfigValue {
    Text(String),
    Texts(Vec<String>),
    Number(u64),
    Flag(bool),
    Numbers(Vec<u64>),
    Address(SocketAddr),
    /// Milliseconds.
    KeepTime(u64),
    /// Bytes.
    KeepSize(u64),
}

/// The values of keys outside of lists.
pub(super) type Settings = BTreeMap<&'static str, ConfigValue>;

/// Reports that a key conflicts with others: the key, the problem and the remedy.
pub(super) type Conflict<'a> = dyn FnMut(&'static str, &str, &str) + 'a;

/// One entry of `[[bundles]]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BundleEntry {
    pub trust_domain: String,
    /// `None`: the Workload API gives the bundle.
    pub file: Option<String>,
}

/// All values that were set, on top of the defaults.
#[derive(Default, Debug)]
pub(super) struct Values {
    pub values: Settings,
    pub bundles: Vec<BundleEntry>,
    pub oidc_issuers: Vec<OidcIssuer>,
    pub attestation: Vec<RuleEntry>,
    pub webhooks: Vec<WebhookEntry>,
    pub rotation_hooks: Vec<RotationHook>,
    /// The line in the file where a key was set.
    pub lines: BTreeMap<&'static str, usize>,
    /// The lines of sections, and of the keys of lists, by the section's place in its list (0 for a section that is no list).
    pub list_lines: BTreeMap<(&'static str, usize), usize>,
}

impl Values {
    /// Reads the defaults, then the file, then the environment.
    pub fn gather(source: &SourceFile, environment: &[(String, String)]) -> Result<Values, Vec<Diagnostic>> {
        let mut all = Values::default();
        let mut complaints = Vec::new();
        for key in KEYS.iter().filter(|k| !is_list(k.parts().0)) {
            let text = match key.default {
                KeyDefault::Is(text) => text.to_owned(),
                KeyDefault::Ceiling => ceiling(key.form),
                KeyDefault::Required | KeyDefault::Absent(_) => continue,
            };
            all.read_one(key, "default", &text, &mut complaints);
        }
        if let Err(wrong) = all.read_file(source) {
            complaints.extend(wrong);
        }
        for (name, value) in environment {
            all.read_variable(name, value, &mut complaints);
        }
        if complaints.is_empty() { Ok(all) } else { Err(complaints) }
    }

    /// The required keys that are not set, by the line of their section; 0 if the file does not have the section. The list of bundles
    /// counts as one key.
    pub fn missing(&self) -> BTreeMap<usize, Vec<&'static str>> {
        let required = KEYS.iter().filter(|k| k.default == KeyDefault::Required && !is_list(k.parts().0));
        let mut missing: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for key in required.filter(|key| !self.values.contains_key(key.path)) {
            let line = self.list_lines.get(&(key.parts().0, 0)).copied().unwrap_or(0);
            missing.entry(line).or_default().push(key.path);
        }
        if self.bundles.is_empty() {
            missing.entry(0).or_default().push("bundles");
        }
        missing
    }

    fn read_file(&mut self, source: &SourceFile) -> Result<(), Vec<Diagnostic>> {
        let document = Document::parse(source)?;
        let root = document.root();
        for name in keys::sections() {
            let Some(field) = root.optional(name) else { continue };
            self.list_lines.extend(lines_of(name, &field));
            match name {
                "bundles" => self.bundles = bundles(&field).unwrap_or_default(),
                "oidc_issuers" => self.oidc_issuers = oidc::issuers(&field).unwrap_or_default(),
                "attestation" => self.attestation = attestation::rules(&field).unwrap_or_default(),
                "webhooks" => self.webhooks = webhooks(&field).unwrap_or_default(),
                "rotation_hooks" => self.rotation_hooks = rotation_hooks(&field).unwrap_or_default(),
                _ => self.read_section(name, &field),
            }
        }
        root.finish();
        document.finish(Some(()))
    }

    fn read_section(&mut self, name: &str, field: &Field<'_>) {
        let Some(section) = field.section() else { return };
        for key in KEYS.iter().filter(|k| k.parts().0 == name) {
            if let Some(field) = section.optional(key.parts().1) {
                self.lines.insert(key.path, field.line());
                self.set(key, &field);
            }
        }
        section.finish();
    }

    fn set(&mut self, key: &'static ConfigKey, field: &Field<'_>) {
        if let Some(value) = value(key.form, field) {
            self.values.insert(key.path, value);
        }
    }

    /// Reads one key from a separate text, with the file's parser.
    fn read_one(&mut self, key: &'static ConfigKey, origin: &str, toml: &str, complaints: &mut Vec<Diagnostic>) {
        let (section, name) = key.parts();
        let source = SourceFile::new(origin, format!("[{section}]\n{name} = {toml}\n"));
        let read = Document::parse(&source).and_then(|document| {
            let field = document.root().required(section).and_then(|f| f.section()).and_then(|s| s.required(name));
            if let Some(field) = &field {
                self.set(key, field);
            }
            document.finish(Some(()))
        });
        // The line refers to the generated text above, which is of no use to the user.
        let nowhere = |c: Diagnostic| Diagnostic { line: 0, column: 0, ..c };
        complaints.extend(read.err().into_iter().flatten().map(nowhere));
    }

    fn read_variable(&mut self, name: &str, text: &str, complaints: &mut Vec<Diagnostic>) {
        if name == BUNDLES_VARIABLE {
            return self.read_bundles(text, complaints);
        }
        if let Some(key) = KEYS.iter().find(|k| !is_list(k.parts().0) && k.variable() == name) {
            self.lines.remove(key.path);
            return self.read_one(key, name, &as_toml(key.form, text), complaints);
        }
        // Other variables with this prefix belong to the clients; only a variable that begins like one of the sections is a mistake.
        let ours = |section: &str| name.starts_with(&format!("MAYFLY_{}_", section.to_ascii_uppercase()));
        if keys::sections().into_iter().any(ours) {
            let variables: Vec<String> = KEYS.iter().map(ConfigKey::variable).filter(|v| !v.is_empty()).collect();
            let remedy = match nearest(name, variables.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => "docs/configuration.md lists all of them".to_owned(),
            };
            complaints.push(Diagnostic::about(name, "unknown environment variable", remedy));
        }
    }

    fn read_bundles(&mut self, text: &str, complaints: &mut Vec<Diagnostic>) {
        self.bundles.clear();
        self.list_lines.retain(|(key, _), _| key.split('.').next() != Some("bundles"));
        for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            let (domain, file) = entry.split_once('=').map_or((entry, None), |(domain, file)| (domain, Some(file)));
            if TrustDomain::parse(domain).is_ok() && file != Some("") {
                let file = file.map(str::to_owned);
                self.bundles.push(BundleEntry { trust_domain: domain.to_owned(), file });
            } else {
                let remedy = "domain=file,domain=file; a domain alone where the Workload API gives its bundle";
                complaints.push(Diagnostic::about(BUNDLES_VARIABLE, format!("has {entry:?}"), remedy));
            }
        }
    }
}

/// The lines of a section, or of a list's sections and of each key in them.
fn lines_of(name: &'static str, field: &Field<'_>) -> Vec<((&'static str, usize), usize)> {
    if !field.is_list() {
        return vec![((name, 0), field.line())];
    }
    let mut lines = Vec::new();
    for (place, item) in field.list(usize::MAX).unwrap_or_default().iter().enumerate().filter(|(_, item)| item.is_section()) {
        lines.push(((name, place), item.line()));
        let Some(section) = item.section() else { continue };
        let set = |key: &'static ConfigKey| Some(((key.path, place), section.optional(key.parts().1)?.line()));
        lines.extend(KEYS.iter().filter(|key| key.parts().0 == name).filter_map(set));
    }
    lines
}

fn bundles(field: &Field<'_>) -> Option<Vec<BundleEntry>> {
    let entry = |item: &Field<'_>| {
        let section: Section<'_> = item.section()?;
        let trust_domain = section.required("trust_domain").and_then(|f| trust_domain(&f));
        let file = section.optional("file").map(|f| f.text(TEXT));
        section.finish();
        // A defective value was reported already, and does not count as left out.
        let file = match file {
            Some(text) => Some(text?),
            None => None,
        };
        Some(BundleEntry { trust_domain: trust_domain?, file })
    };
    let entries: Vec<BundleEntry> = field.list(limits::TRUST_DOMAINS)?.iter().filter_map(entry).collect();
    let same = |a: &BundleEntry, b: &BundleEntry| a.trust_domain == b.trust_domain;
    once(field, entries, same, |entry| entry.trust_domain.clone(), "one bundle per trust domain")
}

/// The sections of a list, unless two of them are of the same thing.
pub(super) fn once<T>(
    field: &Field<'_>,
    entries: Vec<T>,
    same: impl Fn(&T, &T) -> bool,
    name: impl Fn(&T) -> String,
    remedy: &str,
) -> Option<Vec<T>> {
    let twice = |(place, one): &(usize, &T)| entries.iter().take(*place).any(|before| same(before, one));
    match entries.iter().enumerate().find(twice) {
        Some((_, one)) => field.wrong(format!("has {} twice", name(one)), remedy),
        None => Some(entries),
    }
}

fn value(form: ValueForm, field: &Field<'_>) -> Option<ConfigValue> {
    match form {
        ValueForm::Path => field.text(TEXT).map(ConfigValue::Text),
        ValueForm::Name => field.name().map(ConfigValue::Text),
        ValueForm::Text(_) => field.text(TEXT).map(ConfigValue::Text),
        ValueForm::Names => names(field).map(ConfigValue::Texts),
        ValueForm::Paths => list(field, |f| f.text(TEXT)).map(ConfigValue::Texts),
        ValueForm::TrustDomain => trust_domain(field).map(ConfigValue::Text),
        ValueForm::HttpsUrl => https_url(field).map(ConfigValue::Text),
        ValueForm::Address => address(field).map(ConfigValue::Address),
        ValueForm::Number(min, max) => field.integer(min, max).map(ConfigValue::Number),
        ValueForm::Ratio => field.millionths().map(ConfigValue::Number),
        ValueForm::Numbers => {
            field.list(LIST)?.iter().map(|f| f.integer(0, u64::from(u32::MAX))).collect::<Option<_>>().map(ConfigValue::Numbers)
        }
        ValueForm::Duration(min, max) => field.duration(min, max).map(ConfigValue::Number),
        ValueForm::Size(min, max) => field.size(min, max).map(ConfigValue::Number),
        ValueForm::Keep => keep(field),
        ValueForm::Engine => engine(field).map(ConfigValue::Text),
        ValueForm::Flag => field.boolean().map(ConfigValue::Flag),
        // A key of a list section: it is parsed with its section.
        ValueForm::WebhookUrl => webhook_url(field).map(|url| ConfigValue::Text(url.as_str().to_owned())),
    }
}

/// A list of names: at least one, without duplicates.
pub(super) fn names(field: &Field<'_>) -> Option<Vec<String>> {
    list(field, |f| f.name())
}

pub(super) fn list(field: &Field<'_>, read: impl Fn(&Field<'_>) -> Option<String>) -> Option<Vec<String>> {
    let items = field.list(LIST)?;
    if items.is_empty() {
        return field.wrong("is empty", "name at least one");
    }
    let texts: Vec<Option<String>> = items.iter().map(read).collect();
    let texts: Vec<String> = texts.into_iter().collect::<Option<_>>()?;
    for (item, text) in items.iter().zip(&texts) {
        if texts.iter().filter(|t| *t == text).count() > 1 {
            return item.wrong("is there twice", "name it once");
        }
    }
    Some(texts)
}

fn trust_domain(field: &Field<'_>) -> Option<String> {
    let text = field.text(TEXT)?;
    match TrustDomain::parse(&text) {
        Ok(_) => Some(text),
        Err(defect) => field.wrong(format!("is {text:?}"), defect.to_string()),
    }
}

/// `iss` is compared byte for byte, so a URL that is not in normal form is refused rather than normalized.
fn https_url(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    let right =
        text.starts_with("https://") && mayfly_ledger::upstream::target::target_url(&text).is_some_and(|normal| normal == text);
    let remedy =
        "an https URL in lower case, without port 443, query, fragment and slash at the end, like https://mayfly.example.org";
    if right { Some(text) } else { field.wrong(format!("is {text:?}"), remedy) }
}

fn address(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.text(TEXT)?;
    let remedy = "an IP address and a port, like 0.0.0.0:7443 or [::]:7443";
    text.parse().ok().or_else(|| field.wrong(format!("is {text:?}"), remedy))
}

fn keep(field: &Field<'_>) -> Option<ConfigValue> {
    let text = field.text(TEXT)?;
    match (duration_ms(&text), size_bytes(&text)) {
        (Some(ms), _) if (form::KEEP_MIN_MS..=form::KEEP_MAX_MS).contains(&ms) => Some(ConfigValue::KeepTime(ms)),
        (_, Some(bytes)) if bytes >= form::KEEP_MIN_BYTES => Some(ConfigValue::KeepSize(bytes)),
        _ => field.wrong(format!("is {text:?}"), "a duration of at least 1d, like 90d, or a size of at least 64MiB, like 200GiB"),
    }
}

fn engine(field: &Field<'_>) -> Option<String> {
    match field.text(TEXT)?.as_str() {
        name @ ("redb" | "sled" | "memory") => Some(name.to_owned()),
        "etcd" => field.wrong("is etcd, which is not available in this version", "redb, sled or memory"),
        other => field.wrong(format!("is {other:?}"), "redb, sled or memory"),
    }
}

/// A variable's text as TOML: numbers unquoted, lists split at commas, everything else as a string.
fn as_toml(form: ValueForm, text: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let items = || text.split(',').map(str::trim).filter(|t| !t.is_empty());
    let number =
        |text: &str| if text.parse::<u64>().is_ok() { text.parse::<u64>().unwrap_or(0).to_string() } else { quoted(text) };
    match form {
        ValueForm::Number(..) => number(text),
        ValueForm::Ratio if text.parse::<f64>().is_ok_and(f64::is_finite) => text.to_owned(),
        ValueForm::Flag if matches!(text, "true" | "false") => text.to_owned(),
        ValueForm::Numbers => format!("[{}]", items().map(number).collect::<Vec<_>>().join(", ")),
        ValueForm::Names | ValueForm::Paths => format!("[{}]", items().map(quoted).collect::<Vec<_>>().join(", ")),
        _ => quoted(text),
    }
}

/// The largest value of a form, as TOML.
pub(super) fn ceiling(form: ValueForm) -> String {
    match form {
        ValueForm::Number(_, max) => max.to_string(),
        ValueForm::Duration(_, max) => format!("\"{}\"", duration_text(max)),
        ValueForm::Size(_, max) => format!("\"{}\"", size_text(max)),
        _ => String::new(),
    }
}

/// The number under a key.
pub(super) fn number(settings: &Settings, path: &str) -> Option<u64> {
    let ConfigValue::Number(number) = settings.get(path)? else { return None };
    Some(*number)
}

impl Values {
    pub fn text(&self, path: &str) -> Option<String> {
        let ConfigValue::Text(text) = self.values.get(path)? else { return None };
        Some(text.clone())
    }

    pub fn texts(&self, path: &str) -> Option<Vec<String>> {
        let ConfigValue::Texts(texts) = self.values.get(path)? else { return None };
        Some(texts.clone())
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        number(&self.values, path)
    }

    pub fn flag(&self, path: &str) -> Option<bool> {
        let ConfigValue::Flag(flag) = self.values.get(path)? else { return None };
        Some(*flag)
    }

    pub fn address(&self, path: &str) -> Option<SocketAddr> {
        let ConfigValue::Address(address) = self.values.get(path)? else { return None };
        Some(*address)
    }

    pub fn path(&self, path: &str, base: &std::path::Path) -> Option<PathBuf> {
        self.text(path).map(|text| base.join(text))
    }
}
