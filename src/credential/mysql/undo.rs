//! Undoing a user: the session that makes it is ended, no login any more, its sessions ended, the stored objects that it made dropped, the
//! user dropped, what is left of its sessions ended, and the absence of all of them looked up.
//!
//! A transaction that a session prepared (`XA PREPARE`) outlives the session and the user, and any user may commit it. The server does not say
//! whose it is. So a lease does not close while a transaction stays prepared: an operator ends it, and sees which.
//!
//! Each step can be repeated, and each attempt begins with the first: an attempt that was interrupted, or that runs beside another
//! replica's, does no harm. A user that does not exist is undone.

use std::time::Duration;

use super::make::{account_host, quoted, users};
use super::problem::{CANNOT_USER, MyProblem, NO_SUCH_THREAD};
use super::session::MySession;
use super::settings::MysqlTerms;
use mayfly_base::limits;

/// The session that makes the user, if there is one.
const MAKER: &str = "SELECT IS_USED_LOCK(?)";

/// Whether a session is one of mayfly's own.
const IS_OURS: &str = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = ? AND USER = ?";

const SESSIONS: &str = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ?";

/// The stored objects of one database that act for a user: their sort in a statement, and their name.
const OBJECTS: [(&str, &str); 4] = [
    // Events first: they run by themselves, also while the account is locked.
    ("EVENT", "SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = ? AND DEFINER = ?"),
    ("TRIGGER", "SELECT 'TRIGGER', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = ? AND DEFINER = ?"),
    ("VIEW", "SELECT 'VIEW', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = ? AND DEFINER = ?"),
    ("ROUTINE", "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ? AND DEFINER = ?"),
];

/// A user to be undone.
pub struct OldMysqlUser<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The terms of its lease.
    pub terms: &'a MysqlTerms,
}

impl OldMysqlUser<'_> {
    fn account(&self) -> String {
        format!("'{}'@'{}'", self.name, account_host(&self.terms.from_host))
    }

    /// As the server writes the definer of an object.
    fn definer(&self) -> String {
        format!("{}@{}", self.name, account_host(&self.terms.from_host))
    }
}

/// Undoes a user.
///
/// The user is dropped before all of its sessions have ended: a session that rolls back a long transaction would hold that up, and events of the
/// user could begin new ones again and again, which they cannot without the user. What is left then is ended and dropped until nothing is.
pub async fn undo(session: &mut MySession, user: &OldMysqlUser<'_>) -> Result<(), MyProblem> {
    end_maker(session, user).await?;
    let account = user.account();
    if users(session, user.name, &user.terms.from_host).await? > 0 {
        let locked = session.run("ending the logins of the user", &format!("ALTER USER IF EXISTS {account} ACCOUNT LOCK")).await;
        gone(lacking(locked, session, "CREATE USER"))?;
    }
    for _ in 0..limits::MYSQL_SESSIONS_FIRST_LOOKS {
        if end_sessions(session, user.name).await? {
            break;
        }
    }
    drop_objects(session, user).await?;
    let dropped = session.run("dropping the user", &format!("DROP USER IF EXISTS {account}")).await;
    gone(lacking(dropped, session, "CREATE USER"))?;
    // A login that was under way when the account was locked is a session by now.
    for _ in 0..limits::MYSQL_SESSIONS_LOOKS {
        if end_sessions(session, user.name).await? {
            drop_objects(session, user).await?;
            return none_prepared(session).await;
        }
    }
    Err(not_ended("ending the sessions of the user", user.name))
}

/// Looks until each transaction that was prepared at the first look has ended: those of programs end within moments.
async fn none_prepared(session: &mut MySession) -> Result<(), MyProblem> {
    let mut first = prepared(session).await?;
    for _ in 0..limits::MYSQL_PREPARED_LOOKS {
        if first.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(limits::MYSQL_SESSIONS_LOOK_MS)).await;
        let now = prepared(session).await?;
        first.retain(|one| now.contains(one));
    }
    let Some(one) = first.first() else { return Ok(()) };
    let said = "a transaction stays prepared, perhaps one of the user, and any user may commit it";
    Err(MyProblem::new(PREPARED, said)
        .mended_by(format!("XA ROLLBACK {one}, or XA COMMIT {one} if a program of yours has prepared it")))
}

const PREPARED: &str = "looking for prepared transactions";

/// The transactions that are prepared, as statements name them.
pub async fn prepared(session: &mut MySession) -> Result<Vec<String>, MyProblem> {
    let found = session.text_rows::<(i64, usize, usize, Vec<u8>)>(PREPARED, "XA RECOVER").await;
    // MySQL has a privilege for it, MariaDB none.
    let found = lacking(found, session, "XA_RECOVER_ADMIN")?;
    let hex = |bytes: &[u8]| format!("X'{}'", data_encoding::HEXUPPER.encode(bytes));
    let name = |(format, global, branch, data): (i64, usize, usize, Vec<u8>)| {
        let (global, rest) = data.split_at_checked(global)?;
        let branch = rest.get(..branch)?;
        Some(format!("{},{},{format}", hex(global), hex(branch)))
    };
    let named: Option<Vec<String>> = found.into_iter().map(name).collect();
    named.ok_or_else(|| MyProblem::new(PREPARED, "the server's list of them cannot be read"))
}

/// Whether neither the user, nor a session of it, nor an object that acts for it exists.
pub async fn is_gone(session: &mut MySession, user: &OldMysqlUser<'_>) -> Result<bool, MyProblem> {
    if users(session, user.name, &user.terms.from_host).await? > 0 {
        return Ok(false);
    }
    let open: Vec<(u64,)> = session.rows("looking for the sessions of the user", SESSIONS, (user.name,)).await?;
    Ok(open.is_empty() && objects(session, user).await?.is_empty())
}

fn lacking<T>(done: Result<T, MyProblem>, session: &MySession, privilege: &str) -> Result<T, MyProblem> {
    done.map_err(|p| p.lacking(|| format!("GRANT {privilege} ON *.* TO {}", session.shown_account())))
}

/// Another replica has dropped the user.
fn gone(done: Result<(), MyProblem>) -> Result<(), MyProblem> {
    match done {
        Err(problem) if problem.is(CANNOT_USER) => Ok(()),
        done => done,
    }
}

/// Ends the session that makes the user. Afterwards none of its statements is carried out any more: each was sent after the answer to the one
/// before, and the first took the lock. A session of anybody else makes no user, whatever locks it takes.
async fn end_maker(session: &mut MySession, user: &OldMysqlUser<'_>) -> Result<(), MyProblem> {
    let step = "ending the session that makes the user";
    for _ in 0..limits::MYSQL_SESSIONS_LOOKS {
        let Some(id) = session.number(step, MAKER, (user.name,)).await? else { return Ok(()) };
        let ours = session.number(step, IS_OURS, (id, user.terms.admin.as_str())).await?;
        if ours.unwrap_or(0) == 0 {
            return Ok(());
        }
        kill(session, step, id).await?;
        tokio::time::sleep(Duration::from_millis(limits::MYSQL_SESSIONS_LOOK_MS)).await;
    }
    Err(not_ended(step, user.name))
}

/// Ends the sessions of a user, and waits a little if there were any. Whether there were none.
async fn end_sessions(session: &mut MySession, name: &str) -> Result<bool, MyProblem> {
    let step = "ending the sessions of the user";
    let found: Vec<(u64,)> = session.rows(step, SESSIONS, (name,)).await?;
    for (id,) in &found {
        kill(session, step, *id).await?;
    }
    if !found.is_empty() {
        tokio::time::sleep(Duration::from_millis(limits::MYSQL_SESSIONS_LOOK_MS)).await;
    }
    Ok(found.is_empty())
}

fn not_ended(step: &'static str, name: &str) -> MyProblem {
    let ms = limits::MYSQL_SESSIONS_LOOK_MS * u64::from(limits::MYSQL_SESSIONS_LOOKS);
    MyProblem::new(step, format!("a session of {name} has not ended after {ms} ms"))
}

async fn kill(session: &mut MySession, step: &'static str, id: u64) -> Result<(), MyProblem> {
    match session.run(step, &format!("KILL CONNECTION {id}")).await {
        Err(problem) if problem.is(NO_SUCH_THREAD) => Ok(()),
        done => {
            let name = match session.dialect {
                super::session::Dialect::MariaDb => "CONNECTION ADMIN",
                super::session::Dialect::MySql => "CONNECTION_ADMIN",
            };
            lacking(done, session, name)
        }
    }
}

/// An object that acts for the user: its database, its sort in a statement, and its name.
type StoredObject = (String, String, String);

async fn objects(session: &mut MySession, user: &OldMysqlUser<'_>) -> Result<Vec<StoredObject>, MyProblem> {
    let (mut all, definer) = (Vec::new(), user.definer());
    for (_, query) in OBJECTS {
        for database in &user.terms.object_databases {
            let step = "looking for what the user made";
            let found: Vec<(String, String)> = session.rows(step, query, (database.as_str(), definer.as_str())).await?;
            all.extend(found.into_iter().map(|(sort, name)| (database.clone(), sort, name)));
        }
    }
    Ok(all)
}

async fn drop_objects(session: &mut MySession, user: &OldMysqlUser<'_>) -> Result<(), MyProblem> {
    let step = "dropping what the user made";
    for (database, sort, name) in objects(session, user).await?.into_iter().take(limits::MYSQL_OBJECTS) {
        let (word, privilege) = match sort.as_str() {
            "EVENT" => ("EVENT", "EVENT"),
            "TRIGGER" => ("TRIGGER", "TRIGGER"),
            "VIEW" => ("VIEW", "DROP"),
            "PROCEDURE" => ("PROCEDURE", "ALTER ROUTINE"),
            "FUNCTION" => ("FUNCTION", "ALTER ROUTINE"),
            "PACKAGE" => ("PACKAGE", "ALTER ROUTINE"),
            "PACKAGE BODY" => ("PACKAGE BODY", "ALTER ROUTINE"),
            other => return Err(MyProblem::new(step, format!("{other} {name} in {database} is of an unknown sort"))),
        };
        let done = session.run(step, &format!("DROP {word} IF EXISTS {}.{}", quoted(&database), quoted(&name))).await;
        let own = session.shown_account();
        done.map_err(|p| p.lacking(|| format!("GRANT {privilege} ON {}.* TO {own}", quoted(&database))))?;
    }
    Ok(())
}
