//! Shell scripts fail where a command in them fails, and nowhere else.

use super::none;
use super::source::files;

/// Commands that may leave a pipeline before they have read all.
fn leaves_early(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let quiet = |word: &str| word.starts_with('-') && !word.starts_with("--") && word.contains('q') || word == "--quiet";
    match words.next() {
        Some("head") => true,
        Some("grep") => words.take_while(|word| word.starts_with('-')).any(quiet),
        _ => false,
    }
}

/// Under `pipefail` a pipeline fails if the command that writes is told by a signal that nobody reads any more. Whether it is depends on the
/// time that both take.
#[test]
fn no_pipeline_ends_in_a_command_that_leaves_early() {
    let files = files();
    let (mut found, mut scripts) = (Vec::new(), 0);
    for file in files.iter().filter(|f| f.text.starts_with("#!") || f.path.ends_with(".sh")) {
        scripts += 1;
        for (n, line) in file.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
            if line.split('|').skip(1).any(leaves_early) {
                found.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
        }
    }
    assert!(scripts > 15, "the project has more scripts than {scripts}");
    none(found, "use `found` or `first_line` of tests/typed.sh, or grep -q PATTERN <<<\"$(COMMAND)\"");
}

#[test]
fn the_rule_finds_what_leaves_early() {
    for command in [" head -1", "grep -q '^a'", " grep -qxF -- x", "grep --quiet x", "grep -i -q x"] {
        assert!(leaves_early(command), "{command}");
    }
    for command in ["grep -c x", " found -q", "sed -n 1p", "grep -oE 'a-q'", "sort"] {
        assert!(!leaves_early(command), "{command}");
    }
}
