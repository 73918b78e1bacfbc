//! Checks a server on this host: its configuration, everything that the configuration names, and whether its store opens with its sealing
//! key.

use std::path::Path;

use super::super::CommandContext;
use super::{CheckResults, State, client_identity};
use mayfly_base::document::Diagnostic;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_config::config::{Config, ConfigFinding, Severity, validate};
use mayfly_server::store_check::{StoreCondition, store};
use mayfly_server::{environment, healthcheck, inspect_svid};

/// Runs all checks.
pub(super) fn check_host(path: &Path, run: &CommandContext, found: &mut CheckResults) {
    let config = match Config::load(path, environment()) {
        Ok(config) => config,
        Err(wrong) => {
            return wrong.iter().for_each(|c| found.problem("configuration", place(c), c.remedy.clone()));
        }
    };
    let findings = validate(&config, run.system.wall());
    findings.iter().for_each(|finding| add_finding(finding, &config, found));
    let worst = |check: &str| findings.iter().filter(|f| about(f, &config) == check).map(|f| f.severity).max();
    for (check, shown) in [
        ("configuration", config.file.clone()),
        ("bundle", format!("{} of the configuration", config.bundles.len())),
        ("policy", format!("the files for {}", config.server.environments.join(", "))),
    ] {
        if worst(check).is_none() {
            found.ok(check, shown);
        }
    }
    if worst("svid") != Some(Severity::Error)
        && let Ok((pair, place)) = inspect_svid(&config, &run.system)
    {
        let mend =
            if config.tls.is_some() { "whoever renews it has to write it there in time" } else { "look at what the agent logs" };
        client_identity::life(&format!("the server's, {place}"), &pair, run.system.wall(), mend, found);
    }
    if worst("sealing key") != Some(Severity::Error) {
        check_store(path, &config, run, found);
    }
    if worst("disk").is_none() {
        found.ok("disk", "there is room beyond the reserve");
    }
}

/// The subject of a finding, taken from the key at its beginning.
fn about(finding: &ConfigFinding, config: &Config) -> &'static str {
    let what = &finding.complaint.what;
    let begins = |word: &str| what.starts_with(word);
    match () {
        () if begins("tls.") || begins("public_tls.") || begins("workload_api.") => "svid",
        () if begins("bundles") => "bundle",
        () if begins("seal.") => "sealing key",
        () if begins("store.") => "disk",
        // A finding in a file of policies, roles or upstreams has that file's name.
        () if begins("policy.") || finding.complaint.file != config.file => "policy",
        () => "configuration",
    }
}

/// The place and text of a complaint; the remedy is printed apart.
fn place(complaint: &Diagnostic) -> String {
    complaint.to_string().lines().next().unwrap_or_default().to_owned()
}

fn add_finding(finding: &ConfigFinding, config: &Config, found: &mut CheckResults) {
    let state = match finding.severity {
        Severity::Warning => State::Warning,
        Severity::Error => State::Problem,
    };
    found.push(about(finding, config), state, place(&finding.complaint), finding.complaint.remedy.clone());
}

/// Opens the store with its sealing key if no server has it open; otherwise checks whether that server answers.
fn check_store(path: &Path, config: &Config, run: &CommandContext, found: &mut CheckResults) {
    let start = format!("mayfly server run --config {}", shell_quoted(path));
    match store(config, run.system.wall()) {
        StoreCondition::None => found.ok("sealing key", "it can be read; there is no store yet"),
        StoreCondition::InUse => running(path, run, found),
        StoreCondition::Sound { behind_ms: 0 } => {
            found.ok("sealing key", "it is the store's");
            found.push("server", State::Problem, "it does not run: no process has its store open", start);
        }
        StoreCondition::Sound { behind_ms } => {
            found.ok("sealing key", "it is the store's");
            let what = format!("this host's clock stands {} s behind the ledger: nothing would be issued", behind_ms / 1_000);
            found.problem("clock", what, "set the clock: timedatectl");
        }
        StoreCondition::Key(problem) => found.problem("sealing key", lines(&problem.0), lines(&problem.1)),
        StoreCondition::Broken(problem) => found.problem("store", lines(&problem.0), lines(&problem.1)),
    }
}

fn running(path: &Path, run: &CommandContext, found: &mut CheckResults) {
    found.ok("sealing key", "a server has the store open, so it is the store's");
    let asked = std::thread::scope(|scope| {
        let asking = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            runtime.block_on(healthcheck::ask(path, "", &run.system)).map_err(|no| no.to_string())
        };
        scope.spawn(asking).join().unwrap_or_else(|_| Err("the question ended".to_owned()))
    });
    match asked {
        Ok(()) => found.ok("server", "it serves"),
        Err(no) => found.problem("server", lines(&no), "what it logs: journalctl -u mayfly; mayfly status"),
    }
}

/// Joins a text to one line.
fn lines(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
