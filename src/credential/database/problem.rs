//! Errors of databases, for operators: the failed step, the server's message with its code, and the statement that would mend the cause.
//! Executed statements and their parameters are never part of an error, since one of them contains the verifier of a password.

use super::OWN_PASSWORD;
use crate::access::address::ConnectError;
use crate::access::secrets::SecretError;

/// A failed step at a database whose errors have codes of type `C`.
#[derive(Debug)]
pub struct DatabaseProblem<C> {
    /// The step that failed.
    step: &'static str,
    /// The answer of the server, or the error that prevented one.
    said: String,
    /// The code, if the server answered.
    code: Option<C>,
    /// How to mend it.
    remedy: Option<String>,
}

impl<C> std::fmt::Display for DatabaseProblem<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.said)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; to mend it: {remedy}"),
            None => Ok(()),
        }
    }
}

impl<C> DatabaseProblem<C> {
    /// A problem that mayfly found itself, or the absence of an answer.
    pub fn new(step: &'static str, said: impl Into<String>) -> DatabaseProblem<C> {
        DatabaseProblem { step, said: said.into(), code: None, remedy: None }
    }

    /// An answer of the server.
    pub fn answered(step: &'static str, said: String, code: C) -> DatabaseProblem<C> {
        DatabaseProblem { step, said, code: Some(code), remedy: None }
    }

    /// An error of the driver, with its causes.
    pub fn driver(step: &'static str, error: &dyn std::error::Error) -> DatabaseProblem<C> {
        let (mut text, mut cause) = (error.to_string(), error.source());
        while let Some(next) = cause {
            let more = next.to_string();
            // Some drivers repeat the cause in the text of the error.
            if !text.ends_with(&more) {
                text = format!("{text}: {more}");
            }
            cause = next.source();
        }
        DatabaseProblem::new(step, text)
    }

    /// With the statement that mends it.
    pub fn mended_by(self, statement: String) -> DatabaseProblem<C> {
        DatabaseProblem { remedy: Some(statement), ..self }
    }

    /// Whether the text of the error has this part.
    pub fn says(&self, part: &str) -> bool {
        self.said.contains(part)
    }

    /// What mends a connection whose TLS failed.
    pub fn tls_remedy(&self, upstream: &str) -> Option<String> {
        if self.says("UnknownIssuer") {
            let file = format!("{upstream}.pem, in upstreams.secrets_dir");
            return Some(format!("put the certificate of the authority of the server's certificate into {file}"));
        }
        self.says("ProtocolVersion").then(|| "the server has to offer TLS 1.3".to_owned())
    }

    /// The code of the server's answer.
    pub fn code(&self) -> Option<&C> {
        self.code.as_ref()
    }

    /// Whether the server answered: what the step attempted has no effect then.
    pub fn is_answer(&self) -> bool {
        self.code.is_some()
    }
}

impl<C> From<ConnectError> for DatabaseProblem<C> {
    fn from(error: ConnectError) -> DatabaseProblem<C> {
        DatabaseProblem::new("connecting", error.to_string())
    }
}

impl<C> From<SecretError> for DatabaseProblem<C> {
    fn from(error: SecretError) -> DatabaseProblem<C> {
        DatabaseProblem::new(OWN_PASSWORD, error.to_string())
    }
}

/// Why an account was not made.
pub struct NotMade<C> {
    /// The error.
    pub problem: DatabaseProblem<C>,
    /// The account may exist, or may come to exist.
    pub unknown: bool,
}

impl<C> From<DatabaseProblem<C>> for NotMade<C> {
    fn from(problem: DatabaseProblem<C>) -> NotMade<C> {
        NotMade { problem, unknown: false }
    }
}
