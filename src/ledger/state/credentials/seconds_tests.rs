//! Tests `ExpiryPages` against a map, and the decoding of bad input.

use super::*;
use proptest::prelude::*;

type Few = Vec<u32>;

impl ExpiryPage for Few {
    type Entry = u32;

    const MOST: usize = 4;

    fn entries(&self) -> &[u32] {
        self
    }

    fn entries_mut(&mut self) -> &mut [u32] {
        self
    }
}

/// The pages of each second.
type Model = BTreeMap<u64, Vec<Few>>;

/// A moment that has passed at the end of this second.
fn before(second: u64) -> Millis {
    Millis((second - 1) * 1000 + 999)
}

proptest! {
    #[test]
    fn entries_stay_until_their_second_and_copies_stay_as_they_were(
        ops in prop::collection::vec((0u8..12, 1u64..12, any::<u32>()), 0..1_000)
    ) {
        let (mut seconds, mut model, mut copies) = (ExpiryPages::<Few>::default(), Model::new(), Vec::new());
        let mut places = BTreeMap::new();
        for (op, second, n) in ops {
            match op {
                0..8 => {
                    let slot = seconds.add(before(second), |page| page.push(n));
                    prop_assert!(places.insert(slot, n).is_none());
                    let pages = model.entry(second).or_default();
                    match pages.last_mut().filter(|page| page.len() < Few::MOST) {
                        Some(page) => page.push(n),
                        None => pages.push(vec![n]),
                    }
                }
                8 => {
                    let Some((&slot, &now)) = places.iter().nth(second as usize) else { continue };
                    // So that the model can find it again.
                    let Some(entry) = model.values_mut().flatten().flatten().find(|entry| **entry == now) else { continue };
                    if places.values().filter(|n| **n == now).count() == 1 {
                        (*seconds.get_mut(slot).unwrap(), *entry) = (n, n);
                        places.insert(slot, n);
                    }
                }
                9 => {
                    prop_assert!(seconds.get_mut(seconds.places()).is_none());
                    let due = seconds.due(Millis(second * 1000));
                    let expected = model.first_entry().filter(|first| *first.key() <= second).map(|mut first| {
                        let page = first.get_mut().pop().unwrap();
                        if first.get().is_empty() { first.remove(); }
                        page
                    });
                    prop_assert_eq!(due.as_ref().map(|(_, page)| &**page), expected.as_ref());
                    for (slot, n) in due.iter().flat_map(|(first, page)| (*first..).zip(page.iter())) {
                        prop_assert_eq!((places.remove(&slot), seconds.get(slot)), (Some(*n), None));
                    }
                }
                _ => copies.push((seconds.clone(), model.clone(), places.clone())),
            }
        }
        copies.push((seconds, model, places));
        for (seconds, model, places) in copies {
            prop_assert_eq!(seconds.iter().map(|(slot, n)| (slot, *n)).collect::<BTreeMap<_, _>>(), places.clone());
            prop_assert!(places.iter().all(|(slot, n)| seconds.get(*slot).unwrap().1 == n && *slot < seconds.places()));
            prop_assert_eq!(seconds.len(), places.len());
            let bytes = postcard::to_stdvec(&seconds).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_stdvec(&model).unwrap());
            let back: ExpiryPages<Few> = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(back.len(), places.len());
            prop_assert_eq!(postcard::to_stdvec(&back).unwrap(), bytes, "wherever its pages lie");
        }
    }
}

#[test]
fn nothing_is_due_before_its_moment_has_passed_and_places_are_used_again() {
    let mut seconds = ExpiryPages::<Few>::default();
    let add = |seconds: &mut ExpiryPages<Few>, n: u32, moment| seconds.add(Millis(moment), |page| page.push(n));
    let places = [(1, 5_000), (2, 3_000), (3, 9_000), (4, 3_999)].map(|(n, moment)| add(&mut seconds, n, moment));
    assert_eq!(places, [0, 4, 8, 5], "what ends in one second lies together");
    assert!(seconds.due(Millis(3_999)).is_none());
    assert_eq!(seconds.due(Millis(4_000)), Some((4, Arc::new(vec![2, 4]))));
    assert!(seconds.due(Millis(4_000)).is_none());
    assert_eq!((add(&mut seconds, 5, 4_500), seconds.len(), seconds.places()), (4, 3, 12));
}

#[test]
fn what_is_no_page_is_refused() {
    let written = |page: usize| postcard::to_stdvec(&Model::from([(7, vec![vec![1; page]])])).unwrap();
    assert!(postcard::from_bytes::<ExpiryPages<Few>>(&written(4)).is_ok());
    for wrong in [0, 5] {
        assert!(postcard::from_bytes::<ExpiryPages<Few>>(&written(wrong)).is_err(), "{wrong} entries");
    }
    for at in 0..written(4).len() {
        assert!(postcard::from_bytes::<ExpiryPages<Few>>(&written(4)[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_page_has_room_for_what_came_and_never_for_more_than_its_bound() {
    let mut page = Vec::new();
    for n in 0..100 {
        make_room(&mut page, 100);
        page.push(n);
        assert!(page.capacity() <= (2 * page.len()).min(100), "{} for {}", page.capacity(), page.len());
    }
    let mut copy = page[..37].to_vec();
    make_room(&mut copy, 40);
    assert_eq!(copy.capacity(), 40);
}
