//! No secret is where it does not belong: marker secrets are planted, everything runs, failures included, and all that mayfly and the
//! database wrote is searched.

use std::path::Path;

use super::cluster::{ADMIN_PASSWORD, cluster};
use super::rig::{Rig, login, wanted};

/// The files under a directory, with their contents.
pub fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
}

#[test]
fn neither_mayflys_own_password_nor_that_of_a_login_is_anywhere() {
    let Some(cluster) = cluster() else { return };
    let target = format!("postgres://127.0.0.1:{}/orders", cluster.port);
    let rig = Rig::of("marked", &target, "plaintext = true");
    let task = rig.open("marked");
    let mut secrets = vec![ADMIN_PASSWORD.to_owned()];
    let mut told = String::new();
    for n in 0..3 {
        let issued = rig.exchange(wanted("marked", &task, "orders:read", &format!("{n}"))).unwrap();
        secrets.push(login(&issued).password);
        let mut shown = issued.clone();
        shown.answer = None;
        told += &format!("{shown:?}");
    }
    // A repeat, a wrong password of mayfly's own, a file that is open to others, and one for another target.
    rig.exchange(wanted("marked", &task, "orders:read", "0")).unwrap();
    const WRONG: &str = "wrong-marker-77d0";
    secrets.push(WRONG.to_owned());
    let path = rig.secret("marked", &target, WRONG);
    let no = rig.exchange(wanted("marked", &task, "orders:read", "wrong")).unwrap_err();
    assert!(no.message().contains("password authentication failed") && no.message().contains("28P01"), "{no}");
    told += &format!("{no:?}");
    super::rig::closed(&path, 0o644);
    told += &format!("{:?}", rig.exchange(wanted("marked", &task, "orders:read", "open")).unwrap_err());
    rig.secret("marked", "postgres://db.example.org", WRONG);
    told += &format!("{:?}", rig.exchange(wanted("marked", &task, "orders:read", "other")).unwrap_err());
    std::fs::write(&path, format!("target = '{target}'\npassword = {WRONG}\n")).unwrap();
    super::rig::closed(&path, 0o600);
    told += &format!("{:?}", rig.exchange(wanted("marked", &task, "orders:read", "broken")).unwrap_err());
    rig.secret("marked", &target, ADMIN_PASSWORD);
    for args in [
        &["upstream", "test", "marked"][..],
        &["upstream", "show", "marked", "-o", "json"],
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
    rig.complete(&task);
    assert!(rig.settled(cluster, "marked", "completed").is_empty());
    let mut found = vec![("what was told".to_owned(), told.into_bytes())];
    std::fs::remove_dir_all(rig.world.dir().join("secrets")).unwrap();
    files(rig.world.dir(), &mut found);
    found.push(("the log of PostgreSQL".to_owned(), std::fs::read(&cluster.log).unwrap()));
    assert!(found.iter().any(|(name, _)| name.contains("/data/")) && found.iter().any(|(name, _)| name.ends_with("server.log")));
    for (name, bytes) in &found {
        for secret in &secrets {
            // The database's own operator wrote this password into a statement; mayfly never does.
            if secret == ADMIN_PASSWORD && name == "the log of PostgreSQL" {
                continue;
            }
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "{name} has a secret that begins with {}", &secret[..4]);
        }
    }
}
