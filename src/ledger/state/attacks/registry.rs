//! Attacks on registrations and their owners.

use super::*;
use crate::upstream::file;
use crate::upstream::registry::Upstream;
use mayfly_base::document::SourceFile;

fn upstream(name: &str, change: impl Fn(&mut Upstream)) -> Upstream {
    let text = include_str!("../../../cli/samples/upstreams/echo.toml");
    let mut upstream = file::parse(&SourceFile::new("echo.toml", text), &[]).unwrap();
    upstream.name = name.into();
    upstream.audience = format!("https://{name}.example");
    upstream.target = format!("https://{name}.example");
    change(&mut upstream);
    upstream
}

fn set(version: u64, upstream: &Upstream) -> UpstreamUpdated {
    let (digest, text) = (upstream.digest().to_vec(), upstream.to_text());
    UpstreamUpdated { name: upstream.name.clone(), version, digest, text, ..Default::default() }
}

fn put(log: &mut Log, set: UpstreamUpdated) -> Verdict {
    log.put(vec![by_operator(Event::UpstreamSet(set))])[0].clone()
}

#[test]
fn two_upstreams_share_no_audience_and_no_target() {
    let mut log = Log::new();
    put(&mut log, set(1, &upstream("a", |_| {}))).unwrap();
    let same = |field: fn(&mut Upstream)| set(1, &upstream("b", field));
    assert_eq!(reason(&put(&mut log, same(|u| u.audience = "https://a.example".into()))), Reason::AlreadyExists);
    assert_eq!(reason(&put(&mut log, same(|u| u.target = "https://a.example".into()))), Reason::AlreadyExists);
    put(&mut log, set(1, &upstream("b", |_| {}))).unwrap();
    let moved = set(2, &upstream("b", |u| u.target = "https://a.example".into()));
    assert_eq!(reason(&put(&mut log, moved)), Reason::AlreadyExists, "not by a change, either");
    put(&mut log, set(2, &upstream("b", |u| u.purpose = "another".into()))).unwrap();
    // Two writers at once: each registration was decided when the other did not exist yet, but only one of them takes effect.
    let twins = ["c", "d"].map(|name| set(1, &upstream(name, |u| u.target = "https://twin.example".into())));
    let verdicts = log.put(twins.map(|s| by_operator(Event::UpstreamSet(s))).to_vec());
    assert!(verdicts[0].is_ok());
    assert_eq!(reason(&verdicts[1]), Reason::AlreadyExists);
}

#[test]
fn a_target_is_free_again_when_its_upstream_is_retired_and_not_while_it_is_disabled() {
    let mut log = Log::new();
    let first = upstream("a", |_| {});
    put(&mut log, set(1, &first)).unwrap();
    let heir = || set(1, &upstream("b", |u| u.target = "https://a.example".into()));
    put(&mut log, UpstreamUpdated { disabled: true, ..set(2, &first) }).unwrap();
    assert!(put(&mut log, heir()).is_err());
    put(&mut log, UpstreamUpdated { retired: true, ..set(3, &first) }).unwrap();
    put(&mut log, heir()).unwrap();
}

#[test]
fn no_version_moves_to_another_environment() {
    let mut log = Log::new();
    put(&mut log, set(1, &upstream("a", |_| {}))).unwrap();
    let moved = set(2, &upstream("a", |u| u.environment = "prod".into()));
    assert_eq!(reason(&put(&mut log, moved)), Reason::InvalidField);
}

fn leaves(returned: bool) -> Record {
    by_operator(Event::OwnerLeft(OwnerLeft { owner: "you".into(), reason: "gone".into(), returned }))
}

#[test]
fn what_an_owner_who_left_answers_for_issues_nothing_until_somebody_takes_over() {
    let mut log = Log::new();
    put(&mut log, set(2, &upstream("echo", |_| {}))).unwrap();
    let task = log.opened(&[]);
    let issue = |log: &mut Log, version: u64| {
        let mut record = log.issue(&task);
        if let Some(Event::Issued(e)) = &mut record.event {
            e.upstream_version = version;
        }
        log.put(vec![record])[0].clone()
    };
    issue(&mut log, 2).unwrap();
    assert_eq!(reason(&log.put(vec![leaves(true)])[0]), Reason::NotFound, "who is there does not come back");
    log.put(vec![leaves(false)])[0].clone().unwrap();
    assert_eq!(reason(&log.put(vec![leaves(false)])[0]), Reason::AlreadyExists);
    assert_eq!(reason(&issue(&mut log, 2)), Reason::UpstreamNotActive);
    put(&mut log, set(3, &upstream("echo", |u| u.purpose = "the same owner".into()))).unwrap();
    assert_eq!(reason(&issue(&mut log, 3)), Reason::UpstreamNotActive, "another version does not bring the owner back");
    put(&mut log, set(4, &upstream("echo", |u| u.owner = "ada".into()))).unwrap();
    issue(&mut log, 4).unwrap();
    put(&mut log, set(5, &upstream("echo", |_| {}))).unwrap();
    log.put(vec![leaves(true)])[0].clone().unwrap();
    issue(&mut log, 5).unwrap();
}

#[test]
fn narrowing_is_finished_once_for_the_version_that_asked_for_it() {
    let mut log = Log::new();
    let done = |version| {
        by_operator(Event::Narrowed(NarrowingCompleted { what: NarrowedKind::Upstream as i32, name: "a".into(), version }))
    };
    put(&mut log, set(1, &upstream("a", |_| {}))).unwrap();
    assert!(log.put(vec![done(1)])[0].is_err(), "nothing was to be looked for");
    let looked = log.state.head.as_u64();
    put(&mut log, UpstreamUpdated { looked, ..set(2, &upstream("a", |_| {})) }).unwrap();
    assert_eq!(log.state.narrowing().len(), 1);
    assert!(log.put(vec![done(1)])[0].is_err());
    log.put(vec![done(2)])[0].clone().unwrap();
    assert!(log.state.narrowing().is_empty());
    assert!(log.put(vec![done(2)])[0].is_err());
}

#[test]
fn the_last_use_of_an_upstream_is_known_when_its_credentials_have_ended() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    assert_eq!(log.state.credentials.of_upstream("echo"), (0, None));
    let issue = log.issue(&task);
    log.put(vec![issue])[0].clone().unwrap();
    assert_eq!(log.state.credentials.of_upstream("echo"), (1, None));
    log.time = log.time.plus(limits::TASK_TTL_MS);
    log.put(vec![note()]);
    let (live, last) = log.state.credentials.of_upstream("echo");
    assert_eq!((live, last), (0, Some(log.time)));
}
