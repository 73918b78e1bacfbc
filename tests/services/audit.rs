//! AuditService, and the records of refusals.

use mayfly::credential::IssuedCredential;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{
    Author, CredentialReleased, Event, Record, RequestsRefused, TargetsRevoked, TaskClosed, TaskOutcome,
};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_server::AuditService;
use mayfly::pb::mayfly::v1::explain_request::Of;
use mayfly::policy::exchange_request::TaskChoice;
use mayfly::refusal::{Error, Reason};
use mayfly::revocation::Target;
use mayfly::seq::{CredentialId, TaskId};
use mayfly::serve::grpc::audit::AuditApi;

use super::kit::house::{named, terms, wanted};
use super::{Peer, ROOT, World, ask, bad, ok, refused, world};

const AGENT: &str = "spiffe://dev.mayfly.internal/agent/a";

type Answer = Result<tonic::Response<pb::ExplainResponse>, tonic::Status>;

fn explain(w: &World, peer: &Peer, of: Of) -> Answer {
    w.run(AuditApi(w.authority().clone()).explain(ask(peer, pb::ExplainRequest { of: Some(of) })))
}

fn put(w: &World, event: Event) -> u64 {
    let record = Record::new(Author::SpiffeId("spiffe://dev.mayfly.internal/operator/you".into()), event);
    w.run(w.authority().ledger.commit(ProposalKind::Revoke, vec![record])).unwrap().seq().as_u64()
}

fn revoke(w: &World, target: Target) -> u64 {
    let targets = vec![target.to_record()];
    put(w, Event::Revoked(TargetsRevoked { targets, issued_only: true, reason: "it leaked".into(), ..Default::default() }))
}

fn of_credential(issued: &IssuedCredential) -> Of {
    Of::CredentialId(issued.summary().credential.to_string())
}

fn events(answer: &pb::ExplainResponse) -> Vec<&str> {
    answer.records.iter().map(|r| r.event.as_str()).collect()
}

fn finding<'a>(answer: &'a pb::ExplainResponse, subject: &str) -> &'a pb::Finding {
    answer.findings.iter().find(|f| f.subject == subject).unwrap_or_else(|| panic!("no {subject}: {answer:#?}"))
}

#[test]
fn a_grant_is_explained_with_what_it_was_decided_with() {
    let w = world();
    let issued = w.issue("/agent/a");
    let answer = ok(explain(&w, &ROOT, of_credential(&issued)));
    assert!(answer.summary.contains(AGENT) && answer.summary.contains("good until"), "{}", answer.summary);
    assert_eq!(events(&answer), ["task opened", "credential issued"]);
    let policy = finding(&answer, "policy");
    assert!(policy.permits && policy.text.contains("demo-agent") && policy.text.contains("policy set 1 of dev"), "{policy:?}");
    assert!(finding(&answer, "upstream").text.contains("version 1"));
    assert!(finding(&answer, "ttl bound").text.starts_with("what was asked for"));
    assert!(finding(&answer, "evidence").text.contains("dev.mayfly.internal"));
    let body: serde_json::Value = serde_json::from_str(&answer.records[1].body).unwrap();
    assert_eq!(body["credential"], issued.summary().credential.to_string());
    assert_eq!(body["policies"], serde_json::json!(["demo-agent"]));
    assert_eq!(answer.records[1].seq, finding(&answer, "policy").seq);
    assert!(answer.records[0].seq < answer.records[1].seq);
}

#[test]
fn a_lock_is_no_revocation_and_a_refusal_names_its_rule() {
    let w = world();
    let targets = || vec![Target::Tool("shell".into()).to_record()];
    let locked = TargetsRevoked { targets: targets(), lock_only: true, reason: "look first".into(), ..Default::default() };
    let seq = put(&w, Event::Revoked(locked));
    let answer = ok(explain(&w, &ROOT, Of::Seq(seq)));
    assert!(answer.summary.starts_with("locked by ") && answer.summary.ends_with("look first"), "{}", answer.summary);
    let revoked = TargetsRevoked { targets: targets(), issued_only: true, reason: "it leaked".into(), ..Default::default() };
    let seq = put(&w, Event::Revoked(revoked));
    let answer = ok(explain(&w, &ROOT, Of::Seq(seq)));
    assert!(answer.summary.starts_with("revoked by "), "{}", answer.summary);
}

#[test]
fn what_ended_a_credential_is_named() {
    let w = world();
    let issued: Vec<IssuedCredential> = (0..4).map(|_| w.issue("/agent/a")).collect();
    let rule = revoke(&w, Target::Credential(issued[0].summary().credential));
    let answer = ok(explain(&w, &ROOT, of_credential(&issued[0])));
    assert!(answer.summary.contains(&format!("revoked by rule {rule}")), "{}", answer.summary);
    let found = finding(&answer, "rule");
    assert!(!found.permits && found.seq == rule && found.text.contains("it leaked") && found.text.contains("operator/you"));
    assert_eq!(events(&answer), ["task opened", "credential issued", "revoked"]);

    let credential = issued[1].summary().credential.as_bytes().to_vec();
    put(&w, Event::Released(CredentialReleased { credential, keep_until: 0 }));
    let answer = ok(explain(&w, &ROOT, of_credential(&issued[1])));
    assert!(answer.summary.contains("given back"), "{}", answer.summary);

    let task = issued[2].summary().about.task.as_bytes().to_vec();
    let closed = TaskClosed { task, outcome: TaskOutcome::Completed as i32, reason: "done".into(), ..Default::default() };
    put(&w, Event::TaskClosed(closed));
    let answer = ok(explain(&w, &ROOT, of_credential(&issued[2])));
    assert!(answer.summary.contains("done"), "{}", answer.summary);
    assert_eq!(events(&answer).last(), Some(&"task closed"));

    w.pass(61_000);
    let answer = ok(explain(&w, &ROOT, of_credential(&issued[3])));
    assert!(answer.summary.contains("expired"), "{}", answer.summary);
}

#[test]
fn what_ended_long_ago_is_explained_from_history() {
    let w = world();
    let issued = w.issue("/agent/a");
    let rule = revoke(&w, Target::Caller(AGENT.into()));
    w.pass(3_000_000);
    w.pass(1_000);
    assert!(w.authority().ledger.peek(|s| s.credentials.get(&issued.summary().credential).is_none()));
    let answer = ok(explain(&w, &ROOT, of_credential(&issued)));
    assert!(answer.summary.contains(&format!("revoked by rule {rule}")), "{}", answer.summary);
    assert_eq!(events(&answer), ["task opened", "credential issued", "revoked"]);
    refused(explain(&w, &w.workload("/agent/a"), of_credential(&issued)), Reason::NotFound);
    let task = ok(explain(&w, &ROOT, Of::TaskId(issued.summary().about.task.to_string())));
    assert!(task.summary.contains("no longer in memory"), "{}", task.summary);
    assert_eq!(events(&task), ["task opened"]);
}

#[test]
fn a_holder_is_told_of_its_own_and_of_nothing_else() {
    let w = world();
    let issued = w.issue("/agent/a");
    let mine = ok(explain(&w, &w.workload("/agent/a"), of_credential(&issued)));
    assert!(mine.summary.contains("good until") && mine.records.is_empty(), "history is for operators");
    let task = || Of::TaskId(issued.summary().about.task.to_string());
    ok(explain(&w, &w.workload("/agent/a"), task()));
    for of in [of_credential(&issued), task(), Of::CredentialId(CredentialId::from_bytes([1; 16]).to_string())] {
        refused(explain(&w, &w.workload("/agent/b"), of.clone()), Reason::NotFound);
        refused(explain(&w, &w.admin("/agent/b"), of), Reason::DeniedByPolicy);
    }
    refused(explain(&w, &w.workload("/agent/a"), Of::Seq(3)), Reason::NotFound);
}

#[test]
fn a_request_is_explained_by_what_it_made() {
    let w = world();
    let caller = w.house.caller("/agent/a");
    let want = named(wanted(TaskChoice::Inline(terms().into())), "r1");
    let issued = w.run(w.authority().exchange(&caller, &want)).unwrap();
    let of = |caller: &str, id: &str| Of::Request(pb::RequestName { caller: caller.into(), request_id: id.into() });
    let by_operator = ok(explain(&w, &ROOT, of(AGENT, "r1")));
    assert!(by_operator.summary.contains(" was issued to spiffe://"), "{}", by_operator.summary);
    let mine = ok(explain(&w, &w.workload("/agent/a"), of("", "r1")));
    assert_eq!(mine.summary, by_operator.summary);
    refused(explain(&w, &w.workload("/agent/b"), of(AGENT, "r1")), Reason::NotFound);
    refused(explain(&w, &w.workload("/agent/b"), of("", "r1")), Reason::NotFound);
    refused(explain(&w, &ROOT, of(AGENT, "none")), Reason::NotFound);
    drop(issued);
    w.pass(3_000_000);
    w.pass(1_000);
    let later = ok(explain(&w, &ROOT, of(AGENT, "r1")));
    assert!(later.summary.contains("expired"), "{}", later.summary);
}

#[test]
fn a_refusal_is_explained_by_its_rule() {
    let w = world();
    let caller = w.house.caller("/agent/a");
    let mut want = wanted(TaskChoice::Inline(terms().into()));
    want.scopes = ["echo:none".into()].into();
    let Err(Error::Refusal(no)) = w.run(w.authority().exchange(&caller, &want)) else { panic!("it was not refused") };
    w.authority().refused(AGENT, &no.clone().by("the rule"), "echo", "");
    w.pass(1);
    let of = Of::Request(pb::RequestName { caller: AGENT.into(), request_id: "r9".into() });
    let answer = ok(explain(&w, &ROOT, of));
    assert!(answer.summary.starts_with("nothing was granted"), "{}", answer.summary);
    assert!(answer.request_unknown && answer.summary.contains("no record has this request id"), "{}", answer.summary);
    let found = finding(&answer, "refused");
    assert!(!found.permits && found.text.contains("OUTSIDE_UPSTREAM") && found.text.contains("the rule"), "{found:?}");
    let by_seq = ok(explain(&w, &ROOT, Of::Seq(found.seq)));
    assert_eq!(by_seq.findings, std::slice::from_ref(found));
}

#[test]
fn refusals_are_recorded_up_to_a_number_and_counted_beyond() {
    let w = world();
    let before = w.authority().ledger.peek(|s| s.refusals);
    for _ in 0..20 {
        let of = Of::CredentialId(CredentialId::from_bytes([1; 16]).to_string());
        refused(explain(&w, &w.workload("/agent/a"), of), Reason::NotFound);
    }
    w.pass(1);
    let recorded = u64::from(mayfly::limits::REFUSALS_RECORDED);
    assert_eq!(w.authority().ledger.peek(|s| s.refusals) - before, recorded);
    w.house.clock.advance(60_000);
    w.authority().write_counted(w.house.now());
    w.pass(1);
    assert_eq!(w.authority().ledger.peek(|s| s.refusals) - before, 20, "none is lost");
    let head = w.authority().ledger.durable().as_u64();
    let counted = ok(explain(&w, &ROOT, Of::Seq(head - 1)));
    assert!(counted.findings[0].text.starts_with("17 more"), "{counted:?}");
}

#[test]
fn any_record_is_shown_by_its_seq() {
    let w = world();
    let issued = w.issue("/agent/a");
    let refusal =
        RequestsRefused { caller: AGENT.into(), reason: "LOCKED".into(), rule: "seq 7".into(), count: 1, ..Default::default() };
    let seq = put(&w, Event::Refused(refusal));
    let answer = ok(explain(&w, &ROOT, Of::Seq(seq)));
    assert!(answer.findings[0].text.contains("seq 7"), "{answer:?}");
    let whole = ok(explain(&w, &ROOT, of_credential(&issued)));
    let by_seq = ok(explain(&w, &ROOT, Of::Seq(whole.records[1].seq)));
    assert_eq!(by_seq, whole);
    let task = ok(explain(&w, &ROOT, Of::Seq(whole.records[0].seq)));
    assert_eq!(finding(&task, "task").text, format!("active until {}", w.house.now().plus(600_000)));
    let policy = ok(explain(&w, &ROOT, Of::Seq(mayfly::seq::Seq::start_of(1).as_u64() + 2)));
    assert_eq!(policy.records[0].event, "policy set");
    refused(explain(&w, &ROOT, Of::Seq(w.authority().ledger.durable().as_u64() + 100)), Reason::NotFound);
    bad(explain(&w, &ROOT, Of::Seq(u64::MAX)), "seq");
}

#[test]
fn what_is_asked_is_checked() {
    let w = world();
    bad(explain(&w, &ROOT, Of::CredentialId("x".into())), "credential_id");
    bad(explain(&w, &ROOT, Of::TaskId(CredentialId::from_bytes([1; 16]).to_string())), "task_id");
    bad(explain(&w, &ROOT, Of::LeaseId("x".into())), "lease_id");
    bad(explain(&w, &ROOT, Of::ApprovalId(String::new())), "approval_id");
    bad(explain(&w, &ROOT, Of::Request(pb::RequestName::default())), "request.request_id");
    let empty = w.run(AuditApi(w.authority().clone()).explain(ask(&ROOT, pb::ExplainRequest { of: None })));
    bad(empty, "of");
    refused(explain(&w, &ROOT, Of::TaskId(TaskId::from_bytes([1; 16]).to_string())), Reason::NotFound);
    let lease = mayfly::seq::LeaseId::from_bytes([1; 16]).to_string();
    refused(explain(&w, &ROOT, Of::LeaseId(lease)), Reason::NotFound);
}

#[test]
fn questions_that_read_history_are_bounded() {
    let w = world();
    let _all = w.authority().questions.clone().try_acquire_many_owned(mayfly::limits::HISTORY_QUESTIONS as u32).unwrap();
    let status = refused(explain(&w, &ROOT, Of::Seq(3)), Reason::LimitReached);
    assert!(tonic_types::StatusExt::get_details_retry_info(&status).is_some());
}
