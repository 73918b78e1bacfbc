//! The hook of an upstream: a program on the server's host that makes, verifies and revokes static secrets at the vendor.
//!
//! The command is in the server's configuration and never in a registration, so that an operator of upstreams cannot run programs. The
//! contract is narrow: one JSON object on stdin, one on stdout, an empty environment, a time limit, a bounded answer. stderr is discarded,
//! since a program that fails may print what it was given. The program runs in a process group of its own, and the whole group is killed at
//! the limit, when the server stops, and after the answer.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use mayfly_base::document::terminal_text::{cut, one_line};
use mayfly_base::limits;

/// A hook, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationHook {
    /// The upstream whose secret the hook rotates.
    pub upstream: String,
    /// The program, an absolute path, and its arguments.
    pub command: Vec<String>,
    /// The time limit of one call.
    pub timeout: Duration,
}

/// What a hook is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HookAction {
    /// Make another secret at the vendor; the one in use stays valid. A repeat with the same attempt gives the same secret, or revokes what
    /// the attempt made before.
    Create,
    /// Make a test call with a secret.
    Verify,
    /// Revoke a secret at the vendor. One that does not exist is revoked.
    Revoke,
}

/// A secret, as a hook sees it.
#[derive(Clone, Copy, Serialize)]
pub struct HookSecret<'a> {
    /// The version.
    pub version: u64,
    /// The secret.
    pub value: &'a str,
    /// The vendor's name of it, as the hook returned it.
    pub id: &'a str,
}

/// The object on stdin.
#[derive(Clone, Copy, Serialize)]
pub struct HookRequest<'a> {
    /// What is to be done.
    pub action: HookAction,
    /// The upstream.
    pub upstream: &'a str,
    /// The upstream's environment.
    pub environment: &'a str,
    /// The upstream's target.
    pub target: &'a str,
    /// The rotation attempt, for `create`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub attempt: &'a str,
    /// The secret in use, by which the hook may log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<HookSecret<'a>>,
    /// The secret to be verified or revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<HookSecret<'a>>,
}

/// The object on stdout.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookReply {
    /// The new secret, for `create`.
    #[serde(default, deserialize_with = "wiped")]
    pub value: Option<Zeroizing<String>>,
    /// The vendor's name of it.
    #[serde(default)]
    pub id: Option<String>,
    /// Whether the vendor accepts the secret, for `verify`.
    #[serde(default)]
    pub valid: Option<bool>,
    /// The secret is revoked, for `revoke`.
    #[serde(default)]
    pub revoked: Option<bool>,
    /// What went wrong, for people. It must not contain a secret.
    #[serde(default)]
    pub error: Option<String>,
}

/// Reads a secret into memory that is wiped.
fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Zeroizing::new))
}

/// Why a call failed. It may have taken effect at the vendor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HookError(pub String);

/// Kills the process group of a call when it is dropped.
struct GroupGuard(Option<Pid>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl RotationHook {
    /// Why the program cannot be run: it is missing, no program, or others could replace it.
    pub fn problem(&self) -> Option<String> {
        let program = self.command.first().map(PathBuf::from)?;
        let found = match std::fs::metadata(&program) {
            Ok(found) => found,
            Err(e) => return Some(format!("{}: {e}", program.display())),
        };
        if !found.is_file() || found.mode() & 0o111 == 0 {
            return Some(format!("{} is no program", program.display()));
        }
        let replaceable = |path: &Path| std::fs::metadata(path).map_or(true, |found| found.mode() & 0o022 != 0);
        let open = program.ancestors().find(|path| replaceable(path) && !is_sticky(path));
        open.map(|path| format!("{} may be written by others than its owner; chmod go-w {0}", path.display()))
    }

    /// Runs the hook once.
    pub async fn call(&self, ask: &HookRequest<'_>) -> Result<HookReply, HookError> {
        if let Some(problem) = self.problem() {
            return Err(HookError(problem));
        }
        let input = Zeroizing::new(serde_json::to_vec(ask).map_err(|e| HookError(e.to_string()))?);
        let (program, arguments) = self.command.split_first().ok_or_else(|| HookError("no command".to_owned()))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| HookError(format!("{program} could not be started: {e}")))?;
        let guard = GroupGuard(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let ran = tokio::time::timeout(self.timeout, exchange(&mut child, &input)).await;
        // What the program left running must not outlive the call.
        drop(guard);
        let (code, output) = match ran {
            Ok(ran) => ran.map_err(|e| HookError(format!("{program}: {e}")))?,
            Err(_) => {
                return Err(HookError(format!("{program} took longer than {} s and was killed", self.timeout.as_secs_f32())));
            }
        };
        let reply = serde_json::from_slice::<HookReply>(&output);
        let hidden = |text: &str| hide(text, ask, reply.as_ref().ok().and_then(|r| r.value.as_deref().map(String::as_str)));
        match (code, &reply) {
            (Some(0), Ok(_)) => Ok(reply.unwrap_or_default()),
            (Some(0), Err(e)) => {
                // The position is told, and nothing of the text.
                Err(HookError(format!("{program} wrote no JSON of the contract (line {}, column {})", e.line(), e.column())))
            }
            (code, reply) => {
                let code = code.map_or_else(|| "was killed by a signal".to_owned(), |code| format!("ended with code {code}"));
                let said = reply.as_ref().ok().and_then(|r| r.error.as_deref()).map(|e| format!(": {}", hidden(e)));
                Err(HookError(format!("{program} {code}{}", said.unwrap_or_default())))
            }
        }
    }
}

fn is_sticky(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_dir() && found.mode() & 0o1000 != 0)
}

/// Sends the request and reads the answer, at once: a program that answers before it has read everything must not block.
async fn exchange(child: &mut Child, input: &[u8]) -> std::io::Result<(Option<i32>, Zeroizing<Vec<u8>>)> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        let Some(mut stdin) = stdin else { return };
        // A program that does not read its input says with its answer what it thinks of it.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    };
    let read = async {
        // Reserved at once: a growing buffer would leave copies of a secret in memory.
        let mut output = Zeroizing::new(Vec::with_capacity(limits::HOOK_ANSWER_BYTES + 1));
        if let Some(mut stdout) = stdout {
            let mut piece = Zeroizing::new([0; 4096]);
            while output.len() <= limits::HOOK_ANSWER_BYTES {
                let count = stdout.read(&mut *piece).await?;
                let room = limits::HOOK_ANSWER_BYTES + 1 - output.len();
                output.extend_from_slice(piece.get(..count.min(room)).unwrap_or_default());
                if count == 0 {
                    break;
                }
            }
        }
        match output.len() > limits::HOOK_ANSWER_BYTES {
            true => Err(std::io::Error::other(format!("wrote more than {} bytes", limits::HOOK_ANSWER_BYTES))),
            false => Ok(output),
        }
    };
    let ((), output) = tokio::join!(write, read);
    let output = output?;
    Ok((child.wait().await?.code(), output))
}

/// The shortest line of a secret that is hidden by itself. Shorter lines are words that a message may have by chance.
const SECRET_LINE: usize = 8;

/// A hook's words without the secrets that it was given or made.
fn hide(text: &str, ask: &HookRequest<'_>, made: Option<&str>) -> String {
    let secrets = [ask.current.map(|s| s.value), ask.secret.map(|s| s.value), made];
    let mut text = Zeroizing::new(text.to_owned());
    for secret in secrets.into_iter().flatten().filter(|secret| !secret.is_empty()) {
        let escaped = Zeroizing::new(serde_json::to_string(secret).unwrap_or_default());
        // The whole secret, as JSON has it, and the lines of a longer one.
        let lines = secret.lines().map(str::trim).filter(|line| line.len() >= SECRET_LINE);
        for part in [secret, escaped.trim_matches('"')].into_iter().chain(lines) {
            text = Zeroizing::new(text.replace(part, "(secret)"));
        }
    }
    cut(&one_line(&text), limits::LEASE_DETAIL_BYTES)
}

/// The words of a reply that is no success.
pub(super) fn words(reply: &HookReply, ask: &HookRequest<'_>) -> String {
    match &reply.error {
        Some(error) => hide(error, ask, reply.value.as_deref().map(String::as_str)),
        None => "it gave no reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn hook(dir: &Path, script: &str, timeout_ms: u64) -> RotationHook {
        let path = dir.join("hook");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        let command = vec![path.to_str().unwrap().to_owned(), "one".to_owned()];
        RotationHook { upstream: "sentry".into(), command, timeout: Duration::from_millis(timeout_ms) }
    }

    fn request() -> HookRequest<'static> {
        HookRequest {
            action: HookAction::Create,
            upstream: "sentry",
            environment: "prod",
            target: "https://sentry.example.org",
            attempt: "a1",
            current: Some(HookSecret { version: 3, value: "old-secret", id: "k3" }),
            secret: None,
        }
    }

    #[tokio::test]
    async fn a_hook_gets_the_request_and_nothing_of_the_servers_environment() {
        let dir = tempfile::tempdir().unwrap();
        let script = "read -r line; printf '%s|%s|%s' \"$line\" \"$(env | grep -cv '^PWD=\\|^_=\\|^PATH=\\|^LC_ALL=\\|^SHLVL=')\" \"$1\" \
                      >\"$(dirname \"$0\")/seen\"; echo '{\"value\": \"new-secret\", \"id\": \"k4\"}'";
        let reply = hook(dir.path(), script, 10_000).call(&request()).await.unwrap();
        assert_eq!((reply.value.as_ref().map(|v| v.as_str()), reply.id.as_deref()), (Some("new-secret"), Some("k4")));
        let seen = std::fs::read_to_string(dir.path().join("seen")).unwrap();
        let expected = r#"{"action":"create","upstream":"sentry","environment":"prod","target":"https://sentry.example.org","attempt":"a1","current":{"version":3,"value":"old-secret","id":"k3"}}|0|one"#;
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn what_is_not_of_the_contract_is_an_error_that_tells_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        for (script, said) in [
            ("echo '{\"value\": \"new-secret\"'", "wrote no JSON of the contract"),
            ("echo '{\"value\": \"new-secret\", \"more\": 1}'", "wrote no JSON of the contract"),
            ("cat", "wrote no JSON of the contract"),
            (
                "echo '{\"error\": \"old-secret is wrong\", \"value\": \"new-secret\"}'; exit 3",
                "ended with code 3: (secret) is wrong",
            ),
            ("echo new-secret; exit 4", "ended with code 4"),
            ("kill -9 $$", "killed by a signal"),
            ("yes new-secret", "wrote more than"),
        ] {
            let no = hook(dir.path(), script, 10_000).call(&request()).await.map(|_| ()).unwrap_err().0;
            assert!(no.contains(said) && !no.contains("old-secret") && !no.contains("new-secret"), "{script}: {no}");
        }
    }

    #[test]
    fn a_secret_of_several_lines_is_hidden_in_every_form() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----";
        let ask = HookRequest { current: Some(HookSecret { version: 3, value: key, id: "" }), ..request() };
        for told in
            [format!("refused {key}"), format!("refused {}", serde_json::to_string(key).unwrap()), "MIIEvQIBADANBg".to_owned()]
        {
            let shown = hide(&told, &ask, None);
            assert!(!shown.contains("MIIE") && shown.contains("(secret)"), "{shown}");
        }
    }

    #[tokio::test]
    async fn at_the_limit_the_whole_group_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let script = "sleep 600 & echo $! >\"$(dirname \"$0\")/child\"; wait";
        let no = hook(dir.path(), script, 700).call(&request()).await.map(|_| ()).unwrap_err().0;
        assert!(no.contains("took longer than 0.7 s and was killed"), "{no}");
        let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
        let ended = || match std::fs::read_to_string(format!("/proc/{}/stat", child.trim())) {
            Ok(stat) => stat.contains(") Z"),
            Err(_) => true,
        };
        for _ in 0..200 {
            if ended() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a child of the hook is still there");
    }

    #[tokio::test]
    async fn a_program_that_others_may_replace_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let own = hook(dir.path(), "echo '{}'", 5_000);
        assert!(own.call(&request()).await.is_ok());
        std::fs::set_permissions(&own.command[0], std::fs::Permissions::from_mode(0o722)).unwrap();
        assert!(own.call(&request()).await.map(|_| ()).unwrap_err().0.contains("may be written by others"));
        std::fs::set_permissions(&own.command[0], std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(own.call(&request()).await.map(|_| ()).unwrap_err().0.contains("is no program"));
        std::fs::remove_file(&own.command[0]).unwrap();
        assert!(own.call(&request()).await.is_err());
    }
}
