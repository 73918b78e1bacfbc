//! Runs `run.py` for a test, with programs that are built with the test's profile.

use std::path::{Path, PathBuf};
use std::process::Command;

fn there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Whether file operations can be recorded here; prints the reason if not.
pub fn possible() -> bool {
    let possible = cfg!(target_os = "linux") && there("python3") && there("cc");
    if !possible {
        crate::skipped::skipped("recording file operations needs Linux, python3 and cc");
    }
    possible
}

/// A program of `examples/`, built with this test's profile and with the workspace's features of dependencies.
pub fn example(name: &str) -> PathBuf {
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--example", name])
        .args(profile)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success());
    // Beside the tests' own folder, whatever the target directory is called.
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// Default numbers of images.
pub struct Images {
    pub under_load: u64,
    pub creation: u64,
}

/// The expected outcome.
#[allow(dead_code, reason = "not every test has a server that must fail")]
pub enum Outcome {
    /// Every image is fine, but the control without these syncs (`careless` or `reckless`) loses data.
    Fine(&'static str),
    /// Some image loses data.
    Fails,
}

/// Runs the whole test. `commands`: pairs of `--server`, `--load` or `--check` and the command line for it.
pub fn run(work: &Path, images: &Images, outcome: &Outcome, commands: &[(&str, String)]) {
    let setting = |name: &str, default: u64| std::env::var(name).unwrap_or(default.to_string());
    let ran = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/run.py"))
        .arg("--work")
        .arg(work)
        .args(["--images", &setting("MAYFLY_IMAGES", images.under_load), "--seed", &setting("MAYFLY_SEED", 1)])
        .args(["--creation-images", &setting("MAYFLY_CREATION_IMAGES", images.creation)])
        .args(match outcome {
            Outcome::Fine(control) => vec!["--control-mode", control],
            Outcome::Fails => vec!["--must-fail", "--control", "0"],
        })
        .args(commands.iter().flat_map(|(flag, command)| [*flag, command.as_str()]))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    print!("{out}");
    assert!(ran.status.success(), "{out}\n{err}");
    let shown = match outcome {
        Outcome::Fine(_) => "control: without its flushes it fails",
        Outcome::Fails => "as it must, it fails",
    };
    for said in ["VERIFY OK", shown, "| under load |", "| creation |"] {
        assert!(out.contains(said), "{said:?} is not in:\n{out}");
    }
}
