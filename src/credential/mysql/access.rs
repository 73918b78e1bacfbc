//! The access that a user of a credential has.

use super::settings::{MysqlSettings, place};
use crate::database::access::{add, at};
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// The access that the grants of the scopes give. What the server gives to everybody is not in it.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    let settings: MysqlSettings = query.settings()?;
    let mut access = at(query, place)?;
    for grant in settings.granted(query.scopes)? {
        add(&mut access, &grant.on, &grant.privileges, &grant.names, level);
    }
    Ok(access)
}

/// The level of access that a privilege gives.
fn level(_: &str, privilege: &str) -> Option<AccessLevel> {
    Some(match privilege {
        "SELECT" | "SHOW VIEW" => AccessLevel::Read,
        // A locked table cannot be written by others. Temporary tables take room on the server.
        "INSERT" | "UPDATE" | "DELETE" | "LOCK TABLES" | "CREATE TEMPORARY TABLES" => AccessLevel::Write,
        "EXECUTE" => AccessLevel::Execute,
        "CREATE" | "DROP" | "ALTER" | "INDEX" | "REFERENCES" | "TRIGGER" | "CREATE VIEW" | "CREATE ROUTINE" | "ALTER ROUTINE"
        | "EVENT" => AccessLevel::Manage,
        _ => AccessLevel::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::settings::SORTS;

    #[test]
    fn each_privilege_that_a_registration_may_have_has_a_level() {
        let all: Vec<&str> = SORTS.iter().flat_map(|sort| sort.privileges).copied().collect();
        assert!(all.iter().all(|privilege| level("", privilege) != Some(AccessLevel::Unknown)));
        let mut reads: Vec<&str> = all.into_iter().filter(|privilege| level("", privilege) == Some(AccessLevel::Read)).collect();
        reads.sort_unstable();
        reads.dedup();
        assert_eq!(reads, ["SELECT", "SHOW VIEW"]);
    }
}
