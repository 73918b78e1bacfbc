//! Tests that entries keep their tools, and of the size of pages.

use proptest::prelude::*;

use super::super::entry::EntryFields;
use super::*;
use mayfly_verify::seq::{CredentialId, Millis, Seq};

fn entry(n: u64) -> CredentialEntry {
    CredentialEntry::new(&EntryFields {
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

fn tools(page: &CredentialPage) -> Vec<(u64, String)> {
    page.entries().iter().map(|entry| (entry.at(), page.text(entry.tool).to_owned())).collect()
}

proptest! {
    #[test]
    fn each_entry_keeps_its_tool(all in prop::collection::vec((0usize..60, any::<bool>()), 1..CredentialPage::MOST)) {
        let (mut page, mut model, mut copies) = (CredentialPage::default(), Vec::new(), Vec::new());
        for (n, (len, own)) in all.into_iter().enumerate() {
            let tool = if own { format!("{}{n}", "t".repeat(len * 4)) } else { format!("shared_{}", len % 5) };
            page.push(entry(n as u64), &tool);
            model.push((n as u64, tool));
            if len == 0 {
                copies.push((page.clone(), model.clone()));
            }
        }
        copies.push((page, model));
        for (page, model) in copies {
            prop_assert_eq!(tools(&page), model.clone());
            let bytes = postcard::to_stdvec(&page).unwrap();
            let back: CredentialPage = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(tools(&back), model);
            prop_assert_eq!(postcard::to_stdvec(&back).unwrap(), bytes, "wherever its text lies");
        }
    }
}

#[test]
fn the_longest_tools_fit() {
    let mut page = CredentialPage::default();
    (0..CredentialPage::MOST as u64).for_each(|n| page.push(entry(n), &format!("{n:0>256}")));
    assert!(tools(&page).iter().all(|(n, tool)| *tool == format!("{n:0>256}")));
}

#[test]
fn one_alone_takes_little() {
    let mut page = CredentialPage::default();
    page.push(entry(1), "a_tool");
    assert!(page.entries.capacity() == 1 && page.text.capacity() <= TEXT_STEP);
}

#[test]
fn what_is_no_page_is_refused() {
    let mut page = CredentialPage::default();
    page.push(entry(1), "tool");
    let good = postcard::to_stdvec(&page).unwrap();
    assert!(postcard::from_bytes::<CredentialPage>(&good).is_ok());
    for at in 0..good.len() {
        let (cut, mut flipped) = (&good[..at], good.clone());
        assert!(postcard::from_bytes::<CredentialPage>(cut).is_err(), "cut at {at}");
        flipped[at] ^= 0x40;
        // Any bytes must decode or fail without a panic.
        let _ = postcard::from_bytes::<CredentialPage>(&flipped);
    }
}
