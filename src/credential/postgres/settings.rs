//! The section `[postgres]` of a registration.
//!
//! The section is kept in the ledger as JSON of the same shape. What undoing needs of it is written into the terms of each lease.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::level;
use crate::access::address::UpstreamAddress;
use crate::database::access::{granted, granted_on};
use crate::database::place_of;
use crate::database::settings::{connection_limit, fits, grants, is_false};
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::access::{AccessError, narrowing};
use mayfly_ledger::upstream::file::each;
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The port of PostgreSQL.
pub const PORT: u16 = 5432;

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    /// The role that mayfly logs in as.
    pub admin: String,
    /// Sessions that one credential may have at once.
    pub connection_limit: u64,
    /// The server takes no TLS: on loopback only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
    /// The role that gets what a credential's role created. Without it, those objects are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reassign_to: Option<String>,
    /// The grants of the scopes.
    pub grants: Vec<ScopeGrant>,
}

/// An entry of `grants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeGrant {
    /// The scope that grants the privileges.
    pub scope: String,
    /// The privileges, in upper case. Empty for membership of roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub privileges: Vec<String>,
    /// The sort of the objects: a key of [`SORTS`].
    pub on: String,
    /// The objects. Empty for the database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl PostgresSettings {
    /// The grants of some scopes, or the part of them that the details ask for: what a role gets, and what policy sees.
    pub fn granted(&self, scopes: &[String], details: &str) -> Result<Vec<ScopeGrant>, AccessError> {
        let all = granted(&self.grants, scopes, |grant| &grant.scope)?;
        match narrowing::<GrantNarrowing>(Kind::Postgres, details)? {
            None => Ok(all.into_iter().cloned().collect()),
            Some(part) => part.of(&all),
        }
    }
}

/// Authorization details: the part of the grants that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantNarrowing {
    /// Privileges on objects, as policies read them: `SELECT on tables public.orders`.
    #[serde(default)]
    pub grants: Vec<String>,
    /// Roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

impl GrantNarrowing {
    /// The part of some grants that the details name. Privileges that only open the way to other objects (`CONNECT`, `USAGE` of a schema) stay.
    fn of(&self, all: &[&ScopeGrant]) -> Result<Vec<ScopeGrant>, AccessError> {
        let mut part: Vec<ScopeGrant> = Vec::new();
        let (mut grants, mut roles) = (BTreeSet::new(), BTreeSet::new());
        for grant in all {
            let whole = [String::new()];
            for name in if grant.names.is_empty() { &whole[..] } else { &grant.names[..] } {
                let asked = |privilege: &&String| self.grants.contains(&granted_on(privilege, &grant.on, name));
                let privileges = grant.privileges.iter().filter(|p| level(&grant.on, p).is_none() || asked(p));
                let privileges: Vec<String> = privileges.cloned().collect();
                grants.extend(grant.privileges.iter().map(|privilege| granted_on(privilege, &grant.on, name)));
                let is_role = grant.on == ROLES && self.roles.contains(name);
                if grant.on == ROLES {
                    roles.insert(name.clone());
                }
                if is_role || !privileges.is_empty() {
                    let names = if grant.names.is_empty() { Vec::new() } else { vec![name.clone()] };
                    part.push(ScopeGrant { scope: grant.scope.clone(), privileges, on: grant.on.clone(), names });
                }
            }
        }
        for (key, asked, known) in [("grants", &self.grants, &grants), ("roles", &self.roles, &roles)] {
            if let Some((at, unknown)) = asked.iter().enumerate().find(|(_, one)| !known.contains(*one)) {
                let known = known.iter().take(limits::DETAILS_NAMED).cloned().collect::<Vec<_>>().join(", ");
                let what = format!("is {unknown:?}, which the scopes do not give: they give {known}");
                return Err(AccessError::details(&format!("{key}[{at}]"), what));
            }
        }
        match self.grants.is_empty() && self.roles.is_empty() {
            true => Err(AccessError::details("", "asks for nothing: name grants or roles, or leave it out")),
            false => Ok(part),
        }
    }
}

/// The sort whose objects are roles.
const ROLES: &str = "roles";

/// A sort of objects that privileges are granted on.
pub struct ObjectSort {
    /// The value of `on`.
    pub on: &'static str,
    /// The privileges that exist for it.
    pub privileges: &'static [&'static str],
}

/// Without `TRIGGER`: PostgreSQL does not record who made a trigger on another role's table, so undoing could not find it.
const TABLE: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES"];
const SEQUENCE: &[&str] = &["USAGE", "SELECT", "UPDATE"];

/// The sorts of objects. `super::sql` has the statements of each.
pub const SORTS: &[ObjectSort] = &[
    ObjectSort { on: "roles", privileges: &[] },
    ObjectSort { on: "tables", privileges: TABLE },
    ObjectSort { on: "all tables in schemas", privileges: TABLE },
    ObjectSort { on: "sequences", privileges: SEQUENCE },
    ObjectSort { on: "all sequences in schemas", privileges: SEQUENCE },
    ObjectSort { on: "functions", privileges: &["EXECUTE"] },
    ObjectSort { on: "all functions in schemas", privileges: &["EXECUTE"] },
    ObjectSort { on: "schemas", privileges: &["USAGE", "CREATE"] },
    ObjectSort { on: "database", privileges: &["CONNECT", "TEMPORARY", "CREATE"] },
];

/// The terms of a lease: the settings that undoing a role needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresTerms {
    /// The target of the registration.
    pub target: String,
    /// As [`PostgresSettings::admin`].
    pub admin: String,
    /// As [`PostgresSettings::plaintext`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
    /// As [`PostgresSettings::reassign_to`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reassign_to: Option<String>,
}

/// Address and database of a target.
pub fn place(target: &str) -> Option<(UpstreamAddress, &str)> {
    // The other scheme that libpq knows, `postgresql`, would be a second spelling of one target.
    place_of(target, "postgres", PORT, limits::POSTGRES_NAME_BYTES)
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let admin = section.required("admin").and_then(|f| identifier(&f));
    let connection_limit = connection_limit(section);
    let plaintext_field = section.optional("plaintext");
    let plaintext = plaintext_field.as_ref().map_or(Some(false), Field::boolean);
    let reassign_to = match section.optional("reassign_to") {
        Some(field) => identifier(&field).map(Some),
        None => Some(None),
    };
    let field = section.required("grants");
    let grants = field.as_ref().and_then(|field| grants(field, grant));
    let granted: Option<Vec<&str>> = grants.as_ref().map(|all| all.iter().map(|g| g.scope.as_str()).collect());
    let place = |target: &str| place(target).map(|(address, _)| address);
    let tls = (plaintext_field.as_ref(), plaintext);
    fits(around, field.as_ref(), granted.as_deref(), place, "postgres://HOST:PORT/DATABASE", tls)?;
    let settings = PostgresSettings {
        admin: admin?,
        connection_limit: connection_limit?,
        plaintext: plaintext?,
        reassign_to: reassign_to?,
        grants: grants?,
    };
    serde_json::to_value(settings).ok()
}

/// A name that PostgreSQL can have, as it is, without quotes.
fn identifier(field: &Field<'_>) -> Option<String> {
    field.text(limits::POSTGRES_NAME_BYTES)
}

fn grant(section: &Section<'_>) -> Option<ScopeGrant> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let choices: Vec<(&str, &ObjectSort)> = SORTS.iter().map(|sort| (sort.on, sort)).collect();
    let sort = section.required("on").and_then(|f| f.one_of(&choices));
    let (privileges, names) = (section.optional("privileges"), section.optional("names"));
    let sort = sort?;
    let known: Vec<(&str, &str)> = sort.privileges.iter().map(|p| (*p, *p)).collect();
    let privileges = match privileges {
        Some(field) if known.is_empty() => field.wrong("is given for roles", "leave it out: a member has all that the role has"),
        Some(field) => each(&field, 1, |f| f.one_of(&known)),
        None if known.is_empty() => Some(Vec::new()),
        None => section.required("privileges").and(None),
    };
    let names = match names {
        Some(field) if sort.on == "database" => field.wrong("is given for the database", "leave it out: it is the target's"),
        Some(field) => each(&field, 1, |f| f.text(limits::POSTGRES_OBJECT_BYTES)),
        None if sort.on == "database" => Some(Vec::new()),
        None => section.required("names").and(None),
    };
    let privileges = privileges?.into_iter().map(str::to_owned).collect();
    Some(ScopeGrant { scope: scope?, privileges, on: sort.on.to_owned(), names: names? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::{comes_back, each_is_told, parse};
    use mayfly_ledger::upstream::access::AccessQuery;

    const WHOLE: &str = include_str!("template.toml");

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        let upstream = parse(WHOLE).unwrap();
        let section = upstream.settings.of("postgres").unwrap();
        let settings: PostgresSettings = serde_json::from_value(section.clone()).unwrap();
        assert_eq!((settings.admin.as_str(), settings.plaintext), ("mayfly", false));
        comes_back(&upstream, WHOLE, "postgres");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        each_is_told(
            WHOLE,
            &[
                ("admin = \"mayfly\"", "", "lacks postgres.admin"),
                ("privileges = [\"SELECT\"]", "privileges = [\"TRIGGER\"]", "privileges"),
                ("connection_limit = 4", "connection_limit = 0", "postgres.connection_limit"),
                ("connection_limit = 4", "conection_limit = 4", "did you mean connection_limit?"),
                (
                    "connection_limit = 4",
                    "connection_limit = 4\nplaintext = true",
                    "postgres.plaintext is for a database on this host only",
                ),
                ("\"SELECT\"", "\"SELEKT\"", "privileges[0]"),
                ("on = \"tables\"", "on = \"table\"", "all tables in schemas"),
                ("scope = \"orders:write\"", "scope = \"orders:erase\"", "which is not in scopes"),
                (
                    "target = \"postgres://db.example.org/orders\"",
                    "target = \"postgres://db.example.org\"",
                    "postgres://HOST:PORT/DATABASE",
                ),
                (
                    "target = \"postgres://db.example.org/orders\"",
                    "target = \"https://db.example.org/orders\"",
                    "postgres://HOST:PORT/DATABASE",
                ),
                ("name = \"orders\"", "name = \"team/orders\"", "without slashes"),
                ("kinds = [\"postgres\"]", "kinds = [\"jwt\"]", "postgres is for kind postgres"),
            ],
        );
        let without: String = WHOLE.split("[postgres]").next().unwrap().to_owned();
        assert!(parse(&without).unwrap_err().contains("lacks postgres"));
        let local = WHOLE.replace("db.example.org", "127.0.0.1:5433").replace("connection_limit = 4", "plaintext = true");
        assert!(parse(&local).is_ok());
    }

    #[test]
    fn details_narrow_the_grants_to_what_they_name_and_never_widen_them() {
        let upstream = parse(WHOLE).unwrap();
        let settings: PostgresSettings = serde_json::from_value(upstream.settings.of("postgres").unwrap().clone()).unwrap();
        let granted = |scopes: &[&str], details: &str| {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            let part = settings.granted(&scopes, details)?;
            let of = |grant: &ScopeGrant| format!("{} on {} {}", grant.privileges.join(","), grant.on, grant.names.join(","));
            Ok::<_, AccessError>(part.iter().map(of).collect::<Vec<_>>())
        };
        let read = r#"[{"type":"postgres","grants":["SELECT on tables public.orders"]}]"#;
        // The way into the schema stays; the other privileges of the scope go.
        assert_eq!(granted(&["orders:write"], read).unwrap(), ["USAGE on schemas public", "SELECT on tables public.orders"]);
        assert_eq!(granted(&["orders:write"], "").unwrap().last().unwrap(), "SELECT,INSERT,UPDATE on tables public.orders");
        for (scopes, details, field) in [
            (
                &["orders:read"][..],
                r#"[{"type":"postgres","grants":["SELECT on tables public.orders","INSERT on tables public.orders"]}]"#,
                ".grants[1]",
            ),
            (&["orders:write"], r#"[{"type":"postgres","grants":["SELECT on tables public.secrets"]}]"#, ".grants[0]"),
            (&["orders:write"], r#"[{"type":"postgres","roles":["postgres"]}]"#, ".roles[0]"),
            (&["orders:write"], r#"[{"type":"postgres"}]"#, ""),
            (&["orders:write"], r#"[{"type":"postgres","grants":[]}]"#, ""),
            (&["orders:write"], r#"[{"type":"postgres","privileges":["SELECT"]}]"#, ""),
            (&["orders:write"], r#"[{"type":"mysql","grants":["SELECT on tables public.orders"]}]"#, ".type"),
        ] {
            let Err(AccessError::Details { field: at, what }) = granted(scopes, details) else { panic!("{details}") };
            assert_eq!(at, format!("authorization_details[0]{field}"), "{details}: {what}");
        }
        for wrong in ["{}", "[]", "[1]", "x", &format!("[{0},{0}]", &read[1..read.len() - 1])] {
            assert!(granted(&["orders:write"], wrong).is_err(), "{wrong}");
        }
        // Any part that is granted is within the whole, for policy as well.
        let scopes = ["orders:write".to_owned()];
        let query = |details| AccessQuery { upstream: &upstream, kind: Kind::Postgres, scopes: &scopes, details };
        let (whole, part) =
            (super::super::access::describe(&query("")).unwrap(), super::super::access::describe(&query(read)).unwrap());
        assert!(part.grants.is_subset(&whole.grants) && part.read_only() && !whole.read_only());
        assert_eq!(part.privileges.iter().collect::<Vec<_>>(), ["SELECT", "USAGE"]);
    }

    #[test]
    fn address_and_database_are_those_of_the_target() {
        let of = |target| place(target).map(|(at, database)| (at.host, at.port, database.to_owned()));
        assert_eq!(of("postgres://db.example/orders"), Some(("db.example".into(), 5432, "orders".into())));
        assert_eq!(of("postgres://[::1]:6432/orders"), Some(("::1".into(), 6432, "orders".into())));
        for wrong in ["postgres://db.example", "postgres://db.example/a/b", "mysql://db.example/orders"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
