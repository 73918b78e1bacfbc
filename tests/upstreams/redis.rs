//! A Redis server of the tests, and the life of a login to it: made, used, revoked.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;

use super::cluster::{ADMIN_PASSWORD, SUPER_PASSWORD, certificates};
use super::gate::{Gate, PATIENCE, Watch, When, redis_command};
use super::kills::Killed;
use super::rig::{Rig, closed, login, registration_of, wanted_of};

const KIND: pb::CredentialKind = pb::CredentialKind::Redis;

pub struct RedisServer {
    pub port: u16,
    tls_port: u16,
    /// The certificate of the authority that signed the server's certificate, for `localhost`.
    ca_pem: String,
    dir: PathBuf,
}

/// The server, started once. `None` where Redis is not installed.
pub fn redis() -> Option<&'static RedisServer> {
    static SERVER: OnceLock<Option<RedisServer>> = OnceLock::new();
    let found = SERVER.get_or_init(|| Path::new("/usr/bin/redis-server").exists().then(RedisServer::start)).as_ref();
    if found.is_none() {
        crate::skipped::skipped("Redis is not installed (Debian's package redis-server)");
    }
    found
}

/// Runs until stdin is closed, which happens when the tests end, and leaves nothing behind.
const KEEPER: &str = r#"redis-server "$0/redis.conf" >"$0/log" 2>&1 & server=$!
cat >/dev/null; kill -KILL $server; wait $server; rm -rf "$0""#;

/// The rules of docs/upstreams/redis.md, section 1.
pub const RULES: &str = "-@all +acl|getuser +acl|setuser +acl|deluser +acl|save +client|setname +client|list +client|kill +ping";

impl RedisServer {
    fn start() -> RedisServer {
        let dir = tempfile::Builder::new().prefix("mayfly-redis-").tempdir().unwrap().keep();
        let root = rustix::process::geteuid().is_root();
        let ca_pem = certificates(&dir);
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, tls_port, at) = (port(), port(), dir.display());
        let users = format!("user default on >{SUPER_PASSWORD} ~* &* +@all\nuser mayfly on >{ADMIN_PASSWORD} {RULES}\n");
        let config = format!(
            "bind 127.0.0.1\nport {port}\ntls-port {tls_port}\ntls-cert-file {at}/server.crt\ntls-key-file {at}/server.key\n\
             tls-ca-cert-file {at}/server.crt\ntls-auth-clients no\ndir {at}\nsave \"\"\naclfile {at}/users.acl\n\
             slowlog-log-slower-than 0\nslowlog-max-len 100000\nloglevel verbose\n"
        );
        for (name, text) in [("users.acl", users), ("redis.conf", config)] {
            std::fs::write(dir.join(name), text).unwrap();
            closed(&dir.join(name), 0o600);
        }
        if root {
            std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
            for name in ["users.acl", "redis.conf"] {
                std::os::unix::fs::chown(dir.join(name), Some(65534), Some(65534)).unwrap();
            }
        }
        let mut keeper = Command::new("/bin/sh");
        if root {
            keeper.uid(65534).gid(65534);
        }
        keeper.args(["-c", KEEPER]).arg(&dir).current_dir("/").env_clear().env("PATH", "/usr/bin:/bin");
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The keeper ends the server when its stdin is closed, which is when this process ends.
        std::mem::forget(keeper);
        let server = RedisServer { port, tls_port, ca_pem, dir };
        for _ in 0..300 {
            if server.cli("default", SUPER_PASSWORD).arg("PING").output().unwrap().stdout == b"PONG\n" {
                server.admin(&["SET", "shop:1", "a book"]);
                server.admin(&["SET", "secret:1", "nobody's"]);
                return server;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("Redis did not start: {}", std::fs::read_to_string(server.dir.join("log")).unwrap_or_default());
    }

    /// `redis-cli` with this login.
    fn cli(&self, user: &str, password: &str) -> Command {
        let mut cli = Command::new("redis-cli");
        cli.env_clear().env("PATH", "/usr/bin:/bin").env("REDISCLI_AUTH", password);
        cli.args(["-h", "127.0.0.1", "--user", user, "-p"]).arg(self.port.to_string()).stdin(Stdio::null());
        cli
    }

    /// Executes a command as the administrator, and returns its lines.
    #[track_caller]
    fn admin(&self, words: &[&str]) -> Vec<String> {
        let done = self.cli("default", SUPER_PASSWORD).args(words).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success() && !text.contains("ERR"), "{words:?}: {text}");
        text.lines().map(str::to_owned).collect()
    }

    /// The users that mayfly made for an upstream. They have no comment, so each upstream of the tests grants a key of its own.
    fn users_of(&self, upstream: &str) -> Vec<String> {
        let all = self.admin(&["ACL", "LIST"]);
        let ours = all.iter().filter(|line| line.contains(&format!("~of:{upstream} ")));
        let names = ours.filter_map(|line| line.split(' ').nth(1).map(str::to_owned));
        names.collect::<BTreeSet<String>>().into_iter().collect()
    }

    fn sessions_of(&self, user: &str) -> usize {
        self.admin(&["CLIENT", "LIST"]).iter().filter(|line| line.contains(&format!(" user={user} "))).count()
    }
}

fn registration(name: &str, target: &str, section: &str) -> String {
    let section = format!(
        r#"[redis]
admin = "mayfly"
{section}
[[redis.grants]]
scope = "orders:read"
commands = ["@read"]
keys = ["of:{name}"]
read_keys = ["shop:*"]
[[redis.grants]]
scope = "orders:write"
commands = ["@read", "@write", "blpop", "publish"]
keys = ["of:{name}", "shop:*"]
channels = ["shop"]
[[redis.grants]]
scope = "orders:write"
commands = ["get"]
keys = ["other:*"]
"#
    );
    registration_of("redis", name, target, &section)
}

fn rig(server: &RedisServer, name: &str) -> Rig {
    let target = format!("redis://127.0.0.1:{}", server.port);
    Rig::registered(name, &target, registration(name, &target, "plaintext = true"))
}

/// What `redis-cli` prints for a command with this login: errors as well.
fn cli(server: &RedisServer, login: &pb::DatabaseLogin, words: &[&str]) -> String {
    let done = server.cli(&login.user, &login.password).args(words).output().unwrap();
    String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap()
}

fn settled(rig: &Rig, server: &RedisServer, name: &str) -> usize {
    rig.settled_with(|| server.users_of(name), name, "settled").len()
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Watch::start();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Killed for RedisServer {
    const KIND: pb::CredentialKind = KIND;
    const MAKING: &'static [(&'static str, When)] = &[
        // The lease is durable, and nothing was asked of the server.
        ("AUTH", When::Before),
        ("CLIENT SETNAME", When::Before),
        ("CLIENT SETNAME", When::After),
        // On its way: it arrives when mayfly is dead.
        ("ACL SETUSER", When::Before),
        // Carried out, but not answered.
        ("ACL SETUSER", When::After),
    ];
    const UNDOING: &'static [(&'static str, When)] = &[
        ("CLIENT LIST", When::After),
        ("ACL GETUSER", When::After),
        ("ACL SETUSER", When::Before),
        ("ACL SETUSER", When::After),
        ("ACL DELUSER", When::Before),
        ("ACL DELUSER", When::After),
        ("ACL SAVE", When::Before),
        ("ACL SAVE", When::After),
    ];

    fn gate(&self) -> Gate {
        Gate::reading(self.port, redis_command)
    }

    fn rig(&self, name: &str, port: u16) -> Rig {
        let target = format!("redis://127.0.0.1:{port}");
        Rig::registered(name, &target, registration(name, &target, "plaintext = true"))
    }

    fn accounts(&self, name: &str) -> Vec<String> {
        self.users_of(name)
    }

    fn used(&self, login: &pb::DatabaseLogin) -> String {
        cli(self, login, &["GET", "shop:1"])
    }
}

#[test]
fn a_user_of_redis_has_exactly_what_its_scope_grants_and_a_repeat_gets_the_same() {
    let Some(server) = redis() else { return };
    let rig = rig(server, "rdexact");
    let task = rig.open("rdexact");
    let issued = rig.exchange(wanted_of(KIND, "rdexact", &task, "orders:read", "one")).unwrap();
    let read = login(&issued);
    assert!(read.user.starts_with("mayfly_") && read.user.len() == 33 && read.plaintext, "{read:?}");
    assert_eq!((read.host.as_str(), read.port, read.database.as_str()), ("127.0.0.1", u32::from(server.port), "0"));
    assert_eq!(cli(server, &read, &["GET", "shop:1"]), "a book\n");
    let write = login(&rig.exchange(wanted_of(KIND, "rdexact", &task, "orders:write", "two")).unwrap());
    assert_ne!(write.user, read.user);
    assert_eq!(cli(server, &write, &["SET", "shop:2", "x"]), "OK\n");
    assert_eq!(cli(server, &write, &["PUBLISH", "shop", "x"]), "0\n");
    server.admin(&["SET", "other:1", "seen"]);
    assert_eq!(cli(server, &write, &["GET", "other:1"]), "seen\n");
    for (login, refused) in [
        (&read, &["SET", "shop:1", "x"][..]),
        (&read, &["GET", "secret:1"]),
        (&read, &["PUBLISH", "shop", "x"]),
        (&read, &["ACL", "WHOAMI"]),
        (&read, &["KEYS", "*"]),
        // The commands of one grant do not reach the keys of another.
        (&write, &["SET", "other:1", "x"]),
        (&write, &["PUBLISH", "elsewhere", "x"]),
        // @write has these, and no pattern of keys restricts them.
        (&write, &["FLUSHALL"]),
        (&write, &["SWAPDB", "0", "1"]),
        (&write, &["FUNCTION", "LOAD", "#!lua name=f\nredis.register_function('f', function() end)"]),
        (&write, &["FUNCTION", "FLUSH"]),
        (&write, &["ACL", "SETUSER", "more", "on"]),
        (&write, &["CONFIG", "GET", "*"]),
        (&write, &["CLIENT", "LIST"]),
    ] {
        let no = cli(server, login, refused);
        assert!(no.contains("NOPERM"), "{refused:?}: {no}");
    }
    let again = rig.exchange(wanted_of(KIND, "rdexact", &task, "orders:read", "one")).unwrap();
    assert_eq!(again.novelty(), pb::Novelty::Same);
    assert_eq!((login(&again), again.credential_id), (read, issued.credential_id));
    // A file of users that somebody else wrote meanwhile loses them as well.
    server.admin(&["ACL", "SAVE"]);
    let file = || std::fs::read_to_string(server.dir.join("users.acl")).unwrap();
    assert!(file().contains(&write.user));
    rig.complete(&task);
    assert_eq!(settled(&rig, server, "rdexact"), 0);
    assert!(!file().contains(&write.user) && file().contains("user mayfly "), "{}", file());
}

#[test]
fn revoking_ends_a_session_of_redis_within_a_second() {
    let Some(server) = redis() else { return };
    let rig = rig(server, "rdended");
    let task = rig.open("rdended");
    let issued = rig.exchange(wanted_of(KIND, "rdended", &task, "orders:write", "one")).unwrap();
    let write = login(&issued);
    let mut session = server.cli(&write.user, &write.password);
    let mut session = session.args(["BLPOP", "shop:queue", "600"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the session is there", || server.sessions_of(&write.user) == 1);
    rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    let acknowledged = Watch::start();
    session.wait().unwrap();
    let took = acknowledged.elapsed();
    println!("a session of redis-cli ended {} ms after the revocation was acknowledged", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(cli(server, &write, &["PING"]).contains("WRONGPASS"), "no new session");
    assert_eq!(settled(&rig, server, "rdended"), 0);
    assert_eq!(server.sessions_of(&write.user), 0);
}

/// A user of Redis may open as many sessions as the server takes.
#[test]
fn a_user_of_redis_is_undone_while_it_holds_every_session_of_the_server() {
    if redis().is_none() {
        return;
    }
    // A server of its own, which takes few sessions.
    let server = &RedisServer::start();
    let rig = rig(server, "rdfull");
    let task = rig.open("rdfull");
    let issued = rig.exchange(wanted_of(KIND, "rdfull", &task, "orders:write", "one")).unwrap();
    let write = login(&issued);
    server.admin(&["CONFIG", "SET", "maxclients", "30"]);
    let (stop, used) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let flood = || {
            while !stop.load(Ordering::SeqCst) {
                let Ok(mut session) = std::net::TcpStream::connect(("127.0.0.1", server.port)) else { continue };
                session.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut answer = [0; 64];
                let mut ask = |text: &str| {
                    let sent = session.write_all(text.as_bytes());
                    sent.and_then(|()| session.read(&mut answer)).is_ok_and(|n| n > 0 && matches!(answer[0], b'+' | b'$'))
                };
                if !ask(&format!("AUTH {} {}\r\n", write.user, write.password)) {
                    continue;
                }
                while !stop.load(Ordering::SeqCst) && ask("GET shop:1\r\n") {
                    used.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        };
        (0..60).for_each(|_| drop(scope.spawn(flood)));
        let full = || cli(server, &write, &["PING"]).contains("max number of clients");
        until("the server takes no more", || full() && used.load(Ordering::SeqCst) > 0);
        rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
        let gone = || rig.leases("rdfull", pb::UpstreamState::Pending).is_empty() && rig.active("rdfull").is_empty();
        let began = Watch::start();
        while !gone() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        let (took, before) = (began.elapsed(), used.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(200));
        let after = used.load(Ordering::SeqCst);
        stop.store(true, Ordering::SeqCst);
        assert!(took < PATIENCE, "the lease did not close beside the flood");
        assert_eq!(before, after, "the user reads nothing any more");
    });
    assert!(server.users_of("rdfull").is_empty());
}

#[test]
fn a_lease_of_redis_is_undone_after_its_registration_was_retired() {
    let Some(server) = redis() else { return };
    let mut rig = rig(server, "rdretired");
    let task = rig.open("rdretired");
    rig.exchange(wanted_of(KIND, "rdretired", &task, "orders:read", "one")).unwrap();
    let secret = rig.world.dir().join("secrets/rdretired.toml");
    let kept = std::fs::read_to_string(&secret).unwrap();
    std::fs::remove_file(&secret).unwrap();
    rig.operated(&["upstream", "retire", "rdretired", "--reason", "a test", "--confirm", "all"]);
    until("the missing file is told", || {
        rig.leases("rdretired", pb::UpstreamState::Pending).values().any(|l| l.last_error.contains("rdretired.toml"))
    });
    rig.kill();
    rig.start();
    std::fs::write(&secret, kept).unwrap();
    closed(&secret, 0o600);
    if let Some(lease) = rig.leases("rdretired", pb::UpstreamState::Pending).into_values().next() {
        // The lease may have been tried by itself in the meantime.
        rig.operate(&["lease", "retry", &lease.lease_id]);
    }
    until("it is undone", || server.users_of("rdretired").is_empty());
}

#[test]
fn a_redis_server_that_hangs_delays_no_other() {
    let Some(server) = redis() else { return };
    let gate = Gate::reading(server.port, redis_command);
    let (stuck, healthy) = (format!("redis://127.0.0.1:{}", gate.port), format!("redis://127.0.0.1:{}", server.port));
    let mut rig = Rig::new(&[
        ("rdstuck", registration("rdstuck", &stuck, "plaintext = true")),
        ("rdhealthy", registration("rdhealthy", &healthy, "plaintext = true")),
    ]);
    rig.secret("rdstuck", &stuck, ADMIN_PASSWORD);
    rig.secret("rdhealthy", &healthy, ADMIN_PASSWORD);
    rig.start();
    let (task, other) = (rig.open("rdstuck"), rig.open("rdhealthy"));
    rig.exchange(wanted_of(KIND, "rdstuck", &task, "orders:read", "before")).unwrap();
    gate.stick(true);
    rig.complete(&task);
    for n in 0..3 {
        let issued = rig.exchange(wanted_of(KIND, "rdhealthy", &other, "orders:read", &format!("{n}"))).unwrap();
        rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    }
    until("the healthy one is clean", || server.users_of("rdhealthy").is_empty());
    assert_eq!(server.users_of("rdstuck").len(), 1);
    gate.stick(false);
    assert_eq!(settled(&rig, server, "rdstuck"), 0);
}

#[test]
fn tls_to_redis_is_verified_by_the_roots_beside_the_secret() {
    let Some(server) = redis() else { return };
    let target = format!("redis://localhost:{}", server.tls_port);
    let rig = Rig::registered("rdverified", &target, registration("rdverified", &target, ""));
    let task = rig.open("rdverified");
    let no = rig.exchange(wanted_of(KIND, "rdverified", &task, "orders:read", "one")).unwrap_err();
    assert!(
        no.message().contains("UnknownIssuer") && no.message().contains("rdverified.pem"),
        "the system's roots did not sign it: {no}"
    );
    std::fs::write(rig.world.dir().join("secrets/rdverified.pem"), &server.ca_pem).unwrap();
    let read = login(&rig.exchange(wanted_of(KIND, "rdverified", &task, "orders:read", "two")).unwrap());
    assert!(!read.plaintext && read.server_ca_pem == server.ca_pem);
    let script =
        "redis-cli -h \"$REDIS_HOST\" -p \"$REDIS_PORT\" --user \"$REDIS_USERNAME\" --tls --cacert \"$REDIS_CACERT\" GET shop:1";
    let done =
        rig.demo().args(["exec", "--upstream", "rdverified", "--purpose", "a test", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "a book\n", "{}", String::from_utf8_lossy(&done.stderr));
    rig.complete(&task);
    assert_eq!(settled(&rig, server, "rdverified"), 0);
}

#[test]
fn each_missing_permission_of_mayflys_own_user_of_redis_is_named() {
    let Some(server) = redis() else { return };
    let target = format!("redis://127.0.0.1:{}", server.port);
    let mut rig = Rig::new(&[]);
    rig.start();
    assert!(rig.operated(&["upstream", "template", "redis"]).contains("[redis]"));
    let file = rig.world.dir().join("rdlacking.toml");
    let text = registration("rdlacking", &target, "plaintext = true").replace("admin = \"mayfly\"", "admin = \"newcomer\"");
    std::fs::write(&file, text).unwrap();
    rig.operated(&["upstream", "add", file.to_str().unwrap()]);
    rig.secret("rdlacking", &target, ADMIN_PASSWORD);
    let test = || {
        let done = rig.operate(&["-o", "json", "upstream", "test", "rdlacking"]);
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, told) = test();
    assert!(code == Some(6) && told.contains("WRONGPASS"), "there is no such user: {told}");
    server.admin(&["ACL", "SETUSER", "newcomer", "on", &format!(">{ADMIN_PASSWORD}"), "-@all", "+ping"]);
    for rule in ["+client|setname", "+acl|getuser", "+acl|deluser", "+client|kill", "+client|list", "+acl|setuser"] {
        let (code, told) = test();
        assert!(code == Some(6) && told.contains(&format!("ACL SETUSER newcomer {rule}")), "{rule} is not in: {told}");
        assert!(server.users_of("rdlacking").is_empty());
        server.admin(&["ACL", "SETUSER", "newcomer", rule]);
    }
    // Without this one, the user is gone, and the lease stays open until it was looked that no file brings the user back.
    let (code, told) = test();
    assert!(code == Some(6) && told.contains("ACL SETUSER newcomer +acl|save"), "{told}");
    server.admin(&["ACL", "SETUSER", "newcomer", "+acl|save"]);
    let (code, told) = test();
    assert_eq!(code, Some(0), "{told}");
    for step in ["make a credential with scope orders:read", "PING", "revoke it", "verify that it is gone"] {
        assert!(told.contains(step), "{step} is not in {told}");
    }
    assert_eq!(settled(&rig, server, "rdlacking"), 0);
}

#[test]
fn no_password_of_redis_is_anywhere() {
    let Some(server) = redis() else { return };
    let rig = rig(server, "rdmarked");
    let task = rig.open("rdmarked");
    let mut secrets = vec![ADMIN_PASSWORD.to_owned(), "wrong-marker-c71d".to_owned()];
    let mut told = String::new();
    for n in 0..2 {
        let issued = rig.exchange(wanted_of(KIND, "rdmarked", &task, "orders:write", &format!("{n}"))).unwrap();
        let login = login(&issued);
        assert_eq!(cli(server, &login, &["GET", "shop:1"]), "a book\n");
        secrets.push(login.password);
        told += &format!("{:?}", pb::Issued { answer: None, ..issued });
    }
    let target = format!("redis://127.0.0.1:{}", server.port);
    rig.secret("rdmarked", &target, &secrets[1]);
    let no = rig.exchange(wanted_of(KIND, "rdmarked", &task, "orders:read", "wrong")).unwrap_err();
    assert!(no.message().contains("WRONGPASS"), "{no}");
    told += &format!("{no:?}");
    rig.secret("rdmarked", &target, ADMIN_PASSWORD);
    for args in [
        &["upstream", "test", "rdmarked"][..],
        &["lease", "list", "-o", "json"],
        &["audit", "search", "-o", "json"],
        &["explain", &task],
    ] {
        let done = rig.operate(args);
        told += &String::from_utf8_lossy(&done.stdout);
        told += &String::from_utf8_lossy(&done.stderr);
    }
    // The server keeps the last commands, with their words.
    let kept = server.admin(&["SLOWLOG", "GET", "100000"]).join("\n");
    assert!(kept.contains("SETUSER") || kept.contains("(redacted)"), "{kept}");
    rig.complete(&task);
    assert_eq!(settled(&rig, server, "rdmarked"), 0);
    std::fs::remove_dir_all(rig.world.dir().join("secrets")).unwrap();
    let mut found = vec![("what was told".to_owned(), told.into_bytes()), ("the slow log".to_owned(), kept.into_bytes())];
    super::secrets::files(rig.world.dir(), &mut found);
    for name in ["log", "users.acl"] {
        found.push((format!("the server's {name}"), std::fs::read(server.dir.join(name)).unwrap()));
    }
    for (name, bytes) in &found {
        for secret in &secrets {
            // The server's own administrator wrote this password into the file, where it stays until the next ACL SAVE.
            if secret == ADMIN_PASSWORD && name == "the server's users.acl" {
                continue;
            }
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "{name} has a secret that begins with {}", &secret[..4]);
        }
    }
}
