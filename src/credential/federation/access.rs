//! The access that an assertion, or the token that a vendor gives for it, opens.

use super::settings_of;
use mayfly_base::document::url::WebUrl;
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// The audience of the assertion, and the vendor's scopes. The vendor's own configuration decides what they allow, so the level is unknown.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    let settings = settings_of(&query.upstream.settings)?;
    let mut access = GrantedAccess {
        levels: [AccessLevel::Unknown].into(),
        host: WebUrl::parse(&query.upstream.target).map(|url| url.authority()),
        audience: Some(settings.audience),
        ..GrantedAccess::default()
    };
    if let Some(exchange) = settings.exchange {
        access.upstream_scopes = exchange.sent(query.scopes).map(str::to_owned).collect();
        access.resource = exchange.resource;
    }
    Ok(access)
}
