//! ServerService, UpstreamService, PolicyService, and rpcs that are not implemented.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::policy_service_server::PolicyService;
use mayfly::pb::mayfly::v1::server_service_server::ServerService;
use mayfly::pb::mayfly::v1::upstream_service_server::UpstreamService;
use mayfly::refusal::Reason;
use mayfly::revocation::Target;
use mayfly::serve::grpc::policy::PolicyApi;
use mayfly::serve::grpc::server::ServerApi;
use mayfly::serve::grpc::upstream::UpstreamApi;

use super::{Peer, ROOT, World, ask, bad, ok, refused, world};

fn status(w: &World, peer: &Peer) -> Result<tonic::Response<pb::GetStatusResponse>, tonic::Status> {
    w.run(ServerApi(w.authority().clone()).get_status(ask(peer, pb::GetStatusRequest {})))
}

#[test]
fn the_status_counts_what_is_live() {
    let w = world();
    w.issue("/agent/a");
    let held = w.issue("/agent/b");
    let rank = mayfly::ledger::record::HoldRank::Operator as i32;
    let hold =
        mayfly::ledger::record::TaskHeld { task: held.summary().about.task.as_bytes().to_vec(), rank, reason: "look".into() };
    let lock = mayfly::ledger::record::TargetsRevoked {
        targets: vec![Target::Tool("t".into()).to_record()],
        lock_only: true,
        ..Default::default()
    };
    for event in [mayfly::ledger::record::Event::TaskHeld(hold), mayfly::ledger::record::Event::Revoked(lock)] {
        let record = mayfly::ledger::record::Record::new(mayfly::ledger::record::Author::LocalUid(0), event);
        w.run(w.authority().ledger.commit(mayfly::ledger::ProposalKind::Revoke, vec![record])).unwrap();
    }
    let _open = w.authority().peers.enter(w.svid("/agent/a").evidence().trust_anchor);
    w.house.clock.advance(5_000);
    let now = ok(status(&w, &ROOT));
    let counts = now.counts.unwrap();
    assert_eq!((counts.credentials, counts.tasks, counts.held_tasks, counts.callers), (2, 2, 1, 2));
    assert_eq!((counts.rules, counts.locks, counts.connections, counts.upstreams), (1, 1, 1, 3));
    let ledger = now.ledger.unwrap();
    assert_eq!((ledger.engine.as_str(), ledger.generation), ("memory", 1));
    assert_eq!(ledger.durable_seq, w.authority().ledger.durable().as_u64());
    assert_eq!((ledger.appended_seq, ledger.header_sha256.len()), (ledger.durable_seq, 32));
    assert!(now.issuing.unwrap().issuing);
    assert_eq!((now.uptime.unwrap().seconds, now.environments, now.version), (5, vec!["dev".into()], "0.1.0".into()));
    assert_eq!(now.clock.unwrap().skew.unwrap(), prost_types::Duration::default());
}

#[test]
fn the_status_says_why_nothing_is_issued() {
    let w = world();
    let back = w.house.now().minus(3_600_000);
    w.house.clock.step_to(back);
    // The writer checks twice a second.
    let stopped = (0..50).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = ok(status(&w, &ROOT));
        now.issuing.filter(|i| !i.issuing).map(|i| (i, now.clock.unwrap()))
    });
    let (issuing, clock) = stopped.unwrap();
    assert_eq!(issuing.reason, "CLOCK_SKEW");
    assert!(issuing.message.contains("timedatectl"), "{}", issuing.message);
    assert_eq!(clock.skew.unwrap().seconds, 3600);
}

#[test]
fn the_status_is_for_operators() {
    let w = world();
    ok(status(&w, &w.admin("/operator/you")));
    refused(status(&w, &w.admin("/agent/a")), Reason::DeniedByPolicy);
    refused(status(&w, &w.workload("/operator/you")), Reason::NotAuthenticated);
    refused(status(&w, &Peer::Local(1)), Reason::DeniedByPolicy);
}

fn upstreams(w: &World) -> UpstreamApi {
    UpstreamApi(w.authority().clone())
}

#[test]
fn registrations_are_shown_to_operators_and_to_the_workloads_of_their_environment() {
    let w = world();
    let get =
        |peer: &Peer, name: &str| w.run(upstreams(&w).get_upstream(ask(peer, pb::GetUpstreamRequest { upstream: name.into() })));
    for peer in [ROOT, w.admin("/operator/you"), w.workload("/agent/a")] {
        let echo = ok(get(&peer, "echo")).upstream.unwrap();
        assert_eq!((echo.version, echo.state, echo.key_bound), (1, pb::RegistrationState::Active as i32, false));
        assert_eq!(echo.scopes.iter().filter(|s| s.sensitive).count(), 1);
        assert_eq!((echo.kinds, echo.max_ttl.unwrap().seconds, echo.seq > 0), (vec![1, 2], 3600, true));
    }
    assert!(ok(get(&ROOT, "tickets")).upstream.unwrap().key_bound);
    let list = |peer: &Peer, request: pb::ListUpstreamsRequest| w.run(upstreams(&w).list_upstreams(ask(peer, request)));
    let names = |answer: pb::ListUpstreamsResponse| answer.upstreams.into_iter().map(|u| u.upstream).collect::<Vec<_>>();
    let all = pb::ListUpstreamsRequest::default;
    for peer in [ROOT, w.workload("/agent/a")] {
        assert_eq!(names(ok(list(&peer, all()))), ["echo", "repos", "tickets"]);
    }
    let first = ok(list(&ROOT, pb::ListUpstreamsRequest { page_size: 2, ..all() }));
    let rest = pb::ListUpstreamsRequest { page_size: 2, page_token: first.next_page_token.clone(), ..all() };
    assert_eq!(names(ok(list(&ROOT, rest.clone()))), ["tickets"]);
    let disabled = pb::ListUpstreamsRequest { state: pb::RegistrationState::Disabled.into(), ..all() };
    assert!(names(ok(list(&ROOT, disabled))).is_empty());

    refused(get(&ROOT, "none"), Reason::NotFound);
    refused(get(&w.workload("/agent/a"), "none"), Reason::NotFound);
    refused(get(&w.admin("/agent/a"), "echo"), Reason::DeniedByPolicy);
    bad(get(&ROOT, ""), "upstream");
    bad(list(&ROOT, pb::ListUpstreamsRequest { state: 9, ..all() }), "state");
    bad(list(&ROOT, pb::ListUpstreamsRequest { environment: "dev".into(), ..rest.clone() }), "page_token");
    refused(list(&ROOT, pb::ListUpstreamsRequest { environment: "prod".into(), ..rest }), Reason::NotFound);
    refused(list(&w.workload("/agent/a"), pb::ListUpstreamsRequest { environment: "prod".into(), ..all() }), Reason::NotFound);
    refused(list(&w.admin("/agent/a"), all()), Reason::DeniedByPolicy);
}

#[test]
fn a_policy_set_is_shown_with_its_roles() {
    let w = world();
    let get = |peer: &Peer, request: pb::GetPolicyRequest| w.run(PolicyApi(w.authority().clone()).get_policy(ask(peer, request)));
    let dev = pb::GetPolicyRequest { environment: "dev".into(), ..Default::default() };
    let policy = ok(get(&ROOT, dev.clone())).policy.unwrap();
    assert_eq!((policy.version, policy.mode), (1, pb::PolicyMode::Enforce as i32));
    let files = policy.files.clone().unwrap();
    assert!(files.policies[0].name == "policy.cedar" && files.policies[0].text.contains("@id(\"demo-agent\")"));
    assert!(files.roles.unwrap().text.contains("[role.agent]"));
    assert!(policy.at.is_some() && policy.author.is_some() && policy.seq > 0);
    let first = pb::GetPolicyRequest { version: Some(1), ..dev.clone() };
    assert_eq!(ok(get(&ROOT, first.clone())).policy.unwrap(), policy);

    // A version that is not in effect any more is in history.
    let text = w.authority().ledger.peek(|s| s.policies["dev"].text.to_string());
    let set = mayfly::ledger::record::PolicySetUpdated { environment: "dev".into(), version: 2, text, ..Default::default() };
    let set = mayfly::ledger::record::Event::PolicySet(set);
    let record = mayfly::ledger::record::Record::new(mayfly::ledger::record::Author::LocalUid(0), set);
    w.run(w.authority().ledger.commit(mayfly::ledger::ProposalKind::Change, vec![record])).unwrap();
    assert_eq!(ok(get(&ROOT, first)).policy.unwrap(), policy);
    assert_eq!(ok(get(&ROOT, dev.clone())).policy.unwrap().version, 2);

    refused(get(&ROOT, pb::GetPolicyRequest { version: Some(3), ..dev.clone() }), Reason::NotFound);
    refused(get(&ROOT, pb::GetPolicyRequest { mode: pb::PolicyMode::Audit.into(), ..dev.clone() }), Reason::NotFound);
    refused(get(&ROOT, pb::GetPolicyRequest { environment: "prod".into(), ..dev.clone() }), Reason::NotFound);
    bad(get(&ROOT, pb::GetPolicyRequest { environment: String::new(), ..dev.clone() }), "environment");
    bad(get(&ROOT, pb::GetPolicyRequest { mode: 9, ..dev.clone() }), "mode");
    refused(get(&w.admin("/agent/a"), dev.clone()), Reason::DeniedByPolicy);
    refused(get(&w.workload("/agent/a"), dev), Reason::NotAuthenticated);
}

#[test]
fn what_is_not_served_says_so() {
    let w = world();
    let up = upstreams(&w);
    // An upstream whose credentials mayfly signs has nothing to test.
    let echo = || pb::TestUpstreamRequest { upstream: "echo".into() };
    refused(w.run(up.test_upstream(ask(&ROOT, echo()))), Reason::NotServed);
    refused(w.run(up.test_upstream(ask(&w.workload("/agent/a"), echo()))), Reason::NotAuthenticated);
    refused(w.run(up.test_upstream(ask(&ROOT, pb::TestUpstreamRequest { upstream: "none".into() }))), Reason::NotFound);
    bad(w.run(up.test_upstream(ask(&ROOT, Default::default()))), "upstream");
    // Nobody signs in to it either.
    let connect = || pb::ConnectUpstreamRequest { upstream: "echo".into(), redirect_uri: String::new() };
    refused(w.run(up.connect_upstream(ask(&ROOT, connect()))), Reason::NotServed);
    refused(w.run(up.connect_upstream(ask(&w.workload("/agent/a"), connect()))), Reason::NotAuthenticated);
    let elsewhere = pb::ConnectUpstreamRequest { redirect_uri: "http://evil.example/callback".into(), ..connect() };
    bad(w.run(up.connect_upstream(ask(&ROOT, elsewhere))), "redirect_uri");
    refused(w.run(up.complete_connection(ask(&ROOT, Default::default()))), Reason::NotFound);
    refused(
        w.run(up.disconnect_upstream(ask(&ROOT, pb::DisconnectUpstreamRequest { upstream: "echo".into() }))),
        Reason::NotServed,
    );
    bad(w.run(up.put_secret(ask(&ROOT, Default::default()))), "upstream");
    bad(w.run(up.remove_secret(ask(&ROOT, Default::default()))), "upstream");
}
