//! The rules of the house, as tests. Each says what to do about what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

#[path = "tidy/commands.rs"]
mod commands;
#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/logs.rs"]
mod logs;
#[path = "tidy/profile.rs"]
mod profile;
#[path = "tidy/scripts.rs"]
mod scripts;
#[path = "tidy/source.rs"]
mod source;

use source::{File, files, rust, shipped};

/// A file longer than this is printed: it may hold two ideas.
const LONG: usize = 500;
/// A file may have this many lines where it holds one idea; those below may have more.
const TOO_LONG: usize = 700;
/// No function is longer than this.
const LONG_FUNCTION: usize = 100;

/// Files that are longer than [`TOO_LONG`] all the same, and why. A file that no longer is must leave the list.
const LONG_FILES: &[(&str, &str)] = &[];

/// Limits that nothing uses yet: each belongs to a part of the contract that this version answers with `NOT_SERVED`, or has a reason.
const UNUSED_LIMITS: &[(&str, &str)] = &[("AUTHORIZATION_DETAILS_BYTES", "rich authorization requests"), ("USES", "use reports")];

/// Settings of the configuration that nothing reads yet, and why.
const UNUSED_SETTINGS: &[(&str, &str)] = &[];

/// Everything that a rule found, each as a line.
fn none(found: Vec<String>, what_to_do: &str) {
    assert!(found.is_empty(), "{}\n\n{what_to_do}", found.join("\n"));
}

/// Each line of these files for which `wrong` says so.
fn lines(files: &[File], wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let numbered = |f: &File| -> Vec<String> {
        let bad = f.text.lines().enumerate().filter(|(_, line)| wrong(line));
        bad.map(|(n, line)| format!("{}:{}: {}", f.path, n + 1, line.trim())).collect()
    };
    files.iter().flat_map(numbered).collect()
}

/// The words of a name: `RawKeyStore` and `raw_key_store` have the same three.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && words.last().is_some_and(|w| !w.ends_with(char::is_uppercase))) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words
}

/// The names that a line of code declares.
fn declared(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.find(|w| ["fn", "struct", "enum", "trait", "mod", "type", "const", "static"].contains(w))?;
    words.next()?.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
}

#[test]
fn imports_point_down() {
    let code = shipped(&files());
    let mut wrong = Vec::new();
    for (root, layers) in imports::CRATES.iter().filter(|(_, layers)| !layers.is_empty()) {
        let own: Vec<&File> = code.iter().filter(|f| f.path.starts_with(root)).collect();
        let imports = imports::Imports::of(root, &own);
        for file in own.iter().filter(|f| !f.path.ends_with("src/lib.rs")) {
            let module = imports::module_of(root, &file.path);
            let Some(from) = imports::layer(layers, &module) else {
                wrong.push(format!("{root}{module} stands in no layer"));
                continue;
            };
            let up = |other: &String| imports::layer(layers, other).is_none_or(|to| to > from);
            wrong.extend(imports.from(file).into_iter().filter(up).map(|other| format!("{root}{module} imports {other}")));
        }
    }
    none(wrong, "imports point down (tests/tidy/imports.rs): move what is shared below both, or pass it in");
}

#[test]
fn files_are_short() {
    let files = files();
    let length = |f: &File| f.text.lines().count();
    let excused = |f: &File| LONG_FILES.iter().any(|(path, _)| *path == f.path);
    let mut long: Vec<_> = rust(&files, "").filter(|f| length(f) > LONG).collect();
    long.sort_by_key(|f| std::cmp::Reverse(length(f)));
    for file in &long {
        println!("{} lines, more than {LONG}: {}", length(file), file.path);
    }
    let too_long = long.iter().filter(|f| length(f) > TOO_LONG && !excused(f));
    none(too_long.map(|f| format!("{}: {} lines", f.path, length(f))).collect(), "a file that long holds two ideas: split it");
    let idle = LONG_FILES.iter().filter(|(path, _)| !long.iter().any(|f| f.path == *path && length(f) > TOO_LONG));
    none(idle.map(|(path, _)| (*path).to_owned()).collect(), "these are short enough or gone: take them off LONG_FILES");
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for file in shipped(&files()) {
        for (at, _) in file.text.match_indices("fn ") {
            let line = file.text[..at].matches('\n').count();
            let declares = file.text.lines().nth(line).and_then(declared);
            let Some(open) = file.text[at..].find(['{', ';']).map(|n| at + n) else { continue };
            let (Some(name), true) = (declares, file.text[open..].starts_with('{')) else { continue };
            let length = file.text[at..source::closing(&file.text, open)].matches('\n').count() + 1;
            if length > LONG_FUNCTION {
                long.push(format!("{}:{}: {name} has {length} lines", file.path, line + 1));
            }
        }
    }
    none(long, "a function that long does two things: split it");
}

#[test]
fn shipped_code_does_not_panic_on_purpose() {
    let calls = [".unwrap()", ".expect(", ".unwrap_err(", "panic!", "todo!", "unimplemented!", "unreachable!", "dbg!"];
    let found = lines(&shipped(&files()), |line| calls.iter().any(|c| line.contains(c)));
    none(found, "answer with a Refusal or a Fault, or choose a value: no panic may be reached from the network");
}

/// Where files are read without `bounded_file`, and why their size is bounded all the same.
const READS_FILES: &[&str] = &[
    // Bounded readers themselves.
    "src/base/bounded_file.rs",
    "src/store/sealing/key_file.rs",
    "src/cli/args.rs",
    "src/cli/ci/token.rs",
    "clients/rust/src/svid.rs",
    // The server's own files, in its data directory.
    "src/ledger/recovery/snapshot.rs",
    "src/ledger/tree/stored.rs",
    "src/ledger/reader/index/segment.rs",
    "src/store/files.rs",
    "src/authority/backup.rs",
    // A directory.
    "src/server/restore.rs",
    // Files that the same command has written.
    "src/bench/",
    // A file of the kernel.
    "src/server/export/syslog.rs",
];

#[test]
fn files_are_read_up_to_a_bound() {
    let calls = ["fs::read(", "read_to_string(", "read_to_end(", "from_reader("];
    let code: Vec<File> = shipped(&files()).into_iter().filter(|f| !READS_FILES.iter().any(|p| f.path.starts_with(p))).collect();
    // What is opened to be synced is not read, and a `HeadFile` is a type of the store.
    let opens = |line: &str| {
        line.replace("HeadFile::open(", "").replace("BackupFile::open(", "").contains("File::open(") && !line.contains("sync_all")
    };
    let found = lines(&code, |line| opens(line) || calls.iter().any(|c| line.contains(c)));
    none(
        found,
        "open and read it by `bounded_file`: a file without an end takes all memory, and a pipe without a writer all time",
    );
}

#[test]
fn time_and_randomness_come_from_system_rs() {
    let calls = [
        "SystemTime::now",
        "Instant::now",
        "now_utc",
        "now_local",
        "Utc::now",
        "SystemRandom",
        "rand::fill",
        "thread_rng",
        "OsRng",
    ];
    let clocks = ["src/base/system.rs", "clients/rust/verify/src/clock.rs", "clients/rust/src/random.rs"];
    // A load generator measures: its time is the thing itself.
    let code: Vec<File> =
        shipped(&files()).into_iter().filter(|f| !clocks.contains(&&*f.path) && !f.path.starts_with("src/bench/")).collect();
    none(lines(&code, |line| calls.iter().any(|c| line.contains(c))), "take a `Millis` or a `System` as an argument");
}

#[test]
fn the_pure_parts_know_no_files_sockets_or_tasks() {
    let pure = [
        "clients/rust/verify/src/",
        "src/identity/",
        "src/policy/",
        "src/ledger/revocation/",
        "src/credential/",
        "src/ledger/upstream/",
        "src/base/document/",
    ];
    let pure = |f: &File| {
        // Parts that connect to upstreams.
        let waits = [
            "src/credential/lease/",
            "src/credential/access/",
            "src/credential/database/",
            "src/credential/postgres/",
            "src/credential/mysql/",
            "src/credential/redis/",
            "src/credential/github/",
            "src/credential/oauth/",
            "src/credential/federation/",
            "src/credential/aws/",
            "src/credential/secret/source/",
        ];
        (pure.iter().any(|p| f.path.starts_with(p)) && !waits.iter().any(|p| f.path.starts_with(p)))
            || f.path.starts_with("src/ledger/state/")
            || f.path.starts_with("src/ledger/record/")
    };
    let code: Vec<File> = shipped(&files()).into_iter().filter(pure).collect();
    let found = lines(&code, |line| {
        ["tokio::", "std::fs", "std::net", "std::env", "std::thread::spawn"].iter().any(|c| line.contains(c))
    });
    none(found, "values in, values out: what reads, sends or waits belongs to config, api, server or the ledger's writer");
}

#[test]
fn there_is_no_unsafe_code() {
    let files = files();
    let code: Vec<File> = rust(&files, "").map(|f| File { path: f.path.clone(), text: source::blanked(&f.text) }).collect();
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"];
    none(lines(&code, |line| forms.iter().any(|f| line.contains(f))), "there is a safe way");
    for (root, _) in imports::CRATES {
        let lib = files.iter().find(|f| f.path == format!("{root}lib.rs")).unwrap();
        assert!(lib.text.contains("#![forbid(unsafe_code)]"), "{root}");
    }
}

#[test]
fn names_are_those_of_the_house() {
    let wrong = [
        "manager",
        "util",
        "utils",
        "helper",
        "helpers",
        "common",
        "blocklist",
        "blacklist",
        "whitelist",
        "backend",
        "job",
        "jobs",
    ];
    let files = files();
    let code: Vec<File> = rust(&files, "").map(|f| File { path: f.path.clone(), text: source::blanked(&f.text) }).collect();
    // Methods of services are named by the contract (`GetTask`), `get_mut` by the standard library, what redb stands on by redb.
    let given = |line: &str| ["async fn get_", "fn get_mut(", "fn with_backend("].iter().any(|name| line.contains(name));
    let bad = |name: &str| name.starts_with("get_") || words(name).iter().any(|w| wrong.contains(&w.as_str()));
    none(
        lines(&code, |line| !given(line) && declared(line).is_some_and(bad)),
        "say what it is: upstream, task, caller; an accessor has no `get_`",
    );
    let paths =
        files.iter().flat_map(|f| f.path.split(['/', '.']).filter(|part| bad(part)).map(|_| f.path.clone()).collect::<Vec<_>>());
    none(paths.collect(), "a file or folder is named for what it holds");
}

/// Names that the published client shares with the server: its users read them as `mayfly_client::Error`.
const SHARED_NAMES: &[&str] = &["Cli", "Error", "Refusal", "Settings"];

#[test]
fn a_public_type_name_exists_once() {
    let files = files();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in shipped(&files) {
        for line in file.text.lines() {
            let public =
                ["pub struct ", "pub enum ", "pub trait ", "pub type "].iter().find_map(|kind| line.trim().strip_prefix(kind));
            let name = public.map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned());
            name.into_iter().for_each(|name| places.entry(name).or_default().push(file.path.clone()));
        }
    }
    // A macro declares a type whose name begins with `$`.
    let twice = places.iter().filter(|(name, at)| at.len() > 1 && !name.is_empty() && !SHARED_NAMES.contains(&name.as_str()));
    none(twice.map(|(name, at)| format!("{name}: {}", at.join(", "))).collect(), "give all but one of them a name of its own");
}

#[test]
fn only_the_code_that_verifies_tokens_makes_subjects() {
    let code: Vec<File> = shipped(&files()).into_iter().filter(|f| f.path != "src/authority/exchange/subjects.rs").collect();
    let made = lines(&code, |line| line.contains("VerifiedSubject::new(") || line.contains("VerifiedSubject {"));
    let declared =
        |line: &String| line.contains("pub struct") || line.contains("impl ") || line.contains("src/policy/subject.rs");
    none(made.into_iter().filter(|line| !declared(line)).collect(), "verify the token in `authority::exchange::subjects`");
}

/// The type itself stands in `begun.rs`, and a server takes its default.
#[test]
fn only_tests_choose_the_path_of_exchanges() {
    let code: Vec<File> = shipped(&files()).into_iter().filter(|f| f.path != "src/authority/exchange/begun.rs").collect();
    none(lines(&code, |line| line.contains("ExchangePath::Plain")), "a server takes `ExchangePath::default()`");
}

#[test]
fn seams_for_tests_are_not_in_the_program() {
    let files = files();
    let manifests =
        files.iter().filter(|f| f.path.starts_with("src/") && f.path.ends_with("Cargo.toml") || f.path == "Cargo.toml");
    let shipped = manifests.flat_map(|f| {
        let dependencies = f.text.split("\n[").filter(|section| section.starts_with("dependencies]"));
        let lines = dependencies.flat_map(|section| section.lines().filter(|line| line.contains("testing")));
        lines.map(|line| format!("{}: {line}", f.path)).collect::<Vec<_>>()
    });
    none(shipped.collect(), "the feature `testing` belongs to [dev-dependencies]");
}

#[test]
fn every_file_says_what_it_is() {
    let files = files();
    let silent = rust(&files, "").filter(|f| !f.text.trim_start_matches("#!/usr/bin/env").starts_with("//!"));
    none(silent.map(|f| f.path.clone()).collect(), "begin with a `//!` comment: what is here, and why it is apart");
}

#[test]
fn comments_name_their_subject() {
    let pronouns = ["It ", "Its ", "They ", "Their ", "That ", "These ", "Those ", "He ", "She "];
    let text = |line: &str| {
        let line = line.trim_start();
        let rest = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).or_else(|| line.strip_prefix("//"))?;
        Some(rest.strip_prefix(' ').unwrap_or(rest).to_owned())
    };
    let mut found = Vec::new();
    for file in rust(&files(), "") {
        let mut before = false;
        for (n, line) in file.text.lines().enumerate() {
            let comment = text(line);
            // A later line of a comment may begin a sentence of its own.
            let first = comment.as_deref().filter(|_| !before);
            if first.is_some_and(|comment| pronouns.iter().any(|p| comment.starts_with(p))) {
                found.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
            before = comment.is_some();
        }
    }
    none(found, "the subject of a comment's first sentence is a noun: the version, the grant, the request");
}

#[test]
fn nothing_is_left_for_later_or_switched_off() {
    // Put together here, so that this file does not find itself.
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", " XX".to_owned() + "X", "NOTE".to_owned() + ":"];
    let off = ["#[ign".to_owned() + "ore", "pytest.mark.".to_owned() + "skip", "test.".to_owned() + "skip("];
    let files: Vec<File> =
        files().into_iter().filter(|f| !f.path.ends_with("lock") && !f.path.ends_with("package-lock.json")).collect();
    none(lines(&files, |line| marks.iter().any(|m| line.contains(m))), "do it now, or say plainly what is not there");
    none(
        lines(&files, |line| off.iter().any(|m| line.contains(m))),
        "a test that cannot run here says so in its output and returns",
    );
}

#[test]
fn an_allowed_lint_has_a_reason() {
    let files = files();
    let mut bare = Vec::new();
    for file in rust(&files, "").filter(|f| !f.path.starts_with("tests/tidy")) {
        for (at, _) in file.text.match_indices("[allow(") {
            let end = file.text[at..].find(']').map_or(file.text.len(), |n| at + n);
            if !file.text[at..end].contains("reason = ") {
                bare.push(format!("{}:{}", file.path, file.text[..at].matches('\n').count() + 1));
            }
        }
    }
    none(bare, "#[allow(lint, reason = \"…\")]");
}

#[test]
fn no_machine_shows() {
    let paths = [
        "/wo".to_owned() + "rk/",
        "/ro".to_owned() + "ot/",
        "/ho".to_owned() + "me/",
        "/fa".to_owned() + "rm/",
        "bash_".to_owned() + "jobs",
    ];
    none(
        lines(&files(), |line| paths.iter().any(|p| line.contains(p))),
        "a path of one machine: make it relative, or say it in words",
    );
}

/// A file of limits of one of the crates.
fn bounds(file: &File) -> bool {
    imports::CRATES.iter().any(|(root, _)| file.path.starts_with(&format!("{root}limits")))
}

#[test]
fn every_limit_says_where_its_number_comes_from() {
    let files = files();
    let limits = files.iter().filter(|f| bounds(f));
    let (mut doc, mut bare, mut seen) = (String::new(), Vec::new(), 0);
    for line in limits.flat_map(|f| f.text.lines()) {
        if let Some(more) = line.strip_prefix("/// ") {
            doc = format!("{doc} {more}");
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            seen += 1;
            // What it is, and after that why it is this number: a second sentence, a colon, a place in parentheses, or another limit.
            let said = doc.trim().trim_end_matches('.');
            if ![". ", ": ", "(", "[`", "`"].iter().any(|mark| said.contains(mark)) {
                bare.push(format!("{}: {said}", rest.split(':').next().unwrap_or_default()));
            }
            doc.clear();
        }
    }
    assert!(seen > 100);
    none(bare, "say what it bounds, in which unit, and where the number comes from");
}

#[test]
fn every_limit_is_used() {
    let files = files();
    let code = shipped(&files);
    let limits = code.iter().filter(|f| bounds(f));
    let names = limits.flat_map(|f| f.text.lines()).filter(|l| l.starts_with("pub const ")).filter_map(declared);
    let used = |name: &str| {
        let tests = rust(&files, "tests/").filter(|f| !f.path.starts_with("tests/tidy"));
        code.iter()
            .chain(tests)
            .any(|f| f.text.match_indices(name).any(|(at, _)| !f.text[..at].ends_with("const ") && whole(&f.text, at, name)))
    };
    let unused: Vec<&str> = names.filter(|n| !used(n)).collect();
    let excused = |name: &str| UNUSED_LIMITS.iter().any(|(n, _)| *n == name);
    let found = unused.iter().filter(|n| !excused(n)).map(|n| (*n).to_owned()).collect();
    none(found, "a limit that bounds nothing promises what does not hold");
    let idle = UNUSED_LIMITS.iter().filter(|(n, _)| !unused.contains(n)).map(|(n, _)| (*n).to_owned());
    none(idle.collect(), "these are used now: take them off UNUSED_LIMITS");
}

#[test]
fn every_setting_has_an_effect() {
    let code = shipped(&files());
    let page = code.iter().find(|f| f.path == "src/config/config/mod.rs").unwrap();
    let (mut section, mut inside, mut unread) = (String::new(), false, Vec::new());
    for line in page.text.lines() {
        let rest = line.trim().strip_prefix("pub ").unwrap_or(line.trim());
        if let Some(name) = rest.strip_prefix("struct ") {
            section = name.split([' ', '<']).next().unwrap_or_default().to_owned();
            inside = true;
        }
        inside &= line != "}";
        let Some((name, _)) = rest.split_once(": ").filter(|_| inside && line.starts_with("    pub ")) else { continue };
        let read = |f: &&File| !f.path.starts_with("src/config/config/");
        // Names like `tasks` mean other things elsewhere: of `[limits]` the section has to stand before it.
        let path = if section == "Limits" { format!("limits.{name}") } else { format!(".{name}") };
        let reads = |f: &File| {
            f.text
                .match_indices(&path)
                .any(|(at, _)| whole(&f.text, at + usize::from(path.starts_with('.')), path.trim_start_matches('.')))
        };
        if !code.iter().filter(read).any(reads) {
            unread.push(name.to_owned());
        }
    }
    let excused = |name: &str| UNUSED_SETTINGS.iter().any(|(n, _)| *n == name);
    let idle = UNUSED_SETTINGS.iter().filter(|(n, _)| !unread.iter().any(|u| u == n)).map(|(n, _)| (*n).to_owned());
    none(idle.collect(), "these are used now: take them off UNUSED_SETTINGS");
    unread.retain(|n| !excused(n));
    none(unread, "a setting that changes nothing is worse than none: use it, or take it out");
}

/// Whether a name stands at `at` by itself and not inside a longer one.
fn whole(text: &str, at: usize, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !text[..at].ends_with(part) && !text[at + name.len()..].starts_with(part)
}

#[test]
fn the_dependencies_keep_out_what_was_kept_out() {
    // What is built; the lock file also names what no feature asks for.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--prefix", "none", "--edges", "normal,build,dev"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let built: BTreeSet<&str> = tree.lines().map(|l| l.trim_end_matches(" (*)").trim_end_matches(" (proc-macro)")).collect();
    let versions = |name: &str| built.iter().filter(|l| l.split_once(" v").is_some_and(|(n, _)| n == name)).count();
    for out in ["ring", "rsa", "openssl", "native-tls"] {
        assert_eq!(versions(out), 0, "{out}: aws-lc-rs does that (docs/decisions.md)");
    }
    for once in ["rustls", "h2", "hyper", "tonic", "prost", "rustls-webpki"] {
        assert_eq!(versions(once), 1, "one version of {once}");
    }
}

#[test]
fn code_without_comments_texts_and_tests_keeps_its_lines() {
    let code = "let a = \"// no\"; // yes\nlet b = r#\"x\" {\"#; let c = '\\''; let d = '{';\n/* {\n */ fn f<'a>() {}\n";
    let blank = source::blanked(code);
    assert_eq!(blank.lines().count(), code.lines().count());
    assert!(blank.contains("let a =") && blank.contains("let c =") && blank.contains("fn f<'a>() {}"));
    assert!(!blank.contains("yes") && !blank.contains("no\"") && !blank.contains("x\""));
    assert_eq!((blank.matches('{').count(), blank.matches('}').count()), (1, 1));
    assert_eq!(words("RawKey_store"), ["", "raw", "key", "store"]);
}
