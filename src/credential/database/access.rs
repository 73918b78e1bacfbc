//! The grants of scopes in the registration of a database, and the access that they give.

use crate::access::address::UpstreamAddress;
use mayfly_ledger::upstream::access::{AccessLevel, AccessQuery, GrantedAccess};

/// The entries of `grants` for some scopes. Refuses a scope that has none: the registration says nothing about it.
pub fn granted<'g, G>(grants: &'g [G], scopes: &[String], scope_of: impl Fn(&G) -> &str) -> Result<Vec<&'g G>, String> {
    let of = |grant: &G, scope: &String| scope_of(grant) == scope.as_str();
    if let Some(scope) = scopes.iter().find(|scope| grants.iter().all(|grant| !of(grant, scope))) {
        return Err(format!("the registration grants nothing for scope {scope:?}"));
    }
    Ok(grants.iter().filter(|grant| scopes.iter().any(|scope| of(grant, scope))).collect())
}

/// A privilege on an object, as policies read it and requests ask for it.
pub fn granted_on(privilege: &str, sort: &str, name: &str) -> String {
    format!("{privilege} on {sort} {name}").trim_end().to_owned()
}

/// The access to a database, without any right yet.
pub fn at(query: &AccessQuery<'_>, place: impl Fn(&str) -> Option<(UpstreamAddress, &str)>) -> Result<GrantedAccess, String> {
    let target = query.upstream.target.as_str();
    let (address, database) = place(target).ok_or_else(|| format!("{target} is no database"))?;
    let host = Some(format!("{}:{}", address.host, address.port));
    Ok(GrantedAccess { host, database: Some(database.to_owned()), ..GrantedAccess::default() })
}

/// Adds privileges on objects of a sort. `names`: empty for an object that needs no name.
pub fn add(
    access: &mut GrantedAccess,
    sort: &str,
    privileges: &[String],
    names: &[String],
    level: fn(&str, &str) -> Option<AccessLevel>,
) {
    let whole = [String::new()];
    for name in if names.is_empty() { &whole } else { names } {
        let object = format!("{sort} {name}").trim_end().to_owned();
        for privilege in privileges {
            access.levels.extend(level(sort, privilege));
            access.grants.insert(granted_on(privilege, sort, name));
            access.privileges.insert(privilege.clone());
        }
        access.objects.insert(object);
    }
}
