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

fn holds(slab: &Slab, model: &BTreeMap<Slot, (u64, String)>) {
    for slot in 0..slab.len() as Slot {
        let found = slab.get(slot).map(|(page, entry)| (entry.at(), page.text(entry.tool).to_owned()));
        assert_eq!(found.as_ref(), model.get(&slot));
    }
}

proptest! {
    #[test]
    fn each_place_keeps_its_entry_and_its_tool(
        ops in prop::collection::vec((0u32..400, 0usize..4, 0usize..60, any::<bool>()), 0..1_500)
    ) {
        let mut slab = Slab::default();
        (0..400).for_each(|slot| assert_eq!(slab.push(), slot));
        let (mut model, mut copies) = (BTreeMap::new(), Vec::new());
        for (n, (slot, what, len, own)) in ops.into_iter().enumerate() {
            match what {
                0 => prop_assert_eq!(slab.take(slot).map(|e| e.at()), model.remove(&slot).map(|(n, _)| n)),
                1 if n % 50 == 0 => copies.push((slab.clone(), model.clone())),
                _ => {
                    let tool = if own { format!("{}{n}", "t".repeat(len * 4)) } else { format!("shared_{}", len % 5) };
                    slab.put(slot, entry(n as u64), &tool);
                    model.insert(slot, (n as u64, tool));
                }
            }
        }
        copies.push((slab, model));
        for (slab, model) in copies {
            holds(&slab, &model);
            let bytes = postcard::to_stdvec(&slab).unwrap();
            let back: Slab = postcard::from_bytes(&bytes).unwrap();
            holds(&back, &model);
            prop_assert_eq!(postcard::to_stdvec(&back).unwrap(), bytes, "whatever order it came to be in");
        }
    }
}

#[test]
fn tools_that_are_gone_take_no_room() {
    let mut slab = Slab::default();
    slab.push();
    for n in 0..100_000 {
        slab.put(0, entry(n), &format!("{n:0200}"));
    }
    assert!(slab.pages[0].text.capacity() <= 4 * TEXT_STEP, "{}", slab.pages[0].text.capacity());
}

#[test]
fn the_longest_tools_fit() {
    let mut slab = Slab::default();
    for round in 0..3 {
        for slot in 0..PAGE as Slot {
            if round == 0 {
                slab.push();
            }
            slab.put(slot, entry(slot.into()), &format!("{:0>256}", slot + round * 1_000));
        }
    }
    for slot in 0..PAGE as Slot {
        let (page, entry) = slab.get(slot).unwrap();
        assert_eq!(page.text(entry.tool), format!("{:0>256}", slot + 2_000));
    }
}

#[test]
fn what_is_no_page_is_refused() {
    let mut slab = Slab::default();
    slab.push();
    slab.put(0, entry(1), "tool");
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
