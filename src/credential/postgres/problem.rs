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
