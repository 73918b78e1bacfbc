//! The variables of a login to a database: those that its usual clients read, and a URL.
//!
//! - PostgreSQL: the variables of libpq.
//! - MySQL and MariaDB: `MYSQL_HOST`, `MYSQL_TCP_PORT` and `MYSQL_PWD`. Their clients take user and TLS from a file only, which they find by
//!   `MYSQL_HOME`. It holds no password.
//! - Redis: `REDISCLI_AUTH`, which `redis-cli` reads; it takes all else from its command line, for which there are variables.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::error::CliError;
use super::super::show::issued::IssuedAnswerView;
use mayfly_base::system::System;
use mayfly_base::system_roots::system_roots;

/// Variables of clients that would send a login elsewhere or change its session. The program does not inherit them.
pub(super) const NOT_INHERITED: &[&str] = &[
    "PGHOSTADDR",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGPASSFILE",
    "PGOPTIONS",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "MYSQL_UNIX_PORT",
    "MYSQL_HOME",
    "MARIADB_HOME",
    "MYSQL_GROUP_SUFFIX",
    "REDIS_CACERT",
];

/// A login to a database, as variables.
pub(super) struct DatabaseVariables {
    /// The kind of database: variables are for one of each kind.
    pub kind: &'static str,
    /// The URL of the database with the login.
    pub url: Zeroizing<String>,
    /// The variables of its clients.
    pub client: Vec<(&'static str, Zeroizing<String>)>,
    /// Files that clients read. They exist as long as this value.
    _files: Vec<TemporaryFile>,
}

/// A file, or a directory with one file, that exists as long as this value. It holds no secret.
struct TemporaryFile {
    path: PathBuf,
    directory: Option<PathBuf>,
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

impl TemporaryFile {
    fn write(path: PathBuf, directory: Option<PathBuf>, text: &str) -> std::io::Result<TemporaryFile> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let made = TemporaryFile { path, directory };
        file.write_all(text.as_bytes())?;
        Ok(made)
    }

    /// The roots that verify a server: clients take them from a file only.
    fn roots(pem: &str, system: &System) -> std::io::Result<TemporaryFile> {
        TemporaryFile::write(temporary("roots", system).with_extension("pem"), None, pem)
    }

    /// A directory with the file `my.cnf`.
    fn options(text: &str, system: &System) -> std::io::Result<TemporaryFile> {
        let directory = temporary("mysql", system);
        DirBuilder::new().mode(0o700).create(&directory)?;
        TemporaryFile::write(directory.join("my.cnf"), Some(directory), text)
    }
}

fn temporary(what: &str, system: &System) -> PathBuf {
    std::env::temp_dir().join(format!("mayfly-{what}-{}", super::super::show::hex(&system.random16())))
}

/// The parts of a login, with the file of the roots that verify its server.
struct Login<'a> {
    host: &'a str,
    port: String,
    database: &'a str,
    user: &'a str,
    password: &'a str,
    plaintext: bool,
    /// The roots: of the registration, or else of the system.
    roots: Option<String>,
}

impl Login<'_> {
    /// User, password, host and port, as in a URL. All of them are of alphabets that a URL needs no escapes for.
    fn authority(&self) -> Zeroizing<String> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_owned() };
        Zeroizing::new(format!("{}:{}@{host}:{}", self.user, self.password, self.port))
    }
}

type Variables = Vec<(&'static str, Zeroizing<String>)>;

fn kept<const N: usize>(all: [(&'static str, &str); N]) -> Variables {
    all.into_iter().map(|(name, value)| (name, Zeroizing::new(value.to_owned()))).collect()
}

/// The variables of a login to a database. `None` for other credentials.
pub(super) fn variables(kind: &str, answer: &IssuedAnswerView, system: &System) -> Result<Option<DatabaseVariables>, CliError> {
    let IssuedAnswerView::DatabaseLogin { host, port, database, user, password, server_ca_pem, plaintext } = answer else {
        return Ok(None);
    };
    let failed = |e: std::io::Error| CliError::Local(format!("a file for the database's client: {e}"));
    let mut files = Vec::new();
    if !server_ca_pem.is_empty() {
        files.push(TemporaryFile::roots(server_ca_pem, system).map_err(failed)?);
    }
    // Without this, libpq looks for roots in the home directory only, and others do not look at all.
    let roots = files.first().map(|file| file.path.clone()).or_else(system_roots).filter(|_| !plaintext);
    let login = Login {
        host,
        port: port.to_string(),
        database,
        user,
        password: password.expose(),
        plaintext: *plaintext,
        roots: roots.as_deref().and_then(Path::to_str).map(str::to_owned),
    };
    let (kind, url, client) = match kind {
        "postgres" => ("postgres", postgres_url(&login), libpq(&login)),
        "mysql" => {
            let options = TemporaryFile::options(&my_cnf(&login), system).map_err(failed)?;
            let home = options.directory.as_deref().and_then(Path::to_str).unwrap_or_default().to_owned();
            files.push(options);
            ("mysql", mysql_url(&login), mysql(&login, &home))
        }
        "redis" => ("redis", redis_url(&login), redis(&login)),
        _ => return Ok(None),
    };
    Ok(Some(DatabaseVariables { kind, url, client, _files: files }))
}

fn postgres_url(login: &Login<'_>) -> Zeroizing<String> {
    let mode = if login.plaintext { "disable" } else { "verify-full" };
    let mut url = Zeroizing::new(format!("postgres://{}/{}?sslmode={mode}", *login.authority(), login.database));
    if let Some(path) = &login.roots {
        url.push_str("&sslrootcert=");
        url.push_str(path);
    }
    url
}

fn libpq(login: &Login<'_>) -> Variables {
    let mut all = kept([
        ("PGHOST", login.host),
        ("PGPORT", &login.port),
        ("PGDATABASE", login.database),
        ("PGUSER", login.user),
        ("PGPASSWORD", login.password),
        ("PGSSLMODE", if login.plaintext { "disable" } else { "verify-full" }),
    ]);
    all.extend(login.roots.as_deref().map(|path| ("PGSSLROOTCERT", Zeroizing::new(path.to_owned()))));
    all
}

fn mysql_url(login: &Login<'_>) -> Zeroizing<String> {
    let mode = if login.plaintext { "DISABLED" } else { "VERIFY_IDENTITY" };
    let mut url = Zeroizing::new(format!("mysql://{}/{}?ssl-mode={mode}", *login.authority(), login.database));
    if let Some(path) = &login.roots {
        url.push_str("&ssl-ca=");
        url.push_str(path);
    }
    url
}

fn mysql(login: &Login<'_>, home: &str) -> Variables {
    kept([
        ("MYSQL_HOST", login.host),
        ("MYSQL_TCP_PORT", &login.port),
        ("MYSQL_PWD", login.password),
        ("MYSQL_HOME", home),
        // No program of MySQL reads these; many others do.
        ("MYSQL_USER", login.user),
        ("MYSQL_DATABASE", login.database),
    ])
}

/// The options that the clients of MySQL and MariaDB have no variables for. Values have no character that the file would need quotes for.
fn my_cnf(login: &Login<'_>) -> String {
    let Login { host, port, user, .. } = login;
    let mut text = format!("[client]\nuser={user}\nhost={host}\nport={port}\nprotocol=tcp\n");
    if let Some(path) = &login.roots {
        // MySQL verifies the name of the server by ssl-mode, MariaDB by the other option. MariaDB warns of the first, and ignores it.
        text += &format!("ssl-ca={path}\nloose-ssl-mode=VERIFY_IDENTITY\n[client-mariadb]\nssl-verify-server-cert\n");
    }
    text
}

fn redis_url(login: &Login<'_>) -> Zeroizing<String> {
    let scheme = if login.plaintext { "redis" } else { "rediss" };
    Zeroizing::new(format!("{scheme}://{}/{}", *login.authority(), login.database))
}

fn redis(login: &Login<'_>) -> Variables {
    let mut all = kept([
        ("REDISCLI_AUTH", login.password),
        ("REDIS_HOST", login.host),
        ("REDIS_PORT", &login.port),
        ("REDIS_USERNAME", login.user),
        ("REDIS_PASSWORD", login.password),
        ("REDIS_DB", login.database),
    ]);
    all.extend(login.roots.as_deref().map(|path| ("REDIS_CACERT", Zeroizing::new(path.to_owned()))));
    all
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
        let of = |all: &DatabaseVariables, name: &str| all.client.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        assert_eq!(of(&plain, "PGHOST").as_deref(), Some("::1"));
        assert_eq!((of(&plain, "PGPASSWORD").as_deref(), of(&plain, "PGSSLROOTCERT")), (Some("pa55"), None));
        let verified = variables("postgres", &login("a certificate", false), &system).unwrap().unwrap();
        let path = of(&verified, "PGSSLROOTCERT").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a certificate");
        assert!(verified.url.ends_with(&format!("?sslmode=verify-full&sslrootcert={path}")));
        drop(verified);
        assert!(!Path::new(&path).exists());
        assert!(variables("jwt", &login("", true), &system).unwrap().is_none());
    }

    #[test]
    fn a_login_to_mysql_has_a_file_of_options_without_the_password_while_it_lives() {
        let system = System::real();
        let of = |all: &DatabaseVariables, name: &str| all.client.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        let verified = variables("mysql", &login("a certificate", false), &system).unwrap().unwrap();
        assert_eq!(of(&verified, "MYSQL_PWD").as_deref(), Some("pa55"));
        let home = of(&verified, "MYSQL_HOME").unwrap();
        let options = std::fs::read_to_string(Path::new(&home).join("my.cnf")).unwrap();
        assert!(options.starts_with("[client]\nuser=mayfly_x\nhost=::1\nport=5433\n"), "{options}");
        assert!(options.contains("ssl-verify-server-cert") && options.contains("VERIFY_IDENTITY") && !options.contains("pa55"));
        let roots = options.lines().find_map(|line| line.strip_prefix("ssl-ca=")).unwrap();
        assert_eq!(std::fs::read_to_string(roots).unwrap(), "a certificate");
        assert_eq!(
            verified.url.as_str(),
            format!("mysql://mayfly_x:pa55@[::1]:5433/orders?ssl-mode=VERIFY_IDENTITY&ssl-ca={roots}")
        );
        drop(verified);
        assert!(!Path::new(&home).exists());
    }

    #[test]
    fn a_login_to_redis_is_told_to_redis_cli() {
        let plain = variables("redis", &login("", true), &System::real()).unwrap().unwrap();
        assert_eq!(plain.url.as_str(), "redis://mayfly_x:pa55@[::1]:5433/orders");
        let names: Vec<&str> = plain.client.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["REDISCLI_AUTH", "REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB"]);
    }
}
