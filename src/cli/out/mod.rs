//! What commands print: data on stdout in one of five forms, words on stderr.
//!
//! - [`escape`]: text from callers never acts on a terminal.
//! - [`tree`]: values in the order of their names; block YAML.
//! - [`sink`]: secrets, to a pipe or a file.

pub mod escape;
pub mod sink;
pub mod tree;

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::error::CliError;
use crate::log_queue;
use tree::Tree;

/// The form of the data on stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// Columns for people, or a list of fields for one thing.
    #[default]
    Table,
    /// The same with all columns, and fields that are empty.
    Wide,
    /// JSON; field names are stable.
    Json,
    /// The same as YAML.
    Yaml,
    /// Only the id or name, one per line.
    Name,
    /// The columns of `wide`, for spreadsheets (RFC 4180).
    Csv,
}

/// A thing that commands show. Its fields, as serialized, are the interface of `-o json`.
pub trait Noun: Serialize {
    /// What `-o name` prints.
    fn name(&self) -> String;
}

/// A thing that is also a row of a table.
pub trait Row: Noun {
    /// The columns that are always shown.
    const COLUMNS: &'static [&'static str];
    /// The columns that `-o wide` adds.
    const WIDE: &'static [&'static str] = &[];

    /// One cell per column, those of `WIDE` last.
    fn cells(&self) -> Vec<String>;
}

/// Where a command's output goes, and in which form.
#[derive(Clone, Copy)]
pub struct Out {
    format: Format,
    color: bool,
}

impl Out {
    /// Colors are for words on a terminal, and only where `NO_COLOR` is unset or empty (no-color.org).
    pub fn new(format: Format) -> Out {
        let asked_not = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Out { format, color: io::stderr().is_terminal() && !asked_not }
    }

    /// The form that was asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Several things.
    pub fn list<R: Row>(&self, rows: &[R]) -> Result<(), CliError> {
        match self.format {
            Format::Table | Format::Wide => print(&table(rows, self.format)),
            Format::Json => print(&to_json(&rows)?),
            Format::Yaml => print(&to_tree(&rows)?.yaml()),
            Format::Name => print(&names(rows)),
            Format::Csv => print(&csv_rows(rows)?),
        }
    }

    /// One thing with all its fields.
    pub fn one<N: Noun>(&self, row: &N) -> Result<(), CliError> {
        match self.format {
            Format::Table => print(&fields(&to_tree(row)?, false)),
            Format::Wide => print(&fields(&to_tree(row)?, true)),
            Format::Json => print(&to_json(row)?),
            Format::Yaml => print(&to_tree(row)?.yaml()),
            Format::Name => print(&names(std::slice::from_ref(row))),
            Format::Csv => print(&csv_fields(&to_tree(row)?)?),
        }
    }

    /// One thing whose parts are better read as a table of `rows`; the other forms show the whole.
    pub fn one_with_rows<N: Noun, R: Row>(&self, whole: &N, rows: &[R]) -> Result<(), CliError> {
        match self.format {
            Format::Table | Format::Wide if !rows.is_empty() => print(&table(rows, self.format)),
            _ => self.one(whole),
        }
    }

    /// One line of JSON: what `--watch` prints.
    pub fn line(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(CliError::ours)?;
        print(&format!("{}\n", escape::json(&text)))
    }

    /// A document that is printed as it is, like a JWK set.
    pub fn document(&self, text: &str) -> Result<(), CliError> {
        print(&format!("{}\n", escape::json(text.trim_end())))
    }

    /// A line of text among tables.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        print(&format!("{}\n", escape::for_terminal(text)))
    }

    /// What this program wrote itself: a script, a manual page.
    pub fn generated(&self, bytes: &[u8]) -> Result<(), CliError> {
        print(&String::from_utf8_lossy(bytes))
    }

    /// Words, on stderr. What comes from callers is made safe here.
    pub fn say(&self, words: impl fmt::Display) {
        let text = words.to_string();
        let lines: Vec<_> = text.lines().map(escape::for_terminal).collect();
        // Nobody may be listening on stderr; that is no reason to fail.
        log_queue::write(format!("{}\n", lines.join("\n")).as_bytes());
    }

    /// Tells why a command failed: words, or with `-o json` JSON, on stderr.
    pub fn fail(&self, error: &CliError) {
        let text = match self.format {
            Format::Json => error.json(),
            _ => error.words(self.color),
        };
        log_queue::write(text.as_bytes());
    }
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => CliError::PipeClosed,
        _ => CliError::Local(format!("stdout: {e}")),
    })
}

fn names<N: Noun>(rows: &[N]) -> String {
    rows.iter().map(|r| format!("{}\n", escape::for_terminal(&r.name()))).collect()
}

fn to_json(value: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value).map_err(CliError::ours)?;
    Ok(format!("{}\n", escape::json(&text)))
}

pub(super) fn to_tree(value: &impl Serialize) -> Result<Tree, CliError> {
    let text = serde_json::to_string(value).map_err(CliError::ours)?;
    serde_json::from_str(&text).map_err(CliError::ours)
}

fn csv_rows<R: Row>(rows: &[R]) -> Result<String, CliError> {
    let head = R::COLUMNS.iter().chain(R::WIDE).map(|title| title.to_ascii_lowercase().replace(' ', "_"));
    let absent = |cell: String| if cell == "-" { String::new() } else { cell };
    let lines = rows.iter().map(|row| row.cells().into_iter().map(absent).collect());
    csv(std::iter::once(head.collect()).chain(lines))
}

fn csv_fields(tree: &Tree) -> Result<String, CliError> {
    let (names, values) = tree.fields(true).into_iter().unzip();
    csv([names, values].into_iter())
}

/// A spreadsheet takes what begins with one of `=+-@` for a formula and runs it: such a cell begins with an apostrophe.
fn csv(lines: impl Iterator<Item = Vec<String>>) -> Result<String, CliError> {
    let mut out = csv::Writer::from_writer(Vec::new());
    for line in lines {
        let cells = line.iter().map(|cell| {
            let safe = escape::for_terminal(cell);
            if safe.starts_with(['=', '+', '-', '@']) { format!("'{safe}") } else { safe.into_owned() }
        });
        out.write_record(cells).map_err(CliError::ours)?;
    }
    let bytes = out.into_inner().map_err(CliError::ours)?;
    String::from_utf8(bytes).map_err(CliError::ours)
}

fn fields(tree: &Tree, all: bool) -> String {
    let rows = tree.fields(all).into_iter().map(|(name, value)| vec![name.replace('_', " "), value]);
    layout(None, rows.collect())
}

fn table<R: Row>(rows: &[R], format: Format) -> String {
    let wide = if format == Format::Wide { R::WIDE } else { &[] };
    let head: Vec<String> = R::COLUMNS.iter().chain(wide).map(|title| (*title).to_owned()).collect();
    let shown = head.len();
    layout(Some(head), rows.iter().map(|row| row.cells().into_iter().take(shown).collect()).collect())
}

/// Columns by their widest cell, two spaces apart. Never wrapped: an id that is cut in two cannot be copied.
fn layout(head: Option<Vec<String>>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    if let Some(head) = head {
        table.set_header(head);
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| escape::for_terminal(cell).into_owned()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        id: &'static str,
        purpose: &'static str,
    }

    impl Noun for Thing {
        fn name(&self) -> String {
            self.id.to_owned()
        }
    }

    impl Row for Thing {
        const COLUMNS: &'static [&'static str] = &["THING", "LAST"];
        const WIDE: &'static [&'static str] = &["PURPOSE"];
        fn cells(&self) -> Vec<String> {
            vec![self.id.to_owned(), "end".to_owned(), self.purpose.to_owned()]
        }
    }

    const ROWS: &[Thing] = &[Thing { id: "a", purpose: "x\u{1b}[31m" }, Thing { id: "bbbbbbbb", purpose: "部署" }];

    #[test]
    fn columns_line_up_by_what_they_take_on_the_screen() {
        assert_eq!(table(ROWS, Format::Table), "THING     LAST\na         end\nbbbbbbbb  end\n");
        let wide = "THING     LAST  PURPOSE\na         end   x\\u{1b}[31m\nbbbbbbbb  end   部署\n";
        assert_eq!(table(ROWS, Format::Wide), wide);
    }

    #[test]
    fn a_table_without_rows_still_names_its_columns() {
        assert_eq!(table::<Thing>(&[], Format::Table), "THING  LAST\n");
    }

    #[test]
    fn a_cell_of_a_csv_is_quoted_and_no_formula() {
        assert_eq!(csv_rows(ROWS).unwrap(), "thing,last,purpose\na,end,x\\u{1b}[31m\nbbbbbbbb,end,部署\n");
        assert_eq!(csv_rows::<Thing>(&[]).unwrap(), "thing,last,purpose\n");
        let formula = [Thing { id: "=1+1", purpose: "a \"b\", c" }, Thing { id: "@x", purpose: "-" }];
        assert_eq!(csv_rows(&formula).unwrap(), "thing,last,purpose\n'=1+1,end,\"a \"\"b\"\", c\"\n'@x,end,\n");
        assert_eq!(csv_fields(&to_tree(&ROWS[1]).unwrap()).unwrap(), "id,purpose\nbbbbbbbb,部署\n");
    }

    #[test]
    fn json_keeps_the_value_and_writes_out_what_acts_on_a_terminal() {
        let text = to_json(&ROWS[0]).unwrap();
        assert_eq!(text, "{\n  \"id\": \"a\",\n  \"purpose\": \"x\\u001b[31m\"\n}\n");
    }
}
