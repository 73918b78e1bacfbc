//! SIGKILL at each step of kind `github`, and marker secrets. The double holds the request that marks the step until the server is dead.

use std::sync::Mutex;

use mayfly::pb::mayfly::v1 as pb;

use super::github_double::{GithubDouble, SCOPES, token, until, wanted};
use super::rig::{Rig, exchange};
use super::secrets::files;

const NAME: &str = "site";

/// From the request to the answer. GitHub carries out a request whose sender was killed.
const MAKING: [(&str, &str); 2] = [("POST .*access_tokens", "before"), ("POST .*access_tokens", "after")];

/// From the end of a credential to the end of its lease.
const UNDOING: [(&str, &str); 4] = [
    ("DELETE /installation/token", "before"),
    ("DELETE /installation/token", "after"),
    ("GET /installation/repositories", "before"),
    ("GET /installation/repositories", "after"),
];

/// Runs the lives side by side, because most of each is waiting.
fn at_once<T: Sync>(all: &[T], life: impl Fn(&T) + Sync) {
    let next = Mutex::new(all.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(one) = next.lock().unwrap().next() else { return };
                    life(one);
                }
            });
        }
    });
}

fn life() -> Option<(GithubDouble, Rig, String, pb::Issued)> {
    let double = GithubDouble::start("")?;
    let rig = double.rig(NAME);
    let task = rig.open_for(NAME, &SCOPES);
    let first = rig.exchange(wanted(NAME, &task, &["site:read"], "first")).unwrap();
    Some((double, rig, task, first))
}

/// Killed before the answer was sealed, the token of nobody cannot be deleted: it is listed until GitHub ends it. Everything else is as if
/// nothing had happened.
#[test]
fn killed_at_each_step_of_making_what_nobody_has_is_listed() {
    at_once(&MAKING, |(line, when)| {
        let Some((double, mut rig, task, first)) = life() else { return };
        let what = format!("{line}, {when}");
        double.hold(line, when);
        let agent = rig.runtime.block_on(rig.agent());
        let asked = rig.runtime.spawn(exchange(agent, wanted(NAME, &task, &["tools:read"], "second")));
        double.wait_held();
        rig.kill();
        double.release();
        assert!(rig.runtime.block_on(asked).unwrap().is_err(), "{what}");
        rig.start();
        until(&double, &rig, NAME, (2, 1));
        let listed = rig.leases(NAME, pb::UpstreamState::Pending).into_values().next().unwrap();
        assert!(listed.last_error.is_empty() || listed.last_error.contains("ends by itself at"), "{what}: {listed:?}");
        assert_eq!(rig.active(NAME).into_iter().collect::<Vec<_>>(), std::slice::from_ref(&first.credential_id), "{what}");
        assert_eq!(double.status(&rig, &token(&first), "GET", "/repos/octo-org/site"), 200, "{what}");
        // The same request again gets a token that works.
        let again = rig.exchange(wanted(NAME, &task, &["tools:read"], "second")).unwrap();
        assert_eq!(double.status(&rig, &token(&again), "GET", "/repos/octo-org/tools"), 200, "{what}");
        rig.complete(&task);
        until(&double, &rig, NAME, (1, 1));
    });
}

#[test]
fn killed_at_each_step_of_undoing_nothing_of_it_stays() {
    at_once(&UNDOING, |(line, when)| {
        let Some((double, mut rig, task, first)) = life() else { return };
        let what = format!("{line}, {when}");
        let second = rig.exchange(wanted(NAME, &task, &["tools:read"], "second")).unwrap();
        double.hold(line, when);
        rig.operated(&["revoke", "--credential", &second.credential_id, "--reason", "a test"]);
        double.wait_held();
        rig.kill();
        double.release();
        rig.start();
        until(&double, &rig, NAME, (1, 0));
        assert_eq!(double.status(&rig, &token(&second), "GET", "/repos/octo-org/tools"), 401, "{what}");
        assert_eq!(double.status(&rig, &token(&first), "GET", "/repos/octo-org/site"), 200, "{what}");
        rig.complete(&task);
        until(&double, &rig, NAME, (0, 0));
    });
}

/// Killed after the answer: the sealed token is deleted by the process that starts next.
#[test]
fn what_was_handed_out_is_deleted_after_a_kill() {
    let Some((double, mut rig, task, first)) = life() else { return };
    rig.kill();
    rig.start();
    assert_eq!(double.status(&rig, &token(&first), "GET", "/repos/octo-org/site"), 200, "it stays as long as it is live");
    rig.complete(&task);
    until(&double, &rig, NAME, (0, 0));
}

#[test]
fn neither_the_key_of_the_app_nor_a_token_is_anywhere() {
    let Some((double, rig, task, first)) = life() else { return };
    // Lines of the key in PEM, and its end in another spelling.
    let mut secrets: Vec<String> = double.app_pem.lines().filter(|line| line.len() == 64).map(str::to_owned).collect();
    assert!(secrets.len() > 20);
    secrets.push(token(&first));
    let mut told = String::new();
    let again = rig.exchange(wanted(NAME, &task, &["site:read"], "first")).unwrap();
    secrets.push(token(&again));
    for mut issued in [first, again] {
        issued.answer = None;
        told += &format!("{issued:?}");
    }
    // Should GitHub repeat a token in an error, mayfly does not.
    secrets.push("ghs_marker".to_owned());
    for message in ["Bad credentials", "token ghs_marker"] {
        double.set(&serde_json::json!({"answers": [{"match": "POST", "status": 500, "message": message}]}));
        told +=
            &format!("{:?}", rig.exchange(wanted(NAME, &task, &["site:read"], message.split(' ').next().unwrap())).unwrap_err());
    }
    let path = double.secret(&rig, NAME, &double.target, &double.app_pem[..800]);
    told += &format!("{:?}", rig.exchange(wanted(NAME, &task, &["site:read"], "cut")).unwrap_err());
    std::fs::write(&path, format!("target = '{}'\nprivate_key = {}", double.target, double.app_pem)).unwrap();
    told += &format!("{:?}", rig.exchange(wanted(NAME, &task, &["site:read"], "broken")).unwrap_err());
    double.secret(&rig, NAME, &double.target, &double.app_pem);
    for args in [
        &["upstream", "test", NAME][..],
        &["upstream", "show", NAME, "-o", "json"],
        &["lease", "list", "-o", "json"],
        &["credential", "list", "-o", "json"],
        &["audit", "search", "-o", "json"],
        &["status", "-o", "json"],
        &["explain", &task],
    ] {
        let done = rig.operate(args);
        told += &String::from_utf8_lossy(&done.stdout);
        told += &String::from_utf8_lossy(&done.stderr);
    }
    let mut found = vec![("what was told".to_owned(), told.into_bytes())];
    std::fs::remove_dir_all(rig.world.dir().join("secrets")).unwrap();
    // While the lease of the second token is open, so that its sealed value is in the store.
    assert_eq!(double.live(), 1);
    files(rig.world.dir(), &mut found);
    assert!(found.iter().any(|(name, _)| name.contains("/data/")) && found.iter().any(|(name, _)| name.ends_with("server.log")));
    for (name, bytes) in &found {
        for secret in &secrets {
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "{name} has a secret that begins with {}", &secret[..4]);
        }
    }
    rig.complete(&task);
}
