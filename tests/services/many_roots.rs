//! A narrowing change that needs more than one record: one commit and one group, all or nothing.

use mayfly::identity::caller::Caller;
use mayfly::identity::svid;
use mayfly::ledger::record::Event;
use mayfly::limits;
use mayfly::policy::exchange_request::TaskChoice;
use mayfly::trust::TrustBundleSource;

use super::kit::house::{DOMAIN, terms, wanted};
use super::kit::pki;
use super::world;

#[test]
fn removing_more_roots_than_a_record_has_targets_revokes_under_all_of_them() {
    let w = world();
    let roots: Vec<_> =
        (0..limits::TARGETS + 6).map(|n| pki::Authority::root_from(&pki::Spec::ca(DOMAIN, &format!("root {n}")))).collect();
    let found = |roots: &[&pki::Authority]| {
        w.run(w.authority().found_bundle(&pki::bundle(DOMAIN, roots), TrustBundleSource::File, "dev.pem")).unwrap().unwrap()
    };
    found(&roots.iter().chain([&w.house.root]).collect::<Vec<_>>());
    let caller = |root: &pki::Authority| {
        let chain = root.svid(&format!("spiffe://{DOMAIN}/agent/a")).chain;
        Caller::from(&svid::verify(&chain, &w.authority().bundles.load(), w.house.now(), limits::SVID_MAX_TTL_MS).unwrap())
    };
    let under: Vec<_> = [&roots[0], &roots[limits::TARGETS - 1], roots.last().unwrap()].map(caller).into();
    let issue = |c: &Caller| w.run(w.authority().exchange(c, &wanted(TaskChoice::Inline(terms().into()))));
    let issued: Vec<_> = under.iter().map(|c| issue(c).unwrap().summary().credential).collect();
    let kept = issue(&caller(&w.house.root)).unwrap().summary().credential;
    found(&[&w.house.root]);
    let good = |id| {
        w.authority().ledger.peek(|s| {
            s.credentials.get(&id).is_some_and(|l| {
                let task = s.tasks.at(l.task()).unwrap();
                s.rules.covers(&s.facts(&l, task)).is_none()
            })
        })
    };
    assert!(issued.iter().all(|id| !good(*id)) && good(kept));
    assert!(under.iter().all(|c| w.authority().still_stands(c).is_err() && issue(c).is_err()));
    // One commit, one group.
    let store = w.authority().ledger.store();
    let last = store.read(store.head().unwrap(), usize::MAX).unwrap().pop().unwrap();
    let commit = mayfly::ledger::commit::Commit::from_bytes(&last.bytes).unwrap();
    let group = commit.records[0].group;
    let revoked: Vec<usize> = commit
        .records
        .iter()
        .filter(|r| r.group == group && group != 0)
        .filter_map(|r| if let Some(Event::Revoked(e)) = &r.event { Some(e.targets.len()) } else { None })
        .collect();
    assert_eq!(revoked, [limits::TARGETS, 6]);
}
