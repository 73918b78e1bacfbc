//! The access that a stored secret gives.

use super::settings::SecretSettings;
use mayfly_base::document::url::WebUrl;
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// The secret itself: it has all of its rights at the vendor, whatever the scope, and mayfly does not know which.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    query.settings::<SecretSettings>()?;
    Ok(GrantedAccess {
        levels: [AccessLevel::Unknown].into(),
        host: WebUrl::parse(&query.upstream.target).map(|url| url.authority()),
        objects: [format!("secret {}", query.upstream.name)].into(),
        ..GrantedAccess::default()
    })
}
