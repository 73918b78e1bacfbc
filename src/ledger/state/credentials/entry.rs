//! One credential in memory: 56 bytes.

use std::num::NonZeroU64;
use std::ops::Deref;

use super::super::intern::Slot;
use super::page::CredentialPage;
use super::{CredentialProfile, RequestKey};
use crate::state::Credentials;
use mayfly_base::limits;
use mayfly_store::Position;
use mayfly_verify::seq::{CredentialId, Millis, Seq};

/// Bytes of an entry in memory.
pub(super) const ENTRY: usize = 56;

/// Bytes of an entry in a snapshot, without the tool's place in the page.
pub(super) const SAVED: usize = 48;

/// The values that an entry is made from.
pub(super) struct EntryFields {
    pub id: CredentialId,
    /// Whether the credential answers a request; its id then begins with the request's key.
    pub answers: bool,
    pub at: Position,
    pub seq: Seq,
    pub revision: Seq,
    pub expires_at: Millis,
    pub kept_until: Millis,
    pub task: Slot,
    pub profile: Slot,
}

/// The first bytes of an id, by which a credential is found. For a credential that answers a request, they are the first bytes of the
/// request's key. Among a million request keys, two begin alike on one server in 2^56, and a caller can only choose among keys of its own
/// requests.
pub(super) type IdPrefix = [u8; 12];

/// The first bytes of an id, or of a request's key.
pub(super) fn id_prefix(of: &[u8; 16]) -> &IdPrefix {
    let (prefix, _) = of.split_first_chunk().unwrap_or((&[0; 12], &[]));
    prefix
}

/// The id for a credential that answers this request, if any, so that one table finds the credential by id or by request. `own`: random
/// bytes; the last ones make the id differ from earlier answers to the same request.
pub fn id_for(request: Option<&RequestKey>, own: [u8; 16]) -> CredentialId {
    let mut id = own;
    if let Some(key) = request {
        id[..size_of::<IdPrefix>()].copy_from_slice(id_prefix(key));
    }
    CredentialId::from_bytes(id)
}

/// Whether an id belongs to that request.
pub fn is_for(id: &CredentialId, key: &RequestKey) -> bool {
    id_prefix(id.as_bytes()) == id_prefix(key)
}

/// A credential in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialEntry {
    id: [u8; 16],
    task: Slot,
    profile: Slot,
    /// The tool's place in the page's text.
    pub(super) tool: TextRange,
    /// The record's seq, which is never 0, shifted above two flags.
    mark: NonZeroU64,
    /// The expiry, 48 bits; then the high 16 bits of the commit's position.
    end: u64,
    /// The low 28 bits of the position; the distance from decision revision to seq, 24 bits; the time from expiry until the request is
    /// forgotten, in seconds, 12 bits.
    rest: u64,
}

const _: () = assert!(size_of::<Option<CredentialEntry>>() == ENTRY);

/// A range of a page's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextRange {
    pub from: u16,
    pub len: u16,
}

/// Flag: the credential was given back.
const RELEASED: u64 = 1;
/// Flag: the credential answers a request that is remembered.
const ANSWERS: u64 = 2;
const FLAGS: u32 = 2;

const AT_LOW: u32 = 28;
const BEHIND: u32 = 24;
const KEPT: u32 = 12;

/// The longest time from expiry until the request is forgotten, seconds.
pub(super) const KEPT_AT_MOST_S: usize = most(KEPT) as usize;

/// Highest commit position: a thousand a second for five hundred years.
const MOST_AT: u64 = most(16 + AT_LOW);
/// Latest expiry: the year 10,889.
const MOST_END: u64 = most(48);

// Every distance that the fold accepts fits.
const _: () = assert!(limits::REVISION_BEHIND <= most(BEHIND));
const _: () = assert!((limits::REQUEST_ID_KEPT_MS + limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS) / 1000 < most(KEPT));

const fn most(bits: u32) -> u64 {
    (1 << bits) - 1
}

impl CredentialEntry {
    pub(super) fn new(made: &EntryFields) -> CredentialEntry {
        let (at, end) = (made.at.min(MOST_AT), made.expires_at.0.min(MOST_END));
        let kept_s = made.kept_until.since(made.expires_at).div_ceil(1000).min(most(KEPT));
        let behind = made.seq.as_u64().saturating_sub(made.revision.as_u64()).min(most(BEHIND));
        CredentialEntry {
            id: *made.id.as_bytes(),
            mark: NonZeroU64::new(made.seq.as_u64() << FLAGS | if made.answers { ANSWERS } else { 0 }).unwrap_or(NonZeroU64::MIN),
            end: end << 16 | at >> AT_LOW,
            rest: (at & most(AT_LOW)) << (BEHIND + KEPT) | behind << KEPT | kept_s,
            task: made.task,
            profile: made.profile,
            tool: TextRange::default(),
        }
    }

    /// The credential's id.
    pub fn id(&self) -> CredentialId {
        CredentialId::from_bytes(self.id)
    }

    /// Whether the credential answers a request that is remembered.
    pub fn answers(&self) -> bool {
        self.mark.get() & ANSWERS > 0
    }

    /// The position of its commit.
    pub fn at(&self) -> Position {
        (self.end & most(16)) << AT_LOW | self.rest >> (BEHIND + KEPT)
    }

    /// The seq of its record.
    pub fn seq(&self) -> Seq {
        Seq::from_u64(self.mark.get() >> FLAGS).unwrap_or_default()
    }

    /// The decision revision; 0 if it is too far back to be stored, so that every later revocation covers the credential.
    pub fn revision(&self) -> Seq {
        let behind = self.rest >> KEPT & most(BEHIND);
        if behind == most(BEHIND) {
            return Seq::ZERO;
        }
        Seq::from_u64(self.seq().as_u64().saturating_sub(behind)).unwrap_or_default()
    }

    /// When the credential expires.
    pub fn expires_at(&self) -> Millis {
        Millis(self.end >> 16)
    }

    /// The request is remembered until then.
    pub fn kept_until(&self) -> Millis {
        self.expires_at().plus((self.rest & most(KEPT)) * 1000)
    }

    /// The slot of the credential's task.
    pub fn task(&self) -> Slot {
        self.task
    }

    /// The credential was given back.
    pub fn released(&self) -> bool {
        self.mark.get() & RELEASED > 0
    }

    pub(super) fn profile(&self) -> Slot {
        self.profile
    }

    pub(super) fn release(&mut self) {
        self.mark |= RELEASED;
    }

    /// Clears the flag that the credential answers a request. Returns false if it was not set.
    pub(super) fn unbind(&mut self) -> bool {
        let answered = self.answers();
        // The seq is stored above the flags.
        self.mark = NonZeroU64::new(self.mark.get() & !ANSWERS).unwrap_or(self.mark);
        answered
    }

    /// The form in a snapshot: the page stores the tool.
    pub(super) fn to_bytes(self) -> [u8; SAVED] {
        let mut out = [0; SAVED];
        let mut rest = &mut out[..];
        let mut put = |bytes: &[u8]| {
            let (here, after) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            here.copy_from_slice(bytes);
            rest = after;
        };
        put(&self.id);
        put(&self.task.to_le_bytes());
        put(&self.profile.to_le_bytes());
        for part in [self.mark.get(), self.end, self.rest] {
            put(&part.to_le_bytes());
        }
        out
    }

    /// Decodes the snapshot form. `None`: not a credential.
    pub(super) fn from_bytes(bytes: &[u8; SAVED]) -> Option<CredentialEntry> {
        let mut from = &bytes[..];
        let id = take(&mut from)?;
        let mut word = || take(&mut from).map(u32::from_le_bytes);
        let (task, profile) = (word()?, word()?);
        let mut long = || take(&mut from).map(u64::from_le_bytes);
        let (mark, end, rest) = (NonZeroU64::new(long()?)?, long()?, long()?);
        Some(CredentialEntry { id, mark, end, rest, task, profile, tool: TextRange::default() })
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*first)
}

/// A credential in memory, together with its page and the shared tables.
#[derive(Clone, Copy)]
pub struct LiveCredential<'a> {
    entry: &'a CredentialEntry,
    page: &'a CredentialPage,
    profile: Option<&'a CredentialProfile>,
    caller: &'a str,
}

impl Deref for LiveCredential<'_> {
    type Target = CredentialEntry;

    fn deref(&self) -> &CredentialEntry {
        self.entry
    }
}

impl<'a> LiveCredential<'a> {
    pub(super) fn new(of: &'a Credentials, page: &'a CredentialPage, entry: &'a CredentialEntry) -> LiveCredential<'a> {
        let profile = of.names.profiles.value(entry.profile);
        let caller = profile.and_then(|p| of.names.callers.value(p.caller)).map_or("", |c| c);
        LiveCredential { entry, page, profile, caller }
    }

    /// The caller that it was issued to.
    pub fn caller(&self) -> &'a str {
        self.caller
    }

    /// The tool that it serves for.
    pub fn tool(&self) -> &'a str {
        self.page.text(self.entry.tool)
    }

    pub(super) fn profile(&self) -> Option<&'a CredentialProfile> {
        self.profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_entry_says_what_it_was_made_of(
            id: [u8; 16], at in 0..=MOST_AT, seq in 1u64..1 << 53, behind in 0..=limits::REVISION_BEHIND + 9,
            end in 0..=MOST_END, kept_ms in 0u64..4_000_000, places: (u32, u32), flags: (bool, bool),
        ) {
            let seq_of = |n| Seq::from_u64(n).unwrap();
            let revision = seq_of(seq.saturating_sub(behind));
            let made = EntryFields {
                id: CredentialId::from_bytes(id), answers: flags.1, at, seq: seq_of(seq), revision,
                expires_at: Millis(end), kept_until: Millis(end + kept_ms), task: places.0, profile: places.1,
            };
            let mut entry = CredentialEntry::new(&made);
            if flags.0 { entry.release() }
            let back = CredentialEntry::from_bytes(&entry.to_bytes()).unwrap();
            prop_assert_eq!(back, entry);
            prop_assert_eq!((back.id(), back.answers(), back.at()), (made.id, made.answers, made.at));
            prop_assert_eq!((back.seq(), back.task(), back.profile()), (made.seq, made.task, made.profile));
            let far = seq - revision.as_u64() >= most(BEHIND);
            prop_assert_eq!(back.revision(), if far { Seq::ZERO } else { revision });
            prop_assert_eq!(back.expires_at(), made.expires_at);
            prop_assert!((made.kept_until.0..made.kept_until.0 + 1000).contains(&back.kept_until().0), "in whole seconds, never less");
            prop_assert_eq!(back.released(), flags.0);
            prop_assert_eq!((entry.unbind(), entry.answers(), entry.seq()), (flags.1, false, made.seq));
        }
    }

    #[test]
    fn an_empty_place_is_none() {
        assert_eq!(CredentialEntry::from_bytes(&[0; SAVED]), None);
    }
}
