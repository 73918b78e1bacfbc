//! Records that are proposed to the writer in one batch.

use mayfly::ledger::commit::EncodedRecord;
use mayfly::ledger::record::RequestRecord;
use mayfly::ledger::state::request_key;
use mayfly::ledger::{LedgerSettings, ProposalKind};
use mayfly::refusal::{Error, Reason};

use crate::{note, open};

/// Each of the records takes effect or is void by itself and has its own answer; if the caller no longer waits, none is written.
#[test]
fn of_those_proposed_at_once_each_has_its_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let named =
        |n: u8| note("named").for_request(Some(RequestRecord { caller: "c".into(), id: n.to_string(), digest: vec![n; 32] }));
    let encoded = |all: &[u8]| all.iter().map(|n| EncodedRecord::new(named(*n)).unwrap()).collect();
    let ledger = open(dir.path(), LedgerSettings::default()).unwrap();
    let propose = |all: &[u8]| {
        let (ready, proposed) = ledger.ready_each(ProposalKind::Grant, encoded(all));
        ledger.propose_ready(ready).unwrap();
        proposed
    };
    let before = ledger.durable();
    let answers = runtime.block_on(ledger.receipts(propose(&[1, 2, 1, 3])));
    let seqs: Vec<_> = answers.iter().map(|a| a.as_ref().ok().map(|r| r.seq().as_u64() - before.as_u64())).collect();
    assert_eq!(seqs, [Some(1), Some(2), None, Some(3)], "the third names the request of the first");
    let refused = |no: &Error| matches!(no, Error::Refusal(no) if no.reason == Reason::RequestIdReused);
    assert!(answers[2].as_ref().is_err_and(refused));
    // If all are void, they are answered without a commit.
    let commits = ledger.commits();
    assert!(runtime.block_on(ledger.receipts(propose(&[1, 2]))).iter().all(|a| a.as_ref().is_err_and(refused)));
    assert_eq!(ledger.commits(), commits);
    // More records than a commit holds are split, and still answered in order.
    let large = |n: usize| EncodedRecord::new(note(&n.to_string().repeat(300_000))).unwrap();
    let (ready, proposed) = ledger.ready_each(ProposalKind::Grant, (0..9).cycle().take(30).map(large).collect());
    assert!(ready.len() > 1);
    ledger.propose_ready(ready).unwrap();
    let seqs: Vec<_> = runtime.block_on(ledger.receipts(proposed)).iter().map(|a| a.as_ref().unwrap().seq()).collect();
    assert!(seqs.len() == 30 && seqs.is_sorted() && ledger.commits() > commits + 1);
    drop(propose(&[7, 8]));
    runtime.block_on(ledger.commit(ProposalKind::Grant, vec![named(9)])).unwrap();
    let known = [7, 8, 9].map(|n: u8| ledger.peek(|s| s.knows_request(&request_key("c", &n.to_string()))));
    // The writer may have begun with them before the caller stopped waiting.
    assert!(known[2] && known[0] == known[1]);
    ledger.stop();
    let after = ledger.ready_each(ProposalKind::Grant, encoded(&[10]));
    assert!(ledger.propose_ready(after.0).is_err());
    assert!(runtime.block_on(ledger.receipts(after.1)).is_empty());
}
