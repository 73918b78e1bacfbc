//! Text of callers has no effect on a terminal, in a log or in a file: hostile text in every field that a caller sets, and every command
//! that shows it, in every output format.

mod sent;

use std::path::Path;
use std::process::{Command, Stdio};

use mayfly::cli::dev::{DevSettings, DevWorld, ServerProcess};
use mayfly::document::terminal_text::is_unsafe;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use sent::sent;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use crate::kit::{MAYFLY, world};
use crate::provider::Provider;

/// A color, a title, a cursor movement, the same in C1 form, other line ends, another text direction, invisible characters, characters that
/// end a line elsewhere, a formula, a tag. `MARK` shows that the text arrived.
const HOSTILE: &str = "=MARK\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\nnext\rback\u{8}\t\u{202e}txet\u{2066}\u{200b}\u{feff}\u{2028}\u{85}\u{e0041}<b>\",;'";
/// The part of it without control characters: free text accepts it.
const UNSEEN: &str = "=MARK\u{202e}txet\u{2066}\u{200b}\u{feff}\u{2028}\u{ad}\u{e0041}\u{fe0f}<b>\",;'";
/// With a NUL, which messages can contain and command lines cannot.
const WITH_NUL: &str = "MARK\0\u{1b}[2J\u{202e}\0";

const POLICY: &str = r#"
@id("break-glass")
permit (principal in Role::"operator", action in Action::"Work", resource in Environment::"dev") when { context.break_glass };
@id("agents-export")
permit (principal in Role::"agent", action in Action::"Work", resource == Upstream::"tickets");
@id("exports-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"tickets")
when { context.sensitive } unless { context.approvals.count >= 1 };
@id("uses") permit (principal, action == Action::"Use", resource);
@id("only-declared-tools") forbid (principal, action == Action::"Use", resource) unless { context.declared };
"#;

const RIGHTS: &str = r#"
[break_glass.down]
environment = "dev"
open = ["spiffe://dev.mayfly.internal/operator/you", "spiffe://dev.mayfly.internal/operator/colleague"]
review = ["spiffe://dev.mayfly.internal/operator/auditor"]
upstreams = { echo = ["echo:read"] }
any_tool = true
"#;

struct Rig {
    child: ServerProcess,
    provider: Provider,
    world: DevWorld,
    _dir: TempDir,
}

fn rig() -> Rig {
    let provider = Provider::start();
    let (dir, world) = world(DevSettings::default());
    let add = |path: &str, more: &str| {
        let path = world.dir().join(path);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + more).unwrap();
    };
    add("policy/policy.cedar", POLICY);
    add("policy/roles.toml", RIGHTS);
    add("mayfly.toml", &provider.section("idp", &["dev"], "uses = [\"subject\"]\ngroups_claim = \"groups\""));
    let child = world.spawn(Path::new(MAYFLY)).unwrap();
    Rig { child, provider, world, _dir: dir }
}

impl Rig {
    async fn channel(&self, who: &str, admin: bool) -> Channel {
        let addresses = self.child.addresses();
        self.world.channel(who, if admin { addresses.admin } else { addresses.workload }).await.unwrap()
    }

    async fn open(&self, terms: pb::TaskTerms, token: Option<pb::SubjectToken>, who: &str) -> Result<pb::Task, Status> {
        let request = pb::OpenTaskRequest { terms: Some(terms), subject_token: token, ..Default::default() };
        let opened = TaskServiceClient::new(self.channel(who, false).await).open_task(request).await?;
        Ok(opened.into_inner().task.unwrap())
    }

    async fn exchange(&self, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
        let answer = TokenServiceClient::new(self.channel("agent/demo", false).await).exchange(ask).await?;
        Ok(answer.into_inner().issued.unwrap())
    }

    /// Output of a command, on both streams, and its exit code.
    fn says(&self, context: &Path, args: &[&str]) -> (String, Option<i32>) {
        let mut command = Command::new(MAYFLY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        let out = command.arg("--config").arg(context).args(args).stdin(Stdio::null()).output().unwrap();
        let bytes = [out.stdout, out.stderr].concat();
        let text = String::from_utf8(bytes).unwrap_or_else(|no| panic!("{args:?}: {no}"));
        harmless(&format!("{args:?}"), &text);
        (text, out.status.code())
    }
}

/// Asserts that the text contains only safe characters and the line ends of the output itself.
fn harmless(what: &str, text: &str) {
    for (n, line) in text.lines().enumerate() {
        if let Some(c) = line.chars().find(|c| is_unsafe(*c)) {
            panic!("{what}, line {}: {c:?} in {line:?}", n + 1);
        }
        assert!(!line.starts_with("next"), "{what}, line {}: somebody else's line: {line:?}", n + 1);
    }
    assert!(!text.contains('\r'), "{what}");
}

/// The ids of everything that was created, for the commands that show it.
#[derive(Default)]
struct Made {
    tasks: Vec<String>,
    credentials: Vec<String>,
    approvals: Vec<String>,
    glass: String,
}

/// Runs every command that shows any of it, in these formats. Returns how many of them showed it.
fn shown(rig: &Rig, made: &Made, lists: bool, forms: &[&str]) -> usize {
    let admin = rig.world.write_context("operator/you", rig.child.addresses().admin).unwrap();
    let mut asked: Vec<Vec<&str>> = [
        "task list --state active --state held",
        "approval list",
        "approval list --state refused",
        "break-glass list",
        "lock list",
        "rules list",
        "credential list",
        "upstream list",
        "binding list",
        "follower list",
        "lease list",
        "webhook list",
        "status",
        "whoami",
        "report inventory",
        "report broad",
        "report unreviewed",
        "audit search --limit 200",
        "blast-radius --upstream echo",
        "upstream show repos",
        "policy diff dev --version 1",
    ]
    .iter()
    .filter(|_| lists)
    .map(|line| line.split(' ').collect())
    .collect();
    for task in made.tasks.iter().map(String::as_str).chain([&*made.glass]).filter(|task| !task.is_empty()) {
        asked.extend(
            [
                vec!["task", "show", task],
                vec!["task", "show", task, "--tree"],
                vec!["explain", task],
                vec!["audit", "search", task],
            ]
            .into_iter()
            .chain([vec!["blast-radius", "--task", task], vec!["break-glass", "show", task]]),
        );
    }
    for id in &made.credentials {
        asked.extend([vec!["credential", "show", id], vec!["explain", id], vec!["blast-radius", "--credential", id]]);
    }
    for id in &made.approvals {
        asked.extend([vec!["approval", "show", id], vec!["explain", id]]);
    }
    let (mut showed, mut wrong) = (0, Vec::new());
    for args in &asked {
        for form in forms {
            let (said, code) = rig.says(&admin, &[&args[..], &["-o", form]].concat());
            // Exit code 2: the command does not exist, so nothing was shown.
            wrong.extend((code == Some(2)).then(|| format!("{args:?} {form}: {said}")));
            showed += usize::from(said.contains("MARK"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    showed
}

/// Types the text as an argument: whether or not it is refused, the output must be harmless.
fn typed(rig: &Rig, text: &str) {
    let agent = rig.world.write_context("agent/demo", rig.child.addresses().workload).unwrap();
    let admin = rig.world.write_context("operator/you", rig.child.addresses().admin).unwrap();
    for form in ["table", "json"] {
        for args in [
            vec!["get", "echo", "--scope", "echo:read", "--purpose", text],
            vec!["get", text, "--scope", text, "--purpose", text],
            vec!["get", "echo", "--scope", "echo:read", "--purpose", "p", "--tool", text, "--request-id", text],
            vec!["task", "open", "--upstream", text, "--purpose", text],
            vec!["task", "show", text],
            vec!["explain", text],
            vec!["explain", "--request", text],
            vec![text],
            vec!["task", "list", text],
            vec!["--config", text, "task", "list"],
        ] {
            rig.says(&agent, &[&args[..], &["-o", form]].concat());
        }
        for args in [
            vec!["revoke", "--subject", "https://idp.example", text, "--reason", text],
            vec!["revoke", "--caller", text, "--reason", text],
            vec!["revoke", "--tool", text, "--reason", text],
            vec!["lock", "add", "--tool", text, "--reason", text],
            vec!["audit", "search", text],
            vec!["task", "list", "--environment", text],
            vec!["upstream", "show", text],
            vec!["policy", "show", text],
        ] {
            rig.says(&admin, &[&args[..], &["-o", form]].concat());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_caller_says_acts_on_a_terminal_a_log_or_a_file() {
    let rig = rig();
    let mut made = Vec::new();
    for text in [HOSTILE, WITH_NUL, UNSEEN] {
        made.push(sent(&rig, text).await);
    }
    tokio::task::block_in_place(|| {
        typed(&rig, HOSTILE);
        typed(&rig, UNSEEN);
        // Text that free-text fields accept must show up in every command; for the other texts, what was recorded at the refusal.
        let showed = shown(&rig, &made[2], true, &["table", "wide", "json", "csv"]);
        for made in &made[..2] {
            shown(&rig, made, false, &["table"]);
        }
        assert!(showed >= 50, "it was to be seen in {showed} answers only, so this test tests little");
    });
    let log = std::fs::read_to_string(rig.world.dir().join("server.log")).unwrap();
    assert!(log.contains("MARK"), "the log tells of what was said: {log}");
    harmless("the log", &log);
    rig.child.kill();
}
