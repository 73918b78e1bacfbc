//! Keys that the sections of several kinds of databases have, and the checks that they share.

use crate::access::address::UpstreamAddress;
use crate::access::secrets::is_file_name;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::settings::SettingsContext;

/// For `skip_serializing_if`.
pub fn is_false(value: &bool) -> bool {
    !value
}

/// `connection_limit`.
pub fn connection_limit(section: &Section<'_>) -> Option<u64> {
    match section.optional("connection_limit") {
        Some(field) => field.integer(1, limits::DATABASE_CONNECTIONS_MOST),
        None => Some(limits::DATABASE_CONNECTIONS),
    }
}

/// `grants`, each entry read by `grant`.
pub fn grants<T>(field: &Field<'_>, grant: impl Fn(&Section<'_>) -> Option<T>) -> Option<Vec<T>> {
    let entries = field.list(limits::DATABASE_GRANTS)?;
    if entries.is_empty() {
        return field.wrong("is empty", "say what each scope grants");
    }
    let all: Vec<Option<T>> = entries.iter().map(|entry| entry.inside(&grant)).collect();
    all.into_iter().collect()
}

/// What the section of a database must have besides well-formed keys: an entry of `grants` for each scope and none for others, a target that
/// `place` reads, TLS unless the server is on this host, and a name that can be the name of a file. `None` after a complaint.
pub fn fits(
    around: &SettingsContext<'_>,
    field: Option<&Field<'_>>,
    granted: Option<&[&str]>,
    place: impl Fn(&str) -> Option<UpstreamAddress>,
    form: &str,
    plaintext: (Option<&Field<'_>>, Option<bool>),
) -> Option<()> {
    if let (Some(field), Some(granted), Some(scopes)) = (field, granted, around.scopes) {
        let unknown = granted.iter().find(|g| scopes.iter().all(|s| s.name != **g));
        let empty = scopes.iter().find(|s| granted.iter().all(|g| *g != s.name));
        if let Some(scope) = unknown {
            return field.wrong(format!("has scope {scope:?}, which is not in scopes"), "add it to scopes, or correct it");
        }
        if let Some(scope) = empty {
            return field.wrong(format!("has nothing for scope {:?}", scope.name), "add an entry of it, or remove the scope");
        }
    }
    // The target and the name are checked here, since only these kinds need more of them than others do.
    if let (Some(target), Some(field)) = (around.target, field) {
        let Some(address) = place(target) else {
            return field.wrong(format!("cannot be granted at target {target}"), format!("target = \"{form}\""));
        };
        if let (Some(at), Some(true), false) = (plaintext.0, plaintext.1, address.is_loopback()) {
            return at.wrong("is for a database on this host only", "leave it out: mayfly verifies the server by TLS");
        }
    }
    if let (Some(name), Some(field)) = (around.name.filter(|name| !is_file_name(name)), field) {
        return field
            .wrong(format!("needs a file for upstream {name}, whose name has a slash"), "give it a name without slashes");
    }
    Some(())
}
