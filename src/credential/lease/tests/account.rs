//! Turns the answers of the tests' upstream (`OK`, `YES`, `NO`, or a refusal text) into results of the test kinds. The tests of whole
//! servers (`tests/remote`) include this file too.

use zeroize::Zeroizing;

use crate::CredentialMaterial;
use crate::connector::{MakeError, UndoError, UpstreamCredential};

/// One line from the upstream, or the error that prevented it.
pub type Line = Result<String, String>;

/// The login of an account.
pub fn login(name: &str) -> CredentialMaterial {
    CredentialMaterial::Database {
        host: "localhost".into(),
        port: 1,
        database: String::new(),
        user: name.to_owned(),
        password: Zeroizing::new(format!("derived from {name}")),
        server_ca_pem: String::new(),
        plaintext: false,
    }
}

pub fn made(line: Line, answer: CredentialMaterial) -> Result<UpstreamCredential, MakeError> {
    match line.map_err(MakeError::Unknown)?.as_str() {
        "OK" => Ok(UpstreamCredential { answer, irrevocable: false, ends_at: None }),
        other => Err(MakeError::Refused(other.to_owned())),
    }
}

pub fn dropped(line: Line) -> Result<(), UndoError> {
    match line.map_err(UndoError)?.as_str() {
        "OK" => Ok(()),
        other => Err(UndoError(other.to_owned())),
    }
}

pub fn gone(line: Line) -> Result<bool, UndoError> {
    match line.map_err(UndoError)?.as_str() {
        "NO" => Ok(true),
        "YES" => Ok(false),
        other => Err(UndoError(other.to_owned())),
    }
}
