//! Errors of MySQL and MariaDB: the codes are the servers' numbers of errors.

use mysql_async::Error;

use crate::database::problem::DatabaseProblem;

/// A failed step.
pub type MyProblem = DatabaseProblem<u16>;

/// The statement is not one of this version. Its message quotes the statement, which may contain the verifier of a password.
const PARSE: u16 = 1064;
/// An account that is to be created exists, or one that is to be changed does not.
pub const CANNOT_USER: u16 = 1396;
/// There is no session of this number.
pub const NO_SUCH_THREAD: u16 = 1094;
/// Refused for the lack of a privilege: on a database, a command on a table, a column, to create a user by a grant, in general, on a routine,
/// to end the session of another user.
const LACKING: [u16; 8] = [1044, 1095, 1142, 1143, 1227, 1370, 1410, 1419];

impl DatabaseProblem<u16> {
    /// An error of the driver or of the server.
    pub fn of(step: &'static str, error: &Error) -> MyProblem {
        match error {
            Error::Server(no) if no.code == PARSE => {
                let said = "the server does not know this statement: MariaDB 10.4 and MySQL 8.0 are the oldest versions that do (error 1064)";
                MyProblem::answered(step, said.to_owned(), PARSE)
            }
            Error::Server(no) => MyProblem::answered(step, format!("{} (error {})", no.message, no.code), no.code),
            error => MyProblem::driver(step, error),
        }
    }

    /// With the statement that mends it, if the server says that mayfly lacks a privilege.
    pub fn lacking(self, statement: impl FnOnce() -> String) -> MyProblem {
        match self.code().is_some_and(|code| LACKING.contains(code)) {
            true => self.mended_by(statement()),
            false => self,
        }
    }

    /// With the setting or file that mends a refused login.
    pub fn of_login(self, upstream: &str) -> MyProblem {
        if self.says("NoClientSslFlagFromServer") || self.says("CLIENT_SSL") {
            let mend = "ssl_cert and ssl_key in the server's configuration; plaintext = true in the registration is for a server on this host only";
            return self.mended_by(mend.to_owned());
        }
        match self.tls_remedy(upstream) {
            Some(remedy) => self.mended_by(remedy),
            None => self,
        }
    }

    /// Whether the server answered with this number.
    pub fn is(&self, code: u16) -> bool {
        self.code() == Some(&code)
    }
}
