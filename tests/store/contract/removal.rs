//! The clauses about removal, and about a first position after a removed beginning.

use mayfly::limits;
use mayfly::store::{Store, StoreError};

use super::{Engine, fill, places};

pub fn removal_keeps_order_and_the_newest<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    fill(&**s, 10, 100);
    s.remove_before(0).unwrap();
    s.remove_before(1).unwrap();
    assert_eq!(s.oldest().unwrap(), 1);
    s.remove_before(4).unwrap();
    assert_eq!((s.oldest().unwrap(), s.head().unwrap()), (4, 10));
    assert_eq!(places(&s.read(1, 10_000).unwrap()), [4, 5, 6, 7, 8, 9, 10]);
    s.remove_before(2).unwrap();
    assert_eq!(s.oldest().unwrap(), 4);
    s.remove_before(u64::MAX).unwrap();
    assert_eq!((s.oldest().unwrap(), s.head().unwrap()), (10, 10));
    fill(&**s, 11, 100);
    assert_eq!(places(&s.read(0, 10_000).unwrap()), [10, 11]);
}

pub fn removal_of_many_is_whole<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    let many = limits::STORE_REMOVE_COMMITS as u64 * 2 + 10;
    fill(&**s, many, 8);
    s.remove_before(many - 1).unwrap();
    assert_eq!((s.oldest().unwrap(), s.head().unwrap()), (many - 1, many));
    assert_eq!(places(&s.read(0, 10_000).unwrap()), [many - 1, many]);
}

pub fn removal_in_steps_lets_others_go_between<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    let all = 3 * limits::STORE_REMOVE_COMMITS as u64;
    fill(&**s, all, 10);
    let (mut oldest, mut steps) = (1, 0);
    while oldest < all - 5 {
        let now = s.remove_some(all - 5).unwrap();
        assert!(now > oldest && now <= all - 5, "{now}");
        s.append(s.head().unwrap() + 1, b"between").unwrap();
        (oldest, steps) = (now, steps + 1);
    }
    assert_eq!((s.oldest().unwrap(), s.head().unwrap()), (all - 5, all + steps));
    assert_eq!(s.remove_some(all - 5).unwrap(), all - 5, "nothing is left to do");
}

pub fn an_empty_store_may_begin_elsewhere<E: Engine>() {
    let e = E::make(10);
    let s = e.store();
    s.begin_at(40).unwrap();
    assert_eq!(s.oldest().unwrap(), 0, "nothing is there yet");
    assert!(matches!(s.append(1, b"x"), Err(StoreError::NotNext { asked: 1, next: 40 })));
    s.append(40, b"x").unwrap();
    s.append(41, b"y").unwrap();
    assert_eq!((s.oldest().unwrap(), s.head().unwrap()), (40, 41));
    assert_eq!(places(&s.read(1, 100).unwrap()), [40, 41]);
    assert!(matches!(s.begin_at(90), Err(StoreError::NotNext { .. })), "it has begun");
    let Some(e) = e.again() else { return };
    assert_eq!((e.store().oldest().unwrap(), e.store().head().unwrap()), (40, 41));
}
