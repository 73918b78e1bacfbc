//! Files that commands read and write: what is no regular file does not hold a command up, and a written file is private and takes the place
//! of nothing else.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use mayfly::pb::mayfly::v1 as pb;

use crate::double::{Ran, Stage, program, ran};
use crate::kit::pki::Authority;

const MAYFLY: &str = env!("CARGO_BIN_EXE_mayfly");

/// Runs a program of this host in a folder.
fn in_folder(folder: &Path, program: &str, words: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", folder).env("PATH", "/usr/bin:/bin").current_dir(folder).args(words);
    ran(&mut command, "")
}

/// A folder with an SVID, its key, its bundle, and a pipe that nobody writes to.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = Authority::root("example.org");
    let svid = root.svid("spiffe://example.org/a");
    for (name, text) in [("svid.pem", svid.chain_pem()), ("key.pem", svid.key_pem()), ("bundle.pem", root.pem())] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    folder
}

#[test]
fn a_pipe_that_nobody_writes_to_is_refused_at_once_wherever_a_file_is_named() {
    let folder = folder();
    let connection = |svid: &str, key: &str, bundle: &str, command: &str| {
        format!("--svid {svid} --key {key} --bundle {bundle} --server-id spiffe://example.org/m --address 127.0.0.1:9 {command}")
    };
    let connections = [
        connection("fifo", "key.pem", "bundle.pem", "whoami"),
        connection("svid.pem", "fifo", "bundle.pem", "whoami"),
        connection("svid.pem", "key.pem", "fifo", "whoami"),
        connection("svid.pem", "key.pem", "fifo", "doctor"),
        connection("svid.pem", "key.pem", "fifo", "login --public https://127.0.0.1:9"),
    ];
    let lines = [
        "--config fifo whoami",
        "login --public https://127.0.0.1:9 --public-ca fifo",
        "svid check --trust-domain example.org --bundle fifo svid.pem",
        "svid check --trust-domain example.org --bundle bundle.pem fifo",
        "server backup --verify fifo",
        "server validate --config fifo",
        "server restore fifo --config fifo",
        "audit verify fifo",
        "audit verify svid.pem --key fifo",
        "audit verify svid.pem --checkpoint fifo",
        "policy validate fifo --roles fifo",
        "policy test fifo svid.pem --roles svid.pem --upstreams .",
    ];
    for line in connections.iter().map(String::as_str).chain(lines) {
        let words: Vec<&str> = ["60", MAYFLY].into_iter().chain(line.split(' ')).collect();
        let ran = in_folder(folder.path(), "timeout", &words);
        assert!([1, 2, 10].contains(&ran.exit), "{line}: {ran:?}");
        assert!(ran.stderr.contains("fifo") || ran.stdout.contains("fifo"), "{line}: {ran:?}");
    }
    // A folder can be opened and not be read: that says nothing of an export.
    let ran = in_folder(folder.path(), "timeout", &["60", MAYFLY, "audit", "verify", "."]);
    assert!(ran.exit == 1 && ran.stderr.contains(".: cannot be read"), "{ran:?}");
    // The file of settings that is read without being named.
    let config = folder.path().join(".config/mayfly");
    fs::create_dir_all(&config).unwrap();
    fs::rename(folder.path().join("fifo"), config.join("config.toml")).unwrap();
    let ran = in_folder(folder.path(), "timeout", &["60", MAYFLY, "whoami"]);
    assert!(ran.exit == 2 && ran.stderr.contains("not a regular file"), "{ran:?}");
}

#[test]
fn a_document_may_come_from_a_command() {
    let folder = folder();
    let script =
        "\"$0\" svid check --trust-domain example.org --at 2026-11-20T00:00:00Z --bundle <(cat bundle.pem) <(cat svid.pem)";
    let ran = in_folder(folder.path(), "bash", &["-c", script, MAYFLY]);
    assert_eq!(ran.exit, 0, "{ran:?}");
}

#[test]
fn a_written_file_is_private_and_follows_and_replaces_nothing_else() {
    let stage = Stage::new();
    let at = |name: &str| stage.folder.path().join(name);
    let part = || Ok::<_, tonic::Status>(pb::ExportRecordsResponse { lines: "a line\n".into() });
    stage.double.on(move |_: pb::ExportRecordsRequest| Ok(vec![part()]));
    fs::write(at("victim"), "kept").unwrap();
    symlink(at("victim"), at("out.partial")).unwrap();
    fs::write(at("out"), "an older export").unwrap();
    fs::set_permissions(at("out"), fs::Permissions::from_mode(0o666)).unwrap();
    // What a killed command left, and the file of one that still writes: that one holds a lock.
    let (left, running) = (at(&format!("out.{}.partial", "0".repeat(32))), at(&format!("out.{}.partial", "1".repeat(32))));
    fs::write(&left, "half of it").unwrap();
    let writer = File::create(&running).unwrap();
    writer.try_lock().unwrap();
    stage.run("audit export --out out").ok();
    assert_eq!(fs::read_to_string(at("out")).unwrap(), "a line\n");
    assert_eq!(fs::metadata(at("out")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!left.exists() && running.exists());
    drop(writer);
    stage.run("audit export --out out").ok();
    assert!(!running.exists());
    for name in ["out.partial", "folder", "fifo"] {
        match name {
            "folder" => fs::create_dir(at(name)).unwrap(),
            "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, at(name), rustix::fs::Mode::from_raw_mode(0o600)).unwrap(),
            _ => {}
        }
        let ran = stage.run(&format!("audit export --out {name}"));
        assert!(ran.exit == 2 && ran.stderr.contains(name), "{name}: {ran:?}");
    }
    assert_eq!(fs::read_to_string(at("victim")).unwrap(), "kept");
    let mut names: Vec<_> = fs::read_dir(stage.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["admin.sock", "fifo", "folder", "out", "out.partial", "victim"]);
}

#[test]
fn a_name_with_control_characters_is_refused_for_a_backup_before_a_server_is_asked() {
    let home = tempfile::tempdir().unwrap();
    for name in ["new\nline", "\u{1b}[2J", "folder/tab\t"] {
        let ran = ran(program(home.path()).args(["server", "backup", "--to", name]), "");
        assert!(ran.exit == 2 && ran.stderr.contains("--to ") && ran.stderr.contains("control characters"), "{ran:?}");
        assert!(!ran.stderr.contains(name), "{ran:?}");
    }
}
