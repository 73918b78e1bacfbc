//! Reads TOML that people write. Every complaint names the file, the line, what is wrong and what would be right, and all complaints are
//! reported at once. Unknown keys are refused with the nearest known key. Pure: text in, values out.

pub mod command;
mod field;
pub mod quantity;
pub mod shown;
pub mod url;

use std::cell::RefCell;
use std::fmt;

use serde::{Deserialize, Serialize};
use toml::de::DeTable;
use toml::{Spanned, de::DeValue};

pub use field::{Field, Section, is_name};

/// A named text, as read from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The file's name, for complaints.
    pub file: String,
    /// The file's content.
    pub text: String,
}

impl Source {
    /// A text, with the name under which complaints mention it.
    pub fn new(file: impl Into<String>, text: impl Into<String>) -> Source {
        Source { file: file.into(), text: text.into() }
    }
}

/// An error in a file, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
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

impl Complaint {
    /// A complaint about the byte offset `at` of a source.
    pub fn at(source: &Source, at: usize, what: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        let (line, column) = line_and_column(&source.text, at);
        Complaint { file: source.file.clone(), line, column, what: what.into(), remedy: remedy.into(), keys: Vec::new() }
    }

    /// A complaint about a whole file.
    pub fn about(file: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint { file: file.into(), line: 0, column: 0, what: what.into(), remedy: remedy.into(), keys: Vec::new() }
    }

    /// The complaint, with these affected keys.
    fn of(self, keys: Vec<String>) -> Complaint {
        Complaint { keys, ..self }
    }
}

impl fmt::Display for Complaint {
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

/// A parsed TOML file, with the complaints so far.
pub struct Document<'s> {
    source: &'s Source,
    root: Spanned<DeTable<'s>>,
    complaints: RefCell<Vec<Complaint>>,
    lacks: RefCell<Vec<String>>,
}

impl<'s> Document<'s> {
    /// Parses a source, with one complaint per syntax error.
    pub fn parse(source: &'s Source) -> Result<Document<'s>, Vec<Complaint>> {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            return Ok(Document { source, root, complaints: RefCell::default(), lacks: RefCell::default() });
        }
        Err(errors
            .iter()
            .map(|e| Complaint::at(source, e.span().map_or(0, |s| s.start), e.message(), "this is not TOML (https://toml.io)"))
            .collect())
    }

    /// The whole file as a section.
    pub fn root(&self) -> Section<'_> {
        Section::new(self, String::new(), self.root.get_ref())
    }

    /// Reports the value of a key, or the key, at a byte offset.
    pub fn complain(&self, at: usize, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.complaints.borrow_mut().push(Complaint::at(self.source, at, what, remedy).of(vec![key.to_owned()]));
    }

    fn lack(&self, path: String) {
        self.lacks.borrow_mut().push(path);
    }

    /// The value, unless there were complaints.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Complaint>> {
        let mut complaints = self.complaints.into_inner();
        let lacks = self.lacks.into_inner();
        if !lacks.is_empty() {
            let what = format!("lacks {}", lacks.join(", "));
            complaints.push(Complaint::about(self.source.file.clone(), what, "each of these is required").of(lacks));
        }
        complaints.sort_by_key(|c| (c.line, c.column));
        match value {
            Some(value) if complaints.is_empty() => Ok(value),
            _ if complaints.is_empty() => Err(vec![Complaint::about(self.source.file.clone(), "cannot be read", "")]),
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
        let source = Source::new("x.toml", "a = 1\nb = = 2\nc = 'x\n");
        let complaints = Document::parse(&source).err().unwrap_or_default();
        assert!(complaints.iter().any(|c| c.line == 2), "{complaints:?}");
        assert!(complaints.iter().any(|c| c.line == 3), "{complaints:?}");
    }

    #[test]
    fn all_complaints_come_at_once_in_order_of_lines() {
        let source = Source::new("x.toml", "coulour = 'red'\nsize = 'big'\n[more]\nthing = 1\n");
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
