//! The roles and environments of callers: a TOML file that maps roles and environments to SPIFFE IDs and to prefixes of whole path
//! segments. The file also holds the break-glass rights ([`break_glass_rights`](super::break_glass_rights)).
//!
//! ```toml
//! [role.agent]
//! ids = ["spiffe://example.org/agent/reviewer"]
//! under = ["spiffe://example.org/ns/agents"]
//!
//! [environment.prod]
//! under = ["spiffe://example.org"]
//! ```

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::break_glass_rights::{BreakGlassRights, rights};
use super::set::within;
use mayfly_base::document::{Diagnostic, Document, Field, Section, SourceFile};
use mayfly_base::limits;
use mayfly_identity::spiffe_id::{IdDefect, SpiffeId, SpiffePrefix};

/// The members of a role or an environment.
#[derive(Default, Debug)]
struct Entry {
    ids: Vec<SpiffeId>,
    under: Vec<SpiffePrefix>,
}

/// The compiled file. One lookup per prefix of a caller's SPIFFE ID gives all roles and the environment.
#[derive(Debug, Default)]
pub(super) struct Roles {
    names: Vec<String>,
    environments: Vec<String>,
    exact: HashMap<String, Found>,
    under: HashMap<String, Found>,
    rights: BTreeMap<String, BreakGlassRights>,
}

/// The roles and the environment of an id or a prefix, as indexes into the lists of names.
#[derive(Debug, Default)]
struct Found {
    roles: Vec<usize>,
    environment: Option<usize>,
}

/// The roles and the environment of a caller.
#[derive(Debug)]
pub(super) struct Membership<'a> {
    /// Sorted by name, without duplicates.
    pub roles: Vec<&'a str>,
    pub environment: Option<&'a str>,
}

impl Roles {
    /// Parses the file. The error lists everything that is wrong with the file.
    pub fn parse(source: &SourceFile) -> Result<Roles, Vec<Diagnostic>> {
        let document = Document::parse(source)?;
        let root = document.root();
        let mut roles = Roles::default();
        for (name, field, entry) in entries(&root, "role") {
            let number = roles.names.len();
            roles.names.push(name);
            roles.add(&field, &entry, |found, _| {
                found.roles.push(number);
                true
            });
        }
        for (name, field, entry) in entries(&root, "environment") {
            let number = roles.environments.len();
            roles.environments.push(name);
            roles.add(&field, &entry, |found, _| found.environment.replace(number).is_none_or(|before| before == number));
        }
        roles.rights = rights(&root, &roles.environments);
        root.finish();
        document.finish(Some(roles))
    }

    fn add(&mut self, field: &Field<'_>, entry: &Entry, mut put: impl FnMut(&mut Found, &str) -> bool) {
        let ids = entry.ids.iter().map(|id| (true, id.as_str()));
        let under = entry.under.iter().map(|prefix| (false, prefix.as_str()));
        for (exact, text) in ids.chain(under) {
            let map = if exact { &mut self.exact } else { &mut self.under };
            if !put(map.entry_ref(text).or_default(), text) {
                let _: Option<()> =
                    field.wrong(format!("has {text}, which is in another environment too"), "a workload has one environment");
            }
        }
    }

    /// Roles and environment of a caller. Roles of all matching entries add up. For the environment, the exact id takes precedence over
    /// prefixes, and longer prefixes over shorter ones.
    pub fn of(&self, caller: &SpiffeId) -> Membership<'_> {
        let mut numbers = Vec::new();
        let mut environment = None;
        let prefixes = caller.prefixes().filter_map(|p| self.under.get(p));
        for found in prefixes.chain(self.exact.get(caller.as_str())) {
            numbers.extend_from_slice(&found.roles);
            environment = found.environment.or(environment);
        }
        numbers.sort_unstable();
        numbers.dedup();
        Membership {
            roles: numbers.into_iter().filter_map(|n| self.names.get(n)).map(String::as_str).collect(),
            environment: environment.and_then(|n| self.environments.get(n)).map(String::as_str),
        }
    }

    /// The environment alone, which is needed on every grant.
    pub fn environment_of(&self, caller: &SpiffeId) -> Option<&str> {
        let exact = self.exact.get(caller.as_str()).and_then(|found| found.environment);
        let last = || caller.prefixes().filter_map(|p| self.under.get(p)?.environment).last();
        exact.or_else(last).and_then(|n| self.environments.get(n)).map(String::as_str)
    }

    /// Whether callers under a prefix of whole segments belong to an environment, either through the prefix itself or through entries below
    /// it.
    pub fn has_members_under(&self, environment: &str, prefix: &str) -> bool {
        let Some(number) = self.environments.iter().position(|n| n == environment) else { return false };
        let here = |(text, found): (&String, &Found)| found.environment == Some(number) && within(text, prefix);
        // Finds the nearest prefix, at or above the given one, that has an environment.
        let mut above = prefix;
        let nearest = loop {
            if let Some(environment) = self.under.get(above).and_then(|found| found.environment) {
                break Some(environment);
            }
            match above.rsplit_once('/') {
                Some((shorter, _)) if shorter.len() > "spiffe://".len() => above = shorter,
                _ => break None,
            }
        };
        nearest == Some(number) || self.under.iter().any(here) || self.exact.iter().any(here)
    }

    /// The members of a role: ids, and prefixes with `/*` appended, sorted.
    pub fn members(&self, role: &str) -> Vec<String> {
        let Some(number) = self.names.iter().position(|n| n == role) else { return Vec::new() };
        self.members_with(|found| found.roles.contains(&number))
    }

    /// The members of an environment, in the same form.
    pub fn members_of_environment(&self, environment: &str) -> Vec<String> {
        let Some(number) = self.environments.iter().position(|n| n == environment) else { return Vec::new() };
        self.members_with(|found| found.environment == Some(number))
    }

    fn members_with(&self, with: impl Fn(&Found) -> bool) -> Vec<String> {
        let exact = self.exact.iter().filter(|(_, found)| with(found)).map(|(id, _)| id.clone());
        let under = self.under.iter().filter(|(_, found)| with(found)).map(|(prefix, _)| format!("{prefix}/*"));
        let mut members: Vec<String> = exact.chain(under).collect();
        members.sort_unstable();
        members
    }

    /// All roles, in byte order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The break-glass rights, by name.
    pub fn rights(&self) -> &BTreeMap<String, BreakGlassRights> {
        &self.rights
    }

    /// All environments, in byte order.
    pub fn environments(&self) -> &[String] {
        &self.environments
    }
}

/// The sections under `[role]` or `[environment]`, by name.
fn entries<'d>(root: &Section<'d>, key: &str) -> Vec<(String, Field<'d>, Entry)> {
    let Some(section) = root.required(key).and_then(|f| f.section()) else {
        return Vec::new();
    };
    let mut sorted = BTreeMap::new();
    for (name, field) in section.entries() {
        if !mayfly_base::document::is_name(&name) {
            let _: Option<()> = field.wrong("is no name", "letters, digits and ._:/@+- only, beginning with a letter or digit");
        }
        let Some(table) = field.section() else { continue };
        let entry = Entry { ids: each(&table, "ids", SpiffeId::parse), under: each(&table, "under", SpiffePrefix::parse) };
        table.finish();
        if entry.ids.is_empty() && entry.under.is_empty() {
            let _: Option<()> = field.wrong("names nobody", "give ids = [\"spiffe://…\"], under = [\"spiffe://…\"], or both");
        }
        sorted.insert(name, (field, entry));
    }
    sorted.into_iter().map(|(name, (field, entry))| (name, field, entry)).collect()
}

fn each<T>(table: &Section<'_>, key: &str, parse: impl Fn(&str) -> Result<T, IdDefect>) -> Vec<T> {
    let fields = table.optional(key).and_then(|f| f.list(limits::INTERNED)).unwrap_or_default();
    fields.iter().filter_map(|field| field.parsed(limits::SPIFFE_ID_BYTES, &parse)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(text: &str) -> Roles {
        Roles::parse(&SourceFile::new("roles.toml", text)).unwrap_or_else(|c| panic!("{c:#?}"))
    }

    fn of<'r>(roles: &'r Roles, id: &str) -> (Vec<&'r str>, Option<&'r str>) {
        let member = roles.of(&SpiffeId::parse(id).unwrap_or_else(|e| panic!("{e}")));
        (member.roles, member.environment)
    }

    #[test]
    fn prefixes_match_whole_segments_and_themselves() {
        let roles = roles("[role.ci]\nunder = ['spiffe://td/ci']\n[role.one]\nids = ['spiffe://td/ci/x']\n[environment]\n");
        assert_eq!(of(&roles, "spiffe://td/ci/x"), (vec!["ci", "one"], None));
        assert_eq!(of(&roles, "spiffe://td/ci/x/y"), (vec!["ci"], None));
        assert_eq!(of(&roles, "spiffe://td/ci"), (vec!["ci"], None));
        assert_eq!(of(&roles, "spiffe://td/cid"), (vec![], None));
        assert_eq!(of(&roles, "spiffe://td2/ci"), (vec![], None));
    }

    #[test]
    fn the_nearest_environment_wins_and_roles_add_up() {
        let roles = roles(
            "[role.b]\nunder = ['spiffe://td', 'spiffe://td/a']\n[role.a]\nunder = ['spiffe://td/a']\n\
             [environment.dev]\nunder = ['spiffe://td']\nids = ['spiffe://td/a/b']\n[environment.prod]\nunder = ['spiffe://td/a']\n",
        );
        assert_eq!(of(&roles, "spiffe://td/x"), (vec!["b"], Some("dev")));
        assert_eq!(of(&roles, "spiffe://td/a/c"), (vec!["a", "b"], Some("prod")));
        assert_eq!(of(&roles, "spiffe://td/a/b"), (vec!["a", "b"], Some("dev")));
    }

    #[test]
    fn a_prefix_reaches_the_environment_around_it_and_those_under_it() {
        let roles = roles(
            "[role]\n[environment.dev]\nunder = ['spiffe://td']\nids = ['spiffe://td/a/b/c']\n\
             [environment.prod]\nunder = ['spiffe://td/a']\n",
        );
        let reached = |prefix: &str| ["dev", "prod"].map(|name| roles.has_members_under(name, prefix));
        assert_eq!(reached("spiffe://td"), [true, true]);
        assert_eq!(reached("spiffe://td/b"), [true, false]);
        assert_eq!(reached("spiffe://td/a"), [true, true]);
        assert_eq!(reached("spiffe://td/a/x"), [false, true]);
        assert_eq!(reached("spiffe://td/ab"), [true, false]);
        assert_eq!(reached("spiffe://td2"), [false, false]);
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        let cases = [
            ("[role.a]\nids = ['spiffe://TD/x']\n[environment]\n", ":2:", "lower case"),
            ("[role.a]\nunder = ['spiffe://td/x/']\n[environment]\n", ":2:", "no slash at the end"),
            ("[role.a]\n[environment]\n", ":1:", "names nobody"),
            ("[role.a]\nid = ['spiffe://td/x']\n[environment]\n", ":2:", "did you mean ids?"),
            ("[role.'a b']\nids = ['spiffe://td/x']\n[environment]\n", ":1:", "no name"),
            ("[roles.a]\nids = ['spiffe://td/x']\n[environment]\n", "roles.toml: lacks role", ""),
            (
                "[role]\n[environment.a]\nunder = ['spiffe://td']\n[environment.b]\nunder = ['spiffe://td']\n",
                ":4:",
                "another environment",
            ),
        ];
        for (text, place, what) in cases {
            let said = match Roles::parse(&SourceFile::new("roles.toml", text)) {
                Ok(_) => panic!("{text} was accepted"),
                Err(complaints) => complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            };
            assert!(said.contains(place) && said.contains(what), "{text}\n{said}");
        }
    }
}
