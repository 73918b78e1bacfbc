//! Operators' queries on a long history: how much is read depends on the query, not on the length of the history.

use std::path::Path;
use std::time::Duration;

use mayfly::ledger::ProposalKind;
use mayfly::ledger::reader::history_query::HistoryReadStats;
use mayfly::ledger::record::{
    Author, Event, PolicySetUpdated, Record, RecordedTarget, RequestsRefused, TargetRecord, TargetsRevoked,
};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_server::AuditService;
use mayfly::pb::mayfly::v1::credential_service_server::CredentialService;
use mayfly::pb::mayfly::v1::explain_request::Of;
use mayfly::pb::mayfly::v1::policy_service_server::PolicyService;
use mayfly::pb::mayfly::v1::revocation_service_server::RevocationService;
use mayfly::seq::{ApprovalId, CredentialId, LeaseId, Seq, TaskId};
use mayfly::serve::grpc::audit::AuditApi;
use mayfly::serve::grpc::policy::PolicyApi;
use mayfly::serve::grpc::revocation::RevocationApi;
use tonic::{Code, Status};

use super::credential::{id, service, task};
use super::{ROOT, World, ask, runtime, token};
use crate::kit::house::house_with_index;

/// Bytes of records in a block: three commits of the kind below.
const BLOCK: usize = 4_096;
/// The most commits that a query about one object reads: a few blocks for each record in the answer.
const COMMITS: u64 = 48;

/// A world with an old object that ended long ago, and much history after it.
struct Aged {
    w: World,
    credential: CredentialId,
    task: TaskId,
    token: String,
    /// The sequence number of an old revocation that is still in effect.
    rule: u64,
    segments: u64,
}

fn put(w: &World, records: Vec<Record>) {
    w.run(w.authority().ledger.commit(ProposalKind::Change, records)).unwrap();
}

fn revoked(upstream: &str) -> Record {
    let target = TargetRecord { aim: Some(RecordedTarget::Upstream(upstream.into())) };
    let keep_until = u64::MAX >> 12;
    Record::new(
        Author::LocalUid(0),
        Event::Revoked(TargetsRevoked {
            targets: vec![target],
            reason: "a test".into(),
            keep_until,
            ..TargetsRevoked::default()
        }),
    )
}

/// A refusal of another caller in another task.
fn refused_elsewhere(n: u64) -> Record {
    let task = TaskId::from_bytes(u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
    let caller = format!("spiffe://dev.mayfly.internal/agent/{}", n % 7);
    let rule = format!("{n} {}", "x".repeat(300));
    let refused =
        RequestsRefused { caller, task: task.to_string(), rule, reason: "LOCKED".into(), count: 1, ..RequestsRefused::default() };
    Record::new(Author::Mayfly("test".into()), Event::Refused(refused))
}

fn aged(dir: &Path, commits: u64) -> Aged {
    let w = World { house: house_with_index(dir, BLOCK), runtime: runtime() };
    let issued = w.issue("/agent/a");
    let (credential, of) = (id(&issued), task(&issued));
    let token = token(issued);
    let text = w.authority().ledger.peek(|s| s.policies["dev"].text.to_string());
    let set = PolicySetUpdated { environment: "dev".into(), version: 2, text, ..PolicySetUpdated::default() };
    put(&w, vec![Record::new(Author::LocalUid(0), Event::PolicySet(set))]);
    put(&w, vec![revoked("elsewhere")]);
    let rule = w.authority().ledger.durable().as_u64();
    w.pass(3_000_000);
    w.pass(1_000);
    assert!(w.authority().ledger.peek(|s| s.credentials.get(&credential).is_none()));
    for n in 0..commits {
        let mut records: Vec<Record> = (0..3).map(|k| refused_elsewhere(n * 3 + k)).collect();
        if n % 20 == 0 {
            records.push(revoked(&format!("other-{n}")));
        }
        put(&w, records);
    }
    let ledger = &w.authority().ledger;
    let (oldest, newest) = ledger.peek(|s| (s.removed.before, s.position));
    for _ in 0..600 {
        if ledger.unindexed(oldest, newest) == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ledger.unindexed(oldest, newest), 0, "the index covers all of it");
    let files = std::fs::read_dir(dir.join("index")).unwrap();
    let segments = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "names")).count() as u64;
    Aged { w, credential, task: of, token, rule, segments }
}

type Asked = Result<(), Status>;

/// A query: its name, the code of its answer, and the call.
type Question = (&'static str, Code, Box<dyn Fn(&Aged) -> Asked>);

/// Each query, with its expected code.
fn questions() -> Vec<Question> {
    fn explain(a: &Aged, of: Of) -> Asked {
        a.w.run(AuditApi(a.w.authority().clone()).explain(ask(&ROOT, pb::ExplainRequest { of: Some(of) }))).map(drop)
    }
    fn show(a: &Aged, credential_id: String) -> Asked {
        a.w.run(service(&a.w).get_credential(ask(&ROOT, pb::GetCredentialRequest { credential_id }))).map(drop)
    }
    fn look_up(a: &Aged, by: pb::lookup_token_request::By) -> Asked {
        a.w.run(service(&a.w).lookup_token(ask(&ROOT, pb::LookupTokenRequest { by: Some(by) }))).map(drop)
    }
    fn policy(a: &Aged, version: u64) -> Asked {
        let request = pb::GetPolicyRequest { environment: "dev".into(), version: Some(version), ..Default::default() };
        a.w.run(PolicyApi(a.w.authority().clone()).get_policy(ask(&ROOT, request))).map(drop)
    }
    fn search(a: &Aged, filter: pb::RecordFilter) -> Asked {
        let request = pb::SearchRecordsRequest { filter: Some(filter), page_size: 10, page_token: String::new() };
        let found = a.w.run(AuditApi(a.w.authority().clone()).search_records(ask(&ROOT, request)))?.into_inner();
        match found.records.is_empty() && found.next_page_token.is_empty() {
            true => Err(Status::not_found("nothing fits")),
            false => Ok(()),
        }
    }
    fn request(a: &Aged, id: &str) -> Asked {
        let caller = "spiffe://dev.mayfly.internal/agent/nobody".to_owned();
        explain(a, Of::Request(pb::RequestName { caller, request_id: id.into() }))
    }
    let none = [1; 16];
    let names = |names: String| pb::RecordFilter { names, ..Default::default() };
    use pb::lookup_token_request::By;
    let digest = |a: &Aged| mayfly::ledger::commit::sha256(a.token.rsplit_once('.').unwrap().0.as_bytes()).to_vec();
    vec![
        ("explain a credential", Code::Ok, Box::new(|a| explain(a, Of::CredentialId(a.credential.to_string())))),
        (
            "explain no credential",
            Code::NotFound,
            Box::new(move |a| explain(a, Of::CredentialId(CredentialId::from_bytes(none).to_string()))),
        ),
        ("explain a task", Code::Ok, Box::new(|a| explain(a, Of::TaskId(a.task.to_string())))),
        ("explain no task", Code::NotFound, Box::new(move |a| explain(a, Of::TaskId(TaskId::from_bytes(none).to_string())))),
        ("explain a seq", Code::Ok, Box::new(|a| explain(a, Of::Seq(a.rule)))),
        ("explain no seq", Code::NotFound, Box::new(|a| explain(a, Of::Seq(5)))),
        (
            "explain a seq to come",
            Code::NotFound,
            Box::new(|a| explain(a, Of::Seq(a.w.authority().ledger.durable().as_u64() + 1_000))),
        ),
        (
            "explain no approval",
            Code::NotFound,
            Box::new(move |a| explain(a, Of::ApprovalId(ApprovalId::from_bytes(none).to_string()))),
        ),
        ("explain no lease", Code::NotFound, Box::new(move |a| explain(a, Of::LeaseId(LeaseId::from_bytes(none).to_string())))),
        ("explain no request", Code::NotFound, Box::new(|a| request(a, "none"))),
        ("show a credential", Code::Ok, Box::new(|a| show(a, a.credential.to_string()))),
        ("show no credential", Code::NotFound, Box::new(move |a| show(a, CredentialId::from_bytes(none).to_string()))),
        ("look up a token", Code::Ok, Box::new(|a| look_up(a, By::Token(a.token.clone())))),
        ("look up a digest", Code::Ok, Box::new(move |a| look_up(a, By::Sha256(digest(a).into())))),
        ("look up no digest", Code::NotFound, Box::new(|a| look_up(a, By::Sha256(vec![9; 32].into())))),
        ("look up no token", Code::NotFound, Box::new(|a| look_up(a, By::Token("something".into())))),
        ("show an old policy set", Code::Ok, Box::new(|a| policy(a, 1))),
        ("show no policy set", Code::NotFound, Box::new(|a| policy(a, 41))),
        (
            "lift no lock",
            Code::NotFound,
            Box::new(|a| {
                let request = pb::LiftLockRequest { seq: 5, reason: "mistyped".into(), ..Default::default() };
                a.w.run(RevocationApi(a.w.authority().clone()).lift_lock(ask(&ROOT, request))).map(drop)
            }),
        ),
        (
            "show a rule",
            Code::Ok,
            Box::new(|a| {
                let request = pb::GetRevocationRequest { seq: a.rule };
                a.w.run(RevocationApi(a.w.authority().clone()).get_revocation(ask(&ROOT, request))).map(drop)
            }),
        ),
        ("search a name", Code::Ok, Box::new(move |a| search(a, names(a.credential.to_string())))),
        ("search no name", Code::NotFound, Box::new(move |a| search(a, names("nobody".into())))),
        (
            "search an event of a name",
            Code::NotFound,
            Box::new(|a| {
                search(a, pb::RecordFilter { event: "refused".into(), task_id: a.task.to_string(), ..Default::default() })
            }),
        ),
        ("search a seq", Code::Ok, Box::new(|a| search(a, pb::RecordFilter { seq: a.rule, ..Default::default() }))),
        ("search no seq", Code::NotFound, Box::new(|a| search(a, pb::RecordFilter { seq: 5, ..Default::default() }))),
    ]
}

/// The amount that one query reads.
fn read(a: &Aged, what: &str, ends: Code, question: &dyn Fn(&Aged) -> Asked) -> HistoryReadStats {
    let ledger = &a.w.authority().ledger;
    let before = ledger.read_of_history();
    let code = question(a).map_or_else(|status| status.code(), |()| Code::Ok);
    assert_eq!(code, ends, "{what}");
    let after = ledger.read_of_history();
    HistoryReadStats {
        commits: after.commits - before.commits,
        bytes: after.bytes - before.bytes,
        pages: after.pages - before.pages,
    }
}

#[test]
fn what_is_read_for_a_question_does_not_depend_on_how_long_history_is() {
    let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (short, long) = (aged(dirs.0.path(), 300), aged(dirs.1.path(), 2_400));
    assert!(long.segments >= 4 && long.segments > short.segments, "{} and {} segments", short.segments, long.segments);
    for (what, ends, question) in questions() {
        let (little, much) = (read(&short, what, ends, &question), read(&long, what, ends, &question));
        // The newest commits are in no block of the index yet, and each question adds one of some 200 bytes, the record of the audit read: up
        // to a block of them, more or less. Two names may also share a fingerprint.
        let unfinished = (BLOCK / 200) as u64;
        assert!(much.commits <= little.commits + unfinished && much.commits <= COMMITS, "{what}: {little:?}, {much:?}");
        assert!(much.bytes <= COMMITS * 2 * BLOCK as u64, "{what}: {much:?}");
        // At most some pages of each segment; most names share the first page.
        assert!(much.pages <= (long.segments + 1) * 64, "{what}: {much:?} of {} segments", long.segments);
    }
}

#[test]
fn a_question_that_nobody_waits_for_gives_its_place_back() {
    let dir = tempfile::tempdir().unwrap();
    let a = aged(dir.path(), 300);
    let authority = a.w.authority().clone();
    let all = mayfly::limits::HISTORY_QUESTIONS as u32;
    a.w.run(async {
        for _ in 0..20 {
            let of = mayfly::explain::ExplainTarget::Seq(Seq::from_u64(a.rule).unwrap());
            let question = authority.explain(&of, mayfly::explain::SearchDepth::History);
            // The caller goes away at once.
            let _ = tokio::time::timeout(Duration::ZERO, question).await;
        }
        let free = tokio::time::timeout(Duration::from_secs(5), authority.questions.clone().acquire_many_owned(all)).await;
        assert!(free.is_ok(), "the places are free again");
    });
}
