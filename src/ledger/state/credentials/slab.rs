//! Where the entries lie: in pages that a snapshot shares, each with the tools of its own. Most credentials have a tool of their own or
//! their neighbours': kept once for all, the names would take more than all else of an entry.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::intern::Slot;
use super::entry::{ENTRY, Entry, SAVED, Span};
use crate::limits;

/// Entries of a page: 10 KiB. Of 8 KiB the allocator gives seven where eight would fit.
const PAGE: usize = 10 * 1024 / ENTRY;

/// Text grows by so much.
const TEXT_STEP: usize = 256;

// A page's text is counted in 16 bits.
const _: () = assert!(PAGE * limits::NAME_BYTES < 1 << 16);

/// Tools found again at once: those that came last.
const RECENT: usize = 4;

pub(super) struct Page {
    entries: Vec<Option<Entry>>,
    /// The second with which one of them is to be looked at, `NEVER` if none is.
    due: u64,
    text: Vec<u8>,
    recent: [Span; RECENT],
    /// Beyond this it is looked how much of the text is still somebody's.
    full: usize,
}

/// No entry of a page is to be looked at.
const NEVER: u64 = u64::MAX;

impl Default for Page {
    fn default() -> Page {
        Page { entries: Vec::new(), due: NEVER, text: Vec::new(), recent: Default::default(), full: 0 }
    }
}

impl Clone for Page {
    fn clone(&self) -> Page {
        let mut entries = Vec::with_capacity(PAGE);
        entries.extend_from_slice(&self.entries);
        Page { entries, text: self.text.clone(), ..*self }
    }
}

impl Page {
    pub fn text(&self, span: Span) -> &str {
        str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    fn bytes(&self, span: Span) -> &[u8] {
        let (from, len) = (usize::from(span.from), usize::from(span.len));
        self.text.get(from..from + len).unwrap_or_default()
    }

    fn put(&mut self, at: usize, mut entry: Entry, tool: &str) {
        // The fold refuses longer ones.
        let tool = if tool.len() > limits::NAME_BYTES { "" } else { tool };
        if let Some(place) = self.entries.get_mut(at) {
            *place = None;
        }
        entry.tool = self.name(tool);
        if let Some(place) = self.entries.get_mut(at) {
            *place = Some(entry);
        }
    }

    /// Where a tool stands, put there if it is none of the last.
    fn name(&mut self, tool: &str) -> Span {
        if let Some(span) = self.recent.iter().find(|span| self.bytes(**span) == tool.as_bytes()) {
            return *span;
        }
        if self.text.len() + tool.len() > self.full {
            self.tidy();
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

    /// Leaves out what is nobody's any more.
    fn tidy(&mut self) {
        let (text, mut entries) = (std::mem::take(&mut self.text), std::mem::take(&mut self.entries));
        self.recent = Default::default();
        self.full = usize::MAX;
        for entry in entries.iter_mut().flatten() {
            let (from, len) = (usize::from(entry.tool.from), usize::from(entry.tool.len));
            let tool = text.get(from..from + len).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default();
            entry.tool = self.name(tool);
        }
        self.entries = entries;
        // However long each tool is, twice what is in use and one more is room for a page of them.
        self.full = (2 * self.text.len()).clamp(2 * TEXT_STEP, PAGE * limits::NAME_BYTES);
    }
}

/// All entries.
#[derive(Clone, Default)]
pub(super) struct Slab {
    pages: Vec<Arc<Page>>,
}

impl Slab {
    /// How many places there are.
    pub fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.entries.len())
    }

    /// The entry at a place, and its page.
    pub fn get(&self, slot: Slot) -> Option<(&Page, &Entry)> {
        let page = self.pages.get(slot as usize / PAGE)?;
        Some((&**page, page.entries.get(slot as usize % PAGE)?.as_ref()?))
    }

    /// The entry at a place, to be changed.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.get(slot)?;
        let page = Arc::make_mut(self.pages.get_mut(slot as usize / PAGE)?);
        page.entries.get_mut(slot as usize % PAGE)?.as_mut()
    }

    /// A new place at the end, with nothing there.
    pub fn push(&mut self) -> Slot {
        let slot = self.len() as Slot;
        match self.pages.last_mut() {
            Some(last) if last.entries.len() < PAGE => Arc::make_mut(last).entries.push(None),
            _ => {
                let mut entries = Vec::with_capacity(PAGE);
                entries.push(None);
                self.pages.push(Arc::new(Page { entries, ..Page::default() }));
            }
        }
        slot
    }

    /// Puts an entry to a place that is there.
    pub fn put(&mut self, slot: Slot, entry: Entry, tool: &str) {
        if let Some(page) = self.pages.get_mut(slot as usize / PAGE) {
            Arc::make_mut(page).put(slot as usize % PAGE, entry, tool);
        }
    }

    /// Has the entry at a place looked at with a second. Gives its page, if that is not to be looked at by then anyhow.
    pub fn look(&mut self, slot: Slot, second: u64) -> Option<Slot> {
        let at = slot as usize / PAGE;
        let page = self.pages.get_mut(at).filter(|page| second < page.due)?;
        Arc::make_mut(page).due = second;
        Some(at as Slot)
    }

    /// The places of a page that is to be looked at by now: whoever asks does it. None where that was done meanwhile.
    pub fn due(&mut self, page: Slot, now: u64) -> std::ops::Range<Slot> {
        let at = page as usize;
        let Some(page) = self.pages.get_mut(at).filter(|page| page.due <= now) else { return 0..0 };
        let page = Arc::make_mut(page);
        page.due = NEVER;
        (at * PAGE) as Slot..(at * PAGE + page.entries.len()) as Slot
    }

    /// Takes the entry out of a place.
    pub fn take(&mut self, slot: Slot) -> Option<Entry> {
        self.get(slot)?;
        Arc::make_mut(self.pages.get_mut(slot as usize / PAGE)?).entries.get_mut(slot as usize % PAGE)?.take()
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
            out.extend_from_slice(&entry.map_or([0; SAVED], Entry::to_bytes));
            let Some(tool) = entry.map(|e| self.text(e.tool)) else { continue };
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
        let mut page = Page { entries: Vec::with_capacity(PAGE), ..Page::default() };
        let mut before = "";
        for entry in entries.as_chunks::<SAVED>().0 {
            page.entries.push(None);
            let Some(entry) = Entry::from_bytes(entry) else { continue };
            let (len, rest) = tools.split_first_chunk()?;
            tools = rest;
            let len = u16::from_le_bytes(*len);
            if len != SAME {
                let (tool, rest) = tools.split_at_checked(len.into())?;
                (before, tools) = (str::from_utf8(tool).ok()?, rest);
            }
            page.put(page.entries.len() - 1, entry, before);
        }
        (count <= PAGE && tools.is_empty()).then_some(page)
    }
}

impl Serialize for Slab {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut pages = s.serialize_seq(Some(self.pages.len()))?;
        for page in &self.pages {
            pages.serialize_element(&(page.entries.len() as u32, page.due, Bytes(&page.to_bytes())))?;
        }
        pages.end()
    }
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Slab {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Slab, D::Error> {
        struct Pages;

        impl<'de> Visitor<'de> for Pages {
            type Value = Slab;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("pages of credentials")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Slab, A::Error> {
                let mut pages = Vec::new();
                let mut whole = true;
                while let Some((count, due, bytes)) = seq.next_element::<(u32, u64, &'de [u8])>()? {
                    let page = Page::from_bytes(bytes, count as usize).filter(|_| whole && count > 0);
                    let page = page.map(|page| Page { due, ..page });
                    // Places are counted: only the last page may have fewer.
                    whole = count as usize == PAGE;
                    pages.push(Arc::new(page.ok_or_else(|| A::Error::custom("a page of credentials that is none"))?));
                }
                Ok(Slab { pages })
            }
        }

        d.deserialize_seq(Pages)
    }
}

#[cfg(test)]
#[path = "slab_tests.rs"]
mod tests;
