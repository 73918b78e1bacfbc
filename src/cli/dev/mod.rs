//! `mayfly dev up|down|svid|reset`: a local development server with its own trust domain. `try`, `bench` and tests start the same world.

mod ca;
mod child;
mod down;
mod files;
mod locks;
mod settings;
mod svid;
mod up;
mod world;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

pub use child::ServerProcess;
pub use settings::{DevEngine, DevSettings, Ports, SVID_LIFE_MS};
pub use world::{DevWorld, DevWorldError, SERVER, SvidPaths, TRUST_DOMAIN, WORKLOADS, is_world};

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use mayfly_base::document::remedy::shell_quoted;

/// The subcommands for the dev server.
#[derive(Subcommand)]
pub enum DevCommand {
    /// Start the dev server, in the foreground or with --detach in the background
    Up(up::UpArgs),
    /// Stop the dev server
    Down(down::DownArgs),
    /// Create an SVID of the dev trust domain for a workload; it is renewed like the sample SVIDs
    Svid(svid::SvidArgs),
    /// Stop the dev server and delete its ledger: tasks, credentials, locks and policy changes; the CA, SVIDs and files are kept, a missing
    /// or damaged CA is replaced
    Reset(down::ResetArgs),
}

/// The directory of the dev world.
#[derive(Args)]
pub struct DirArgs {
    /// Directory of the dev server [default: $XDG_STATE_HOME/mayfly/dev, else ~/.local/state/mayfly/dev]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl DirArgs {
    /// The directory. An XDG folder that is not absolute is ignored (XDG basedir spec).
    fn dir(&self) -> Option<PathBuf> {
        self.dir.clone().or_else(default_dir)
    }
}

fn default_dir() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("mayfly/dev"))
}

/// The end of a printed `mayfly dev` command: ` --dir DIR`, or nothing for the world in the default directory.
fn dir_flag(dir: &Path) -> String {
    let same = |default: PathBuf| {
        default == dir || default.canonicalize().is_ok_and(|default| dir.canonicalize().is_ok_and(|dir| default == dir))
    };
    if default_dir().is_some_and(same) { String::new() } else { format!(" --dir {}", shell_quoted(dir)) }
}

/// Runs the command on a thread of its own: a server creates its own runtimes, which cannot start inside another runtime.
pub fn run(command: DevCommand, out: Out) -> Result<Exit, CliError> {
    std::thread::scope(|scope| {
        let here = scope.spawn(|| match command {
            DevCommand::Up(args) => up::run(&args, out),
            DevCommand::Down(args) => down::run(&args, out),
            DevCommand::Svid(args) => svid::run(&args, out),
            DevCommand::Reset(args) => down::reset(&args, out),
        });
        here.join().unwrap_or_else(|_| Err(CliError::Local("the command's thread ended".to_owned())))
    })
}

/// The error of a command that needs a dev world, where there is none.
fn no_world(dir: &Path) -> CliError {
    let quoted = shell_quoted(dir);
    CliError::Usage(format!("there is no dev world in {}\n  to make one: mayfly dev up --detach --dir {quoted}", dir.display()))
}

fn no_dir() -> CliError {
    CliError::Usage("there is no home directory; name a directory with --dir".to_owned())
}

impl From<DevWorldError> for CliError {
    fn from(no: DevWorldError) -> CliError {
        CliError::Local(no.to_string())
    }
}
