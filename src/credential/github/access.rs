//! The access that an installation token gives.

use super::settings::{GithubSettings, PermissionLevel, TokenRights};
use mayfly_base::document::url::WebUrl;
use mayfly_ledger::upstream::access::{AccessLevel, AccessQuery, GrantedAccess};

/// The access of a token with the rights of the scopes: the same rights that are asked of GitHub, which is compared with its answer.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, String> {
    let settings: GithubSettings = serde_json::from_value(query.section().clone())
        .map_err(|e| format!("the section [github] of the registration of {}: {e}", query.upstream.name))?;
    let rights = TokenRights::of(&settings.grants, query.scopes)?;
    let mut access =
        GrantedAccess { host: WebUrl::parse(&query.upstream.target).map(|url| url.authority()), ..GrantedAccess::default() };
    access.all_repositories = rights.repositories.is_none();
    for (id, name) in rights.repositories.into_iter().flatten() {
        access.repositories.insert(id.to_string());
        access.repository_names.insert(name);
    }
    for (name, level) in rights.permissions {
        let included = [PermissionLevel::Read, PermissionLevel::Write, PermissionLevel::Admin];
        let included = included.into_iter().filter(|one| *one <= level);
        access.permissions.extend(included.map(|level| format!("{name}:{}", level.as_str())));
        access.levels.insert(match level {
            PermissionLevel::Read => AccessLevel::Read,
            PermissionLevel::Write => AccessLevel::Write,
            PermissionLevel::Admin => AccessLevel::Manage,
        });
    }
    Ok(access)
}
