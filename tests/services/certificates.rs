//! The kinds `x509` and `ssh`: the exchange, repeats, renewals, the CAs and their rotation, and the lists of revoked certificates.

use std::collections::BTreeSet;

use mayfly::credential::connectors::{READERS, templates};
use mayfly::credential::ssh;
use mayfly::document::SourceFile;
use mayfly::keys::run_key_maintenance;
use mayfly::ledger::record::{Author, Event, Record, UpstreamUpdated};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::exchange_request::{PublicKey, Task};
use mayfly::pb::mayfly::v1::issued::Answer;
use mayfly::pb::mayfly::v1::key_service_server::KeyService;
use mayfly::pb::mayfly::v1::revocation_service_server::RevocationService;
use mayfly::pb::mayfly::v1::task_service_server::TaskService;
use mayfly::pb::mayfly::v1::token_service_server::TokenService;
use mayfly::pb::mayfly::v1::upstream_service_server::UpstreamService;
use mayfly::refusal::Reason;
use mayfly::serve::grpc::key::KeyApi;
use mayfly::serve::grpc::revocation::RevocationApi;
use mayfly::serve::grpc::task::TaskApi;
use mayfly::serve::grpc::token::TokenApi;
use mayfly::serve::grpc::upstream::UpstreamApi;
use mayfly::system::System;
use rcgen::{CertificateParams, KeyPair};
use tonic::{Response, Status};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{Peer, ROOT, World, ask, bad, ok, refused, world};

/// A world with the upstreams of both templates, and their CAs.
fn certifying() -> World {
    let w = world();
    for (kind, text) in templates().filter(|(kind, _)| matches!(*kind, "x509" | "ssh")) {
        let text = text.replace("\"prod\"", "\"dev\"").replace(", sensitive = true", "");
        let upstream = mayfly::upstream::file::parse(&SourceFile::new(kind, text), &READERS).unwrap();
        let set = UpstreamUpdated {
            name: upstream.name.clone(),
            version: 1,
            digest: upstream.digest().to_vec(),
            text: upstream.to_text(),
            ..UpstreamUpdated::default()
        };
        let record = Record::new(Author::Mayfly("imported".into()), Event::UpstreamSet(set));
        w.run(w.authority().ledger.commit(mayfly::ledger::ProposalKind::Change, vec![record])).unwrap();
    }
    w.run(run_key_maintenance(w.authority()));
    w
}

fn csr() -> PublicKey {
    let key = KeyPair::generate().unwrap();
    PublicKey::CertificateRequest(CertificateParams::default().serialize_request(&key).unwrap().der().to_vec().into())
}

fn ssh_key() -> PublicKey {
    PublicKey::SshPublicKey(ssh::new_key(&System::real(), "x").unwrap().1)
}

fn request(upstream: &str, scope: &str, key: Option<PublicKey>) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(Task::OpenTask(pb::TaskTerms {
            purpose: "the report".into(),
            upstreams: vec![pb::Allowance { upstream: upstream.into(), scopes: vec![scope.into()] }],
            any_tool: true,
            ttl: Some(prost_types::Duration { seconds: 1800, nanos: 0 }),
            max_ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..Default::default()
        })),
        upstream: upstream.into(),
        scopes: vec![scope.into()],
        purpose: "the report".into(),
        public_key: key,
        ..Default::default()
    }
}

fn tokens(w: &World) -> TokenApi {
    TokenApi(w.authority().clone())
}

fn exchange(w: &World, request: pb::ExchangeRequest) -> Result<Response<pb::ExchangeResponse>, Status> {
    w.run(tokens(w).exchange(ask(&agent(w), request)))
}

fn agent(w: &World) -> Peer {
    w.workload("/agent/a")
}

fn issued(w: &World, request: pb::ExchangeRequest) -> pb::Issued {
    ok(exchange(w, request)).issued.unwrap()
}

fn reports(w: &World) -> pb::Issued {
    issued(w, request("reports", "reports:read", Some(csr())))
}

fn leaf(issued: &pb::Issued) -> Vec<u8> {
    let Some(Answer::Certificate(certificate)) = &issued.answer else { panic!("not a certificate") };
    certificate.chain[0].to_vec()
}

fn digits(raw: &[u8]) -> Vec<u8> {
    raw.iter().copied().skip_while(|b| *b == 0).collect()
}

/// The number of an upstream's CRL and the serial numbers in it.
fn crl(w: &World, key: &str) -> (u128, BTreeSet<Vec<u8>>) {
    w.run(w.authority().tend_certificate_lists()).unwrap();
    let der = w.run(w.authority().upstream_crl("dev", "reports", key)).unwrap().expect("a CRL");
    let (_, read) = CertificateRevocationList::from_der(&der).unwrap();
    let number = read.crl_number().unwrap().to_bytes_be().iter().fold(0, |all, b| all << 8 | u128::from(*b));
    (number, read.iter_revoked_certificates().map(|one| digits(one.raw_serial())).collect())
}

fn serial(issued: &pb::Issued) -> Vec<u8> {
    let der = leaf(issued);
    let (_, read) = X509Certificate::from_der(&der).unwrap();
    digits(read.raw_serial())
}

fn ca(w: &World, upstream: &str) -> pb::GetUpstreamCaResponse {
    let request = pb::GetUpstreamCaRequest { upstream: upstream.into() };
    ok(w.run(KeyApi(w.authority().clone()).get_upstream_ca(ask(&ROOT, request))))
}

fn revoke(w: &World, target: pb::target::Target) {
    let request = pb::RevokeRequest {
        targets: vec![pb::Target { target: Some(target) }],
        reason: "a test".into(),
        issued_only: true,
        confirmation: Some(pb::Confirmation { all: true, credentials: 0 }),
        ..Default::default()
    };
    ok(w.run(RevocationApi(w.authority().clone()).revoke(ask(&ROOT, request))));
}

#[test]
fn a_certificate_is_issued_repeated_and_renewed_like_any_other_credential() {
    let w = certifying();
    let first = pb::ExchangeRequest { request_id: "one".into(), ..request("reports", "reports:read", Some(csr())) };
    let (one, two) = (issued(&w, first.clone()), issued(&w, first.clone()));
    assert_eq!((one.kind(), one.novelty(), two.novelty()), (pb::CredentialKind::X509, pb::Novelty::New, pb::Novelty::Same));
    assert_eq!((one.credential_id.as_str(), one.bound()), (two.credential_id.as_str(), pb::LifeBound::Upstream));
    let signed = |issued: &pb::Issued| {
        let der = leaf(issued);
        X509Certificate::from_der(&der).unwrap().1.tbs_certificate.as_ref().to_vec()
    };
    assert_eq!(signed(&one), signed(&two));
    let other = pb::ExchangeRequest { public_key: Some(csr()), ..first.clone() };
    refused(exchange(&w, other), Reason::RequestIdReused);
    // With the same key, and with another one.
    let renew = |public_key| pb::RenewRequest { credential_id: one.credential_id.clone(), public_key, ..Default::default() };
    let key_of = |issued: &pb::Issued| {
        let der = leaf(issued);
        X509Certificate::from_der(&der).unwrap().1.public_key().raw.to_vec()
    };
    let same = ok(w.run(tokens(&w).renew(ask(&agent(&w), renew(None))))).issued.unwrap();
    assert_eq!(key_of(&same), key_of(&one));
    let Some(PublicKey::CertificateRequest(der)) = Some(csr()) else { panic!() };
    let new = pb::renew_request::PublicKey::CertificateRequest(der);
    let new = ok(w.run(tokens(&w).renew(ask(&agent(&w), renew(Some(new)))))).issued.unwrap();
    assert_ne!(key_of(&new), key_of(&one));
    let wrong = pb::renew_request::PublicKey::SshPublicKey("ssh-ed25519 AAAA".into());
    refused(w.run(tokens(&w).renew(ask(&agent(&w), renew(Some(wrong))))), Reason::InvalidField);
    revoke(&w, pb::target::Target::CredentialId(one.credential_id.clone()));
    refused(exchange(&w, first), Reason::Revoked);
}

#[test]
fn ssh_goes_the_same_way() {
    let w = certifying();
    let asked = pb::ExchangeRequest { request_id: "one".into(), ..request("hosts", "shell", Some(ssh_key())) };
    let (one, two) = (issued(&w, asked.clone()), issued(&w, asked));
    let (Some(Answer::SshCertificate(one)), Some(Answer::SshCertificate(two))) = (one.answer, two.answer) else { panic!() };
    assert_eq!((&one.principals, &one.authority, &one.krl_url), (&two.principals, &two.authority, &two.krl_url));
    assert_eq!(one.principals, ["ops"]);
    assert_eq!(one.krl_url, "https://mayfly.test/dev/upstreams/hosts/krl");
    assert_eq!(format!("{}\n", one.authority), ca(&w, "hosts").ssh_authorities);
}

#[test]
fn a_key_is_for_certificates_and_a_certificate_for_a_key() {
    let w = certifying();
    bad(exchange(&w, request("reports", "reports:read", None)), "certificate_request");
    bad(exchange(&w, request("reports", "reports:read", Some(ssh_key()))), "certificate_request");
    bad(exchange(&w, request("hosts", "shell", Some(csr()))), "ssh_public_key");
    bad(exchange(&w, request("hosts", "shell", None)), "ssh_public_key");
    bad(exchange(&w, request("echo", "echo:read", Some(csr()))), "certificate_request");
    let PublicKey::CertificateRequest(der) = csr() else { panic!() };
    let mut bad_csr = der.to_vec();
    *bad_csr.last_mut().unwrap() ^= 1;
    for wrong in [bad_csr, vec![0; 5000], vec![]] {
        let key = PublicKey::CertificateRequest(wrong.into());
        bad(exchange(&w, request("reports", "reports:read", Some(key))), "certificate_request");
    }
    bad(exchange(&w, request("hosts", "shell", Some(PublicKey::SshPublicKey("x".repeat(9000))))), "ssh_public_key");
    // A task whose credentials are all bound to keys takes certificates.
    let mut bound = request("reports", "reports:read", Some(csr()));
    if let Some(Task::OpenTask(terms)) = &mut bound.task {
        terms.key_bound = true;
    }
    issued(&w, bound);
    // Several at once: each by itself, and a batch of a token and a certificate.
    let batch = pb::BatchExchangeRequest {
        exchanges: vec![
            request("reports", "reports:read", Some(csr())),
            request("reports", "reports:read", Some(csr())),
            request("echo", "echo:read", None),
            request("hosts", "shell", Some(ssh_key())),
        ],
        all_or_nothing: true,
    };
    let answer = ok(w.run(tokens(&w).batch_exchange(ask(&agent(&w), batch))));
    assert_eq!(answer.results.len(), 4);
    assert!(answer.results.iter().all(|one| matches!(one.result, Some(pb::exchange_result::Result::Issued(_)))));
}

#[test]
fn whatever_revokes_a_certificate_puts_it_on_the_crl_and_numbers_only_grow() {
    let w = certifying();
    let key = ca(&w, "reports").authorities[0].key_id.clone();
    let (mut number, empty) = crl(&w, &key);
    assert!(empty.is_empty());
    let mut grown = |(next, listed): (u128, BTreeSet<Vec<u8>>)| {
        assert!(next > number, "{next} follows {number}");
        number = next;
        listed
    };
    let all: Vec<pb::Issued> = (0..5).map(|_| reports(&w)).collect();
    revoke(&w, pb::target::Target::CredentialId(all[0].credential_id.clone()));
    assert_eq!(grown(crl(&w, &key)), [serial(&all[0])].into());
    revoke(&w, pb::target::Target::TaskId(all[1].task_id.clone()));
    assert_eq!(grown(crl(&w, &key)).len(), 2);
    let release = pb::ReleaseRequest { credential_id: all[2].credential_id.clone() };
    ok(w.run(tokens(&w).release(ask(&agent(&w), release))));
    assert!(grown(crl(&w, &key)).contains(&serial(&all[2])));
    let tasks = TaskApi(w.authority().clone());
    let hold = pb::HoldTaskRequest { task_id: all[3].task_id.clone(), reason: "a look".into(), ..Default::default() };
    ok(w.run(tasks.hold_task(ask(&ROOT, hold))));
    assert!(grown(crl(&w, &key)).contains(&serial(&all[3])));
    let resume = pb::ResumeTaskRequest { task_id: all[3].task_id.clone(), reason: "fine".into(), ..Default::default() };
    ok(w.run(tasks.resume_task(ask(&ROOT, resume))));
    assert!(!grown(crl(&w, &key)).contains(&serial(&all[3])));
    // A list without changes is served as it is, and a list that is old is signed again.
    assert_eq!(crl(&w, &key).0, number);
    w.pass(mayfly::limits::KRL_RENEWED_MS);
    let old = number;
    let (renewed, listed) = crl(&w, &key);
    assert!(renewed > old && listed.len() == 3, "{listed:?}");
    revoke(&w, pb::target::Target::Upstream("reports".into()));
    let (last, listed) = crl(&w, &key);
    assert!(last > renewed && listed == all.iter().map(serial).collect());
    // A certificate that has ended by itself is on no list.
    w.pass(3_600_000);
    assert!(crl(&w, &key).1.is_empty());
}

#[test]
fn a_ca_is_published_until_its_last_certificate_has_ended_and_a_compromised_one_at_once_no_more() {
    let w = certifying();
    let old = ca(&w, "reports").authorities[0].clone();
    assert_eq!((old.state(), old.purpose()), (pb::KeyState::Active, pb::KeyPurpose::UpstreamCa));
    let before = reports(&w);
    revoke(&w, pb::target::Target::CredentialId(before.credential_id.clone()));
    assert_eq!(crl(&w, &old.key_id).1, [serial(&before)].into());
    let rotate = |ahead: i64| pb::RotateKeyRequest {
        purpose: pb::KeyPurpose::UpstreamCa.into(),
        upstream: "reports".into(),
        publish_ahead: Some(prost_types::Duration { seconds: ahead, nanos: 0 }),
        ..Default::default()
    };
    let keys = KeyApi(w.authority().clone());
    refused(w.run(keys.rotate_key(ask(&agent(&w), rotate(300)))), Reason::NotAuthenticated);
    bad(w.run(keys.rotate_key(ask(&ROOT, pb::RotateKeyRequest { upstream: String::new(), ..rotate(300) }))), "upstream");
    let of_hosts = pb::RotateKeyRequest { upstream: "hosts".into(), ..rotate(300) };
    refused(w.run(keys.rotate_key(ask(&ROOT, of_hosts))), Reason::NotFound);
    ok(w.run(keys.rotate_key(ask(&ROOT, rotate(300)))));
    let states = |w: &World| ca(w, "reports").authorities.iter().map(|ca| ca.state()).collect::<Vec<_>>();
    assert_eq!(states(&w).len(), 2);
    assert!(states(&w).contains(&pb::KeyState::Published));
    w.pass(301_000);
    w.run(run_key_maintenance(w.authority()));
    assert!(states(&w).contains(&pb::KeyState::Verifying));
    // The old one signs its CRL still.
    assert_eq!(crl(&w, &old.key_id).1, [serial(&before)].into());
    let after = reports(&w);
    let Some(Answer::Certificate(certificate)) = &after.answer else { panic!() };
    assert_ne!(certificate.root, old.certificate);
    revoke(&w, pb::target::Target::CredentialId(after.credential_id.clone()));
    let new = ca(&w, "reports").authorities.into_iter().find(|ca| ca.state() == pb::KeyState::Active).unwrap();
    assert_eq!(crl(&w, &new.key_id).1, [serial(&after)].into());
    // A certificate of a compromised CA is not waited for.
    let gone = pb::CompromiseKeyRequest {
        key_id: new.key_id.clone(),
        reason: "a drill".into(),
        confirmation: Some(pb::Confirmation { all: true, credentials: 0 }),
        ..Default::default()
    };
    let answer = ok(w.run(keys.compromise_key(ask(&ROOT, gone))));
    assert!(answer.replacement.is_some());
    assert!(ca(&w, "reports").authorities.iter().all(|ca| ca.key_id != new.key_id));
    reports(&w);
    w.pass(mayfly::limits::KEY_VERIFIES_MS);
    w.run(run_key_maintenance(w.authority()));
    assert_eq!(states(&w), [pb::KeyState::Active]);
    assert!(w.run(w.authority().upstream_crl("dev", "reports", &old.key_id)).unwrap().is_none());
}

#[test]
fn a_test_of_an_upstream_signs_verifies_revokes_and_sees_it_on_the_list() {
    let w = certifying();
    for upstream in ["reports", "hosts"] {
        let request = pb::TestUpstreamRequest { upstream: upstream.into() };
        let answer = ok(w.run(UpstreamApi(w.authority().clone()).test_upstream(ask(&ROOT, request.clone()))));
        assert_eq!(answer.steps.len(), 4, "{:?}", answer.steps);
        assert!(answer.steps.iter().all(|step| step.problem.is_none()), "{:?}", answer.steps);
        refused(
            w.run(UpstreamApi(w.authority().clone()).test_upstream(ask(&w.admin("/agent/a"), request))),
            Reason::DeniedByPolicy,
        );
    }
    let key = ca(&w, "reports").authorities[0].key_id.clone();
    assert_eq!(crl(&w, &key).1.len(), 1);
    w.pass(120_000);
    w.pass(mayfly::limits::KRL_RENEWED_MS);
    assert!(crl(&w, &key).1.is_empty());
    // No CA for an upstream that issues no certificates, or that is not there.
    for upstream in ["echo", "nothing"] {
        let request = pb::GetUpstreamCaRequest { upstream: upstream.into() };
        refused(w.run(KeyApi(w.authority().clone()).get_upstream_ca(ask(&ROOT, request))), Reason::NotFound);
    }
}
