//! Attacks on logins: one token gives one login, the certificate belongs to that login, and nothing outlives its end.

use super::*;
use crate::revocation::Target;
use mayfly_base::limits;

const CA: &str = "ca";

/// A log with a CA key.
pub(super) fn log() -> Log {
    let mut log = Log::new();
    let key =
        KeyAdded { key: CA.into(), purpose: KeyPurpose::X509Ca as i32, state: KeyState::Active as i32, ..Default::default() };
    log.put(vec![by_operator(Event::KeyAdded(key))])[0].clone().unwrap();
    log
}

/// A login with a token, after `change`.
pub(super) fn login(log: &Log, n: u8, token: &str, change: impl Fn(&mut LoggedIn)) -> Vec<Record> {
    let (id, now) = (vec![n; 16], log.time.0);
    let end = now + limits::LOGIN_TTL_MS;
    let svid = SvidEvidence { anchor: vec![4; 32], issuing_key: vec![5; 32], serial: id.clone(), not_after: end };
    let issuer = "https://idp.example";
    let mut login = LoggedIn {
        credential: id,
        person: Some(ada()),
        caller: "spiffe://people.example/people/corp/ada".into(),
        issued_at: now,
        expires_at: end,
        key: CA.into(),
        svid: Some(svid),
        certificate: vec![n; 32],
        token: Some(TokenEvidence { issuer: issuer.into(), id: token.into(), expires_at: now + 60_000 }),
        environment: "dev".into(),
        policy_version: 1,
        ..Default::default()
    };
    change(&mut login);
    let used = UsedOnce { digest: id_token_used(issuer, token).to_vec(), until: now + 60_000, ..UsedOnce::default() };
    let record = |event| Record { group: 1, ..Record::new(Author::Person(ada()), event).decided_at(log.state.head) };
    vec![record(Event::UsedOnce(used)), record(Event::LoggedIn(Box::new(login)))]
}

pub(super) fn id(n: u8) -> CredentialId {
    CredentialId::from_bytes([n; 16])
}

fn revoke(log: &mut Log, target: Target) {
    let revoked = TargetsRevoked { targets: vec![target.to_record()], issued_only: true, ..Default::default() };
    log.put(vec![by_operator(Event::Revoked(revoked))])[0].clone().unwrap();
}

#[test]
fn one_token_is_one_login_whoever_is_asked() {
    let mut log = log();
    let (first, twin) = (login(&log, 1, "t", |_| {}), login(&log, 2, "t", |_| {}));
    assert!(log.put(first).iter().all(Result::is_ok));
    assert_eq!(reason(&log.put(twin)[1]), Reason::EvidenceRevoked);
    assert!(log.state.logins.get(&id(2)).is_none());
    let alone = login(&log, 3, "t2", |_| {}).pop().unwrap();
    assert_eq!(reason(&log.put(vec![Record { group: 0, ..alone }])[0]), Reason::InvalidField, "without its token's use");
    let mut other = login(&log, 4, "t3", |_| {});
    other[0] = login(&log, 4, "another", |_| {}).remove(0);
    assert_eq!(reason(&log.put(other)[1]), Reason::InvalidField, "with another token's");
}

#[test]
fn a_login_is_what_its_certificate_says_or_nothing() {
    let mut log = log();
    type Change = fn(&mut LoggedIn);
    let cases: [(&str, Change, Reason); 11] = [
        ("another serial", |l| l.svid.as_mut().unwrap().serial = vec![9; 16], Reason::InvalidField),
        ("another end", |l| l.svid.as_mut().unwrap().not_after += 1000, Reason::InvalidField),
        ("nobody", |l| l.person = None, Reason::InvalidField),
        ("no subject", |l| l.person.as_mut().unwrap().sub.clear(), Reason::InvalidField),
        ("no certificate", |l| l.certificate.clear(), Reason::InvalidField),
        ("too many methods", |l| l.amr = vec![String::new(); limits::LOGIN_AMR + 1], Reason::InvalidField),
        (
            "a life above an hour",
            |l| {
                l.expires_at += 1000;
                l.svid.as_mut().unwrap().not_after += 1000;
            },
            Reason::NoLifeLeft,
        ),
        ("another policy version", |l| l.policy_version = 7, Reason::DecidedOnOldState),
        ("a key that signs something else", |l| l.key = "k".into(), Reason::DecidedOnOldState),
        ("no key", |l| l.key = "none".into(), Reason::DecidedOnOldState),
        ("decided long ago", |l| l.issued_at -= 120_000, Reason::DecidedOnOldState),
    ];
    for (n, (what, change, expected)) in cases.into_iter().enumerate() {
        let records = login(&log, 10 + n as u8, &format!("t{n}"), change);
        assert_eq!(reason(&log.put(records)[1]), expected, "{what}");
    }
    assert!(log.state.logins.is_empty());
}

#[test]
fn a_login_is_revoked_by_everything_that_it_answers_and_by_its_end() {
    for (n, target) in [
        Target::Credential(id(1)),
        Target::Subject("https://idp.example".into(), "ada".into()),
        Target::Caller("spiffe://people.example/people/corp/ada".into()),
        Target::Prefix("spiffe://people.example/people".into()),
        Target::TrustDomain("people.example".into()),
        Target::TrustAnchor([4; 32]),
        Target::Svid("people.example".into(), [5; 32], vec![1; 16].into()),
        Target::SigningKey(CA.into()),
        Target::SubjectToken("https://idp.example".into(), "t".into()),
        Target::Environment("dev".into()),
        Target::PolicyBelow("dev".into(), 2),
        Target::Everything,
    ]
    .into_iter()
    .enumerate()
    {
        let mut log = log();
        let first = login(&log, 1, "t", |_| {});
        assert!(log.put(first).iter().all(Result::is_ok));
        log.state.login_alive(&id(1), log.time).unwrap();
        let open = |log: &mut Log| {
            let mut open = log.task(&[]);
            if let Some(Event::TaskOpened(t)) = &mut open.event {
                t.ancestor = vec![1; 16];
            }
            log.put(vec![open]).remove(0)
        };
        open(&mut log).unwrap();
        revoke(&mut log, target.clone());
        assert!(log.state.login_alive(&id(1), log.time).is_err(), "{n}: {target}");
        assert!(open(&mut log).is_err(), "{n}: {target}: it is evidence for nothing");
    }
    let mut log = log();
    let first = login(&log, 1, "t", |_| {});
    log.put(first);
    log.state.login_alive(&id(1), log.time.plus(limits::LOGIN_TTL_MS - 1)).unwrap();
    assert!(log.state.login_alive(&id(1), log.time.plus(limits::LOGIN_TTL_MS)).is_err());
    assert!(log.state.login_alive(&id(2), log.time).is_err(), "nobody knows that one");
}

#[test]
fn a_login_that_is_decided_before_a_revocation_and_comes_after_it_is_void() {
    let mut log = log();
    let late = login(&log, 1, "t", |_| {});
    let revoked = TargetsRevoked {
        targets: vec![Target::Subject("https://idp.example".into(), "ada".into()).to_record()],
        ..Default::default()
    };
    log.put(vec![by_operator(Event::Revoked(revoked))])[0].clone().unwrap();
    assert!(log.put(late)[1].is_err());
    let locked = login(&log, 2, "t2", |_| {});
    assert_eq!(reason(&log.put(locked)[1]), Reason::Locked, "and nothing new");
}

fn run(login: &mut LoggedIn) {
    login.caller = "spiffe://people.example/ci/hub/1/deploy".into();
    login.job = Some(Attestation { rule: "deploy".into(), id: "1".into(), claims: vec!["ref=main".into()] });
}

#[test]
fn a_run_is_whole_and_has_nothing_of_a_person() {
    let mut log = log();
    type Change = fn(&mut LoggedIn);
    let cases: [(&str, Change); 6] = [
        ("no rule", |l| l.job.as_mut().unwrap().rule.clear()),
        ("no id", |l| l.job.as_mut().unwrap().id.clear()),
        ("too many claims", |l| l.job.as_mut().unwrap().claims = vec![String::new(); limits::ATTESTED_CLAIMS + 1]),
        ("a second factor", |l| l.amr = vec!["mfa".into()]),
        ("a class", |l| l.acr = "high".into()),
        ("a time of signing in", |l| l.auth_time = 1),
    ];
    for (n, (what, change)) in cases.into_iter().enumerate() {
        let records = login(&log, 10 + n as u8, &format!("t{n}"), |l| {
            run(l);
            change(l);
        });
        assert_eq!(reason(&log.put(records)[1]), Reason::InvalidField, "{what}");
    }
    let whole = login(&log, 1, "t", run);
    assert!(log.put(whole).iter().all(Result::is_ok));
    assert_eq!(log.state.login_alive(&id(1), log.time).unwrap().job.as_deref(), Some("deploy"));
    assert_eq!(log.state.logins_of(&ada()).count(), 0, "it is nobody's login, though its token has the same issuer and sub");
    // A login gives no approval, even if a registration names it as an approver.
    let task = log.opened(&[]);
    let (approval, ask) = asked(&mut log, &task);
    log.put(vec![ask])[0].clone().unwrap();
    let mut give = given_by(&log, Author::Person(ada()), &approval);
    if let Some(Event::ApprovalDecided(e)) = &mut give.event {
        e.login = vec![1; 16];
    }
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::NotYours);
}

#[test]
fn runs_of_one_rule_are_bounded_by_themselves_and_make_room_as_they_end() {
    let mut log = log();
    for n in 1..=200 {
        let one = login(&log, n, &format!("t{n}"), run);
        assert!(log.put(one).iter().all(Result::is_ok), "more than a person has: {n}");
    }
    assert_eq!(log.state.logins_by_caller.get("spiffe://people.example/ci/hub/1/deploy"), Some(&200));
    log.time = log.time.plus(3 * limits::LOGIN_TTL_MS);
    log.opened(&[]);
    assert!(log.state.logins.is_empty() && log.state.logins_by_caller.is_empty());
}

#[test]
fn a_person_has_a_bounded_number_of_logins_and_each_ends_once() {
    let mut log = log();
    for n in 0..limits::LOGINS_PER_PERSON as u8 {
        let one = login(&log, 100 + n, &format!("t{n}"), |_| {});
        assert!(log.put(one).iter().all(Result::is_ok), "{n}");
    }
    let more = login(&log, 99, "one more", |_| {});
    assert_eq!(reason(&log.put(more)[1]), Reason::LimitReached);
    let out = Record::new(Author::Person(ada()), Event::LoggedOut(LoggedOut { credential: vec![100; 16] }));
    log.put(vec![out.clone()])[0].clone().unwrap();
    assert!(log.state.login_alive(&id(100), log.time).is_err());
    assert_eq!(reason(&log.put(vec![out])[0]), Reason::AlreadyExists);
}

#[test]
fn a_person_approves_with_a_login_that_stands_and_is_their_own() {
    let mut log = log();
    let first = login(&log, 1, "t", |_| {});
    log.put(first);
    let task = log.opened(&[]);
    let with = |log: &mut Log, who: Principal, credential: Vec<u8>| {
        let (approval, ask) = asked(log, &task);
        log.put(vec![ask])[0].clone().unwrap();
        let mut give = given_by(log, Author::Person(who), &approval);
        if let Some(Event::ApprovalDecided(e)) = &mut give.event {
            e.login = credential;
        }
        log.put(vec![give]).remove(0)
    };
    let bob = Principal { issuer: "https://idp.example".into(), sub: "bob".into() };
    assert_eq!(reason(&with(&mut log, bob, vec![1; 16])), Reason::NotYours, "it is not his");
    assert_eq!(reason(&with(&mut log, ada(), vec![9; 16])), Reason::CredentialNotActive, "it is not known");
    with(&mut log, ada(), vec![1; 16]).unwrap();
    revoke(&mut log, Target::Credential(id(1)));
    assert_eq!(reason(&with(&mut log, ada(), vec![1; 16])), Reason::Revoked);
}
