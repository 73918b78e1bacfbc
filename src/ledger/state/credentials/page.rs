//! A page of credentials that expire in the same second, with the text of their tools. Most credentials have a tool of their own or share
//! one with their neighbours: interned globally, the tool names would take more memory than the rest of the entries.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::{CredentialEntry, ENTRY, SAVED, TextRange};
use super::expiry_pages::{ExpiryPage as _, make_room};
use mayfly_base::limits;

/// The text grows in steps of this size.
const TEXT_STEP: usize = 64;

// A page's text is indexed with 16 bits.
const _: () = assert!(CredentialPage::MOST * limits::NAME_BYTES < 1 << 16);

/// Number of recent tools that are compared before a tool's text is added again.
const RECENT: usize = 4;

/// Credentials that expire in one second (or some of them), in the order in which they were issued.
#[derive(Clone, Default)]
pub(super) struct CredentialPage {
    entries: Vec<CredentialEntry>,
    text: Vec<u8>,
    recent: [TextRange; RECENT],
}

impl CredentialPage {
    pub fn text(&self, span: TextRange) -> &str {
        str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    fn bytes(&self, span: TextRange) -> &[u8] {
        let (from, len) = (usize::from(span.from), usize::from(span.len));
        self.text.get(from..from + len).unwrap_or_default()
    }

    pub fn push(&mut self, mut entry: CredentialEntry, tool: &str) {
        // The fold refuses longer tools.
        entry.tool = self.name(if tool.len() > limits::NAME_BYTES { "" } else { tool });
        make_room(&mut self.entries, Self::MOST);
        self.entries.push(entry);
    }

    /// The place of a tool in the text; the tool is added unless it is one of the recent ones.
    fn name(&mut self, tool: &str) -> TextRange {
        if let Some(span) = self.recent.iter().find(|span| self.bytes(**span) == tool.as_bytes()) {
            return *span;
        }
        let span = TextRange { from: self.text.len() as u16, len: tool.len() as u16 };
        if self.text.capacity() < self.text.len() + tool.len() {
            self.text.reserve_exact(TEXT_STEP.max(tool.len()));
        }
        self.text.extend_from_slice(tool.as_bytes());
        self.recent.rotate_right(1);
        self.recent[0] = span;
        span
    }
}

impl super::expiry_pages::ExpiryPage for CredentialPage {
    type Entry = CredentialEntry;

    /// 6 KiB, which suits the allocator best (measured).
    const MOST: usize = 6 * 1024 / ENTRY;

    fn entries(&self) -> &[CredentialEntry] {
        &self.entries
    }

    fn entries_mut(&mut self) -> &mut [CredentialEntry] {
        &mut self.entries
    }
}

/// Same tool as the entry before.
const SAME: u16 = u16::MAX;

impl CredentialPage {
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
    fn from_bytes(bytes: &[u8], count: usize) -> Option<CredentialPage> {
        let (entries, mut tools) = bytes.split_at_checked(count * SAVED)?;
        let mut page = CredentialPage::default();
        let mut before = "";
        for entry in entries.as_chunks::<SAVED>().0 {
            let entry = CredentialEntry::from_bytes(entry)?;
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

impl Serialize for CredentialPage {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.entries.len() as u32, Bytes(&self.to_bytes())).serialize(s)
    }
}

impl<'de> Deserialize<'de> for CredentialPage {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<CredentialPage, D::Error> {
        let (count, bytes) = <(u32, &'de [u8])>::deserialize(d)?;
        CredentialPage::from_bytes(bytes, count as usize).ok_or_else(|| D::Error::custom("a page of credentials that is none"))
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
