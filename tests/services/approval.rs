//! Tasks that wait for an approval while time passes.

use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, PolicySetUpdated as PolicyRecord, Record};
use mayfly::ledger::state::TaskPhase;
use mayfly::openings::OpenTaskOptions;
use mayfly::policy::PolicySet;
use mayfly::policy::exchange_request::TaskRequest;

use super::kit::house::source;
use super::*;

const POLICY: &str = r#"
@id("somebody-opens")
forbid (principal, action == Action::"OpenTask", resource == Upstream::"echo") unless { context.approvals.count >= 1 };
"#;

/// A world in which every task needs an approval.
fn asking() -> World {
    let w = world();
    let mut policy = source("policy.cedar");
    policy.text.push_str(POLICY);
    let set = PolicySet::compile(vec![policy], source("roles.toml")).unwrap();
    let (digest, text) = (set.digest().to_vec(), set.to_text().to_owned());
    let record = PolicyRecord { environment: "dev".into(), version: 2, digest, text, ..PolicyRecord::default() };
    let record = Record::new(Author::Mayfly("test".into()), Event::PolicySet(record));
    w.run(w.authority().ledger.commit(ProposalKind::Change, vec![record])).unwrap();
    w
}

#[test]
fn a_task_that_nobody_approved_within_an_hour_is_closed_and_says_why() {
    let w = asking();
    let caller = w.house.caller("/agent/a");
    let terms = TaskRequest { ttl_ms: Some(3_600_000), max_ttl_ms: Some(7_200_000), heartbeat_ms: 5_000, ..terms() };
    let id = w.run(w.authority().open_task(&caller, &terms, &None, OpenTaskOptions::default())).unwrap();
    let phase = || w.authority().ledger.peek(|s| s.tasks.phase(s.tasks.get(&id).unwrap(), w.house.now()));
    w.pass(limits::APPROVAL_TTL_DEFAULT_MS - 1);
    w.authority().end_unapproved(w.house.now());
    assert_eq!(phase(), TaskPhase::PendingApproval, "nobody has to show life in it");
    w.pass(1);
    assert!(matches!(phase(), TaskPhase::Over(_)), "by its time alone");
    w.authority().end_unapproved(w.house.now());
    w.pass(1);
    let closed = w.authority().ledger.peek(|s| s.tasks.get(&id).unwrap().closed.clone()).unwrap();
    assert_eq!((closed.outcome, &*closed.reason), (mayfly::ledger::record::TaskOutcome::Expired, "nobody approved it in time"));
}

#[test]
fn whoever_looks_at_an_approval_sees_no_words_that_act_on_a_screen() {
    use mayfly::pb::mayfly::v1 as pb;
    use mayfly::pb::mayfly::v1::approval_service_server::ApprovalService as _;
    let w = asking();
    let caller = w.house.caller("/agent/a");
    let terms = TaskRequest { purpose: "for user\u{202e}nimda\u{200b}".into(), ..terms() };
    w.run(w.authority().open_task(&caller, &terms, &None, OpenTaskOptions::default())).unwrap();
    let service = mayfly::serve::grpc::approval::ApprovalApi(w.authority().clone());
    let listed = ok(w.run(service.list_approvals(ask(&ROOT, pb::ListApprovalsRequest::default()))));
    let [approval] = &listed.approvals[..] else { panic!("{listed:?}") };
    assert_eq!(approval.task.as_ref().unwrap().terms.as_ref().unwrap().purpose, "for usernimda");
    let unsafe_in = |text: &str| text.chars().any(mayfly::document::terminal_text::is_unsafe);
    assert!(!unsafe_in(&approval.purpose), "{approval:?}");
}
