//! Generates `docs/configuration.md` from the table of keys.

use super::changes::ChangeActivation;
use super::keys::{ConfigKey, KEYS, KeyDefault, LISTS, ValueForm, sections};
use super::values::ceiling;
use mayfly_base::document::quantity::{duration_text, size_text};

/// The whole reference, Markdown.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    for section in sections() {
        match LISTS.iter().find(|(name, _)| *name == section) {
            Some((_, about)) => out.push_str(&format!("\n## [[{section}]]\n\n{about}\n\n")),
            None => out.push_str(&format!("\n## [{section}]\n\n")),
        }
        out.push_str("| key | value | default | variable | in effect after |\n|---|---|---|---|---|\n");
        for key in KEYS.iter().filter(|k| k.parts().0 == section) {
            out.push_str(&row(key));
        }
        for key in KEYS.iter().filter(|k| k.parts().0 == section) {
            out.push_str(&format!("\n- `{}`: {}", key.parts().1, key.about));
        }
        out.push('\n');
    }
    out
}

fn row(key: &ConfigKey) -> String {
    let default = match key.default {
        KeyDefault::Required => "required".to_owned(),
        KeyDefault::Absent(what) => what.to_owned(),
        KeyDefault::Is(text) => format!("`{text}`"),
        KeyDefault::Ceiling => format!("`{}`", ceiling(key.form)),
    };
    let variable = if key.variable().is_empty() { "none".to_owned() } else { format!("`{}`", key.variable()) };
    let takes = match key.takes() {
        ChangeActivation::Reload => "reload",
        ChangeActivation::Restart => "restart",
    };
    format!("| `{}` | {} | {default} | {variable} | {takes} |\n", key.parts().1, form(key.form))
}

fn form(form: ValueForm) -> String {
    match form {
        ValueForm::Name => "name".to_owned(),
        ValueForm::Names => "list of names".to_owned(),
        ValueForm::TrustDomain => "trust domain".to_owned(),
        ValueForm::HttpsUrl => "https URL, no slash at the end".to_owned(),
        ValueForm::Path => "path".to_owned(),
        ValueForm::Paths => "list of paths".to_owned(),
        ValueForm::WebhookUrl => "https URL, or http on this host".to_owned(),
        ValueForm::Address => "IP address and port".to_owned(),
        ValueForm::Number(min, max) => format!("{min} to {max}"),
        ValueForm::Ratio => "0 to 1".to_owned(),
        ValueForm::Numbers => "list of numbers".to_owned(),
        ValueForm::Duration(min, max) => format!("duration, {} to {}", duration_text(min), duration_text(max)),
        ValueForm::Size(min, max) => format!("size, {} to {}", size_text(min), size_text(max)),
        ValueForm::Keep => "duration or size".to_owned(),
        ValueForm::Flag => "`true` or `false`".to_owned(),
        ValueForm::Text(what) => what.to_owned(),
        ValueForm::Engine => "`redb`, `sled` or `memory`".to_owned(),
    }
}

const HEAD: &str = "# Configuration

The configuration is one TOML file, `mayfly.toml`. An environment variable overrides its key; items of a list are separated by commas.
`mayfly server validate` checks the file, the files that it names, and everything that a start opens and binds, without starting.

A running server reads the file again on SIGHUP (`systemctl reload mayfly`). The column \"in effect after\" says for each key whether a change
takes effect with that reload or with the next start. If the file has an error, nothing changes. The log names the keys whose new values are
in effect and the keys that need a restart ([operations](operations.md#changing-the-configuration)). A reload also reads certificates, keys,
bundles, and the files that sections name.

An unknown key is an error, and so is a variable that begins like a section (`MAYFLY_STORE_…`) and names no key. Relative paths begin at the
directory of the file. Durations are written like `500ms`, `30s`, `5m`, `1h30m` or `7d`, sizes like `64KiB`, `64MiB` or `1GiB`, both in
quotes. No limit can be set above the maximum in the column \"value\"; `src/base/limits.rs` and the files under `src/base/limits` have the
source of each number.

A refusal with `LIMIT_REACHED` names the limit. Some limits are fixed and have no key. `history_questions`: at most 2 queries that read
history (`explain`, `audit search`, `policy diff` and the like) run at once; a third query waits for half a second and is then refused. A
query ends, and frees its place, when its caller disconnects. `readers`: at most 16 calls of `audit tail` and `audit export` run at once.

This page is generated from the table of keys in `src/config/config/keys.rs`; a test compares the two.
";
