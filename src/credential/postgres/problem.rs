//! Errors of PostgreSQL, for operators: the failed step, the server's message with its SQLSTATE, and the statement that would mend the cause.
//! Executed statements and their parameters are never part of an error, since one of them contains the verifier of a password.

use tokio_postgres::error::SqlState;

use crate::access::address::ConnectError;
use crate::access::secrets::SecretError;

/// A failed step.
#[derive(Debug)]
pub struct PgProblem {
    /// The step that failed.
    step: &'static str,
    /// The answer of the server, or the error that prevented one.
    said: String,
    /// The SQLSTATE, if the server answered.
    state: Option<SqlState>,
    /// How to mend it.
    remedy: Option<String>,
}

impl std::fmt::Display for PgProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.said)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; to mend it: {remedy}"),
            None => Ok(()),
        }
    }
}

impl PgProblem {
    /// A problem that mayfly found itself.
    pub fn new(step: &'static str, said: impl Into<String>) -> PgProblem {
        PgProblem { step, said: said.into(), state: None, remedy: None }
    }

    /// An error of the driver or of the server.
    pub fn of(step: &'static str, error: &tokio_postgres::Error) -> PgProblem {
        let Some(db) = error.as_db_error() else {
            return PgProblem::new(step, chain(error));
        };
        let mut said = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        // The detail names the objects that depend on the role. Without it, the operator would search all databases.
        if let Some(detail) = db.detail().filter(|_| db.code() == &SqlState::DEPENDENT_OBJECTS_STILL_EXIST) {
            said = format!("{said}: {}", detail.replace('\n', ", "));
        }
        PgProblem { step, said, state: Some(db.code().clone()), remedy: None }
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
        let has = |text: &str| self.said.contains(text);
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
        } else if has("UnknownIssuer") {
            format!(
                "put the certificate of the authority of the server's certificate into {upstream}.pem, in upstreams.secrets_dir"
            )
        } else if has("ProtocolVersion") {
            "the server has to offer TLS 1.3".to_owned()
        } else if has("does not support TLS") {
            "ssl = on in postgresql.conf; plaintext = true in the registration is for a server on this host only".to_owned()
        } else if has("channel binding") {
            "the password has to be stored with password_encryption = 'scram-sha-256', and no pooler may end TLS".to_owned()
        } else {
            return self;
        };
        self.mended_by(remedy)
    }

    /// With the statement that mends it.
    pub fn mended_by(self, statement: String) -> PgProblem {
        PgProblem { remedy: Some(statement), ..self }
    }

    /// Whether the server answered with this SQLSTATE.
    pub fn is(&self, state: &SqlState) -> bool {
        self.state.as_ref() == Some(state)
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

    /// Whether the server answered: what the step attempted has no effect then.
    pub fn is_answer(&self) -> bool {
        self.state.is_some()
    }
}

/// The error and its causes. Those of the driver say no value.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

impl From<ConnectError> for PgProblem {
    fn from(error: ConnectError) -> PgProblem {
        PgProblem::new("connecting", error.to_string())
    }
}

impl From<SecretError> for PgProblem {
    fn from(error: SecretError) -> PgProblem {
        PgProblem::new("reading mayfly's own password", error.to_string())
    }
}

/// A name as it is written in a statement that is shown to an operator. Statements that mayfly executes are written by the server itself.
pub fn shown(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
