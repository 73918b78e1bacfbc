//! Reads TOML that people write. Every complaint names the file, the line, what is wrong and what would be right, and all complaints are
//! reported at once. Unknown keys are refused with the nearest known key. Pure: text in, values out.

mod field;
pub mod quantity;
pub mod remedy;
pub mod terminal_text;
pub mod url;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use toml::de::DeTable;
use toml::{Spanned, de::DeValue};

pub use field::{Field, Section, is_name};

/// A named text, as read from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// The file's name, for complaints.
    pub file: String,
    /// The file's content.
    pub text: String,
}

impl SourceFile {
    /// A text, with the name under which complaints mention it.
    pub fn new(file: impl Into<String>, text: impl Into<String>) -> SourceFile {
        SourceFile { file: file.into(), text: text.into() }
    }
}

/// An error in a file, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name.
    pub file: String,
    /// The line, from 1; 0 if the whole file is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 if the whole line is meant.
    pub column: usize,
    /// The problem.
    pub what: String,
    /// The valid form, or how to fix the error.
    pub remedy: String,
    /// The affected keys, each with its enclosing sections, like `ttl.max`. Empty if the text itself is not valid TOML.
    pub keys: Vec<String>,
}

impl Diagnostic {
    /// A complaint about the byte offset `at` of a source.
    pub fn at(source: &SourceFile, at: usize, what: impl Into<String>, remedy: impl Into<String>) -> Diagnostic {
        let (line, column) = line_and_column(&source.text, at);
        Diagnostic { file: source.file.clone(), line, column, what: what.into(), remedy: remedy.into(), keys: Vec::new() }
    }

    /// A complaint about a whole file.
    pub fn about(file: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Diagnostic {
        Diagnostic { file: file.into(), line: 0, column: 0, what: what.into(), remedy: remedy.into(), keys: Vec::new() }
    }

    /// The complaint, with these affected keys.
    fn of(self, keys: Vec<String>) -> Diagnostic {
        Diagnostic { keys, ..self }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}", self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Line and column, both from 1, of a byte offset.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// A text about a key, which names the key once: texts of other code may begin with the key already.
pub fn with_key(key: &str, what: &str) -> String {
    let named = what.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ', '.', '[']));
    if named { what.to_owned() } else { format!("{key}: {what}") }
}

/// A parsed TOML file, with the complaints so far.
pub struct Document<'s> {
    source: &'s SourceFile,
    root: Spanned<DeTable<'s>>,
    /// The byte offset of each line's end.
    line_ends: Vec<usize>,
    complaints: RefCell<Vec<Diagnostic>>,
    /// The missing keys, by the byte offset of their section; `None`: keys of the whole file.
    lacks: RefCell<BTreeMap<Option<usize>, Vec<String>>>,
}

impl<'s> Document<'s> {
    /// Parses a source, with one complaint per syntax error.
    pub fn parse(source: &'s SourceFile) -> Result<Document<'s>, Vec<Diagnostic>> {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            let line_ends = source.text.match_indices('\n').map(|(at, _)| at).collect();
            return Ok(Document { source, root, line_ends, complaints: RefCell::default(), lacks: RefCell::default() });
        }
        Err(errors
            .iter()
            .map(|e| Diagnostic::at(source, e.span().map_or(0, |s| s.start), e.message(), "this is not TOML (https://toml.io)"))
            .collect())
    }

    /// The whole file as a section.
    pub fn root(&self) -> Section<'_> {
        Section::new(self, String::new(), None, self.root.get_ref())
    }

    /// Reports the value of a key, or the key, at a byte offset.
    pub fn complain(&self, at: usize, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.complaints.borrow_mut().push(Diagnostic::at(self.source, at, what, remedy).of(vec![key.to_owned()]));
    }

    fn lack(&self, section: Option<usize>, path: String) {
        self.lacks.borrow_mut().entry(section).or_default().push(path);
    }

    /// The line, from 1, of a byte offset.
    fn line_of(&self, at: usize) -> usize {
        self.line_ends.partition_point(|end| *end < at) + 1
    }

    /// The value, unless there were complaints.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Diagnostic>> {
        let mut complaints = self.complaints.into_inner();
        for (section, keys) in self.lacks.into_inner() {
            let (what, remedy) = (format!("lacks {}", keys.join(", ")), "each of these is required");
            let complaint = match section {
                Some(at) => Diagnostic::at(self.source, at, what, remedy),
                None => Diagnostic::about(self.source.file.clone(), what, remedy),
            };
            complaints.push(complaint.of(keys));
        }
        complaints.sort_by_key(|c| (c.line, c.column));
        match value {
            Some(value) if complaints.is_empty() => Ok(value),
            _ if complaints.is_empty() => Err(vec![Diagnostic::about(self.source.file.clone(), "cannot be read", "")]),
            _ => Err(complaints),
        }
    }
}

/// SHA-256, by which records identify texts.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// The known name nearest to a mistyped one, if any is near.
pub fn nearest<'k>(asked: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // The distance takes the product of both lengths, and no name is longer.
    if asked.len() > crate::limits::NAME_BYTES {
        return None;
    }
    let near = |k: &&str| distance(asked, k);
    known.into_iter().min_by_key(near).filter(|k| distance(asked, k) <= 1 + asked.chars().count() / 3)
}

/// Number of edits (insert, delete, replace) from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (above, (diagonal, cb)) in row.iter().skip(1).zip(row.iter().zip(&b)) {
            left = (diagonal + usize::from(ca != *cb)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_finds_its_neighbour_and_a_foreign_one_none() {
        assert_eq!(nearest("isuer", ["issuer", "trust_domain"]), Some("issuer"));
        assert_eq!(nearest("trustdomain", ["issuer", "trust_domain"]), Some("trust_domain"));
        assert_eq!(nearest("colour", ["issuer", "trust_domain"]), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "abc")), (3, 3, 0));
    }

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        assert_eq!(line_and_column("ab\ncd", 0), (1, 1));
        assert_eq!(line_and_column("äb\ncd", 2), (1, 2));
        assert_eq!(line_and_column("ab\ncd", 4), (2, 2));
        assert_eq!(line_and_column("ab", 99), (1, 3));
    }

    #[test]
    fn every_syntax_error_is_named_with_its_line() {
        let source = SourceFile::new("x.toml", "a = 1\nb = = 2\nc = 'x\n");
        let complaints = Document::parse(&source).err().unwrap_or_default();
        assert!(complaints.iter().any(|c| c.line == 2), "{complaints:?}");
        assert!(complaints.iter().any(|c| c.line == 3), "{complaints:?}");
    }

    #[test]
    fn what_a_section_lacks_is_told_with_the_line_of_the_section() {
        let text = "\n[[hooks]]\nname = 'a'\n\n[[hooks]]\nurl = 'ü'\nmore = { on = true }\n[plain]\n";
        let source = SourceFile::new("x.toml", text);
        let document = Document::parse(&source).unwrap_or_else(|c| panic!("{c:?}"));
        let root = document.root();
        for hook in root.required("hooks").and_then(|f| f.list(9)).unwrap_or_default() {
            let section = hook.section().unwrap();
            let _ = (section.required("name"), section.required("url"));
            let more = section.optional("more").and_then(|f| f.section());
            let _ = more.and_then(|more| more.required("off"));
        }
        let plain = root.required("plain").and_then(|f| f.section()).unwrap();
        let _ = (plain.required("a"), plain.required("b"), root.required("owner"));
        plain.finish();
        root.finish();
        let said: Vec<String> = document.finish(Some(())).unwrap_err().iter().map(ToString::to_string).collect();
        let expected = [
            ("x.toml: ", "lacks owner"),
            ("x.toml:2:", "lacks hooks[0].url"),
            ("x.toml:5:", "lacks hooks[1].name"),
            ("x.toml:7:", "lacks hooks[1].more.off"),
            ("x.toml:8:", "lacks plain.a, plain.b"),
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, (place, what)) in said.iter().zip(expected) {
            assert!(said.starts_with(place) && said.contains(what), "{place} {what} in {said}");
        }
    }

    #[test]
    fn a_key_is_named_once() {
        for (what, named) in [
            ("is taken", "listen.admin: is taken"),
            ("listen.admin: 127.0.0.1:1: in use", "listen.admin: 127.0.0.1:1: in use"),
            ("listen.admin is taken", "listen.admin is taken"),
            ("listen.admin_socket is taken", "listen.admin: listen.admin_socket is taken"),
        ] {
            assert_eq!(with_key("listen.admin", what), named);
        }
    }

    #[test]
    fn all_complaints_come_at_once_in_order_of_lines() {
        let source = SourceFile::new("x.toml", "coulour = 'red'\nsize = 'big'\n[more]\nthing = 1\n");
        let document = Document::parse(&source).unwrap_or_else(|c| panic!("{c:?}"));
        let root = document.root();
        let _ = root.required("colour");
        let _ = root.optional("size").and_then(|f| f.integer(0, 9));
        let _ = root.required("owner");
        root.finish();
        let said: Vec<String> = document.finish(Some(())).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 4, "{said:#?}");
        assert!(said[0].contains("lacks colour, owner"));
        assert!(said[1].contains("x.toml:1:1: unknown key coulour") && said[1].contains("colour"));
        assert!(said[2].contains("x.toml:2:8: size is a text"));
        assert!(said[3].contains("unknown section more"), "{said:#?}");
    }
}
