//! `mayfly export`: writes what is in effect as the folder that `mayfly apply` reads.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::document::{binding_text, upstream_text};
use super::file_name;
use super::folder::{BINDINGS, ENVIRONMENTS, ROLES, UPSTREAMS};
use super::present::{self, Present};
use crate::CommandContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::policy::sources;
use crate::show::answer::Answer;
use crate::upstream::unversioned;
use mayfly_base::atomic_file::{AtomicFile, SHARED};
use mayfly_base::plural::counted;
use mayfly_base::system::System;
use mayfly_proto::mayfly::v1 as pb;

/// Arguments of `mayfly export`.
#[derive(Args)]
pub struct FolderExportArgs {
    /// Folder to write; it must not exist, or be empty
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The files of a folder by their path below it. Every text is written as it is.
type Files = BTreeMap<PathBuf, String>;

/// Writes what is in effect to a folder.
pub async fn export(args: FolderExportArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let present = present::fetch(&run.server().await?).await?;
    let files = files(&present)?;
    let count = files.len();
    write(&args.folder, &files, &run.system)?;
    let disabled = present.upstreams.values().filter(|found| found.state == pb::RegistrationState::Disabled);
    for found in disabled {
        run.out.say(format_args!("upstream {} is disabled, which no file says", found.upstream.name));
    }
    run.out.say(format_args!(
        "{} written to {}; no secret is among them: mayfly apply {} --dry-run",
        counted(count as u64, "file"),
        args.folder.display(),
        mayfly_base::document::remedy::shell_quoted(&args.folder)
    ));
    run.out.one(
        &Answer::named(args.folder.display()).with("folder", args.folder.display().to_string()).with("files", count as u64),
    )?;
    Ok(Exit::Ok)
}

/// The files of what is in effect.
fn files(present: &Present) -> Result<Files, CliError> {
    let mut files = Files::new();
    let sets: Vec<(&String, Files)> = present
        .policies
        .iter()
        .filter_map(|(environment, set)| set.as_ref().map(|set| (environment, set)))
        .map(|(environment, set)| policy_files(environment, set).map(|files| (environment, files)))
        .collect::<Result<_, _>>()?;
    // A set that all environments share is written once, as a first start reads it.
    match sets.split_first() {
        Some(((_, first), others)) if others.iter().all(|(_, set)| set == first) => files.extend(first.clone()),
        _ => {
            for (environment, set) in sets {
                let directory = Path::new(ENVIRONMENTS).join(file_name::encoded(environment));
                files.extend(set.into_iter().map(|(name, text)| (directory.join(name), text)));
            }
        }
    }
    let registered = present.upstreams.values().filter(|found| found.state != pb::RegistrationState::Retired);
    for found in registered {
        let file = format!("{}.toml", file_name::encoded(&found.upstream.name));
        files.insert(Path::new(UPSTREAMS).join(file), upstream_text(&unversioned(&found.upstream)));
    }
    let bound = present.bindings.values().map(|found| &found.binding);
    for binding in bound.filter(|binding| !binding.scopes.is_empty() && present.registered(&binding.upstream)) {
        let file = format!("{}.toml", file_name::encoded(&binding.name));
        files.insert(Path::new(BINDINGS).join(file), binding_text(binding));
    }
    Ok(files)
}

/// The files of a policy set. The server names them, so a name that leads elsewhere is refused.
fn policy_files(environment: &str, set: &pb::PolicySet) -> Result<Files, CliError> {
    let (policies, roles) = sources(set.files.as_ref());
    let mut files = Files::from([(PathBuf::from(ROLES), roles.text)]);
    for policy in policies {
        let name = policy.file;
        let why = match name.as_str() {
            _ if name.contains(['/', '\0']) || name.starts_with('.') => "is no plain file name",
            _ if !name.ends_with(".cedar") => "does not end in .cedar",
            _ if files.contains_key(Path::new(&name)) => "is there twice",
            _ => {
                files.insert(PathBuf::from(name), policy.text);
                continue;
            }
        };
        let way_out = "put the set in effect once with other file names: mayfly policy show, then mayfly policy set";
        return Err(CliError::Local(format!("the policy file {name:?} of environment {environment} {why}: {way_out}")));
    }
    Ok(files)
}

fn write(folder: &Path, files: &Files, system: &System) -> Result<(), CliError> {
    let cannot = |path: &Path, e: io::Error| CliError::Local(format!("{}: {e}", path.display()));
    match fs::read_dir(folder) {
        Ok(mut names) => {
            // A folder under Git has a hidden name before it has anything else.
            let shown = names.find_map(|name| name.ok().filter(|name| !name.file_name().as_encoded_bytes().starts_with(b".")));
            if let Some(name) = shown {
                let what = format!("{} is not empty, it has {:?}", folder.display(), name.file_name().to_string_lossy());
                return Err(CliError::Usage(format!("{what}: name an empty folder; an export replaces no file")));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(cannot(folder, e)),
    }
    for directory in [UPSTREAMS, BINDINGS] {
        let path = folder.join(directory);
        fs::create_dir_all(&path).map_err(|e| cannot(&path, e))?;
    }
    for (name, text) in files {
        let path = folder.join(name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|e| cannot(directory, e))?;
        }
        let written = AtomicFile::begin(&path, SHARED, system).and_then(|mut new| {
            new.write(text.as_bytes())?;
            new.name_new()
        });
        written.map_err(|e| cannot(&path, e))?;
    }
    Ok(())
}
