//! The command line: one file per command, or per few that are each other's reverse.
//!
//! - [`context`], [`connect`], [`server`]: which server, the way to it, and calls with deadlines.
//! - [`args`], [`targets`]: what is typed. [`out`], [`show`]: what is printed.
//! - [`exit`], [`error`], [`remedy`]: what is told when the answer is no.
//! - [`confirm`], [`wait`], [`list`]: what several commands do alike.

pub mod approval;
pub mod args;
pub mod audit;
pub mod authorize;
pub mod backup;
pub mod bench;
pub mod binding;
pub mod blast_radius;
pub mod break_glass;
pub mod bundle;
pub mod ci;
pub mod completions;
pub mod confirm;
pub mod connect;
pub mod context;
pub mod credential;
pub mod dev;
pub mod doctor;
pub mod error;
pub mod exec;
pub mod exit;
pub mod explain;
pub mod follower;
pub mod get;
pub mod key;
pub mod lease;
pub mod list;
pub mod lock;
pub mod login;
pub mod man;
pub mod out;
pub mod owner;
pub mod policy;
pub mod remedy;
pub mod report;
pub mod revoke;
pub mod rules;
pub mod server;
pub mod serving;
pub mod show;
pub mod status;
pub mod subject;
pub mod svid;
pub mod svid_fetch;
pub mod targets;
pub mod task;
pub mod terms;
pub mod token;
pub mod tour;
pub mod upstream;
pub mod wait;
pub mod webhook;
pub mod whoami;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use context::{AddressArgs, IdentityArgs, Settings, Target};
use error::CliError;
use exit::Exit;
use out::{Format, Out};
use server::Server;

use crate::log_queue;
use crate::system::System;

/// Credentials for workloads that live no longer than the task they were made for
#[derive(Parser)]
#[command(name = "mayfly", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    common: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 not authenticated, 5 denied, 6 upstream failed, 7 partly done, 8 try again, \
9 approval needed, 10 findings.
Data goes to stdout, words to stderr.";

/// What every command takes.
#[derive(Args, Clone)]
#[command(next_help_heading = "Everywhere")]
pub struct GlobalArgs {
    #[command(flatten)]
    address: AddressArgs,
    /// The longest time for the connection, and for one call
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    deadline: Duration,
    /// The form of the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    /// Tell on stderr what is done; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

/// Every command. Those that run a server, a demonstration or a measurement have their place beside these.
#[derive(Subcommand)]
pub enum Command {
    /// Get a credential, to a pipe or a file
    Get(Box<get::GetArgs>),
    /// Run a program with credentials in its environment, minted when it starts and given back when it ends
    Exec(Box<exec::ExecArgs>),
    /// Ask whether an action is permitted, with nothing issued
    Authorize(Box<authorize::AuthorizeArgs>),
    /// Open, look at and end tasks
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Revoke what was issued and, by default, block new grants for the same
    Revoke(Box<revoke::RevokeArgs>),
    /// What a revocation would hit, and whom, before it
    BlastRadius(Box<blast_radius::BlastRadiusArgs>),
    /// Block new grants and revoke nothing
    #[command(subcommand)]
    Lock(lock::LockCommand),
    /// The revocations in force
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Those who check credentials, and how far each is with what was revoked
    #[command(subcommand)]
    Follower(follower::FollowerCommand),
    /// What was issued
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Whose a found token is
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// The keys that the server signs with
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Which roots vouch for whose SVIDs
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// What credentials can be had for
    #[command(subcommand)]
    Upstream(upstream::UpstreamCommand),
    /// Which workload's tool may use which upstream with which scopes
    #[command(subcommand)]
    Binding(binding::BindingCommand),
    /// Who answers for upstreams
    #[command(subcommand)]
    Owner(owner::OwnerCommand),
    /// What an auditor asks about the registry; exits with 10 where there is something to mend
    Report(report::ReportArgs),
    /// The policies that decide
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// What waits for somebody to approve it
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// Wide rights named in advance, by two people, looked at by a third
    #[command(subcommand)]
    BreakGlass(break_glass::BreakGlassCommand),
    /// What was made at upstreams and has to be undone
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Why something was or was not granted, and what became of it
    Explain(explain::ExplainArgs),
    /// What the ledger says: searched, followed, proven, given away
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Who is told of events, and whether they take them
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// How the server is
    Status(status::StatusArgs),
    /// What is wrong between us and the server, or with a server of this host, and what mends it. Exits with 0, 10 or 1
    Doctor(doctor::DoctorArgs),
    /// Sign in as a person: a short SVID of the server's own trust domain, for what runs with this context
    Login(login::LoginArgs),
    /// Sign out, as a person or a job: the server ends the login, and its key is deleted here
    Logout,
    /// What a CI job needs
    #[command(subcommand)]
    Ci(ci::CiCommand),
    /// Who the server takes us for
    Whoami,
    /// Measure issuing: a real server, real mTLS, every issuance durable
    Bench(bench::BenchArgs),
    /// See the whole life of a credential, on this machine, in one command
    Try,
    /// Run a server, look at its configuration, mend its ledger
    #[command(subcommand)]
    Server(serving::ServerCommand),
    /// A server for this machine, with its own trust domain, SVIDs and sample policy
    #[command(subcommand)]
    Dev(dev::DevCommand),
    /// X.509-SVIDs, without a server
    #[command(subcommand)]
    Svid(svid::SvidCommand),
    /// Completions for a shell
    Completions(completions::CompletionsArgs),
    /// The manual
    Man(man::ManArgs),
}

/// What a command runs with.
pub struct Run {
    /// Where its output goes.
    pub out: Out,
    /// Time and randomness.
    pub system: System,
    identity: IdentityArgs,
    common: GlobalArgs,
}

impl Run {
    /// Which server, and as whom.
    pub fn target(&self) -> Result<Target, CliError> {
        Target::resolve(&self.identity, &self.common.address, self.system.wall())
    }

    /// Connects to the server.
    pub async fn server(&self) -> Result<Server, CliError> {
        let target = self.target()?;
        tracing::debug!(address = target.address(), "connecting");
        Server::connect(&target, self.system.clone(), self.common.deadline).await
    }

    /// What the flags and the context's file say, whether a server can be called with it or not.
    pub fn settings(&self) -> Result<Settings, CliError> {
        Settings::read(&self.identity, &self.common.address)
    }

    /// The request id that was given, or a new one: so that a repeat by us is safe.
    pub fn request_id(&self, given: &Option<String>) -> String {
        match given {
            Some(id) => id.clone(),
            None => format!("cli-{}", show::hex(&self.system.random16())),
        }
    }
}

/// The whole program: parses, runs, tells, and says how it ended.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let cli = match parsed(&words) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, &words),
    };
    let out = Out::new(cli.common.output);
    trace(cli.common.verbose);
    let run = Run { out, system: System::real(), identity: cli.identity, common: cli.common };
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        // On the heap: the runtime polls from several places, and would have all commands inlined into each.
        Ok(runtime) => {
            runtime.block_on(Box::pin(dispatch(cli.command, &run)) as Pin<Box<dyn Future<Output = Result<Exit, CliError>>>>)
        }
        Err(e) => Err(CliError::Local(format!("the runtime: {e}"))),
    };
    let code = match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            out.fail(&error);
            error.exit().into()
        }
    };
    log_queue::flush();
    code
}

fn parsed(words: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut Cli::command()))?;
    context::in_order(&matches, &mut cli.identity, &mut cli.common.address);
    Ok(cli)
}

async fn dispatch(command: Command, run: &Run) -> Result<Exit, CliError> {
    match command {
        Command::Get(args) => get::run(*args, run).await,
        Command::Exec(args) => exec::run(*args, run).await,
        Command::Authorize(args) => authorize::run(*args, run).await,
        Command::Task(command) => task::run(command, run).await,
        Command::Revoke(args) => revoke::run(*args, run).await,
        Command::BlastRadius(args) => blast_radius::run(*args, run).await,
        Command::Lock(command) => lock::run(command, run).await,
        Command::Rules(command) => rules::run(command, run).await,
        Command::Follower(command) => follower::run(command, run).await,
        Command::Credential(command) => credential::run(command, run).await,
        Command::Token(command) => token::run(command, run).await,
        Command::Key(command) => key::run(command, run).await,
        Command::Bundle(command) => bundle::run(command, run).await,
        Command::Upstream(command) => upstream::run(command, run).await,
        Command::Binding(command) => binding::run(command, run).await,
        Command::Owner(command) => owner::run(command, run).await,
        Command::Report(args) => report::run(args, run).await,
        Command::Policy(command) => policy::run(command, run).await,
        Command::Approval(command) => approval::run(command, run).await,
        Command::BreakGlass(command) => break_glass::run(command, run).await,
        Command::Lease(command) => lease::run(command, run).await,
        Command::Explain(args) => explain::run(args, run).await,
        Command::Audit(command) => audit::run(command, run).await,
        Command::Webhook(command) => webhook::run(command, run).await,
        Command::Status(args) => status::run(args, run).await,
        Command::Doctor(args) => doctor::run(args, run).await,
        Command::Login(args) => login::login(args, run).await,
        Command::Logout => login::logout(run).await,
        Command::Ci(command) => ci::run(command, run).await,
        Command::Whoami => whoami::run(run).await,
        Command::Bench(args) => bench::run(&args, run.out),
        Command::Try => tour::run(run.out),
        Command::Server(serving::ServerCommand::Backup(args)) => backup::backup(args, run).await,
        Command::Server(command) => serving::run(command, run.out),
        Command::Dev(command) => dev::run(command, run.out),
        Command::Svid(command) => svid::run(command, run).await,
        Command::Completions(args) => completions::run(args, run),
        Command::Man(args) => man::run(args, run),
    }
}

/// Help and version are answers; all else is a wrong command line, which with `-o json` is told as JSON too.
fn not_parsed(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if error.use_stderr()
        && let Some(shown) = without_unsafe(words)
    {
        // What is told quotes what was typed, or pasted: parsed as it is shown, it is wrong in the same place.
        return match Cli::try_parse_from(&shown) {
            Err(error) => not_parsed(&error, &shown),
            Ok(_) => {
                Out::new(Format::Table).fail(&CliError::Usage(error.kind().to_string()));
                Exit::Usage.into()
            }
        };
    }
    if !error.use_stderr() || !wants_json(words) {
        if error.use_stderr() && !std::io::stderr().is_terminal() {
            // Nobody may read it, and then the process ends all the same.
            log_queue::begin(|_| {});
            log_queue::write(error.render().to_string().as_bytes());
            log_queue::flush();
        } else {
            // Where nobody listens there is nothing to tell.
            let _ = error.print();
        }
        return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
    }
    let text = error.render().to_string();
    Out::new(Format::Json).fail(&CliError::Usage(text.trim().trim_start_matches("error: ").to_owned()));
    Exit::Usage.into()
}

/// The words with what acts on a terminal written out; `None` where nothing of them does.
fn without_unsafe(words: &[OsString]) -> Option<Vec<OsString>> {
    let acts = |word: &OsString| word.to_string_lossy().chars().any(out::escape::is_unsafe);
    let shown = |word: &OsString| OsString::from(out::escape::for_terminal(&word.to_string_lossy()).into_owned());
    words.iter().any(acts).then(|| words.iter().map(shown).collect())
}

fn wants_json(words: &[OsString]) -> bool {
    let is_json = |word: &OsString| word == "json";
    words.iter().zip(words.iter().skip(1)).any(|(flag, value)| (flag == "-o" || flag == "--output") && is_json(value))
        || words.iter().any(|w| w == "-ojson" || w == "-o=json" || w == "--output=json")
}

fn trace(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "mayfly=debug",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::new(filter);
    // A line that cannot be written would be told by a macro that panics where stderr is closed.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log_queue::ToStderr::default);
    let _ = builder.log_internal_errors(false).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_says_what_it_is_for() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {} has no help", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn json_is_seen_before_the_rest_is_understood() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in ["mayfly -o json x", "mayfly x --output=json", "mayfly -ojson"] {
            assert!(wants_json(&words(line)), "{line}");
        }
        assert!(!wants_json(&words("mayfly -o yaml json")));
    }
}
