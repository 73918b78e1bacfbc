//! Break-glass rights: sections of the roles file that define in advance what a break-glass task may do.
//!
//! ```toml
//! [break_glass.orders-down]
//! environment = "prod"
//! open = ["spiffe://example.org/person/ada", { issuer = "https://idp.example.org", subject = "grace" }]
//! review = ["spiffe://example.org/person/mary"]
//! upstreams = { warehouse = ["orders:read", "orders:export"] }
//! any_tool = true
//! ttl = "30m"
//! ```

use std::collections::BTreeMap;

use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::record::Principal;
use mayfly_ledger::upstream::file::{approver, each, known_kind, scope_name};
use mayfly_ledger::upstream::registry::{Approver, Kind};

/// One named set of break-glass rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassRights {
    /// The environment in which the rights apply.
    pub environment: String,
    /// The people who may open and join a break-glass task: at least two.
    pub open: Vec<Principal>,
    /// The people who may review the task. At least one of them remains whichever two people opened the task.
    pub review: Vec<Principal>,
    /// Upstreams, each with its scopes.
    pub upstreams: Vec<(String, Vec<String>)>,
    /// Tools that may be named.
    pub tools: Vec<String>,
    /// Any tool may be named.
    pub any_tool: bool,
    /// Credential kinds. Empty: the kinds of the registrations.
    pub kinds: Vec<Kind>,
    /// Maximum duration, in milliseconds.
    pub ttl_ms: u64,
}

impl BreakGlassRights {
    /// A text form that does not depend on the order in which the rights were written.
    pub(super) fn text(&self) -> String {
        let names = |people: &[Principal]| {
            let mut names: Vec<String> = people.iter().map(Principal::name).collect();
            names.sort_unstable();
            names
        };
        let (open, review) = (names(&self.open), names(&self.review));
        let BreakGlassRights { environment, upstreams, tools, any_tool, kinds, ttl_ms, .. } = self;
        format!("{environment:?} {open:?} {review:?} {upstreams:?} {tools:?} {any_tool} {kinds:?} {ttl_ms}")
    }
}

/// The rights under `[break_glass]`, by name. Complaints go to the document.
pub(super) fn rights(root: &Section<'_>, environments: &[String]) -> BTreeMap<String, BreakGlassRights> {
    let mut found = BTreeMap::new();
    let Some(field) = root.optional("break_glass") else { return found };
    let Some(section) = field.section() else { return found };
    let entries = section.entries();
    if entries.len() > limits::BREAK_GLASS_RIGHTS {
        let _: Option<()> =
            field.wrong(format!("names {} rights", entries.len()), format!("at most {}", limits::BREAK_GLASS_RIGHTS));
        return found;
    }
    for (name, field) in entries {
        if !mayfly_base::document::is_name(&name) {
            let _: Option<()> = field.wrong("is no name", "letters, digits and ._:/@+- only, beginning with a letter or digit");
        }
        if let Some(rights) = field.inside(|section| read(&field, section, environments)) {
            found.insert(name, rights);
        }
    }
    found
}

/// Reads every field before it returns on a missing one, so that all complaints are reported at once.
fn read(field: &Field<'_>, section: &Section<'_>, environments: &[String]) -> Option<BreakGlassRights> {
    let environment = section.required("environment").and_then(|f| known(&f, environments));
    let people = |key: &str, least: usize| {
        let field = section.required(key)?;
        let people: Vec<Approver> = each(&field, 1, approver)?;
        match people.len() < least {
            true => field.wrong("names one person", "break-glass takes two people: name at least two"),
            false => Some(people.iter().map(Approver::identity).collect::<Vec<_>>()),
        }
    };
    let (open, review) = (people("open", 2), people("review", 1));
    let upstreams = section.required("upstreams").and_then(|f| upstreams(&f));
    let tools = section.optional("tools").map_or(Some(Vec::new()), |f| each(&f, 1, |f| f.text(limits::NAME_BYTES)));
    let any_tool = section.optional("any_tool").map_or(Some(false), |f| f.boolean());
    let kinds = section.optional("kinds").map_or(Some(Vec::new()), |f| each(&f, 1, known_kind));
    let ttl = section.optional("ttl");
    let ttl_ms = ttl.map_or(Some(limits::BREAK_GLASS_MS), |f| f.duration(limits::BREAK_GLASS_MIN_MS, limits::BREAK_GLASS_MS));
    let (open, review) = (open?, review?);
    let mut tools = tools?;
    tools.sort_unstable();
    let rights = BreakGlassRights {
        environment: environment?,
        upstreams: upstreams?,
        tools,
        any_tool: any_tool?,
        kinds: kinds?,
        ttl_ms: ttl_ms?,
        open,
        review,
    };
    if rights.any_tool && !rights.tools.is_empty() {
        return field.wrong("lists tools beside any_tool", "give one of them");
    }
    // A reviewer must remain whichever two people opened the task.
    let outside = rights.review.iter().any(|who| !rights.open.contains(who));
    match outside || rights.review.len() > 2 {
        true => Some(rights),
        false => {
            field.wrong("may end with nobody left to review it", "name a reviewer who is not in open, or three of those who are")
        }
    }
}

fn known(field: &Field<'_>, environments: &[String]) -> Option<String> {
    let name = field.name()?;
    match environments.contains(&name) {
        true => Some(name),
        false => field.wrong(format!("is {name}, which no [environment] has"), format!("known: {}", environments.join(", "))),
    }
}

fn upstreams(field: &Field<'_>) -> Option<Vec<(String, Vec<String>)>> {
    let section = field.section()?;
    let entries = section.entries();
    if entries.is_empty() || entries.len() > limits::TASK_LIST {
        let remedy = format!("1 to {}, each with its scopes: {{ warehouse = [\"orders:read\"] }}", limits::TASK_LIST);
        return field.wrong(format!("names {} upstreams", entries.len()), remedy);
    }
    let one = |(name, field): (String, Field<'_>)| {
        if !mayfly_base::document::is_name(&name) {
            return field.wrong("is no name of an upstream", "letters, digits and ._:/@+- only");
        }
        let mut scopes = each(&field, 1, scope_name)?;
        if scopes.len() > limits::TASK_LIST {
            return field.wrong(format!("has {} scopes", scopes.len()), format!("at most {}", limits::TASK_LIST));
        }
        scopes.sort_unstable();
        Some((name, scopes))
    };
    let read: Vec<Option<(String, Vec<String>)>> = entries.into_iter().map(one).collect();
    let mut read: Vec<(String, Vec<String>)> = read.into_iter().collect::<Option<_>>()?;
    read.sort_unstable();
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::super::roles::Roles;
    use super::*;
    use mayfly_base::document::SourceFile;

    const ROLES: &str = "[role]\n[environment.prod]\nunder = ['spiffe://td']\n";
    const GOOD: &str = "[break_glass.down]\nenvironment = 'prod'\nopen = ['spiffe://td/a', { issuer = 'https://i', subject = 'b' }]\n\
                        review = ['spiffe://td/c']\nupstreams = { db = ['write', 'read'] }\nttl = '30m'\n";

    fn parse(rights: &str) -> Result<BTreeMap<String, BreakGlassRights>, String> {
        let roles = Roles::parse(&SourceFile::new("roles.toml", format!("{ROLES}{rights}")));
        let told = |c: Vec<mayfly_base::document::Diagnostic>| c.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        roles.map(|r| r.rights().clone()).map_err(told)
    }

    #[test]
    fn rights_are_read_whole() {
        let all = parse(GOOD).unwrap();
        let rights = &all["down"];
        assert_eq!((rights.environment.as_str(), rights.ttl_ms, rights.any_tool), ("prod", 1_800_000, false));
        assert_eq!(rights.upstreams, [("db".to_owned(), vec!["read".to_owned(), "write".to_owned()])]);
        assert_eq!(rights.open.iter().map(Principal::name).collect::<Vec<_>>(), ["spiffe://td/a", "https://i#b"]);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn each_mistake_is_told() {
        let with = |key: &str, value: &str| {
            let lines = GOOD.lines().filter(|line| !line.starts_with(&format!("{key} ")));
            let kept: Vec<&str> = lines.collect();
            format!("{}\n{}", kept.join("\n"), if value.is_empty() { String::new() } else { format!("{key} = {value}\n") })
        };
        let cases = [
            ("environment", "'dev'", "known: prod"),
            ("environment", "", "lacks break_glass.down.environment"),
            ("open", "['spiffe://td/a']", "at least two"),
            ("open", "['spiffe://td/a', 'spiffe://td/a']", "is there twice"),
            ("review", "[]", "name at least one"),
            ("review", "['spiffe://td/a']", "nobody left to review"),
            ("review", "['spiffe://td/a', { issuer = 'https://i', subject = 'b' }]", "nobody left to review"),
            ("upstreams", "{ }", "names 0 upstreams"),
            ("upstreams", "{ db = [] }", "name at least one"),
            ("upstreams", "{ db = ['a b'] }", "RFC 6749"),
            ("ttl", "'2h'", "1h"),
            ("kinds", "['card']", "kinds"),
            ("tool", "['x']", "did you mean tools?"),
        ];
        for (key, value, said) in cases {
            let told = parse(&with(key, value)).unwrap_err();
            assert!(told.contains(said), "{key} = {value}: {told}");
        }
        let both = format!("{GOOD}tools = ['psql']\nany_tool = true\n");
        assert!(parse(&both).unwrap_err().contains("beside any_tool"));
    }
}
