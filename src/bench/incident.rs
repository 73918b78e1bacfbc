//! Measures the commands that an operator types in an incident over a long history, with ids that exist and with ids that do not.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::LoadPlan;
use super::run::RunningLoad;
use super::world::{BenchPlan, BenchServer, prepare};
use super::{BenchError, IncidentArgs, Mode, history};
use mayfly_cli::dev::TRUST_DOMAIN;
use mayfly_cli::out::Printable;

/// The longest allowed time of each command, seconds (design: budgets).
const TARGET_S: f64 = 1.0;
/// The lifetime of the credentials issued before the history: they have long expired when they are looked up.
const TTL: Duration = Duration::from_secs(5);
/// The longest wait for the index, seconds per GB of history, on top of a fixed part.
const PATIENCE_S: f64 = 120.0;
const LOOK: Duration = Duration::from_millis(200);

/// One measured command.
#[derive(Serialize, Clone)]
pub struct CommandTiming {
    pub command: String,
    pub exit: i32,
    pub expected: bool,
    pub ms: f64,
    /// The index did not cover the history yet.
    pub unindexed: bool,
}

/// The results of all commands.
#[derive(Serialize)]
pub struct IncidentResult {
    pub scenario: &'static str,
    pub history_gb: f64,
    pub index_mb: f64,
    pub index_built_s: f64,
    pub start_after_kill_s: f64,
    pub typed: Vec<CommandTiming>,
    pub longest_ms: f64,
    pub target_ms: f64,
    pub met: bool,
}

impl Printable for IncidentResult {
    fn name(&self) -> String {
        "incident".to_owned()
    }
}

/// Runs the command line as the operator.
struct Operator<'a> {
    bench: &'a BenchServer,
    typed: Vec<CommandTiming>,
}

/// The output and exit code of a command.
struct CommandOutput {
    out: String,
    exit: i32,
    ms: f64,
}

impl Operator<'_> {
    fn run(&self, words: &[&str]) -> Result<CommandOutput, BenchError> {
        let socket = self.bench.socket.as_ref().ok_or("the server has no socket for operators")?;
        let mut command = Command::new(std::env::current_exe()?);
        let ours = |(name, _): &(std::ffi::OsString, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_");
        for (name, _) in std::env::vars_os().filter(ours) {
            command.env_remove(name);
        }
        command.args(words).arg("--address").arg(format!("unix:{}", socket.display())).stdin(Stdio::null());
        let began = Instant::now();
        let output = command.output()?;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        let out = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(CommandOutput { out, exit: output.status.code().unwrap_or(-1), ms })
    }

    /// Runs a command that has to succeed, and returns its output.
    fn told(&self, words: &[&str]) -> Result<String, BenchError> {
        let said = self.run(words)?;
        match said.exit {
            0 => Ok(said.out),
            exit => Err(format!("mayfly {}: exit code {exit}: {}", words.join(" "), said.out).into()),
        }
    }

    /// Runs a command and records its duration.
    fn types(&mut self, words: &[&str], exits: &[i32], unindexed: bool) -> Result<(), BenchError> {
        let CommandOutput { exit, ms, .. } = self.run(words)?;
        let expected = exits.contains(&exit);
        self.typed.push(CommandTiming { command: words.join(" "), exit, expected, ms, unindexed });
        Ok(())
    }
}

/// The ids that existed before the history, and ids that never existed.
struct Names {
    credential: String,
    task: String,
    seq: String,
    digest: String,
}

/// A policy that refuses nothing of the load, for a second version of the policy set.
const ANOTHER: &str = "\n@id(\"another\")\nforbid (principal, action in Action::\"Work\", resource) when { context has tool && context.tool == \"never\" };\n";

/// Writes the history and measures the commands.
pub fn run(args: &IncidentArgs) -> Result<IncidentResult, BenchError> {
    let mut bench = prepare(&BenchPlan { dir: args.dir.clone(), ..BenchPlan::usual(args.engine) })?;
    issue(&bench)?;
    let names = names(&Operator { bench: &bench, typed: Vec::new() })?;
    let mut bytes = 0;
    bench.stopped(|config| {
        bytes = history::fill(config, (args.history * 1e9) as u64, history::HistoryKind::Named)?;
        // The state after a restore: a backup does not contain the index.
        std::fs::remove_dir_all(config.with_file_name("data").join("history/index"))?;
        Ok(())
    })?;
    let began = Instant::now();
    let mut operator = Operator { bench: &bench, typed: Vec::new() };
    // The answer may be found, not found or "try again", but it must come at once.
    operator.types(&["explain", &unknown("cred")], &[3, 8], true)?;
    operator.types(&["token", "lookup", "--sha256", &"ab".repeat(32)], &[3, 8], true)?;
    operator.types(&["policy", "show", "dev", "--version", "1"], &[0, 8], true)?;
    let mut told = operator.typed;
    wait_for_index(&bench, began, args.history)?;
    let index_built_s = began.elapsed().as_secs_f64();
    told.extend(commands(&bench, &names)?);
    let start_after_kill_s = bench.kill_and_start()?;
    told.extend(commands(&bench, &names)?);
    let longest_ms = told.iter().map(|typed| typed.ms).fold(0.0, f64::max);
    let index = bench.data().join("history/index");
    let files = std::fs::read_dir(index)?.flatten().filter_map(|file| Some(file.metadata().ok()?.len()));
    let index_mb = files.sum::<u64>() as f64 / 1e6;
    let met = longest_ms <= TARGET_S * 1000.0 && told.iter().all(|typed| typed.expected);
    bench.end()?;
    Ok(IncidentResult {
        scenario: "incident",
        history_gb: bytes as f64 / 1e9,
        index_mb,
        index_built_s,
        start_after_kill_s,
        typed: told,
        longest_ms,
        target_ms: TARGET_S * 1000.0,
        met,
    })
}

fn unknown(kind: &str) -> String {
    format!("{kind}_{}", "a".repeat(26))
}

/// Issues some thousand credentials in tasks of a hundred, and creates a second version of the policy set.
fn issue(bench: &BenchServer) -> Result<(), BenchError> {
    let load = LoadPlan { ttl: Some(TTL), ..LoadPlan::usual(Mode::Stream) };
    super::on_runtime(async {
        let running = RunningLoad::start(&load, bench, Duration::from_millis(500)).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        running.end().await;
        Ok(())
    })?;
    let policy = bench.world.dir().join("policy/policy.cedar");
    let text = std::fs::read_to_string(&policy)?;
    std::fs::write(&policy, format!("{text}{ANOTHER}"))?;
    let operator = Operator { bench, typed: Vec::new() };
    let file = policy.display().to_string();
    operator.told(&["policy", "set", "dev", &file, "--reason", "a second version", "--confirm", "all"])?;
    Ok(())
}

fn names(operator: &Operator<'_>) -> Result<Names, BenchError> {
    let found = operator.told(&["audit", "search", "--event", "credential issued", "--limit", "1", "-o", "json"])?;
    let value = |key: &str, begins: &str| {
        let from = found.find(&format!("{key}\"")).map_or(0, |at| at + key.len());
        let rest = found.get(from..).unwrap_or_default();
        let at = rest.find(begins)?;
        let text = rest.get(at..)?;
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
        Some(text.get(..end)?.to_owned())
    };
    let no = |what: &str| format!("no {what} in what was issued: {found}");
    let digits = |text: String| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let seq = found.split("\"seq\":").nth(1).and_then(|rest| rest.split([',', '}']).next()).map(|text| digits(text.to_owned()));
    let credential = value("credential", "cred_").ok_or_else(|| no("credential"))?;
    let shown = operator.told(&["audit", "search", &credential, "-o", "json"])?;
    let digest = shown.split("token_digest").nth(1).and_then(|rest| {
        let hex = |text: &&str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        rest.split(|c: char| !c.is_ascii_alphanumeric()).find(hex).map(str::to_owned)
    });
    Ok(Names {
        task: value("task", "task_").ok_or_else(|| no("task"))?,
        seq: seq.ok_or_else(|| no("seq"))?,
        digest: digest.unwrap_or_else(|| "cd".repeat(32)),
        credential,
    })
}

/// Waits until the index covers the history. A waiting search makes the server build the index without pauses.
fn wait_for_index(bench: &BenchServer, began: Instant, gb: f64) -> Result<(), BenchError> {
    let operator = Operator { bench, typed: Vec::new() };
    loop {
        let status = operator.told(&["status", "-o", "json"])?;
        let left = status.split("unindexed_commits").nth(1).and_then(|rest| {
            let number: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            number.parse::<u64>().ok()
        });
        if left == Some(0) {
            return Ok(());
        }
        if began.elapsed().as_secs_f64() > PATIENCE_S * (1.0 + gb) {
            return Err(format!("the index does not cover {left:?} commits").into());
        }
        operator.run(&["explain", &unknown("cred")])?;
        std::thread::sleep(LOOK);
    }
}

/// Measures each command with ids that exist and with ids that do not.
fn commands(bench: &BenchServer, names: &Names) -> Result<Vec<CommandTiming>, BenchError> {
    let mut operator = Operator { bench, typed: Vec::new() };
    let (credential, task, approval, lease) = (unknown("cred"), unknown("task"), unknown("appr"), unknown("lease"));
    let (digest, caller) = ("ab".repeat(32), format!("spiffe://{TRUST_DOMAIN}/agent/nobody"));
    let all: [(&[&str], &[i32]); 30] = [
        (&["explain", &names.credential], &[0]),
        (&["explain", &credential], &[3]),
        (&["explain", &names.task], &[0]),
        (&["explain", &task], &[3]),
        (&["explain", &names.seq], &[0]),
        (&["explain", "5"], &[3]),
        (&["explain", &approval], &[3]),
        (&["explain", &lease], &[3]),
        (&["explain", "--request-id", "none", "--caller", &caller], &[3]),
        (&["credential", "show", &names.credential], &[0]),
        (&["credential", "show", &credential], &[3]),
        (&["token", "lookup", "--sha256", &names.digest], &[0, 3]),
        (&["token", "lookup", "--sha256", &digest], &[3]),
        (&["task", "show", &task], &[3]),
        (&["approval", "show", &approval], &[3]),
        (&["lease", "list"], &[0]),
        (&["lock", "lift", "5", "--reason", "mistyped"], &[3]),
        (&["lock", "list"], &[0]),
        (&["rules", "list"], &[0]),
        (&["policy", "show", "dev", "--version", "1"], &[0]),
        (&["policy", "show", "dev", "--version", "41"], &[3]),
        (&["policy", "set", "dev", "--version", "1", "--reason", "back", "--dry-run"], &[0]),
        (&["policy", "set", "dev", "--version", "41", "--reason", "back"], &[3]),
        (&["policy", "diff", "dev", "--version", "1", "--since", "30d"], &[0, 10]),
        (&["audit", "show", &names.seq], &[0]),
        (&["audit", "show", "5"], &[3]),
        (&["audit", "search", &names.credential], &[0]),
        (&["audit", "search", "--event", "refused", "--since", "1h", "--limit", "10"], &[0]),
        (&["blast-radius", "--credential", &names.credential], &[0]),
        (&["status"], &[0]),
    ];
    for (words, exits) in all {
        operator.types(words, exits, false)?;
    }
    Ok(operator.typed)
}

impl IncidentResult {
    /// Prints the result for people.
    pub fn print(&self) {
        println!(
            "{:.1} GB of history; its index has {:.0} MB and was built anew in {:.0} s; after SIGKILL {:.2} s until it answers",
            self.history_gb, self.index_mb, self.index_built_s, self.start_after_kill_s
        );
        for typed in &self.typed {
            let note = if typed.unindexed { " (while the index is built)" } else { "" };
            let wrong = if typed.expected { "" } else { "   UNEXPECTED" };
            println!("  {:>7.0} ms   exit {:<2}  mayfly {}{note}{wrong}", typed.ms, typed.exit, typed.command);
        }
        println!("  longest {:.0} ms (target ≤ {:.0} ms), each with a process of its own", self.longest_ms, self.target_ms);
    }
}
