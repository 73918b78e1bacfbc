//! Checks keys, certificates and KRLs with OpenSSH's own programs where they are installed, and with properties everywhere.

use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;

use super::krl::{KrlContent, RevokedUnderCa, krl, lists};
use super::*;
use crate::certificates::CaRotation;
use crate::keyring::{Keyring, generate};
use crate::testing::{NamedValueStore, TestLog, TestSealer};
use mayfly_base::refusal::Reason;
use mayfly_ledger::record::{Author, CredentialIssued, Event, KeyPurpose, KeyState, Record};
use mayfly_verify::seq::{CredentialId, Millis};
use settings::LoginGrant;
use std::sync::Arc;

const NOW: Millis = Millis(1_700_000_000_000);

fn ca() -> Arc<LoadedKey> {
    let (mut log, store, ring) = (TestLog::new(NOW), NamedValueStore::default(), Keyring::default());
    let new = generate(KeyPurpose::SshCa, "dev/upstreams/hosts", KeyState::Active, &TestSealer, &System::real()).ok().unwrap();
    let added = new.keep(&store).unwrap();
    log.put(vec![Record::new(Author::LocalUid(0), Event::KeyAdded(added))]).remove(0).unwrap();
    ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
    ring.active(KeyPurpose::SshCa, "dev/upstreams/hosts").unwrap()
}

fn settings() -> SshSettings {
    let grant = |scope: &str, principals: &[&str]| LoginGrant {
        scope: scope.to_owned(),
        principals: principals.iter().map(|p| (*p).to_owned()).collect(),
        force_command: None,
        source_addresses: Vec::new(),
        extensions: vec!["permit-pty".to_owned()],
    };
    let narrow = LoginGrant {
        force_command: Some("/bin/true".to_owned()),
        source_addresses: vec!["10.0.0.0/8".to_owned(), "::1".to_owned()],
        extensions: Vec::new(),
        ..grant("narrow", &["deploy"])
    };
    SshSettings {
        rotation: CaRotation::Manual,
        key_types: SshKeyType::NAMES.iter().map(|(_, of)| *of).collect(),
        grants: vec![grant("shell", &["ops"]), grant("more", &["admin", "ops"]), narrow],
    }
}

fn issued(key: &SshPublicKey, scopes: &[&str]) -> CredentialIssued {
    CredentialIssued {
        upstream: "hosts".into(),
        environment: "dev".into(),
        scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        issued_at: NOW.0,
        expires_at: NOW.0 + 600_000,
        certified_key: key.blob().to_vec(),
        ..CredentialIssued::default()
    }
}

fn own_key() -> SshPublicKey {
    SshPublicKey::parse(&new_key(&System::real(), "mayfly").unwrap().1).unwrap()
}

fn keygen(arguments: &[&str]) -> Option<Output> {
    Command::new("ssh-keygen").args(arguments).output().ok()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

#[test]
fn keys_of_openssh_are_certified_and_its_program_reads_the_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca();
    for (kind, bits, of) in [
        ("ed25519", "", Some(SshKeyType::Ed25519)),
        ("ecdsa", "256", Some(SshKeyType::EcdsaP256)),
        ("ecdsa", "384", Some(SshKeyType::EcdsaP384)),
        ("ecdsa", "521", Some(SshKeyType::EcdsaP521)),
        ("rsa", "3072", Some(SshKeyType::Rsa)),
        ("rsa", "2048", None),
    ] {
        let file = folder.path().join(format!("{kind}{bits}"));
        let bits: &[&str] = if bits.is_empty() { &[] } else { &["-b", bits] };
        let all = [&["-q", "-t", kind, "-N", "", "-f", path(&file)], bits].concat();
        let Some(made) = keygen(&all) else { return eprintln!("ssh-keygen is not installed") };
        assert!(made.status.success(), "{}", said(&made));
        let line = std::fs::read_to_string(file.with_extension("pub")).unwrap();
        let Some(of) = of else {
            assert_eq!(SshPublicKey::parse(&line), Err(SshKeyDefect::Rsa));
            continue;
        };
        let key = SshPublicKey::parse(&line).unwrap();
        assert_eq!(key.key_type(), of);
        let id = CredentialId::from_bytes([7; 16]);
        let made = certificate::make(&ca, id, &issued(&key, &["narrow"]), &settings()).unwrap();
        let certificate = folder.path().join("x-cert.pub");
        std::fs::write(&certificate, &made.line).unwrap();
        let shown = said(&keygen(&["-L", "-f", path(&certificate)]).unwrap());
        let serial = certificate::serial(id).to_string();
        for part in [
            of.certificate_name(),
            "user certificate",
            &id.to_string(),
            &serial,
            "deploy",
            "force-command /bin/true",
            "10.0.0.0/8,::1",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(shown.contains("Extensions: (none)"), "{shown}");
    }
}

#[test]
fn a_made_key_is_one_that_openssh_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = new_key(&System::real(), "somebody").unwrap();
    let file = folder.path().join("id");
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = std::fs::OpenOptions::new();
    let mut to = open.write(true).create_new(true).mode(0o600).open(&file).unwrap();
    std::io::Write::write_all(&mut to, private.as_bytes()).unwrap();
    let Some(read) = keygen(&["-y", "-f", path(&file)]) else { return eprintln!("ssh-keygen is not installed") };
    assert_eq!(said(&read), public);
}

#[test]
fn openssh_finds_in_a_krl_what_is_revoked_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other, key) = (ca(), ca(), own_key());
    let id = |n: u8| CredentialId::from_bytes([n; 16]);
    let public = |of: &LoadedKey| of.public().unwrap().to_vec();
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let content = KrlContent {
        authorities: vec![RevokedUnderCa { authority: public(&ca), ended: vec![id(1), id(2)] }],
        compromised: vec![public(&other)],
    };
    let list = write("krl", &krl(&content, &ca, 77, "mayfly hosts", NOW).unwrap());
    let empty = write("empty", &krl(&KrlContent::default(), &ca, 78, "mayfly hosts", NOW).unwrap());
    for (by, n, revoked) in [(&ca, 1, true), (&ca, 2, true), (&ca, 3, false), (&other, 3, true)] {
        let made = certificate::make(by, id(n), &issued(&key, &["shell"]), &settings()).unwrap();
        let file = write("c-cert.pub", made.line.as_bytes());
        let Some(found) = keygen(&["-Q", "-f", path(&list), path(&file)]) else {
            return eprintln!("ssh-keygen is not installed");
        };
        assert_eq!(!found.status.success(), revoked, "{n}: {}", said(&found));
        assert_eq!(said(&found).contains("REVOKED"), revoked, "{n}: {}", said(&found));
        let found = keygen(&["-Q", "-f", path(&empty), path(&file)]).unwrap();
        assert!(found.status.success() && said(&found).contains(": ok"), "{}", said(&found));
    }
    let shown = said(&keygen(&["-Q", "-l", "-f", path(&list)]).unwrap());
    assert!(shown.contains("# KRL version 77") && shown.contains(&id(1).to_string()), "{shown}");
}

#[test]
fn the_same_record_makes_the_same_certificate_but_for_the_signature() {
    let (ca, key, id) = (ca(), own_key(), CredentialId::from_bytes([9; 16]));
    let make = |scopes: &[&str]| certificate::make(&ca, id, &issued(&key, scopes), &settings()).unwrap();
    assert_eq!(make(&["shell"]).signed_part, make(&["shell"]).signed_part);
    assert_ne!(make(&["shell"]).signed_part, make(&["narrow"]).signed_part);
    assert_eq!(make(&["more", "shell"]).principals, ["admin", "ops"]);
    certificate::signed_by(&make(&["shell"]).line, ca.public().unwrap()).unwrap();
    assert!(certificate::signed_by(&make(&["shell"]).line, super::tests::ca().public().unwrap()).is_err());
}

#[test]
fn rights_that_differ_do_not_share_a_certificate_and_no_certificate_is_without_principals() {
    let (ca, key, id) = (ca(), own_key(), CredentialId::from_bytes([9; 16]));
    let refused = |issued: &CredentialIssued, settings: &SshSettings| match certificate::make(&ca, id, issued, settings) {
        Err(mayfly_base::refusal::Error::Refusal(no)) => no.reason,
        Err(fault) => panic!("{fault}"),
        Ok(made) => panic!("{}", made.line),
    };
    assert_eq!(refused(&issued(&key, &["shell", "narrow"]), &settings()), Reason::InvalidField);
    assert_eq!(refused(&issued(&key, &["unknown"]), &settings()), Reason::InvalidField);
    assert_eq!(refused(&issued(&key, &["shell", "unknown"]), &settings()), Reason::InvalidField);
    let only = SshSettings { key_types: vec![SshKeyType::EcdsaP256], ..settings() };
    assert_eq!(refused(&issued(&key, &["shell"]), &only), Reason::InvalidField);
    let elsewhere = CredentialIssued { upstream: "other".into(), ..issued(&key, &["shell"]) };
    assert!(certificate::make(&ca, id, &elsewhere, &settings()).is_err(), "the CA of another upstream");
}

#[test]
fn what_is_no_key_is_refused() {
    let good = new_key(&System::real(), "x").unwrap().1;
    let base64 = good.split(' ').nth(1).unwrap();
    assert!(SshPublicKey::parse(good.trim_end()).is_ok() && SshPublicKey::parse(&format!("{}\r\n", good.trim_end())).is_ok());
    for (text, no) in [
        (String::new(), SshKeyDefect::Malformed),
        ("ssh-ed25519".to_owned(), SshKeyDefect::Malformed),
        (format!("ssh-rsa {base64}"), SshKeyDefect::Malformed),
        (format!("no-pty {good}"), SshKeyDefect::Malformed),
        (format!("{good}{good}"), SshKeyDefect::Malformed),
        (format!("ssh-ed25519 {base64}\n\n"), SshKeyDefect::Malformed),
        (format!("ssh-ed25519 {}=", base64.trim_end_matches('=')), SshKeyDefect::Malformed),
        ("x".repeat(5000), SshKeyDefect::TooLong),
    ] {
        assert_eq!(SshPublicKey::parse(&text), Err(no), "{text:?}");
    }
    let blob = |parts: &[&[u8]]| {
        let mut out = wire::Writer::default();
        for part in parts {
            out.string(part);
        }
        SshPublicKey::from_blob(out.into_bytes())
    };
    assert_eq!(blob(&[b"ssh-dss", b"x"]), Err(SshKeyDefect::Type));
    assert_eq!(blob(&[b"ssh-ed25519-cert-v01@openssh.com", b"x"]), Err(SshKeyDefect::Type), "a certificate is not certified");
    assert_eq!(blob(&[b"ssh-ed25519", &[1; 31]]), Err(SshKeyDefect::Key));
    assert_eq!(blob(&[b"ecdsa-sha2-nistp256", b"nistp384", &[4; 65]]), Err(SshKeyDefect::Key));
    assert_eq!(blob(&[b"ecdsa-sha2-nistp256", b"nistp256", &[4; 65]]), Err(SshKeyDefect::Key), "not on the curve");
    let modulus = [&[0][..], &[0xff; 512]].concat();
    assert!(blob(&[b"ssh-rsa", &[1, 0, 1], &modulus]).is_ok());
    assert_eq!(blob(&[b"ssh-rsa", &[3], &modulus]), Err(SshKeyDefect::Rsa));
    assert_eq!(blob(&[b"ssh-rsa", &[1, 0, 1], &[0xff; 512]]), Err(SshKeyDefect::Key), "a negative modulus");
    assert_eq!(blob(&[b"ssh-rsa", &[0, 1, 0, 1], &modulus]), Err(SshKeyDefect::Key), "not the shortest form");
    assert_eq!(blob(&[b"ssh-rsa", &[1, 0, 1], &modulus, b"more"]), Err(SshKeyDefect::Key));
}

proptest! {
    #[test]
    fn a_krl_lists_exactly_what_it_was_given(ended in proptest::collection::btree_set(any::<[u8; 16]>(), 0..40), other: [u8; 16], number: u64) {
        let ca = ca();
        let ids: Vec<CredentialId> = ended.iter().map(|id| CredentialId::from_bytes(*id)).collect();
        let authority = ca.public().unwrap().to_vec();
        let content = KrlContent { authorities: vec![RevokedUnderCa { authority: authority.clone(), ended: ids.clone() }], compromised: vec![] };
        let made = krl(&content, &ca, number, "x", NOW).unwrap();
        for id in &ids {
            prop_assert!(lists(&made, *id, &authority));
        }
        prop_assert_eq!(lists(&made, CredentialId::from_bytes(other), &authority), ended.contains(&other));
        for cut in 0..made.len().min(200) {
            prop_assert!(!lists(&made[..cut], CredentialId::from_bytes(other), &authority));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(blob in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        if let Ok(key) = SshPublicKey::from_blob(blob.clone()) {
            prop_assert_eq!(key.blob(), blob);
        }
        let _ = SshPublicKey::parse(&text);
    }

    #[test]
    fn a_changed_key_is_refused_or_another_key(at in 0usize..51, to: u8) {
        let key = own_key();
        let mut blob = key.blob().to_vec();
        blob[at] = to;
        if let Ok(read) = SshPublicKey::from_blob(blob.clone()) {
            prop_assert_eq!(read.blob(), &blob[..]);
            prop_assert!(at >= 19 || blob == key.blob(), "only the key itself may differ");
        }
    }
}
