//! What the pages under `docs/` promise: the tests and files that they name are there.

use std::fmt::Write as _;

use clap::CommandFactory;

use super::none;
use super::source::{File, files};

fn pages(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|f| f.path.ends_with(".md"))
}

/// The texts in backquotes of a page, outside its blocks of code, with their lines.
fn quoted(page: &str) -> Vec<(usize, String)> {
    let (mut found, mut in_block) = (Vec::new(), false);
    for (n, line) in page.lines().enumerate() {
        in_block ^= line.trim_start().starts_with("```");
        if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(|text| (n + 1, text.to_owned())));
        }
    }
    found
}

/// Whether a file has a test of that name.
fn has_test(file: &File, name: &str) -> bool {
    let marks = if file.path.ends_with(".rs") {
        vec![format!("fn {name}(")]
    } else {
        vec![format!("def {name}("), format!("'{name}'"), format!("\"{name}\"")]
    };
    marks.iter().any(|mark| file.text.contains(mark.as_str()))
}

/// A test is named `file::its_name`.
#[test]
fn every_test_that_a_page_names_exists() {
    let files = files();
    let (mut missing, mut named) = (Vec::new(), 0);
    for page in pages(&files) {
        for (line, text) in quoted(&page.text) {
            let Some((path, name)) = text.split_once("::").filter(|(path, _)| path.contains('/') && path.contains('.')) else {
                continue;
            };
            named += 1;
            let found = files.iter().find(|f| f.path == path);
            if !found.is_some_and(|f| has_test(f, name)) {
                missing.push(format!("{}:{line}: {text}", page.path));
            }
        }
    }
    assert!(named > 40, "the pages name {named} tests");
    none(missing, "name the test that holds it, as `tests/file.rs::name`");
}

#[test]
fn every_invariant_names_a_test() {
    let files = files();
    let page = &files.iter().find(|f| f.path == "docs/invariants.md").unwrap().text;
    let parts: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert_eq!(parts.len(), 11, "eleven invariants");
    let bare = parts.iter().filter(|part| !quoted(part).iter().any(|(_, t)| t.contains(".rs::")));
    none(bare.map(|p| p.lines().next().unwrap_or_default().to_owned()).collect(), "an invariant without a test is a wish");
}

/// The path that a link in a page of a folder leads to.
fn from(folder: &str, link: &str) -> String {
    let mut path: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(link.split('/')).filter(|part| !part.is_empty()) {
        match part {
            ".." => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.join("/")
}

#[test]
fn every_file_that_a_page_names_exists() {
    let files = files();
    let mut missing = Vec::new();
    for page in pages(&files).filter(|p| p.path != "CHANGELOG.md") {
        let folder = page.path.rsplit_once('/').map_or(String::new(), |(d, _)| format!("{d}/"));
        let there = |path: &str| {
            let path = path.trim_end_matches('/');
            files.iter().any(|f| f.path == path || f.path.starts_with(&format!("{path}/")))
        };
        let starts = ["src/", "tests/", "docs/", "proto/", "benches/", "fuzz/", "examples/", ".ci/"];
        let source = |t: &str| t.contains('/') && t.ends_with(".rs") && !t.contains("://");
        for (line, text) in quoted(&page.text).into_iter().filter(|(_, t)| source(t) || starts.iter().any(|s| t.starts_with(s))) {
            let path = text.split("::").next().unwrap_or_default();
            if !path.contains([' ', '*', '{', '<', '…']) && !there(path) {
                missing.push(format!("{}:{line}: {text}", page.path));
            }
        }
        for (at, _) in page.text.match_indices("](") {
            let link = page.text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !there(&from(&folder, link)) {
                missing.push(format!("{}: link to {link}", page.path));
            }
        }
    }
    none(missing, "the page names what is not there");
}

#[test]
fn the_configuration_page_and_the_others_are_linked_from_the_readme() {
    let files = files();
    let readme = &files.iter().find(|f| f.path == "README.md").unwrap().text;
    let lost = pages(&files).filter(|p| p.path.starts_with("docs/") && !readme.contains(&format!("]({})", p.path)));
    none(lost.map(|p| p.path.clone()).collect(), "a page that nothing leads to is not read");
    assert!(readme.contains("cargo run -- try") && readme.contains("./test"), "the two commands");
}

/// The page of commands, from the commands themselves.
fn command_line() -> String {
    let mut page = "# The command line

mayfly is one binary. `mayfly help COMMAND` describes a command and its flags, `mayfly man --dir FOLDER` writes manual pages, and
`mayfly completions SHELL` prints shell completions. This page is generated from the help texts of the commands:
`MAYFLY_WRITE_DOCS=1 cargo test --test tidy the_page_of_the_command_line` writes it again.

- Commands write data to stdout and messages to stderr. `-o table|wide|json|yaml|name|csv` selects the format of the data; `--watch` prints
  a line of JSON for each change.
- The address of the server and the identity of the caller come from flags, `MAYFLY_…` variables or `~/.config/mayfly/config.toml`, in this
  order.
- Commands read a token from stdin and write it to a pipe or a file. No command accepts a token as an argument, and none shows a token on a
  terminal unless a flag asks for it.
- Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 not authenticated, 5 denied, 6 upstream failed, 7 partly done, 8 try again, 9 approval
  needed, 10 findings.

| command | description |
|---|---|
"
    .to_owned();
    add_commands(&mut page, &mayfly::cli::Cli::command(), "mayfly");
    page
}

fn add_commands(page: &mut String, command: &clap::Command, path: &str) {
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() && (sub.is_subcommand_required_set() || sub.is_arg_required_else_help_set()) {
            add_commands(page, sub, &path);
            continue;
        }
        let positional: String = sub
            .get_positionals()
            .map(|a| {
                let name = a
                    .get_value_names()
                    .and_then(|n| n.first())
                    .map_or_else(|| a.get_id().as_str().to_uppercase(), |n| n.to_string());
                if a.is_required_set() { format!(" {name}") } else { format!(" [{name}]") }
            })
            .collect();
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let _ = writeln!(page, "| `{path}{positional}` | {about} |");
        // What also does something by itself.
        add_commands(page, sub, &path);
    }
}

#[test]
fn the_page_of_the_command_line_is_the_command_line() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    if std::env::var_os("MAYFLY_WRITE_DOCS").is_some() {
        std::fs::write(path, command_line()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), command_line(), "MAYFLY_WRITE_DOCS=1 writes it anew");
}
