//! The table as `docs/invariants.md` shows it.

use std::path::PathBuf;

use mayfly::revocation::TargetKind;

use super::table::{Expected, Way};

const BEGIN: &str = "<!-- The table is written by tests/server/reach/page.rs. -->\n";
const END: &str = "<!-- The end of the table. -->\n";

fn table() -> String {
    let mut out = String::from(
        "\n| a credential rests on | a revocation by this name reaches it | and by this name does not |\n|---|---|---|\n",
    );
    for way in Way::ALL {
        let of = |expected: Expected| {
            let words: Vec<&str> =
                TargetKind::ALL.into_iter().filter(|sort| way.expected(*sort) == expected).map(TargetKind::word).collect();
            words.join(", ")
        };
        out += &format!("| {} | {} | {} |\n", way.words(), of(Expected::Reached), of(Expected::NotReached));
    }
    out + "\n"
}

#[test]
fn the_page_has_the_table() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/invariants.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the line that begins the table");
    let (_, after) = rest.split_once(END).expect("the line that ends the table");
    let current = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("MAYFLY_WRITE_SAMPLES").is_some() {
        std::fs::write(&file, &current).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap();
    assert!(stored == current, "docs/invariants.md is not current: MAYFLY_WRITE_SAMPLES=1 cargo test --test server reach");
}
