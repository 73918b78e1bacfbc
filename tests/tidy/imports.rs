//! Which way imports point.

use std::collections::BTreeMap;

use super::source::File;

/// What clients and the server check by: `clients/rust/verify`.
const VERIFY: &[&[&str]] =
    &[&["limits", "seq"], &["identity"], &["arguments", "revocation"], &["clock", "token_cache", "token"], &["check"]];

/// The client: `clients/rust`.
const CLIENT: &[&[&str]] = &[
    &["backoff", "limits", "pb", "secret"],
    &["agent", "error", "tls_identity", "random", "tls", "wire"],
    &["settings"],
    // Who reads an SVID from somewhere gives it to `svid`, which chooses where to read.
    &["svid", "workload_api"],
    &["dial", "json_floats"],
    &["link"],
    &["background", "exchange_stream", "uses"],
    &["exchange"],
    // The client, what is asked of it and what it hands out know each other.
    &["cache", "client", "credential", "request", "several"],
    &["verifier"],
    &["middleware"],
];

/// The crates, by where their code lies, and the layers of those that have some. Between the crates under `src/` the compiler holds which
/// way imports point.
pub const CRATES: &[(&str, &[&[&str]])] = &[
    ("src/", &[]),
    ("src/proto/", &[]),
    ("src/base/", &[]),
    ("src/identity/", &[]),
    ("src/store/", &[]),
    ("src/ledger/", &[]),
    ("src/policy/", &[]),
    ("src/credential/", &[]),
    ("src/authority/", &[]),
    ("src/config/", &[]),
    ("src/api/", &[]),
    ("src/server/", &[]),
    ("src/cli/", &[]),
    ("src/bench/", &[]),
    ("clients/rust/verify/src/", VERIFY),
    ("clients/rust/src/", CLIENT),
];

/// The layer of a module.
pub fn layer(layers: &[&[&str]], module: &str) -> Option<usize> {
    let named = |name: &str| module == name || module.starts_with(&format!("{name}/"));
    let found = layers.iter().enumerate().flat_map(|(n, names)| names.iter().map(move |name| (n, *name)));
    found.filter(|(_, name)| named(name)).max_by_key(|(_, name)| name.len()).map(|(n, _)| n)
}

/// A module by its file in a crate: `clients/rust/src/exchange.rs` is `exchange`.
pub fn module_of(root: &str, path: &str) -> String {
    path.trim_start_matches(root).trim_end_matches(".rs").trim_end_matches("/mod").to_owned()
}

/// The modules, what each imports, and which names each gives on from another.
pub struct Imports {
    root: &'static str,
    modules: Vec<String>,
    reexports: BTreeMap<(String, String), String>,
}

impl Imports {
    /// From the blanked code of one crate.
    pub fn of(root: &'static str, code: &[&File]) -> Imports {
        let modules: Vec<String> = code.iter().map(|f| module_of(root, &f.path)).collect();
        let mut reexports = BTreeMap::new();
        for file in code {
            let module = module_of(root, &file.path);
            for path in uses(&file.text, "pub use ") {
                let child = path.split("::").next().unwrap_or_default();
                if let Some((_, name)) = path.rsplit_once("::")
                    && modules.contains(&format!("{module}/{child}"))
                {
                    reexports.insert((module.clone(), name.to_owned()), format!("{module}/{child}"));
                }
            }
        }
        Imports { root, modules, reexports }
    }

    /// The modules that a file names, by `use` or by a path in its code.
    pub fn from(&self, file: &File) -> Vec<String> {
        let module = module_of(self.root, &file.path);
        let own: Vec<&str> = module.split('/').collect();
        let mut found: Vec<String> = ["crate::", "super::"]
            .iter()
            .flat_map(|start| uses(&file.text, start).into_iter().map(move |rest| format!("{start}{rest}")))
            .filter_map(|path| {
                let mut base: Vec<&str> = Vec::new();
                let mut rest: Vec<&str> = path.split("::").collect();
                if rest[0] == "super" {
                    base = own.clone();
                    while rest.first() == Some(&"super") {
                        base.pop();
                        rest.remove(0);
                    }
                } else {
                    rest.remove(0);
                }
                base.extend(rest);
                self.resolve(&base)
            })
            .collect();
        found.sort();
        found.dedup();
        // A parent that names its children is how the house is built, not an import.
        found.retain(|other| *other != module && !other.starts_with(&format!("{module}/")));
        found
    }

    fn resolve(&self, path: &[&str]) -> Option<String> {
        let name = (1..=path.len()).rev().map(|n| path[..n].join("/")).find(|name| self.modules.contains(name))?;
        let next = path.get(name.split('/').count()).copied().unwrap_or_default();
        Some(self.reexports.get(&(name.clone(), next.to_owned())).cloned().unwrap_or(name))
    }
}

/// What follows each `start` in code, one path for each leaf of a `{…}`.
fn uses(code: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if start != "pub use " && before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        leaves("", &code[at + start.len()..], &mut found);
    }
    found
}

/// The leaves of a tree of paths; what is left of the text after it.
fn leaves<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    let Some(mut rest) = text[end..].strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::")) else {
        if !path.is_empty() {
            found.push(path.trim_end_matches(':').to_owned());
        }
        return &text[end..];
    };
    loop {
        rest = leaves(&path, rest.trim_start(), found).trim_start();
        if let Some(renamed) = rest.strip_prefix("as ") {
            rest = renamed.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').trim_start();
        }
        match rest.strip_prefix(',') {
            Some(more) if !more.trim_start().starts_with('}') => rest = more,
            _ => return rest.trim_start_matches([',', ' ', '\n']).strip_prefix('}').unwrap_or(rest),
        }
    }
}

#[test]
fn trees_of_paths_have_all_their_leaves() {
    let code = "use crate::a::{b, c::{d, e as f}, g::H,};\nlet x = crate::i::j(super::super::k::L);";
    assert_eq!(uses(code, "crate::"), ["a::b", "a::c::d", "a::c::e", "a::g::H", "i::j"]);
    assert_eq!(uses(code, "super::"), ["super::k::L"]);
    assert_eq!(uses("use crate::{a::B as C, d};", "crate::"), ["a::B", "d"]);
    assert_eq!(uses("pub use b::{C, D};", "pub use "), ["b::C", "b::D"]);
}
