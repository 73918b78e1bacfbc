//! Every refusal to start prints a command that fixes the problem and can be typed as shown.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use mayfly::cli::Cli;
use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::document::Diagnostic;
use mayfly::ledger::StartError;
use mayfly::ledger::commit::BadCommit;
use mayfly::refusal::{Error, Fault, Reason, Refusal};
use mayfly::sealing::{KeyFileError, SealError};
use mayfly::seq::Seq;
use mayfly::serve::unix::SocketError;
use mayfly::server::{StartFailure, StartProblem};
use mayfly::sources::config::{Config, SealingKeySource};
use mayfly::sources::files::FileProblem;
use mayfly::sources::workload_api::{AgentError, AgentErrorReason, Endpoint};
use mayfly::store::StoreError;

use crate::kit::world;

/// The name of each reason. A new reason does not compile until it is named here, and then the test fails until the reason is in the table.
fn name(why: &StartFailure) -> &'static str {
    match why {
        StartFailure::Config(_) => "config",
        StartFailure::Found(_) => "found",
        StartFailure::Files(_) => "files",
        StartFailure::Agent(_) => "agent",
        StartFailure::Policy(_) => "policy",
        StartFailure::KeyFile(_) => "key file",
        StartFailure::NoCredentials(_) => "no credentials",
        StartFailure::Seal { .. } => "seal",
        StartFailure::Ledger(_) => "ledger",
        StartFailure::Keys(_) => "keys",
        StartFailure::Port { .. } => "port",
        StartFailure::Socket(_) => "socket",
        StartFailure::Refused { .. } => "refused",
        StartFailure::Tls(_) => "tls",
        StartFailure::ReadyFile { .. } => "ready file",
        StartFailure::System { .. } => "system",
        StartFailure::Panic => "panic",
    }
}

const NAMES: usize = 17;

fn os(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}

fn in_the_ledger() -> Vec<(StartFailure, &'static str)> {
    let after: Seq = "41".parse().unwrap();
    let store = |error| StartFailure::Ledger(StartError::Store(error));
    let text = || "what it is".to_owned();
    let bad = || BadCommit::Malformed("not a commit".to_owned());
    vec![
        (
            StartFailure::Ledger(StartError::Damaged { after, position: 9, what: bad() }),
            "mayfly server recover --config CONFIG --after 41",
        ),
        (StartFailure::Ledger(StartError::NoSnapshot { oldest: 3, after }), "mayfly server recover --config CONFIG --after 41"),
        (
            StartFailure::Ledger(StartError::Behind { head: 3, seen: 9, after }),
            "mayfly server recover --config CONFIG --after 41",
        ),
        (StartFailure::Ledger(StartError::Lost { head: 3, seen: 9, after }), "mayfly server recover --config CONFIG --after 41"),
        (StartFailure::Ledger(StartError::Write(text())), "df -h DATA"),
        (store(StoreError::InUse(text())), "fuser -k -TERM DATA/ledger.redb"),
        (store(StoreError::Full(text())), "df -h DATA"),
        (store(StoreError::Foreign(text())), "mayfly server restore --config CONFIG --replace BACKUP"),
        (store(StoreError::Foreign("this mayfly reads 3".into())), "mayfly --version"),
        (store(StoreError::Damaged { at: 0, what: text() }), "mayfly server restore --config CONFIG --replace BACKUP"),
        (store(StoreError::Failed(text())), "install -d -m 700 -o "),
        (store(StoreError::TooLarge { what: "x", bound: 1 }), "ls -ld DATA"),
        (StartFailure::Keys(Fault::new("no key")), "mayfly server restore --config CONFIG --replace BACKUP"),
    ]
}

fn of_the_key() -> Vec<(StartFailure, &'static str)> {
    let path = || PathBuf::from("/etc/mayfly/seal.key");
    let seal = |error| StartFailure::Seal { error, key: SealingKeySource::KeyFile(path()) };
    vec![
        (StartFailure::KeyFile(KeyFileError::Missing(path())), "umask 077 && head -c 32 /dev/urandom > /etc/mayfly/seal.key"),
        (StartFailure::KeyFile(KeyFileError::WrongSize { path: path(), found: "3 bytes".into() }), "install -m 600 "),
        (StartFailure::KeyFile(KeyFileError::NotRandom(path())), "install -m 600 "),
        (
            StartFailure::KeyFile(KeyFileError::InsideData { key: "/d/data/key".into(), data: "/d/data".into() }),
            "mv /d/data/key /d",
        ),
        (StartFailure::KeyFile(KeyFileError::OpenToOthers { path: path(), mode: 0o644 }), "chmod 600 /etc/mayfly/seal.key"),
        (StartFailure::KeyFile(KeyFileError::NotAFile(path())), "head -c 32 /dev/urandom > /etc/mayfly/seal.key.key"),
        (
            StartFailure::KeyFile(KeyFileError::Unreadable { path: path(), why: os(rustix::io::Errno::ACCESS) }),
            "ls -l /etc/mayfly/seal.key",
        ),
        (
            StartFailure::NoCredentials("mayfly-seal".into()),
            "systemd-run --pipe -p LoadCredential=mayfly-seal:/etc/mayfly/seal.key mayfly",
        ),
        (seal(SealError::WrongKey), "install -m 600 BACKUP-OF-THE-KEY /etc/mayfly/seal.key"),
        (
            StartFailure::Seal { error: SealError::WrongKey, key: SealingKeySource::Credential("mayfly-seal".into()) },
            "systemctl cat mayfly",
        ),
        (seal(SealError::NoCheck), "mayfly server restore --config CONFIG --replace BACKUP"),
        (seal(SealError::Malformed("x".into())), "--replace BACKUP"),
        (seal(SealError::NotOpened("x".into())), "--replace BACKUP"),
        (seal(SealError::NotSealed("x".into())), "--replace BACKUP"),
        (seal(SealError::Store(StoreError::Full("x".into()))), "df -h DATA"),
    ]
}

fn of_the_host() -> Vec<(StartFailure, &'static str)> {
    use rustix::io::Errno;
    let port = |errno| StartFailure::Port { key: "listen.public", address: "0.0.0.0:443".parse().unwrap(), error: os(errno) };
    let system = |errno| StartFailure::System { what: "a thread", error: os(errno) };
    let socket = || PathBuf::from("/run/mayfly/admin.sock");
    vec![
        (port(Errno::ADDRINUSE), "ss -ltnp 'sport = :443'"),
        (port(Errno::ACCESS), "setcap cap_net_bind_service=+ep \"$(command -v mayfly)\""),
        (port(Errno::ADDRNOTAVAIL), "ip -brief address"),
        (
            StartFailure::Socket(SocketError::OpenDirectory { dir: "/run/mayfly".into(), mode: 0o755, closed: 0o700 }),
            "chmod 700 /run/mayfly",
        ),
        (
            StartFailure::Socket(SocketError::OpenDirectory { dir: "/run".into(), mode: 0o755, closed: 0o711 }),
            "install -d -m 711 -o ",
        ),
        (StartFailure::Socket(SocketError::InUse(socket())), "ss -xlp src /run/mayfly/admin.sock"),
        (StartFailure::Socket(SocketError::NotASocket(socket())), "mv /run/mayfly/admin.sock /run/mayfly/admin.sock.old"),
        (
            StartFailure::Socket(SocketError::Io { path: socket(), what: "binding", error: os(Errno::ACCESS) }),
            "install -d -m 700 -o ",
        ),
        (StartFailure::ReadyFile { path: "/run/mayfly/ready.json".into(), error: os(Errno::NOENT) }, "install -d -m 700 -o "),
        (system(Errno::MFILE), "ulimit -n 65536"),
        (system(Errno::NFILE), "sysctl -w fs.file-max="),
        (system(Errno::AGAIN), "ulimit -u 4096"),
        (system(Errno::NOMEM), "free -m"),
        (system(Errno::PERM), "ulimit -a"),
        (StartFailure::Tls("no".into()), "mayfly server validate --config CONFIG"),
        (StartFailure::Panic, "RUST_BACKTRACE=1 MAYFLY_LOG=debug mayfly server run --config CONFIG"),
    ]
}

/// Every reason, with a command that must be present. CONFIG and DATA stand for the paths.
fn table() -> Vec<(StartFailure, &'static str)> {
    let complaint = || vec![Diagnostic::about("mayfly.toml", "lacks x", "each is required")];
    let file = || vec![FileProblem::new(Path::new("/etc/mayfly/svid.pem"), "is empty", "it holds the certificate")];
    let agent = || {
        let (endpoint, what, remedy) = (Endpoint::Unix("/run/agent.sock".into()), "it is away".to_owned(), "start it".to_owned());
        Box::new(AgentError { why: AgentErrorReason::Away, endpoint, what, remedy })
    };
    let refused = |no: Error| StartFailure::Refused { what: "the policies".into(), no: Box::new(no) };
    let refusal = |reason| Error::Refusal(Refusal::new(reason, "no"));
    let mut all = vec![
        (StartFailure::Config(complaint()), "mayfly server validate --config CONFIG"),
        (StartFailure::Found(complaint()), "mayfly server validate --config CONFIG"),
        (StartFailure::Files(file()), "mayfly server validate --config CONFIG"),
        (StartFailure::Agent(agent()), "mayfly server validate --config CONFIG"),
        (StartFailure::Policy(complaint()), "mayfly server validate --config CONFIG"),
        (refused(refusal(Reason::InvalidField)), "mayfly server validate --config CONFIG"),
        (refused(Error::Fault(Fault::new("broke"))), "mayfly server run --config CONFIG"),
        (refused(refusal(Reason::DiskReserve)), "df -h DATA"),
        (refused(refusal(Reason::ClockSkew)), "timedatectl"),
    ];
    all.extend(in_the_ledger());
    all.extend(of_the_key());
    all.extend(of_the_host());
    all
}

/// The words into which a shell splits a command.
fn words(command: &str) -> Vec<String> {
    let out = Command::new("sh").args(["-c", &format!("printf '%s\\n' {command}")]).output().unwrap();
    assert!(out.status.success(), "{command}");
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Each `mayfly server …` command in a text, up to the end of its line or the next command.
fn of_ours(text: &str) -> Vec<String> {
    let in_line = |line: &str| -> Vec<String> {
        line.match_indices("mayfly server ").map(|(at, _)| line[at..].split(" && ").next().unwrap().to_owned()).collect()
    };
    text.lines().flat_map(in_line).collect()
}

#[test]
fn every_refusal_to_start_prints_a_command_that_can_be_typed_as_it_stands() {
    // A path that a shell would split.
    let (_dir, world) = world(DevSettings::default());
    let path = world.dir().join("my mayfly's.toml");
    let text = fs::read_to_string(world.config()).unwrap().replace("path = \"data\"", "path = \"my data\"");
    fs::write(&path, text).unwrap();
    let config = Config::load(&path, []).unwrap();
    let typed = format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let mut seen = BTreeSet::new();
    for (why, command) in table() {
        let what = format!("{why:?}");
        seen.insert(name(&why));
        let problem = StartProblem::new(why, &config);
        let text = problem.to_string();
        let dir = world.dir().join("my data").display().to_string();
        // The path of the file in the data directory is quoted as a whole.
        let wanted = command.replace("CONFIG", &typed).replace("DATA/ledger.redb", &format!("'{dir}/ledger.redb'"));
        let wanted = wanted.replace("DATA", &format!("'{dir}'"));
        assert!(text.lines().skip(1).any(|line| line.contains(&wanted)), "{what}: no {wanted:?} in\n{text}");
        assert!(problem.remedies().iter().all(|r| !r.what.is_empty() && !r.command.is_empty()), "{what}");
        for ours in of_ours(&text) {
            let words = words(&ours);
            assert!(Cli::try_parse_from(&words).is_ok(), "{what}: {ours}");
            assert!(words.windows(2).any(|w| w[0] == "--config" && Path::new(&w[1]) == path), "{what}: {ours}");
        }
    }
    assert_eq!(seen.len(), NAMES, "{seen:?}");
}

/// Runs a remedy of a refused start as an operator would type it.
fn mend(world: &DevWorld, which: usize) {
    let problem = match world.start() {
        Ok(_) => panic!("it starts"),
        Err(problem) => problem,
    };
    let text = problem.to_string();
    // The error of a store that is not private contains the command in its text.
    let embedded = text.lines().find_map(|l| l.trim().strip_prefix("to mend it: ").map(str::to_owned));
    let command = problem.remedies().get(which).map(|r| r.command.clone()).or(embedded);
    let command = command.unwrap_or_else(|| panic!("{text}"));
    let done = Command::new("sh").args(["-c", &command]).current_dir(world.dir()).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    world.start().unwrap_or_else(|no| panic!("after {command}:\n{no}")).stop();
}

#[test]
fn what_a_refusal_prints_mends_it() {
    let mode = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let started = || {
        let (dir, world) = world(DevSettings::default());
        world.start().unwrap_or_else(|no| panic!("{no}")).stop();
        (dir, world)
    };
    let (_dir, world) = started();
    mode(world.dir().join("data"), 0o755);
    mend(&world, 0);
    mode(world.dir().join("data/ledger.redb"), 0o644);
    mend(&world, 0);
    mode(world.dir().join("seal.key"), 0o640);
    mend(&world, 0);
    mode(world.dir().join("run"), 0o755);
    mend(&world, 0);
    fs::write(world.dir().join("run/admin.sock"), "precious").unwrap();
    mend(&world, 0);
    assert_eq!(fs::read(world.dir().join("run/admin.sock.old")).unwrap(), b"precious");
    // The remedy is for a new store; an existing store needs its own key back.
    fs::remove_dir_all(world.dir().join("data")).unwrap();
    fs::remove_file(world.dir().join("seal.key")).unwrap();
    mend(&world, 1);
    mode(world.dir().join("seal.key"), 0o600);
    fs::copy(world.dir().join("seal.key"), world.dir().join("BACKUP-OF-THE-KEY")).unwrap();
    fs::write(world.dir().join("seal.key"), "cut").unwrap();
    mend(&world, 0);
}

#[test]
fn a_backup_that_is_put_back_as_it_is_printed_goes_on_in_a_new_generation() {
    let (_dir, world) = world(DevSettings::default());
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let context = world.write_context("operator/you", running.addresses().admin).unwrap();
    let mut take = Command::new(crate::kit::MAYFLY);
    take.arg("--config").arg(context).args(["server", "backup", "--to"]).arg(world.dir().join("BACKUP"));
    assert!(take.status().unwrap().success());
    running.stop();
    // The first pages are destroyed: no engine can read the rest.
    let file = world.dir().join("data/ledger.redb");
    let mut bytes = fs::read(&file).unwrap();
    bytes[64..512].fill(0xff);
    fs::write(&file, bytes).unwrap();
    let problem = world.start().err().unwrap_or_else(|| panic!("it starts"));
    let command = problem.remedies().first().map(|r| r.command.clone()).unwrap_or_else(|| panic!("{problem}"));
    let command = command.replace("mayfly server", &format!("{} server", crate::kit::MAYFLY));
    let done = Command::new("sh").args(["-c", &command]).current_dir(world.dir()).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(running.authority().ledger.durable().generation(), 2);
}
