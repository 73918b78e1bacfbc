//! A page of credentials that end in the same second, with the tools of its own. Most credentials have a tool of their own or their neighbours':
//! kept once for all, the names would take more than all else of an entry.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::{ENTRY, Entry, SAVED, Span};
use super::seconds::{Page as _, make_room};
use crate::limits;

/// Text grows by so much.
const TEXT_STEP: usize = 64;

// A page's text is counted in 16 bits.
const _: () = assert!(Page::MOST * limits::NAME_BYTES < 1 << 16);

/// Tools found again at once: those that came last.
const RECENT: usize = 4;

/// What ends in one second, or some of it, in the order in which it came.
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
        // The fold refuses longer ones.
        entry.tool = self.name(if tool.len() > limits::NAME_BYTES { "" } else { tool });
        make_room(&mut self.entries, Self::MOST);
        self.entries.push(entry);
    }

    /// Where a tool stands, put there if it is none of the last.
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

    /// 6 KiB, of which the allocator makes best use (measured).
    const MOST: usize = 6 * 1024 / ENTRY;

    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }
}

/// Tool as the one before.
const SAME: u16 = u16::MAX;

impl Page {
    /// Entries, then their tools: where the text lies is no matter of the state.
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

    /// `None`: this is no page of so many entries.
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
