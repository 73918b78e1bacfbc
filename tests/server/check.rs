//! `mayfly server validate` and `mayfly server run` refuse the same configurations, and neither begins an empty ledger in the place of a
//! lost one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld};

use crate::kit::{MAYFLY, world};
use crate::ports::Ports;

fn mayfly(args: &[&str], world: &DevWorld) -> Output {
    let mut command = Command::new(MAYFLY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    command.args(args).arg("--config").arg(world.config()).output().unwrap()
}

/// Runs `validate` and returns its result and output.
fn validate(world: &DevWorld, more: &[&str]) -> (bool, String) {
    let out = mayfly(&[&["server", "validate"], more].concat(), world);
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// Whether a server starts, and its output. A server that starts is ended.
fn run(world: &DevWorld) -> (bool, String) {
    let ready = DevWorld::ready_file(world.dir());
    let _ = fs::remove_file(&ready);
    let log = world.dir().join("run.log");
    let mut command = Command::new(MAYFLY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    command.args(["server", "run", "--config"]).arg(world.config()).arg("--ready-file").arg(&ready);
    let mut child = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let started = (0..1500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        if ready.exists() { Some(true) } else { child.try_wait().unwrap().map(|_| false) }
    });
    let _ = child.kill();
    let _ = child.wait();
    (started.expect("it neither starts nor ends"), fs::read_to_string(&log).unwrap())
}

/// Asserts that both commands refuse the configuration with this text.
#[track_caller]
fn both_refuse(world: &DevWorld, what: &str, said: &str) {
    let (starts, text) = run(world);
    assert!(!starts && text.contains(said), "run, {what}: {said:?} in\n{text}");
    let (fine, text) = validate(world, &[]);
    assert!(!fine && text.contains(said), "validate, {what}: {said:?} in\n{text}");
}

#[track_caller]
fn both_take(world: &DevWorld, what: &str) {
    let (fine, text) = validate(world, &[]);
    assert!(fine, "validate, {what}:\n{text}");
    let (starts, text) = run(world);
    assert!(starts, "run, {what}:\n{text}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set(world: &DevWorld, from: &str, to: &str) {
    let text = fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(from), "{from} in\n{text}");
    fs::write(world.config(), text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_is_wrong_beside_the_configuration_is_refused_by_both() {
    let (_dir, world) = world(DevSettings::default());
    both_take(&world, "a world in order");
    let key = world.svid("mayfly").key;
    mode(&key, 0o644);
    both_refuse(&world, "a key that others may read", "can be read by every user");
    mode(&key, 0o600);

    let sealing = world.dir().join("seal.key");
    let right = fs::read(&sealing).unwrap();
    fs::write(&sealing, [7; 32].map(|b: u8| b.wrapping_mul(3))).unwrap();
    both_refuse(&world, "one byte 32 times as the sealing key", "seal.key");
    let other: Vec<u8> = right.iter().map(|b| b ^ 0x5a).collect();
    fs::write(&sealing, other).unwrap();
    both_refuse(&world, "the sealing key of another store", "put the key of this store back");
    fs::remove_file(&sealing).unwrap();
    both_refuse(&world, "no sealing key", "seal.key");
    fs::write(&sealing, &right).unwrap();
    mode(&sealing, 0o600);
    set(&world, "key_file = \"seal.key\"", "credential = \"seal.key\"");
    both_refuse(&world, "no systemd credentials", "seal.credential");
    let (_, text) = validate(&world, &[]);
    assert!(!text.contains("seal.credential: seal.credential"), "{text}");
    set(&world, "credential = \"seal.key\"", "key_file = \"seal.key\"");

    let run_dir = world.dir().join("run");
    mode(&run_dir, 0o755);
    both_refuse(&world, "a socket directory that is open to others", "is open to others");
    mode(&run_dir, 0o700);
    let socket = run_dir.join("admin.sock");
    let _ = fs::remove_file(&socket);
    fs::write(&socket, "precious").unwrap();
    both_refuse(&world, "something else in the place of the socket", "is not a socket");
    fs::remove_file(&socket).unwrap();

    mode(&world.dir().join("data"), 0o755);
    both_refuse(&world, "a data directory that is open to others", "is open to others");
    mode(&world.dir().join("data"), 0o700);

    let ports = Ports::hold(1);
    let port = ports.at(0).port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    set(&world, "public = \"127.0.0.1:0\"", &format!("public = \"127.0.0.1:{port}\""));
    both_refuse(&world, "a port that is taken", &format!("127.0.0.1:{port}"));
    let (_, text) = validate(&world, &[]);
    assert!(text.contains(": listen.public: 127.0.0.1:") && !text.contains("listen.public: listen.public"), "{text}");
    drop(taken);
    both_take(&world, "all of it mended");
}

#[test]
fn an_svid_that_has_expired_is_refused_by_both() {
    let (_dir, world) = world(DevSettings { svid_life_ms: 1_000, ..DevSettings::default() });
    std::thread::sleep(Duration::from_millis(2_500));
    both_refuse(&world, "an SVID that has expired", "expired");
}

#[test]
fn policies_are_refused_by_both_until_the_ledger_has_them_and_by_neither_afterwards() {
    let (_dir, world) = world(DevSettings::default());
    let policy = world.dir().join("policy/policy.cedar");
    let good = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, "permit (").unwrap();
    both_refuse(&world, "a policy that is none", "policy.cedar");
    fs::write(&policy, &good).unwrap();
    both_take(&world, "mended before the first start took anything in");
    fs::write(&policy, "permit (").unwrap();
    both_take(&world, "the ledger has policies and counts");
    let (_, text) = validate(&world, &[]);
    assert!(text.contains("warning: ") && text.contains("a start goes on with what the ledger has"), "{text}");
}

/// A first start that is refused for any reason imports nothing: files that are fixed afterwards are imported by the next start.
#[test]
fn a_first_start_that_fails_leaves_the_files_to_be_mended() {
    let (_dir, world) = world(DevSettings::default());
    let ports = Ports::hold(1);
    let port = ports.at(0).port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    set(&world, "public = \"127.0.0.1:0\"", &format!("public = \"127.0.0.1:{port}\""));
    assert!(!run(&world).0);
    drop(taken);
    let echo = world.dir().join("policy/upstreams/echo.toml");
    let text = fs::read_to_string(&echo).unwrap();
    assert!(text.contains("max = \""), "{text}");
    let mended: String = text
        .lines()
        .map(|l| if l.trim_start().starts_with("max = \"") { "max = \"7m\"\n".into() } else { format!("{l}\n") })
        .collect();
    fs::write(&echo, mended).unwrap();
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let registered = running.authority().ledger.peek(|s| s.upstreams["echo"].text.clone());
    assert!(registered.contains("\"max\":420"), "{registered}");
    assert!(running.authority().drift.load().is_empty());
    running.stop();
    // From here on the file is only compared with the ledger, and the difference is reported.
    fs::write(&echo, text).unwrap();
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    assert!(running.authority().drift.load().iter().any(|what| what.contains("echo")), "{:?}", running.authority().drift.load());
    let metrics = running.authority().metrics().unwrap();
    assert!(metrics.contains("mayfly_policy_drift 1"), "{metrics}");
}

#[test]
fn a_store_in_use_is_told_apart_by_whose_it_is() {
    let ports = Ports::hold(3);
    let (_dir, world) = world(DevSettings { ports: mayfly::cli::dev::Ports::From(ports.at(0).port()), ..DevSettings::default() });
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let (fine, text) = validate(&world, &[]);
    assert!(fine && text.contains("the server that runs on it would take it"), "{text}");
    assert!(!text.contains("listen."), "its ports are its own: {text}");
    // The sealing key is compared with that of the running server.
    assert!(!text.contains("sealing key"), "{text}");
    let seal = world.dir().join("seal.key");
    let own = fs::read(&seal).unwrap();
    fs::write(&seal, own.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>()).unwrap();
    let (fine, text) = validate(&world, &[]);
    assert!(!fine && text.contains("seal.key_file") && text.contains("not the one that this store was made with"), "{text}");
    fs::write(&seal, own).unwrap();
    // A second server cannot start beside the first, and `validate` reports what a reload of the first would refuse.
    assert!(!run(&world).0);
    let good = fs::read_to_string(world.config()).unwrap();
    fs::write(
        world.config(),
        format!("{good}\n[[webhooks]]\nname = \"x\"\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"nowhere\"\n"),
    )
    .unwrap();
    let (fine, text) = validate(&world, &[]);
    assert!(!fine && text.contains("nowhere"), "{text}");
    fs::write(world.config(), good).unwrap();
    running.stop();
    let (fine, text) = validate(&world, &[]);
    assert!(fine && text.contains("a server would start on it"), "{text}");
    // The lock is held by another process.
    let lock = fs::File::open(world.dir().join("data")).unwrap();
    lock.lock().unwrap();
    let (fine, text) = validate(&world, &[]);
    assert!(!fine && text.contains("is in use") && text.contains("fuser -v"), "{text}");
    // The process may be the server of this configuration, which the check does not recognize: nothing that ends it is advised.
    assert!(text.contains("recognized at listen.admin_socket or at an unchanged port") && !text.contains("fuser -k"), "{text}");
    both_refuse(&world, "a store that another process has", "is in use");
}

/// A listener with another address than those of the running server is checked as for a start.
#[test]
fn the_listeners_of_a_changed_configuration_are_checked_while_the_server_runs() {
    let ports = Ports::hold(5);
    let (_dir, world) = world(DevSettings { ports: mayfly::cli::dev::Ports::From(ports.at(0).port()), ..DevSettings::default() });
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let good = fs::read_to_string(world.config()).unwrap();
    let (public, other, free) = (ports.at(2), ports.at(3), ports.at(4));
    // A process that has the port and says nothing.
    let taken = TcpListener::bind(other).unwrap();
    let moved = |key: &str, from: std::net::SocketAddr, to: std::net::SocketAddr| {
        let (from, to) = (format!("{key} = \"{from}\""), format!("{key} = \"{to}\""));
        assert!(good.contains(&from), "{from} in\n{good}");
        fs::write(world.config(), good.replacen(&from, &to, 1)).unwrap();
        validate(&world, &[])
    };
    let (fine, said) = moved("public", public, other);
    assert!(!fine && said.contains(&format!("listen.public: {other}: ")) && said.contains("a server runs on it"), "{said}");
    let (fine, said) = moved("public", public, free);
    assert!(fine && !said.contains("listen."), "{said}");
    assert!(said.contains("not checked: the store and the ledger in it"), "{said}");
    let (fine, said) = moved("public", public, "192.0.2.1:7445".parse().unwrap());
    assert!(!fine && said.contains("listen.public: 192.0.2.1:7445: "), "an address that this host does not have: {said}");
    // Without the socket, with another port for workloads: recognized at the port of the operators.
    let mut other_ways = good.replacen(&format!("workload = \"{}\"", ports.at(0)), &format!("workload = \"{free}\""), 1);
    other_ways = other_ways.lines().filter(|line| !line.starts_with("admin_socket")).map(|line| format!("{line}\n")).collect();
    fs::write(world.config(), &other_ways).unwrap();
    let (fine, said) = validate(&world, &[]);
    assert!(fine && said.contains("the server that runs on it would take it"), "{said}");
    // Nobody shows an SVID at a metrics listener without TLS, so nobody can tell who has the port.
    fs::write(world.config(), other_ways.replacen("[listen]\n", &format!("[listen]\nmetrics = \"{other}\"\n"), 1)).unwrap();
    let (fine, said) = validate(&world, &[]);
    assert!(fine && said.contains(&format!("not checked: listen.metrics: {other}")), "{said}");
    let (_, json) = validate(&world, &["-o", "json"]);
    assert!(json.contains("\"not_checked\"") && json.contains("listen.metrics"), "{json}");
    drop(taken);
    running.stop();
}

/// A server goes on with the bundle that it read, so a file that disappears says nothing of the server.
#[test]
fn a_server_runs_although_the_bundle_file_for_asking_it_is_gone() {
    let ports = Ports::hold(3);
    let (_dir, world) = world(DevSettings { ports: mayfly::cli::dev::Ports::From(ports.at(0).port()), ..DevSettings::default() });
    let health = || {
        let out = mayfly(&["server", "healthcheck"], &world);
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (bundle, gone) = (world.bundle(), world.dir().join("gone.pem"));
    // Without the socket the server can be asked at its port only, with the bundle.
    let text = fs::read_to_string(world.config()).unwrap();
    let without: String = text.lines().filter(|l| !l.starts_with("admin_socket")).map(|l| format!("{l}\n")).collect();
    for config in [text, without] {
        fs::write(world.config(), config).unwrap();
        let running = world.start().unwrap_or_else(|no| panic!("{no}"));
        fs::rename(&bundle, &gone).unwrap();
        let (fine, said) = health();
        assert!(!fine && said.contains("could not be asked: bundles.file of trust domain dev.mayfly.internal"), "{said}");
        assert!(said.contains("bundle.pem") && said.contains("No such file"), "{said}");
        assert!(!said.contains("whether it runs"), "{said}");
        let (fine, said) = validate(&world, &[]);
        assert!(fine && said.contains("the server that runs on it would take it"), "{said}");
        assert!(said.contains("bundle.pem") && !said.contains("fuser") && !said.contains("in use (os"), "{said}");
        fs::rename(&gone, &bundle).unwrap();
        assert!(health().0, "{}", health().1);
        running.stop();
    }
    // Nobody serves, and another process has the store.
    fs::rename(&bundle, &gone).unwrap();
    let lock = fs::File::open(world.dir().join("data")).unwrap();
    lock.lock().unwrap();
    let (fine, said) = validate(&world, &[]);
    assert!(!fine && said.contains("is in use") && said.contains("fuser -v"), "{said}");
}

/// Each way to lose the main file while the other files remain: no new ledger is begun, and the error leads back to the state that was in
/// effect.
#[test]
fn a_main_file_that_is_damaged_cut_or_gone_leads_to_a_backup_and_names_what_would_be_forgotten() {
    let (_dir, world) = world(DevSettings::default());
    world.start().unwrap_or_else(|no| panic!("{no}")).stop();
    let file = world.dir().join("data/ledger.redb");
    let whole = fs::read(&file).unwrap();
    let names = || -> Vec<_> {
        let mut names: Vec<_> = fs::read_dir(world.dir().join("data")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let damage: [(&str, Option<Vec<u8>>); 6] = [
        ("gone", None),
        ("empty", Some(Vec::new())),
        ("cut", Some(whole[..whole.len() / 2].to_vec())),
        ("cut to some bytes", Some(whole[..100].to_vec())),
        ("something else", Some(b"not a store of anything".repeat(400))),
        ("with its first pages overwritten", Some([vec![0xff; 8192], whole[8192..].to_vec()].concat())),
    ];
    for (what, bytes) in damage {
        match bytes {
            None => fs::remove_file(&file).unwrap(),
            Some(bytes) => fs::write(&file, bytes).unwrap(),
        }
        let before = names();
        let command = "mayfly server restore --config ";
        both_refuse(&world, what, command);
        let (_, text) = run(&world);
        for part in ["server backup", "--replace BACKUP", "mayfly server recover", "every lock", "revocation", "signing keys"] {
            assert!(text.contains(part), "{what}: {part:?} in\n{text}");
        }
        assert!(text.lines().all(|line| !line.contains("mv ") || line.contains("server restore")), "{what}:\n{text}");
        assert_eq!(names(), before, "{what}: nothing is made or removed");
        fs::write(&file, &whole).unwrap();
        mode(&file, 0o600);
    }
    both_take(&world, "the file is back");
}
