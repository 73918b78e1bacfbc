//! The command `mayfly man`.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::error::CliError;
use super::exit::Exit;
use super::{BenchCommand, Cli, CommandContext};

/// Arguments of `mayfly man`.
#[derive(Args)]
pub struct ManArgs {
    /// Write a page for every command to this folder, instead of printing the main page
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run<B: BenchCommand>(args: ManArgs, run: &CommandContext) -> Result<Exit, CliError> {
    match args.dir {
        Some(folder) => {
            let cannot = |e| CliError::Local(format!("{}: {e}", folder.display()));
            clap_mangen::generate_to(Cli::<B>::command(), &folder).map_err(cannot)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::<B>::command()).render(&mut page).map_err(CliError::ours)?;
            run.out.generated(&page)?;
        }
    }
    Ok(Exit::Ok)
}
