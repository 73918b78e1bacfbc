//! `mayfly doctor`: each finding is caused by a real defect, and disappears when the defect is fixed.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::server::RunningServer;
use mayfly::system::{ManualClock, System};
use serde_json::Value;

use crate::kit::{MAYFLY, world};
use crate::ports::Ports;
use crate::small_disk::{Filler, on_a_small_disk};

fn start(world: &DevWorld) -> RunningServer {
    world.start().unwrap_or_else(|no| panic!("{no}"))
}

/// The checks that are not well: (check, state, found, mend).
struct Told {
    code: Option<i32>,
    checks: Vec<Value>,
    all: String,
}

impl Told {
    fn of(out: &Output) -> Told {
        let all = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {all}"));
        Told { code: out.status.code(), checks: report["checks"].as_array().unwrap().clone(), all }
    }

    #[track_caller]
    fn well(self) {
        assert_eq!(self.code, Some(0), "{}", self.all);
        assert!(self.checks.iter().all(|c| c["state"] == "ok" || c["state"] == "unknown"), "{}", self.all);
    }

    /// Asserts that this check is not well, with these words and a remedy, and that the exit code reflects it.
    #[track_caller]
    fn is(&self, check: &str, state: &str, words: &[&str]) {
        assert_eq!(self.code, Some(if state == "problem" { 1 } else { 10 }), "{}", self.all);
        let found = self.checks.iter().find(|c| c["check"] == check && c["state"] == state);
        let found = found.unwrap_or_else(|| panic!("no {state} of {check}: {}", self.all));
        assert!(found["mend"].as_str().is_some_and(|mend| mend.len() > 10), "{found}");
        for word in words {
            assert!(found.to_string().contains(word), "{word:?} is not in {found}");
        }
    }
}

fn doctor_with(config: &Path, more: &[&str]) -> Told {
    let mut command = Command::new(MAYFLY);
    command.args(["-o", "json", "--config"]).arg(config).args(["--deadline", "2s", "doctor"]).args(more);
    Told::of(&command.output().unwrap())
}

/// Runs doctor as an operator at the admin port.
fn doctor(world: &DevWorld, admin: SocketAddr) -> Told {
    doctor_with(&world.write_context("operator/you", admin).unwrap(), &[])
}

/// As [`doctor`], repeated until the server has noticed a problem.
fn broken(world: &DevWorld, admin: SocketAddr) -> Told {
    let mut told = doctor(world, admin);
    for _ in 0..crate::kit::PATIENCE.as_millis() / 100 {
        if told.code == Some(1) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        told = doctor(world, admin);
    }
    told
}

/// Checks the host only, offline.
fn host(world: &DevWorld) -> Told {
    let config = world.config().display().to_string();
    doctor_with(&world.dir().join("nothing.toml"), &["--server-config", &config, "--offline"])
}

#[test]
fn all_is_well_with_a_server_that_is_well_for_operators_workloads_and_on_its_host() {
    let (_dir, world) = world(DevSettings::default());
    let running = start(&world);
    let admin = running.addresses().admin;
    let told = doctor(&world, admin);
    for check in ["svid", "bundle", "reach", "policy", "clock", "disk", "issuing"] {
        assert!(told.checks.iter().any(|c| c["check"] == check && c["state"] == "ok"), "{check}: {}", told.all);
    }
    told.well();
    // A caller that is no operator gets no information about clock and disk, which is no problem.
    doctor_with(&world.write_context("agent/demo", running.addresses().workload).unwrap(), &[]).well();
    let out = Command::new(MAYFLY)
        .args(["--address", &format!("unix:{}", world.dir().join("run/admin.sock").display()), "doctor"])
        .output();
    assert!(out.unwrap().status.success());
    running.stop();
}

#[test]
fn an_svid_that_ended_has_another_key_or_is_missing() {
    let (_dir, world) = world(DevSettings::default());
    let running = start(&world);
    let admin = running.addresses().admin;
    let paths = world.svid("operator/you");
    let (good, key) = (fs::read(&paths.certificate).unwrap(), fs::read(&paths.key).unwrap());

    world.issue("operator/you", 1_100).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2_200));
    doctor(&world, admin).is("svid", "problem", &["2", "mayfly svid check"]);
    fs::write(&paths.certificate, &good).unwrap();
    fs::write(&paths.key, fs::read(world.svid("agent/demo").key).unwrap()).unwrap();
    doctor(&world, admin).is("svid", "problem", &["does not belong to the first certificate"]);
    fs::remove_file(&paths.key).unwrap();
    doctor(&world, admin).is("svid", "problem", &["cannot be read", "ls -l"]);
    fs::write(&paths.key, &key).unwrap();
    doctor(&world, admin).well();
    running.stop();
}

#[test]
fn a_bundle_of_somebody_else_or_none() {
    let (_dir, world) = world(DevSettings::default());
    let (_other, elsewhere) = crate::kit::world(DevSettings::default());
    let running = start(&world);
    let admin = running.addresses().admin;
    let good = fs::read(world.bundle()).unwrap();
    fs::write(world.bundle(), fs::read(elsewhere.bundle()).unwrap()).unwrap();
    let told = doctor(&world, admin);
    told.is("svid", "problem", &["svid.pem"]);
    told.is("reach", "problem", &["look at svid and bundle"]);
    fs::write(world.bundle(), "no certificate").unwrap();
    doctor(&world, admin).is("bundle", "problem", &["write the trust bundle of"]);
    fs::write(world.bundle(), good).unwrap();
    doctor(&world, admin).well();
    running.stop();
}

#[test]
fn a_server_that_is_not_there_or_is_another_one() {
    let (_dir, world) = world(DevSettings::default());
    doctor(&world, Ports::hold(1).at(0)).is("reach", "problem", &["whether it runs and listens there"]);
    doctor_with(&world.dir().join("nothing.toml"), &[]).is("context", "problem", &["nothing.toml"]);
    let running = start(&world);
    let context = world.write_context("operator/you", running.addresses().admin).unwrap();
    let text = fs::read_to_string(&context).unwrap();
    fs::write(&context, text.replace(&DevWorld::id("mayfly"), &DevWorld::id("somebody"))).unwrap();
    doctor_with(&context, &[]).is("reach", "problem", &["--server-id"]);
    running.stop();
}

#[test]
fn a_clock_that_was_set_and_a_lock() {
    let clock = ManualClock::at(System::real().wall());
    let (_dir, world) = world(DevSettings { system: System::with_clock(clock.clone()), ..DevSettings::default() });
    let running = start(&world);
    let admin = running.addresses().admin;
    doctor(&world, admin).well();
    clock.step_to(System::real().wall().plus(3_600_000));
    // The server notices the change at its next periodic check.
    broken(&world, admin).is("clock", "problem", &["timedatectl"]);
    running.stop();
}

/// On the host of a server that is not running.
#[test]
fn a_clock_that_stands_behind_the_ledger() {
    let clock = ManualClock::at(System::real().wall());
    let (_dir, world) =
        world(DevSettings { system: System::with_clock(clock.clone()), svid_life_ms: 20 * 3_600_000, ..DevSettings::default() });
    clock.advance(7_200_000);
    start(&world).stop();
    host(&world).is("clock", "problem", &["behind the ledger", "timedatectl"]);
}

#[test]
fn a_sealing_key_that_is_not_the_stores_is_open_to_others_or_gone() {
    let (_dir, world) = world(DevSettings::default());
    start(&world).stop();
    let key = world.dir().join("seal.key");
    let good = fs::read(&key).unwrap();
    host(&world).is("server", "problem", &["it does not run", "mayfly server run --config"]);
    fs::write(&key, [7; 16].repeat(2)).unwrap();
    host(&world).is("sealing key", "problem", &[]);
    let mut other = good.clone();
    other[0] ^= 1;
    fs::write(&key, other).unwrap();
    host(&world).is("sealing key", "problem", &["not the one that this store was made with", "put the key of this store back"]);
    fs::write(&key, &good).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    host(&world).is("sealing key", "problem", &["chmod 600"]);
    fs::remove_file(&key).unwrap();
    host(&world).is("sealing key", "problem", &["cannot be read"]);
}

#[test]
fn a_configuration_a_policy_or_a_servers_svid_that_is_wrong() {
    let (_dir, world) = world(DevSettings::default());
    let config = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), format!("{config}\n[limits]\ncolour = 3\n")).unwrap();
    let told = host(&world);
    told.is("configuration", "problem", &["mayfly.toml"]);
    fs::write(world.config(), &config).unwrap();
    let policy = fs::read_dir(world.dir().join("policy")).unwrap().map(|e| e.unwrap().path());
    let policy = policy.into_iter().find(|p| p.extension().is_some_and(|e| e == "cedar")).unwrap();
    let good = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, format!("{good}\npermit (principal, action == Action::\"Fly\", resource);\n")).unwrap();
    host(&world).is("policy", "problem", &["cedar"]);
    fs::write(&policy, good).unwrap();
    let certificate = world.svid("mayfly").certificate;
    fs::write(&certificate, fs::read(world.svid("agent/demo").certificate).unwrap()).unwrap();
    host(&world).is("svid", "problem", &["tls."]);
}

#[test]
fn a_disk_that_is_full() {
    on_a_small_disk("doctor::a_disk_that_is_full", "tmpfs", 260, |disk| {
        let (_dir, world) = world(DevSettings::default().with("store.path", &format!("{:?}", disk.join("data"))));
        let running = start(&world);
        let mut filler = Filler(fs::File::create(disk.join("somebody-elses")).unwrap());
        filler.fill();
        let admin = running.addresses().admin;
        broken(&world, admin).is("disk", "problem", &["nothing is issued, revoking works", "free space"]);
        running.stop();
        let told = host(&world);
        assert!(told.checks.iter().any(|c| c["check"] == "disk" && c["state"] == "warning"), "{}", told.all);
    });
}
