//! Imports policy sets and registrations from files at the first start. Later starts only compare: the ledger is
//! authoritative from then on, so that a file that was forgotten on a host takes back no operator's change.
//!
//! An environment is imported once, when the ledger has no policy set for it: an interrupted import is continued by the next start, and an
//! environment that is added to the configuration is imported with its own upstreams.

use super::source_check;
use mayfly_authority::authority::Authority;
use mayfly_authority::source_health::SourceKind;
use mayfly_base::document::Diagnostic;
use mayfly_base::limits;
use mayfly_config::config::{Config, PolicyFiles};
use mayfly_config::policy_files::{self, PolicyFileContents};
use mayfly_ledger::record::{Author, Event, PolicySetUpdated, Record, UpstreamUpdated};
use mayfly_ledger::state::State;

/// The differences between the files and the ledger. The ledger is authoritative.
pub fn differences(state: &State, loaded: &PolicyFileContents, environments: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for environment in environments {
        if state.policies.get(environment.as_str()).is_some_and(|v| v.digest != *loaded.policy.digest()) {
            found.push(format!("the policy files differ from the policy set in force in {environment}"));
        }
    }
    for upstream in loaded.upstreams.iter() {
        match state.upstreams.get(upstream.name.as_str()) {
            None => found.push(format!("upstream {} is in a file and not registered", upstream.name)),
            Some(version) if version.digest != upstream.digest() => {
                found.push(format!("the file of upstream {} differs from its registration", upstream.name));
            }
            Some(_) => {}
        }
    }
    for name in state.upstreams.keys().filter(|name| loaded.upstreams.get(name).is_none()) {
        found.push(format!("upstream {name} is registered and in no file"));
    }
    found
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
    let all = files.files.iter().chain([&files.roles, &files.upstreams]);
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

/// The groups of records of a first start, in order: registrations first, so that the presence of a policy set shows that its import is
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
    let mut groups: Vec<Vec<Record>> = Vec::new();
    let mut bytes = usize::MAX;
    for (len, event) in registrations.chain(policies) {
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
