//! Power fails under the redb engine, on a real file system: every file operation of a real process is recorded, and what a power failure
//! could have left of them is opened and compared (tests/power/README.md).
//!
//! `MAYFLY_IMAGES` sets the number of images (default 120), `MAYFLY_SEED` the seed.

use std::path::PathBuf;
use std::process::Command;

fn there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

#[test]
fn the_store_survives_a_power_failure() {
    if !cfg!(target_os = "linux") || !there("python3") || !there("cc") {
        println!("SKIPPED: recording file operations needs Linux, python3 and cc");
        return;
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let built =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "store_power"]).current_dir(&root).status().unwrap();
    assert!(built.success());
    // Beside the tests' own folder, whatever the target directory is called.
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/store_power");
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let work = tempfile::tempdir().unwrap();
    let ran = Command::new("python3")
        .arg(root.join("tests/power/run.py"))
        .arg("--work")
        .arg(work.path())
        .args(["--images", &setting("MAYFLY_IMAGES", "120"), "--seed", &setting("MAYFLY_SEED", "1")])
        .arg("--server")
        .arg(format!("{} write {{dir}}/store {{acks}}", program.display()))
        .arg("--check")
        .arg(format!("{} check {{dir}}/store {{expect}}", program.display()))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    print!("{out}");
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("VERIFY OK") && out.contains("| under load |"), "{out}");
}
