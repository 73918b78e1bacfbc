//! Checkpoints and exports, and the errors that their verification finds.

use std::path::PathBuf;

use mayfly::keys;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Maintained, Record, RequestsRefused};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_server::AuditService;
use mayfly::proof::check::{ExportError, VerifiedExport, check};
use mayfly::proof::key::NoteKey;
use mayfly::proof::note::{Checkpoint, SignedNote};
use mayfly::refusal::Reason;
use mayfly::serve::grpc::audit::AuditApi;
use tokio_stream::StreamExt as _;

use super::{Peer, ROOT, World, ask, bad, ok, refused, world};

/// A world with a checkpoint key.
fn signing() -> World {
    let w = world();
    w.run(keys::run_key_maintenance(w.authority()));
    w
}

fn checkpoint(w: &World, since_size: u64) -> Result<tonic::Response<pb::GetCheckpointResponse>, tonic::Status> {
    w.run(AuditApi(w.authority().clone()).get_checkpoint(ask(&ROOT, pb::GetCheckpointRequest { since_size })))
}

fn read(answer: &pb::GetCheckpointResponse) -> (Checkpoint, Vec<NoteKey>) {
    let keys = NoteKey::read(&answer.jwks).unwrap();
    let note = SignedNote::parse(&answer.checkpoint).unwrap();
    note.signer(&keys).unwrap();
    (Checkpoint::parse(&note.text).unwrap(), keys)
}

fn try_export(w: &World, peer: &Peer, filter: pb::RecordFilter, since_size: u64) -> Result<String, tonic::Status> {
    let request = pb::ExportRecordsRequest { filter: Some(filter), since_size };
    w.run(async {
        let mut stream = AuditApi(w.authority().clone()).export_records(ask(peer, request)).await?.into_inner();
        let mut text = String::new();
        while let Some(part) = stream.next().await {
            text.push_str(std::str::from_utf8(&part?.lines).unwrap());
        }
        Ok(text)
    })
}

fn export(w: &World, filter: pb::RecordFilter) -> (String, Vec<NoteKey>) {
    let keys = read(&ok(checkpoint(w, 0))).1;
    (try_export(w, &ROOT, filter, 0).unwrap(), keys)
}

fn checked(text: &str, keys: &[NoteKey]) -> Result<VerifiedExport, ExportError> {
    check(text.as_bytes(), keys)
}

/// Issuances among other records, some in the same commit.
fn busy() -> World {
    let w = signing();
    for n in 0..4 {
        w.issue(if n % 2 == 0 { "/agent/a" } else { "/agent/b" });
        let note = |what: String| Record::new(Author::Mayfly("test".into()), Event::Maintained(Maintained { what }));
        let mixed = |n: usize| match n % 3 {
            0 => Record::new(
                Author::LocalUid(7),
                Event::Refused(RequestsRefused { reason: "LOCKED".into(), asked: format!("\u{202e}{n}"), ..Default::default() }),
            ),
            _ => note(format!("{n}")),
        };
        w.run(w.authority().ledger.commit(ProposalKind::Change, (0..7).map(mixed).collect())).unwrap();
        w.pass(1);
    }
    w
}

fn locked_out() -> pb::RecordFilter {
    pb::RecordFilter { names: "LOCKED".into(), ..Default::default() }
}

fn lines(text: &str) -> Vec<String> {
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// The sequence number of a line with a record.
fn seq_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).unwrap()["record"]["seq"].as_u64()
}

#[test]
fn each_checkpoint_goes_on_from_those_before() {
    let w = signing();
    let first = read(&ok(checkpoint(&w, 0))).0;
    assert_eq!(read(&ok(checkpoint(&w, 0))).0, first, "nothing happened");
    assert_eq!(first.size, w.authority().ledger.durable_position());
    let mut kept = vec![first];
    for _ in 0..5 {
        w.issue("/agent/a");
        for old in &kept {
            let answer = ok(checkpoint(&w, old.size));
            let new = read(&answer).0;
            let proof: Vec<[u8; 32]> = answer.consistency.iter().map(|h| h[..].try_into().unwrap()).collect();
            let holds =
                |old: &Checkpoint| mayfly::ledger::tree::proof::consistent(old.size, new.size, &old.root, &new.root, &proof);
            assert!(holds(old) && !holds(&Checkpoint { root: [1; 32], ..old.clone() }));
        }
        kept.push(read(&ok(checkpoint(&w, 0))).0);
    }
    bad(checkpoint(&w, 1_000_000), "since_size");
}

#[test]
fn without_a_key_there_is_no_checkpoint() {
    refused(checkpoint(&world(), 0), Reason::NotReady);
}

#[test]
fn an_export_is_checked_without_a_server_and_says_what_it_is_of() {
    let w = busy();
    let (text, keys) = export(&w, locked_out());
    let right = checked(&text, &keys).unwrap();
    assert_eq!((right.counts.records, right.counts.from), (12, 1));
    assert_eq!(right.filter["names"], "LOCKED");
    assert!(right.signer.is_some() && checked(&text, &[]).unwrap().signer.is_none());
    assert!(text.is_ascii(), "what acts on a terminal is written out");
    let told: Vec<serde_json::Value> = lines(&text).iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let record = told.iter().find_map(|l| l.get("record")).unwrap();
    assert_eq!((record["event"].as_str(), record["body"]["asked"].as_str()), (Some("refused"), Some("\u{202e}0")));
    // An export of everything, of nothing, of one environment.
    let head = || w.authority().ledger.durable().count();
    let before = head();
    let (all, _) = export(&w, pb::RecordFilter::default());
    // The end of the previous export may be recorded meanwhile; the end of this export is not in the export itself.
    assert!((before..head()).contains(&checked(&all, &keys).unwrap().counts.records));
    let (none, _) = export(&w, pb::RecordFilter { names: "nobody".into(), ..Default::default() });
    assert_eq!((checked(&none, &keys).unwrap().counts.records, lines(&none).len()), (0, 3));
    let (dev, _) =
        export(&w, pb::RecordFilter { environment: "dev".into(), event: "credential issued".into(), ..Default::default() });
    assert_eq!(checked(&dev, &keys).unwrap().counts.records, 4);
    // Another server's key did not sign the export.
    let other = export(&busy(), locked_out()).1;
    assert!(checked(&text, &other).unwrap_err().what.contains("none of the given keys"), "{:?}", checked(&text, &other));
}

#[test]
fn a_flipped_byte_anywhere_in_a_filtered_export_is_found() {
    let w = busy();
    let (text, keys) = export(&w, locked_out());
    // Names on signature lines are not signed; a key is identified by its id.
    let end = text.len() - lines(&text).last().unwrap().len();
    for at in 0..text.len() {
        for bit in [0, 3] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let found = check(&bytes[..], &keys);
            if at >= end && found.is_ok() {
                let before = &text[..at];
                let name = before
                    .rfind("\\u2014 ")
                    .is_some_and(|dash| !before[dash..].contains("mayfly.ledger") || before[dash + 7..].find(' ').is_none());
                assert!(name, "byte {at}: {:?}", &text[at.saturating_sub(40)..at + 1]);
                continue;
            }
            let wrong = found.expect_err("a flipped byte");
            assert!(wrong.line > 0 && !wrong.what.is_empty());
        }
    }
}

#[test]
fn a_changed_record_is_named() {
    let w = busy();
    let (text, keys) = export(&w, locked_out());
    let all = lines(&text);
    for (n, line) in all.iter().enumerate().filter(|(_, l)| seq_of(l).is_some()) {
        for (from, to) in [("LOCKED", "LOCKEE"), ("\"bytes\":\"O", "\"bytes\":\"P")] {
            let mut bad = all.clone();
            bad[n] = line.replacen(from, to, 1);
            if bad[n] == *line {
                continue;
            }
            let wrong = checked(&bad.concat(), &keys).unwrap_err();
            assert_eq!((wrong.line, wrong.seq), (n as u64 + 1, seq_of(line)), "{wrong}");
        }
    }
}

#[test]
fn a_removed_record_and_a_removed_line_are_found_and_named() {
    let w = busy();
    let (text, keys) = export(&w, locked_out());
    let all = lines(&text);
    for n in 0..all.len() {
        let mut bad = all.clone();
        bad.remove(n);
        let wrong = checked(&bad.concat(), &keys).unwrap_err();
        if let Some(seq) = seq_of(&all[n]) {
            assert_eq!(wrong.seq, Some(seq), "{wrong}");
        }
    }
    // Truncated at every line end, and within a line.
    for n in 0..all.len() {
        let cut = checked(&all[..n].concat(), &keys).unwrap_err();
        assert!(cut.what.contains("cut off"), "{cut}");
    }
    assert!(checked(&text[..text.len() - 1], &keys).is_err());
}

#[test]
fn a_swapped_pair_is_found() {
    let w = busy();
    let (text, keys) = export(&w, locked_out());
    let all = lines(&text);
    for one in 0..all.len() {
        for other in one + 1..all.len() {
            let mut bad = all.clone();
            bad.swap(one, other);
            assert!(checked(&bad.concat(), &keys).is_err(), "{one} and {other}");
        }
    }
    // Only the bytes of two records are swapped.
    let records: Vec<usize> = (0..all.len()).filter(|n| seq_of(&all[*n]).is_some()).collect();
    let part = |line: &str| line.split("\"bytes\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (a, b) = (records[0], records[1]);
    let mut bad = all.clone();
    (bad[a], bad[b]) = (all[a].replace(&part(&all[a]), &part(&all[b])), all[b].replace(&part(&all[b]), &part(&all[a])));
    assert!(checked(&bad.concat(), &keys).is_err());
}

#[test]
fn a_record_that_was_turned_into_its_hash_is_missed() {
    let w = busy();
    let (text, keys) = export(&w, locked_out());
    let all = lines(&text);
    let n = (0..all.len()).find(|n| seq_of(&all[*n]).is_some()).unwrap();
    // The record is the first of its commit, with index 1.
    assert!(all[n - 1].contains("\"commit\""));
    let record: serde_json::Value = serde_json::from_str(&all[n]).unwrap();
    let bytes = data_encoding::BASE64.decode(record["record"]["bytes"].as_str().unwrap().as_bytes()).unwrap();
    let leaf = data_encoding::BASE64.encode(&mayfly::ledger::commit::leaf_hash(&bytes));
    let mut hidden = all.clone();
    hidden[n] = format!("{{\"leaves\":{{\"from\":1,\"to\":1,\"nodes\":[\"{leaf}\"]}}}}\n");
    let wrong = checked(&hidden.concat(), &keys).unwrap_err();
    assert!(wrong.what.contains("11 records") && wrong.what.contains("records 12"), "{wrong}");
}

#[test]
fn one_record_is_proven_by_its_seq_in_little_more_than_itself() {
    let w = busy();
    let keys = read(&ok(checkpoint(&w, 0))).1;
    let head = w.authority().ledger.durable().as_u64();
    for seq in (1 << 45) + 1..=head {
        let text = try_export(&w, &ROOT, pb::RecordFilter { seq, ..Default::default() }, 0).unwrap();
        let right = checked(&text, &keys).unwrap();
        assert_eq!((right.counts.records, right.filter["seq"].as_u64()), (1, Some(seq)));
        let all = lines(&text);
        let proof: usize = all.iter().filter(|l| seq_of(l).is_none()).map(String::len).sum();
        assert!(proof < 3072, "{proof} bytes");
    }
    for none in [1, (1 << 45), head + 1_000] {
        let no = try_export(&w, &ROOT, pb::RecordFilter { seq: none, ..Default::default() }, 0).unwrap_err();
        refused::<()>(Err(no), Reason::NotFound);
    }
}

#[test]
fn an_export_goes_on_from_a_checkpoint_that_was_kept() {
    let w = busy();
    let old = read(&ok(checkpoint(&w, 0))).0;
    w.issue("/agent/a");
    let keys = read(&ok(checkpoint(&w, 0))).1;
    let right = checked(&try_export(&w, &ROOT, locked_out(), old.size).unwrap(), &keys).unwrap();
    assert_eq!(right.goes_on_from(&old), Ok(()));
    assert!(right.goes_on_from(&Checkpoint { root: [1; 32], ..old.clone() }).unwrap_err().contains("was changed"));
    assert!(right.goes_on_from(&Checkpoint { origin: "mayfly.ledger/another".into(), ..old.clone() }).is_err());
    assert_eq!(right.goes_on_from(&right.checkpoint), Ok(()));
    let without = checked(&export(&w, locked_out()).0, &keys).unwrap();
    assert!(without.goes_on_from(&old).unwrap_err().contains("no proof"));
    refused::<()>(try_export(&w, &ROOT, locked_out(), 1_000_000).map(|_| tonic::Response::new(())), Reason::InvalidField);
}

#[test]
fn the_ledger_is_verified_where_it_lies() {
    let w = busy();
    let verify = |from_seq, to_seq| {
        w.run(AuditApi(w.authority().clone()).verify_ledger(ask(&ROOT, pb::VerifyLedgerRequest { from_seq, to_seq })))
    };
    let head = w.authority().ledger.durable();
    let all = ok(verify(0, 0));
    assert_eq!((all.records, all.broken_at, all.verified_to), (head.count(), 0, head.as_u64()), "{all:?}");
    let part = ok(verify(head.as_u64() - 5, 0));
    assert!(part.broken_at == 0 && part.records < head.count() && part.verified_to == head.as_u64());
    bad(verify(head.as_u64() + 1, 0), "from_seq");
    bad(verify(head.as_u64(), 5), "to_seq");
    refused(
        w.run(AuditApi(w.authority().clone()).verify_ledger(ask(&w.admin("/agent/a"), Default::default()))),
        Reason::DeniedByPolicy,
    );
    assert!(try_export(&w, &w.admin("/agent/a"), locked_out(), 0).is_err());
}

/// The sample for the Python verifier and the fuzzer. `MAYFLY_WRITE_SAMPLES=1` creates it if it is missing and never replaces it.
#[test]
fn the_sample_of_an_export_is_found_right() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/audit");
    if std::env::var_os("MAYFLY_WRITE_SAMPLES").is_some() && !folder.exists() {
        let w = busy();
        std::fs::create_dir_all(&folder).unwrap();
        let old = ok(checkpoint(&w, 0));
        w.issue("/agent/a");
        let size = read(&old).0.size;
        std::fs::write(folder.join("export.jsonl"), try_export(&w, &ROOT, locked_out(), size).unwrap()).unwrap();
        std::fs::write(folder.join("checkpoint.txt"), old.checkpoint).unwrap();
        std::fs::write(folder.join("keys.json"), old.jwks).unwrap();
    }
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let keys = NoteKey::read(&text("keys.json")).unwrap();
    let right = checked(&text("export.jsonl"), &keys).unwrap();
    let old = SignedNote::parse(&text("checkpoint.txt")).unwrap();
    old.signer(&keys).unwrap();
    assert_eq!(right.goes_on_from(&Checkpoint::parse(&old.text).unwrap()), Ok(()));
    assert_eq!(right.counts.records, 12);
}
