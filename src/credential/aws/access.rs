//! The access that a session gives.

use serde_json::Value;

use super::settings::AwsSettings;
use super::settings_of;
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// The access of a session with the session policy of the scopes, within what the role allows. mayfly does not know what an action of AWS
/// does, so the level is unknown.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    let settings: AwsSettings = settings_of(&query.upstream.settings)?;
    let policy = settings.policy(query.scopes)?;
    let policy: Value = serde_json::from_str(&policy).map_err(|e| format!("the session policy of the scopes: {e}"))?;
    let mut access =
        GrantedAccess { role_arn: Some(settings.role), audience: Some(settings.audience), ..GrantedAccess::default() };
    for statement in policy.get("Statement").and_then(Value::as_array).into_iter().flatten() {
        // A statement that denies takes rights away: what the others allow is an upper bound.
        if statement.get("Effect").and_then(Value::as_str) != Some("Allow") {
            continue;
        }
        access.levels.insert(AccessLevel::Unknown);
        let actions = texts(statement, "Action", "NotAction");
        let resources = texts(statement, "Resource", "NotResource");
        for action in &actions {
            access.grants.extend(resources.iter().map(|resource| format!("{action} on {resource}")));
        }
        access.privileges.extend(actions);
        access.objects.extend(resources);
    }
    Ok(access)
}

/// The texts under a key, or `not TEXT` for those under the key that excludes them.
fn texts(statement: &Value, key: &str, excluding: &str) -> Vec<String> {
    let list = |value: &Value| match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(one) => vec![one.clone()],
        _ => Vec::new(),
    };
    match (statement.get(key), statement.get(excluding)) {
        (Some(value), _) => list(value),
        (None, Some(value)) => list(value).iter().map(|text| format!("not {text}")).collect(),
        (None, None) => Vec::new(),
    }
}
