//! A slab beside a map, and what it takes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::entry::Made;
use super::*;
use crate::seq::{CredentialId, Millis, Seq};

fn entry(n: u64) -> Entry {
    Entry::new(&Made {
        id: CredentialId::from_bytes([n as u8; 16]),
        answers: false,
        at: n,
        seq: Seq::from_u64(n + 1).unwrap(),
        revision: Seq::ZERO,
        expires_at: Millis(n),
        kept_until: Millis(n),
        task: 0,
        profile: 0,
    })
}

/// What came, by its place.
type Model = BTreeMap<Slot, (u64, String)>;

fn holds(slab: &Slab, model: &Model) {
    let of = |page: &Page, entry: &Entry| (entry.at(), page.text(entry.tool).to_owned());
    let all: Model = slab.iter().map(|(slot, page, entry)| (slot, of(page, entry))).collect();
    assert_eq!((&all, slab.len()), (model, model.len()));
    for slot in 0..slab.places() {
        assert_eq!(slab.get(slot).map(|(page, entry)| of(page, entry)).as_ref(), model.get(&slot));
    }
}

/// Without the places: all of each second, in the order in which it came.
fn contents(slab: &mut Slab) -> Vec<(u64, String)> {
    let due = std::iter::from_fn(|| slab.due(u64::MAX));
    due.flat_map(|(_, page)| page.entries().iter().map(|e| (e.at(), page.text(e.tool).to_owned())).collect::<Vec<_>>()).collect()
}

proptest! {
    #[test]
    fn each_place_keeps_its_entry_and_its_tool(
        ops in prop::collection::vec((0u64..20, 0usize..8, 0usize..60, any::<bool>()), 0..1_500)
    ) {
        let (mut slab, mut model, mut copies) = (Slab::default(), Model::new(), Vec::new());
        for (n, (second, what, len, own)) in ops.into_iter().enumerate() {
            match what {
                0 => {
                    let Some((first, page)) = slab.due(second) else { continue };
                    for (slot, entry) in (first..).zip(page.entries()) {
                        prop_assert_eq!(model.remove(&slot).map(|(n, _)| n), Some(entry.at()));
                    }
                }
                1 if n % 50 == 0 => copies.push((slab.clone(), model.clone())),
                2 => {
                    let released = model.keys().nth(len).copied();
                    let Some(slot) = released else { continue };
                    slab.get_mut(slot).unwrap().release();
                    prop_assert!(slab.get(slot).unwrap().1.released());
                }
                _ => {
                    let tool = if own { format!("{}{n}", "t".repeat(len * 4)) } else { format!("shared_{}", len % 5) };
                    let slot = slab.add(second, entry(n as u64), &tool);
                    prop_assert!(model.insert(slot, (n as u64, tool)).is_none());
                }
            }
        }
        copies.push((slab, model));
        for (mut slab, model) in copies {
            holds(&slab, &model);
            let bytes = postcard::to_stdvec(&slab).unwrap();
            let mut back: Slab = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(postcard::to_stdvec(&back).unwrap(), bytes, "wherever its pages lie");
            prop_assert_eq!(contents(&mut back), contents(&mut slab));
        }
    }
}

#[test]
fn the_longest_tools_fit() {
    let mut slab = Slab::default();
    for n in 0..PAGE as u64 {
        slab.add(1, entry(n), &format!("{n:0>256}"));
    }
    for (slot, page, entry) in slab.iter() {
        assert_eq!(page.text(entry.tool), format!("{slot:0>256}"));
    }
    assert_eq!(slab.places(), PAGE as Slot);
}

#[test]
fn a_second_with_one_takes_little() {
    let mut slab = Slab::default();
    let slot = slab.add(1, entry(1), "a_tool");
    let (page, _) = slab.get(slot).unwrap();
    assert!(page.entries.capacity() == 1 && page.text.capacity() <= TEXT_STEP);
}

#[test]
fn what_is_no_page_is_refused() {
    let mut slab = Slab::default();
    slab.add(1, entry(1), "tool");
    let good = postcard::to_stdvec(&slab).unwrap();
    assert!(postcard::from_bytes::<Slab>(&good).is_ok());
    for at in 0..good.len() {
        let (cut, mut flipped) = (&good[..at], good.clone());
        assert!(postcard::from_bytes::<Slab>(cut).is_err(), "cut at {at}");
        flipped[at] ^= 0x40;
        // Whatever it says, it is read without a panic.
        let _ = postcard::from_bytes::<Slab>(&flipped);
    }
}
