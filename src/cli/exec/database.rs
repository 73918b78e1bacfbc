//! The variables of a login to PostgreSQL: those that libpq and its many users read, and a URL.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::error::CliError;
use super::super::show::issued::IssuedAnswerView;
use mayfly_base::system::System;
use mayfly_base::system_roots::system_roots;

/// Variables of libpq that would send a login elsewhere or change its session. The program does not inherit them.
pub(super) const NOT_INHERITED: &[&str] =
    &["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGOPTIONS", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];

/// A login to a database, as variables.
pub(super) struct DatabaseVariables {
    /// The URL of the database with the login.
    pub url: Zeroizing<String>,
    /// The variables of libpq.
    pub libpq: Vec<(&'static str, Zeroizing<String>)>,
    /// The roots that verify the server. libpq takes them from a file only.
    _roots: Option<RootsFile>,
}

/// A file that exists as long as this value. It holds certificates and no secret.
struct RootsFile(PathBuf);

impl Drop for RootsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl RootsFile {
    fn write(pem: &str, system: &System) -> std::io::Result<RootsFile> {
        let name = format!("mayfly-roots-{}.pem", super::super::show::hex(&system.random16()));
        let path = std::env::temp_dir().join(name);
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let roots = RootsFile(path);
        file.write_all(pem.as_bytes())?;
        Ok(roots)
    }
}

/// The variables of a login to PostgreSQL. `None` for other credentials.
pub(super) fn variables(kind: &str, answer: &IssuedAnswerView, system: &System) -> Result<Option<DatabaseVariables>, CliError> {
    let IssuedAnswerView::DatabaseLogin { host, port, database, user, password, server_ca_pem, plaintext } = answer else {
        return Ok(None);
    };
    if kind != "postgres" {
        return Ok(None);
    }
    let roots = match server_ca_pem.as_str() {
        "" => None,
        pem => {
            Some(RootsFile::write(pem, system).map_err(|e| CliError::Local(format!("the file of the database's roots: {e}")))?)
        }
    };
    let mode = if *plaintext { "disable" } else { "verify-full" };
    // Without this, libpq looks for roots in the home directory only.
    let path = roots.as_ref().map(|file| file.0.clone()).or_else(system_roots).filter(|_| !plaintext);
    let path = path.as_deref().and_then(Path::to_str).map(str::to_owned);
    let port = port.to_string();
    let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let mut url = Zeroizing::new(format!("postgres://{user}:{}@{shown}:{port}/{database}?sslmode={mode}", password.expose()));
    let mut libpq: Vec<(&'static str, Zeroizing<String>)> = [
        ("PGHOST", host.as_str()),
        ("PGPORT", port.as_str()),
        ("PGDATABASE", database.as_str()),
        ("PGUSER", user.as_str()),
        ("PGPASSWORD", password.expose()),
        ("PGSSLMODE", mode),
    ]
    .into_iter()
    .map(|(name, value)| (name, Zeroizing::new(value.to_owned())))
    .collect();
    if let Some(path) = path {
        url.push_str("&sslrootcert=");
        url.push_str(&path);
        libpq.push(("PGSSLROOTCERT", Zeroizing::new(path)));
    }
    Ok(Some(DatabaseVariables { url, libpq, _roots: roots }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::issued::SecretText;

    fn login(server_ca_pem: &str, plaintext: bool) -> IssuedAnswerView {
        IssuedAnswerView::DatabaseLogin {
            host: "::1".into(),
            port: 5433,
            database: "orders".into(),
            user: "mayfly_x".into(),
            password: SecretText::new("pa55".to_owned()),
            server_ca_pem: server_ca_pem.into(),
            plaintext,
        }
    }

    #[test]
    fn a_login_is_told_to_libpq_and_as_a_url_and_its_roots_are_a_file_while_it_lives() {
        let system = System::real();
        let plain = variables("postgres", &login("", true), &system).unwrap().unwrap();
        assert_eq!(plain.url.as_str(), "postgres://mayfly_x:pa55@[::1]:5433/orders?sslmode=disable");
        let of = |all: &DatabaseVariables, name: &str| all.libpq.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        assert_eq!(of(&plain, "PGHOST").as_deref(), Some("::1"));
        assert_eq!((of(&plain, "PGPASSWORD").as_deref(), of(&plain, "PGSSLROOTCERT")), (Some("pa55"), None));
        let verified = variables("postgres", &login("a certificate", false), &system).unwrap().unwrap();
        let path = of(&verified, "PGSSLROOTCERT").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a certificate");
        assert!(verified.url.ends_with(&format!("?sslmode=verify-full&sslrootcert={path}")));
        drop(verified);
        assert!(!Path::new(&path).exists());
        assert!(variables("mysql", &login("", true), &system).unwrap().is_none());
    }
}
