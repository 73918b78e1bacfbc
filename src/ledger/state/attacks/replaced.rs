//! Attacks on retries whose credential replaces the first one.

use super::*;

fn named(record: Record, id: &str) -> Record {
    asked_by("spiffe://a.example/agent", record, id)
}

/// An issuance for a request, with an id that belongs to that request.
fn asked_by(caller: &str, record: Record, id: &str) -> Record {
    let mut record = record.for_request(Some(RequestRecord { caller: caller.into(), id: id.into(), digest: vec![0; 32] }));
    if let Some(Event::Issued(e)) = &mut record.event {
        let own = e.credential.as_slice().try_into().unwrap();
        e.credential = id_for(Some(&request_key(caller, id)), own).as_bytes().to_vec();
    }
    record
}

/// The first credential of a request.
fn first(log: &mut Log, task: &[u8]) -> Vec<u8> {
    let issue = named(log.issue(task), "r");
    let id = id_of(&issue);
    log.put(vec![issue])[0].clone().unwrap();
    id
}

/// A replacement, with the record that gives the replaced credential back.
fn replacement(log: &mut Log, task: &[u8], first: &[u8]) -> Vec<Record> {
    let mut issue = named(log.issue(task), "r");
    if let Some(Event::Issued(e)) = &mut issue.event {
        e.replaces = first.to_vec();
    }
    let released = CredentialReleased { credential: first.to_vec(), keep_until: 0 };
    let agent = Author::SpiffeId("spiffe://a.example/agent".into());
    let both = [Record::new(agent, Event::Released(released)), issue];
    both.map(|r| Record { group: 1, ..r }).into()
}

fn live(log: &Log, id: &[u8]) -> bool {
    log.state.evidence_alive(&CredentialId::from_slice(id).unwrap(), log.time).is_ok()
}

#[test]
fn two_repeats_at_once_give_one_live_credential() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = first(&mut log, &task);
    let (a, b) = (replacement(&mut log, &task, &old), replacement(&mut log, &task, &old));
    assert!(log.put(a.clone()).iter().all(Result::is_ok));
    assert!(log.put(b.clone()).iter().all(Result::is_err));
    assert_eq!((live(&log, &old), live(&log, &id_of(&a[1])), live(&log, &id_of(&b[1]))), (false, true, false));
    let bound = log.state.credentials.of_request(&request_key("spiffe://a.example/agent", "r")).unwrap().id();
    assert_eq!(bound.as_bytes()[..], id_of(&a[1])[..], "the id is bound to the newest");
    assert_eq!(log.state.credentials.remembered("spiffe://a.example/agent"), 1, "and counted once");
    // Two replacements in one batch.
    let newest = id_of(&a[1]);
    let (c, d) = (replacement(&mut log, &task, &newest), replacement(&mut log, &task, &newest));
    assert!(log.put([c, d].concat()).iter().all(Result::is_err));
}

#[test]
fn a_repeat_that_gives_nothing_back_or_another_back_is_void() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = first(&mut log, &task);
    let other = log.issue(&task);
    log.put(vec![other.clone()])[0].clone().unwrap();
    let [released, issue]: [Record; 2] = replacement(&mut log, &task, &old).try_into().unwrap();
    assert!(log.put(vec![Record { group: 0, ..issue.clone() }])[0].is_err(), "both would be live");
    let mut wrong = released.clone();
    if let Some(Event::Released(e)) = &mut wrong.event {
        e.credential = id_of(&other);
    }
    assert!(log.put(vec![wrong, issue.clone()]).iter().all(Result::is_err));
    let behind = vec![issue.clone(), released.clone()];
    assert!(log.put(behind).iter().all(Result::is_err), "for the length of a record both would be live");
    let unnamed = Record { request: None, ..issue.clone() };
    assert!(log.put(vec![released.clone(), unnamed]).iter().all(Result::is_err));
    let strange = asked_by("spiffe://b.example/server", issue.clone(), "r");
    assert!(log.put(vec![released.clone(), strange]).iter().all(Result::is_err), "another caller's request of that name");
    let mut foreign = issue.clone();
    if let Some(Event::Issued(e)) = &mut foreign.event {
        e.caller = "spiffe://b.example/server".into();
    }
    assert!(log.put(vec![released.clone(), foreign]).iter().all(Result::is_err));
    assert!(live(&log, &old));
    assert!(log.put(vec![released, issue]).iter().all(Result::is_ok));
}

#[test]
fn the_id_of_a_credential_is_one_for_its_request() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let good = named(log.issue(&task), "r");
    let mut other = named(log.issue(&task), "s");
    other.request.clone_from(&good.request);
    let no = log.put(vec![other])[0].clone().unwrap_err();
    assert!(no.message.contains("not one for its request"), "{no:?}");
    log.put(vec![good])[0].clone().unwrap();
    // A credential that answers no request is found by its id alone, whatever its first bytes are.
    let mut unnamed = named(log.issue(&task), "t");
    unnamed.request = None;
    let id = id_of(&unnamed);
    log.put(vec![unnamed])[0].clone().unwrap();
    assert!(live(&log, &id));
    assert!(!log.state.knows_request(&request_key("spiffe://a.example/agent", "t")));
    let named = named(log.issue(&task), "t");
    log.put(vec![named.clone()])[0].clone().unwrap();
    let bound = log.state.credentials.of_request(&request_key("spiffe://a.example/agent", "t")).unwrap().id();
    assert_eq!(bound.as_bytes()[..], id_of(&named)[..]);
}

#[test]
fn what_was_revoked_is_not_had_again_by_a_repeat() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = first(&mut log, &task);
    log.revoke(Target::Credential(CredentialId::from_slice(&old).unwrap()), true);
    // Decided after the revocation, which does not cover the replacement because it names another credential.
    let again = replacement(&mut log, &task, &old);
    assert_eq!(reason(&log.put(again)[0]), Reason::Revoked);
    let plain = named(log.issue(&task), "r");
    assert_eq!(reason(&log.put(vec![plain])[0]), Reason::RequestIdReused);
}

#[test]
fn a_request_that_was_forgotten_is_not_replaced_and_what_was_replaced_is_forgotten_in_its_time() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = first(&mut log, &task);
    let again = replacement(&mut log, &task, &old);
    assert!(log.put(again.clone()).iter().all(Result::is_ok));
    log.time = log.time.plus(limits::REQUEST_ID_KEPT_MS + 60_000);
    log.put(vec![note()]);
    log.put(vec![note()]);
    assert_eq!(log.state.credentials.remembered("spiffe://a.example/agent"), 0);
    assert_eq!(log.state.credentials.len(), 0);
    let task = log.opened(&[]);
    let late = replacement(&mut log, &task, &id_of(&again[1]));
    assert!(log.put(late).iter().all(Result::is_err));
    let snapshot = postcard::to_stdvec(&log.state).unwrap();
    let back: State = postcard::from_bytes(&snapshot).unwrap();
    assert_eq!(back.digest().unwrap(), log.state.digest().unwrap());
}

#[test]
fn a_request_is_remembered_after_what_it_made_has_ended() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = first(&mut log, &task);
    let agent = "spiffe://a.example/agent";
    let (key, id) = (request_key(agent, "r"), CredentialId::from_slice(&old).unwrap());
    log.time = log.time.plus(32_000);
    log.put(vec![note()]);
    let known = |state: &State| {
        let made = state.credentials.asked(&key);
        assert!(matches!(made, Some(AnsweredRequest::Ended(made, _)) if made == id));
        assert!(
            state.knows_request(&key) && state.credentials.of_request(&key).is_none() && state.credentials.get(&id).is_none()
        );
        assert_eq!((state.credentials.len(), state.credentials.ended(), state.credentials.remembered(agent)), (0, 1, 1));
    };
    known(&log.state);
    let back: State = postcard::from_bytes(&postcard::to_stdvec(&log.state).unwrap()).unwrap();
    known(&back);
    assert_eq!(back.digest().unwrap(), log.state.digest().unwrap());
    let again = named(log.issue(&task), "r");
    assert_eq!(reason(&log.put(vec![again])[0]), Reason::RequestIdReused);
    let instead = replacement(&mut log, &task, &old);
    assert!(log.put(instead).iter().all(Result::is_err), "what has ended is not replaced");
    known(&log.state);
    log.time = log.time.plus(limits::REQUEST_ID_KEPT_MS);
    log.put(vec![note()]);
    assert_eq!((log.state.credentials.ended(), log.state.credentials.remembered(agent)), (0, 0));
    let other = log.opened(&[]);
    let anew = named(log.issue(&other), "r");
    log.put(vec![anew])[0].clone().unwrap();
}
