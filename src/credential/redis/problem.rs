//! Errors of Redis: the codes are the first words of its errors, such as `NOPERM`.

use redis::{ErrorKind, RedisError};

use crate::database::problem::DatabaseProblem;

/// A failed step.
pub type RedisProblem = DatabaseProblem<String>;

impl DatabaseProblem<String> {
    /// An error of the driver or of the server.
    pub fn of(step: &'static str, error: &RedisError) -> RedisProblem {
        match (error.code(), error.kind()) {
            (Some(code), _) => {
                let said = format!("{code} {}", error.detail().unwrap_or_default());
                RedisProblem::answered(step, said.trim_end().to_owned(), code.to_owned())
            }
            (None, ErrorKind::AuthenticationFailed) => {
                RedisProblem::answered(step, "the server refuses user or password (WRONGPASS)".to_owned(), "WRONGPASS".to_owned())
            }
            (None, _) => RedisProblem::driver(step, error),
        }
    }

    /// With the rule that mends it, if the server says that mayfly's user may not run the command.
    pub fn lacking(self, admin: &str, rule: &str) -> RedisProblem {
        match self.is("NOPERM") {
            true => self.mended_by(format!("ACL SETUSER {admin} {rule}")),
            false => self,
        }
    }

    /// With the setting or file that mends a refused login.
    pub fn of_login(self, upstream: &str) -> RedisProblem {
        match self.tls_remedy(upstream) {
            Some(remedy) => self.mended_by(remedy),
            None => self,
        }
    }

    /// Whether the server answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.code().is_some_and(|mine| mine == code)
    }
}
