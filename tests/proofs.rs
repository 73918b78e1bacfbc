//! Types as proofs: programs that leave a step out do not compile. Each file in `tests/compile_fail` says which step it tries to leave out; the
//! `.errors` file beside it holds the errors of the compiler, one per line: the line in the program, the code, the message and its label.
//!
//! The compiler reads the library that this very build made, so that nothing is compiled a second time. `MAYFLY_WRITE_ERRORS=1` writes the
//! `.errors` files anew.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The library `mayfly` as cargo built it for the tests.
fn library() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--workspace", "--bins", "--examples", "--message-format=json"])
        .args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] })
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let artifacts = built.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    artifacts
        .filter(|a| a["target"]["name"] == "mayfly" && a["target"]["kind"][0] == "lib")
        .flat_map(|a| a["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .find(|file| file.extension() == Some(OsStr::new("rlib")))
        .expect("cargo names the library that it built")
}

/// The errors of the compiler for one program: line, code and message.
fn errors_of(program: &Path, library: &Path) -> String {
    let out = tempfile::tempdir().unwrap();
    let folder = library.parent().unwrap();
    let dependencies = if folder.ends_with("deps") { folder.to_path_buf() } else { folder.join("deps") };
    let compiled = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--crate-type", "bin", "--emit", "metadata", "--error-format", "json"])
        .arg("--extern")
        .arg(format!("mayfly={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", dependencies.display()))
        .arg("--out-dir")
        .arg(out.path())
        .arg(program)
        .output()
        .unwrap();
    let mut errors = String::new();
    for line in compiled.stderr.split(|b| *b == b'\n') {
        let Ok(said) = serde_json::from_slice::<Value>(line) else { continue };
        let primary = said["spans"].as_array().and_then(|spans| spans.iter().find(|span| span["is_primary"] == true));
        if let ("error", Some(at)) = (said["level"].as_str().unwrap_or_default(), primary) {
            let code = said["code"]["code"].as_str().unwrap_or("-");
            let here = at["file_name"].as_str().is_some_and(|name| Path::new(name) == program);
            let line = if here { at["line_start"].to_string() } else { "-".to_owned() };
            let (message, label) = (said["message"].as_str().unwrap(), at["label"].as_str().unwrap_or_default());
            writeln!(errors, "{line} {code} {message}: {label}").unwrap();
        }
    }
    assert_eq!(compiled.status.success(), errors.is_empty(), "{}", String::from_utf8_lossy(&compiled.stderr));
    errors
}

#[test]
fn what_must_not_happen_does_not_compile() {
    let library = library();
    let mut programs: Vec<PathBuf> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some(OsStr::new("rs")))
        .collect();
    programs.sort();
    assert!(programs.len() > 10, "{programs:?}");
    let mut wrong = String::new();
    for program in programs {
        let (found, file) = (errors_of(&program, &library), program.with_extension("errors"));
        if std::env::var_os("MAYFLY_WRITE_ERRORS").is_some() {
            std::fs::write(&file, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if found.is_empty() || found != expected {
            writeln!(wrong, "{}\nexpected:\n{expected}found:\n{found}", program.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The check itself: a program that leaves nothing out compiles.
#[test]
fn what_leaves_nothing_out_compiles() {
    let at = tempfile::tempdir().unwrap();
    let program = at.path().join("fine.rs");
    std::fs::write(&program, "use mayfly::policy::grant::Grant;\nfn kind(grant: &Grant) -> u32 { grant.kind() }\nfn main() {}\n")
        .unwrap();
    assert_eq!(errors_of(&program, &library()), "");
}
