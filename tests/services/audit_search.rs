//! Searching and following records.

use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, EVENT_NAMES, Event, Maintained, Record, RequestsRefused};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_server::AuditService;
use mayfly::refusal::Reason;
use mayfly::serve::grpc::audit::AuditApi;
use tokio_stream::StreamExt as _;

use super::{Peer, ROOT, World, ask, bad, ok, refused, world};

const AGENT: &str = "spiffe://dev.mayfly.internal/agent/a";

type Answer = Result<tonic::Response<pb::SearchRecordsResponse>, tonic::Status>;

fn page(w: &World, peer: &Peer, filter: pb::RecordFilter, page_size: i32, page_token: &str) -> Answer {
    let request = pb::SearchRecordsRequest { filter: Some(filter), page_size, page_token: page_token.into() };
    w.run(AuditApi(w.authority().clone()).search_records(ask(peer, request)))
}

fn search(w: &World, filter: pb::RecordFilter) -> Vec<pb::Record> {
    let found = ok(page(w, &ROOT, filter, 0, ""));
    assert_eq!((found.next_page_token.as_str(), found.removed_up_to), ("", 0));
    // 1 if the index shows that nothing is there.
    assert!([1, (1 << 45) + 1].contains(&found.searched_to), "to the first record there ever was: {}", found.searched_to);
    found.records
}

fn events(records: &[pb::Record]) -> Vec<&str> {
    records.iter().map(|r| r.event.as_str()).collect()
}

fn put(w: &World, record: Record) {
    w.run(w.authority().ledger.commit(ProposalKind::Change, vec![record])).unwrap();
}

#[test]
fn records_are_found_by_whatever_they_name() {
    let w = world();
    let issued = w.issue("/agent/a");
    w.issue("/agent/b");
    let (credential, task) = (issued.summary().credential.to_string(), issued.summary().about.task.to_string());
    let none = pb::RecordFilter::default;
    let both = ["credential issued", "task opened"];
    let by_name = |names: &str| search(&w, pb::RecordFilter { names: names.into(), ..none() });
    assert_eq!(events(&by_name(&credential)), ["credential issued"]);
    assert_eq!(events(&by_name(&task)), both);
    assert_eq!(events(&by_name(AGENT)), both);
    assert_eq!(events(&search(&w, pb::RecordFilter { task_id: task.clone(), ..none() })), both);
    assert_eq!(events(&search(&w, pb::RecordFilter { workload: AGENT.into(), ..none() })), both);
    let of_task = pb::RecordFilter { task_id: task.clone(), event: "task opened".into(), environment: "dev".into(), ..none() };
    let opened = search(&w, of_task);
    assert_eq!(events(&opened), ["task opened"]);
    let body: serde_json::Value = serde_json::from_str(&opened[0].body).unwrap();
    assert_eq!((body["task"].as_str(), opened[0].void_because.as_str()), (Some(task.as_str()), ""));
    // Both records are of one group in one commit.
    let whole = by_name(&task);
    assert_eq!((whole[0].group, whole[1].group), (whole[1].seq, whole[1].seq));
    let echo = search(&w, pb::RecordFilter { upstream: "echo".into(), ..none() });
    assert_eq!(events(&echo), ["credential issued", "task opened", "credential issued", "task opened", "upstream set"]);
    assert!(search(&w, pb::RecordFilter { tool: "echo".into(), ..none() }).is_empty(), "an upstream is no tool");
    let only = ok(page(&w, &ROOT, pb::RecordFilter { seq: whole[0].seq, ..none() }, 0, ""));
    assert_eq!((only.records.as_slice(), only.next_page_token.as_str()), (&whole[..1], ""));
    assert!(by_name("nobody").is_empty());
}

#[test]
fn pages_go_on_where_the_one_before_ended_and_are_for_the_same_request() {
    let w = world();
    let first = search(&w, pb::RecordFilter::default());
    for n in 0..30 {
        put(&w, Record::new(Author::Mayfly("test".into()), Event::Maintained(Maintained { what: format!("{n}") })));
    }
    let all = pb::RecordFilter::default;
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let found = ok(page(&w, &ROOT, all(), 7, &token));
        assert!(found.records.len() <= 7);
        seen.extend(found.records);
        token = found.next_page_token;
        if token.is_empty() {
            break;
        }
        // A record written in the meantime comes before the first page.
        put(&w, Record::new(Author::Mayfly("test".into()), Event::Maintained(Maintained { what: "later".into() })));
        bad(page(&w, &ROOT, pb::RecordFilter { names: "x".into(), ..all() }, 7, &token), "page_token");
    }
    // The first question has a record, too; the same question again is counted.
    assert_eq!(seen.len(), first.len() + 31);
    assert!(seen.windows(2).all(|w| w[0].seq == w[1].seq + 1));
    bad(page(&w, &ROOT, all(), 0, "x"), "page_token");
    bad(page(&w, &ROOT, all(), -1, ""), "page_size");
}

#[test]
fn a_page_of_large_records_stays_within_one_message() {
    let w = world();
    let large =
        |n: usize| RequestsRefused { caller: AGENT.into(), rule: format!("{n}{}", "x".repeat(200_000)), ..Default::default() };
    let records = (0..20).map(|n| Record::new(Author::Mayfly("test".into()), Event::Refused(large(n)))).collect();
    w.run(w.authority().ledger.commit(ProposalKind::Change, records)).unwrap();
    let filter = || pb::RecordFilter { event: "refused".into(), ..Default::default() };
    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let found = ok(page(&w, &ROOT, filter(), 100, &token));
        assert!(prost::Message::encoded_len(&found) < 4 * 1024 * 1024);
        seen.extend(found.records.iter().map(|r| r.seq));
        (token, pages) = (found.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert!(pages > 1 && seen.len() == 20 && seen.windows(2).all(|w| w[0] == w[1] + 1), "{seen:?}");
}

#[test]
fn only_those_who_may_read_the_audit_search_and_tail() {
    let w = world();
    refused(page(&w, &w.admin("/agent/a"), pb::RecordFilter::default(), 0, ""), Reason::DeniedByPolicy);
    refused(page(&w, &w.workload("/agent/a"), pb::RecordFilter::default(), 0, ""), Reason::NotAuthenticated);
    let tail = |peer: &Peer| w.run(AuditApi(w.authority().clone()).tail_records(ask(peer, pb::TailRecordsRequest::default())));
    assert!(tail(&w.admin("/agent/a")).is_err() && tail(&w.workload("/agent/a")).is_err());
    ok(page(&w, &w.admin("/operator/you"), pb::RecordFilter::default(), 0, ""));
    assert!(tail(&w.admin("/operator/you")).is_ok());
}

#[test]
fn what_is_asked_is_checked() {
    let w = world();
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let with = |field: &str, filter: pb::RecordFilter| bad(page(&w, &ROOT, filter, 0, ""), field);
    with("filter.since", pb::RecordFilter { since: at(-1), ..Default::default() });
    with("filter.until", pb::RecordFilter { since: at(10), until: at(10), ..Default::default() });
    with("filter.event", pb::RecordFilter { event: "issued".into(), ..Default::default() });
    with("filter.task_id", pb::RecordFilter { task_id: "cred_x".into(), ..Default::default() });
    with("filter.names", pb::RecordFilter { names: "x".repeat(3000), ..Default::default() });
    with("filter.seq", pb::RecordFilter { seq: u64::MAX, ..Default::default() });
    let later = pb::TailRecordsRequest { resume_after: Some((1 << 45) + 1_000_000), filter: None };
    let beyond = w.run(AuditApi(w.authority().clone()).tail_records(ask(&ROOT, later)));
    bad(beyond.map(|_| tonic::Response::new(())), "resume_after");
}

/// The next records of a stream, without records of audit reads.
async fn take(
    stream: &mut (impl tokio_stream::Stream<Item = Result<pb::TailRecordsResponse, tonic::Status>> + Unpin),
    n: usize,
) -> Vec<pb::Record> {
    let mut found = Vec::new();
    while found.len() < n {
        found.extend(stream.next().await.unwrap().unwrap().record.filter(|record| record.event != "audit read"));
    }
    found
}

#[test]
fn a_tail_tells_each_record_once_in_order_also_what_came_before_it() {
    let w = world();
    let all = search(&w, pb::RecordFilter::default());
    let audit = AuditApi(w.authority().clone());
    let from = |resume_after: Option<u64>, filter: pb::RecordFilter| {
        ok(w.run(audit.tail_records(ask(&ROOT, pb::TailRecordsRequest { resume_after, filter: Some(filter) }))))
    };
    // Resuming in the middle of a commit does not repeat its earlier records.
    let middle = all[all.len() - 3].seq;
    let mut back = from(Some(middle), pb::RecordFilter::default());
    let mut now = from(None, pb::RecordFilter::default());
    let mut issues = from(None, pb::RecordFilter { event: "credential issued".into(), ..Default::default() });
    let missed = w.run(take(&mut back, all.len() - 3));
    assert_eq!(missed.iter().rev().cloned().collect::<Vec<_>>(), all[..all.len() - 3]);
    w.issue("/agent/a");
    w.issue("/agent/b");
    let told = w.run(take(&mut now, 4));
    assert!(told[0].seq > all[0].seq);
    assert_eq!(events(&told), ["task opened", "credential issued", "task opened", "credential issued"]);
    assert_eq!(w.run(take(&mut back, 4)), told);
    assert_eq!(w.run(take(&mut issues, 2)).iter().map(|r| r.seq).collect::<Vec<_>>(), [told[1].seq, told[3].seq]);
}

#[test]
fn readers_are_bounded_and_a_place_is_free_again_when_one_goes() {
    let w = world();
    let audit = AuditApi(w.authority().clone());
    let begin = || w.run(audit.tail_records(ask(&ROOT, pb::TailRecordsRequest::default())));
    let mut all: Vec<_> = (0..mayfly::limits::READERS).map(|_| ok(begin())).collect();
    let full = begin().map(|_| tonic::Response::new(()));
    refused(full, Reason::LimitReached);
    all.pop();
    let free = || w.authority().readers.available_permits() == 1;
    for _ in 0..500 {
        if free() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    ok(begin());
}

/// The page of the audit explains each event that `audit search --event` takes.
#[test]
fn every_event_is_explained() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for event in EVENT_NAMES {
        let name = format!("`{event}`");
        assert!(rows.iter().any(|row| row.split(" | ").next().unwrap().contains(&name)), "docs/audit.md does not explain {name}");
    }
}
