//! Escapes text from callers before it is printed to a terminal.
//!
//! A purpose, a reason or a tool's name can contain escape sequences that rewrite the screen, and bidi controls that change how it reads
//! (Unicode TR 36, section 2.6.3; CVE-2021-42574).

use std::borrow::Cow;

pub use mayfly_base::document::terminal_text::{is_unsafe, json};

/// Escapes every unsafe character, like `\n` or `\u{202e}`.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_unsafe(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Quotes a word for a POSIX shell: unchanged if no character has a special meaning, else in single quotes.
pub fn shell(word: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@,=+%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_written_out() {
        assert_eq!(for_terminal("deploy über prod 部署"), "deploy über prod 部署");
        assert_eq!(for_terminal("a\x1b[2Jb"), r"a\u{1b}[2Jb");
        assert_eq!(for_terminal("a\r\nb\tc"), r"a\r\nb\tc");
        assert_eq!(for_terminal("\u{9b}31m"), r"\u{9b}31m");
        assert_eq!(for_terminal("user\u{202e}nimda"), r"user\u{202e}nimda");
        assert_eq!(for_terminal("\u{2066}x\u{2069}\u{200b}\u{feff}\u{e0041}"), r"\u{2066}x\u{2069}\u{200b}\u{feff}\u{e0041}");
    }

    #[test]
    fn nothing_unsafe_is_left_in_any_form() {
        for c in (0..=0x10ffff).filter_map(char::from_u32).filter(|c| is_unsafe(*c)) {
            let text = format!("a{c}b");
            assert!(!for_terminal(&text).chars().any(is_unsafe), "{c:?}");
            let written = json(&serde_json::to_string(&text).unwrap()).into_owned();
            assert!(!written.chars().any(is_unsafe), "{c:?}");
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }

    #[test]
    fn a_shell_word_is_one_word() {
        assert_eq!(shell("spiffe://example.org/ci"), "spiffe://example.org/ci");
        assert_eq!(shell("a b"), "'a b'");
        assert_eq!(shell("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(shell(""), "''");
        assert_eq!(shell("$(x)"), "'$(x)'");
    }
}
