//! Making a role with exactly what the scopes grant, in one transaction.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::problem::{PgProblem, shown};
use super::session::PgSession;
use super::settings::{PostgresSettings, ScopeGrant};
use crate::database::problem::NotMade;

/// A role to be made.
pub struct NewRole<'a> {
    /// The role's name.
    pub name: &'a str,
    /// The verifier of its password (RFC 5803): the password itself never leaves mayfly.
    pub verifier: &'a str,
    /// When logins end, seconds since 1970.
    pub valid_until: u64,
    /// The comment on the role, for administrators of the database.
    pub comment: &'a str,
}

const CREATE: &str = "SELECT format('CREATE ROLE %I WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS %s \
     CONNECTION LIMIT %s VALID UNTIL %L PASSWORD %L', $1, CASE WHEN $2 THEN 'INHERIT' ELSE 'NOINHERIT' END, $3, \
     to_timestamp($4), $5)";

const COMMENT: &str = "SELECT format('COMMENT ON ROLE %I IS %L', $1, $2)";

/// Writes a GRANT statement for each object. The casts to `reg…` read names as SQL does and write them back with quotes and schema.
const GRANTS: &str = "SELECT sort, privileges, object, CASE sort \
     WHEN 'roles' THEN format('GRANT %I TO %I', object, $4) \
     WHEN 'tables' THEN format('GRANT %s ON TABLE %s TO %I', privileges, object::regclass, $4) \
     WHEN 'all tables in schemas' THEN format('GRANT %s ON ALL TABLES IN SCHEMA %s TO %I', privileges, object::regnamespace, $4) \
     WHEN 'sequences' THEN format('GRANT %s ON SEQUENCE %s TO %I', privileges, object::regclass, $4) \
     WHEN 'all sequences in schemas' THEN format('GRANT %s ON ALL SEQUENCES IN SCHEMA %s TO %I', privileges, object::regnamespace, $4) \
     WHEN 'functions' THEN format('GRANT %s ON FUNCTION %s TO %I', privileges, object::regprocedure, $4) \
     WHEN 'all functions in schemas' THEN format('GRANT %s ON ALL ROUTINES IN SCHEMA %s TO %I', privileges, object::regnamespace, $4) \
     WHEN 'schemas' THEN format('GRANT %s ON SCHEMA %s TO %I', privileges, object::regnamespace, $4) \
     WHEN 'database' THEN format('GRANT %s ON DATABASE %I TO %I', privileges, current_database(), $4) END \
     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS given(sort, privileges, object, place) ORDER BY place";

/// Selects the privileges that the role does not have after the grants: PostgreSQL only warns where mayfly may not grant a privilege.
const MISSING: &str = "SELECT sort, privilege, object FROM unnest($1::text[], $2::text[], $3::text[]) AS given(sort, privileges, object), \
     regexp_split_to_table(privileges, ', ') AS privilege WHERE NOT CASE sort \
     WHEN 'roles' THEN pg_has_role($4::name, object::name, 'MEMBER') \
     WHEN 'tables' THEN has_table_privilege($4::name, object::regclass::oid, privilege) \
     WHEN 'all tables in schemas' THEN NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = object::regnamespace::oid \
       AND relkind IN ('r', 'v', 'm', 'f', 'p') AND NOT has_table_privilege($4::name, oid, privilege)) \
     WHEN 'sequences' THEN has_sequence_privilege($4::name, object::regclass::oid, privilege) \
     WHEN 'all sequences in schemas' THEN NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = object::regnamespace::oid \
       AND relkind = 'S' AND NOT has_sequence_privilege($4::name, oid, privilege)) \
     WHEN 'functions' THEN has_function_privilege($4::name, object::regprocedure::oid, privilege) \
     WHEN 'all functions in schemas' THEN NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = object::regnamespace::oid \
       AND NOT has_function_privilege($4::name, oid, privilege)) \
     WHEN 'schemas' THEN has_schema_privilege($4::name, object::regnamespace::oid, privilege) \
     WHEN 'database' THEN has_database_privilege($4::name, current_database(), privilege) END LIMIT 1";

/// The name of the database, if the role may not connect to it.
const NO_CONNECT: &str = "SELECT CASE WHEN NOT has_database_privilege($1::name, current_database(), 'CONNECT') \
     THEN current_database()::text END";

/// Roles by which the holder could make logins that outlive the credential, or leave the database. A member may set its role's password, so
/// a role that may log in is a login that nobody takes back.
const POWERFUL: &str = "SELECT given.rolname::text FROM pg_roles AS given, pg_roles AS power WHERE given.rolname = ANY($1::text[]) \
     AND (power.rolcanlogin OR power.rolsuper OR power.rolcreaterole OR power.rolreplication OR power.rolname IN \
       ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')) \
     AND pg_has_role(given.oid, power.oid, 'MEMBER') LIMIT 1";

/// The grants, one entry for each object, as the statements take them.
struct GrantRows<'a> {
    sorts: Vec<&'a str>,
    privileges: Vec<String>,
    objects: Vec<&'a str>,
}

impl<'a> GrantRows<'a> {
    fn of(grants: &[&'a ScopeGrant]) -> GrantRows<'a> {
        let mut rows = GrantRows { sorts: Vec::new(), privileges: Vec::new(), objects: Vec::new() };
        for grant in grants {
            let whole = [""];
            let names = grant.names.iter().map(String::as_str);
            let names: Vec<&str> = if grant.names.is_empty() { whole.to_vec() } else { names.collect() };
            for name in names {
                rows.sorts.push(&grant.on);
                rows.privileges.push(grant.privileges.join(", "));
                rows.objects.push(name);
            }
        }
        rows
    }

    fn parameters<'p>(&'p self, role: &'p &'p str) -> [(&'p (dyn ToSql + Sync), Type); 4] {
        [
            (&self.sorts, Type::TEXT_ARRAY),
            (&self.privileges, Type::TEXT_ARRAY),
            (&self.objects, Type::TEXT_ARRAY),
            (role, Type::TEXT),
        ]
    }
}

/// Makes the role. Either it exists afterwards with all that is granted, or nothing was made.
pub async fn make(
    session: &PgSession,
    settings: &PostgresSettings,
    granted: &[ScopeGrant],
    role: &NewRole<'_>,
) -> Result<(), NotMade<SqlState>> {
    let grants: Vec<&ScopeGrant> = granted.iter().collect();
    let roles: Vec<&str> = grants.iter().filter(|g| g.on == "roles").flat_map(|g| g.names.iter().map(String::as_str)).collect();
    if granted.iter().any(|grant| grant.privileges.iter().any(|privilege| privilege == "TRIGGER")) {
        let why = "the registration grants TRIGGER, and PostgreSQL does not record who made a trigger, so it would stay";
        return Err(PgProblem::new("looking at the privileges", why)
            .mended_by("leave TRIGGER out of the registration".to_owned())
            .into());
    }
    let _turn = session.begin("beginning a transaction").await?;
    if let Some(row) = session.rows("looking at the roles to be granted", POWERFUL, &[(&roles, Type::TEXT_ARRAY)]).await?.first()
    {
        let name: String = row.try_get(0).unwrap_or_default();
        let why = format!("role {name:?} may log in, or could make other logins or leave the database, so no credential gets it");
        let mend = format!(
            "a role without LOGIN that has the rights, and is a member of no such role: ALTER ROLE {} NOLOGIN",
            shown(&name)
        );
        return Err(PgProblem::new("looking at the roles to be granted", why).mended_by(mend).into());
    }
    create(session, settings, !roles.is_empty(), role).await?;
    let rows = GrantRows::of(&grants);
    let admin = settings.admin.as_str();
    for row in session.rows("granting", GRANTS, &rows.parameters(&role.name)).await.map_err(unknown_object)? {
        let (sort, privileges, object) = (row.try_get(0), row.try_get(1), row.try_get(2));
        let (Ok(sort), Ok(privileges), Ok(object), Ok(statement)) = (sort, privileges, object, row.try_get::<_, String>(3))
        else {
            return Err(PgProblem::new("granting", "the server wrote no statement").into());
        };
        session.run("granting", &statement).await.map_err(|p| p.lacking(|| permission(sort, privileges, object, admin)))?;
    }
    if let Some(row) = session.rows("looking at what was granted", MISSING, &rows.parameters(&role.name)).await?.first() {
        let [sort, privilege, object] = [0, 1, 2].map(|at| row.try_get::<_, String>(at).unwrap_or_default());
        let said = format!("role {} may not grant {privilege} on {}", shown(admin), named(&sort, &object));
        return Err(PgProblem::new("granting", said).mended_by(permission(&sort, &privilege, &object, admin)).into());
    }
    if let Some(database) = session.optional_text("looking at what was granted", NO_CONNECT, &[(&role.name, Type::TEXT)]).await? {
        let said = format!("the role of the credential may not connect to database {}", shown(&database));
        let mend = format!(
            "GRANT CONNECT ON DATABASE {} TO {} WITH GRANT OPTION, and a grant of the scope with on = \"database\" and privilege CONNECT",
            shown(&database),
            shown(admin)
        );
        return Err(PgProblem::new("granting", said).mended_by(mend).into());
    }
    // From here on the role may exist, whatever answer comes.
    session.run("committing", "COMMIT").await.map_err(|problem| {
        let unknown = !problem.is_answer();
        NotMade { problem, unknown }
    })
}

async fn create(session: &PgSession, settings: &PostgresSettings, inherits: bool, role: &NewRole<'_>) -> Result<(), PgProblem> {
    let (limit, until) = (settings.connection_limit.to_string(), role.valid_until as f64);
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&role.name, Type::TEXT),
        // Membership is of use only to a role that inherits. A role without memberships has nothing to inherit.
        (&inherits, Type::BOOL),
        (&limit, Type::TEXT),
        (&until, Type::FLOAT8),
        (&role.verifier, Type::TEXT),
    ];
    let created = session.formatted("creating a role", CREATE, &parameters).await;
    created.map_err(|p| p.lacking(|| format!("ALTER ROLE {} CREATEROLE", shown(&settings.admin))))?;
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&role.name, Type::TEXT), (&role.comment, Type::TEXT)];
    session.formatted("commenting on the role", COMMENT, &parameters).await
}

/// A name of the registration that the database does not know.
fn unknown_object(problem: PgProblem) -> PgProblem {
    match problem.is_answer() {
        true => problem.mended_by("correct the names in the registration, which are written as in SQL".to_owned()),
        false => problem,
    }
}

/// The statement by which mayfly's role may grant something. The names are those of the registration, in the syntax of SQL.
fn permission(sort: &str, privileges: &str, object: &str, admin: &str) -> String {
    let admin = shown(admin);
    match sort {
        "roles" => format!("GRANT {} TO {admin} WITH ADMIN OPTION", shown(object)),
        _ => format!("GRANT {privileges} ON {} TO {admin} WITH GRANT OPTION", named(sort, object)),
    }
}

fn named(sort: &str, object: &str) -> String {
    match sort {
        "roles" => format!("role {object}"),
        "tables" => format!("TABLE {object}"),
        "all tables in schemas" => format!("ALL TABLES IN SCHEMA {object}"),
        "sequences" => format!("SEQUENCE {object}"),
        "all sequences in schemas" => format!("ALL SEQUENCES IN SCHEMA {object}"),
        "functions" => format!("FUNCTION {object}"),
        "all functions in schemas" => format!("ALL ROUTINES IN SCHEMA {object}"),
        "schemas" => format!("SCHEMA {object}"),
        _ => "the DATABASE".to_owned(),
    }
}
