//! Imports policy sets, registrations and bindings from files at the first start. Later starts only compare: the ledger is
//! authoritative from then on, so that a file that was forgotten on a host takes back no operator's change.
//!
//! An environment is imported once, when the ledger has no policy set for it: an interrupted import is continued by the next start, and an
//! environment that is added to the configuration is imported with its own upstreams.

use std::collections::BTreeMap;

use super::source_check;
use mayfly_authority::authority::Authority;
use mayfly_authority::source_health::SourceKind;
use mayfly_base::document::Diagnostic;
use mayfly_base::limits;
use mayfly_config::config::{Config, PolicyFiles};
use mayfly_config::policy_files::{self, PolicyFileContents};
use mayfly_ledger::record::{Author, BindingUpdated, Event, PolicySetUpdated, Record, UpstreamUpdated};
use mayfly_ledger::state::{DocumentVersion, State};
use mayfly_ledger::upstream::binding::Binding;
use mayfly_policy::PolicySet;
use mayfly_policy::set::files;

/// The differences between the files and the ledger. The ledger is authoritative.
pub fn differences(state: &State, loaded: &PolicyFileContents, environments: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for environment in environments {
        if state.policies.get(environment.as_str()).is_some_and(|version| !same_policy(version, &loaded.policy)) {
            found.push(format!("the policy files differ from the policy set in force in {environment}"));
        }
    }
    for upstream in loaded.upstreams.iter() {
        match state.upstreams.get(upstream.name.as_str()) {
            None => found.push(format!("upstream {} is in a file and not registered", upstream.name)),
            Some(version) if version.retired => {
                found.push(format!("upstream {} is in a file, and its registration was retired", upstream.name));
            }
            Some(version) if version.digest != upstream.digest() => {
                found.push(format!("the file of upstream {} differs from its registration", upstream.name));
            }
            Some(_) => {}
        }
    }
    let registered = state.upstreams.iter().filter(|(_, version)| !version.retired).map(|(name, _)| name);
    for name in registered.filter(|name| loaded.upstreams.get(name).is_none()) {
        found.push(format!("upstream {name} is registered and in no file"));
    }
    if let Some(bindings) = &loaded.bindings {
        differences_of_bindings(state, bindings, &mut found);
    }
    found
}

/// A set has the same meaning whatever the order of its files, and whatever its roles file is called.
fn same_policy(version: &DocumentVersion, loaded: &PolicySet) -> bool {
    let parts = |text: &str| {
        let (mut policies, roles) = files(text).ok()?;
        policies.sort_by(|a, b| a.file.cmp(&b.file));
        Some((policies, roles.text))
    };
    version.digest == *loaded.digest() || parts(&version.text).is_some_and(|own| Some(own) == parts(loaded.to_text()))
}

fn differences_of_bindings(state: &State, bindings: &BTreeMap<String, Binding>, found: &mut Vec<String>) {
    for binding in bindings.values() {
        match state.bindings.get(binding.name.as_str()) {
            None => found.push(format!("binding {} is in a file and not in force", binding.name)),
            Some(version) if version.digest != binding.digest() => {
                found.push(format!("the file of binding {} differs from the binding in force", binding.name));
            }
            Some(_) => {}
        }
    }
    for (name, version) in state.bindings.iter().filter(|(name, _)| !bindings.contains_key(&***name)) {
        let Ok(binding) = Binding::from_text(&version.text) else { continue };
        let retired = state.upstreams.get(binding.upstream.as_str()).is_none_or(|upstream| upstream.retired);
        if !binding.scopes.is_empty() && !retired {
            found.push(format!("binding {name} is in force and in no file"));
        }
    }
}

/// The differences between the ledger and the files that a configuration names, read now. None if the files cannot be read, which the
/// health of the sources tells.
pub fn drift(authority: &Authority, config: &Config) -> Vec<String> {
    let loaded = policy_files::load(&config.policy);
    let (place, read) = match &loaded {
        Ok(_) => (places(&config.policy), Ok(())),
        Err(wrong) => told(wrong),
    };
    source_check::report_source(authority, (SourceKind::PolicyFiles, ""), place, read);
    let found = |loaded| authority.ledger.peek(|state| differences(state, loaded, &config.server.environments));
    loaded.as_ref().map(found).unwrap_or_default()
}

/// The configured files and directories.
fn places(files: &PolicyFiles) -> String {
    let all = files.files.iter().chain([&files.roles, &files.upstreams]).chain(&files.bindings);
    all.map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The file of the first defect, and the defect.
fn told(wrong: &[Diagnostic]) -> (String, Result<(), String>) {
    let Some(first) = wrong.first() else { return (String::new(), Ok(())) };
    let more = match wrong.len() {
        1 => String::new(),
        all => format!("\n{} more: mayfly server validate", all - 1),
    };
    (first.file.clone(), Err(format!("{first}{more}")))
}

/// As [`drift`], with a state that no server uses. Empty if an environment is not imported yet, or if a file is defective, which is
/// reported elsewhere.
pub fn drift_of(state: &State, config: &Config) -> Vec<String> {
    let environments = &config.server.environments;
    match policy_files::load(&config.policy) {
        Ok(loaded) if missing(state, environments).is_empty() => differences(state, &loaded, environments),
        _ => Vec::new(),
    }
}

/// The environments for which the ledger has no policy set.
pub fn missing<'e>(state: &State, environments: &'e [String]) -> Vec<&'e str> {
    environments.iter().map(String::as_str).filter(|e| !state.policies.contains_key(*e)).collect()
}

/// The groups of records of a first start, in order: registrations first, then the bindings that name them, so that the presence of a policy set shows that its import is
/// complete.
pub fn groups(state: &State, loaded: &PolicyFileContents, missing: &[&str]) -> Vec<Vec<Record>> {
    let author = || Author::Mayfly("imported".to_owned());
    let registrations = loaded
        .upstreams
        .iter()
        .filter(|u| missing.contains(&u.environment.as_str()) && !state.upstreams.contains_key(u.name.as_str()));
    let registrations = registrations.map(|u| {
        let set = UpstreamUpdated {
            name: u.name.clone(),
            version: 1,
            digest: u.digest().to_vec(),
            text: u.to_text(),
            ..UpstreamUpdated::default()
        };
        (set.text.len(), Event::UpstreamSet(set))
    });
    let policies = missing.iter().map(|environment| {
        let set = PolicySetUpdated {
            environment: (*environment).to_owned(),
            version: 1,
            digest: loaded.policy.digest().to_vec(),
            text: loaded.policy.to_text().to_owned(),
            ..PolicySetUpdated::default()
        };
        (set.text.len(), Event::PolicySet(set))
    });
    let of_missing = |binding: &&Binding| {
        let upstream = loaded.upstreams.get(&binding.upstream);
        upstream.is_some_and(|upstream| missing.contains(&upstream.environment.as_str()))
    };
    let bindings = loaded.bindings.iter().flat_map(BTreeMap::values).filter(of_missing);
    let bindings = bindings.filter(|binding| !state.bindings.contains_key(binding.name.as_str())).map(|binding| {
        let set = BindingUpdated {
            name: binding.name.clone(),
            version: 1,
            digest: binding.digest().to_vec(),
            text: binding.to_text(),
            ..BindingUpdated::default()
        };
        (set.text.len(), Event::BindingSet(set))
    });
    let mut groups: Vec<Vec<Record>> = Vec::new();
    let mut bytes = usize::MAX;
    for (len, event) in registrations.chain(bindings).chain(policies) {
        if bytes.saturating_add(len) > limits::IMPORT_BYTES {
            bytes = 0;
            groups.push(Vec::new());
        }
        bytes += len;
        if let Some(records) = groups.last_mut() {
            records.push(Record::new(author(), event));
        }
    }
    groups
}
