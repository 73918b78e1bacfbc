//! A section of a document and one value in it, each with its place in the text.

use std::cell::RefCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::quantity::{DURATION_FORM, MOMENT_FORM, SIZE_FORM, duration_ms, duration_text, moment, size_bytes, size_text};
use super::{Document, kind_of, nearest};
use crate::limits;
use mayfly_verify::seq::Millis;

/// A table of the document. Keys that the reader asked for are known; [`finish`](Section::finish) reports all others.
pub struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    /// The byte offset of the section; `None` for the whole file.
    at: Option<usize>,
    table: &'d DeTable<'d>,
    known: RefCell<Vec<String>>,
}

impl<'d> Section<'d> {
    pub(super) fn new(document: &'d Document<'d>, path: String, at: Option<usize>, table: &'d DeTable<'d>) -> Section<'d> {
        Section { document, path, at, table, known: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of an optional key.
    pub fn optional(&self, key: &str) -> Option<Field<'d>> {
        self.known.borrow_mut().push(key.to_owned());
        let (name, value) = self.table.get_key_value(key)?;
        Some(Field { document: self.document, path: self.path_of(name.get_ref()), value })
    }

    /// The value of a required key; all missing keys of a section are reported together, at the section.
    pub fn required(&self, key: &str) -> Option<Field<'d>> {
        let found = self.optional(key);
        if found.is_none() {
            self.document.lack(self.at, self.path_of(key));
        }
        found
    }

    /// All keys with their values, for sections whose keys are user-chosen names.
    pub fn entries(&self) -> Vec<(String, Field<'d>)> {
        let names: Vec<String> = self.table.keys().map(|k| k.get_ref().to_string()).collect();
        names.into_iter().filter_map(|name| self.optional(&name).map(|field| (name, field))).collect()
    }

    /// Reports every key that the reader did not ask for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for (name, value) in self.table {
            if known.iter().any(|k| k == name.get_ref()) {
                continue;
            }
            let sort = if value.get_ref().is_table() { "section" } else { "key" };
            let remedy = match nearest(name.get_ref(), known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let path = self.path_of(name.get_ref());
            self.document.complain(name.span().start, &path, format!("unknown {sort} {path}"), remedy);
        }
    }
}

/// One value with its place. Each reading method reports a value that does not fit, and returns `None`.
pub struct Field<'d> {
    document: &'d Document<'d>,
    path: String,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Field<'d> {
    /// The key with its enclosing sections, like `ttl.max`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The line of the value, from 1.
    pub fn line(&self) -> usize {
        self.document.line_of(self.value.span().start)
    }

    /// Reports this value as wrong.
    pub fn wrong<T>(&self, what: impl std::fmt::Display, remedy: impl Into<String>) -> Option<T> {
        self.document.complain(self.value.span().start, &self.path, format!("{} {what}", self.path), remedy);
        None
    }

    fn wrong_kind<T>(&self, right: &str) -> Option<T> {
        self.wrong(format!("is {}", kind_of(self.value.get_ref())), right)
    }

    /// A text of 1 to `max` bytes without control characters.
    pub fn text(&self, max: usize) -> Option<String> {
        let Some(text) = self.value.get_ref().as_str() else {
            return self.wrong_kind("give a text in quotes");
        };
        if text.is_empty() || text.len() > max {
            return self.wrong(format!("has {} bytes", text.len()), format!("1 to {max} bytes"));
        }
        if text.chars().any(char::is_control) {
            return self.wrong("has control characters", "leave them out");
        }
        Some(text.to_owned())
    }

    /// As [`Field::text`], with line breaks and tabs: a file in PEM.
    pub fn lines(&self, max: usize) -> Option<String> {
        let Some(text) = self.value.get_ref().as_str() else {
            return self.wrong_kind("give a text in quotes");
        };
        if text.is_empty() || text.len() > max {
            return self.wrong(format!("has {} bytes", text.len()), format!("1 to {max} bytes"));
        }
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            return self.wrong("has control characters", "leave them out");
        }
        Some(text.to_owned())
    }

    /// A name: 1 to 256 bytes of letters, digits and `._:/@+-`, the first one a letter or digit.
    pub fn name(&self) -> Option<String> {
        let text = self.text(limits::NAME_BYTES)?;
        match is_name(&text) {
            true => Some(text),
            false => self
                .wrong(format!("is {text:?}"), "a name has letters, digits and ._:/@+- only, and begins with a letter or digit"),
        }
    }

    /// A whole number within bounds.
    pub fn integer(&self, min: u64, max: u64) -> Option<u64> {
        let Some(number) = self.value.get_ref().as_integer() else {
            return self.wrong_kind(&format!("give a whole number from {min} to {max}"));
        };
        let digits = number.as_str().replace('_', "");
        match u64::from_str_radix(digits.trim_start_matches('+'), number.radix()) {
            Ok(n) if n >= min && n <= max => Some(n),
            _ => self.wrong(format!("is {}", number.as_str()), format!("a whole number from {min} to {max}")),
        }
    }

    /// A fraction from 0 to 1, in millionths.
    pub fn millionths(&self) -> Option<u64> {
        const FORM: &str = "give a number from 0 to 1, like 0.01";
        let text = match self.value.get_ref() {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return self.wrong_kind(FORM),
        };
        match text.replace('_', "").parse::<f64>() {
            Ok(part) if (0.0..=1.0).contains(&part) => Some((part * 1e6).round() as u64),
            _ => self.wrong(format!("is {text}"), FORM),
        }
    }

    /// True or false.
    pub fn boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.wrong_kind("give true or false"))
    }

    /// A duration within bounds, in milliseconds.
    pub fn duration(&self, min: u64, max: u64) -> Option<u64> {
        let Some(text) = self.value.get_ref().as_str() else {
            return self.wrong_kind(DURATION_FORM);
        };
        match duration_ms(text) {
            None => self.wrong(format!("is {text:?}"), DURATION_FORM),
            Some(ms) if ms < min || ms > max => {
                self.wrong(format!("is {text}"), format!("from {} to {}", duration_text(min), duration_text(max)))
            }
            found => found,
        }
    }

    /// A size within bounds, in bytes.
    pub fn size(&self, min: u64, max: u64) -> Option<u64> {
        let Some(text) = self.value.get_ref().as_str() else {
            return self.wrong_kind(SIZE_FORM);
        };
        match size_bytes(text) {
            None => self.wrong(format!("is {text:?}"), SIZE_FORM),
            Some(n) if n < min || n > max => {
                self.wrong(format!("is {text}"), format!("from {} to {}", size_text(min), size_text(max)))
            }
            found => found,
        }
    }

    /// A date, or a date and time with an offset; quoted or not.
    pub fn moment(&self) -> Option<Millis> {
        let text = match self.value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(at) => at.to_string(),
            _ => return self.wrong_kind(MOMENT_FORM),
        };
        moment(&text).or_else(|| self.wrong(format!("is {text}"), MOMENT_FORM))
    }

    /// The value of a key that allows a closed list of choices.
    pub fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let right = || format!("one of {}", choices.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", "));
        let Some(text) = self.value.get_ref().as_str() else {
            return self.wrong_kind(&right());
        };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => Some(*choice),
            None => self.wrong(format!("is {text:?}"), right()),
        }
    }

    /// The values of a list of at most `max` entries.
    pub fn list(&self, max: usize) -> Option<Vec<Field<'d>>> {
        let Some(list) = self.value.get_ref().as_array() else {
            return match self.is_section() {
                true => self.wrong(
                    "is one section",
                    format!("give a list: write [[{}]] in double brackets for each section, or values in [ ]", self.path),
                ),
                false => self.wrong_kind("give a list in [ ]"),
            };
        };
        if list.len() > max {
            return self.wrong(format!("has {} values", list.len()), format!("at most {max}"));
        }
        let field = |(i, value)| Field { document: self.document, path: format!("{}[{i}]", self.path), value };
        Some(list.iter().enumerate().map(field).collect())
    }

    /// A section.
    pub fn section(&self) -> Option<Section<'d>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Section::new(self.document, self.path.clone(), Some(self.value.span().start), table)),
            _ => self.wrong_kind("give a section, as [name] or { }"),
        }
    }

    /// Reads a section and reports its unknown keys.
    pub fn inside<T>(&self, read: impl FnOnce(&Section<'_>) -> Option<T>) -> Option<T> {
        let section = self.section()?;
        let value = read(&section);
        section.finish();
        value
    }

    /// A text of at most `max` bytes that `parse` accepts; the parser's error says what is wrong.
    pub fn parsed<T, E: std::fmt::Display>(&self, max: usize, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text(max)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(defect) => self.wrong(format!("is {text:?}"), defect.to_string()),
        }
    }

    /// Whether the value is a list.
    pub fn is_list(&self) -> bool {
        self.value.get_ref().as_array().is_some()
    }

    /// Whether the value is a section.
    pub fn is_section(&self) -> bool {
        self.value.get_ref().is_table()
    }
}

/// Whether a text is a name as [`Field::name`] requires it.
pub fn is_name(text: &str) -> bool {
    text.len() <= limits::NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@+-".contains(&b))
}
