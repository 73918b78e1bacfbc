//! The project's files, and Rust code without its comments, texts and tests.

use std::path::{Path, PathBuf};

use super::imports;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", ".venv", "node_modules", "__pycache__", "corpus", "artifacts", "build", "dist"];

/// A file of the project.
pub struct File {
    /// The path from the project's root, with `/` between its parts.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the project, by path.
pub fn files() -> Vec<File> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 100, "the project has more files than {}", found.len());
    found
}

fn walk(dir: &Path, found: &mut Vec<File>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                walk(&path, found);
            }
        } else if name == ".git" {
            // Of a worktree: a file that says where its repository is.
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(File { path, text });
        }
    }
}

/// The Rust files below a folder.
pub fn rust<'a>(files: &'a [File], below: &'a str) -> impl Iterator<Item = &'a File> {
    files.iter().filter(move |f| f.path.starts_with(below) && f.path.ends_with(".rs"))
}

/// The code that ships: files of our crates that are compiled outside tests, each with comments, texts and test items blanked. Line numbers
/// stay as they are.
pub fn shipped(files: &[File]) -> Vec<File> {
    let mut tests = Vec::new();
    let mut code: Vec<File> = Vec::new();
    let ships = |f: &&File| imports::CRATES.iter().any(|(root, _)| f.path.starts_with(root));
    for file in rust(files, "").filter(ships) {
        let mut text = blanked(&file.text);
        let elsewhere = file.text.split("#[cfg(test)]\n#[path = \"").skip(1).filter_map(|rest| rest.split(".rs\"").next());
        tests.extend(elsewhere.map(|name| format!("{}/{name}", folder_of(&file.path))));
        tests.extend(blank_tests(&mut text).into_iter().map(|name| place_of(&file.path, &name)));
        code.push(File { path: file.path.clone(), text });
    }
    code.retain(|f| !tests.iter().any(|t| f.path == format!("{t}.rs") || f.path.starts_with(&format!("{t}/"))));
    code
}

fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Where a module that this file declares lies, without `.rs`.
fn place_of(file: &str, module: &str) -> String {
    let folder =
        if file.ends_with("/mod.rs") || file.ends_with("/lib.rs") { folder_of(file) } else { file.trim_end_matches(".rs") };
    format!("{folder}/{module}")
}

/// Blanks every item under `#[cfg(test)]` or the feature `testing`. Answers with the modules among them that lie in files of their own.
fn blank_tests(text: &mut String) -> Vec<String> {
    let mut outside = Vec::new();
    while let Some(at) = text.find("#[cfg(test)]").or_else(|| text.find("#[cfg(any(test,")) {
        let from = text[at..].find(']').map_or(text.len(), |n| at + n + 1);
        let body = text[from..].find(['{', ';']).map_or(text.len(), |n| from + n);
        let end = if text[body..].starts_with('{') {
            closing(text, body)
        } else {
            let item = &text[from..body];
            outside.extend(item.split_once("mod ").map(|(_, name)| name.trim().to_owned()));
            body + 1
        };
        let blank: String = text[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        text.replace_range(at..end, &blank);
    }
    outside
}

/// The place after the brace that closes the one at `open`.
pub fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0;
    for (n, c) in text[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return open + n + 1;
        }
    }
    text.len()
}

/// Rust code with comments, texts and character literals replaced by blanks.
pub fn blanked(code: &str) -> String {
    let chars: Vec<char> = code.chars().collect();
    let mut out = String::with_capacity(code.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` when none does.
fn literal(c: &[char], at: usize) -> usize {
    let is = |n: usize, want: char| c.get(n) == Some(&want);
    let until = |from: usize, stop: &dyn Fn(usize) -> Option<usize>| (from..c.len()).find_map(stop).unwrap_or(c.len());
    match c[at] {
        '/' if is(at + 1, '/') => until(at, &|n| (c[n] == '\n').then_some(n)),
        '/' if is(at + 1, '*') => until(at + 3, &|n| (c[n] == '/' && c[n - 1] == '*').then_some(n + 1)),
        '"' => {
            let mut n = at + 1;
            while n < c.len() && c[n] != '"' {
                n += if c[n] == '\\' { 2 } else { 1 };
            }
            (n + 1).min(c.len())
        }
        'r' if at == 0 || !(c[at - 1].is_alphanumeric() && c[at - 1] != 'b' || c[at - 1] == '_') => {
            let hashes = c[at + 1..].iter().take_while(|c| **c == '#').count();
            if !is(at + 1 + hashes, '"') {
                return at;
            }
            let closes = |n: usize| c[n] == '"' && c[n + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
            until(at + 2 + hashes, &|n| closes(n).then_some(n + 1 + hashes))
        }
        // A character, not a lifetime: it closes after one character or an escape.
        '\'' if is(at + 1, '\\') => until(at + 3, &|n| (c[n] == '\'').then_some(n + 1)),
        '\'' if is(at + 2, '\'') => at + 3,
        _ => at,
    }
}
