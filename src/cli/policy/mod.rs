//! `mayfly policy`: shows, validates, tests, compares and changes the policy sets that decide requests.
//!
//! - `files`: selects a policy set, from local files or from the server.
//! - `set`: changes the set in effect or the shadow set. `test`: runs a table of tests. `inspect`: validates, compares and explains.

mod files;
mod inspect;
mod set;
mod test;

use clap::Subcommand;
pub(super) use files::{complaints, differences, fetch_set, sources};

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;

/// The subcommands for policy.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Show the policy set of an environment; with --to, write its files
    Show(inspect::ShowPolicyArgs),
    /// Validate a policy set, offline or against the server
    Validate(inspect::ValidatePolicyArgs),
    /// Run a table of tests; exits with 10 if any fails; needs no server if files are given
    Test(test::TestPolicyArgs),
    /// Decide recorded requests again with another policy set; exits with 10 if any decision differs
    Diff(inspect::DiffArgs),
    /// Put a policy set in effect and revoke what it refuses; with --audit, set the shadow policy set instead
    Set(set::SetPolicyArgs),
    /// Promote the shadow policy set, or remove it
    Mode(set::ModeArgs),
    /// Explain how a policy set decides a request
    Explain(Box<inspect::ExplainPolicyArgs>),
}

/// Runs the chosen subcommand.
pub async fn run(command: PolicyCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        PolicyCommand::Show(args) => inspect::show(args, run).await,
        PolicyCommand::Validate(args) => inspect::validate(args, run).await,
        PolicyCommand::Test(args) => test::run(args, run).await,
        PolicyCommand::Diff(args) => inspect::diff(args, run).await,
        PolicyCommand::Set(args) => set::set(args, run).await,
        PolicyCommand::Mode(args) => set::mode(args, run).await,
        PolicyCommand::Explain(args) => inspect::explain(*args, run).await,
    }
}
