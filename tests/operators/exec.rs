//! `mayfly exec`: a program with a credential in its environment, and nowhere else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::server::RunningServer;
use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{Callers, MAYFLY, PATIENCE, as_operator, world};

struct Up {
    _dir: tempfile::TempDir,
    world: DevWorld,
    running: RunningServer,
    runtime: tokio::runtime::Runtime,
}

impl Up {
    fn new() -> Up {
        let (dir, world) = world(DevSettings::default());
        let running = world.start().unwrap_or_else(|no| panic!("{no}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Up { _dir: dir, world, running, runtime }
    }

    fn exec(&self, options: &[&str], script: &str) -> Command {
        let context = self.world.write_context("agent/demo", self.running.addresses().workload).unwrap();
        let mut command = Command::new(MAYFLY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        command.arg("--config").arg(context).args(["exec", "--inject", "env", "--every", "1s"]).args(options);
        command.args(["--", "sh", "-c", script]).stdin(Stdio::null());
        command
    }

    fn ran(&self, script: &str) -> Output {
        self.exec(&["--upstream", "echo", "--purpose", "test"], script).output().unwrap()
    }

    /// Starts a program that writes its credential to a file, and returns the credential once it is written.
    fn begun(&self, options: &[&str], script: &str) -> (Child, String) {
        let file = self.world.dir().join("seen");
        let _ = fs::remove_file(&file);
        let script = format!("printf %s \"$ECHO_TOKEN\" >{0}.new && mv {0}.new {0}; {script}", file.display());
        let all = [&["--upstream", "echo", "--purpose", "test"], options].concat();
        let child = self.exec(&all, &script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        (child, seen(&file, ""))
    }

    fn active(&self, token: &str) -> bool {
        self.runtime.block_on(async { Callers::new(&self.world, self.running.addresses().workload).await.active(token).await })
    }

    fn id(&self, token: &str) -> String {
        let text: serde_json::Value = {
            use base64::Engine as _;
            let payload = token.split('.').nth(1).unwrap();
            serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
        };
        text["jti"].as_str().unwrap().to_owned()
    }

    fn revoke(&self, token: &str) {
        let id = self.id(token);
        let out = as_operator(&self.world, self.running.addresses().admin, &["revoke", "--credential", &id, "--reason", "test"]);
        assert!(out.status.success(), "{out:?}");
    }
}

/// The content of the file once it differs from before.
fn seen(file: &PathBuf, before: &str) -> String {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if let Ok(text) = fs::read_to_string(file)
            && text != before
        {
            return text;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{} was not written", file.display());
}

fn ended(mut child: Child) -> (Option<i32>, String, String) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if let Some(status) = child.try_wait().unwrap() {
            let (mut out, mut err) = (String::new(), String::new());
            child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            return (status.code(), out, err);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("it did not end");
}

/// The huge-page setting of a process is inherited by its children, and `mayfly exec` must not slow down the program.
#[test]
fn the_program_has_huge_pages_as_its_caller_has() {
    let up = Up::new();
    let huge = |status: &str| status.lines().find(|l| l.starts_with("THP_enabled")).unwrap().to_owned();
    let out = up.ran("cat /proc/self/status");
    let (its, ours) = (String::from_utf8(out.stdout).unwrap(), fs::read_to_string("/proc/self/status").unwrap());
    assert_eq!(huge(&its), huge(&ours));
}

#[test]
fn the_credential_is_in_the_environment_alone_and_ends_with_the_program() {
    let up = Up::new();
    let out = up.ran("test -n \"$ECHO_BASE_URL\" && test -n \"$MAYFLY_TASK\" && printf '%s' \"$ECHO_TOKEN\"");
    let token = String::from_utf8(out.stdout).unwrap();
    assert_eq!((out.status.code(), token.split('.').count()), (Some(0), 3), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty(), "nothing is printed: {}", String::from_utf8_lossy(&out.stderr));
    assert!(!up.active(&token), "it was given back");

    // While the program runs, the credential is active, and appears in no command line.
    let (mut child, token) = up.begun(&[], "exec sleep 30");
    assert!(up.active(&token));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&token), "{}", entry.path().display());
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(143), "as a shell tells of SIGTERM");
    assert!(!up.active(&token));
    up.running.stop();
}

#[test]
fn streams_exit_codes_and_signals_are_the_programs_own() {
    let up = Up::new();
    let mut child = up.exec(
        &["--env", "MY_TOKEN=echo=echo:read", "--purpose", "test"],
        "test -n \"$MY_TOKEN\" && cat; echo words >&2; exit 42",
    );
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let (mut stdin, sent) = (child.stdin.take().unwrap(), bytes.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(back == bytes, "stdout is the program's, byte for byte");
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(42), "words\n"));

    for (signal, number) in [(Signal::HUP, 1), (Signal::INT, 2), (Signal::USR1, 10), (Signal::USR2, 12)] {
        let (child, _) = up.begun(&[], &format!("trap 'echo got; exit {number}' {number}; while :; do sleep 0.05; done"));
        std::thread::sleep(Duration::from_millis(200));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (code, out, _) = ended(child);
        assert_eq!((code, out.as_str()), (Some(number), "got\n"));
    }
    for (command, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let mut run = up.exec(&["--upstream", "echo", "--purpose", "test"], "");
        let args: Vec<_> = run.get_args().map(ToOwned::to_owned).collect();
        let at = args.iter().position(|a| a == "--").unwrap();
        let mut again = Command::new(MAYFLY);
        let out = again.args(&args[..=at]).arg(command).output().unwrap();
        assert_eq!(out.status.code(), Some(code));
        run.stdin(Stdio::null());
    }
    let live = up.running.authority().ledger.peek(|s| s.tasks.len());
    let out = as_operator(&up.world, up.running.addresses().admin, &["task", "list", "--state", "active", "-o", "name"]);
    assert!(String::from_utf8_lossy(&out.stdout).trim().is_empty(), "{live} tasks are left: {out:?}");
    up.running.stop();
}

#[test]
fn what_cannot_be_minted_starts_no_program() {
    let up = Up::new();
    let mark = up.world.dir().join("mark");
    let script = format!("touch {}", mark.display());
    for (options, code) in [
        (&["--upstream", "nothing", "--purpose", "test"][..], 3),
        (&["--env", "A=echo=echo:read", "--env", "B=echo=echo:nothing", "--purpose", "test"], 5),
        (&["--upstream", "echo"], 2),
    ] {
        let out = up.exec(options, &script).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stdout.is_empty() && !mark.exists());
    }
    let out = as_operator(&up.world, up.running.addresses().admin, &["credential", "list", "-o", "name"]);
    assert!(out.stdout.is_empty(), "all or none: {out:?}");
    up.running.stop();
}

#[test]
fn what_becomes_of_a_program_whose_credential_is_revoked_is_as_somebody_said() {
    let up = Up::new();
    // The program continues to run.
    let (child, token) = up.begun(&[], "sleep 2; exit 7");
    up.revoke(&token);
    assert_eq!(ended(child).0, Some(7));
    // The program is ended, by force if it ignores the signal.
    let (child, token) = up.begun(&["--on-expiry", "stop", "--grace", "300ms"], "trap '' TERM; while :; do sleep 0.1; done");
    up.revoke(&token);
    let (code, _, err) = ended(child);
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("was revoked") && err.contains("mayfly explain"), "{err}");
    // The program is restarted with another credential, until there is none.
    let (child, token) = up.begun(&["--on-expiry", "restart"], "exec sleep 60");
    up.revoke(&token);
    let next = seen(&up.world.dir().join("seen"), &token);
    assert!(up.active(&next) && !up.active(&token));
    let admin = up.running.addresses().admin;
    let caller = DevWorld::id("agent/demo");
    let out = as_operator(&up.world, admin, &["revoke", "--caller", &caller, "--reason", "stolen", "--confirm", "all"]);
    assert!(out.status.success(), "{out:?}");
    let (code, _, err) = ended(child);
    assert_eq!(code, Some(5), "{err}");
    up.running.stop();
}

#[test]
fn before_a_credential_ends_by_its_time_the_program_is_started_again_with_a_new_one() {
    let up = Up::new();
    let (child, token) = up.begun(&["--on-expiry", "restart", "--ttl", "12s"], "exec sleep 60");
    let next = seen(&up.world.dir().join("seen"), &token);
    assert!(up.active(&next));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(ended(child).0, Some(143));
    let (child, token) = up.begun(&["--on-expiry", "stop", "--ttl", "2s"], "exec sleep 60");
    let (code, _, err) = ended(child);
    assert!(code == Some(5) && err.contains("has ended by its time"), "{err}");
    assert!(!up.active(&token));
    up.running.stop();
}
