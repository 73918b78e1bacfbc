//! TaskService: who may act on a task, and the errors on invalid input.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::task_service_server::TaskService;
use mayfly::policy::exchange_request::TaskChoice;
use mayfly::refusal::Reason;
use mayfly::seq::TaskId;
use mayfly::serve::grpc::task::TaskApi;
use mayfly::serve::peer::Peer;

use super::kit::house::wanted;
use super::{ROOT, World, ask, bad, ok, refused, world};

fn service(w: &World) -> TaskApi {
    TaskApi(w.authority().clone())
}

fn open(w: &World, change: impl FnOnce(&mut pb::TaskTerms)) -> Result<tonic::Response<pb::OpenTaskResponse>, tonic::Status> {
    let echo = pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] };
    let mut terms = pb::TaskTerms { purpose: "a test".into(), upstreams: vec![echo], any_tool: true, ..Default::default() };
    change(&mut terms);
    let request = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
    w.run(service(w).open_task(ask(&w.workload("/agent/a"), request)))
}

fn task(w: &World, change: impl FnOnce(&mut pb::TaskTerms)) -> String {
    ok(open(w, change)).task.unwrap().task_id
}

fn listed(w: &World, peer: &Peer, states: &[pb::TaskState]) -> usize {
    let states = states.iter().map(|s| *s as i32).collect();
    ok(w.run(service(w).list_tasks(ask(peer, pb::ListTasksRequest { states, ..Default::default() })))).tasks.len()
}

#[test]
fn bad_terms_are_refused_by_the_field_that_is_wrong() {
    let w = world();
    let length = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    type Change = Box<dyn Fn(&mut pb::TaskTerms)>;
    let cases: [(&str, Change); 10] = [
        ("ttl", Box::new(move |t| t.ttl = length(-1, 0))),
        ("ttl", Box::new(move |t| t.ttl = length(1, -1))),
        ("ttl", Box::new(move |t| t.ttl = length(i64::MAX, 0))),
        ("max_ttl", Box::new(move |t| t.max_ttl = length(0, i32::MAX))),
        ("heartbeat_interval", Box::new(move |t| t.heartbeat_interval = length(-5, 0))),
        ("purpose", Box::new(|t| t.purpose = "x".repeat(513))),
        ("purpose", Box::new(|t| t.purpose = "a\u{1b}[2J".into())),
        ("tools", Box::new(|t| t.tools = (0..65).map(|n| n.to_string()).collect())),
        ("callers", Box::new(|t| t.callers = vec!["spiffe://dev.mayfly.internal/../x".into()])),
        ("parent_task_id", Box::new(|t| t.parent_task_id = "task_x".into())),
    ];
    for (field, change) in cases {
        bad(open(&w, change), field);
    }
    bad(w.run(service(&w).open_task(ask(&w.workload("/agent/a"), pb::OpenTaskRequest::default()))), "terms");
    for id in ["", "task_", "cred_aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        bad(w.run(service(&w).get_task(ask(&ROOT, pb::GetTaskRequest { task_id: id.into() }))), "task_id");
    }
    let states = |states| pb::ListTasksRequest { states, ..Default::default() };
    for unknown in [vec![0], vec![99], vec![2; 9]] {
        bad(w.run(service(&w).list_tasks(ask(&ROOT, states(unknown)))), "states");
    }
}

#[test]
fn a_tree_is_listed_whole_and_nothing_beside_it() {
    let w = world();
    let root = task(&w, |_| {});
    let child = task(&w, |t| t.parent_task_id = root.clone());
    let grandchild = task(&w, |t| t.parent_task_id = child.clone());
    let beside = task(&w, |_| {});
    let under = |peer: &Peer, id: &str| {
        let ask_for = pb::ListTasksRequest { under_task_id: id.to_owned(), ..Default::default() };
        let mut ids: Vec<String> =
            ok(w.run(service(&w).list_tasks(ask(peer, ask_for)))).tasks.into_iter().map(|t| t.task_id).collect();
        ids.sort();
        ids
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(under(&ROOT, &root), sorted(&[&root, &child, &grandchild]));
    assert_eq!(under(&ROOT, &child), sorted(&[&child, &grandchild]));
    assert_eq!(under(&ROOT, &beside), [beside]);
    assert!(under(&w.workload("/agent/b"), &root).is_empty(), "others see none of it");
    bad(
        w.run(service(&w).list_tasks(ask(&ROOT, pb::ListTasksRequest { under_task_id: "x".into(), ..Default::default() }))),
        "under_task_id",
    );
}

#[test]
fn a_foreign_task_is_as_if_it_were_not_there() {
    let w = world();
    let id = task(&w, |_| {});
    let stranger = w.workload("/agent/b");
    let (task_id, reason) = (id.clone(), "x".to_owned());
    refused(w.run(service(&w).get_task(ask(&stranger, pb::GetTaskRequest { task_id: id.clone() }))), Reason::NotFound);
    let hold = pb::HoldTaskRequest { task_id, reason: reason.clone(), request_id: String::new() };
    refused(w.run(service(&w).hold_task(ask(&stranger, hold))), Reason::NotFound);
    let complete = pb::CompleteTaskRequest { task_id: id.clone(), reason: reason.clone() };
    refused(w.run(service(&w).complete_task(ask(&stranger, complete))), Reason::NotFound);
    let cancel = pb::CancelTaskRequest { task_id: id.clone(), reason };
    refused(w.run(service(&w).cancel_task(ask(&stranger, cancel))), Reason::NotFound);
    let credentials = pb::ListTaskCredentialsRequest { task_id: id, ..Default::default() };
    refused(w.run(service(&w).list_task_credentials(ask(&stranger, credentials))), Reason::NotFound);
    assert_eq!((listed(&w, &stranger, &[]), listed(&w, &w.workload("/agent/a"), &[])), (0, 1));
}

#[test]
fn lists_are_of_what_is_not_over_unless_asked() {
    let w = world();
    let id = task(&w, |_| {});
    task(&w, |_| {});
    let agent = w.workload("/agent/a");
    let done = ok(w.run(service(&w).complete_task(ask(&agent, pb::CompleteTaskRequest { task_id: id, reason: String::new() }))));
    assert_eq!(done.task.unwrap().state, pb::TaskState::Completed as i32);
    assert_eq!((listed(&w, &agent, &[]), listed(&w, &agent, &[pb::TaskState::Completed])), (1, 1));
}

#[test]
fn who_only_acts_in_a_task_sees_what_was_issued_to_itself() {
    let w = world();
    let friend = "spiffe://dev.mayfly.internal/agent/b".to_owned();
    let id = task(&w, |t| t.callers = vec![friend.clone()]);
    let named = TaskChoice::Named(id.parse::<TaskId>().unwrap());
    for path in ["/agent/a", "/agent/b", "/agent/a"] {
        w.run(w.authority().exchange(&w.house.caller(path), &wanted(named.clone()))).unwrap();
    }
    let seen = |peer: &Peer| {
        let request = pb::ListTaskCredentialsRequest { task_id: id.clone(), ..Default::default() };
        let all = ok(w.run(service(&w).list_task_credentials(ask(peer, request)))).credentials;
        all.into_iter().map(|c| c.caller).collect::<Vec<_>>()
    };
    assert_eq!(seen(&w.workload("/agent/b")), [friend]);
    assert_eq!((seen(&w.workload("/agent/a")).len(), seen(&ROOT).len()), (3, 3));
}

#[test]
fn a_hold_of_an_operator_is_not_the_callers_to_lift() {
    let w = world();
    let id = task(&w, |_| {});
    let agent = w.workload("/agent/a");
    let hold = |reason: &str| pb::HoldTaskRequest { task_id: id.clone(), reason: reason.into(), request_id: String::new() };
    let resume = || pb::ResumeTaskRequest { task_id: id.clone(), ..Default::default() };
    bad(w.run(service(&w).hold_task(ask(&agent, hold("")))), "reason");
    refused(w.run(service(&w).resume_task(ask(&agent, resume()))), Reason::TaskNotActive);
    ok(w.run(service(&w).hold_task(ask(&agent, hold("x")))));
    let resumed = ok(w.run(service(&w).resume_task(ask(&agent, resume())))).task.unwrap();
    assert_eq!(resumed.state, pb::TaskState::Active as i32);
    ok(w.run(service(&w).hold_task(ask(&ROOT, hold("x")))));
    refused(w.run(service(&w).resume_task(ask(&agent, resume()))), Reason::NotYours);
    ok(w.run(service(&w).resume_task(ask(&ROOT, resume()))));
}

#[test]
fn an_extension_moves_a_deadline_later_and_never_earlier() {
    let w = world();
    // Within the hour for which policy permits extensions.
    let id = task(&w, |t| {
        t.ttl = Some(prost_types::Duration { seconds: 600, nanos: 0 });
        t.max_ttl = Some(prost_types::Duration { seconds: 1_200, nanos: 0 });
    });
    let agent = w.workload("/agent/a");
    let get = |id: &str| ok(w.run(service(&w).get_task(ask(&agent, pb::GetTaskRequest { task_id: id.into() })))).task.unwrap();
    let present = get(&id).deadline.unwrap();
    let to = |seconds: i64| pb::ExtendTaskRequest {
        task_id: id.clone(),
        deadline: Some(prost_types::Timestamp { seconds: present.seconds + seconds, ..present }),
        ..Default::default()
    };
    bad(w.run(service(&w).extend_task(ask(&agent, to(-1)))), "deadline");
    assert_eq!(get(&id).deadline.unwrap(), present, "nothing changed");
    ok(w.run(service(&w).extend_task(ask(&agent, to(0)))));
    let later = ok(w.run(service(&w).extend_task(ask(&agent, to(5))))).task.unwrap();
    assert_eq!(later.deadline.unwrap().seconds, present.seconds + 5);
    bad(w.run(service(&w).extend_task(ask(&agent, to(0)))), "deadline");
}
