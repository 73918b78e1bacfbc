//! A page of credentials that expire in the same second, with the text of their tools. Most credentials have a tool of their own or share
//! one with their neighbours: interned globally, the tool names would take more memory than the rest of the entries.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::{ENTRY, Entry, SAVED, Span};
use super::seconds::{Page as _, make_room};
use mayfly_base::limits;

/// The text grows in steps of this size.
const TEXT_STEP: usize = 64;

// A page's text is indexed with 16 bits.
const _: () = assert!(Page::MOST * limits::NAME_BYTES < 1 << 16);

/// Number of recent tools that are compared before a tool's text is added again.
const RECENT: usize = 4;

/// Credentials that expire in one second (or some of them), in the order in which they were issued.
#[derive(Clone, Default)]
pub(super) struct Page {
    entries: Vec<Entry>,
    text: Vec<u8>,
    recent: [Span; RECENT],
}

impl Page {
    pub fn text(&self, span: Span) -> &str {
        str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    fn bytes(&self, span: Span) -> &[u8] {
        let (from, len) = (usize::from(span.from), usize::from(span.len));
        self.text.get(from..from + len).unwrap_or_default()
    }

    pub fn push(&mut self, mut entry: Entry, tool: &str) {
        // The fold refuses longer tools.
        entry.tool = self.name(if tool.len() > limits::NAME_BYTES { "" } else { tool });
        make_room(&mut self.entries, Self::MOST);
        self.entries.push(entry);
    }

    /// The place of a tool in the text; the tool is added unless it is one of the recent ones.
    fn name(&mut self, tool: &str) -> Span {
        if let Some(span) = self.recent.iter().find(|span| self.bytes(**span) == tool.as_bytes()) {
            return *span;
        }
        let span = Span { from: self.text.len() as u16, len: tool.len() as u16 };
        if self.text.capacity() < self.text.len() + tool.len() {
            self.text.reserve_exact(TEXT_STEP.max(tool.len()));
        }
        self.text.extend_from_slice(tool.as_bytes());
        self.recent.rotate_right(1);
        self.recent[0] = span;
        span
    }
}

impl super::seconds::Page for Page {
    type Entry = Entry;

    /// 6 KiB, which suits the allocator best (measured).
    const MOST: usize = 6 * 1024 / ENTRY;

    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }
}

/// Same tool as the entry before.
const SAME: u16 = u16::MAX;

impl Page {
    /// The entries, then their tools. Where the text lies in memory is not part of the state.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * (SAVED + 16));
        let mut before = None;
        let mut tools = Vec::with_capacity(self.text.len());
        for entry in &self.entries {
            out.extend_from_slice(&entry.to_bytes());
            let tool = self.text(entry.tool);
            if before == Some(tool) {
                tools.extend_from_slice(&SAME.to_le_bytes());
            } else {
                tools.extend_from_slice(&(tool.len() as u16).to_le_bytes());
                tools.extend_from_slice(tool.as_bytes());
            }
            before = Some(tool);
        }
        out.extend_from_slice(&tools);
        out
    }

    /// `None`: this is not a page of so many entries.
    fn from_bytes(bytes: &[u8], count: usize) -> Option<Page> {
        let (entries, mut tools) = bytes.split_at_checked(count * SAVED)?;
        let mut page = Page::default();
        let mut before = "";
        for entry in entries.as_chunks::<SAVED>().0 {
            let entry = Entry::from_bytes(entry)?;
            let (len, rest) = tools.split_first_chunk()?;
            tools = rest;
            let len = u16::from_le_bytes(*len);
            if len != SAME {
                let (tool, rest) = tools.split_at_checked(len.into())?;
                (before, tools) = (str::from_utf8(tool).ok()?, rest);
            }
            page.push(entry, before);
        }
        tools.is_empty().then_some(page)
    }
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(self.0)
    }
}

impl Serialize for Page {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.entries.len() as u32, Bytes(&self.to_bytes())).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Page, D::Error> {
        let (count, bytes) = <(u32, &'de [u8])>::deserialize(d)?;
        Page::from_bytes(bytes, count as usize).ok_or_else(|| D::Error::custom("a page of credentials that is none"))
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
