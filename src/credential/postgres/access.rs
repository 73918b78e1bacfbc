//! The access that a role of a credential has.

use super::settings::{PostgresSettings, place};
use crate::database::access::{add, at};
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// The access that the grants of the scopes give. What PostgreSQL gives to everybody (`PUBLIC`) is not in it.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    let settings: PostgresSettings = query.settings()?;
    let mut access = at(query, place)?;
    for grant in settings.granted(query.scopes, query.details)? {
        if grant.on == "roles" {
            access.levels.extend(grant.names.iter().map(|role| of_role(role)));
            access.roles.extend(grant.names.iter().cloned());
        } else {
            add(&mut access, &grant.on, &grant.privileges, &grant.names, level);
        }
    }
    Ok(access)
}

/// The level of access of a member of a role. PostgreSQL itself defines these two; any other role may have every right.
fn of_role(role: &str) -> AccessLevel {
    match role {
        "pg_read_all_data" => AccessLevel::Read,
        "pg_write_all_data" => AccessLevel::Write,
        _ => AccessLevel::Unknown,
    }
}

/// The level of access that a privilege on a sort of objects gives; `None` if it only opens the way to other objects.
pub fn level(sort: &str, privilege: &str) -> Option<AccessLevel> {
    match (sort, privilege) {
        ("database", "CONNECT") | ("schemas", "USAGE") => None,
        (_, "SELECT") => Some(AccessLevel::Read),
        // `nextval` changes a sequence. Temporary tables take room on the server.
        (_, "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE")
        | ("sequences" | "all sequences in schemas", "USAGE")
        | (_, "TEMPORARY") => Some(AccessLevel::Write),
        (_, "EXECUTE") => Some(AccessLevel::Execute),
        (_, "CREATE" | "REFERENCES" | "TRIGGER") => Some(AccessLevel::Manage),
        _ => Some(AccessLevel::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::settings::SORTS;

    #[test]
    fn each_privilege_that_a_registration_may_have_has_a_level() {
        for sort in SORTS {
            for privilege in sort.privileges {
                assert_ne!(level(sort.on, privilege), Some(AccessLevel::Unknown), "{privilege} on {}", sort.on);
            }
        }
        let reads: Vec<(&str, &str)> = SORTS
            .iter()
            .flat_map(|sort| sort.privileges.iter().map(|privilege| (sort.on, *privilege)))
            .filter(|(sort, privilege)| level(sort, privilege).is_none_or(|level| level == AccessLevel::Read))
            .collect();
        let only = [
            ("tables", "SELECT"),
            ("all tables in schemas", "SELECT"),
            ("sequences", "SELECT"),
            ("all sequences in schemas", "SELECT"),
            ("schemas", "USAGE"),
            ("database", "CONNECT"),
        ];
        assert_eq!(reads, only, "nothing else counts as reading only");
        assert_eq!(of_role("app_reader"), AccessLevel::Unknown);
    }
}
