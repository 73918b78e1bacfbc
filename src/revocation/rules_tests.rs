//! Rules against what they match, and their end.

use super::*;

fn tool(n: u8) -> Target {
    Target::Tool(format!("t{n}").into())
}

#[test]
fn a_copy_drops_the_same_rules_in_the_same_order() {
    let mut rules = Rules::default();
    // Put in against the order of the targets, and one of them twice.
    for n in (0..9).rev() {
        rules.add(&tool(n), Some(Seq::start_of(1)), None, Millis(5));
    }
    rules.add(&tool(4), Some(Seq::start_of(1)), None, Millis(6));
    let mut copy = Rules::from_parts(rules.entries(), rules.ends().clone(), rules.dropped());
    for now in 6..12 {
        assert_eq!(rules.expire(Millis(now), 2), copy.expire(Millis(now), 2));
        assert_eq!(rules.entries(), copy.entries());
    }
}

#[test]
fn a_rule_whose_end_came_under_a_lock_is_dropped_after_the_lift() {
    let mut rules = Rules::default();
    rules.add(&tool(1), Some(Seq::start_of(1)), Some(Seq::start_of(1)), Millis(5));
    rules.expire(Millis(10), 9);
    assert_eq!(rules.len(), 1, "locks stay until lifted");
    assert!(rules.lift(&tool(1)));
    rules.expire(Millis(10), 9);
    assert!(rules.is_empty() && rules.ends().is_empty());
}
