//! Undoing a role: no login any more, its sessions ended, what it owns reassigned or dropped in every database, the role dropped, and the
//! absence of both looked up.
//!
//! Objects that others would run with an heir's rights are dropped before the rest is given to the heir: a function may have the rights of its owner, and
//! a view reads with them, so a credential could otherwise leave itself the heir's rights.
//!
//! Each step can be repeated, and each attempt begins with the first: an attempt that was interrupted, or that runs beside another
//! replica's, does no harm. A role that does not exist is undone.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Oid, ToSql, Type};

use super::problem::{PgProblem, shown};
use super::session::PgSession;
use mayfly_base::limits;

const FIND: &str = "SELECT oid FROM pg_roles WHERE rolname = $1";

const NO_LOGIN: &str = "SELECT format('ALTER ROLE %I WITH NOLOGIN PASSWORD NULL', $1)";

/// Ends the sessions of a role, and lists those that there were.
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = $1";

/// The databases in which something depends on the role: objects that it owns, and privileges that it was granted. `pg_shdepend` is shared
/// by all databases of a server.
const DATABASES: &str = "SELECT DISTINCT datname::text FROM pg_shdepend JOIN pg_database ON pg_database.oid = dbid \
     WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1 AND datname <> current_database() ORDER BY 1";

/// Whether mayfly's role may act for the role: only then may it drop what the role owns.
const MAY_ACT: &str = "SELECT pg_has_role(current_user, $1, 'USAGE')";
const JOIN_ROLE: &str = "SELECT format('GRANT %I TO CURRENT_USER', $1)";

/// Takes the privileges on relations back one by one. `DROP OWNED` takes all of a relation's privileges back, those of its columns included,
/// and PostgreSQL refuses that to a role that has no privilege on the columns, for example with USAGE of a sequence only.
const REVOKE: &str = "SELECT string_agg(format('REVOKE %s ON %s %s FROM %I', privilege_type, \
     CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass, $1), '; ') \
     FROM pg_class, aclexplode(relacl) AS given WHERE given.grantee = $2 AND pg_has_role(current_user, given.grantor, 'USAGE')";

/// Drops some large objects of a role, and says how many.
const DROP_LARGE: &str =
    "SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata WHERE lomowner = $1 LIMIT $2) AS few";

/// Gives some large objects of a role to another.
const GIVE_LARGE: &str = "SELECT string_agg(format('ALTER LARGE OBJECT %s OWNER TO %I', oid, $3), '; ') \
     FROM (SELECT oid FROM pg_largeobject_metadata WHERE lomowner = $1 LIMIT $2) AS few";

/// Statements that drop what runs with the rights of its owner, or when others use the role's tables: for each, what depends comes first.
const ACTING: &str = "SELECT 1 AS place, format('DROP TRIGGER IF EXISTS %I ON %s', tgname, tgrelid::regclass) AS statement \
       FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE relowner = own AND NOT tgisinternal \
     UNION ALL SELECT 2, format('DROP RULE IF EXISTS %I ON %s', rulename, ev_class::regclass) \
       FROM pg_rewrite JOIN pg_class ON pg_class.oid = ev_class WHERE relowner = own AND rulename <> '_RETURN' \
     UNION ALL SELECT 3, format('DROP POLICY IF EXISTS %I ON %s', polname, polrelid::regclass) \
       FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid WHERE relowner = own \
     UNION ALL SELECT 4, format('DROP %s IF EXISTS %s', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, oid::regclass) \
       FROM pg_class WHERE relowner = own AND relkind IN ('v', 'm') \
     UNION ALL SELECT 5, format('DROP ROUTINE IF EXISTS %s', oid::regprocedure) FROM pg_proc WHERE proowner = own";

/// Statements that drop tables and sequences, of which there may be more than one transaction can drop.
const TABLES: &str = "SELECT 6 AS place, format('DROP %s IF EXISTS %s', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass) AS statement \
     FROM pg_class WHERE relowner = own AND relkind IN ('r', 'p', 'S')";

/// Writes a block that executes some of such statements. An object may be gone with another one by then. Where something depends on an object,
/// the next round comes back to it.
fn block(statements: &str) -> String {
    format!(
        "SELECT format('DO $mayfly$ DECLARE own oid := (SELECT oid FROM pg_roles WHERE rolname = %L); one text; BEGIN \
           FOR one IN SELECT statement FROM ({}) AS listed ORDER BY place LIMIT %s LOOP \
             BEGIN EXECUTE one; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END; \
           END LOOP; END $mayfly$', $1, $2::text)",
        statements.replace('%', "%%").replace('\'', "''")
    )
}

/// Counts them.
fn count(statements: &str) -> String {
    format!("SELECT count(*) FROM (SELECT $1::oid AS own) AS role, LATERAL ({statements}) AS listed")
}

const REASSIGN: &str = "SELECT format('REASSIGN OWNED BY %I TO %I', $1, $2)";
const DROP_OWNED: &str = "SELECT format('DROP OWNED BY %I', $1)";
const DROP: &str = "SELECT format('DROP ROLE IF EXISTS %I', $1)";

/// A transaction that was prepared by the role keeps what the role did, and cannot be ended by `pg_terminate_backend`.
const PREPARED: &str = "SELECT gid, database::text FROM pg_prepared_xacts WHERE owner = $1::name LIMIT 1";

const IS_THERE: &str =
    "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) OR EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1::name)";

/// A role to be undone.
pub struct OldRole<'a> {
    /// The role's name.
    pub name: &'a str,
    /// The role that gets what it owns. `None`: it is dropped.
    pub reassign_to: Option<&'a str>,
    /// The role that mayfly logs in as.
    pub admin: &'a str,
}

/// Undoes a role. `open` logs in to another database of the same server.
pub async fn undo<F>(session: &PgSession, role: &OldRole<'_>, open: impl Fn(String) -> F) -> Result<(), PgProblem>
where
    F: Future<Output = Result<PgSession, PgProblem>>,
{
    let by_name: [(&(dyn ToSql + Sync), Type); 1] = [(&role.name, Type::TEXT)];
    let Some(oid) = session.rows("looking for the role", FIND, &by_name).await?.first().map(|row| row.try_get::<_, Oid>(0))
    else {
        return Ok(());
    };
    let oid = oid.map_err(|e| PgProblem::of("looking for the role", &e))?;
    // A role that another replica has dropped meanwhile is undone.
    gone(session.formatted("ending the logins of the role", NO_LOGIN, &by_name).await)?;
    // As a member of the role, mayfly may end its sessions.
    act_for(session, oid, role).await?;
    end_sessions(session, oid, role).await?;
    prepared(session, role).await?;
    let others = session.rows("looking for what the role owns", DATABASES, &[(&oid, Type::OID)]).await?;
    for row in others.iter().take(limits::POSTGRES_DATABASES) {
        let database: String = row.try_get(0).map_err(|e| PgProblem::of("looking for what the role owns", &e))?;
        let there = open(database).await?;
        clear(&there, oid, role).await?;
        there.close().await;
    }
    clear(session, oid, role).await?;
    session.run("dropping the role", "BEGIN").await?;
    session.formatted("dropping the role", DROP, &by_name).await.map_err(|p| {
        match p.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) {
            true => {
                p.mended_by(format!("as an administrator, in the database that is named: DROP OWNED BY {}", shown(role.name)))
            }
            false => p,
        }
    })?;
    // A login that was under way when logins were ended is a session by now. It is ended before the role's number is forgotten.
    end_sessions(session, oid, role).await?;
    session.run("dropping the role", "COMMIT").await
}

/// Whether neither the role nor a session of it exists.
pub async fn is_gone(session: &PgSession, name: &str) -> Result<bool, PgProblem> {
    let rows = session.rows("looking for the role", IS_THERE, &[(&name, Type::TEXT)]).await?;
    let there = rows.first().map(|row| row.try_get::<_, bool>(0));
    match there {
        Some(Ok(there)) => Ok(!there),
        _ => Err(PgProblem::new("looking for the role", "the server gave no answer")),
    }
}

fn gone(done: Result<(), PgProblem>) -> Result<(), PgProblem> {
    match done {
        Err(problem) if problem.is(&SqlState::UNDEFINED_OBJECT) => Ok(()),
        done => done,
    }
}

async fn end_sessions(session: &PgSession, oid: Oid, role: &OldRole<'_>) -> Result<(), PgProblem> {
    let step = "ending the sessions of the role";
    for _ in 0..limits::POSTGRES_SESSIONS_LOOKS {
        let found = session.rows(step, END_SESSIONS, &[(&oid, Type::OID)]).await;
        let found = found.map_err(|p| p.lacking(|| format!("GRANT pg_signal_backend TO {}", shown(role.admin))))?;
        if found.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(limits::POSTGRES_SESSIONS_LOOK_MS)).await;
    }
    let ms = limits::POSTGRES_SESSIONS_LOOK_MS * u64::from(limits::POSTGRES_SESSIONS_LOOKS);
    Err(PgProblem::new(step, format!("a session of {} has not ended after {ms} ms", role.name)))
}

async fn prepared(session: &PgSession, role: &OldRole<'_>) -> Result<(), PgProblem> {
    let step = "looking for prepared transactions";
    let found = session.rows(step, PREPARED, &[(&role.name, Type::TEXT)]).await?;
    let Some(row) = found.first() else { return Ok(()) };
    let [gid, database] = [0, 1].map(|at| row.try_get::<_, String>(at).unwrap_or_default());
    let gid = gid.replace('\'', "''");
    Err(PgProblem::new(step, "the role left a prepared transaction")
        .mended_by(format!("in database {database}: ROLLBACK PREPARED '{gid}'")))
}

async fn act_for(session: &PgSession, oid: Oid, role: &OldRole<'_>) -> Result<(), PgProblem> {
    let step = "acting for the role";
    let may = session.rows(step, MAY_ACT, &[(&oid, Type::OID)]).await?;
    if may.first().is_some_and(|row| row.try_get::<_, bool>(0).unwrap_or(false)) {
        return Ok(());
    }
    let joined = session.formatted(step, JOIN_ROLE, &[(&role.name, Type::TEXT)]).await;
    gone(joined.map_err(|p| p.lacking(|| format!("GRANT {} TO {} WITH ADMIN OPTION", shown(role.name), shown(role.admin)))))
}

/// Clears one database of what the role owns there, and of its privileges.
async fn clear(session: &PgSession, oid: Oid, role: &OldRole<'_>) -> Result<(), PgProblem> {
    clear_in_steps(session, oid, role).await?;
    let _turn = session.begin("dropping what the role owns").await?;
    if let Some(heir) = role.reassign_to {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&role.name, Type::TEXT), (&heir, Type::TEXT)];
        let done = session.formatted("reassigning what the role owns", REASSIGN, &parameters).await;
        gone_or_lacking(done, role, heir)?;
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&role.name, Type::TEXT), (&oid, Type::OID)];
    if let Some(statements) = session.optional_text("revoking privileges", REVOKE, &parameters).await? {
        gone(session.run("revoking privileges", &statements).await)?;
    }
    let dropped = session.formatted("dropping what the role owns", DROP_OWNED, &[(&role.name, Type::TEXT)]).await;
    gone(dropped.map_err(|p| match p.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) {
        // Objects of other roles that depend on it belong to those roles: mayfly does not drop them.
        true => p.mended_by(format!(
            "drop these objects, or as an administrator: REASSIGN OWNED BY {} TO another role; with reassign_to in the registration, later \
             credentials leave their objects to that role",
            shown(role.name)
        )),
        false => p,
    }))?;
    // After a statement that found no role, this ends an aborted transaction.
    session.run("dropping what the role owns", "COMMIT").await
}

/// Drops, or gives to the heir, what may be too much for one transaction, and what an heir must not get.
async fn clear_in_steps(session: &PgSession, oid: Oid, role: &OldRole<'_>) -> Result<(), PgProblem> {
    let step = "dropping large objects of the role";
    let mut steps = limits::POSTGRES_STEPS;
    let some = limits::POSTGRES_LARGE_OBJECTS;
    loop {
        let by_owner: [(&(dyn ToSql + Sync), Type); 2] = [(&oid, Type::OID), (&some, Type::INT8)];
        let more = match role.reassign_to {
            None => number(session, step, DROP_LARGE, &by_owner).await? > 0,
            Some(heir) => {
                let to: [(&(dyn ToSql + Sync), Type); 3] = [(&oid, Type::OID), (&some, Type::INT8), (&heir, Type::TEXT)];
                match session.optional_text(step, GIVE_LARGE, &to).await? {
                    Some(statements) => gone_or_lacking(session.run(step, &statements).await, role, heir).map(|()| true)?,
                    None => false,
                }
            }
        };
        if !more {
            break;
        }
        steps = one_less(steps, step)?;
    }
    let step = "dropping functions and views of the role";
    let (statements, left) = match role.reassign_to {
        Some(_) => (ACTING.to_owned(), 0),
        // The rest is dropped by one statement, which also finds objects that depend on each other in a circle.
        None => (format!("{ACTING} UNION ALL {TABLES}"), limits::POSTGRES_OBJECTS),
    };
    let (block, count) = (block(&statements), count(&statements));
    let by_owner: [(&(dyn ToSql + Sync), Type); 1] = [(&oid, Type::OID)];
    let mut there = number(session, step, &count, &by_owner).await?;
    while there > left {
        let turn = session.begin(step).await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&role.name, Type::TEXT), (&limits::POSTGRES_OBJECTS, Type::INT8)];
        session.formatted(step, &block, &parameters).await?;
        session.run(step, "COMMIT").await?;
        drop(turn);
        let now = number(session, step, &count, &by_owner).await?;
        if now >= there {
            return match role.reassign_to {
                None => Ok(()),
                Some(_) => {
                    Err(PgProblem::new(step, "other objects depend on them, and the heir must not get them").mended_by(format!(
                        "drop what depends on the functions and views of {0}, or as an administrator: DROP OWNED BY {0}",
                        shown(role.name)
                    )))
                }
            };
        }
        there = now;
        steps = one_less(steps, step)?;
    }
    Ok(())
}

async fn number(
    session: &PgSession,
    step: &'static str,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<i64, PgProblem> {
    let rows = session.rows(step, statement, parameters).await?;
    let found = rows.first().map(|row| row.try_get::<_, i64>(0));
    found.and_then(Result::ok).ok_or_else(|| PgProblem::new(step, "the server gave no number"))
}

fn one_less(steps: usize, step: &'static str) -> Result<usize, PgProblem> {
    steps
        .checked_sub(1)
        .ok_or_else(|| PgProblem::new(step, "there are more objects than one attempt drops; the next one goes on"))
}

/// Names the statement that mends a failed reassignment. If the heir does not exist, or mayfly may not act for the heir, the objects are not
/// dropped instead: the registration says that they are to be kept.
fn gone_or_lacking(done: Result<(), PgProblem>, role: &OldRole<'_>, heir: &str) -> Result<(), PgProblem> {
    done.map_err(|p| match p.is(&SqlState::UNDEFINED_OBJECT) {
        true => p.mended_by(format!("CREATE ROLE {}", shown(heir))),
        false => p.lacking(|| format!("GRANT {} TO {}", shown(heir), shown(role.admin))),
    })
}
