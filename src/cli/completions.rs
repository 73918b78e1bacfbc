//! `mayfly completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::error::CliError;
use super::exit::Exit;
use super::{Cli, Run};

/// `mayfly completions`
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs it.
pub fn run(args: CompletionsArgs, run: &Run) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mayfly", &mut script);
    run.out.generated(&script)?;
    Ok(Exit::Ok)
}
