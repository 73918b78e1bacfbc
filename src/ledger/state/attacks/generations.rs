//! Generations, and time in them.

use super::*;

#[test]
fn a_void_generation_gives_no_seq_twice() {
    let mut log = Log::new();
    log.put(vec![generation(2, false)])[0].clone().unwrap();
    log.put(vec![note(), note()]);
    let before = log.state.head;
    assert!(log.put(vec![generation(2, false)])[0].is_err());
    assert_eq!(Some(log.state.head), before.next());
}

#[test]
fn a_void_generation_does_not_let_time_go_back() {
    let mut log = Log::new();
    let (now, chain) = (log.time, log.chain);
    log.time = Millis(10);
    let encoded = EncodedRecord::new(generation(1, true)).unwrap();
    let (bytes, _) = pack(1, chain, log.time, std::iter::once(&encoded));
    let commit = Commit::from_bytes(&bytes.into()).unwrap();
    assert!(log.state.fold(9, &commit).is_err());
    assert_eq!(log.state.time, now);
}

#[test]
fn a_generation_goes_on_above_what_others_have_seen_and_names_its_store() {
    let mut log = Log::new();
    assert!(log.put(vec![generation(256, false)])[0].is_err());
    let mut nameless = generation(4, false);
    if let Some(Event::GenerationBegun(e)) = &mut nameless.event {
        e.store.clear();
    }
    assert!(log.put(vec![nameless])[0].is_err(), "the next generation would take itself for the first");
    log.put(vec![generation(4, false)])[0].clone().unwrap();
    assert_eq!(log.state.head.generation(), 4);
}

#[test]
fn a_generation_in_an_empty_store_revokes_too() {
    let mut state = State::default();
    let encoded = EncodedRecord::new(generation(4, false)).unwrap();
    let (bytes, _) = pack(1, WriterHead::START, Millis(10), std::iter::once(&encoded));
    state.fold(1, &Commit::from_bytes(&bytes.into()).unwrap()).unwrap();
    let old = crate::revocation::Facts { revision: Seq::start_of(3), ..Default::default() };
    assert!(state.rules.covers(&old).is_some());
}

#[test]
fn the_rule_of_a_generation_outlasts_a_time_that_was_too_late() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = log.issue(&task);
    let (revision, far) = (old.revision(), 400 * limits::TASK_TTL_MS);
    log.time = log.time.plus(far);
    log.put(vec![note()]);
    log.time = log.time.minus(far);
    log.put(vec![generation(2, true)])[0].clone().unwrap();
    log.time = log.time.plus(far);
    log.put(vec![note()]);
    let old = crate::revocation::Facts { revision, ..Default::default() };
    assert!(log.state.rules.covers(&old).is_some(), "a credential of the year that never was");
}

#[test]
fn a_request_id_of_the_generation_before_does_not_make_its_namesake_forgotten() {
    let mut log = Log::new();
    let request = RequestRecord { caller: "c".into(), id: "1".into(), digest: vec![0; 32] };
    let ask = |log: &mut Log| {
        let task = log.task(&[]);
        log.put(vec![task.for_request(Some(request.clone()))])[0].clone()
    };
    ask(&mut log).unwrap();
    log.time = log.time.plus(limits::TASK_TTL_MS - 1000);
    log.put(vec![generation(2, false)])[0].clone().unwrap();
    ask(&mut log).unwrap();
    log.time = log.time.plus(2000);
    log.put(vec![note()]);
    assert_eq!(reason(&ask(&mut log)), Reason::RequestIdReused);
}
