//! The command line: one file per command, or per pair of opposite commands.
//!
//! - [`context`], [`connect`], [`server`]: which server to call, the connection, and calls with deadlines.
//! - [`args`], [`targets`]: parsing of arguments. [`out`], [`show`]: output.
//! - [`exit`], [`error`], [`remedy`]: exit codes and error texts.
//! - [`confirm`], [`wait`], [`list`], [`several`]: behaviour that several commands share.
#![forbid(unsafe_code)]

pub mod apply;
pub mod approval;
pub mod args;
pub mod audit;
pub mod authorize;
pub mod backup;
pub mod binding;
pub mod blast_radius;
pub mod break_glass;
pub mod bundle;
pub mod certified_key;
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
pub mod issue;
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
pub mod secret;
pub mod server;
pub mod serving;
pub mod several;
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

use context::{AddressArgs, IdentityArgs, LoginSettings, ServerTarget};
use error::CliError;
use exit::Exit;
use out::{Format, Out};
use server::ApiClient;

use mayfly_base::log_queue;
use mayfly_base::system::System;

/// Short-lived, task-scoped credentials for workloads
#[derive(Parser)]
#[command(name = "mayfly", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli<B: BenchCommand> {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    common: GlobalArgs,
    #[command(subcommand)]
    command: Command<B>,
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 not authenticated, 5 denied, 6 upstream failed, 7 partly done, 8 try again, \
9 approval needed, 10 findings.
Data goes to stdout, messages to stderr.";

/// The options of every command.
#[derive(Args, Clone)]
#[command(next_help_heading = "Everywhere")]
pub struct GlobalArgs {
    #[command(flatten)]
    address: AddressArgs,
    /// Timeout of the connection, and of each call
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    deadline: Duration,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    /// Log progress to stderr; repeat for more detail
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

/// The command `mayfly bench`, which a crate above this one brings: it starts servers as `dev` does and prints as all commands do.
pub trait BenchCommand: Args {
    /// Runs the command.
    fn run(&self, out: Out) -> Result<Exit, CliError>;
}

/// `mayfly bench` of a program that was built without it.
#[derive(Args)]
pub struct NoBench {}

impl BenchCommand for NoBench {
    fn run(&self, _: Out) -> Result<Exit, CliError> {
        Err(CliError::Usage("this program was built without the feature `bench`".into()))
    }
}

/// Every command, including those that run a server, a demonstration or a benchmark.
#[derive(Subcommand)]
pub enum Command<B: BenchCommand> {
    /// Get a credential and write it to a pipe or a file
    Get(Box<get::GetArgs>),
    /// Run a program with credentials in its environment, issued at its start and given back at its end
    Exec(Box<exec::ExecArgs>),
    /// Check whether an action is permitted, without issuing anything
    Authorize(Box<authorize::AuthorizeArgs>),
    /// Open, inspect and end tasks
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Revoke issued credentials and, by default, block new grants for the same targets
    Revoke(Box<revoke::RevokeArgs>),
    /// Show what a revocation would hit, before making it
    BlastRadius(Box<blast_radius::BlastRadiusArgs>),
    /// Block new grants without revoking anything
    #[command(subcommand)]
    Lock(lock::LockCommand),
    /// List the revocation rules in effect
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// List the followers that verify credentials, and how far each has applied revocations
    #[command(subcommand)]
    Follower(follower::FollowerCommand),
    /// Inspect, watch and give back issued credentials
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Look up a token that was found
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Manage the server's signing keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Manage the trust bundles that SVIDs are verified with
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Manage the upstreams that credentials are issued for
    #[command(subcommand)]
    Upstream(upstream::UpstreamCommand),
    /// Manage bindings: which workload's tool may use which upstream with which scopes
    #[command(subcommand)]
    Binding(binding::BindingCommand),
    /// Record that an owner of upstreams has left or is back
    #[command(subcommand)]
    Owner(owner::OwnerCommand),
    /// Report on the upstream registry and on break-glass; exits with 10 if there are findings
    Report(report::ReportArgs),
    /// Manage the policies that decide requests
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Make upstreams, bindings, policies and roles what the files of a folder say
    Apply(Box<apply::ApplyArgs>),
    /// Write upstreams, bindings, policies and roles to a folder, as apply reads it
    Export(apply::FolderExportArgs),
    /// Manage requests that wait for approval
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// Use predefined emergency rights: opened by two people, reviewed by a third
    #[command(subcommand)]
    BreakGlass(break_glass::BreakGlassCommand),
    /// Manage leases: objects created at upstreams that have to be removed
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Manage the static secrets of upstreams that have nothing but a key
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Explain why a request was granted or refused, and what became of it
    Explain(explain::ExplainArgs),
    /// Search, follow, verify and export the audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// List and test webhooks
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Show the state of the server
    Status(status::StatusArgs),
    /// Diagnose the connection to the server, or a server on this host, and suggest remedies; exits with 0, 10 or 1
    Doctor(doctor::DoctorArgs),
    /// Sign in as a person: gets a short-lived SVID of the server's own trust domain for commands with this context
    Login(login::LoginArgs),
    /// Sign out as a person or job: the server ends the login, and the local key is deleted
    Logout,
    /// Commands for CI jobs
    #[command(subcommand)]
    Ci(ci::CiCommand),
    /// Show the identity that the server sees
    Whoami,
    /// Benchmark issuance: a real server, real mTLS, every issuance durable
    Bench(B),
    /// Walk through the whole life of a credential on this machine
    Try,
    /// Run a server, validate its configuration, back up and recover its ledger
    #[command(subcommand)]
    Server(serving::ServerCommand),
    /// Run a local development server with its own trust domain, SVIDs and sample policy
    #[command(subcommand)]
    Dev(dev::DevCommand),
    /// Check and fetch X.509-SVIDs; no mayfly server is called
    #[command(subcommand)]
    Svid(svid::SvidCommand),
    /// Generate shell completions
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man(man::ManArgs),
}

/// The environment of a running command.
pub struct CommandContext {
    /// The output.
    pub out: Out,
    /// Time and randomness.
    pub system: System,
    identity: IdentityArgs,
    common: GlobalArgs,
}

impl CommandContext {
    /// Resolves the server to call and the identity to call it with.
    pub fn target(&self) -> Result<ServerTarget, CliError> {
        ServerTarget::resolve(&self.identity, &self.common.address, self.system.wall())
    }

    /// Connects to the server.
    pub async fn server(&self) -> Result<ApiClient, CliError> {
        let target = self.target()?;
        tracing::debug!(address = target.address(), "connecting");
        ApiClient::connect(&target, self.system.clone(), self.common.deadline).await
    }

    /// The settings of flags, environment and file, whether or not they suffice to call a server.
    pub fn settings(&self) -> Result<LoginSettings, CliError> {
        LoginSettings::read(&self.identity, &self.common.address)
    }

    /// The request id from the command line, or a new one, so that a retry by this program is idempotent.
    pub fn request_id(&self, given: &Option<String>) -> String {
        match given {
            Some(id) => id.clone(),
            None => format!("cli-{}", show::hex(&self.system.random16())),
        }
    }
}

/// Runs the program: parses the command line, runs the command, prints errors and returns the exit code.
pub fn main<B: BenchCommand>(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let cli = match parsed::<B>(&words) {
        Ok(cli) => cli,
        Err(error) => return not_parsed::<B>(&error, &words),
    };
    let out = Out::new(cli.common.output);
    trace(cli.common.verbose);
    let run = CommandContext { out, system: System::real(), identity: cli.identity, common: cli.common };
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        // The future is boxed: the runtime polls it from several places, and all commands would be inlined into each of them.
        Ok(runtime) => {
            runtime.block_on(Box::pin(dispatch(cli.command, &run)) as Pin<Box<dyn Future<Output = Result<Exit, CliError>>>>)
        }
        Err(e) => Err(CliError::Local(format!("the runtime could not be started: {e}"))),
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

fn parsed<B: BenchCommand>(words: &[OsString]) -> Result<Cli<B>, clap::Error> {
    let matches = Cli::<B>::command().try_get_matches_from(words)?;
    let mut cli = Cli::<B>::from_arg_matches(&matches).map_err(|e| e.format(&mut Cli::<B>::command()))?;
    context::in_order(&matches, &mut cli.identity, &mut cli.common.address);
    Ok(cli)
}

async fn dispatch<B: BenchCommand>(command: Command<B>, run: &CommandContext) -> Result<Exit, CliError> {
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
        Command::Apply(args) => apply::run(*args, run).await,
        Command::Export(args) => apply::export(args, run).await,
        Command::Approval(command) => approval::run(command, run).await,
        Command::BreakGlass(command) => break_glass::run(command, run).await,
        Command::Lease(command) => lease::run(command, run).await,
        Command::Secret(command) => secret::run(command, run).await,
        Command::Explain(args) => explain::run(args, run).await,
        Command::Audit(command) => audit::run(command, run).await,
        Command::Webhook(command) => webhook::run(command, run).await,
        Command::Status(args) => status::run(args, run).await,
        Command::Doctor(args) => doctor::run(args, run).await,
        Command::Login(args) => login::login(args, run).await,
        Command::Logout => login::logout(run).await,
        Command::Ci(command) => ci::run(command, run).await,
        Command::Whoami => whoami::run(run).await,
        Command::Bench(args) => args.run(run.out),
        Command::Try => tour::run(run.out),
        Command::Server(serving::ServerCommand::Backup(args)) => backup::backup(args, run).await,
        Command::Server(command) => serving::run(command, run.out),
        Command::Dev(command) => dev::run(command, run.out),
        Command::Svid(command) => svid::run(command, run).await,
        Command::Completions(args) => completions::run::<B>(args, run),
        Command::Man(args) => man::run::<B>(args, run),
    }
}

/// Prints help and version texts as answers, and everything else as a usage error, in JSON with `-o json`.
fn not_parsed<B: BenchCommand>(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if error.use_stderr()
        && let Some(shown) = without_unsafe(words)
    {
        // Error texts quote the command line. The escaped command line is parsed again, which fails at the same place and quotes the
        // escaped text.
        return match Cli::<B>::try_parse_from(&shown) {
            Err(error) => not_parsed::<B>(&error, &shown),
            Ok(_) => {
                Out::new(Format::Table).fail(&CliError::Usage(error.kind().to_string()));
                Exit::Usage.into()
            }
        };
    }
    if !error.use_stderr() || !wants_json(words) {
        if error.use_stderr() && !std::io::stderr().is_terminal() {
            // Nobody may read stderr; the process ends nevertheless.
            log_queue::begin(|_| {});
            log_queue::write(error.render().to_string().as_bytes());
            log_queue::flush();
        } else {
            // If stderr is closed, the error cannot be printed.
            let _ = error.print();
        }
        return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
    }
    let text = error.render().to_string();
    Out::new(Format::Json).fail(&CliError::Usage(text.trim().trim_start_matches("error: ").to_owned()));
    Exit::Usage.into()
}

/// The command line with characters that act on a terminal escaped; `None` if there are none.
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
    // tracing's own writer reports a failed write with a macro that panics if stderr is closed.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log_queue::StderrWriter::default);
    let _ = builder.log_internal_errors(false).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_contradiction() {
        Cli::<NoBench>::command().debug_assert();
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
        walk(&Cli::<NoBench>::command());
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
