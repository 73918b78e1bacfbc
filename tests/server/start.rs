//! Starts, and every reason why a start is refused, with its remedy. Most of them in a process of their own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::ledger::recovery::recover::RecoverError;
use mayfly::server::recover::{NotRecovered, recover};
use mayfly::store::Store;
use mayfly::store::redb::{self, StoreOptions};
use mayfly::system::System;

use crate::kit::{MAYFLY, healthy, open_task, world};
use crate::ports::Ports;

fn mayfly(args: &[&str], config: &Path) -> Output {
    let mut command = Command::new(MAYFLY);
    command.args(args).arg("--config").arg(config);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// A refused start: the exit code and the error text.
fn refused(world: &DevWorld) -> (i32, String) {
    let out = mayfly(&["server", "run"], &world.config());
    (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
}

#[track_caller]
fn refuses(world: &DevWorld, code: i32, all: &[&str]) {
    let (got, said) = refused(world);
    assert_eq!(got, code, "{said}");
    for part in all {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

fn set(world: &DevWorld, from: &str, to: &str) {
    let text = fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(from));
    fs::write(world.config(), text.replace(from, to)).unwrap();
}

#[test]
fn a_configuration_that_is_wrong_is_told_with_its_line() {
    let (_dir, world) = world(DevSettings::default());
    set(&world, "[store]", "[store]\nspeed = 11");
    refuses(&world, 2, &["mayfly.toml:", "speed"]);
    let out = mayfly(&["server", "validate"], &world.config());
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stdout).contains("speed"));
    assert_eq!(mayfly(&["server", "run"], Path::new("/nowhere/mayfly.toml")).status.code(), Some(2));
}

#[test]
fn validate_looks_at_what_is_named_and_starts_nothing() {
    let (_dir, world) = world(DevSettings::default());
    let good = mayfly(&["server", "validate"], &world.config());
    assert_eq!((good.status.code(), good.stdout.len()), (Some(0), 0), "{}", String::from_utf8_lossy(&good.stdout));
    assert!(!world.dir().join("data").exists());
    fs::remove_file(world.svid("mayfly").certificate).unwrap();
    let bad = mayfly(&["server", "validate"], &world.config());
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stdout).contains("error: "), "{}", String::from_utf8_lossy(&bad.stdout));
}

#[test]
fn what_server_commands_say_comes_as_json_too() {
    let (_dir, world) = world(DevSettings::default());
    let json = |out: &Output| serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let good = mayfly(&["server", "validate", "-o", "json"], &world.config());
    assert_eq!((good.status.code(), json(&good)), (Some(0), serde_json::json!({"starts": true, "findings": []})));
    set(&world, "[store]", "[store]\nfoo = 3");
    let bad = mayfly(&["server", "validate", "-o", "json"], &world.config());
    let told = json(&bad);
    assert_eq!((bad.status.code(), &told["starts"]), (Some(1), &serde_json::Value::Bool(false)));
    let found = &told["findings"][0];
    assert_eq!((found["severity"].as_str(), found["what"].as_str()), (Some("error"), Some("unknown key store.foo")));
    assert!(found["line"].as_u64() > Some(0) && found["remedy"].as_str().is_some_and(|r| r.contains("disk_reserve")), "{told}");
    set(&world, "\nfoo = 3", "");
    world.start().unwrap_or_else(|no| panic!("{no}")).stop();
    let done = mayfly(&["server", "recover", "--after", "0", "-o", "json"], &world.config());
    assert_eq!((json(&done)["generation"].as_u64(), json(&done)["kept_seq"].as_u64()), (Some(2), Some(0)), "{done:?}");
    let down = mayfly(&["server", "healthcheck", "-o", "json"], &world.config());
    let told: serde_json::Value = serde_json::from_slice(&down.stderr).unwrap();
    assert_eq!((down.status.code(), told["error"]["exit_code"].as_u64()), (Some(1), Some(1)), "{told}");
}

#[test]
fn certificates_that_are_missing_or_somebody_elses() {
    let (_dir, world) = world(DevSettings::default());
    let own = world.svid("mayfly");
    set(&world, "trust_domain = \"dev.mayfly.internal\"\n\n[store]", "trust_domain = \"other.example\"\n\n[store]");
    refuses(&world, 1, &["spiffe://dev.mayfly.internal/mayfly", "other.example"]);
    set(&world, "\"other.example\"", "\"dev.mayfly.internal\"");
    fs::copy(world.svid("ci/demo").key, &own.key).unwrap();
    refuses(&world, 1, &["key.pem", "does not belong"]);
    fs::remove_file(&own.key).unwrap();
    refuses(&world, 1, &["key.pem", "check the path"]);
}

#[test]
fn a_first_start_needs_its_policies_and_bundles() {
    let (_dir, world) = world(DevSettings::default());
    fs::write(world.bundle(), "").unwrap();
    refuses(&world, 1, &["bundle.pem", "is empty", "keys"]);
    fs::write(world.dir().join("policy/policy.cedar"), "permit (").unwrap();
    refuses(&world, 1, &["policy.cedar"]);
}

#[test]
fn the_sealing_key_lies_outside_the_data_is_closed_and_is_the_right_one() {
    let (_dir, world) = world(DevSettings::default());
    let key = world.dir().join("seal.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&world, 1, &["seal.key", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let data = world.dir().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(&key, data.join("seal.key")).unwrap();
    set(&world, "key_file = \"seal.key\"", "key_file = \"data/seal.key\"");
    refuses(&world, 1, &["inside the data directory", "mv "]);
    set(&world, "key_file = \"data/seal.key\"", "key_file = \"seal.key\"");
    drop(world.start().unwrap_or_else(|no| panic!("{no}")));
    fs::write(&key, [7; 31].iter().chain(&[8]).copied().collect::<Vec<u8>>()).unwrap();
    refuses(&world, 1, &["not the one that this store was made with", "install -m 600"]);
    fs::remove_file(&key).unwrap();
    refuses(&world, 1, &["no sealing key", "head -c 32 /dev/urandom"]);
    set(&world, "key_file = \"seal.key\"", "credential = \"mayfly-seal\"");
    refuses(&world, 1, &["LoadCredential=mayfly-seal"]);
}

#[test]
fn a_store_that_is_in_use_or_no_store() {
    let (_dir, world) = world(DevSettings::default());
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    refuses(&world, 1, &["in use", "fuser -v"]);
    drop(running);
    fs::write(world.dir().join("data/ledger.redb"), "not a store").unwrap();
    refuses(&world, 1, &["no store of mayfly", "server restore --config", "--replace BACKUP"]);
    fs::set_permissions(world.dir().join("data"), fs::Permissions::from_mode(0o755)).unwrap();
    refuses(&world, 1, &["open to others", "chmod 700"]);
}

#[test]
fn memory_beside_a_store_would_forget_its_rules_and_is_refused() {
    let (_dir, world) = world(DevSettings::default());
    world.start().unwrap_or_else(|no| panic!("{no}")).stop();
    let before = fs::read_to_string(world.config()).unwrap();
    let mend = |said: &str| {
        let command =
            said.lines().find_map(|l| l.trim().strip_prefix("to serve what is in it: ")).unwrap_or_else(|| panic!("{said}"));
        command.to_owned()
    };
    set(&world, "engine = \"redb\"", "engine = \"memory\"");
    refuses(&world, 2, &["mayfly.toml:", "there is a store in", "its rules, locks and tasks", "mayfly server validate --config"]);
    let command = mend(&refused(&world).1);
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    assert_eq!(fs::read_to_string(world.config()).unwrap(), before, "{command}");
    world.start().unwrap_or_else(|no| panic!("{no}")).stop();
    // The environment variable works as well.
    let run = |variable: Option<&str>| {
        let mut command = Command::new(MAYFLY);
        command.args(["server", "validate", "--config"]).arg(world.config());
        variable.map(|engine| command.env("MAYFLY_STORE_ENGINE", engine));
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let (code, said) = run(Some("memory"));
    assert_eq!((code, mend(&said).as_str()), (Some(1), "unset MAYFLY_STORE_ENGINE"), "{said}");
    assert_eq!(run(None).0, Some(0));
}

#[test]
fn another_engines_store_would_be_forgotten_and_is_refused() {
    for (kept, other) in
        [(DevEngine::Redb, DevEngine::Sled), (DevEngine::Sled, DevEngine::Redb), (DevEngine::Sled, DevEngine::Memory)]
    {
        let (_dir, world) = world(DevSettings { engine: kept, ..DevSettings::default() });
        world.start().unwrap_or_else(|no| panic!("{no}")).stop();
        let before = fs::read_to_string(world.config()).unwrap();
        let (had, has) = (format!("engine = \"{}\"", kept.name()), format!("engine = \"{}\"", other.name()));
        set(&world, &had, &has);
        refuses(&world, 2, &["mayfly.toml:", "there is a store in", "its rules, locks and tasks"]);
        let said = refused(&world).1;
        let command = said.lines().find_map(|l| l.trim().strip_prefix("to serve what is in it: ")).unwrap();
        assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
        assert_eq!(fs::read_to_string(world.config()).unwrap(), before, "{command}");
        world.start().unwrap_or_else(|no| panic!("{no}")).stop();
    }
}

#[test]
fn a_port_that_is_taken() {
    let (_dir, world) = world(DevSettings::default());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    set(&world, "admin = \"127.0.0.1:0\"", &format!("admin = \"127.0.0.1:{port}\""));
    refuses(&world, 1, &["listen.admin", &format!("ss -ltnp 'sport = :{port}'")]);
}

fn damaged(world: &DevWorld) -> u64 {
    let (head, opened) = {
        let running = world.start().unwrap_or_else(|no| panic!("{no}"));
        let ledger = &running.authority().ledger;
        (ledger.durable().as_u64(), ledger.store().head().unwrap())
    };
    let options = StoreOptions { reserve_bytes: 0, ..StoreOptions::new([0; 16]) };
    let store = redb::open(&world.dir().join("data"), &options).unwrap();
    store.append(opened + 1, b"not a commit").unwrap();
    head
}

#[test]
fn a_damaged_ledger_is_refused_with_the_command_that_mends_it_and_the_command_does() {
    let (_dir, world) = world(DevSettings::default());
    let head = damaged(&world);
    let (code, said) = refused(&world);
    assert_eq!(code, 1);
    let command = said.lines().find_map(|l| l.trim().strip_prefix("to mend it: mayfly ")).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(command, format!("server recover --config {} --after {head}", world.config().display()));
    let recovered = Command::new(MAYFLY).args(command.split(' ')).output().unwrap();
    let told = String::from_utf8_lossy(&recovered.stdout).into_owned();
    assert!(recovered.status.success(), "{told}{}", String::from_utf8_lossy(&recovered.stderr));
    assert!(told.contains("generation 2") && told.contains(&format!("up to seq {head}")), "{told}");
    let kept = fs::read_dir(world.dir()).unwrap().filter_map(Result::ok).map(|e| e.file_name().into_string().unwrap());
    let kept: Vec<String> = kept.filter(|n| n.starts_with("data")).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().any(|n| n.starts_with("data.before-recovery-")), "{kept:?}");
    // Sealed values can be opened: the keys are the same as before.
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let authority = running.authority();
    assert_eq!(authority.ledger.durable().generation(), 2);
    assert!(authority.keyring.active(mayfly::ledger::record::KeyPurpose::AccessToken, "dev").is_some());
}

#[test]
fn a_recovery_needs_the_store_for_itself_and_a_place_that_can_be_trusted() {
    let (_dir, world) = world(DevSettings::default());
    let system = System::real();
    assert!(matches!(recover(&world.config(), "5".parse().unwrap(), false, &system), Err(NotRecovered::NoStore(_))));
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let no = recover(&world.config(), "5".parse().unwrap(), false, &system).unwrap_err();
    assert!(matches!(no, NotRecovered::InUse(_)) && no.to_string().contains("stop that server first"), "{no}");
    drop(running);
    damaged(&world);
    let beyond = (1_u64 << 46).to_string().parse().unwrap();
    let no = recover(&world.config(), beyond, false, &system).unwrap_err();
    assert!(matches!(&no, NotRecovered::Refused(RecoverError::Untrusted { .. })), "{no}");
    let left =
        fs::read_dir(world.dir()).unwrap().filter_map(Result::ok).any(|e| e.file_name().to_string_lossy().contains("recover"));
    assert!(!left, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_process_it_serves_and_sigterm_ends_it_in_good_order() {
    let (_dir, world) = world(DevSettings::default());
    let child = world.spawn(Path::new(MAYFLY)).unwrap_or_else(|no| panic!("{no}"));
    assert!(healthy(world.channel("agent/demo", child.addresses().workload).await.unwrap()).await);
    let task = open_task(world.channel("agent/demo", child.addresses().workload).await.unwrap(), None).await.unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.pid())).unwrap();
    let cores = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert!(cores.split_whitespace().skip(4).take(2).all(|n| n == "0"), "no core dumps: {cores}");
    let about = fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
    assert!(about.lines().any(|l| l == "THP_enabled:\t0"), "no huge pages: {about}");
    let status = tokio::task::spawn_blocking(move || child.stop()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!DevWorld::ready_file(world.dir()).exists());
    assert!(!world.dir().join("run/admin.sock").exists());
    // After a kill during operation, the server restarts with everything that it acknowledged.
    world.spawn(Path::new(MAYFLY)).unwrap_or_else(|no| panic!("{no}")).kill();
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    assert!(running.authority().ledger.peek(|s| s.tasks.get(&task.parse().unwrap()).is_some()));
}

#[test]
fn healthcheck_asks_the_way_that_a_workload_would() {
    let ports = Ports::hold(1);
    let (_dir, world) = world(DevSettings::default().with("listen.workload", &format!("\"{}\"", ports.at(0))));
    let asleep = mayfly(&["server", "healthcheck"], &world.config());
    assert_eq!(asleep.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asleep.stderr).contains("mayfly server run"), "{asleep:?}");
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    for service in ["", "mayfly.v1.TokenService"] {
        let mut tries = 0;
        // The health of a service is reported a moment after the start.
        let awake = loop {
            let out = mayfly(&["server", "healthcheck", "--service", service], &world.config());
            tries += 1;
            if out.status.success() || tries == 20 {
                break out;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        };
        assert_eq!((awake.status.code(), &awake.stdout[..]), (Some(0), &b"serving\n"[..]), "{awake:?}");
    }
    drop(running);
}
