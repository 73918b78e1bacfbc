//! Policies, roles and registrations from the files that the configuration names. They are imported once at the first start, and only
//! compared afterwards.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::PolicyFiles;
use mayfly_base::bounded_file::read_text;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;
use mayfly_ledger::upstream::file;
use mayfly_ledger::upstream::registry::{Registry, Upstream};
use mayfly_policy::PolicySet;

/// The content of the files.
#[derive(Debug)]
pub struct PolicyFileContents {
    /// The policy set.
    pub policy: PolicySet,
    /// The registrations.
    pub upstreams: Registry,
}

/// Reads and compiles all files, or returns all defects.
pub fn load(files: &PolicyFiles) -> Result<PolicyFileContents, Vec<Diagnostic>> {
    match (policy(files), upstreams(&files.upstreams)) {
        (Ok(policy), Ok(upstreams)) => Ok(PolicyFileContents { policy, upstreams }),
        (policy, upstreams) => Err(policy.err().into_iter().chain(upstreams.err()).flatten().collect()),
    }
}

/// The Cedar files of the given paths, in order: files themselves, and every `*.cedar` of directories.
pub fn cedar(paths: &[PathBuf]) -> Result<Vec<SourceFile>, Vec<Diagnostic>> {
    let (mut read, mut wrong) = (Vec::new(), Vec::new());
    for path in paths {
        let found = cedar_files(path).and_then(|found| found.into_iter().map(policy_source).collect::<Result<Vec<_>, _>>());
        match found {
            Ok(found) => read.extend(found.into_iter().map(|(_, source)| source)),
            Err(complaint) => wrong.push(complaint),
        }
    }
    if wrong.is_empty() { Ok(read) } else { Err(wrong) }
}

/// Reads a roles file.
pub fn roles(path: &Path) -> Result<SourceFile, Diagnostic> {
    policy_source(path.to_owned()).map(|(_, source)| source)
}

/// Reads the policy set only.
pub fn policy(files: &PolicyFiles) -> Result<PolicySet, Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    let mut read: Vec<(PathBuf, SourceFile)> = Vec::new();
    for path in &files.files {
        let found = cedar_files(path).and_then(|found| found.into_iter().map(policy_source).collect::<Result<Vec<_>, _>>());
        match found {
            Ok(found) => read.extend(found),
            Err(complaint) => wrong.push(complaint),
        }
    }
    match policy_source(files.roles.clone()) {
        Ok((path, roles)) if wrong.is_empty() => {
            let paths: Vec<(PathBuf, String)> = read.iter().map(|(path, source)| (path.clone(), source.file.clone())).collect();
            let compiled = PolicySet::compile(read.into_iter().map(|(_, source)| source).collect(), roles.clone());
            compiled.map_err(|wrong| wrong.into_iter().map(|c| with_path(c, &paths, (&path, &roles.file))).collect())
        }
        Ok(_) => Err(wrong),
        Err(complaint) => {
            wrong.push(complaint);
            Err(wrong)
        }
    }
}

fn policy_source(path: PathBuf) -> Result<(PathBuf, SourceFile), Diagnostic> {
    source(&path, limits::POLICY_BYTES).map(|source| (path, source))
}

/// A complaint is for a user of this host: its file name is replaced by the whole path.
fn with_path(complaint: Diagnostic, policies: &[(PathBuf, String)], roles: (&Path, &str)) -> Diagnostic {
    let policy = policies.iter().find(|(_, name)| *name == complaint.file).map(|(path, _)| path.as_path());
    let path = policy.or((roles.1 == complaint.file).then_some(roles.0));
    Diagnostic { file: path.map_or(complaint.file.clone(), |p| p.display().to_string()), ..complaint }
}

/// Reads the registrations only: every `*.toml` of a directory, in the order of their names.
pub fn upstreams(directory: &Path) -> Result<Registry, Vec<Diagnostic>> {
    let files = entries(directory, "toml").map_err(|complaint| vec![complaint])?;
    if files.len() > limits::UPSTREAMS {
        let what = format!("has {} registrations", files.len());
        return Err(vec![Diagnostic::about(directory.display().to_string(), what, format!("at most {}", limits::UPSTREAMS))]);
    }
    let (mut read, mut wrong): (Vec<Upstream>, Vec<Diagnostic>) = (Vec::new(), Vec::new());
    for path in files {
        let there = |c: Diagnostic| Diagnostic { file: path.display().to_string(), ..c };
        match source(&path, limits::UPSTREAM_FILE_BYTES).map_err(|c| vec![c]).and_then(|text| file::parse(&text)) {
            Ok(upstream) => read.push(upstream),
            Err(complaints) => wrong.extend(complaints.into_iter().map(there)),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let remedy = "give each its own; one target has one registration";
    let said = |clash: &mayfly_ledger::upstream::registry::RegistrationConflict| {
        Diagnostic::about(directory.display().to_string(), clash.to_string(), remedy)
    };
    Registry::new(read).map_err(|clashes| clashes.iter().map(said).collect())
}

/// The file itself, or a directory's `*.cedar`.
fn cedar_files(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => entries(path, "cedar"),
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(e) => Err(unreadable(path, &e)),
    }
}

/// The files of a directory with this extension, ordered by name, so that the same files always make the same set. Hidden files are
/// ignored: editors leave them.
fn entries(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, Diagnostic> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let paths = fs::read_dir(directory)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        let hidden = |p: &Path| p.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        let mut paths: Vec<PathBuf> =
            paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == extension) && !hidden(p)).collect();
        paths.sort();
        Ok(paths)
    };
    match read() {
        Ok(paths) if paths.is_empty() => {
            let what = format!("has no *.{extension}");
            Err(Diagnostic::about(directory.display().to_string(), what, "name the directory that has them"))
        }
        Ok(paths) => Ok(paths),
        Err(e) => Err(unreadable(directory, &e)),
    }
}

/// A file's text, under the last component of its path: the name is stored in records and policy ids, where the host's directories are
/// meaningless.
fn source(path: &Path, max: usize) -> Result<SourceFile, Diagnostic> {
    let text = read_text(path, max).map_err(|e| unreadable(path, &e))?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    Ok(SourceFile::new(name, text.as_str()))
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::about(
        path.display().to_string(),
        format!("cannot be read: {error}"),
        format!("make it readable to the server's user, or name another; who may read it: ls -l {}", shell_quoted(path)),
    )
}
