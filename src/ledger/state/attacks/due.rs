//! Deadlines are recorded once each, and not too early.

use super::*;

fn due(of: DeadlineKind, id: &[u8], name: &str, version: u64) -> Record {
    let due = DeadlineReached { of: of as i32, id: id.to_vec(), name: name.into(), version, ..Default::default() };
    Record::new(Author::Mayfly("fell due".into()), Event::FellDue(due))
}

#[test]
fn an_approval_that_nobody_gave_is_told_once_and_not_before_its_time() {
    let mut log = Log::new();
    let (approval, ask) = asked(&mut log, &[]);
    log.put(vec![ask])[0].clone().unwrap();
    let told = |log: &mut Log| log.put(vec![due(DeadlineKind::Approval, &approval, "", 0)])[0].clone();
    assert_eq!(reason(&told(&mut log)), Reason::DecidedOnOldState, "it still waits");
    log.time = log.time.plus(60_000);
    told(&mut log).unwrap();
    assert_eq!(reason(&told(&mut log)), Reason::DecidedOnOldState, "twice");
    let (given, ask) = asked(&mut log, &[]);
    log.put(vec![ask])[0].clone().unwrap();
    let give = super::given(&log, &given);
    log.put(vec![give])[0].clone().unwrap();
    log.time = log.time.plus(60_000);
    assert_eq!(reason(&log.put(vec![due(DeadlineKind::Approval, &given, "", 0)])[0]), Reason::DecidedOnOldState, "it was given");
    assert_eq!(reason(&log.put(vec![due(DeadlineKind::Unspecified, &given, "", 0)])[0]), Reason::InvalidField);
}

#[test]
fn a_registration_is_told_once_for_each_version() {
    let mut log = Log::new();
    let told = |log: &mut Log, version| log.put(vec![due(DeadlineKind::Upstream, &[], "echo", version)])[0].clone();
    told(&mut log, 1).unwrap();
    assert!(told(&mut log, 1).is_err() && told(&mut log, 2).is_err());
    let next = UpstreamUpdated { name: "echo".into(), version: 2, ..Default::default() };
    log.put(vec![by_operator(Event::UpstreamSet(next))])[0].clone().unwrap();
    assert!(told(&mut log, 1).is_err(), "no longer in force");
    told(&mut log, 2).unwrap();
}
