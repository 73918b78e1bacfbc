//! Text that came from callers, on its way to somebody's screen.

/// Whether a character does something to the screen, or hides, rather than standing there (Unicode TR 36, section 2.6.3; CVE-2021-42574).
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

/// The text without any of them.
pub fn stripped(text: &str) -> String {
    text.chars().filter(|c| !is_unsafe(*c)).collect()
}
