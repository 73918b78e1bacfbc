//! The section `[mysql]` of a registration.
//!
//! The section is kept in the ledger as JSON of the same shape. What undoing needs of it is written into the terms of each lease.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::address::UpstreamAddress;
use crate::database::access::granted;
use crate::database::place_of;
use crate::database::settings::{connection_limit, fits, grants, is_false};
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::file::each;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The port of MySQL.
pub const PORT: u16 = 3306;

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MysqlSettings {
    /// The user that mayfly logs in as.
    pub admin: String,
    /// Sessions that one credential may have at once: `MAX_USER_CONNECTIONS`.
    pub connection_limit: u64,
    /// The hosts from which credentials are used, as the host of an account is written.
    pub from_host: String,
    /// The plugin by which credentials log in: a key of [`AUTHENTICATION`]. Without it, that of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
    /// The server takes no TLS: on loopback only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
    /// The grants of the scopes.
    pub grants: Vec<PrivilegeGrant>,
}

/// An entry of `grants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivilegeGrant {
    /// The scope that grants the privileges.
    pub scope: String,
    /// The privileges, in upper case.
    pub privileges: Vec<String>,
    /// The sort of the objects: a key of [`SORTS`].
    pub on: String,
    /// The objects: databases, or `DATABASE.NAME`.
    pub names: Vec<String>,
}

impl MysqlSettings {
    /// The grants of some scopes: what a user gets, and what policy sees.
    pub fn granted(&self, scopes: &[String]) -> Result<Vec<&PrivilegeGrant>, String> {
        granted(&self.grants, scopes, |grant| &grant.scope)
    }
}

/// The plugins by which a credential can log in.
pub const AUTHENTICATION: [&str; 2] = ["mysql_native_password", "caching_sha2_password"];

/// A sort of objects that privileges are granted on.
pub struct GrantSort {
    /// The value of `on`.
    pub on: &'static str,
    /// The word after `ON` in a statement.
    pub word: &'static str,
    /// Whether the names are those of databases.
    pub whole: bool,
    /// The privileges that exist for it.
    pub privileges: &'static [&'static str],
}

const TABLE: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "TRIGGER",
    "CREATE VIEW",
    "SHOW VIEW",
];
const DATABASE: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "TRIGGER",
    "CREATE VIEW",
    "SHOW VIEW",
    "EXECUTE",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "LOCK TABLES",
    "CREATE TEMPORARY TABLES",
];
const ROUTINE: &[&str] = &["EXECUTE", "ALTER ROUTINE"];

/// The sorts of objects. Privileges on the whole server and roles are not among them: some of them let their holder make other accounts.
pub const SORTS: &[GrantSort] = &[
    GrantSort { on: "tables", word: "TABLE ", whole: false, privileges: TABLE },
    GrantSort { on: "databases", word: "", whole: true, privileges: DATABASE },
    GrantSort { on: "procedures", word: "PROCEDURE ", whole: false, privileges: ROUTINE },
    GrantSort { on: "functions", word: "FUNCTION ", whole: false, privileges: ROUTINE },
];

/// Privileges by which stored objects are made that act for their maker, and the privilege that drops them.
pub const OBJECT_PRIVILEGES: [(&str, &str); 4] =
    [("CREATE VIEW", "DROP"), ("TRIGGER", "TRIGGER"), ("CREATE ROUTINE", "ALTER ROUTINE"), ("EVENT", "EVENT")];

impl PrivilegeGrant {
    /// The sort of its objects.
    pub fn sort(&self) -> Option<&'static GrantSort> {
        SORTS.iter().find(|sort| sort.on == self.on)
    }

    /// The databases of its objects.
    pub fn databases(&self) -> BTreeSet<&str> {
        self.names.iter().map(|name| name.split_once('.').map_or(name.as_str(), |(database, _)| database)).collect()
    }

    /// The privileges that drop what could be made with it.
    pub fn dropped_by(&self) -> impl Iterator<Item = &'static str> {
        OBJECT_PRIVILEGES.into_iter().filter(|(makes, _)| self.privileges.iter().any(|p| p == makes)).map(|(_, drops)| drops)
    }
}

/// The databases in which the holder of these grants can make stored objects.
pub fn object_databases<'g>(grants: impl Iterator<Item = &'g PrivilegeGrant>) -> BTreeSet<String> {
    let making = grants.filter(|grant| grant.dropped_by().next().is_some());
    making.flat_map(|grant| grant.databases().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The terms of a lease: the settings that undoing a user needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MysqlTerms {
    /// The target of the registration.
    pub target: String,
    /// As [`MysqlSettings::admin`].
    pub admin: String,
    /// As [`MysqlSettings::from_host`]: a part of the account's name.
    pub from_host: String,
    /// As [`MysqlSettings::plaintext`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
    /// The databases in which the user can make stored objects.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub object_databases: BTreeSet<String>,
}

/// Address and database of a target.
pub fn place(target: &str) -> Option<(UpstreamAddress, &str)> {
    place_of(target, "mysql", PORT, limits::MYSQL_NAME_BYTES)
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let admin = section.required("admin").and_then(|f| f.text(limits::MYSQL_USER_BYTES));
    let connection_limit = connection_limit(section);
    let from_host = section.optional("from_host").map_or_else(|| Some("%".to_owned()), |f| host(&f));
    let authentication = match section.optional("authentication") {
        Some(field) => field.one_of(&AUTHENTICATION.map(|name| (name, name))).map(|name| Some(name.to_owned())),
        None => Some(None),
    };
    let plaintext_field = section.optional("plaintext");
    let plaintext = plaintext_field.as_ref().map_or(Some(false), Field::boolean);
    let field = section.required("grants");
    let grants = field.as_ref().and_then(|field| grants(field, grant));
    let granted: Option<Vec<&str>> = grants.as_ref().map(|all| all.iter().map(|g| g.scope.as_str()).collect());
    let place = |target: &str| place(target).map(|(address, _)| address);
    let tls = (plaintext_field.as_ref(), plaintext);
    fits(around, field.as_ref(), granted.as_deref(), place, "mysql://HOST:PORT/DATABASE", tls)?;
    if let (Some(field), Some(grants)) = (&field, &grants) {
        let many = object_databases(grants.iter()).len();
        if many > limits::MYSQL_OBJECT_DATABASES {
            let most = limits::MYSQL_OBJECT_DATABASES;
            let which = OBJECT_PRIVILEGES.map(|(makes, _)| makes).join(", ");
            return field
                .wrong(format!("grants one of {which} in {many} databases"), format!("{most} at the most in one registration"));
        }
    }
    let settings = MysqlSettings {
        admin: admin?,
        connection_limit: connection_limit?,
        from_host: from_host?,
        authentication: authentication?,
        plaintext: plaintext?,
        grants: grants?,
    };
    serde_json::to_value(settings).ok()
}

/// The host of an account: an address, a name, a network, or a pattern. The alphabet is closed, because the host stands in statements.
fn host(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::MYSQL_HOST_BYTES)?;
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:%/".contains(&b)) {
        true => Some(text),
        false => {
            field.wrong("is no host of an account", "an address or a pattern like 10.1.%, 10.1.0.0/255.255.0.0 or %.example.org")
        }
    }
}

/// Whether a name of a database, a table or a routine is of the alphabet that registrations may use.
fn is_name(text: &str) -> bool {
    (1..=limits::MYSQL_NAME_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_$-".contains(&b))
}

fn grant(section: &Section<'_>) -> Option<PrivilegeGrant> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let choices: Vec<(&str, &GrantSort)> = SORTS.iter().map(|sort| (sort.on, sort)).collect();
    let sort = section.required("on").and_then(|f| f.one_of(&choices));
    let (privileges, names) = (section.required("privileges"), section.required("names"));
    let sort = sort?;
    let known: Vec<(&str, &str)> = sort.privileges.iter().map(|p| (*p, *p)).collect();
    let privileges = privileges.and_then(|field| each(&field, 1, |f| f.one_of(&known)));
    let names = names.and_then(|field| each(&field, 1, |f| object(f, sort)));
    let privileges = privileges?.into_iter().map(str::to_owned).collect();
    Some(PrivilegeGrant { scope: scope?, privileges, on: sort.on.to_owned(), names: names? })
}

fn object(field: &Field<'_>, sort: &GrantSort) -> Option<String> {
    let text = field.text(2 * limits::MYSQL_NAME_BYTES + 1)?;
    let whole = match text.split_once('.') {
        Some((database, name)) => !sort.whole && is_name(database) && is_name(name),
        None => sort.whole && is_name(&text),
    };
    if whole {
        return Some(text);
    }
    let form = if sort.whole { "DATABASE" } else { "DATABASE.NAME" };
    field.wrong(
        format!("is not one of {}", sort.on),
        format!("{form}, of letters, digits, _, $ and -, without quotes or patterns"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::{comes_back, each_is_told, parse};

    const WHOLE: &str = include_str!("template.toml");

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        let upstream = parse(WHOLE).unwrap();
        let section = upstream.settings.of("mysql").unwrap();
        let settings: MysqlSettings = serde_json::from_value(section.clone()).unwrap();
        assert_eq!((settings.admin.as_str(), settings.from_host.as_str(), settings.plaintext), ("mayfly", "%", false));
        comes_back(&upstream, WHOLE, "mysql");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        each_is_told(
            WHOLE,
            &[
                ("admin = \"mayfly\"", "", "lacks mysql.admin"),
                ("connection_limit = 4", "connection_limit = 0", "mysql.connection_limit"),
                (
                    "connection_limit = 4",
                    "connection_limit = 4\nplaintext = true",
                    "mysql.plaintext is for a database on this host only",
                ),
                ("from_host = \"%\"", "from_host = \"%' IDENTIFIED BY 'x\"", "mysql.from_host is no host of an account"),
                ("from_host = \"%\"", "authentication = \"mysql_clear_password\"", "caching_sha2_password"),
                ("\"SELECT\"", "\"SUPER\"", "privileges[0]"),
                ("on = \"tables\"", "on = \"roles\"", "databases"),
                ("\"orders.orders\"", "\"orders.`orders`\"", "names[0] is not one of tables"),
                ("\"orders.orders\"", "\"orders\"", "DATABASE.NAME"),
                ("\"orders.orders\"", "\"orders.a.b\"", "names[0]"),
                ("\"orders.orders\"", "\"orders.*\"", "names[0]"),
                ("\"orders.orders\"", "\"orders.a\\u0000\"", "names[0]"),
                ("scope = \"orders:write\"", "scope = \"orders:erase\"", "which is not in scopes"),
                (
                    "target = \"mysql://db.example.org/orders\"",
                    "target = \"mysql://db.example.org\"",
                    "mysql://HOST:PORT/DATABASE",
                ),
                (
                    "target = \"mysql://db.example.org/orders\"",
                    "target = \"mariadb://db.example.org/orders\"",
                    "mysql://HOST:PORT/DATABASE",
                ),
                ("name = \"orders\"", "name = \"team/orders\"", "without slashes"),
            ],
        );
    }

    #[test]
    fn the_terms_name_the_databases_in_which_stored_objects_can_be_made() {
        let grant = |privileges: &[&str], on: &str, names: &[&str]| PrivilegeGrant {
            scope: "s".to_owned(),
            privileges: privileges.iter().map(|p| (*p).to_owned()).collect(),
            on: on.to_owned(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
        };
        let all = [
            grant(&["SELECT", "TRIGGER"], "tables", &["a.x", "a.y"]),
            grant(&["CREATE ROUTINE"], "databases", &["b"]),
            grant(&["SELECT"], "databases", &["c"]),
        ];
        assert_eq!(object_databases(all.iter()).into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all[1].dropped_by().collect::<Vec<_>>(), ["ALTER ROUTINE"]);
    }

    #[test]
    fn the_terms_of_the_most_databases_fit_into_a_lease() {
        let long = "d".repeat(limits::MYSQL_NAME_BYTES);
        let terms = MysqlTerms {
            target: format!("mysql://db.example.org/{long}"),
            admin: "a".repeat(limits::MYSQL_USER_BYTES),
            from_host: "h".repeat(limits::MYSQL_HOST_BYTES),
            plaintext: true,
            object_databases: (0..limits::MYSQL_OBJECT_DATABASES).map(|n| format!("{n:0>64}")).collect(),
        };
        assert!(serde_json::to_string(&terms).unwrap().len() <= limits::LEASE_TERMS_BYTES);
    }
}
