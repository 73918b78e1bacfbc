//! `mayfly policy`: the policy sets that decide.
//!
//! - `files`: which set a command is about: files here, or one that the server has.
//! - `set`: putting one in force. `test`: a table of tests. `look`: checking, comparing, explaining.

mod files;
mod look;
mod set;
mod test;

use clap::Subcommand;
pub(super) use files::{differences, there};

use super::Run;
use super::error::CliError;
use super::exit::Exit;

/// The subcommands for policy.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// The policy set of an environment; with --to, its files
    Show(look::ShowArgs),
    /// Check a policy set, here or against what the server knows
    Validate(look::ValidateArgs),
    /// Run a table of tests; exits with 10 where one fails. With files it needs no server
    Test(test::TestArgs),
    /// Decide recorded decisions once more with another set; exits with 10 where some differ
    Diff(look::DiffArgs),
    /// Put a policy set in force, or beside the one in force; what it would now refuse is revoked
    Set(set::SetArgs),
    /// Make the set beside the one in force the one in force, or take it away
    Mode(set::ModeArgs),
    /// What a policy set makes of a request, and why
    Explain(Box<look::ExplainArgs>),
}

/// Runs the chosen subcommand.
pub async fn run(command: PolicyCommand, run: &Run) -> Result<Exit, CliError> {
    match command {
        PolicyCommand::Show(args) => look::show(args, run).await,
        PolicyCommand::Validate(args) => look::validate(args, run).await,
        PolicyCommand::Test(args) => test::run(args, run).await,
        PolicyCommand::Diff(args) => look::diff(args, run).await,
        PolicyCommand::Set(args) => set::set(args, run).await,
        PolicyCommand::Mode(args) => set::mode(args, run).await,
        PolicyCommand::Explain(args) => look::explain(*args, run).await,
    }
}
