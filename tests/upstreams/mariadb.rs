//! A MariaDB server of the tests. It ends with the process of the tests, however that ends.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;

use super::cluster::{ADMIN_PASSWORD, SUPER_PASSWORD, certificates};
use super::gate::{Gate, When, mysql_statement};
use super::kills::Killed;
use super::rig::{Rig, registration_of};

pub struct MariaDb {
    pub port: u16,
    /// The certificate of the authority that signed the server's certificate, for `localhost`.
    pub ca_pem: String,
    /// The file of all statements.
    pub log: PathBuf,
}

/// The server, started once. `None` where MariaDB is not installed.
pub fn mariadb() -> Option<&'static MariaDb> {
    static SERVER: OnceLock<Option<MariaDb>> = OnceLock::new();
    let found = SERVER.get_or_init(|| Path::new("/usr/sbin/mariadbd").exists().then(MariaDb::start)).as_ref();
    if found.is_none() {
        crate::skipped::skipped("MariaDB is not installed (Debian's package mariadb-server)");
    }
    found
}

/// MariaDB refuses to run as root: then it runs as `nobody`.
fn unprivileged(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command.env_clear().env("PATH", "/usr/bin:/usr/sbin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/")
}

/// Runs until stdin is closed, which happens when the tests end, and leaves nothing behind.
const KEEPER: &str = r#"mariadbd --defaults-file="$0/my.cnf" >/dev/null 2>&1 & server=$!
cat >/dev/null; kill -KILL $server; wait $server; rm -rf "$0""#;

impl MariaDb {
    /// Starts a server. [`mariadb`] has the one that tests share.
    pub fn start() -> MariaDb {
        let dir = tempfile::Builder::new().prefix("mayfly-mariadb-").tempdir().unwrap().keep();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
        }
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", dir.join("data").display()));
        let made = unprivileged(&mut install).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let ca_pem = certificates(&dir.join("data"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = dir.display();
        let config = format!(
            "[mariadbd]\ndatadir={at}/data\nport={port}\nbind-address=127.0.0.1\nsocket={at}/socket\npid-file={at}/pid\n\
             skip-name-resolve\nssl-cert={at}/data/server.crt\nssl-key={at}/data/server.key\ngeneral-log\n\
             general-log-file={at}/statements\nlog-error={at}/errors\nevent-scheduler=ON\nmax-connections=200\n\
             innodb-flush-log-at-trx-commit=0\ninnodb-buffer-pool-size=32M\nslow-query-log\nslow-query-log-file={at}/slow\nlog-bin-trust-function-creators\nlog-bin={at}/data/bin\n"
        );
        std::fs::write(dir.join("my.cnf"), config).unwrap();
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER]).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = unprivileged(&mut keeper).spawn().unwrap();
        // The keeper ends the server when its stdin is closed, which is when this process ends.
        std::mem::forget(keeper);
        let server = MariaDb { port, ca_pem, log: dir.join("statements") };
        for _ in 0..300 {
            if server.client("root", "", "mysql").arg("-e").arg("SELECT 1").output().unwrap().status.success() {
                server.prepare();
                return server;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("MariaDB did not start: {}", std::fs::read_to_string(dir.join("errors")).unwrap_or_default());
    }

    /// Executes the statements of docs/upstreams/mysql.md, section 1, and makes the tables of the tests.
    fn prepare(&self) {
        let statements = format!(
            "CREATE DATABASE orders; CREATE DATABASE `team_a`; CREATE DATABASE teamxa; CREATE TABLE teamxa.secrets (id int);
             CREATE TABLE orders.orders (id int PRIMARY KEY, what text); INSERT INTO orders.orders VALUES (1, 'a book');
             CREATE TABLE orders.secrets (id int);
             CREATE USER mayfly@'%' IDENTIFIED BY '{ADMIN_PASSWORD}';
             GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO mayfly@'%';
             GRANT SELECT (User, Host) ON mysql.user TO mayfly@'%';
             GRANT SELECT, INSERT, UPDATE ON orders.orders TO mayfly@'%' WITH GRANT OPTION;
             GRANT SELECT, INSERT, CREATE, DROP, TRIGGER, CREATE VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT ON `team\\_a`.* TO mayfly@'%' WITH GRANT OPTION;
             SET PASSWORD FOR root@'127.0.0.1' = PASSWORD('{SUPER_PASSWORD}');"
        );
        let done = self.client("root", "", "mysql").arg("-e").arg(statements).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// `mariadb` with this login.
    pub fn client(&self, user: &str, password: &str, database: &str) -> Command {
        let mut client = Command::new("mariadb");
        client.env_clear().env("PATH", "/usr/bin:/bin").env("MYSQL_PWD", password);
        client.args(["--no-defaults", "-N", "-B", "-h", "127.0.0.1", "-u", user, "-P"]).arg(self.port.to_string());
        client.args(["-D", database, "--connect-timeout=5"]).stdin(Stdio::null());
        client
    }

    fn try_sql(&self, statements: &str) -> Output {
        self.client("root", SUPER_PASSWORD, "mysql").arg("-e").arg(statements).output().unwrap()
    }

    /// Executes statements as the administrator, and returns their rows.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> Vec<String> {
        let done = self.try_sql(statements);
        assert!(done.status.success(), "{statements}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The users that mayfly made for an upstream. Accounts have no comment, so each upstream of the tests has a host of its own.
    pub fn users_of(&self, upstream: &str) -> Vec<String> {
        self.sql(&format!("SELECT User FROM mysql.user WHERE User LIKE 'mayfly_%' AND Host = '{}' ORDER BY 1", host_of(upstream)))
    }
}

/// A pattern that matches 127.0.0.1 and differs by the name of the upstream.
fn host_of(upstream: &str) -> String {
    let mut bits = upstream.bytes().fold(5381_u32, |all, byte| all.wrapping_mul(33) ^ u32::from(byte));
    bits ^= bits >> 13;
    let mut next = || {
        bits = bits.rotate_left(1).wrapping_mul(3);
        bits & 0x8000 != 0
    };
    let mut pattern = String::new();
    for digit in "127.0.0.1".chars() {
        pattern.push(if next() { '_' } else { digit });
        if next() {
            pattern.push('%');
        }
    }
    pattern
}

/// A registration, with lines of the section.
pub fn registration(name: &str, target: &str, section: &str) -> String {
    let section = format!(
        r#"[mysql]
admin = "mayfly"
from_host = "{}"
{section}
[[mysql.grants]]
scope = "orders:read"
on = "tables"
names = ["orders.orders"]
privileges = ["SELECT"]
[[mysql.grants]]
scope = "orders:write"
on = "tables"
names = ["orders.orders"]
privileges = ["SELECT", "INSERT", "UPDATE"]
[[mysql.grants]]
scope = "orders:write"
on = "databases"
names = ["team_a"]
privileges = ["SELECT", "INSERT", "CREATE", "TRIGGER", "CREATE VIEW", "CREATE ROUTINE", "EVENT"]
"#,
        host_of(name)
    );
    registration_of("mysql", name, target, &section)
}

impl Killed for MariaDb {
    const KIND: pb::CredentialKind = pb::CredentialKind::Mysql;
    const MAKING: &'static [(&'static str, When)] = &[
        // The lease is durable, and nothing was asked of the server.
        ("SELECT VERSION", When::Before),
        ("SELECT GET_LOCK", When::Before),
        // Asked, but not carried out: the statement arrives when mayfly is dead.
        ("CREATE USER", When::Before),
        // The user exists, and is locked.
        ("CREATE USER", When::After),
        ("GRANT SELECT, INSERT, UPDATE", When::Before),
        ("GRANT SELECT, INSERT, CREATE", When::After),
        // On its way: the user is unlocked when the server is dead.
        ("ALTER USER", When::Before),
        // Unlocked, but not answered.
        ("ALTER USER", When::After),
    ];
    const UNDOING: &'static [(&'static str, When)] = &[
        ("SELECT IS_USED_LOCK", When::After),
        ("ALTER USER", When::Before),
        ("ALTER USER", When::After),
        ("SELECT ID FROM", When::After),
        ("SELECT 'EVENT'", When::Before),
        ("DROP USER", When::Before),
        ("DROP USER", When::After),
    ];

    fn gate(&self) -> Gate {
        Gate::reading(self.port, mysql_statement)
    }

    fn rig(&self, name: &str, port: u16) -> Rig {
        let target = format!("mysql://127.0.0.1:{port}/orders");
        Rig::registered(name, &target, registration(name, &target, "plaintext = true"))
    }

    fn accounts(&self, name: &str) -> Vec<String> {
        self.users_of(name)
    }

    fn used(&self, login: &pb::DatabaseLogin) -> String {
        let mut client = self.client(&login.user, &login.password, &login.database);
        let used = client.args(["-e", "SELECT what FROM orders.orders WHERE id = 1"]).output();
        String::from_utf8(used.unwrap().stdout).unwrap()
    }
}
