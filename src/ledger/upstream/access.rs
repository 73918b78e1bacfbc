//! The access that a credential gives at its upstream, as far as the registration tells: what policies read as `context.access`, what
//! approvers see, and what records of issuances keep.
//!
//! The connector of a kind describes the access from the same settings by which it makes the credential ([`DescribeAccess`]); nothing of it
//! comes from the caller's words.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::registry::{Kind, Upstream};
use mayfly_base::limits;

/// The level of access of a credential, in words that all kinds share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AccessLevel {
    /// Reads data.
    Read,
    /// Changes data.
    Write,
    /// Runs code that is stored at the upstream, whose effect mayfly does not know.
    Execute,
    /// Changes the structure, settings or rights of the upstream.
    Manage,
    /// mayfly does not know what the right lets its holder do.
    Unknown,
}

impl AccessLevel {
    /// The word that policies read.
    pub const fn as_str(self) -> &'static str {
        match self {
            AccessLevel::Read => "read",
            AccessLevel::Write => "write",
            AccessLevel::Execute => "execute",
            AccessLevel::Manage => "manage",
            AccessLevel::Unknown => "unknown",
        }
    }
}

/// The access that a credential gives. A kind fills in what it knows; lists that it does not know are empty.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct GrantedAccess {
    /// The levels of access.
    pub levels: BTreeSet<AccessLevel>,
    /// Host, and port where the target has one.
    pub host: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// The ARN of the role.
    pub role_arn: Option<String>,
    /// The audience of an assertion or of a token.
    pub audience: Option<String>,
    /// `resource` of a token (RFC 8707).
    pub resource: Option<String>,
    /// Privileges, commands or actions, as the upstream names them.
    pub privileges: BTreeSet<String>,
    /// The objects that the privileges are for, each with its sort.
    pub objects: BTreeSet<String>,
    /// Privilege and object together: `SELECT on tables public.orders`.
    pub grants: BTreeSet<String>,
    /// Roles, accounts or names at the upstream whose rights the credential has.
    pub roles: BTreeSet<String>,
    /// Repositories, by their numeric ids.
    pub repositories: BTreeSet<String>,
    /// The names of the repositories.
    pub repository_names: BTreeSet<String>,
    /// The credential is for every repository.
    pub all_repositories: bool,
    /// Permissions as `name:level`. A level includes the lower ones, which are in the set as well.
    pub permissions: BTreeSet<String>,
    /// Scopes at the upstream's authorization server.
    pub upstream_scopes: BTreeSet<String>,
}

impl GrantedAccess {
    /// Whether the holder can do nothing but read, with certainty.
    pub fn read_only(&self) -> bool {
        self.levels.iter().all(|level| *level == AccessLevel::Read)
    }

    /// Adds the access of another description. A text that differs between both is left out.
    pub fn join(&mut self, other: GrantedAccess) {
        let text = |own: &mut Option<String>, other: Option<String>| {
            if *own != other {
                *own = None;
            }
        };
        self.levels.extend(other.levels);
        text(&mut self.host, other.host);
        text(&mut self.database, other.database);
        text(&mut self.role_arn, other.role_arn);
        text(&mut self.audience, other.audience);
        text(&mut self.resource, other.resource);
        self.privileges.extend(other.privileges);
        self.objects.extend(other.objects);
        self.grants.extend(other.grants);
        self.roles.extend(other.roles);
        self.repositories.extend(other.repositories);
        self.repository_names.extend(other.repository_names);
        self.all_repositories |= other.all_repositories;
        self.permissions.extend(other.permissions);
        self.upstream_scopes.extend(other.upstream_scopes);
    }

    /// The access in plain words, for people: at most [`limits::ACCESS_LINES`] lines.
    pub fn words(&self) -> Vec<String> {
        let levels: Vec<&str> = self.levels.iter().map(|level| level.as_str()).collect();
        let mut lines = vec![match (self.read_only(), &levels[..]) {
            (_, []) => "no right to data".to_owned(),
            (true, _) => "read only".to_owned(),
            (false, levels) => format!("can do: {}", levels.join(", ")),
        }];
        let texts = [
            ("at", &self.host),
            ("database", &self.database),
            ("role", &self.role_arn),
            ("audience", &self.audience),
            ("resource", &self.resource),
        ];
        lines.extend(texts.into_iter().filter_map(|(what, text)| Some(format!("{what} {}", text.as_ref()?))));
        if self.all_repositories {
            lines.push("every repository of the installation".to_owned());
        }
        // Where privilege and object are known together, that says more than both lists.
        let none = BTreeSet::new();
        let rights = match self.grants.is_empty() {
            true => [("may", &self.privileges), ("on", &self.objects)],
            false => [("may", &self.grants), ("on", &none)],
        };
        let more = [
            ("has the rights of role", &self.roles),
            ("repository id", &self.repositories),
            ("repository", &self.repository_names),
            ("permission", &self.permissions),
            ("scope", &self.upstream_scopes),
        ];
        for (what, set) in rights.into_iter().chain(more) {
            lines.extend(set.iter().map(|text| format!("{what} {text}")));
        }
        let all = lines.len();
        if all > limits::ACCESS_LINES {
            lines.truncate(limits::ACCESS_LINES - 1);
            lines.push(format!("and {} more", all - lines.len()));
        }
        lines
    }
}

/// The question which access a credential would give.
#[derive(Clone, Copy, Debug)]
pub struct AccessQuery<'a> {
    /// The registration.
    pub upstream: &'a Upstream,
    /// The kind of the credential.
    pub kind: Kind,
    /// The scopes of the credential.
    pub scopes: &'a [String],
    /// The part that the request asks for: authorization details (RFC 9396). Empty: everything.
    pub details: &'a str,
}

impl AccessQuery<'_> {
    /// The section of the kind, in its own shape. The error names the section.
    pub fn settings<S: DeserializeOwned>(&self) -> Result<S, String> {
        self.upstream.settings.read(self.kind.as_str())
    }
}

/// Why no access can be described: then none can be granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessError {
    /// No connector makes credentials of the kind.
    NotServed,
    /// The registration does not grant it, for this reason.
    NotGranted(String),
    /// The authorization details ask for what the scopes do not give, or for nothing that there is.
    Details {
        /// The field, as `authorization_details[0].grants[1]`.
        field: String,
        /// The defect, and what would be right.
        what: String,
    },
}

impl From<String> for AccessError {
    fn from(why: String) -> AccessError {
        AccessError::NotGranted(why)
    }
}

impl AccessError {
    /// The details are wrong at a place within their one object; empty for the object itself.
    pub fn details(place: &str, what: impl Into<String>) -> AccessError {
        let place = if place.is_empty() { String::new() } else { format!(".{place}") };
        AccessError::Details { field: format!("authorization_details[0]{place}"), what: what.into() }
    }
}

/// Reads the authorization details of a credential of a kind: one object whose `type` is the name of the kind. `None`: there are none.
pub fn narrowing<T: DeserializeOwned>(kind: Kind, details: &str) -> Result<Option<T>, AccessError> {
    if details.is_empty() {
        return Ok(None);
    }
    let whole = |what: &str| AccessError::Details { field: "authorization_details".to_owned(), what: what.to_owned() };
    let read: Vec<Map<String, Value>> = serde_json::from_str(details).map_err(|_| whole("is no JSON array of objects"))?;
    let [mut one] =
        <[Map<String, Value>; 1]>::try_from(read).map_err(|_| whole("must have one object: a credential has one kind"))?;
    match one.remove("type") {
        Some(Value::String(name)) if name == kind.as_str() => {}
        _ => return Err(AccessError::details("type", format!("must be {:?}, the kind of the credential", kind.as_str()))),
    }
    serde_json::from_value(Value::Object(one)).map(Some).map_err(|e| AccessError::details("", e.to_string()))
}

impl std::fmt::Display for AccessError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AccessError::NotServed => f.write_str("credentials of the kind are not made by this server"),
            AccessError::NotGranted(why) => f.write_str(why),
            AccessError::Details { field, what } => write!(f, "{field}: {what}"),
        }
    }
}

/// Describes the access that credentials give: the connectors of a server.
pub trait DescribeAccess: Send + Sync {
    /// The access of a credential of a kind that an upstream makes.
    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError>;
}

/// Connectors of a server that has none.
#[derive(Clone, Copy, Debug)]
pub struct NoConnectors;

impl DescribeAccess for NoConnectors {
    fn describe(&self, _: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        Err(AccessError::NotServed)
    }
}

/// The access of one credential with these scopes; `None` for tokens of mayfly itself, whose rights are their scopes.
pub fn of_credential(from: &dyn DescribeAccess, query: &AccessQuery<'_>) -> Result<Option<GrantedAccess>, AccessError> {
    match query.kind.served() {
        false => from.describe(query).map(Some),
        true if query.details.is_empty() => Ok(None),
        true => Err(AccessError::Details {
            field: "authorization_details".to_owned(),
            what: format!("is not for kind {}, whose rights are its scopes; leave it out", query.kind),
        }),
    }
}

/// The access of all credentials together that could be issued with some of these scopes, as one of these kinds. A kind that is not served is
/// never issued and adds nothing; `None` where no kind is made by an upstream.
pub fn of_any(
    from: &dyn DescribeAccess,
    upstream: &Upstream,
    kinds: &[Kind],
    scopes: &[String],
) -> Result<Option<GrantedAccess>, AccessError> {
    let mut whole: Option<GrantedAccess> = None;
    for kind in kinds.iter().filter(|kind| !kind.served()) {
        // Scopes that no single credential can have may be asked for one by one.
        for scope in scopes {
            let query = AccessQuery { upstream, kind: *kind, scopes: std::slice::from_ref(scope), details: "" };
            match (from.describe(&query), &mut whole) {
                (Ok(access), Some(whole)) => whole.join(access),
                (Ok(access), whole @ None) => *whole = Some(access),
                (Err(AccessError::NotServed), _) => {}
                (Err(no), _) => return Err(no),
            }
        }
    }
    Ok(whole)
}
