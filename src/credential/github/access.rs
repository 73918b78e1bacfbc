//! The access that an installation token gives.

use super::settings::{GithubSettings, PermissionLevel};
use mayfly_base::document::url::WebUrl;
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// The access of a token with the rights of the scopes: the same rights that are asked of GitHub, which is compared with its answer.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    let settings: GithubSettings = query.settings()?;
    let rights = settings.rights(query.scopes, query.details)?;
    let mut access =
        GrantedAccess { host: WebUrl::parse(&query.upstream.target).map(|url| url.authority()), ..GrantedAccess::default() };
    access.all_repositories = rights.repositories.is_none();
    for (id, name) in rights.repositories.into_iter().flatten() {
        access.repositories.insert(id.to_string());
        // A repository that was asked for by its id alone, of all of the installation, has no name here.
        access.repository_names.extend(Some(name).filter(|name| !name.is_empty()));
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
