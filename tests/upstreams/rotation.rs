//! Static secrets are rotated by a hook: a program beside a vendor that is a folder, which the tests can stop at each step.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mayfly::pb::mayfly::v1 as pb;

use super::rig::Rig;
use super::secret::{ask, files, registration, shown, stored, until, value_of};

const TARGET: &str = "https://vendor.example.org/api/0";
const SECTION: &str = "release = \"grant\"\nmay_be_irrevocable = true\noverlap = \"0s\"";

/// The vendor: a file for each valid key in `keys`, named after the key, with the attempt that made it. `calls` lists the calls. The hook
/// waits before and after its work for as long as a file `hold-ACTION-before` or `-after` exists, and says with `held` that it does. A file
/// `fail-ACTION` makes it fail, `slow` makes it hang, `bad` makes it deliver keys that are not valid.
const HOOK: &str = r#"#!/usr/bin/python3
import fcntl, json, os, secrets, sys, time
vendor = sys.argv[1]
ask = json.load(sys.stdin)
action = ask["action"]
path = lambda *names: os.path.join(vendor, *names)
with open(path("calls"), "a") as calls:
    calls.write(action + "\n")
def wait(place):
    hold = path(f"hold-{action}-{place}")
    while os.path.exists(hold):
        open(path("held"), "w").close()
        time.sleep(0.01)
wait("before")
if os.path.exists(path("slow")):
    time.sleep(600)
if os.path.exists(path(f"fail-{action}")):
    print(json.dumps({"error": f"the vendor is down, {json.dumps(ask)}"}))
    sys.exit(1)
# A hook of a server that was killed may still be at work.
lock = open(path("lock"), "w")
fcntl.flock(lock, fcntl.LOCK_EX)
valid = lambda secret: os.path.exists(path("keys", secret["value"]))
if action == "create":
    assert valid(ask["current"]), "the current key must log in"
    made = [k for k in os.listdir(path("keys")) if open(path("keys", k)).read() == ask["attempt"]]
    key = made[0] if made else "marker-" + secrets.token_hex(8)
    if os.path.exists(path("bad")):
        key = "bad-" + secrets.token_hex(4)
    else:
        with open(path("keys", key), "w") as f:
            f.write(ask["attempt"])
    answer = {"value": key, "id": "id-" + key[-4:]}
elif action == "verify":
    answer = {"valid": True} if valid(ask["secret"]) else {"valid": False, "error": "401 for " + ask["secret"]["value"]}
else:
    assert valid(ask["current"]) and ask["current"]["value"] != ask["secret"]["value"], "another key stays"
    if valid(ask["secret"]):
        os.remove(path("keys", ask["secret"]["value"]))
    answer = {"revoked": True}
lock.close()
wait("after")
print(json.dumps(answer))
"#;

struct Vendor {
    dir: PathBuf,
}

impl Vendor {
    fn of(rig: &Rig) -> Vendor {
        let dir = rig.world.dir().join("vendor");
        std::fs::create_dir_all(dir.join("keys")).unwrap();
        let hook = rig.world.dir().join("hook");
        std::fs::write(&hook, HOOK).unwrap();
        for (path, mode) in [(&hook, 0o700), (&rig.world.dir().to_owned(), 0o700)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let config = rig.world.dir().join("mayfly.toml");
        let mut text = std::fs::read_to_string(&config).unwrap();
        text += &format!(
            "\n[[rotation_hooks]]\nupstream = \"vendor\"\ncommand = [\"{}\", \"{}\"]\ntimeout = \"8s\"\n",
            hook.display(),
            dir.display()
        );
        std::fs::write(config, text).unwrap();
        Vendor { dir }
    }

    fn keys(&self) -> BTreeSet<String> {
        let names = std::fs::read_dir(self.dir.join("keys")).unwrap().flatten();
        names.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    fn add(&self, key: &str) {
        std::fs::write(self.dir.join("keys").join(key), "").unwrap();
    }

    fn set(&self, name: &str, on: bool) {
        match on {
            true => std::fs::write(self.dir.join(name), "").unwrap(),
            false => std::fs::remove_file(self.dir.join(name)).unwrap_or_default(),
        }
    }

    fn calls(&self, action: &str) -> usize {
        let calls = std::fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        calls.lines().filter(|call| *call == action).count()
    }

    /// Waits until the hook is held.
    fn held(&self) {
        until("the hook is held", || self.dir.join("held").exists());
    }
}

fn world() -> (Rig, Vendor) {
    let mut rig = Rig::new(&[("vendor", registration("vendor", TARGET, SECTION))]);
    let vendor = Vendor::of(&rig);
    vendor.add("marker-first");
    rig.start();
    assert_eq!(stored(&rig, "vendor", "marker-first"), 1);
    (rig, vendor)
}

fn given(rig: &Rig) -> String {
    // A task of its own, and no request id: each call is another request.
    let task = rig.open("vendor");
    value_of(&rig.exchange(ask("vendor", &task, "")).unwrap())
}

/// The secret was rotated to a version, and nothing is left to do: exactly the key that is handed out is valid at the vendor.
fn rotated_to(rig: &Rig, vendor: &Vendor, version: u64, what: &str) {
    until(what, || {
        let secret = shown(rig, "vendor");
        secret.version >= version && secret.status == "in use" && vendor.keys().len() == 1
    });
    let key = given(rig);
    assert_eq!(vendor.keys(), BTreeSet::from([key]), "{what}");
}

fn rotate(rig: &Rig) {
    rig.operated(&["secret", "rotate", "vendor", "--reason", "a test"]);
}

#[test]
fn a_hook_makes_verifies_and_revokes() {
    let (rig, vendor) = world();
    let first = given(&rig);
    assert_eq!(first, "marker-first");
    rotate(&rig);
    rotated_to(&rig, &vendor, 2, "rotated on demand");
    assert_eq!((vendor.calls("create"), vendor.calls("verify"), vendor.calls("revoke")), (1, 1, 1));
    let secret = shown(&rig, "vendor");
    assert!(secret.versions[1].rotated && secret.versions[0].state() == pb::SecretVersionState::Ended, "{secret:?}");
    // A revocation has the version rotated, and the lease closes once the old one is revoked at the vendor.
    let task = rig.open("vendor");
    let issued = rig.exchange(ask("vendor", &task, "revoked")).unwrap();
    rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    rotated_to(&rig, &vendor, 3, "rotated by a revocation");
    until("the lease closes", || rig.leases("vendor", pb::UpstreamState::Pending).is_empty());
    assert!(!vendor.keys().contains(&value_of(&issued)), "what was handed out is not valid any more");
}

#[test]
fn a_failure_is_shown_and_tried_again_and_the_secret_in_use_stays() {
    let (rig, vendor) = world();
    for action in ["create", "verify", "revoke"] {
        vendor.set(&format!("fail-{action}"), true);
        let before = shown(&rig, "vendor").version;
        rotate(&rig);
        until("the failure is shown", || shown(&rig, "vendor").last_error.contains("the vendor is down"));
        let secret = shown(&rig, "vendor");
        assert!(secret.attempts > 0 && secret.next_attempt.is_some(), "{secret:?}");
        assert!(!secret.last_error.contains("marker-"), "the hook printed the secret, and nobody sees it: {}", secret.last_error);
        assert!(rig.operated(&["secret", "list", "-o", "wide"]).contains("the vendor is down"));
        assert!(rig.operated(&["-o", "json", "status"]).contains("\"secret_rotations_failing\": 1"));
        let in_use = given(&rig);
        assert!(vendor.keys().contains(&in_use), "{action}: what is handed out works");
        vendor.set(&format!("fail-{action}"), false);
        rotated_to(&rig, &vendor, before + 1, action);
    }
    // Keys that are not valid are never handed out, and the rotation begins anew.
    vendor.set("bad", true);
    let before = given(&rig);
    rotate(&rig);
    until("the verification fails", || shown(&rig, "vendor").last_error.contains("401 for (secret)"));
    assert_eq!(given(&rig), before);
    vendor.set("bad", false);
    rotate(&rig);
    let version = shown(&rig, "vendor").version;
    rotated_to(&rig, &vendor, version + 1, "after a bad key");
    // A hook that hangs is killed at its limit.
    vendor.set("slow", true);
    rotate(&rig);
    until("the limit is told", || shown(&rig, "vendor").last_error.contains("was killed"));
    vendor.set("slow", false);
    rotate(&rig);
    rotated_to(&rig, &vendor, shown(&rig, "vendor").version, "after a hang");
}

/// SIGKILL at each step: before and after the hook's work, which is before the record of the step is written. The secret that is handed out
/// is always valid, and in the end exactly one key is.
#[test]
fn killed_at_each_step_the_rotation_goes_on_and_the_secret_in_use_works() {
    let (mut rig, vendor) = world();
    for action in ["create", "verify", "revoke"] {
        for place in ["before", "after"] {
            let what = format!("killed {place} {action}");
            let before = shown(&rig, "vendor").version;
            vendor.set("held", false);
            let hold = format!("hold-{action}-{place}");
            vendor.set(&hold, true);
            rotate(&rig);
            vendor.held();
            rig.kill();
            rig.start();
            let in_use = given(&rig);
            assert!(vendor.keys().contains(&in_use), "{what}: {in_use} is handed out, valid are {:?}", vendor.keys());
            vendor.set(&hold, false);
            rotated_to(&rig, &vendor, before + 1, &what);
            assert_eq!(shown(&rig, "vendor").version, before + 1, "{what}: one rotation, not two");
        }
    }
    println!("{} creates, {} verifies, {} revokes", vendor.calls("create"), vendor.calls("verify"), vendor.calls("revoke"));
}

#[test]
fn no_secret_of_a_rotation_is_written_anywhere_but_at_the_vendor() {
    let (mut rig, vendor) = world();
    vendor.set("fail-verify", true);
    rotate(&rig);
    until("a failure", || shown(&rig, "vendor").last_error.contains("the vendor is down"));
    vendor.set("fail-verify", false);
    rotated_to(&rig, &vendor, 2, "rotated");
    let mut told = String::new();
    for args in [&["audit", "search", "-o", "json"][..], &["secret", "list", "-o", "json"], &["status", "-o", "json"]] {
        let done = rig.operate(args);
        told += &String::from_utf8_lossy(&done.stdout);
    }
    rig.kill();
    let mut found = vec![("what was told".to_owned(), told.into_bytes())];
    let elsewhere = |dir: &Path, found: &mut Vec<_>| files(dir, found);
    elsewhere(rig.world.dir(), &mut found);
    found.retain(|(name, _)| !name.contains("/vendor/") && !name.ends_with("/hook"));
    for (name, bytes) in &found {
        assert!(!bytes.windows(7).any(|part| part == b"marker-"), "{name} has a secret");
    }
}
