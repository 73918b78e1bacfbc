//! Selects the policy set that a command works on.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use crate::error::CliError;
use crate::server::ApiClient;
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_config::policy_files;
use mayfly_policy::PolicySet;
use mayfly_proto::mayfly::v1::{self as pb, policy_service_client::PolicyServiceClient};

/// The files of a policy set.
#[derive(Args, Clone)]
pub struct PolicyFileArgs {
    /// Cedar policies: files, or directories whose `*.cedar` files are read
    #[arg(value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Roles and environments of identities, TOML [default: `roles.toml` in a directory PATH, else the roles in effect]
    #[arg(long, value_name = "FILE", requires = "files")]
    pub roles: Option<PathBuf>,
}

/// A policy set: local files, or a version that the server has.
#[derive(Args, Clone)]
pub struct SetSource {
    #[command(flatten)]
    pub files: PolicyFileArgs,
    /// Use an earlier version of the enforced policy set; `policy set` rolls back to it
    #[arg(long, value_name = "N", conflicts_with_all = ["files", "audited"], value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,
    /// Use the shadow policy set
    #[arg(long, conflicts_with = "files")]
    pub audited: bool,
}

/// The error that lists all complaints about files, one per line.
pub fn complaints(all: &[Diagnostic]) -> CliError {
    CliError::Usage(all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// The name of the roles file in a directory that holds a whole policy set, as `policy show --to` writes it.
const ROLES: &str = "roles.toml";

fn wire_file(source: SourceFile) -> pb::PolicyFile {
    pb::PolicyFile { name: source.file, text: source.text }
}

impl PolicyFileArgs {
    /// The roles file: the named one, or `roles.toml` in one of the directories. `None`: the roles in effect stay.
    pub fn roles_file(&self) -> Result<Option<PathBuf>, CliError> {
        if self.roles.is_some() {
            return Ok(self.roles.clone());
        }
        // Something of that name that is no file, or leads nowhere, is reported when it is read.
        let mut found: Vec<PathBuf> =
            self.files.iter().map(|path| path.join(ROLES)).filter(|path| path.symlink_metadata().is_ok()).collect();
        // A directory that is named twice has one roles file; that it is named twice is reported with its policies.
        let mut seen = BTreeSet::new();
        found.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => {
                let names = several.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
                Err(CliError::Usage(format!(
                    "a policy set has one roles file, and there are {names}; name one with --roles FILE"
                )))
            }
        }
    }

    /// Reads the files.
    pub fn read(&self) -> Result<(Vec<SourceFile>, Option<SourceFile>), CliError> {
        let roles = self.roles_file()?;
        let policies = policy_files::cedar(&self.files).map_err(|wrong| complaints(&wrong))?;
        let roles = roles.as_deref().map(policy_files::roles).transpose();
        Ok((policies, roles.map_err(|wrong| complaints(&[wrong]))?))
    }

    /// Compiles the set without a server, if both policies and roles are local.
    pub fn compiled(&self) -> Result<PolicySet, CliError> {
        match self.read()? {
            (policies, Some(roles)) => PolicySet::compile(policies, roles).map_err(|wrong| complaints(&wrong)),
            (_, None) => Err(CliError::Usage(
                "to check policies without a server, name the roles: --roles FILE, or a directory PATH that holds roles.toml"
                    .to_owned(),
            )),
        }
    }
}

impl SetSource {
    /// The protobuf form of the source. `None`: the command line names none.
    pub fn on_the_wire(&self) -> Result<Option<pb::PolicySource>, CliError> {
        use mayfly_proto::mayfly::v1::policy_source::From;
        let from = match (self.files.files.is_empty(), self.version, self.audited) {
            (_, Some(version), _) => From::Version(version),
            (_, None, true) => From::Audited(true),
            (false, None, false) => {
                let (policies, roles) = self.files.read()?;
                let policies = policies.into_iter().map(wire_file).collect();
                From::Files(pb::PolicyFiles { policies, roles: roles.map(wire_file) })
            }
            (true, None, false) => return Ok(None),
        };
        Ok(Some(pb::PolicySource { from: Some(from) }))
    }

    /// Like `on_the_wire`, but a missing source is an error.
    pub fn needed(&self) -> Result<pb::PolicySource, CliError> {
        let missing = || CliError::Usage("name the policy set: PATH..., --version N or --audited".to_owned());
        self.on_the_wire()?.ok_or_else(missing)
    }
}

/// Fetches a set from the server. `None`: there is none.
pub async fn fetch_set(server: &ApiClient, environment: &str, mode: pb::PolicyMode) -> Result<Option<pb::PolicySet>, CliError> {
    let request = pb::GetPolicyRequest { environment: environment.to_owned(), mode: mode.into(), version: None };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).get_policy(q).await }).await;
    match answer {
        Ok(answer) => Ok(answer.policy),
        Err(CliError::Server(said)) if said.reason == Some(mayfly_base::refusal::Reason::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The files of a set as sources: policies and roles.
pub fn sources(files: Option<&pb::PolicyFiles>) -> (Vec<SourceFile>, SourceFile) {
    let source = |file: &pb::PolicyFile| SourceFile::new(file.name.as_str(), file.text.as_str());
    let policies = files.map(|f| f.policies.iter().map(source).collect()).unwrap_or_default();
    (policies, files.and_then(|f| f.roles.as_ref()).map_or_else(|| SourceFile::new("roles.toml", ""), source))
}

/// The differences between two sets of files, line by line as in `diff -u`; empty if there are none.
pub fn differences(before: Option<&pb::PolicyFiles>, after: Option<&pb::PolicyFiles>) -> String {
    let texts = |files: Option<&pb::PolicyFiles>| {
        let all = files.into_iter().flat_map(|f| f.policies.iter().chain(&f.roles));
        all.map(|f| (f.name.clone(), f.text.clone())).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (before, after) = (texts(before), texts(after));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let empty = String::new();
    let each = names.into_iter().map(|name| {
        let (old, new) = (before.get(name).unwrap_or(&empty), after.get(name).unwrap_or(&empty));
        similar::TextDiff::from_lines(old, new).unified_diff().context_radius(2).header(name, name).to_string()
    });
    each.collect()
}
