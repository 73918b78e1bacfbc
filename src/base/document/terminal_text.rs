//! Text from callers that is shown on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character controls the terminal or is invisible instead of being displayed (Unicode TR 36, section 2.6.3; CVE-2021-42574).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'           // soft hyphen, Arabic letter mark, Mongolian vowel separator
            | '\u{200b}'..='\u{200f}'                     // zero width, LRM, RLM
            | '\u{2028}'..='\u{202e}'                     // line and paragraph separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}'                     // word joiner, isolates, deprecated format characters
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'       // variation selectors, byte order mark
            | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' // interlinear annotation; no characters, which YAML forbids
            | '\u{1d173}'..='\u{1d17a}'                   // musical format characters
            | '\u{e0000}'..='\u{e0fff}') // tags and more variation selectors: invisible text
}

/// The text without such characters.
pub fn stripped(text: &str) -> String {
    text.chars().filter(|c| !is_unsafe(*c)).collect()
}

/// A text of several lines in one line, for a log or a field of a table.
pub fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// At most `most` bytes of a text, cut between characters.
pub fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// A JSON text in which unsafe characters are written as `\uXXXX`: the value is the same, and nothing in it affects a terminal.
///
/// JSON's own syntax is ASCII, so an unsafe character is either inside a string or white space of the formatter.
pub fn json(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c != '\n' && is_unsafe(c);
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match acts(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}
