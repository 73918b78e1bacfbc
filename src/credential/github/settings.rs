//! The section `[github]` of a registration, and the rights of a token that scopes make of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::secrets::is_file_name;
use mayfly_base::document::url::WebUrl;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::access::{AccessError, narrowing};
use mayfly_ledger::upstream::file::each;
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The section as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GithubSettings {
    /// The client ID or the app ID of the app: the issuer of its assertions.
    pub app: String,
    /// The id of the installation.
    pub installation: u64,
    /// The grants of the scopes.
    pub grants: Vec<RepositoryGrant>,
}

/// An entry of `grants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryGrant {
    /// The scope that grants the permissions.
    pub scope: String,
    /// The permissions, as `name:level`.
    pub permissions: Vec<String>,
    /// The repositories. Empty for all of the installation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<GrantedRepository>,
    /// Every repository of the installation, also those that it gets later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_repositories: bool,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedRepository {
    /// The repository's id, which it keeps when it is renamed or transferred.
    pub id: u64,
    /// The repository's name when it was registered, as `OWNER/NAME`. For people only.
    pub name: String,
}

/// The level of a permission. A higher one includes the lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PermissionLevel {
    Read,
    Write,
    Admin,
}

const LEVELS: [(&str, PermissionLevel); 3] =
    [("read", PermissionLevel::Read), ("write", PermissionLevel::Write), ("admin", PermissionLevel::Admin)];

impl PermissionLevel {
    /// The name of the level in GitHub's API.
    pub fn as_str(self) -> &'static str {
        LEVELS[self as usize].0
    }
}

/// Permissions by name, in GitHub's spelling: `contents`, `pull_requests`.
pub type Permissions = BTreeMap<String, PermissionLevel>;

/// The terms of a lease: where its token is deleted. The token itself is sealed with the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GithubTerms {
    /// The target of the registration.
    pub target: String,
}

/// Authorization details: the part of the rights that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RightsNarrowing {
    /// Repositories by id. Missing: all that the scopes give.
    #[serde(default)]
    pub repositories: Option<Vec<u64>>,
    /// Permissions with their levels. Missing: all that the scopes give.
    #[serde(default)]
    pub permissions: Option<BTreeMap<String, PermissionLevel>>,
}

impl GithubSettings {
    /// The rights of a token for some scopes, or the part of them that the details ask for: what is asked of GitHub, and what policy sees.
    pub fn rights(&self, scopes: &[String], details: &str) -> Result<TokenRights, AccessError> {
        let rights = TokenRights::of(&self.grants, scopes)?;
        match narrowing::<RightsNarrowing>(Kind::Github, details)? {
            None => Ok(rights),
            Some(part) => part.of(rights),
        }
    }
}

impl RightsNarrowing {
    fn of(self, rights: TokenRights) -> Result<TokenRights, AccessError> {
        let TokenRights { mut repositories, mut permissions } = rights;
        if self.repositories.is_none() && self.permissions.is_none() {
            return Err(AccessError::details("", "asks for nothing: name repositories or permissions, or leave it out"));
        }
        if let Some(ids) = self.repositories {
            if ids.is_empty() || ids.len() > limits::GITHUB_REPOSITORIES {
                let what = format!("names {} repositories: 1 to {}", ids.len(), limits::GITHUB_REPOSITORIES);
                return Err(AccessError::details("repositories", what));
            }
            let mut part = BTreeMap::new();
            for (at, id) in ids.into_iter().enumerate() {
                // Without a list the scopes give every repository of the installation, and GitHub refuses any other.
                let name = match &repositories {
                    None => String::new(),
                    Some(known) => known.get(&id).cloned().ok_or_else(|| {
                        let known: Vec<String> = known.keys().take(limits::DETAILS_NAMED).map(u64::to_string).collect();
                        let what = format!("is {id}, which the scopes do not give: they give {}", known.join(", "));
                        AccessError::details(&format!("repositories[{at}]"), what)
                    })?,
                };
                part.insert(id, name);
            }
            repositories = Some(part);
        }
        if let Some(asked) = self.permissions {
            if asked.is_empty() {
                return Err(AccessError::details("permissions", "is empty: a token without a permission is of no use"));
            }
            for (name, level) in &asked {
                if permissions.get(name).is_none_or(|given| given < level) {
                    let given =
                        permissions.iter().take(limits::DETAILS_NAMED).map(|(name, level)| format!("{name}:{}", level.as_str()));
                    let given = given.collect::<Vec<_>>().join(", ");
                    let what = format!("is {}, which the scopes do not give: they give {given}", level.as_str());
                    return Err(AccessError::details(&format!("permissions.{name}"), what));
                }
            }
            permissions = asked;
        }
        Ok(TokenRights { repositories, permissions })
    }
}

/// What a token may do: the same permissions in each of its repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRights {
    /// The repositories by id; `None`: every repository of the installation.
    pub repositories: Option<BTreeMap<u64, String>>,
    /// The permissions.
    pub permissions: Permissions,
}

impl TokenRights {
    /// The rights of a token with exactly what these scopes grant. GitHub gives a token one set of permissions for all of its repositories,
    /// so scopes whose grants differ in both cannot be in one token: it would have more than the scopes grant.
    pub fn of(grants: &[RepositoryGrant], scopes: &[String]) -> Result<TokenRights, String> {
        if let Some(scope) = scopes.iter().find(|scope| grants.iter().all(|grant| grant.scope != **scope)) {
            return Err(format!("the registration grants nothing for scope {scope:?}"));
        }
        // The permissions in all repositories (`None`), and in each repository.
        let mut by_repository: BTreeMap<Option<u64>, Permissions> = BTreeMap::new();
        let (mut whole, mut names) = (Permissions::new(), BTreeMap::new());
        for grant in grants.iter().filter(|grant| scopes.contains(&grant.scope)) {
            let permissions = grant.permissions.iter().filter_map(|text| permission(text));
            let permissions: Vec<(&str, PermissionLevel)> = permissions.collect();
            let everywhere = grant.all_repositories.then_some(None);
            let places = everywhere.into_iter().chain(grant.repositories.iter().map(|repository| Some(repository.id)));
            for place in places {
                raise(by_repository.entry(place).or_default(), &permissions);
            }
            raise(&mut whole, &permissions);
            names.extend(grant.repositories.iter().map(|repository| (repository.id, repository.name.clone())));
        }
        let everywhere = by_repository.remove(&None);
        let narrower = match &everywhere {
            Some(permissions) => (*permissions != whole).then(|| "other repositories".to_owned()),
            None => by_repository
                .iter()
                .find(|(_, permissions)| **permissions != whole)
                .map(|(id, _)| id.and_then(|id| names.get(&id).map(|name| format!("{name} (id {id})"))).unwrap_or_default()),
        };
        if let Some(place) = narrower {
            return Err(format!(
                "a token of GitHub has the same permissions in all of its repositories, so scopes {} in one token would grant more in {place} \
                 than they say: ask for a credential for each",
                scopes.join(" ")
            ));
        }
        if names.len() > limits::GITHUB_REPOSITORIES {
            return Err(format!(
                "the scopes have {} repositories, and one token at most {}",
                names.len(),
                limits::GITHUB_REPOSITORIES
            ));
        }
        Ok(TokenRights { repositories: everywhere.is_none().then_some(names), permissions: whole })
    }

    /// The ids of the repositories; `None`: every repository of the installation.
    pub fn ids(&self) -> Option<BTreeSet<u64>> {
        self.repositories.as_ref().map(|named| named.keys().copied().collect())
    }
}

/// Adds permissions, each at the higher of both levels.
fn raise(permissions: &mut Permissions, more: &[(&str, PermissionLevel)]) {
    for (name, level) in more {
        let own = permissions.entry((*name).to_owned()).or_insert(*level);
        *own = (*own).max(*level);
    }
}

/// Name and level of a permission.
fn permission(text: &str) -> Option<(&str, PermissionLevel)> {
    let (name, level) = text.split_once(':')?;
    let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let level = LEVELS.iter().find(|(text, _)| *text == level)?.1;
    named.then_some((name, level))
}

/// The base of the REST API at a target: https, or http for a server on this host.
pub fn is_api(target: &str) -> bool {
    WebUrl::parse(target).is_some()
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let app = section.required("app").and_then(|f| app(&f));
    let installation = section.required("installation").and_then(|f| id(&f));
    let field = section.required("grants");
    let grants = field.as_ref().and_then(grants);
    if let (Some(field), Some(grants), Some(scopes)) = (&field, &grants, around.scopes) {
        if let Some(grant) = grants.iter().find(|g| scopes.iter().all(|s| s.name != g.scope)) {
            return field
                .wrong(format!("has scope {:?}, which is not in scopes", grant.scope), "add it to scopes, or correct it");
        }
        for scope in scopes {
            if grants.iter().all(|g| g.scope != scope.name) {
                return field.wrong(format!("has nothing for scope {:?}", scope.name), "add an entry of it, or remove the scope");
            }
            if let Err(why) = TokenRights::of(grants, std::slice::from_ref(&scope.name)) {
                return field.wrong(format!("cannot be granted by scope {:?}: {why}", scope.name), "divide the scope");
            }
        }
    }
    if let (Some(target), Some(field)) = (around.target.filter(|target| !is_api(target)), &field) {
        return field.wrong(
            format!("cannot be granted at target {target}"),
            "target = \"https://api.github.com\", or \"https://HOST/api/v3\" for GitHub Enterprise Server",
        );
    }
    if let (Some(name), Some(field)) = (around.name.filter(|name| !is_file_name(name)), &field) {
        return field
            .wrong(format!("needs a file for upstream {name}, whose name has a slash"), "give it a name without slashes");
    }
    let settings = GithubSettings { app: app?, installation: installation?, grants: grants? };
    serde_json::to_value(settings).ok()
}

/// A client ID or an app ID.
fn app(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    match text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') {
        true => Some(text),
        false => {
            field.wrong(format!("is {text:?}"), "the client ID of the app, like \"Iv23li…\", or its app ID, like \"123456\"")
        }
    }
}

/// An id of GitHub. Integers of TOML have 63 bits.
fn id(field: &Field<'_>) -> Option<u64> {
    field.integer(1, i64::MAX.unsigned_abs())
}

fn grants(field: &Field<'_>) -> Option<Vec<RepositoryGrant>> {
    let entries = field.list(limits::GITHUB_GRANTS)?;
    if entries.is_empty() {
        return field.wrong("is empty", "say what each scope grants");
    }
    let all: Vec<Option<RepositoryGrant>> = entries.iter().map(|entry| entry.inside(grant)).collect();
    all.into_iter().collect()
}

fn grant(section: &Section<'_>) -> Option<RepositoryGrant> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let permissions = section.required("permissions").and_then(|f| {
        each(&f, 1, |f| {
            let text = f.text(limits::NAME_BYTES)?;
            match permission(&text) {
                Some(_) => Some(text),
                None => f.wrong(format!("is {text:?}"), "a permission and its level, like contents:read, pull_requests:write"),
            }
        })
    });
    let all = section.optional("all_repositories");
    let all_repositories = all.as_ref().map_or(Some(false), Field::boolean);
    let repositories = match (section.optional("repositories"), all_repositories) {
        (Some(field), Some(true)) => field.wrong("is given beside all_repositories", "leave one of them out"),
        (Some(field), _) => repositories(&field),
        (None, Some(true)) => Some(Vec::new()),
        (None, _) => section.required("repositories").and(None),
    };
    Some(RepositoryGrant {
        scope: scope?,
        permissions: permissions?,
        repositories: repositories?,
        all_repositories: all_repositories?,
    })
}

fn repositories(field: &Field<'_>) -> Option<Vec<GrantedRepository>> {
    let entries = field.list(limits::GITHUB_REPOSITORIES)?;
    if entries.is_empty() {
        return field.wrong("is empty", "name at least one repository, or all_repositories = true");
    }
    let mut all: Vec<GrantedRepository> = Vec::new();
    for entry in &entries {
        let one = entry.inside(|section| {
            let id = section.required("id").and_then(|f| id(&f));
            let name = section.required("name").and_then(|f| repository_name(&f));
            Some(GrantedRepository { id: id?, name: name? })
        })?;
        if all.iter().any(|other| other.id == one.id) {
            return entry.wrong(format!("has id {} for the second time", one.id), "name each repository once");
        }
        all.push(one);
    }
    Some(all)
}

fn repository_name(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
    };
    match text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name)) {
        true => Some(text),
        false => field.wrong(format!("is {text:?}"), "OWNER/NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::{each_is_told, parse};
    use mayfly_ledger::upstream::registry::Upstream;

    const WHOLE: &str = include_str!("template.toml");

    fn settings(upstream: &Upstream) -> GithubSettings {
        serde_json::from_value(upstream.settings.of("github").unwrap().clone()).unwrap()
    }

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        let upstream = parse(WHOLE).unwrap();
        assert_eq!((settings(&upstream).installation, settings(&upstream).grants.len()), (12_345_678, 2));
        assert_eq!(Upstream::from_text(&upstream.to_text()).unwrap(), upstream);
        // The wire carries the JSON, which becomes a section again.
        let mut table: toml::Table = toml::from_str(WHOLE).unwrap();
        table.insert("github".to_owned(), toml::Value::try_from(upstream.settings.of("github").unwrap()).unwrap());
        assert_eq!(parse(&toml::to_string(&table).unwrap()).unwrap(), upstream);
        let all = WHOLE.replace("repositories = [{ id = 1296269, name = \"octo-org/site\" }]", "all_repositories = true");
        let upstream = parse(&all).unwrap();
        assert_eq!(Upstream::from_text(&upstream.to_text()).unwrap(), upstream);
        assert!(settings(&upstream).grants.iter().all(|grant| grant.all_repositories && grant.repositories.is_empty()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        each_is_told(
            WHOLE,
            &[
                ("app = \"Iv23liAbCdEfGhIjKlMn\"", "", "lacks github.app"),
                ("app = \"Iv23liAbCdEfGhIjKlMn\"", "app = \"a b\"", "the client ID of the app"),
                ("installation = 12345678", "installation = 0", "github.installation"),
                ("installation = 12345678", "instalation = 12345678", "did you mean installation?"),
                ("\"contents:read\"", "\"contents\"", "permissions[0]"),
                ("\"contents:read\"", "\"contents:owner\"", "like contents:read"),
                ("\"contents:read\"", "\"Contents:read\"", "like contents:read"),
                ("id = 1296269", "id = -1", "repositories[0].id"),
                ("name = \"octo-org/site\"", "name = \"site\"", "OWNER/NAME"),
                ("name = \"octo-org/site\"", "name = \"a/../b\"", "OWNER/NAME"),
                ("repositories = [{ id = 1296269, name = \"octo-org/site\" }]", "", "repositories"),
                ("repositories = [{ id = 1296269, name = \"octo-org/site\" }]", "repositories = []", "all_repositories = true"),
                ("repositories = [{ id", "all_repositories = true\nrepositories = [{ id", "beside all_repositories"),
                ("scope = \"site:write\"", "scope = \"site:erase\"", "which is not in scopes"),
                ("target = \"https://api.github.com\"", "target = \"http://api.github.com\"", "https://HOST/api/v3"),
                ("name = \"site\"", "name = \"team/site\"", "without slashes"),
                ("kinds = [\"github\"]", "kinds = [\"jwt\"]", "github is for kind github"),
            ],
        );
    }

    fn entry(scope: &str, repositories: &[u64], permissions: &[&str]) -> RepositoryGrant {
        RepositoryGrant {
            scope: scope.to_owned(),
            permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
            repositories: repositories.iter().map(|id| GrantedRepository { id: *id, name: format!("o/r{id}") }).collect(),
            all_repositories: repositories.is_empty(),
        }
    }

    #[test]
    fn details_narrow_a_token_to_repositories_and_permissions_and_never_widen_it() {
        let settings = GithubSettings {
            app: "1".to_owned(),
            installation: 1,
            grants: vec![entry("some", &[1, 2], &["contents:write", "issues:read"]), entry("all", &[], &["contents:write"])],
        };
        let rights = |scope: &str, details: &str| settings.rights(&[scope.to_owned()], details);
        let part = rights("some", r#"[{"type":"github","repositories":[2],"permissions":{"contents":"read"}}]"#).unwrap();
        assert_eq!(part.ids(), Some(BTreeSet::from([2])));
        assert_eq!(part.permissions, BTreeMap::from([("contents".to_owned(), PermissionLevel::Read)]));
        let part = rights("some", r#"[{"type":"github","repositories":[1]}]"#).unwrap();
        assert_eq!((part.ids(), part.permissions.len()), (Some(BTreeSet::from([1])), 2));
        assert_eq!(rights("all", r#"[{"type":"github","repositories":[9]}]"#).unwrap().ids(), Some(BTreeSet::from([9])));
        assert_eq!(rights("some", "").unwrap(), TokenRights::of(&settings.grants, &["some".to_owned()]).unwrap());
        for (details, field) in [
            (r#"{"type":"github","repositories":[1,3]}"#, ".repositories[1]"),
            (r#"{"type":"github","repositories":[]}"#, ".repositories"),
            (r#"{"type":"github","permissions":{"contents":"admin"}}"#, ".permissions.contents"),
            (r#"{"type":"github","permissions":{"issues":"write"}}"#, ".permissions.issues"),
            (r#"{"type":"github","permissions":{"actions":"read"}}"#, ".permissions.actions"),
            (r#"{"type":"github","permissions":{}}"#, ".permissions"),
            (r#"{"type":"github"}"#, ""),
            (r#"{"type":"github","repository":[1]}"#, ""),
            (r#"{"type":"postgres","repositories":[1]}"#, ".type"),
            (r#"{"repositories":[1]}"#, ".type"),
        ] {
            let Err(AccessError::Details { field: at, what }) = rights("some", &format!("[{details}]")) else {
                panic!("{details}")
            };
            assert_eq!(at, format!("authorization_details[0]{field}"), "{details}: {what}");
        }
    }

    #[test]
    fn a_token_has_exactly_what_its_scopes_grant_or_is_refused() {
        let grants = [
            entry("one", &[1], &["contents:read", "issues:write"]),
            entry("more", &[1], &["contents:write"]),
            entry("two", &[2], &["contents:read", "issues:write"]),
            entry("other", &[2], &["contents:write"]),
            entry("all", &[], &["contents:read"]),
            entry("all-write", &[], &["contents:write", "issues:write"]),
        ];
        let rights = |scopes: &[&str]| {
            TokenRights::of(&grants, &scopes.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).map(|rights| {
                let permissions = rights.permissions.iter().map(|(name, level)| format!("{name}:{}", level.as_str()));
                (rights.ids().map(|ids| ids.into_iter().collect::<Vec<_>>()), permissions.collect::<Vec<_>>().join(" "))
            })
        };
        assert_eq!(rights(&["one"]).unwrap(), (Some(vec![1]), "contents:read issues:write".to_owned()));
        assert_eq!(
            rights(&["one", "more"]).unwrap(),
            (Some(vec![1]), "contents:write issues:write".to_owned()),
            "the higher level"
        );
        assert_eq!(rights(&["one", "two"]).unwrap(), (Some(vec![1, 2]), "contents:read issues:write".to_owned()));
        assert_eq!(rights(&["all-write", "one"]).unwrap(), (None, "contents:write issues:write".to_owned()));
        for wider in [&["one", "other"][..], &["more", "two"], &["all", "more"], &["all", "one"]] {
            let no = rights(wider).unwrap_err();
            assert!(no.contains("would grant more in"), "{no}");
        }
        assert!(rights(&["one", "none"]).unwrap_err().contains("grants nothing for scope \"none\""));
        let many: Vec<u64> = (1..=limits::GITHUB_REPOSITORIES as u64 + 1).collect();
        let two = [entry("a", &many[..50], &["contents:read"]), entry("b", &many[50..], &["contents:read"])];
        assert!(TokenRights::of(&two, &["a".to_owned(), "b".to_owned()]).unwrap_err().contains("at most"));
    }
}
