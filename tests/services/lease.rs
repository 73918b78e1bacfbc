//! Leases: listed in pages, retried, abandoned.

use mayfly::ledger::record::{Author, Event, LeaseOpened, Record};
use mayfly::ledger::{ProposalKind, record};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::upstream_service_server::UpstreamService;
use mayfly::refusal::Reason;
use mayfly::seq::LeaseId;
use mayfly::serve::grpc::upstream::UpstreamApi;

use super::{ROOT, World, ask, bad, ok, refused, world};

/// A lease of an upstream without a credential yet.
fn opened(w: &World, n: u8, upstream: &str) -> String {
    let task = w.issue("/agent/a").summary().about.task.as_bytes().to_vec();
    let lease = LeaseOpened {
        lease: vec![n; 16],
        credential: vec![n; 16],
        task,
        upstream: upstream.into(),
        kind: 5,
        handle: format!("role_{n}"),
        ends_at: 0,
        terms: String::new(),
    };
    let record = Record::new(Author::LocalUid(0), Event::LeaseOpened(lease));
    w.run(w.authority().ledger.commit(ProposalKind::Grant, vec![record])).unwrap();
    LeaseId::from_bytes([n; 16]).to_string()
}

fn service(w: &World) -> UpstreamApi {
    UpstreamApi(w.authority().clone())
}

fn list(w: &World, request: pb::ListLeasesRequest) -> pb::ListLeasesResponse {
    ok(w.run(service(w).list_leases(ask(&ROOT, request))))
}

#[test]
fn leases_are_listed_in_pages_by_upstream_and_state() {
    let w = world();
    let ids: Vec<String> = (1..=5).map(|n| opened(&w, n, if n % 2 == 0 { "repos" } else { "echo" })).collect();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = list(&w, pb::ListLeasesRequest { page_size: 2, page_token, ..Default::default() });
        assert!(page.leases.len() <= 2);
        seen.extend(page.leases.into_iter().map(|l| (l.lease_id, l.what)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let all: Vec<_> = ids.iter().enumerate().map(|(n, id)| (id.clone(), format!("role_{}", n + 1))).collect();
    assert_eq!(seen, all);
    let of = |upstream: &str| list(&w, pb::ListLeasesRequest { upstream: upstream.into(), ..Default::default() }).leases.len();
    assert_eq!((of("repos"), of("echo"), of("other")), (2, 3, 0));
    let count = |w: &World, state: pb::UpstreamState| {
        list(w, pb::ListLeasesRequest { state: state.into(), ..Default::default() }).leases.len()
    };
    let counts =
        |w: &World| [pb::UpstreamState::Making, pb::UpstreamState::Live, pb::UpstreamState::Pending].map(|s| count(w, s));
    assert_eq!(counts(&w), [5, 0, 0]);
    w.pass(mayfly::limits::LEASE_LEFT_MS);
    assert_eq!(counts(&w), [0, 0, 5], "they were left behind");
    let undone = pb::ListLeasesRequest { state: pb::UpstreamState::Undone.into(), ..Default::default() };
    bad(w.run(service(&w).list_leases(ask(&ROOT, undone))), "state");
    let token = pb::ListLeasesRequest { page_token: "x".into(), ..Default::default() };
    bad(w.run(service(&w).list_leases(ask(&ROOT, token))), "page_token");
    bad(w.run(service(&w).list_leases(ask(&ROOT, pb::ListLeasesRequest { page_size: -1, ..Default::default() }))), "page_size");
}

#[test]
fn leases_are_for_operators() {
    let w = world();
    let lease_id = opened(&w, 1, "echo");
    let agent = w.workload("/agent/a");
    refused(w.run(service(&w).list_leases(ask(&agent, Default::default()))), Reason::NotAuthenticated);
    let retry = pb::RetryLeaseRequest { lease_id: lease_id.clone() };
    refused(w.run(service(&w).retry_lease(ask(&w.admin("/agent/a"), retry.clone()))), Reason::DeniedByPolicy);
    let unknown = pb::RetryLeaseRequest { lease_id: LeaseId::from_bytes([9; 16]).to_string() };
    refused(w.run(service(&w).retry_lease(ask(&w.admin("/agent/a"), unknown.clone()))), Reason::DeniedByPolicy);
    refused(w.run(service(&w).retry_lease(ask(&ROOT, unknown))), Reason::NotFound);
    bad(w.run(service(&w).retry_lease(ask(&ROOT, pb::RetryLeaseRequest { lease_id: "x".into() }))), "lease_id");
    assert_eq!(ok(w.run(service(&w).retry_lease(ask(&w.admin("/operator/you"), retry)))).lease.unwrap().lease_id, lease_id);
}

#[test]
fn a_lease_is_given_up_once_and_with_a_reason() {
    let w = world();
    let lease_id = opened(&w, 1, "echo");
    let request =
        |reason: &str| pb::AbandonLeaseRequest { lease_id: lease_id.clone(), reason: reason.into(), request_id: "once".into() };
    bad(w.run(service(&w).abandon_lease(ask(&ROOT, request("")))), "reason");
    bad(w.run(service(&w).abandon_lease(ask(&ROOT, request("being made")))), "lease_id");
    w.pass(mayfly::limits::LEASE_LEFT_MS);
    for _ in 0..2 {
        let lease = ok(w.run(service(&w).abandon_lease(ask(&ROOT, request("the database is gone"))))).lease.unwrap();
        assert_eq!((lease.state(), &lease.lease_id), (pb::UpstreamState::Abandoned, &lease_id));
    }
    assert!(list(&w, Default::default()).leases.is_empty());
    let closed = w.authority().ledger.peek(|s| s.position);
    let records = w.authority().ledger.records_at(closed).unwrap();
    let end = records.into_iter().find_map(|r| match r.event {
        Some(Event::LeaseClosed(e)) => Some((r.author, e.end, e.detail)),
        _ => None,
    });
    let (author, end, detail) = end.unwrap();
    assert_eq!(author.unwrap().who, Some(Author::LocalUid(1000)));
    assert_eq!((end, detail.as_str()), (record::LeaseEnd::Abandoned as i32, "the database is gone"));
}

#[test]
fn an_open_lease_is_shown_with_its_cause_and_a_closed_one_is_in_the_audit() {
    let w = world();
    let lease_id = opened(&w, 1, "echo");
    let get = pb::GetLeaseRequest { lease_id: lease_id.clone() };
    let lease = ok(w.run(service(&w).get_lease(ask(&ROOT, get.clone())))).lease.unwrap();
    assert_eq!((lease.state(), lease.cause.as_str(), lease.what.as_str()), (pb::UpstreamState::Making, "", "role_1"));
    assert!(lease.kind() == pb::CredentialKind::Postgres && lease.opened_at.is_some() && lease.next_attempt.is_none());
    assert!(lease.task_id.starts_with("task_") && lease.ends_at.is_none() && !lease.watched);
    w.pass(mayfly::limits::LEASE_LEFT_MS);
    let lease = ok(w.run(service(&w).get_lease(ask(&ROOT, get.clone())))).lease.unwrap();
    assert_eq!((lease.state(), lease.cause.as_str()), (pb::UpstreamState::Pending, "no issuance came of the lease"));
    assert!(lease.next_attempt.is_some());
    // Whoever has no rights learns nothing about it.
    refused(w.run(service(&w).get_lease(ask(&w.admin("/agent/a"), get.clone()))), Reason::DeniedByPolicy);
    refused(w.run(service(&w).get_lease(ask(&w.workload("/agent/a"), get.clone()))), Reason::NotAuthenticated);
    bad(w.run(service(&w).get_lease(ask(&ROOT, pb::GetLeaseRequest { lease_id: "x".into() }))), "lease_id");
    let request = pb::AbandonLeaseRequest { lease_id, reason: "the database is gone".into(), request_id: "once".into() };
    ok(w.run(service(&w).abandon_lease(ask(&ROOT, request))));
    refused(w.run(service(&w).get_lease(ask(&ROOT, get))), Reason::NotFound);
}
