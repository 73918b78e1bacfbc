//! Attacks on removals of history: never more is removed than a start can do without, and the removed part never shrinks.

use super::*;

fn taken(log: &Log) -> Record {
    let taken = SnapshotTaken { seq: log.state.head.as_u64(), position: log.state.position, digest: vec![3; 32] };
    Record::new(Author::Mayfly("snapshot".into()), Event::SnapshotTaken(taken))
}

fn removed(log: &Log, before: u64) -> HistoryRemoved {
    let chains = vec![WriterHeadRecord { writer: 1, number: before - 1, header: vec![4; 32] }];
    HistoryRemoved { before, seq: log.state.head.as_u64(), bytes: 1, time: log.time.0, chains }
}

fn put(log: &mut Log, removed: HistoryRemoved) -> Verdict {
    log.put(vec![Record::new(Author::Mayfly("audit.keep".into()), Event::HistoryRemoved(removed))])[0].clone()
}

#[test]
fn nothing_goes_that_no_snapshot_covers_and_what_is_gone_stays_gone() {
    let mut log = Log::new();
    for _ in 0..5 {
        log.opened(&[]);
    }
    let none = removed(&log, 2);
    assert_eq!(reason(&put(&mut log, none)), Reason::DecidedOnOldState, "there is no snapshot");
    let record = taken(&log);
    let covered = log.state.position;
    log.put(vec![record])[0].clone().unwrap();
    let beyond = removed(&log, covered + 2);
    assert_eq!(reason(&put(&mut log, beyond)), Reason::DecidedOnOldState);
    let most = removed(&log, covered + 1);
    put(&mut log, most.clone()).unwrap();
    assert_eq!(log.state.removed.to_record(), most);
    for before in [1, covered, covered + 1] {
        let again = removed(&log, before);
        assert_eq!(reason(&put(&mut log, again)), Reason::DecidedOnOldState, "{before}");
    }
}

#[test]
fn a_removal_says_where_each_chain_stands_and_claims_nothing_of_the_future() {
    let mut log = Log::new();
    log.opened(&[]);
    let record = taken(&log);
    log.put(vec![record])[0].clone().unwrap();
    let good = removed(&log, 2);
    let change = |change: fn(&mut HistoryRemoved)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let bad = [
        change(|e| e.chains.clear()),
        change(|e| e.chains[0].header.truncate(31)),
        change(|e| e.chains[0].writer = 7),
        change(|e| e.seq += 1_000),
        change(|e| e.bytes = u64::MAX),
    ];
    for (n, bad) in bad.into_iter().enumerate() {
        assert!(put(&mut log, bad).is_err(), "change {n}");
    }
    put(&mut log, good).unwrap();
}

#[test]
fn what_an_entry_has_no_room_for_is_void() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let named = |log: &mut Log, tool: usize| {
        let mut record = log.issue(&task);
        if let Some(Event::Issued(e)) = &mut record.event {
            e.tool = "t".repeat(tool);
        }
        log.put(vec![record])[0].clone()
    };
    named(&mut log, limits::NAME_BYTES).unwrap();
    assert_eq!(reason(&named(&mut log, limits::NAME_BYTES + 1)), Reason::InvalidField);
    let old = log.issue(&task);
    log.state.head = Seq::from_u64(log.state.head.as_u64() + limits::REVISION_BEHIND - 1).unwrap();
    log.put(vec![old])[0].clone().unwrap();
    let older = log.issue(&task);
    log.state.head = Seq::from_u64(log.state.head.as_u64() + limits::REVISION_BEHIND).unwrap();
    assert_eq!(reason(&log.put(vec![older])[0]), Reason::DecidedOnOldState);
}
