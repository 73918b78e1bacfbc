//! Tests of rules: what they match, and when they end.

use super::*;
use crate::revocation::SvidFacts;
use crate::revocation::target::one_of_each;

fn tool(n: u8) -> Target {
    Target::Tool(format!("t{n}").into())
}

#[test]
fn a_copy_drops_the_same_rules_in_the_same_order() {
    let mut rules = Rules::default();
    // Added against the order of targets, and one of them twice.
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
    rules.add(&tool(1), Some(Seq::start_of(1)), Some(Seq::start_of(1)), Millis(5_000));
    rules.expire(Millis(10_000), 9);
    assert_eq!(rules.len(), 1, "locks stay until lifted");
    assert!(rules.lift(&tool(1)));
    rules.expire(Millis(10_000), 9);
    assert!(rules.is_empty() && rules.ends().is_empty());
}

/// Facts that this target matches, and no other of the targets.
fn facts_of(target: &Target) -> Facts<'_> {
    let mut facts = Facts::default();
    match target {
        Target::Credential(id) => facts.credentials.push(*id),
        Target::Task(id) => facts.tasks.push(*id),
        Target::Caller(n) | Target::Prefix(n) => facts.identities.push(("", n)),
        Target::TrustDomain(n) => facts.svid = Some(svid(n, &[], &[], &[])),
        Target::TrustAnchor(hash) => facts.svid = Some(svid("", hash, &[], &[])),
        Target::Subject(issuer, sub) => facts.identities.push((issuer, sub)),
        Target::Upstream(n) => facts.upstream = n,
        Target::UpstreamScope(n, scope) => (facts.upstream, facts.scopes) = (n, vec![&**scope]),
        Target::Binding(n) => facts.binding = n,
        Target::Tool(n) => facts.tool = n,
        Target::Environment(n) => facts.environment = n,
        Target::PolicyBelow(n, version) => (facts.environment, facts.policy) = (n, version - 1),
        Target::SigningKey(n) => facts.key = n,
        Target::Svid(domain, key, serial) => facts.svid = Some(svid(domain, &[], key, serial)),
        Target::SubjectToken(issuer, id) => facts.subject_token = Some((issuer, id)),
        Target::Everything => {}
    }
    facts
}

fn svid<'a>(trust_domain: &'a str, anchor: &'a [u8], issuing_key: &'a [u8], serial: &'a [u8]) -> SvidFacts<'a> {
    SvidFacts { trust_domain, anchor, issuing_key, serial }
}

#[test]
fn where_no_rule_may_block_none_does_whatever_it_aims_at() {
    let seq = |n: u64| Seq::from_u64(Seq::start_of(1).as_u64() + n).unwrap();
    let mut bit = 0;
    for target in one_of_each() {
        for (revoked, lock) in [(Some(seq(10)), None), (None, Some(seq(10))), (Some(seq(10)), Some(seq(10)))] {
            let mut rules = Rules::default();
            rules.add(&target, revoked, lock, Millis(u64::MAX));
            for revision in [seq(9), seq(10), seq(11)] {
                let facts = Facts { revision, ..facts_of(&target) };
                let blocked = rules.blocks(&facts).is_some();
                assert!(!blocked || rules.may_block(revision).has(target.sort()), "{target} {revoked:?} {lock:?} {revision:?}");
                // Decided before the revocation, or locked: the rule must block, so that the test can fail. A policy version cannot be
                // locked.
                let locked = lock.is_some() && target.sort() != TargetKind::PolicyBelow;
                let covered = revoked.is_some() && revision < seq(10);
                assert!(blocked || !(locked || covered), "{target} {revoked:?} {lock:?} {revision:?}");
                bit += usize::from(blocked);
            }
        }
    }
    assert!(bit > 6 * one_of_each().len());
    assert!(Rules::default().may_block(seq(9)).is_empty(), "and where there is no rule, nothing is gathered");
}
