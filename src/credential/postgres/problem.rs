//! Errors of PostgreSQL: the codes are SQLSTATEs.

use tokio_postgres::error::SqlState;

use crate::database::problem::DatabaseProblem;

/// A failed step.
pub type PgProblem = DatabaseProblem<SqlState>;

impl DatabaseProblem<SqlState> {
    /// An error of the driver or of the server.
    pub fn of(step: &'static str, error: &tokio_postgres::Error) -> PgProblem {
        let Some(db) = error.as_db_error() else {
            return PgProblem::driver(step, error);
        };
        let mut said = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        // The detail names the objects that depend on the role. Without it, the operator would search all databases.
        if let Some(detail) = db.detail().filter(|_| db.code() == &SqlState::DEPENDENT_OBJECTS_STILL_EXIST) {
            said = format!("{said}: {}", detail.replace('\n', ", "));
        }
        PgProblem::answered(step, said, db.code().clone())
    }

    /// With the statement that mends it, if the server says that mayfly lacks a permission.
    pub fn lacking(self, statement: impl FnOnce() -> String) -> PgProblem {
        match self.is(&SqlState::INSUFFICIENT_PRIVILEGE) {
            true => self.mended_by(statement()),
            false => self,
        }
    }

    /// With the statement or file that mends a refused login.
    pub fn of_login(self, user: &str, database: &str, upstream: &str) -> PgProblem {
        let has = |text: &str| self.says(text);
        let remedy = if self.is(&SqlState::INSUFFICIENT_PRIVILEGE) {
            format!("GRANT CONNECT ON DATABASE {} TO {}", shown(database), shown(user))
        } else if has("no pg_hba.conf entry") {
            format!(
                "a line of pg_hba.conf for database {} that matches this role: hostssl, method scram-sha-256; the roles of credentials begin \
                 with mayfly_",
                shown(database)
            )
        } else if has("not permitted to log in") {
            format!("ALTER ROLE {} LOGIN", shown(user))
        } else if let Some(remedy) = self.tls_remedy(upstream) {
            remedy
        } else if has("does not support TLS") {
            "ssl = on in postgresql.conf; plaintext = true in the registration is for a server on this host only".to_owned()
        } else if has("channel binding") {
            "the password has to be stored with password_encryption = 'scram-sha-256', and no pooler may end TLS".to_owned()
        } else {
            return self;
        };
        self.mended_by(remedy)
    }

    /// Whether the server answered with this SQLSTATE.
    pub fn is(&self, state: &SqlState) -> bool {
        self.code() == Some(state)
    }

    /// Whether somebody else changed the same privileges or roles at the same time, so that trying again may succeed.
    pub fn is_contention(&self) -> bool {
        let states = [
            SqlState::INTERNAL_ERROR,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        states.iter().any(|state| self.is(state))
    }
}

/// A name as it is written in a statement that is shown to an operator. Statements that mayfly executes are written by the server itself.
pub fn shown(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
