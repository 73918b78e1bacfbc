//! Stored records stay readable: samples of every record and of a commit, from this version and every earlier one.
//!
//! A sample is the hex of the bytes in a ledger, under `tests/vectors/records/vN`. A sample is never changed. A version that adds a field
//! sets it to zero in the existing samples (so their bytes stay) and adds samples with the field under the next folder. New samples are
//! written by
//!
//! ```text
//! MAYFLY_WRITE_SAMPLES=1 cargo test --test records
//! ```
//!
//! which creates missing samples and never replaces a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mayfly::identity::spiffe_id::SpiffeId;
use mayfly::ledger::commit::{Commit, EncodedRecord, Header, WriterHead, pack};
use mayfly::ledger::record::{Author, CredentialIssued, Event, Principal, Record};
use mayfly::ledger::writer::template::{IssuanceFields, IssuanceRequest, RecordTemplate};
use mayfly::seq::{CredentialId, Millis, Seq};
use prost::Message;

#[path = "records/added.rs"]
mod added;
#[path = "records/lines.rs"]
mod lines;
#[path = "records/samples.rs"]
mod samples;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/records")
}

/// Hex in lines of 64 characters.
fn to_text(bytes: &[u8]) -> String {
    let hex = data_encoding::HEXLOWER.encode(bytes);
    hex.as_bytes().chunks(64).map(|line| format!("{}\n", str::from_utf8(line).unwrap())).collect()
}

fn from_text(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.replace('\n', "").as_bytes()).unwrap()
}

/// The stored sample of that name; a missing sample is created first if `MAYFLY_WRITE_SAMPLES` is set.
fn stored(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = folder().join(name);
    if std::env::var_os("MAYFLY_WRITE_SAMPLES").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, to_text(bytes)).unwrap();
        println!("written: {name}");
    }
    from_text(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}; the module comment says how it is made")))
}

/// All stored samples, of every version.
fn all_stored() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for version in std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap()) {
        for file in std::fs::read_dir(version.path()).unwrap().map(|e| e.unwrap().path()) {
            let name = format!("{}/{}", version.file_name().to_str().unwrap(), file.file_name().unwrap().to_str().unwrap());
            found.insert(name, from_text(&std::fs::read_to_string(file).unwrap()));
        }
    }
    found
}

/// The records of the samples, by the samples' files.
fn by_file() -> BTreeMap<String, Record> {
    let first = samples::all().into_iter().map(|(n, r)| (format!("v1/{n}.hex"), r));
    first.chain(added::all().into_iter().chain(lines::all()).map(|(n, r)| (format!("{n}.hex"), r))).collect()
}

#[test]
fn every_record_is_written_as_its_sample() {
    for (name, record) in by_file() {
        let bytes = record.encode_to_vec();
        assert_eq!(to_text(&stored(&name, &bytes)), to_text(&bytes), "{name}: a tag or a type changed");
    }
}

#[test]
fn every_sample_reads_as_what_it_was_and_is_written_again_bit_for_bit() {
    let expected = by_file();
    for (name, bytes) in all_stored().into_iter().filter(|(name, _)| !name.contains("commit")) {
        let record = Record::from_bytes(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(record.encode_to_vec(), bytes, "{name}");
        assert_eq!(expected.get(&name), Some(&record), "{name}: a sample that no value stands for, or another one");
    }
}

#[test]
fn there_is_a_sample_of_every_event_author_and_target() {
    // Compares the tags in the code with the tags in the encoded samples.
    let source = include_str!("../src/ledger/record/mod.rs");
    let tags = |text: &str, oneof: &str| -> BTreeSet<u64> {
        let at = text.find(&format!("oneof = \"{oneof}\"")).unwrap();
        let list = text[at..].split_once("tags = \"").unwrap().1.split('"').next().unwrap();
        list.split(", ").map(|n| n.parse().unwrap()).collect()
    };
    let records: Vec<Vec<u8>> =
        samples::all().into_iter().chain(added::all()).chain(lines::all()).map(|(_, r)| r.encode_to_vec()).collect();
    let on_wire = |path: &[u64]| -> BTreeSet<u64> { records.iter().flat_map(|r| tags_at(r, path)).collect() };
    let events: BTreeSet<u64> = on_wire(&[]).into_iter().filter(|t| *t >= 10).collect();
    assert_eq!(events, tags(source, "Event"));
    assert_eq!(on_wire(&[1]), tags(source, "Author"));
    let aims = tags(include_str!("../clients/rust/verify/src/revocation/record.rs"), "RecordedTarget");
    assert_eq!(on_wire(&[30, 1]), aims, "targets of a revocation");
}

/// The tags of the fields in the messages under a path of tags.
fn tags_at(bytes: &[u8], path: &[u64]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for (tag, content) in fields(bytes) {
        match path.split_first() {
            None => drop(found.insert(tag)),
            Some((first, rest)) if *first == tag => found.extend(tags_at(&content, rest)),
            Some(_) => {}
        }
    }
    found
}

/// The fields of a message by protobuf's own rules, without mayfly's types: an independent check of the encoding.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let content = match key & 7 {
            0 => varint(&mut bytes).to_be_bytes().to_vec(),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                content.to_vec()
            }
            other => panic!("wire type {other}: no record has it"),
        };
        found.push((key >> 3, content));
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

#[test]
fn no_field_of_a_sample_is_left_out() {
    for (name, record) in samples::all() {
        // Fields that version 1 did not have.
        let text = format!("{record:?}")
            .replace(", certified_key: []", "")
            .replace("group: 0", "")
            .replace(", replaces: []", "")
            .replace(", looked: 0", "");
        let text = text.replace(", wanted: None", "").replace(", decided: None, good_until: 0", "");
        let text = text.replace(", task: [], undeclared: false, after_end: false, upstream: \"\"", "");
        let text = text.replace("actors: [], subject_claims: None, ancestors: []", "actors: []");
        let text = text.replace(", subject_claims: None", "").replace(", break_glass: false", "");
        let text = text.replace(", access: []", "");
        let text = text.replace(", approval: [], caller: \"\"", "");
        let text = text.replace("break_glass: true, subject_token: None, actors: []", "break_glass: true");
        let text = text.split(", rights: \"\"").next().unwrap().split(", of: Unspecified").next().unwrap();
        let text = text.replace(", digest: [], login: [] }", "").replace(", trace: []", "");
        let text = text.replace(", reason: \"\", added: [], gone: [], planned_on: None", "").replace(", approval: [] }", " }");
        let text = text.replace(", terms: \"\"", "");
        for empty in [": 0,", ": 0 ", "[]", "\"\"", "None", "false", "Unspecified"] {
            assert!(!text.contains(empty), "{name} leaves a field at its zero, which is not written ({empty}): {text}");
        }
    }
}

#[test]
fn a_commit_is_written_as_its_sample_and_continues_its_chain() {
    let after = WriterHead { number: 6, hash: [0x5e; 32], time: Millis(1_700_000_000_000) };
    let encoded: Vec<EncodedRecord> = samples::all().into_iter().take(3).map(|(_, r)| EncodedRecord::new(r).unwrap()).collect();
    let (bytes, head) = pack(3, after, Millis(1_700_000_000_123), encoded.iter());
    let kept = stored("v1/commit.hex", &bytes);
    assert_eq!(to_text(&kept), to_text(&bytes), "a tag, a type or a hash changed");

    let commit = Commit::from_bytes(&Bytes::from(kept.clone())).unwrap();
    assert_eq!(commit.continues(after).unwrap(), head);
    assert_eq!((commit.records.len(), commit.header.writer, commit.header.number), (3, 3, 7));
    // Checked by protobuf's own rules, too: two fields, the first of them the header with its seven fields.
    let outer = fields(&kept);
    assert_eq!(outer.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 2, 2, 2]);
    assert_eq!(fields(&outer[0].1).iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(Header::decode(&outer[0].1[..]).unwrap(), commit.header);
}

#[test]
fn a_commit_with_templates_is_written_as_its_sample() {
    let after = WriterHead { number: 6, hash: [0x5e; 32], time: Millis(1_700_000_000_000) };
    let caller = "spiffe://prod.example/agent/a";
    let issued = CredentialIssued {
        upstream: "github".into(),
        scopes: vec!["read".into()],
        caller: caller.into(),
        ..CredentialIssued::default()
    };
    let template =
        Record::new(Author::SpiffeId(caller.into()), Event::Issued(Box::new(issued))).decided_at(Seq::from_u64(9).unwrap());
    let template = Arc::new(RecordTemplate::new(template).unwrap());
    let cast = |n: u8| {
        let (name, digest) = (format!("request-{n}"), [n; 32]);
        let request = IssuanceRequest::new(caller, &name, &digest);
        let own = IssuanceFields {
            credential: CredentialId::from_bytes([n; 16]),
            request: Some(request),
            trace: &[],
            tool: "create_issue",
            purpose: "file a bug",
            arguments: Some(&[0xa0; 32]),
            status: (77, 1000 + u32::from(n)),
            token_digest: &[0xd0 + n; 32],
        };
        EncodedRecord::from_template(&template, &own, &mut bytes::BytesMut::new()).unwrap()
    };
    let other = EncodedRecord::new(samples::all().remove(0).1).unwrap();
    let (bytes, head) = pack(3, after, Millis(1_700_000_000_123), [cast(1), other, cast(2)].iter());
    let kept = stored("v4/commit-templates.hex", &bytes);
    assert_eq!(to_text(&kept), to_text(&bytes), "a tag, a type or a hash changed");
    let commit = Commit::from_bytes(&Bytes::from(kept.clone())).unwrap();
    assert_eq!(commit.continues(after).unwrap(), head);
    assert_eq!((commit.records.len(), commit.header.format), (3, 2));
    assert_eq!(fields(&kept).iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 3, 4, 4, 4]);
}

#[test]
fn every_event_has_a_name_that_a_search_takes() {
    for (file, record) in samples::all() {
        let name = mayfly::ledger::record::event_name(record.event.as_ref().unwrap());
        assert!(mayfly::ledger::record::EVENT_NAMES.contains(&name), "{file}: {name}");
    }
}

#[test]
fn persisted_numbers_keep_their_meaning() {
    use mayfly::ledger::record::{HoldRank, KeyPurpose, KeyState, LeaseEnd, TaskOutcome};
    use mayfly::policy::lifetime::LifetimeBound;
    use mayfly::upstream::registry::Kind;
    let kinds: Vec<(u8, String)> = Kind::ALL.iter().map(|k| (k.tag(), k.to_string())).collect();
    let kinds: Vec<(u8, &str)> = kinds.iter().map(|(n, k)| (*n, k.as_str())).collect();
    assert_eq!(kinds, samples::KINDS);
    assert_eq!(
        [TaskOutcome::Completed, TaskOutcome::Cancelled, TaskOutcome::Expired, TaskOutcome::Revoked].map(|o| o as i32),
        [1, 2, 3, 4]
    );
    assert_eq!([HoldRank::Caller, HoldRank::Policy, HoldRank::Operator].map(|r| r as i32), [1, 2, 3]);
    assert_eq!([LeaseEnd::Undone, LeaseEnd::NeverMade, LeaseEnd::Abandoned].map(|e| e as i32), [1, 2, 3]);
    let purposes = [
        KeyPurpose::AccessToken,
        KeyPurpose::Reference,
        KeyPurpose::StatusList,
        KeyPurpose::Checkpoint,
        KeyPurpose::X509Ca,
        KeyPurpose::SshCa,
        KeyPurpose::Password,
        KeyPurpose::Federation,
        KeyPurpose::UpstreamCa,
    ];
    assert_eq!(purposes.map(|p| p as i32), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let states = [KeyState::Next, KeyState::Active, KeyState::Retired, KeyState::Removed, KeyState::Compromised];
    assert_eq!(states.map(|s| s as i32), [1, 2, 3, 4, 5]);
    let bounds = [
        LifetimeBound::Asked,
        LifetimeBound::Policy,
        LifetimeBound::Upstream,
        LifetimeBound::UpstreamExpiry,
        LifetimeBound::Task,
        LifetimeBound::Svid,
        LifetimeBound::ParentCredential,
        LifetimeBound::SubjectToken,
        LifetimeBound::Approval,
        LifetimeBound::BreakGlass,
        LifetimeBound::Renewal,
        LifetimeBound::Server,
    ];
    assert_eq!(bounds.map(|b| b as u32), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}

/// An identity provider may name a person like a workload: policies and approvals do not confuse the two.
#[test]
fn a_person_who_is_called_like_a_workload_is_not_taken_for_it() {
    let id = SpiffeId::parse("spiffe://acme.test/team/agent").unwrap();
    let name = |issuer: &str, sub: &str| Principal { issuer: issuer.into(), sub: sub.into() }.name();
    assert_eq!(Principal::workload(&id).name(), "spiffe://acme.test/team/agent");
    assert_eq!(name("https://login.acme.test", "ada"), "https://login.acme.test#ada");
    for issuer in ["https://login.acme.test", "acme", "acme.test/team", "", "spiffe://acme.test"] {
        assert_eq!(name(issuer, id.as_str()), format!("{issuer}#{id}"), "issuer {issuer:?}");
    }
}
