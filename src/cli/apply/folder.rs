//! Reads a folder of configuration: policies with roles, registrations and bindings. All errors of all files are reported at once.
//!
//! The folder is input that somebody else may have written. The number of names, the bytes of each file and of all files are bounded. A
//! symbolic link is followed only to a place inside the folder, as the links are by which Kubernetes shows a ConfigMap.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mayfly_base::bounded_file::read_text;
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;
use mayfly_credential::connectors::READERS;
use mayfly_ledger::upstream::binding::{self, Binding};
use mayfly_ledger::upstream::file;
use mayfly_ledger::upstream::registry::{Registry, Upstream};
use mayfly_policy::PolicySet;

use super::file_name;

/// The directory of policy sets that are for one environment each.
pub const ENVIRONMENTS: &str = "environments";
/// The directory of registrations.
pub const UPSTREAMS: &str = "upstreams";
/// The directory of bindings.
pub const BINDINGS: &str = "bindings";
/// The roles file of a policy set.
pub const ROLES: &str = "roles.toml";
/// Files that belong into such a folder and are not read.
const NOT_READ: [&str; 2] = ["tests.toml", "README.md"];

/// The files of a policy set, and the set compiled.
#[derive(Debug)]
pub struct FolderPolicy {
    /// The Cedar files, by name.
    pub policies: Vec<SourceFile>,
    /// The roles file.
    pub roles: SourceFile,
    /// The compiled set.
    pub set: PolicySet,
}

/// The content of a folder. What is `None` or absent, the folder says nothing about.
#[derive(Debug, Default)]
pub struct Folder {
    /// The policy set of every environment that has none of its own.
    pub policy: Option<FolderPolicy>,
    /// The policy sets of single environments.
    pub environments: BTreeMap<String, FolderPolicy>,
    /// The registrations.
    pub upstreams: Option<BTreeMap<String, Upstream>>,
    /// The bindings.
    pub bindings: Option<BTreeMap<String, Binding>>,
}

impl Folder {
    /// The policy set of an environment.
    pub fn policy_of(&self, environment: &str) -> Option<&FolderPolicy> {
        self.environments.get(environment).or(self.policy.as_ref())
    }
}

/// Reads a folder, or returns everything that is wrong with it.
pub fn read(root: &Path) -> Result<Folder, Vec<Diagnostic>> {
    let canonical = fs::canonicalize(root).map_err(|e| {
        vec![Diagnostic::about(
            root.display().to_string(),
            format!("cannot be read: {e}"),
            "name the folder with the configuration",
        )]
    })?;
    let mut reader = Reader { root: canonical, bytes: 0, bindings: BTreeMap::new(), wrong: Vec::new() };
    let folder = reader.folder(root);
    if reader.wrong.is_empty() { Ok(folder) } else { Err(reader.wrong) }
}

/// The object that a name in a directory leads to.
enum Entry {
    File(PathBuf),
    Directory,
}

struct Reader {
    /// The folder without symbolic links.
    root: PathBuf,
    /// Bytes read so far.
    bytes: usize,
    /// The file of each binding.
    bindings: BTreeMap<String, PathBuf>,
    wrong: Vec<Diagnostic>,
}

impl Reader {
    fn complain(&mut self, path: &Path, what: impl Into<String>, remedy: impl Into<String>) {
        self.wrong.push(Diagnostic::about(path.display().to_string(), what, remedy));
    }

    fn folder(&mut self, root: &Path) -> Folder {
        let mut folder = Folder::default();
        let (mut cedar, mut roles) = (Vec::new(), None);
        for (name, path, entry) in self.entries(root) {
            match (name.as_str(), entry) {
                (UPSTREAMS, Entry::Directory) => folder.upstreams = Some(self.upstreams(&path)),
                (BINDINGS, Entry::Directory) => folder.bindings = Some(self.bindings(&path)),
                (ENVIRONMENTS, Entry::Directory) => folder.environments = self.environments(&path),
                (ROLES, Entry::File(real)) => roles = Some((path, real)),
                (name, Entry::File(_)) if NOT_READ.contains(&name) => {}
                (name, Entry::File(real)) if name.ends_with(".cedar") => cedar.push((path, real)),
                _ => self.complain(
                    &path,
                    "does not belong into this folder",
                    format!("it may have *.cedar, {ROLES}, {UPSTREAMS}/, {BINDINGS}/, {ENVIRONMENTS}/, {}", NOT_READ.join(", ")),
                ),
            }
        }
        folder.policy = self.policy(root, cedar, roles);
        let nothing = folder.policy.is_none() && folder.environments.is_empty();
        if nothing && folder.upstreams.is_none() && folder.bindings.is_none() && self.wrong.is_empty() {
            let has = format!("it has *.cedar and {ROLES}, {UPSTREAMS}/*.toml or {BINDINGS}/*.toml");
            self.complain(root, "says nothing", format!("name the folder with the configuration: {has}"));
        }
        self.bindings_fit(&folder);
        folder
    }

    fn environments(&mut self, directory: &Path) -> BTreeMap<String, FolderPolicy> {
        let mut sets = BTreeMap::new();
        let entries = self.entries(directory);
        if entries.len() > limits::APPLY_ENVIRONMENTS {
            self.complain(directory, format!("has {} names", entries.len()), format!("at most {}", limits::APPLY_ENVIRONMENTS));
            return sets;
        }
        for (name, path, entry) in entries {
            let (Entry::Directory, Some(environment)) = (entry, file_name::decoded(&name)) else {
                self.complain(&path, "is no directory of an environment", "name the directory as the environment");
                continue;
            };
            let (mut cedar, mut roles) = (Vec::new(), None);
            for (name, path, entry) in self.entries(&path) {
                match (name.as_str(), entry) {
                    (ROLES, Entry::File(real)) => roles = Some((path, real)),
                    (name, Entry::File(_)) if NOT_READ.contains(&name) => {}
                    (name, Entry::File(real)) if name.ends_with(".cedar") => cedar.push((path, real)),
                    _ => self.complain(&path, "does not belong here", format!("a policy set has *.cedar and {ROLES}")),
                }
            }
            if cedar.is_empty() && roles.is_none() {
                self.complain(&path, "has no policy set", format!("give it *.cedar and {ROLES}, or remove the directory"));
            } else if let Some(set) = self.policy(&path, cedar, roles) {
                sets.insert(environment, set);
            }
        }
        sets
    }

    /// A policy set. `None`: there is none, or it is wrong.
    fn policy(
        &mut self,
        directory: &Path,
        cedar: Vec<(PathBuf, PathBuf)>,
        roles: Option<(PathBuf, PathBuf)>,
    ) -> Option<FolderPolicy> {
        let roles = match (cedar.is_empty(), roles) {
            (true, None) => return None,
            (false, None) => {
                self.complain(
                    directory,
                    format!("has policies and no {ROLES}"),
                    format!("add {ROLES}: policies and roles are one set"),
                );
                None
            }
            (true, Some((path, _))) => {
                self.complain(&path, "has no policies beside it", "add the *.cedar files: policies and roles are one set");
                None
            }
            (false, Some(roles)) => Some(roles),
        };
        let paths: Vec<PathBuf> = cedar.iter().chain(&roles).map(|(path, _)| path.clone()).collect();
        let mut source = |(path, real): (PathBuf, PathBuf)| self.text(&path, &real, limits::POLICY_BYTES);
        let policies: Vec<Option<SourceFile>> = cedar.into_iter().map(&mut source).collect();
        let roles = roles.and_then(source)?;
        let policies: Vec<SourceFile> = policies.into_iter().collect::<Option<_>>()?;
        match PolicySet::compile(policies.clone(), roles.clone()) {
            Ok(set) => Some(FolderPolicy { policies, roles, set }),
            Err(complaints) => {
                // The set knows the names of its files; a reader wants their paths.
                let path = |name: &str| paths.iter().find(|path| path.file_name().is_some_and(|own| own == name));
                for complaint in complaints {
                    let file = path(&complaint.file).map_or(directory, PathBuf::as_path).display().to_string();
                    self.wrong.push(Diagnostic { file, ..complaint });
                }
                None
            }
        }
    }

    fn upstreams(&mut self, directory: &Path) -> BTreeMap<String, Upstream> {
        let read = self.documents(directory, limits::UPSTREAMS, |source| file::parse(source, &READERS));
        let all = self.by_name(read, |upstream: &Upstream| &upstream.name);
        if let Err(clashes) = Registry::new(all.values().cloned()) {
            for clash in clashes {
                self.complain(directory, clash.to_string(), "give each its own; one target has one registration");
            }
        }
        all
    }

    fn bindings(&mut self, directory: &Path) -> BTreeMap<String, Binding> {
        let read = self.documents(directory, limits::BINDINGS, binding::parse);
        self.bindings = read.iter().map(|(path, binding)| (binding.name.clone(), path.clone())).collect();
        self.by_name(read, |binding: &Binding| &binding.name)
    }

    /// A binding names an upstream of the folder and its scopes, where the folder has registrations.
    fn bindings_fit(&mut self, folder: &Folder) {
        let (Some(upstreams), Some(bindings)) = (&folder.upstreams, &folder.bindings) else { return };
        for binding in bindings.values() {
            let path = self.bindings.get(&binding.name).cloned().unwrap_or_default();
            let Some(upstream) = upstreams.get(&binding.upstream) else { continue };
            for scope in binding.scopes.iter().filter(|scope| upstream.scope(scope).is_none()) {
                let known: Vec<&str> = upstream.scopes.iter().map(|s| s.name.as_str()).collect();
                let what = format!("{scope} is no scope of upstream {}", upstream.name);
                self.complain(&path, what, format!("it has {}", known.join(", ")));
            }
        }
    }

    /// Every `*.toml` of a directory.
    fn documents<T>(
        &mut self,
        directory: &Path,
        most: usize,
        parse: impl Fn(&SourceFile) -> Result<T, Vec<Diagnostic>>,
    ) -> Vec<(PathBuf, T)> {
        let entries = self.entries(directory);
        if entries.len() > most {
            self.complain(directory, format!("has {} names", entries.len()), format!("at most {most}"));
            return Vec::new();
        }
        let mut read = Vec::new();
        for (name, path, entry) in entries {
            let Entry::File(real) = entry else {
                self.complain(&path, "is a directory", "this directory has *.toml files only");
                continue;
            };
            if !name.ends_with(".toml") {
                self.complain(&path, "does not belong here", "this directory has *.toml files only");
                continue;
            }
            let Some(source) = self.text(&path, &real, limits::UPSTREAM_FILE_BYTES) else { continue };
            match parse(&source) {
                Ok(document) => read.push((path, document)),
                Err(complaints) => {
                    self.wrong.extend(complaints.into_iter().map(|c| Diagnostic { file: path.display().to_string(), ..c }));
                }
            }
        }
        read
    }

    fn by_name<T>(&mut self, read: Vec<(PathBuf, T)>, name: impl Fn(&T) -> &String) -> BTreeMap<String, T> {
        let mut all: BTreeMap<String, (PathBuf, T)> = BTreeMap::new();
        for (path, document) in read {
            if let Some((first, _)) = all.get(name(&document)) {
                let what = format!("has the name {}, as {} has", name(&document), first.display());
                self.complain(&path, what, "give each its own name");
            } else {
                all.insert(name(&document).clone(), (path, document));
            }
        }
        all.into_iter().map(|(name, (_, document))| (name, document)).collect()
    }

    /// The names of a directory in order, each with its path and what it leads to. Hidden names are left out: editors, Git and
    /// Kubernetes leave them.
    fn entries(&mut self, directory: &Path) -> Vec<(String, PathBuf, Entry)> {
        let listed = match fs::read_dir(directory) {
            Ok(listed) => listed,
            Err(e) => {
                self.complain(directory, format!("cannot be read: {e}"), "name a folder that you may read");
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for (count, entry) in listed.enumerate() {
            if count >= limits::APPLY_NAMES {
                self.complain(
                    directory,
                    format!("has more than {} names", limits::APPLY_NAMES),
                    "name the folder with the configuration",
                );
                return Vec::new();
            }
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(e) => {
                    self.complain(directory, format!("cannot be read: {e}"), "");
                    continue;
                }
            };
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                self.complain(&path, "has a name that is no UTF-8", "rename it");
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            match self.inside(&path) {
                Ok(entry) => found.push((name, path, entry)),
                Err((what, remedy)) => self.complain(&path, what, remedy),
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// The object that a path leads to, which must be a regular file or a directory inside the folder.
    fn inside(&self, path: &Path) -> Result<Entry, (String, &'static str)> {
        let real = fs::canonicalize(path).map_err(|e| (format!("leads nowhere: {e}"), "remove it, or mend the link"))?;
        if !real.starts_with(&self.root) {
            return Err(("is a symbolic link that leads out of the folder".to_owned(), "put the file itself into the folder"));
        }
        match fs::metadata(&real) {
            Ok(found) if found.is_file() => Ok(Entry::File(real)),
            // A link to a directory above it would have no end.
            Ok(found)
                if found.is_dir()
                    && path
                        .parent()
                        .is_some_and(|above| fs::canonicalize(above).is_ok_and(|above| !above.starts_with(&real))) =>
            {
                Ok(Entry::Directory)
            }
            Ok(_) => Err(("is neither a regular file nor a directory below".to_owned(), "remove it")),
            Err(e) => Err((format!("cannot be read: {e}"), "make it readable")),
        }
    }

    /// A file's text, under the last component of its path.
    fn text(&mut self, path: &Path, real: &Path, most: usize) -> Option<SourceFile> {
        let left = limits::APPLY_BYTES.saturating_sub(self.bytes);
        if left == 0 {
            // Said once: every further file would be one more line.
            if self.wrong.last().is_none_or(|last| !last.what.starts_with("and the files before it")) {
                let what = format!("and the files before it have more than {} bytes", limits::APPLY_BYTES);
                self.complain(path, what, "divide the folder");
            }
            return None;
        }
        match read_text(real, most.min(left)) {
            Ok(text) => {
                self.bytes += text.len();
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                Some(SourceFile::new(name, text.as_str()))
            }
            Err(e) => {
                self.complain(path, format!("cannot be read: {e}"), format!("a text file of at most {most} bytes"));
                None
            }
        }
    }
}
