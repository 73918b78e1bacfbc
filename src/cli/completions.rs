//! The command `mayfly completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::error::CliError;
use super::exit::Exit;
use super::{BenchCommand, Cli, CommandContext};

/// Arguments of `mayfly completions`.
#[derive(Args)]
pub struct CompletionsArgs {
    /// Shell to generate completions for
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub fn run<B: BenchCommand>(args: CompletionsArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::<B>::command(), "mayfly", &mut script);
    run.out.generated(&script)?;
    Ok(Exit::Ok)
}
