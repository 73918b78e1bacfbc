//! Every command line that a page shows is one that the program takes: in blocks of code and in prose, as the real parser reads it.

use clap::CommandFactory as _;
use clap::error::{ContextKind, ErrorKind};

use super::none;
use super::source::files;

/// Words of pages that stand for something, and what they stand for. Other words in capitals stand for names.
const WORDS: &[(&str, &str)] = &[
    ("TASK", "task_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("task_…", "task_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("CREDENTIAL", "cred_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("cred_…", "cred_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("ID", "cred_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("APPROVAL", "appr_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("LEASE", "lease_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("SEQ", "1"),
    ("N", "1"),
    ("PID", "1"),
    ("GB", "1"),
    ("DURATION", "5m"),
    ("TIME", "1h"),
    ("…", "x"),
];
/// Variables of the pages' shell, and what they hold. Others hold a name.
const VARIABLES: &[(&str, &str)] =
    &[("DOMAIN", "example.org"), ("WORKLOAD", "spiffe://example.org/a"), ("approval", "appr_aaaaaaaaaaaaaaaaaaaaaaaaaa")];

/// One command line, and where it stands.
struct Line {
    at: String,
    words: Vec<String>,
    /// Of prose, which may name a command or an option without all that it takes.
    prose: bool,
}

/// The commands of a piece of shell, each as its words; those within `$(…)` too, whose output is 1.
fn commands(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word): (Vec<Vec<String>>, Vec<String>, Option<String>) = (Vec::new(), Vec::new(), None);
    let (mut quote, mut redirected) = (None, false);
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    macro_rules! end_word {
        () => {
            if let Some(word) = word.take() {
                if !std::mem::replace(&mut redirected, false) {
                    words.push(word);
                }
            }
        };
    }
    while let Some(c) = chars.get(at).copied() {
        at += 1;
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => {
                if let Some(next) = chars.get(at).filter(|next| **next != '\n') {
                    word.get_or_insert_default().push(*next);
                }
                at += 1;
            }
            (_, '$') if chars.get(at) == Some(&'(') => {
                let (mut depth, from) = (1, at + 1);
                at = from;
                while depth > 0 && at < chars.len() {
                    depth += i32::from(chars[at] == '(') - i32::from(chars[at] == ')');
                    at += 1;
                }
                let inner: String = chars.get(from..at.saturating_sub(1)).unwrap_or_default().iter().collect();
                all.extend(commands(&inner));
                word.get_or_insert_default().push('1');
            }
            (_, '$') if chars.get(at).is_some_and(|next| next.is_ascii_alphabetic() || *next == '{') => {
                let name: String = chars[at..]
                    .iter()
                    .skip_while(|c| **c == '{')
                    .take_while(|c| c.is_ascii_alphanumeric() || **c == '_')
                    .collect();
                at += chars[at..]
                    .iter()
                    .take_while(|c| **c == '{' || **c == '}' || c.is_ascii_alphanumeric() || **c == '_')
                    .count();
                let known = VARIABLES.iter().find(|(known, _)| *known == name).map_or("x", |(_, value)| value);
                word.get_or_insert_default().push_str(known);
            }
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '#') if word.is_none() => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            (None, '<' | '>') => {
                // A number before it is a descriptor.
                word = word.filter(|word| !word.chars().all(|c| c.is_ascii_digit()));
                end_word!();
                redirected = true;
            }
            (None, '\n' | ';' | '|' | '&' | '(' | ')') => {
                end_word!();
                redirected = false;
                all.push(std::mem::take(&mut words));
            }
            (None, c) if c.is_whitespace() => end_word!(),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    end_word!();
    all.push(words);
    all
}

/// The words of a call of the program, from its name on; `None` for another command.
fn of_ours(words: Vec<String>) -> Option<Vec<String>> {
    let own = |word: &String| word == "mayfly" || word.ends_with("/mayfly");
    let begin = words.iter().position(own)?;
    let before = &words[..begin];
    let lets = ["sudo", "exec", "run:", "-", "!", "if", "do", "then", "ExecStart=", "--"];
    let leads = before.iter().all(|word| lets.contains(&word.as_str()) || word.contains('='));
    // `systemd-run … mayfly …`, and the like.
    let runs = before.first().is_some_and(|word| word == "systemd-run");
    (leads || runs).then(|| words[begin..].to_vec())
}

/// `key list|rotate` is both.
fn alternatives(words: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for word in words {
        let each: Vec<&str> = word.split('|').collect();
        all = all.iter().flat_map(|line| each.iter().map(|one| [&line[..], &[(*one).to_owned()]].concat())).collect();
    }
    all
}

/// What a page's word stands for.
fn stands_for(word: &str) -> String {
    if let Some((_, value)) = WORDS.iter().find(|(known, _)| *known == word) {
        return (*value).to_owned();
    }
    let name = |part: &str| {
        part.chars().any(|c| c.is_ascii_uppercase()) && part.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c == '-')
    };
    let part = |part: &str| if name(part) { part.to_ascii_lowercase() } else { part.replace('…', "x") };
    word.split('=').map(part).collect::<Vec<_>>().join("=")
}

/// The command lines of a page.
fn lines(path: &str, text: &str) -> Vec<Line> {
    let mut all = Vec::new();
    let (mut prose, mut block, mut begin, mut shell) = (String::new(), String::new(), 0, None);
    for (n, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), shell) {
            (Some(language), None) => (shell, begin) = (Some(["", "sh", "console"].contains(&language)), n + 1),
            (Some(_), Some(is_shell)) => {
                if is_shell {
                    let ours = commands(&block).into_iter().filter_map(of_ours);
                    all.extend(ours.map(|words| Line { at: format!("{path}:{begin}"), words, prose: false }));
                }
                (shell, block) = (None, String::new());
            }
            (None, Some(_)) => block.extend([line, "\n"]),
            (None, None) => prose.extend([line, "\n"]),
        }
    }
    for quoted in prose.split('`').skip(1).step_by(2).filter(|text| text.starts_with("mayfly ") && !text.contains("(")) {
        let text = quoted.split_whitespace().filter(|word| !word.starts_with('[')).collect::<Vec<_>>().join(" ");
        // A bar without spaces is a choice, and no pipe.
        let text = text.replace(" | ", "\n").replace('|', "\u{1}");
        for words in commands(&text).into_iter().filter_map(of_ours) {
            let words: Vec<String> = words.iter().map(|word| word.replace('\u{1}', "|")).collect();
            all.extend(alternatives(&words).into_iter().map(|words| Line { at: path.to_owned(), words, prose: true }));
        }
    }
    all
}

/// The command lines of a unit, a manifest, a job or rules for alerts: a line each, or in backquotes.
fn lines_of_config(path: &str, text: &str) -> Vec<Line> {
    let mut all = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches("- ").trim_start_matches("run: ");
        let line = line.strip_prefix("ExecStart=").or(line.strip_prefix("ExecStartPre=")).unwrap_or(line);
        let at = format!("{path}:{}", n + 1);
        let of = |text: &str, prose| {
            let ours = commands(text).into_iter().filter_map(of_ours).filter(|words| words.len() > 1);
            ours.map(|words| Line { at: at.clone(), words, prose }).collect::<Vec<_>>()
        };
        if line.starts_with("mayfly ") || line.starts_with("/usr/local/bin/mayfly ") {
            // A job has its task from the environment.
            all.extend(of(line, path.starts_with("deploy/ci/")));
        }
        all.extend(line.split('`').skip(1).step_by(2).flat_map(|quoted| of(quoted, true)));
    }
    all
}

/// Why the program does not take it, if so.
fn wrong(line: &Line) -> Option<String> {
    let words: Vec<String> = line.words.iter().map(|word| stands_for(word)).collect();
    let error = mayfly::cli::Cli::command().try_get_matches_from(&words).err()?;
    let lacks = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return None,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues => true,
        // An option that is named without its value.
        ErrorKind::InvalidValue => error.get(ContextKind::InvalidValue).is_none_or(|value| value.to_string().is_empty()),
        _ => false,
    };
    (!(lacks && line.prose)).then(|| {
        let said = error.to_string();
        format!(
            "{}: {}\n    as: {}\n    {}",
            line.at,
            line.words.join(" "),
            words.join(" "),
            said.lines().next().unwrap_or_default()
        )
    })
}

#[test]
fn every_command_line_of_a_page_is_one_that_the_program_takes() {
    let (mut bad, mut prose, mut blocks) = (Vec::new(), 0, 0);
    for file in files() {
        let found = match file.path.rsplit_once('.').map(|(_, end)| end) {
            // The reference is made from the parser itself.
            Some("md") if file.path != "docs/cli.md" => lines(&file.path, &file.text),
            Some("yml" | "yaml" | "service" | "toml") if file.path.starts_with("deploy/") => {
                lines_of_config(&file.path, &file.text)
            }
            _ => continue,
        };
        for line in found {
            *(if line.prose { &mut prose } else { &mut blocks }) += 1;
            bad.extend(wrong(&line));
        }
    }
    assert!(prose > 150 && blocks > 100, "{prose} command lines in prose, {blocks} in blocks");
    none(bad, "change the page to what the program takes: `mayfly COMMAND --help`");
}

/// The paths of the commands that take nothing without `--reason`, like `mayfly approval give`.
fn need_a_reason(command: &clap::Command, path: &str, found: &mut Vec<String>) {
    for sub in command.get_subcommands() {
        let path = format!("{path} {}", sub.get_name());
        let reason = sub.get_arguments().find(|arg| arg.get_long() == Some("reason"));
        if reason.is_some_and(|arg| arg.get_default_values().is_empty() && arg.get_action().takes_values()) {
            found.push(path.clone());
        }
        need_a_reason(sub, &path, found);
    }
}

/// A hint is typed as it stands.
#[test]
fn a_hint_with_a_command_that_needs_a_reason_has_it() {
    let mut needy = Vec::new();
    need_a_reason(&mayfly::cli::Cli::command(), "mayfly", &mut needy);
    assert!(needy.len() > 15 && needy.contains(&"mayfly approval give".to_owned()), "{needy:?}");
    let (mut bad, mut seen) = (Vec::new(), 0);
    for file in files().iter().filter(|f| f.path.starts_with("src/") && f.path.ends_with(".rs")) {
        let mut text = String::new();
        for line in file.text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            // A text may go on in the next line.
            match text.strip_suffix('\\').map(str::len) {
                Some(before) => {
                    text.truncate(before);
                    text.push_str(line.trim_start());
                }
                None => text.extend(["\n", line]),
            }
        }
        for command in &needy {
            for (at, _) in text.match_indices(command.as_str()) {
                let rest = text[at + command.len()..].split(['"', '`', ';', '\n']).next().unwrap_or_default();
                // Without arguments it is the name of the command.
                let typed = rest.strip_prefix(' ').is_some_and(|rest| {
                    rest.starts_with(['{', '…', '-', '<']) || rest.starts_with(|c: char| c.is_ascii_uppercase())
                });
                seen += usize::from(typed);
                if typed && !["--reason", "--help", "--dry-run"].iter().any(|flag| rest.contains(flag)) {
                    bad.push(format!("{}: {command}{rest}", file.path));
                }
            }
        }
    }
    assert!(seen > 10, "{seen} hints");
    none(bad, "add --reason TEXT");
}

#[test]
fn shell_is_read_as_a_shell_reads_it() {
    let ours = |text: &str| commands(text).into_iter().filter_map(of_ours).collect::<Vec<_>>();
    let line = "x=1 mayfly lock lift \"$(mayfly lock list -o name | cut -d: -f1)\" --reason 'a b' 2>/dev/null < f # and so on";
    assert_eq!(
        ours(line),
        [vec!["mayfly", "lock", "list", "-o", "name"], vec!["mayfly", "lock", "lift", "1", "--reason", "a b"]]
    );
    assert_eq!(ours("(umask 077 && mayfly status) || mayfly \\\n  doctor").len(), 2);
    assert!(ours("systemctl stop mayfly\nmv mayfly x").is_empty());
    assert_eq!(alternatives(&["key".to_owned(), "list|rotate".to_owned()]).len(), 2);
    let bad = |words: &str, prose| {
        wrong(&Line { at: String::new(), words: words.split(' ').map(str::to_owned).collect(), prose }).is_some()
    };
    assert!(bad("mayfly audit search --since", false) && !bad("mayfly audit search --since", true));
    assert!(bad("mayfly audit search --sinc 1h", true) && bad("mayfly audit serch", true) && bad("mayfly audit show x", true));
}
