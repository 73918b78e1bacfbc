//! `mayfly dev up|down`, and the world that it creates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mayfly::cli::dev::{DevSettings, DevWorld, DevWorldError, WORKLOADS};
use mayfly::identity::svid;
use mayfly::limits::SVID_MAX_TTL_MS;
use mayfly::sources::svid_files::SvidFiles;
use mayfly::system::System;

use crate::kit::{MAYFLY, healthy, world};

#[test]
fn every_svid_of_a_world_is_accepted_by_its_bundle_and_every_file_is_private() {
    let (_dir, world) = world(DevSettings::default());
    for name in WORKLOADS.iter().chain(&["mayfly"]) {
        let paths = world.svid(name);
        let pair = SvidFiles::new(&paths.certificate, &paths.key).load().unwrap();
        let bundles = world.bundles().unwrap();
        let svid = svid::verify(pair.chain(), &bundles.load(), System::real().wall(), SVID_MAX_TTL_MS).unwrap();
        assert_eq!(svid.id().as_str(), DevWorld::id(name));
        assert_eq!(pair.has_dns_name(), *name == "mayfly");
    }
    fn walk(dir: &Path, each: &mut impl FnMut(&Path)) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            each(&entry.path());
            if entry.path().is_dir() {
                walk(&entry.path(), each);
            }
        }
    }
    walk(world.dir(), &mut |path| {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    });
}

#[test]
fn a_world_that_is_there_keeps_its_root_and_what_was_changed_and_gets_fresh_svids() {
    let (dir, world) = world(DevSettings::default());
    let path = dir.path().join("w");
    let (root, svid) = (fs::read(world.bundle()).unwrap(), fs::read(world.svid("agent/demo").certificate).unwrap());
    fs::write(world.config(), "# mine").unwrap();
    let again = DevWorld::create(&path, &DevSettings::default()).unwrap();
    assert_eq!((fs::read(again.bundle()).unwrap(), fs::read(again.config()).unwrap()), (root, b"# mine".to_vec()));
    assert_ne!(fs::read(again.svid("agent/demo").certificate).unwrap(), svid);
    let other = dir.path().join("photos");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cat.jpg"), "meow").unwrap();
    assert!(matches!(DevWorld::create(&other, &DevSettings::default()), Err(DevWorldError::NotOurs(_))));
}

struct Home(tempfile::TempDir);

impl Home {
    fn mayfly(&self, args: &[&str]) -> Output {
        let mut command = Command::new(MAYFLY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        command.env("XDG_STATE_HOME", self.0.path().join("state")).env("XDG_CONFIG_HOME", self.0.path().join("config"));
        command.args(args).output().unwrap()
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("state/mayfly/dev")
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("config/mayfly/config.toml")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.mayfly(&["dev", "down"]);
    }
}

fn told(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn up_detached_serves_says_what_to_type_and_down_ends_it() {
    let home = Home(tempfile::tempdir().unwrap());
    let up = home.mayfly(&["dev", "up", "--detach", "--port", "0"]);
    assert!(up.status.success(), "{}", told(&up));
    assert!(told(&up).contains("mayfly status") && told(&up).contains("mayfly dev down"), "{}", told(&up));
    let addresses = DevWorld::addresses(&home.dir()).unwrap();
    let world = DevWorld::create(&home.dir(), &DevSettings::default()).unwrap();
    assert!(healthy(world.channel("agent/demo", addresses.workload).await.unwrap()).await);
    // The command line finds the server by itself.
    let who = home.mayfly(&["whoami"]);
    assert!(told(&who).contains("operator/you"), "{}", told(&who));
    let again = home.mayfly(&["dev", "up", "--detach"]);
    assert!(again.status.success() && told(&again).contains("runs already"), "{}", told(&again));
    assert_eq!(DevWorld::addresses(&home.dir()).unwrap(), addresses);
    let down = home.mayfly(&["dev", "down"]);
    assert!(down.status.success() && told(&down).contains("has ended"), "{}", told(&down));
    assert!(!healthy_at(&world, addresses.workload).await);
    assert!(home.dir().join("data").exists());
    let purge = home.mayfly(&["dev", "down", "--purge"]);
    assert!(purge.status.success() && told(&purge).contains("was not running"), "{}", told(&purge));
    assert!(!home.dir().exists() && !home.config().exists(), "nothing is left");
}

async fn healthy_at(world: &DevWorld, address: std::net::SocketAddr) -> bool {
    match world.channel("agent/demo", address).await {
        Ok(channel) => healthy(channel).await,
        Err(_) => false,
    }
}

#[test]
fn a_command_line_file_of_somebodys_own_stays_and_the_way_round_it_is_printed() {
    let home = Home(tempfile::tempdir().unwrap());
    fs::create_dir_all(home.config().parent().unwrap()).unwrap();
    fs::write(home.config(), "address = \"https://mayfly.example.org:7444\"\n").unwrap();
    let up = home.mayfly(&["dev", "up", "--detach", "--port", "0"]);
    let line = String::from_utf8(up.stdout.clone()).unwrap();
    assert_eq!(line, format!("export MAYFLY_CONFIG={}\n", home.dir().join("operator-you.toml").display()), "{}", told(&up));
    home.mayfly(&["dev", "down", "--purge"]);
    assert_eq!(fs::read_to_string(home.config()).unwrap(), "address = \"https://mayfly.example.org:7444\"\n");
}

/// Each `dev up` creates what is missing: two at once would each make a CA, and the world would never start again.
#[test]
fn several_dev_up_at_once_start_one_server_and_leave_a_world_that_starts_again() {
    let home = Home(tempfile::tempdir().unwrap());
    let up = || home.mayfly(&["dev", "up", "--detach", "--port", "0"]);
    let all: Vec<Output> = std::thread::scope(|scope| {
        let each: Vec<_> = (0..3).map(|_| scope.spawn(up)).collect();
        each.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for one in &all {
        assert!(one.status.success(), "{}", told(one));
    }
    assert_eq!(all.iter().filter(|one| told(one).contains("runs already")).count(), 2);
    assert!(told(&home.mayfly(&["whoami"])).contains("operator/you"));
    assert!(home.mayfly(&["dev", "down"]).status.success());
    let again = up();
    assert!(again.status.success() && !told(&again).contains("runs already"), "{}", told(&again));
    assert!(home.mayfly(&["dev", "down", "--purge"]).status.success());
}

/// Ends the dev server of a directory, also when the test fails.
struct Ends<'h>(&'h Home, &'h str);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.mayfly(&["dev", "down", "--dir", self.1]);
    }
}

/// A dev server that exists keeps its ports, and is not started with others in silence. Printed commands name a directory of its own.
#[test]
fn a_port_is_for_a_new_dev_server_and_commands_name_the_directory() {
    let home = Home(tempfile::tempdir().unwrap());
    let dir = home.0.path().join("a world");
    let dir = dir.to_str().unwrap();
    let up = |port: &str| home.mayfly(&["dev", "up", "--detach", "--dir", dir, "--port", port]);
    let first = up("0");
    let _ends = Ends(&home, dir);
    assert!(first.status.success(), "{}", told(&first));
    assert!(told(&first).contains(&format!("mayfly dev svid mcp/notes --dir '{dir}'")), "{}", told(&first));
    for _ in 0..2 {
        let refused = up("7443");
        assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
        for part in [
            "--port is for a new one",
            &format!("mayfly dev up --dir '{dir}'"),
            "edit workload, admin and public under [listen]",
            "to begin anew without its ledger, CA, keys and SVIDs",
            &format!("mayfly dev down --purge --dir '{dir}' && mayfly dev up --port 7443 --dir '{dir}'"),
        ] {
            assert!(told(&refused).contains(part), "{part} in {}", told(&refused));
        }
        // While it runs and when it has ended.
        assert!(home.mayfly(&["dev", "down", "--dir", dir]).status.success());
    }
    let again = up("0");
    assert!(again.status.success(), "the port that it has: {}", told(&again));
    let reset = home.mayfly(&["dev", "reset", "--dir", dir]);
    assert!(told(&reset).contains(&format!("to start anew: mayfly dev up --dir '{dir}'")), "{}", told(&reset));
    assert!(home.mayfly(&["dev", "down", "--purge", "--dir", dir]).status.success());
}

/// A CA under which SVIDs were issued and a ledger was begun cannot be made anew without the ledger: `dev up` says so, and `dev reset` does both.
#[test]
fn reset_replaces_a_ca_that_is_missing_or_damaged_and_no_other() {
    let home = Home(tempfile::tempdir().unwrap());
    let up = || home.mayfly(&["dev", "up", "--detach", "--port", "0"]);
    let at = |name: &str| home.dir().join(name);
    assert!(up().status.success());
    let root = fs::read(at("ca.pem")).unwrap();
    let reset = json(&home.mayfly(&["dev", "reset", "-o", "json"]));
    assert_eq!(reset, serde_json::json!({"dir": home.dir(), "state": "ended", "purged": true}));
    assert_eq!((fs::read(at("ca.pem")).unwrap(), fs::read(at("bundle.pem")).unwrap()), (root.clone(), root.clone()));
    let mut roots = vec![root];
    for (name, text) in [("ca.pem", None), ("ca.key", None), ("ca.key", Some("no key")), ("ca.pem", Some("no certificate"))] {
        match text {
            None => fs::remove_file(at(name)).unwrap(),
            Some(text) => fs::write(at(name), text).unwrap(),
        }
        let refused = up();
        assert!(!refused.status.success() && told(&refused).contains("mayfly dev reset"), "{}", told(&refused));
        let reset = home.mayfly(&["dev", "reset", "-o", "json"]);
        assert_eq!(json(&reset)["ca_replaced"], true, "{}", told(&reset));
        let root = fs::read(at("ca.pem")).unwrap();
        assert_eq!(fs::read(at("bundle.pem")).unwrap(), root);
        assert!(!roots.contains(&root));
        roots.push(root);
    }
    let again = up();
    assert!(again.status.success(), "{}", told(&again));
    let who = home.mayfly(&["whoami"]);
    assert!(told(&who).contains("operator/you"), "{}", told(&who));
    assert!(home.mayfly(&["dev", "down"]).status.success());
    // A bundle without the CA's certificate: what an earlier version left after the CA was lost.
    fs::write(at("bundle.pem"), &roots[0]).unwrap();
    assert_eq!(json(&home.mayfly(&["dev", "reset", "-o", "json"]))["ca_replaced"], true);
    assert!(home.mayfly(&["dev", "down", "--purge"]).status.success());
}

#[test]
fn down_touches_nothing_that_is_no_dev_world() {
    let home = Home(tempfile::tempdir().unwrap());
    let photos = home.0.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("cat.jpg"), "meow").unwrap();
    // The pid of a different process: this test's.
    fs::write(photos.join("mayfly.pid"), std::process::id().to_string()).unwrap();
    let down = home.mayfly(&["dev", "down", "--purge", "--dir", photos.to_str().unwrap()]);
    assert_eq!(down.status.code(), Some(2), "{}", told(&down));
    assert!(photos.join("cat.jpg").exists());
    // In a directory without a dev world, the commands that need one have the same text and exit code.
    for command in [&["dev", "down"][..], &["dev", "reset"], &["dev", "svid", "mcp/notes"]] {
        let none = home.mayfly(&[command, &["--dir", photos.to_str().unwrap()]].concat());
        assert_eq!(none.status.code(), Some(2), "{command:?}: {}", told(&none));
        assert!(told(&none).contains("there is no dev world in") && told(&none).contains("mayfly dev up"), "{}", told(&none));
    }
    // Ending a dev world whose directory does not exist succeeds.
    for command in ["down", "reset"] {
        let none = home.mayfly(&["dev", command]);
        assert!(none.status.success() && !told(&none).contains("there is no dev world"), "{}", told(&none));
    }
}

/// `--port N` is refused before anything is written if N + 2 is no port.
#[test]
fn a_port_without_two_more_after_it_makes_no_world() {
    let home = Home(tempfile::tempdir().unwrap());
    for port in ["65534", "65535", "65536"] {
        let up = home.mayfly(&["dev", "up", "--detach", "--port", port]);
        assert_eq!(up.status.code(), Some(2), "{}", told(&up));
        assert!(told(&up).contains("from 0 to 65533"), "{}", told(&up));
        assert!(!home.dir().exists());
    }
}

#[test]
fn a_number_that_is_no_process_ends_nobody() {
    let home = Home(tempfile::tempdir().unwrap());
    DevWorld::create(&home.dir(), &DevSettings::default()).unwrap();
    let lock = fs::File::create(home.dir().join("mayfly.pid")).unwrap();
    lock.lock().unwrap();
    for number in ["-1", "0", "1", "-4711", "none", ""] {
        fs::write(home.dir().join("mayfly.pid"), number).unwrap();
        let down = home.mayfly(&["dev", "down"]);
        assert_eq!(down.status.code(), Some(1), "{number}: {}", told(&down));
        assert!(told(&down).contains("holds no process id"), "{number}: {}", told(&down));
    }
    drop(lock);
    // Looking whether a server runs leaves the file as it is.
    fs::write(home.dir().join("mayfly.pid"), "4711").unwrap();
    assert!(home.mayfly(&["dev", "down"]).status.success());
    assert_eq!(fs::read_to_string(home.dir().join("mayfly.pid")).unwrap(), "4711");
}

#[test]
fn a_stale_number_ends_nobody() {
    let home = Home(tempfile::tempdir().unwrap());
    DevWorld::create(&home.dir(), &DevSettings::default()).unwrap();
    fs::write(home.dir().join("mayfly.pid"), format!("{}\n", std::process::id())).unwrap();
    let down = home.mayfly(&["dev", "down"]);
    assert!(down.status.success() && told(&down).contains("was not running"), "{}", told(&down));
}

fn json(out: &Output) -> serde_json::Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", told(out)))
}

/// The error of a command with JSON output.
fn error(out: &Output) -> serde_json::Value {
    let stderr = String::from_utf8(out.stderr.clone()).unwrap();
    let line = stderr.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {stderr}"))
}

#[test]
fn up_and_down_tell_programs_what_they_did() {
    let home = Home(tempfile::tempdir().unwrap());
    let dir = home.dir();
    let none = json(&home.mayfly(&["dev", "down", "-o", "json"]));
    assert_eq!(none, serde_json::json!({"dir": dir, "state": "none", "purged": false}));
    let up = home.mayfly(&["dev", "up", "--detach", "--port", "0", "-o", "json"]);
    let (up, words) = (json(&up), told(&up));
    let addresses = DevWorld::addresses(&dir).unwrap();
    assert_eq!((up["state"].as_str(), up["pid"].as_u64()), (Some("started"), Some(addresses.pid.into())), "{up}");
    assert_eq!(up["workload"], addresses.workload.to_string());
    assert_eq!(up["admin"], addresses.admin.to_string());
    assert_eq!(up["public"], addresses.public.to_string());
    assert_eq!((&up["found_by_default"], &up["dir"]), (&serde_json::json!(true), &serde_json::json!(dir)), "{up}");
    assert!(words.contains("mayfly status"), "words stay on stderr: {words}");
    // The named configuration is sufficient for a command.
    let config = up["operator_config"].as_str().unwrap().to_owned();
    let who = home.mayfly(&["whoami", "--config", &config, "-o", "json"]);
    assert_eq!(json(&who)["identity"]["spiffe_id"], DevWorld::id("operator/you"), "{}", told(&who));
    let again = json(&home.mayfly(&["dev", "up", "-o", "json"]));
    assert_eq!((again["state"].as_str(), &again["pid"]), (Some("running"), &up["pid"]));
    assert_eq!(home.mayfly(&["dev", "up", "-o", "name"]).stdout, format!("{}\n", dir.display()).into_bytes());
    let down = json(&home.mayfly(&["dev", "down", "--purge", "-o", "json"]));
    assert_eq!(down, serde_json::json!({"dir": dir, "state": "ended", "purged": true}));
}

#[test]
fn a_dev_server_that_does_not_start_tells_programs_why() {
    let home = Home(tempfile::tempdir().unwrap());
    let photos = home.0.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("cat.jpg"), "meow").unwrap();
    let dir = photos.to_str().unwrap();
    let up = home.mayfly(&["dev", "up", "--dir", dir, "-o", "json"]);
    assert_eq!((up.status.code(), error(&up)["error"]["exit_code"].as_u64()), (Some(1), Some(1)), "{}", told(&up));
    let down = home.mayfly(&["dev", "down", "--dir", dir, "-o", "json"]);
    assert_eq!((down.status.code(), error(&down)["error"]["kind"].as_str()), (Some(2), Some("usage")), "{}", told(&down));
    let world = DevWorld::create(&home.dir(), &DevSettings::default()).unwrap();
    fs::write(world.config(), "[store]\nspeed = 11\n").unwrap();
    for what in [&["dev", "up", "-o", "json"][..], &["server", "run", "-o", "json", "--config", world.config().to_str().unwrap()]]
    {
        let refused = home.mayfly(what);
        let error = &error(&refused)["error"];
        assert_eq!((refused.status.code(), error["exit_code"].as_u64()), (Some(2), Some(2)), "{}", told(&refused));
        assert!(error["message"].as_str().unwrap().contains("speed"), "{error}");
    }
}

#[test]
fn try_tells_programs_what_each_step_proves() {
    let home = Home(tempfile::tempdir().unwrap());
    let tour = home.mayfly(&["try", "-o", "json"]);
    let said = json(&tour);
    assert!(tour.status.success(), "{}", told(&tour));
    assert_eq!(said["holds"], true);
    let steps = said["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 8, "{said}");
    for (n, step) in steps.iter().enumerate() {
        assert_eq!((step["step"].as_u64(), &step["failed"]), (Some(n as u64 + 1), &serde_json::Value::Null), "{step}");
        assert!(!step["proves"].as_array().unwrap().is_empty(), "{step}");
    }
    let words = String::from_utf8_lossy(&tour.stderr);
    assert!(words.contains(" 1  Start a server") && words.contains("All of it holds"), "{words}");
}
