//! Tests from a grant to an answer, and of repeats of a request.

use super::kind::{RemintInput, mint_local, remake_local};
use super::reference::ReferenceToken;
use super::status_list::StatusListAllocator;
use super::testing::{TestLog, TestSealer, carry_out, full, grant, keyring, plain};
use super::*;
use mayfly_base::refusal::{Error, Reason};
use mayfly_ledger::Receipt;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::{Event, KeyPurpose, Record, TaskOpened};
use mayfly_ledger::state::{id_for, request_key};
use mayfly_policy::grant::{GrantParts, TaskPath};
use mayfly_verify::seq::{CredentialId, Millis, Seq};

const T0: Millis = Millis(1_700_000_000_000);

fn status() -> StatusListAllocator {
    StatusListAllocator::new(Seq::from_u64(5).unwrap(), &[9; 32])
}

fn token(issued: IssuedCredential) -> String {
    match issued.into_parts().2 {
        CredentialMaterial::Bearer { token, .. } => token.into_text(),
        _ => panic!("no token"),
    }
}

fn refused(no: Option<Error>) -> Reason {
    match no {
        Some(Error::Refusal(no)) => no.reason,
        other => panic!("{other:?}"),
    }
}

fn id(n: u8) -> CredentialId {
    id_for(Some(&request_key(super::testing::AGENT, "req-1")), [n; 16])
}

fn past<'a>(record: &'a Record, parts: &'a GrantParts) -> RemintInput<'a> {
    RemintInput {
        record,
        path: &parts.path,
        grounds: &parts.grounds,
        audience: &parts.audience,
        base_url: &parts.base_url,
        issuer: &parts.issuer,
        settings: &parts.settings,
    }
}

#[test]
fn a_repeat_gives_the_same_claims_by_the_same_key_or_nothing() {
    let mut log = TestLog::new(T0);
    let (ring, store) = keyring(&mut log);
    for kind in [CredentialKind::Jwt, CredentialKind::Reference] {
        let mut parts = full(T0, log.state.head);
        parts.draft.kind = kind.number();
        let mut minted = mint_local(grant(parts.clone()), id(1), 1, &ring, &status(), Vec::new(), T0).ok().unwrap();
        let records = minted.records();
        assert!(minted.records().is_empty(), "handed over once");
        let first = token(minted.reveal(Receipt::of_test(id(1))).unwrap());
        let Some(Event::Issued(e)) = &records[0].event else { panic!() };
        let signed = first.rsplit_once('.').map_or(&*first, |(signed, _)| signed);
        assert_eq!(e.token_digest, sha256(signed.as_bytes()));

        let mut again = remake_local(&past(&records[0], &parts), &ring).ok().unwrap();
        assert!(again.records().is_empty(), "it is in the ledger already");
        let again = again.reveal(Receipt::of_test(id(1))).unwrap();
        assert_eq!(again.summary().about.novelty, Novelty::Same);
        let again = token(again);
        match kind {
            CredentialKind::Jwt => {
                assert_eq!(again.rsplit_once('.').unwrap().0, signed);
                assert_ne!(again, first, "ES256 signatures differ");
            }
            _ => assert_eq!(again, first),
        }
        let moved = GrantParts { audience: "https://elsewhere.example".into(), ..parts.clone() };
        if kind == CredentialKind::Jwt {
            assert_eq!(refused(remake_local(&past(&records[0], &moved), &ring).err()), Reason::DecidedOnOldState);
        }
        assert_eq!(refused(remake_local(&past(&records[0], &parts), &keyring::Keyring::default()).err()), Reason::KeyState);
    }
    // A retired key still makes its own credentials again, but no new ones.
    let parts = plain(1, T0, log.state.head);
    let records = mint_local(grant(parts.clone()), id(2), 1, &ring, &status(), Vec::new(), T0).ok().unwrap().records();
    let plan = keyring::rotate(&log.state.keys, KeyPurpose::AccessToken, "dev", 0).unwrap();
    carry_out(&mut log, &store, KeyPurpose::AccessToken, plan);
    ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
    assert!(remake_local(&past(&records[0], &parts), &ring).is_ok());
    let next = mint_local(grant(parts), id(3), 1, &ring, &status(), Vec::new(), T0).ok().unwrap().records();
    let key = |r: &Record| match &r.event {
        Some(Event::Issued(e)) => e.key.clone(),
        _ => panic!(),
    };
    assert_ne!(key(&records[0]), key(&next[0]));
    assert!(log.put(next)[0].is_ok());
    assert!(log.put(records)[0].is_err(), "decided with the old key, committed after");
}

#[test]
fn an_inline_task_and_its_issuance_are_one_group_and_the_request_is_on_the_issuance() {
    let mut log = TestLog::new(T0);
    let (ring, _) = keyring(&mut log);
    let mut parts = plain(2, T0, log.state.head);
    let task = TaskOpened {
        task: vec![8; 16],
        owner: Some(super::testing::owner()),
        opener: super::testing::AGENT.into(),
        environment: "dev".into(),
        opened_at: T0.0,
        deadline: T0.0 + 600_000,
        max_deadline: T0.0 + 600_000,
        policy_version: 1,
        ..Default::default()
    };
    parts.draft.task = task.task.clone();
    parts.path =
        TaskPath::New { tasks: vec![mayfly_verify::seq::TaskId::from_bytes([8; 16])], owners: vec![super::testing::owner()] };
    parts.opens = Some(task.into());
    let records = mint_local(grant(parts), id(1), 41, &ring, &status(), Vec::new(), T0).ok().unwrap().records();
    assert_eq!(records.iter().map(|r| (r.group, r.request.is_some())).collect::<Vec<_>>(), [(41, false), (41, true)]);
    assert!(log.put(records).iter().all(Result::is_ok));
    let key = request_key(super::testing::AGENT, "req-1");
    assert_eq!(log.state.credentials.of_request(&key).unwrap().id(), id(1));
}

#[test]
fn nobody_is_answered_by_the_receipt_of_another_credential() {
    let mut log = TestLog::new(T0);
    let (ring, _store) = keyring(&mut log);
    let mint = || mint_local(grant(plain(1, T0, log.state.head)), id(1), 1, &ring, &status(), Vec::new(), T0).ok().unwrap();
    let refused = |receipt| mint().reveal(receipt).err().unwrap().to_string();
    assert!(refused(Receipt::of_test(id(2))).contains("does not belong to"));
    assert!(refused(Receipt::for_test(log.state.head, &[])).contains("does not belong to"));
    let records = [mint().records().remove(0), mint_local_of(&log, &ring, 3)];
    let both = Receipt::for_test(log.state.head, &records);
    assert!(refused(both.of(1)).contains("does not belong to"), "of a group each has its own");
    assert_eq!(both.issued(), Some(id(3)));
    assert!(mint().reveal(both.of(0)).is_ok());
    assert!(refused(both.of(2)).contains("does not belong to"));
}

fn mint_local_of(log: &TestLog, ring: &super::keyring::Keyring, n: u8) -> Record {
    mint_local(grant(plain(1, T0, log.state.head)), id(n), 1, ring, &status(), Vec::new(), T0).ok().unwrap().records().remove(0)
}

#[test]
fn a_reference_is_known_by_its_key_alone() {
    let mut log = TestLog::new(T0);
    let (ring, store) = keyring(&mut log);
    let minted = mint_local(grant(plain(2, T0, log.state.head)), id(1), 1, &ring, &status(), Vec::new(), T0).ok().unwrap();
    let text = token(minted.reveal(Receipt::of_test(id(1))).unwrap());
    assert!(text.starts_with("mfr_") && text.len() == 68);
    let key = ring.active(KeyPurpose::Reference, "dev").unwrap();
    let shown = ReferenceToken::parse(&text).unwrap();
    assert_eq!((shown.id(), shown.made_by(&key)), (id(1), true));
    for at in 4..text.len() {
        let mut bad = text.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bad).unwrap();
        assert!(ReferenceToken::parse(&bad).is_none_or(|s| !s.made_by(&key)), "character {at}");
    }
    for bad in ["", "mfr_", "mfr", &text[..67], &format!("{text}A"), &text.replace("mfr_", "mfx_"), &text.replace('_', "+")] {
        assert!(ReferenceToken::parse(bad).is_none(), "{bad}");
    }
    let plan = keyring::rotate(&log.state.keys, KeyPurpose::Reference, "dev", 0).unwrap();
    carry_out(&mut log, &store, KeyPurpose::Reference, plan);
    ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
    assert!(!shown.made_by(&ring.active(KeyPurpose::Reference, "dev").unwrap()), "another day's key");
    assert!(shown.made_by(&ring.get(KeyPurpose::Reference, key.id()).unwrap()), "the key that the record names");
    assert!(!shown.made_by(&ring.active(KeyPurpose::AccessToken, "dev").unwrap()));
}

#[test]
fn what_cannot_be_made_is_refused_with_its_reason() {
    let mut log = TestLog::new(T0);
    let (ring, _) = keyring(&mut log);
    let mint = |parts: GrantParts| refused(mint_local(grant(parts), id(1), 1, &ring, &status(), Vec::new(), T0).err());
    let with = |change: fn(&mut GrantParts)| {
        let mut parts = plain(1, T0, Seq::ZERO);
        change(&mut parts);
        parts
    };
    assert_eq!(mint(with(|p| p.draft.kind = CredentialKind::Postgres.number())), Reason::NotServed);
    assert_eq!(mint(with(|p| p.draft.kind = CredentialKind::X509.number())), Reason::NotReady, "its upstream has no CA");
    assert_eq!(mint(with(|p| p.algorithm = "RS256")), Reason::NotServed);
    assert_eq!(mint(with(|p| p.draft.environment = "prod".into())), Reason::NotReady);
    assert_eq!(mint(with(|p| p.draft.expires_at = p.draft.issued_at)), Reason::NoLifeLeft);
    let broken = |change: fn(&mut GrantParts)| mint_local(grant(with(change)), id(1), 1, &ring, &status(), Vec::new(), T0).err();
    assert!(matches!(broken(|p| p.draft.kind = 99), Some(Error::Fault(_))));
    assert!(matches!(broken(|p| p.draft.scopes = vec!["a b".into()]), Some(Error::Fault(_))), "it would be read as two");
    assert!(matches!(broken(|p| p.draft.details = r#"[]}, "sub": ""#.into()), Some(Error::Fault(_))));
    assert!(matches!(broken(|p| p.draft.details = r#"{}"#.into()), Some(Error::Fault(_))));
    assert!(
        matches!(broken(|p| p.path = TaskPath::New { tasks: vec![], owners: vec![] }), Some(Error::Fault(_))),
        "a path that does not end in its task"
    );
}
