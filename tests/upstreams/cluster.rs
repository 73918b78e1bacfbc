//! A PostgreSQL server of the tests. It ends with the process of the tests, however that ends.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The password of the superuser `super`, which only the tests use.
pub const SUPER_PASSWORD: &str = "super-marker-4af1";
/// The password of mayfly's own role.
pub const ADMIN_PASSWORD: &str = "admin-marker-93c2";

pub struct Cluster {
    pub port: u16,
    /// The certificate of the authority that signed the server's certificate, for `localhost`.
    pub ca_pem: String,
    /// The file that the server logs to.
    pub log: PathBuf,
    bin: PathBuf,
}

/// The server, started once. `None` where PostgreSQL is not installed.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let found = CLUSTER.get_or_init(|| Some(Cluster::start(&bin()?))).as_ref();
    if found.is_none() {
        crate::skipped::skipped("PostgreSQL is not installed (Debian's package postgresql)");
    }
    found
}

/// The newest installed version.
fn bin() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut all: Vec<PathBuf> =
        versions.filter_map(|e| Some(e.ok()?.path().join("bin"))).filter(|b| b.join("initdb").exists()).collect();
    all.sort();
    all.pop()
}

/// PostgreSQL refuses to run as root: then it runs as `nobody`.
fn unprivileged(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/")
}

/// Runs until stdin is closed, which happens when the tests end, and leaves nothing behind.
const KEEPER: &str = r#""$0/postgres" -D "$1/data" >"$1/log" 2>&1 & server=$!
cat >/dev/null; kill -INT $server; wait $server; rm -rf "$1""#;

impl Cluster {
    fn start(bin: &Path) -> Cluster {
        let dir = tempfile::Builder::new().prefix("mayfly-postgres-").tempdir().unwrap().keep();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
        }
        let password = dir.join("password");
        std::fs::write(&password, SUPER_PASSWORD).unwrap();
        std::os::unix::fs::chown(&password, Some(65534), Some(65534)).unwrap_or(());
        let mut initdb = Command::new(bin.join("initdb"));
        initdb.arg("-D").arg(dir.join("data")).args(["-U", "super", "-A", "scram-sha-256", "-N"]).arg("--pwfile").arg(&password);
        let made = unprivileged(&mut initdb).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let ca_pem = certificates(&dir.join("data"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\nmax_connections = 100\n\
             ssl = on\nlog_statement = 'all'\nlog_connections = on\n"
        );
        let config = dir.join("data/postgresql.conf");
        std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &settings).unwrap();
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER]).arg(bin).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = unprivileged(&mut keeper).spawn().unwrap();
        // The keeper ends the server when its stdin is closed, which is when this process ends.
        std::mem::forget(keeper);
        let cluster = Cluster { port, ca_pem, log: dir.join("log"), bin: bin.to_owned() };
        for _ in 0..300 {
            if cluster.try_sql("postgres", "SELECT 1").status.success() {
                cluster.prepare();
                return cluster;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL did not start: {}", std::fs::read_to_string(&cluster.log).unwrap_or_default());
    }

    /// Executes the statements of docs/upstreams/postgres.md, section 1, and makes the tables of the tests.
    fn prepare(&self) {
        self.sql("postgres", "CREATE DATABASE orders");
        self.sql("postgres", "CREATE DATABASE archive");
        self.sql(
            "orders",
            &format!(
                "CREATE ROLE mayfly LOGIN CREATEROLE PASSWORD '{ADMIN_PASSWORD}';
                 CREATE ROLE orders_owner; GRANT orders_owner TO mayfly;
                 CREATE TABLE public.orders (id int PRIMARY KEY, what text); INSERT INTO public.orders VALUES (1, 'a book');
                 CREATE TABLE public.\"Odd \"\"Name\"\"\" (id int);
                 CREATE TABLE public.secrets (id int);
                 CREATE SEQUENCE public.numbers; CREATE TABLE public.bin (id int);
                 GRANT USAGE ON SEQUENCE public.numbers TO mayfly WITH GRANT OPTION;
                 GRANT DELETE, TRUNCATE ON public.bin TO mayfly WITH GRANT OPTION;
                 GRANT SELECT, INSERT, UPDATE ON public.orders TO mayfly WITH GRANT OPTION;
                 GRANT SELECT ON public.\"Odd \"\"Name\"\"\" TO mayfly WITH GRANT OPTION;
                 GRANT USAGE, CREATE ON SCHEMA public TO mayfly WITH GRANT OPTION;"
            ),
        );
        self.sql("archive", "GRANT CREATE ON SCHEMA public TO PUBLIC");
        self.sql("postgres", "CREATE DATABASE walled");
        self.sql("postgres", "REVOKE CONNECT ON DATABASE walled FROM PUBLIC; GRANT CONNECT ON DATABASE walled TO mayfly");
    }

    /// `psql` with this login.
    pub fn psql(&self, user: &str, password: &str, database: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.env_clear().env("PATH", "/usr/bin:/bin").env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        psql.env("PGUSER", user).env("PGPASSWORD", password).env("PGDATABASE", database).env("PGCONNECT_TIMEOUT", "5");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::null());
        psql
    }

    fn try_sql(&self, database: &str, statements: &str) -> Output {
        self.psql("super", SUPER_PASSWORD, database).arg("-c").arg(statements).output().unwrap()
    }

    /// Executes statements as the superuser, and returns their rows.
    #[track_caller]
    pub fn sql(&self, database: &str, statements: &str) -> Vec<String> {
        let done = self.try_sql(database, statements);
        assert!(done.status.success(), "{statements}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The roles that mayfly made for an upstream.
    pub fn roles_of(&self, upstream: &str) -> Vec<String> {
        self.sql(
            "postgres",
            &format!(
                "SELECT rolname FROM pg_authid JOIN pg_shdescription ON objoid = pg_authid.oid \
                 WHERE classoid = 'pg_authid'::regclass AND description LIKE 'made by mayfly: %, upstream {upstream}' ORDER BY 1"
            ),
        )
    }
}

/// Writes the key and the certificate of the server; returns the authority's certificate.
pub fn certificates(data: &Path) -> String {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "authority of the tests");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in [("server.crt", leaf.pem()), ("server.key", key.serialize_pem())] {
        let path = data.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        }
    }
    ca_pem
}
