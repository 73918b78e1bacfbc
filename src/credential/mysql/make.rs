//! Making a user with exactly what the scopes grant.
//!
//! MySQL commits each of these statements by itself. So the user is created locked, gets its privileges, and is unlocked by the last
//! statement: before that, nobody can log in as it. Whatever goes wrong before drops the user.
//!
//! Names in statements are of closed alphabets: the account is derived from ids, its host and the names of objects are checked by
//! [`super::settings`], and the verifier has characters of its hash only. Names of objects are quoted besides.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::problem::MyProblem;
use super::session::{Dialect, MySession};
use super::settings::{MysqlSettings, PrivilegeGrant};
use super::undo::prepared;
use super::verifier;
use crate::database::problem::NotMade;

/// A user to be made.
pub struct NewMysqlUser<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The user's password. Only its verifier is sent.
    pub password: &'a str,
    /// Random bytes, for the salt of the verifier.
    pub random: [u8; 16],
    /// Days after which the password is no longer accepted: the server counts in whole days.
    pub days: u64,
}

/// The privileges of mayfly's own account on the whole server.
const OWN_PRIVILEGES: &str = "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = ?";

/// Whether mayfly's own account has a privilege on a database.
const HAS_PRIVILEGE: &str = "SELECT COUNT(*) FROM (SELECT PRIVILEGE_TYPE AS privilege, '%' AS pattern FROM information_schema.USER_PRIVILEGES \
     WHERE GRANTEE = ? UNION ALL SELECT PRIVILEGE_TYPE, TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES WHERE GRANTEE = ?) AS own \
     WHERE privilege = ? AND ? LIKE pattern";

const DATABASE: &str = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?";

/// Users of a name. mayfly's account has this privilege on the two columns only.
pub const USERS: &str = "SELECT COUNT(*) FROM mysql.user WHERE User = ? AND Host = ?";

/// The lock that a session holds while it makes a user. Undoing ends the session that holds it, so that no statement of making comes later.
const LOCK: &str = "SELECT GET_LOCK(?, 0)";

/// An identifier in quotes. Within them, only the quote itself has a meaning.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Makes the user. Either it exists afterwards with all that the scopes grant, or there is none.
pub async fn make(
    session: &mut MySession,
    settings: &MysqlSettings,
    scopes: &[String],
    user: &NewMysqlUser<'_>,
) -> Result<(), NotMade<u16>> {
    let grants = settings.granted(scopes).map_err(|no| MyProblem::new("reading the registration", no))?;
    can_undo(session, &grants).await?;
    can_see_users(session, user.name, &settings.from_host).await?;
    // Undoing looks for prepared transactions.
    prepared(session).await?;
    let account = format!("'{}'@'{}'", user.name, account_host(&settings.from_host));
    if session.number("taking the lock of the user", LOCK, (user.name,)).await? != Some(1) {
        return Err(MyProblem::new("taking the lock of the user", "another session makes the same user").into());
    }
    let create = create(session.dialect, settings, &account, user);
    let own = session.shown_account();
    session.run("creating a user", &create).await.map_err(|problem| {
        let unknown = !problem.is_answer();
        NotMade { problem: problem.lacking(|| format!("GRANT CREATE USER ON *.* TO {own}")), unknown }
    })?;
    let granted = grant_all(session, &grants, &account).await;
    let unlocked = match granted {
        Ok(()) => session.run("unlocking the user", &format!("ALTER USER {account} ACCOUNT UNLOCK")).await,
        Err(problem) => Err(problem),
    };
    match unlocked {
        Ok(()) => Ok(()),
        // Without an answer, a statement may still be carried out. The user is undone like any other.
        Err(problem) if !problem.is_answer() => Err(NotMade { problem, unknown: true }),
        Err(problem) => {
            let dropped = session.run("dropping the user", &format!("DROP USER IF EXISTS {account}")).await;
            Err(NotMade { problem, unknown: dropped.is_err() })
        }
    }
}

/// A user is not made that mayfly could not undo completely: without these privileges it would not see the user's sessions, or could not end
/// them, or could not drop what the user made.
async fn can_undo(session: &mut MySession, grants: &[&PrivilegeGrant]) -> Result<(), MyProblem> {
    let step = "looking at mayfly's own privileges";
    let own = session.shown_account();
    let rows: Vec<(String,)> = session.rows(step, OWN_PRIVILEGES, (own.as_str(),)).await?;
    let has = |privilege: &str| rows.iter().any(|row| row.0 == privilege);
    let ends_sessions = match session.dialect {
        Dialect::MariaDb => "CONNECTION ADMIN",
        Dialect::MySql => "CONNECTION_ADMIN",
    };
    let lacking = |privilege: &str, why: &str| {
        let said = format!("{own} lacks {privilege}, without which mayfly cannot {why}");
        MyProblem::new(step, said).mended_by(format!("GRANT {privilege} ON *.* TO {own}"))
    };
    if !has("CREATE USER") {
        return Err(lacking("CREATE USER", "create and drop users"));
    }
    if !has("PROCESS") {
        return Err(lacking("PROCESS", "see the sessions of a credential"));
    }
    if !has(ends_sessions) && !has("SUPER") {
        return Err(lacking(ends_sessions, "end the sessions of a credential"));
    }
    for (database, privilege) in to_drop(grants) {
        let found = session.number(step, HAS_PRIVILEGE, (own.as_str(), own.as_str(), privilege, database)).await?;
        if found.unwrap_or(0) == 0 {
            let said =
                format!("{own} lacks {privilege} on {database}, without which mayfly cannot drop what a credential makes there");
            return Err(MyProblem::new(step, said).mended_by(permission(privilege, "", &pattern(database), &own)));
        }
    }
    let databases: BTreeSet<&str> = grants.iter().flat_map(|grant| grant.databases()).collect();
    for database in databases {
        if session.number(step, DATABASE, (database,)).await?.unwrap_or(0) == 0 {
            let said = format!("there is no database {database}, or {own} has no privilege there");
            return Err(
                MyProblem::new(step, said).mended_by("correct the names in the registration, or create the database".to_owned())
            );
        }
    }
    Ok(())
}

/// The databases in which these grants let stored objects be made, with the privilege that drops them. A privilege on a table suffices for its
/// triggers, and mayfly has to have it to grant it.
fn to_drop<'g>(grants: &[&'g PrivilegeGrant]) -> BTreeSet<(&'g str, &'static str)> {
    let mut all = BTreeSet::new();
    for grant in grants {
        for privilege in grant.dropped_by().filter(|privilege| *privilege != "TRIGGER") {
            all.extend(grant.databases().into_iter().map(|database| (database, privilege)));
        }
    }
    all
}

/// Whether mayfly can look whether a user exists. Without that, no lease could be closed.
async fn can_see_users(session: &mut MySession, name: &str, host: &str) -> Result<(), MyProblem> {
    users(session, name, host).await.map(|_| ())
}

/// The host of an account, as the server keeps it: in lower case.
pub fn account_host(host: &str) -> String {
    host.to_ascii_lowercase()
}

/// How many accounts there are of this name and host.
pub async fn users(session: &mut MySession, name: &str, host: &str) -> Result<u64, MyProblem> {
    let own = session.shown_account();
    let found = session.number("looking for the user", USERS, (name, account_host(host))).await;
    let found = found.map_err(|p| p.lacking(|| format!("GRANT SELECT (User, Host) ON mysql.user TO {own}")))?;
    found.ok_or_else(|| MyProblem::new("looking for the user", "the server gave no answer"))
}

fn create(dialect: Dialect, settings: &MysqlSettings, account: &str, user: &NewMysqlUser<'_>) -> Zeroizing<String> {
    let usual = match dialect {
        Dialect::MariaDb => "mysql_native_password",
        Dialect::MySql => "caching_sha2_password",
    };
    let plugin = settings.authentication.as_deref().unwrap_or(usual);
    let verifier = match plugin {
        "caching_sha2_password" => verifier::caching_sha2(user.password, user.random),
        _ => verifier::native(user.password),
    };
    let tls = if settings.plaintext { "NONE" } else { "SSL" };
    Zeroizing::new(format!(
        "CREATE USER {account} IDENTIFIED WITH {plugin} AS '{}' REQUIRE {tls} WITH MAX_USER_CONNECTIONS {} \
         PASSWORD EXPIRE INTERVAL {} DAY ACCOUNT LOCK",
        *verifier, settings.connection_limit, user.days
    ))
}

async fn grant_all(session: &mut MySession, grants: &[&PrivilegeGrant], account: &str) -> Result<(), MyProblem> {
    let own = session.shown_account();
    for grant in grants {
        let sort = grant.sort().ok_or_else(|| MyProblem::new("granting", format!("unknown sort {:?}", grant.on)))?;
        let privileges = grant.privileges.join(", ");
        for name in &grant.names {
            let object = match name.split_once('.') {
                Some((database, name)) => format!("{}.{}", quoted(database), quoted(name)),
                None => pattern(name),
            };
            let granted = session.run("granting", &format!("GRANT {privileges} ON {}{object} TO {account}", sort.word)).await;
            granted.map_err(|p| p.lacking(|| permission(&privileges, sort.word, &object, &own)))?;
        }
    }
    Ok(())
}

/// A whole database in a grant. There, `_` and `%` of a name are patterns unless they are escaped.
fn pattern(database: &str) -> String {
    format!("{}.*", quoted(&database.replace('_', "\\_")))
}

/// The statement by which mayfly's account may grant something.
fn permission(privileges: &str, word: &str, object: &str, own: &str) -> String {
    format!("GRANT {privileges} ON {word}{object} TO {own} WITH GRANT OPTION")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_patterns_escaped() {
        assert_eq!(quoted("a`b``c; DROP TABLE x"), "`a``b````c; DROP TABLE x`");
        assert_eq!(pattern("team_orders"), "`team\\_orders`.*");
    }
}
