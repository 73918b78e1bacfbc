//! The access that a token of another authorization server gives.

use super::settings::OauthSettings;
use mayfly_base::document::url::WebUrl;
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// The access of a token: the scopes that are asked of the server, and those that it may add. mayfly does not know what a scope of another
/// server allows, so the level is unknown.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    let settings: OauthSettings = query.settings()?;
    let mut upstream_scopes: std::collections::BTreeSet<String> = settings.sent(query.scopes).into_iter().collect();
    upstream_scopes.extend(settings.also_granted);
    Ok(GrantedAccess {
        levels: [AccessLevel::Unknown].into(),
        host: WebUrl::parse(&query.upstream.target).map(|url| url.authority()),
        audience: settings.audience,
        resource: settings.resource,
        upstream_scopes,
        ..GrantedAccess::default()
    })
}
