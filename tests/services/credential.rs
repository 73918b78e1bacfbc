//! CredentialService.

use mayfly::credential::IssuedCredential;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, CredentialReleased, Event, Record, TargetsRevoked, TaskClosed, TaskHeld, TaskOutcome};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::credential_service_server::CredentialService;
use mayfly::policy::exchange_request::TaskChoice;
use mayfly::refusal::Reason;
use mayfly::revocation::{Rules, Target};
use mayfly::seq::{CredentialId, TaskId};
use mayfly::serve::grpc::credential::CredentialApi;
use mayfly::serve::wire::target_to_pb;
use mayfly::upstream::registry::Kind;
use tokio_stream::StreamExt;

use super::kit::house::{terms, wanted};
use super::{ROOT, World, ask, bad, ok, refused, world};

pub fn service(w: &World) -> CredentialApi {
    CredentialApi(w.authority().clone())
}

pub fn id(issued: &IssuedCredential) -> CredentialId {
    issued.summary().credential
}

pub fn task(issued: &IssuedCredential) -> TaskId {
    issued.summary().about.task
}

fn get(w: &World, id: CredentialId) -> pb::Credential {
    let request = pb::GetCredentialRequest { credential_id: id.to_string() };
    ok(w.run(service(w).get_credential(ask(&ROOT, request)))).credential.unwrap()
}

fn list(w: &World, filter: pb::CredentialFilter) -> Vec<String> {
    let request = pb::ListCredentialsRequest { filter: Some(filter), ..Default::default() };
    let answer = ok(w.run(service(w).list_credentials(ask(&ROOT, request))));
    assert_eq!(answer.total, Some(answer.credentials.len() as u64));
    answer.credentials.into_iter().map(|c| c.credential_id).collect()
}

fn put(w: &World, event: Event) {
    let revision = w.authority().ledger.durable();
    let record = Record::new(Author::LocalUid(0), event).decided_at(revision);
    w.run(w.authority().ledger.commit(ProposalKind::Revoke, vec![record])).unwrap();
}

fn revoke(w: &World, target: Target) {
    let revoked =
        TargetsRevoked { targets: vec![target.to_record()], issued_only: true, reason: "a test".into(), ..Default::default() };
    put(w, Event::Revoked(TargetsRevoked { keep_until: Rules::keep_until(w.house.now()).0, ..revoked }));
}

pub fn reference(w: &World, path: &str) -> IssuedCredential {
    let mut want = wanted(TaskChoice::Inline(terms().into()));
    want.kind = Some(Kind::Reference);
    w.run(w.authority().exchange(&w.house.caller(path), &want)).unwrap()
}

#[test]
fn a_credential_is_shown_whole_to_operators_and_to_whom_it_was_issued() {
    let w = world();
    let issued = w.issue("/agent/a");
    let shown = get(&w, id(&issued));
    assert_eq!(shown.state, pb::CredentialState::Active as i32);
    assert_eq!((shown.upstream.as_str(), shown.environment.as_str(), shown.tool.as_str()), ("echo", "dev", "say"));
    assert_eq!((shown.purpose.as_str(), &shown.scopes[..]), ("a test", &["echo:read".to_owned()][..]));
    assert_eq!(shown.task_path, [task(&issued).to_string()]);
    assert_eq!(shown.subject.unwrap().issuer, "spiffe://dev.mayfly.internal");
    assert!(shown.issued_at.is_some() && shown.svid.is_some() && !shown.signing_key.is_empty() && shown.seq > 0);
    assert_eq!(shown.upstream_state, pb::UpstreamState::None as i32);
    let request = pb::GetCredentialRequest { credential_id: id(&issued).to_string() };
    let mine = ok(w.run(service(&w).get_credential(ask(&w.workload("/agent/a"), request.clone()))));
    assert_eq!(mine.credential.unwrap().credential_id, shown.credential_id);

    refused(w.run(service(&w).get_credential(ask(&w.workload("/agent/b"), request.clone()))), Reason::NotFound);
    refused(w.run(service(&w).get_credential(ask(&w.admin("/agent/b"), request.clone()))), Reason::DeniedByPolicy);
    let none = pb::GetCredentialRequest { credential_id: CredentialId::from_bytes([1; 16]).to_string() };
    refused(w.run(service(&w).get_credential(ask(&ROOT, none.clone()))), Reason::NotFound);
    refused(w.run(service(&w).get_credential(ask(&w.workload("/agent/a"), none))), Reason::NotFound);
    let bad_id = pb::GetCredentialRequest { credential_id: "task_x".into() };
    bad(w.run(service(&w).get_credential(ask(&ROOT, bad_id))), "credential_id");
    refused(w.run(service(&w).get_credential(tonic::Request::new(request))), Reason::NotAuthenticated);
}

#[test]
fn its_state_says_what_ended_it() {
    let w = world();
    let issued: Vec<IssuedCredential> = (0..5).map(|_| w.issue("/agent/a")).collect();
    let state = |n: usize| get(&w, id(&issued[n]));
    let released = CredentialReleased { credential: id(&issued[0]).as_bytes().to_vec(), keep_until: 0 };
    put(&w, Event::Released(released));
    revoke(&w, Target::Credential(id(&issued[1])));
    let task_of = |n: usize| task(&issued[n]).as_bytes().to_vec();
    put(&w, Event::TaskClosed(TaskClosed { task: task_of(2), outcome: TaskOutcome::Completed as i32, ..Default::default() }));
    put(&w, Event::TaskHeld(TaskHeld { task: task_of(3), rank: 3, reason: "look".into() }));
    let expected = [
        pb::CredentialState::Released,
        pb::CredentialState::Revoked,
        pb::CredentialState::TaskEnded,
        pb::CredentialState::Held,
        pb::CredentialState::Active,
    ];
    for (n, expected) in expected.into_iter().enumerate() {
        let shown = state(n);
        assert_eq!(shown.state, expected as i32, "{n}");
        assert_eq!(shown.ended_by_seq > 0, n < 3, "{n}");
    }
    w.pass(61_000);
    assert_eq!(state(4).state, pb::CredentialState::Expired as i32);
}

#[test]
fn what_memory_forgot_is_found_in_history() {
    let w = world();
    let issued = w.issue("/agent/a");
    let request = pb::GetCredentialRequest { credential_id: id(&issued).to_string() };
    w.pass(3_000_000);
    w.pass(1_000);
    assert!(w.authority().ledger.peek(|s| s.credentials.get(&id(&issued)).is_none()));
    let shown = get(&w, id(&issued));
    assert_eq!((shown.state, shown.purpose.as_str()), (pb::CredentialState::Expired as i32, "a test"));
    assert_eq!(shown.task_path, [task(&issued).to_string()]);
    refused(w.run(service(&w).get_credential(ask(&w.admin("/agent/a"), request))), Reason::DeniedByPolicy);
}

#[test]
fn a_list_shows_what_is_good_and_what_fits() {
    let w = world();
    let (a, b) = (w.issue("/agent/a"), w.issue("/agent/b"));
    let r = reference(&w, "/agent/a");
    let ids = |all: &[&IssuedCredential]| all.iter().map(|i| id(i).to_string()).collect::<Vec<_>>();
    let filter = pb::CredentialFilter::default;
    assert_eq!(list(&w, filter()), ids(&[&r, &b, &a]), "newest first");
    let caller = "spiffe://dev.mayfly.internal/agent/b".to_owned();
    assert_eq!(list(&w, pb::CredentialFilter { caller, ..filter() }), ids(&[&b]));
    assert_eq!(list(&w, pb::CredentialFilter { task_id: task(&a).to_string(), ..filter() }), ids(&[&a]));
    assert_eq!(list(&w, pb::CredentialFilter { kind: 2, ..filter() }), ids(&[&r]));
    assert_eq!(list(&w, pb::CredentialFilter { upstream: "repos".into(), ..filter() }), ids(&[]));
    assert_eq!(list(&w, pb::CredentialFilter { environment: "dev".into(), ..filter() }).len(), 3);
    let covered_by = Some(target_to_pb(&Target::Prefix("spiffe://dev.mayfly.internal/agent/a".into())));
    assert_eq!(list(&w, pb::CredentialFilter { covered_by, ..filter() }), ids(&[&r, &a]));
    revoke(&w, Target::Credential(id(&b)));
    assert_eq!(list(&w, filter()), ids(&[&r, &a]));
    let revoked = pb::CredentialState::Revoked.into();
    assert_eq!(list(&w, pb::CredentialFilter { state: revoked, ..filter() }), ids(&[&b]));
}

#[test]
fn pages_of_a_list_meet_while_things_come_and_go() {
    let w = world();
    let all: Vec<String> = (0..5).map(|_| id(&w.issue("/agent/a")).to_string()).collect();
    let page = |token: &str| {
        let request = pb::ListCredentialsRequest { page_size: 2, page_token: token.into(), ..Default::default() };
        let answer = ok(w.run(service(&w).list_credentials(ask(&ROOT, request))));
        (answer.credentials.into_iter().map(|c| c.credential_id).collect::<Vec<_>>(), answer.next_page_token, answer.total)
    };
    let (first, next, total) = page("");
    assert_eq!((first, total), (vec![all[4].clone(), all[3].clone()], Some(5)));
    w.issue("/agent/a");
    let (second, next, _) = page(&next);
    assert_eq!(second, [all[2].clone(), all[1].clone()], "what came since is not in between");
    let (third, next, total) = page(&next);
    assert_eq!((third, next, total), (vec![all[0].clone()], String::new(), Some(6)));
}

#[test]
fn a_list_is_for_operators_and_its_filter_is_checked() {
    let w = world();
    let with = |f: fn(&mut pb::CredentialFilter)| {
        let mut filter = pb::CredentialFilter::default();
        f(&mut filter);
        let request = pb::ListCredentialsRequest { filter: Some(filter), ..Default::default() };
        w.run(service(&w).list_credentials(ask(&ROOT, request)))
    };
    bad(with(|f| f.kind = 99), "filter.kind");
    bad(with(|f| f.state = 99), "filter.state");
    bad(with(|f| f.task_id = "x".into()), "filter.task_id");
    bad(with(|f| f.caller = "x".repeat(4000)), "filter.caller");
    bad(with(|f| f.covered_by = Some(pb::Target { target: None })), "filter.covered_by");
    let request = pb::ListCredentialsRequest { page_size: -1, ..Default::default() };
    bad(w.run(service(&w).list_credentials(ask(&ROOT, request))), "page_size");
    let request = pb::ListCredentialsRequest::default;
    refused(w.run(service(&w).list_credentials(ask(&w.workload("/agent/a"), request()))), Reason::NotAuthenticated);
    refused(w.run(service(&w).list_credentials(ask(&w.admin("/agent/a"), request()))), Reason::DeniedByPolicy);
}

/// The parts of a watcher's message that the tests compare.
fn told(next: Option<Result<pb::WatchCredentialsResponse, tonic::Status>>) -> (i32, String, i32, u64) {
    let told = next.unwrap().unwrap();
    let credential = told.credential.unwrap();
    (told.change, credential.credential_id, credential.state, told.seq)
}

#[test]
fn a_watcher_is_told_of_issues_and_ends_and_goes_on_where_it_was() {
    let w = world();
    let before = w.issue("/agent/a");
    let other = w.issue("/agent/b");
    let filter = pb::CredentialFilter { caller: "spiffe://dev.mayfly.internal/agent/a".into(), ..Default::default() };
    let request = pb::WatchCredentialsRequest { filter: Some(filter), resume_after: None };
    let mut stream = ok(w.run(service(&w).watch_credentials(ask(&ROOT, request.clone()))));
    let issued = w.issue("/agent/a");
    let (change, credential, state, seq) = told(w.run(stream.next()));
    assert_eq!((change, credential), (pb::CredentialChange::Issued as i32, id(&issued).to_string()));
    assert_eq!(state, pb::CredentialState::Active as i32);
    revoke(&w, Target::Upstream("echo".into()));
    let mut ended = Vec::new();
    for _ in 0..2 {
        let (change, credential, state, _) = told(w.run(stream.next()));
        assert_eq!((change, state), (pb::CredentialChange::State as i32, pb::CredentialState::Revoked as i32));
        ended.push(credential);
    }
    ended.sort();
    let mut expected = vec![id(&before).to_string(), id(&issued).to_string()];
    expected.sort();
    assert_eq!(ended, expected, "and not {}", id(&other));
    let next = w.issue("/agent/a");
    let task = task(&next).as_bytes().to_vec();
    put(&w, Event::TaskHeld(TaskHeld { task, rank: 3, reason: "look".into() }));
    assert_eq!(told(w.run(stream.next())).1, id(&next).to_string());
    assert_eq!(told(w.run(stream.next())).2, pb::CredentialState::Held as i32);
    drop(stream);

    let again = pb::WatchCredentialsRequest { resume_after: Some(seq), ..request };
    let mut stream = ok(w.run(service(&w).watch_credentials(ask(&ROOT, again))));
    let missed: Vec<_> = (0..4).map(|_| told(w.run(stream.next()))).collect();
    assert!(missed.iter().all(|m| m.3 > seq));
    assert_eq!(missed[2].1, id(&next).to_string());
    let newest = w.issue("/agent/a");
    assert_eq!(told(w.run(stream.next())).1, id(&newest).to_string(), "and on, without a gap");
}

#[test]
fn a_watcher_is_asked_at_each_commit_and_one_that_lags_is_told() {
    let w = world();
    let request = pb::WatchCredentialsRequest::default();
    let mut stream = ok(w.run(service(&w).watch_credentials(ask(&w.admin("/operator/you"), request.clone()))));
    revoke(&w, Target::Caller("spiffe://dev.mayfly.internal/nobody".into()));
    let lock = Target::Caller("spiffe://dev.mayfly.internal/operator/you".into());
    let revoked = TargetsRevoked { targets: vec![lock.to_record()], reason: "stolen".into(), ..Default::default() };
    put(&w, Event::Revoked(revoked));
    let ended = w.run(stream.next()).unwrap().unwrap_err();
    assert_eq!(ended.code(), tonic::Code::PermissionDenied);
    assert!(w.run(stream.next()).is_none());

    let mut slow = ok(w.run(service(&w).watch_credentials(ask(&ROOT, request.clone()))));
    for _ in 0..mayfly::limits::WATCH_QUEUE + mayfly::limits::WATCH_LAG + 50 {
        w.issue("/agent/a");
    }
    let last = w.run(async {
        loop {
            match slow.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status,
                None => panic!("it ended without a word"),
            }
        }
    });
    assert_eq!(last.code(), tonic::Code::ResourceExhausted);

    let beyond = pb::WatchCredentialsRequest { resume_after: Some((1 << 53) - 1), ..request.clone() };
    let refused_at = |request| w.run(service(&w).watch_credentials(ask(&ROOT, request))).err().unwrap();
    assert_eq!(refused_at(beyond).code(), tonic::Code::InvalidArgument);
    let no_seq = pb::WatchCredentialsRequest { resume_after: Some(u64::MAX), ..request.clone() };
    assert_eq!(refused_at(no_seq).code(), tonic::Code::InvalidArgument);
    let agent = w.run(service(&w).watch_credentials(ask(&w.admin("/agent/a"), request))).err().unwrap();
    assert_eq!(agent.code(), tonic::Code::PermissionDenied);
}
