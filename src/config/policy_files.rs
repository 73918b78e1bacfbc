//! Policies, roles, registrations and bindings from the files that the configuration names. They are imported once at the first start, and only
//! compared afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::PolicyFiles;
use mayfly_base::bounded_file::read_text;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;
use mayfly_credential::connectors::READERS;
use mayfly_ledger::upstream::binding::{self, Binding};
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
    /// The bindings by name. `None`: the configuration names no directory of them.
    pub bindings: Option<BTreeMap<String, Binding>>,
}

/// Reads and compiles all files, or returns all defects.
pub fn load(files: &PolicyFiles) -> Result<PolicyFileContents, Vec<Diagnostic>> {
    let (policy, upstreams) = (policy(files), upstreams(&files.upstreams));
    let bindings = files.bindings.as_deref().map(|directory| bindings(directory, upstreams.as_ref().ok())).transpose();
    match (policy, upstreams, bindings) {
        (Ok(policy), Ok(upstreams), Ok(bindings)) => Ok(PolicyFileContents { policy, upstreams, bindings }),
        (policy, upstreams, bindings) => {
            Err(policy.err().into_iter().chain(upstreams.err()).chain(bindings.err()).flatten().collect())
        }
    }
}

/// The Cedar files of the given paths, in order: files themselves, and every `*.cedar` of directories.
pub fn cedar(paths: &[PathBuf]) -> Result<Vec<SourceFile>, Vec<Diagnostic>> {
    let (read, wrong) = policy_sources(paths);
    if wrong.is_empty() { Ok(read.into_iter().map(|(_, source)| source).collect()) } else { Err(wrong) }
}

/// The Cedar files of the given paths with their paths, and what is wrong with them.
fn policy_sources(paths: &[PathBuf]) -> (Vec<(PathBuf, SourceFile)>, Vec<Diagnostic>) {
    let (mut read, mut wrong, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for path in paths {
        let found = match cedar_files(path) {
            Ok(found) => found,
            Err(complaint) => {
                wrong.push(complaint);
                continue;
            }
        };
        // A file that is there again, under whatever path, would only be found to have every policy twice.
        let mut again = |file: &PathBuf| fs::canonicalize(file).is_ok_and(|file| !seen.insert(file));
        let again: Vec<PathBuf> = found.iter().filter(|file| again(file)).cloned().collect();
        if let Some(file) = again.first() {
            let what = match file == path {
                true => "this file is named twice".to_owned(),
                false => format!("its file {} is named twice", file.display()),
            };
            wrong.push(Diagnostic::about(path.display().to_string(), what, "name each file, and each directory, once"));
            continue;
        }
        match found.into_iter().map(policy_source).collect::<Result<Vec<_>, _>>() {
            Ok(found) => read.extend(found),
            Err(complaint) => wrong.push(complaint),
        }
    }
    (read, wrong)
}

/// Reads a roles file.
pub fn roles(path: &Path) -> Result<SourceFile, Diagnostic> {
    policy_source(path.to_owned()).map(|(_, source)| source)
}

/// Reads the policy set only.
pub fn policy(files: &PolicyFiles) -> Result<PolicySet, Vec<Diagnostic>> {
    let (read, mut wrong) = policy_sources(&files.files);
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
    if files.is_empty() {
        let what = "has no *.toml".to_owned();
        return Err(vec![Diagnostic::about(directory.display().to_string(), what, "name the directory that has them")]);
    }
    if files.len() > limits::UPSTREAMS {
        let what = format!("has {} registrations", files.len());
        return Err(vec![Diagnostic::about(directory.display().to_string(), what, format!("at most {}", limits::UPSTREAMS))]);
    }
    let (mut read, mut wrong): (Vec<Upstream>, Vec<Diagnostic>) = (Vec::new(), Vec::new());
    for path in files {
        let there = |c: Diagnostic| Diagnostic { file: path.display().to_string(), ..c };
        match source(&path, limits::UPSTREAM_FILE_BYTES).map_err(|c| vec![c]).and_then(|text| file::parse(&text, &READERS)) {
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

/// Reads the bindings only: every `*.toml` of a directory, which may have none. `upstreams`: the registrations that they must name.
pub fn bindings(directory: &Path, upstreams: Option<&Registry>) -> Result<BTreeMap<String, Binding>, Vec<Diagnostic>> {
    let files = entries(directory, "toml").map_err(|complaint| vec![complaint])?;
    if files.len() > limits::BINDINGS {
        let what = format!("has {} bindings", files.len());
        return Err(vec![Diagnostic::about(directory.display().to_string(), what, format!("at most {}", limits::BINDINGS))]);
    }
    let (mut read, mut wrong) = (BTreeMap::new(), Vec::new());
    for path in files {
        let place = || path.display().to_string();
        match source(&path, limits::UPSTREAM_FILE_BYTES).map_err(|c| vec![c]).and_then(|text| binding::parse(&text)) {
            Ok(binding) => {
                wrong.extend(
                    upstreams.and_then(|known| of_unknown(&binding, known)).map(|what| Diagnostic { file: place(), ..what }),
                );
                let name = binding.name.clone();
                if read.insert(name.clone(), binding).is_some() {
                    wrong.push(Diagnostic::about(
                        place(),
                        format!("binding {name} is in another file too"),
                        "give each its own name",
                    ));
                }
            }
            Err(complaints) => wrong.extend(complaints.into_iter().map(|c| Diagnostic { file: place(), ..c })),
        }
    }
    if wrong.is_empty() { Ok(read) } else { Err(wrong) }
}

/// A binding must name a registered upstream and scopes of it.
fn of_unknown(binding: &Binding, known: &Registry) -> Option<Diagnostic> {
    let Some(upstream) = known.get(&binding.upstream) else {
        let what = format!("binding {} is for upstream {}, which no file registers", binding.name, binding.upstream);
        return Some(Diagnostic::about("", what, "register it, or mend the name"));
    };
    let scope = binding.scopes.iter().find(|scope| upstream.scope(scope).is_none())?;
    let what = format!("binding {} has {scope}, which is no scope of upstream {}", binding.name, upstream.name);
    let has: Vec<&str> = upstream.scopes.iter().map(|scope| scope.name.as_str()).collect();
    Some(Diagnostic::about("", what, format!("it has {}", has.join(", "))))
}

/// The file itself, or a directory's `*.cedar`.
fn cedar_files(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => match entries(path, "cedar")? {
            none if none.is_empty() => {
                Err(Diagnostic::about(path.display().to_string(), "has no *.cedar", "name the directory that has them"))
            }
            found => Ok(found),
        },
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
    read().map_err(|e| unreadable(directory, &e))
}

/// A file's text, under the last component of its path: the name is stored in records and policy ids, where the host's directories are
/// meaningless.
fn source(path: &Path, max: usize) -> Result<SourceFile, Diagnostic> {
    let text = read_text(path, max).map_err(|e| unreadable(path, &e))?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    Ok(SourceFile::new(name, text.as_str()))
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "name a path that exists".to_owned(),
        io::ErrorKind::PermissionDenied => {
            let quoted = shell_quoted(path);
            format!(
                "make it readable to the user who reads it, the server's or yours, or name another; who may read it: ls -l {quoted}"
            )
        }
        _ => "name another".to_owned(),
    };
    Diagnostic::about(path.display().to_string(), format!("cannot be read: {error}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_or_does_not_exist_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, file) = (dir.path().join("d1"), dir.path().join("d1/policy.cedar"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "permit (principal, action, resource);").unwrap();
        let told = |paths: &[PathBuf]| cedar(paths).unwrap_err().iter().map(ToString::to_string).collect::<String>();
        for twice in [[inner.clone(), inner.clone()], [file.clone(), dir.path().join("d1/../d1")], [inner.clone(), file.clone()]]
        {
            let told = told(&twice);
            assert!(told.contains("named twice") && told.contains("once"), "{told}");
        }
        assert_eq!(cedar(std::slice::from_ref(&inner)).unwrap().len(), 1);
        let told = told(&[dir.path().join("d2")]);
        assert!(told.contains("No such file") && told.contains("exists") && !told.contains("readable"), "{told}");
    }
}
