//! The fold refuses lasting changes by people who act in break-glass.

use super::*;

/// Each of the two people of a break-glass task is refused every lasting change, and may revoke.
#[test]
fn whoever_acts_in_one_changes_nothing_that_lasts_and_takes_away() {
    let policy = |version| Event::PolicySet(PolicySetUpdated { environment: "prod".into(), version, ..Default::default() });
    let binding = || Event::BindingSet(BindingUpdated { name: "b".into(), version: 1, ..Default::default() });
    let leaves = || Event::OwnerLeft(OwnerLeft { owner: "o".into(), ..Default::default() });
    let upstream = Target::Upstream("wiki".into());
    let aims = |lock_only| {
        let targets = vec![upstream.to_record()];
        Event::Revoked(TargetsRevoked { targets, lock_only, reason: "r".into(), ..Default::default() })
    };
    let lifts = || Event::LockLifted(LockLifted { targets: vec![upstream.to_record()], ..Default::default() });
    for who in [ADA, BEN] {
        let mut log = Log::new();
        log.put(vec![by_operator(aims(true))])[0].clone().unwrap();
        let by = |log: &mut Log, event: Event| {
            let record = Record::new(who.who(), event).decided_at(log.state.head);
            log.put(vec![record])[0].clone()
        };
        let waiting = open(&mut log, ADA).unwrap();
        by(&mut log, policy(1)).unwrap();
        join(&mut log, &waiting, ADA, BEN).unwrap();
        for event in [policy(2), binding(), leaves(), aims(true), lifts()] {
            let name = format!("{event:?}");
            assert_eq!(reason(&by(&mut log, event)), Reason::NotYours, "{name}");
        }
        by(&mut log, aims(false)).unwrap();
        log.put(vec![Record::new(MARY.who(), policy(2)).decided_at(log.state.head)])[0].clone().unwrap();
        close(&mut log, &waiting);
        by(&mut log, policy(3)).unwrap();
    }
}

#[test]
fn an_approval_is_given_by_nobody_who_acts_in_one() {
    let mut log = Log::new();
    let task = log.task(&[]);
    let id = id_of(&task);
    log.put(vec![task])[0].clone().unwrap();
    let (approval, ask) = asked(&mut log, &id);
    log.put(vec![ask])[0].clone().unwrap();
    let break_glass = active(&mut log);
    assert_eq!(
        reason(&{
            let gives = given(&log, &approval);
            log.put(vec![gives])[0].clone()
        }),
        Reason::NotYours
    );
    close(&mut log, &break_glass);
    let gives = given(&log, &approval);
    log.put(vec![gives])[0].clone().unwrap();
}
