//! `mayfly ci init`: writes the files that a repository needs so that its jobs get credentials of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::super::CommandContext;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::login::PublicArgs;
use super::super::out::Printable;
use mayfly_api::attest::AttestMethods;
use mayfly_base::atomic_file::{self, SHARED};
use mayfly_base::system::System;

/// A file: its path, its content, and whether it is executable.
type FileTemplate = (&'static str, &'static str, bool);

macro_rules! laid {
    ($path:literal, $from:literal) => {
        laid!($path, $from, false)
    };
    ($path:literal, $from:literal, $run:expr) => {
        ($path, include_str!(concat!("../../../deploy/ci/", $from)), $run)
    };
}

/// The first file of each list is the workflow, whose placeholders are filled in.
const GITHUB: &[FileTemplate] = &[
    laid!(".github/workflows/mayfly.yml", "workflows/github.yml"),
    laid!(".github/actions/mayfly/action.yml", "github/action.yml"),
    laid!(".github/actions/mayfly/begin.mjs", "github/begin.mjs"),
    laid!(".github/actions/mayfly/end.mjs", "github/end.mjs"),
];
const GITLAB: &[FileTemplate] = &[
    laid!(".gitlab-ci.yml", "workflows/gitlab.yml"),
    laid!(".gitlab/mayfly/mayfly.yml", "gitlab.yml"),
    laid!(".gitlab/mayfly/begin.sh", "begin.sh"),
    laid!(".gitlab/mayfly/end.sh", "end.sh", true),
];
const BUILDKITE: &[FileTemplate] = &[
    laid!(".buildkite/pipeline.yml", "workflows/buildkite.yml"),
    laid!(".buildkite/mayfly/plugin.yml", "buildkite/plugin.yml"),
    laid!(".buildkite/mayfly/hooks/pre-command", "buildkite/hooks/pre-command", true),
    laid!(".buildkite/mayfly/hooks/pre-exit", "buildkite/hooks/pre-exit", true),
    laid!(".buildkite/mayfly/begin.sh", "begin.sh"),
    laid!(".buildkite/mayfly/end.sh", "end.sh", true),
];

/// Arguments of `mayfly ci init`.
#[derive(Args)]
pub struct InitArgs {
    /// CI platform of the repository
    #[arg(value_name = "PLATFORM", value_parser = PossibleValuesParser::new(["github", "gitlab", "buildkite"]))]
    platform: String,
    /// Upstream and scopes that the job needs; can be repeated
    #[arg(long, value_name = "NAME[=SCOPE,…]", required = true)]
    upstream: Vec<String>,
    /// Folder of the repository
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    public: PublicArgs,
}

/// The files that were written.
#[derive(Serialize)]
struct Written {
    platform: String,
    files: Vec<PathBuf>,
}

impl Printable for Written {
    fn name(&self) -> String {
        self.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n")
    }
}

/// Runs the command.
pub async fn run(args: InitArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let files = match args.platform.as_str() {
        "github" => GITHUB,
        "gitlab" => GITLAB,
        _ => BUILDKITE,
    };
    let settings = run.settings()?;
    let address =
        settings.address.clone().ok_or_else(|| CliError::Usage("which server? give --address or MAYFLY_ADDRESS".to_owned()))?;
    let server_id = settings.server_id.as_ref().ok_or_else(|| {
        CliError::Usage("which SPIFFE ID does the server have? give --server-id or MAYFLY_SERVER_ID".to_owned())
    })?;
    let (public, server) = args.public.listener(&settings, run)?;
    let ways: AttestMethods = super::ways(&server, &public).await?;
    if !ways.issuers.iter().any(|issuer| issuer.platform == args.platform) {
        run.out.say(format_args!("the server takes no tokens of {} yet: docs/ci.md says how to set that up", args.platform));
    }
    let values = [
        ("address", address.as_str()),
        ("public", public.as_str()),
        ("server-id", server_id.as_str()),
        ("issuer", ways.audience.as_str()),
    ];
    let filled = fill(&args, &values)?;
    let there = files.iter().map(|(path, ..)| args.dir.join(path)).find(|path| path.exists());
    if let Some(path) = there.filter(|_| !args.force) {
        let what = format!("{} is there already; --force writes over it and all of {}", path.display(), files.len());
        return Err(CliError::Usage(what));
    }
    let mut written = Written { platform: args.platform.clone(), files: Vec::new() };
    for (n, (path, text, runs)) in files.iter().enumerate() {
        let path = args.dir.join(path);
        let text = match n {
            0 => filled(text),
            _ => with_outputs(text, &args.upstream),
        };
        write(&path, text.as_bytes(), *runs, &run.system)?;
        written.files.push(path);
    }
    run.out.one(&written)?;
    Ok(Exit::Ok)
}

/// Replaces the placeholders of a workflow by values.
fn fill<'a>(args: &'a InitArgs, values: &'a [(&str, &str)]) -> Result<impl Fn(&str) -> String + 'a, CliError> {
    // The values are inserted into YAML and into shell words.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@+-=,~[]".contains(c);
    let odd = values.iter().map(|(_, v)| *v).chain(args.upstream.iter().map(String::as_str)).find(|v| !v.chars().all(plain));
    if let Some(odd) = odd {
        return Err(CliError::Usage(format!("{odd:?} has characters that cannot stand in a workflow")));
    }
    let first = args.upstream.first().map_or("", |u| u.split('=').next().unwrap_or(u));
    let upstreams = match args.platform.as_str() {
        "github" => args.upstream.iter().map(|u| u.replace(['=', ','], " ")).collect::<Vec<_>>().join("\n            "),
        "gitlab" => args.upstream.join(" "),
        _ => args.upstream.join("\n            - "),
    };
    Ok(move |text: &str| {
        let text = text.replace("{{upstreams}}", &upstreams).replace("{{upstream}}", first);
        values.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
    })
}

/// GitHub's action has one output per upstream, declared in its file so that workflow linters know it.
fn with_outputs(text: &str, upstreams: &[String]) -> String {
    let mut names: Vec<&str> = upstreams.iter().map(|u| u.split('=').next().unwrap_or(u)).collect();
    names.sort_unstable();
    names.dedup();
    let outputs: String = names.iter().map(|name| format!("  {name}:\n    description: The credential for {name}\n")).collect();
    text.replace("\noutputs:\n", &format!("\noutputs:\n{outputs}"))
}

fn write(path: &Path, bytes: &[u8], runs: bool, system: &System) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::Local(format!("{}: cannot be written: {e}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    atomic_file::write(path, bytes, SHARED, system).map_err(failed)?;
    let mode = if runs { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}
