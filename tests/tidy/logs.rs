//! Log lines are fields with a fixed message, so that whoever collects them can count and find them.

use super::none;
use super::source::{File, files, rust};

/// Where log lines are for people at a terminal.
const FOR_PEOPLE: &[&str] = &["src/cli/", "src/bench/"];

/// The call of a macro that begins at a place, up to its closing parenthesis.
fn call(text: &str, at: usize) -> &str {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (n, c) in text[at..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth == 1 => return &text[at..at + n],
            ')' if !quoted => depth -= 1,
            _ => {}
        }
    }
    &text[at..]
}

/// Log lines whose message is put together.
fn put_together(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust(files, "src/").filter(|f| !FOR_PEOPLE.iter().any(|p| f.path.starts_with(p))) {
        for level in ["error", "warn", "info", "debug", "trace"] {
            let name = format!("tracing::{level}!(");
            for (at, _) in file.text.match_indices(&name) {
                let texts: Vec<&str> = call(&file.text, at).split('"').skip(1).step_by(2).collect();
                if texts.iter().any(|text| text.contains('{')) || texts.is_empty() {
                    found.push(format!("{}:{}", file.path, file.text[..at].matches('\n').count() + 1));
                }
            }
        }
    }
    found
}

#[test]
fn log_lines_are_fields_with_a_fixed_message() {
    none(put_together(&files()), "tracing::error!(%error, what, \"a message that is always the same\")");
}

#[test]
fn a_message_that_is_put_together_is_found() {
    let file = |text: &str| [File { path: "src/a.rs".into(), text: text.into() }];
    assert!(put_together(&file("tracing::error!(%error, number = f(\"(\"), \"it broke\");")).is_empty());
    for text in [
        "tracing::warn!(\"{error}\");",
        "tracing::info!(x, \"a {} b\", y);",
        "tracing::info!(x, \n\"a: {x}\");",
        "tracing::info!(x);",
    ] {
        assert_eq!(put_together(&file(text)), ["src/a.rs:1"], "{text}");
    }
}
