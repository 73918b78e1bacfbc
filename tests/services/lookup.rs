//! CredentialService.LookupToken: looks up a token that was found.

use mayfly::credential::IssuedCredential;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, GenerationBegun, KeyPurpose, Record};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::credential_service_server::CredentialService;
use mayfly::refusal::Reason;
use mayfly::revocation::Target;
use mayfly::seq::{CredentialId, TaskId};
use mayfly::serve::wire::target_to_pb;

use super::credential::{id, reference, service, task};
use super::{ROOT, World, ask, bad, ok, refused, token, world};

fn look_up(w: &World, by: pb::lookup_token_request::By) -> Result<tonic::Response<pb::LookupTokenResponse>, tonic::Status> {
    w.run(service(w).lookup_token(ask(&ROOT, pb::LookupTokenRequest { by: Some(by) })))
}

fn by_token(token: &str) -> pb::lookup_token_request::By {
    pb::lookup_token_request::By::Token(token.into())
}

#[test]
fn a_found_token_says_whose_it_is_and_what_to_revoke() {
    let w = world();
    let issued = w.issue("/agent/a");
    let (name, its_task): (CredentialId, TaskId) = (id(&issued), task(&issued));
    let text = token(issued);
    let found = ok(look_up(&w, by_token(&text)));
    assert_eq!(found.standing, pb::TokenStanding::Issued as i32);
    let credential = found.credential.unwrap();
    assert_eq!((credential.credential_id, credential.caller), (name.to_string(), "spiffe://dev.mayfly.internal/agent/a".into()));
    assert_eq!((found.base_url.as_str(), found.derived_credentials), ("http://127.0.0.1:7780", 0));
    assert_eq!(found.signing_key, credential.signing_key);
    let targets: Vec<_> = found.choices.iter().map(|c| c.target.clone().unwrap()).collect();
    let caller = Target::Caller("spiffe://dev.mayfly.internal/agent/a".into());
    assert_eq!(targets, [Target::Credential(name), Target::Task(its_task), caller].map(|t| target_to_pb(&t)));
    assert!(found.choices.iter().all(|c| c.hits.unwrap().credentials == 1));

    let input = text.rsplit_once('.').unwrap().0;
    let digest = mayfly::ledger::commit::sha256(input.as_bytes());
    let by_digest = pb::lookup_token_request::By::Sha256(digest.to_vec().into());
    let found = ok(look_up(&w, by_digest));
    assert_eq!(found.credential.unwrap().credential_id, name.to_string());

    // The credential is still known long after it expired.
    w.pass(3_000_000);
    w.pass(1_000);
    assert!(w.authority().ledger.peek(|s| s.credentials.get(&name).is_none()));
    let found = ok(look_up(&w, by_token(&text)));
    assert_eq!(found.standing, pb::TokenStanding::Issued as i32);
    assert_eq!(found.credential.unwrap().state, pb::CredentialState::Expired as i32);
}

#[test]
fn an_altered_or_cut_token_is_told_from_what_was_issued() {
    let w = world();
    let issued = w.issue("/agent/a");
    let name = id(&issued).to_string();
    let text = token(issued);
    let (input, signature) = text.rsplit_once('.').unwrap();
    let middle = input.len() / 2;
    let altered = format!(
        "{}{}{}.{signature}",
        &input[..middle],
        if &input[middle..=middle] == "A" { "B" } else { "A" },
        &input[middle + 1..]
    );
    // The id is the last claim; after it comes the signature.
    for cut in [altered.as_str(), input, &text[..text.len() - 4], &input[..input.len() - 2]] {
        let found = ok(look_up(&w, by_token(cut)));
        assert_eq!(found.standing, pb::TokenStanding::Altered as i32, "{cut}");
        assert_eq!(found.credential.unwrap().credential_id, name);
    }
}

#[test]
fn what_our_key_signed_and_nobody_issued_is_forged() {
    let w = world();
    let issued = w.issue("/agent/a");
    let key = w.authority().keyring.active(KeyPurpose::AccessToken, "dev").unwrap().id().to_owned();
    let text = token(issued);
    // The thief of a key chooses the claims.
    let private = w.authority().ledger.store().named(&format!("key/{key}")).unwrap().unwrap();
    let alg = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(alg, &private).unwrap();
    let sign = |claims: String| {
        let header = text.split('.').next().unwrap();
        let input = format!("{header}.{}", data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes()));
        let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", data_encoding::BASE64URL_NOPAD.encode(signature.as_ref()))
    };
    let payload = data_encoding::BASE64URL_NOPAD.decode(text.split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims = String::from_utf8(payload).unwrap();
    let wider = sign(claims.replace("echo:read", "echo:admin"));
    let other = sign(claims.replace(
        &serde_json::from_str::<serde_json::Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned(),
        &CredentialId::from_bytes([9; 16]).to_string(),
    ));
    for forged in [wider, other, sign("{\"sub\":\"whoever\"}".into())] {
        let found = ok(look_up(&w, by_token(&forged)));
        assert_eq!(found.standing, pb::TokenStanding::Forged as i32);
        assert_eq!((found.signing_key.as_str(), found.credential), (key.as_str(), None));
        assert_eq!(found.choices[0].target, Some(target_to_pb(&Target::SigningKey(key.as_str().into()))));
    }
}

#[test]
fn reference_tokens_are_found_too() {
    let w = world();
    let issued: IssuedCredential = reference(&w, "/agent/a");
    let name = id(&issued).to_string();
    let text = token(issued);
    let found = ok(look_up(&w, by_token(&text)));
    assert_eq!(found.standing, pb::TokenStanding::Issued as i32);
    assert_eq!(found.credential.unwrap().credential_id, name);
    for cut in [&text[..text.len() - 1], &text[..30]] {
        let found = ok(look_up(&w, by_token(cut)));
        assert_eq!(
            (found.standing, found.credential.unwrap().credential_id.as_str()),
            (pb::TokenStanding::Altered as i32, &*name)
        );
    }
    refused(look_up(&w, by_token(&text[..20])), Reason::NotFound);
}

/// The record of what was issued before a recovery may be lost: such a token is no sign of a stolen key.
#[test]
fn a_reference_token_is_forged_unless_its_record_may_be_lost() {
    let w = world();
    let key = w.authority().keyring.active(KeyPurpose::Reference, "dev").unwrap().id().to_owned();
    let secret = w.authority().ledger.store().named(&format!("key/{key}")).unwrap().unwrap();
    let id = CredentialId::from_bytes([9; 16]);
    let mac = aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret), id.as_bytes());
    let text = mayfly::credential::reference::token(id, mac.as_ref().try_into().unwrap());
    assert_eq!(ok(look_up(&w, by_token(&text))).standing, pb::TokenStanding::Forged as i32);

    let begun = GenerationBegun { generation: 2, cause: "recovered".into(), store: vec![1; 16], ..Default::default() };
    let record = Record::new(Author::Mayfly("recovered".into()), Event::GenerationBegun(begun));
    w.run(w.authority().ledger.commit(ProposalKind::Change, vec![record])).map_err(|no| no.to_string()).unwrap();
    refused(look_up(&w, by_token(&text)), Reason::Compacted);
}

#[test]
fn what_is_no_token_of_ours_is_not_found() {
    let w = world();
    w.issue("/agent/a");
    for other in ["x", "a.b.c", "mfr_", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "eyJhbGciOiJub25lIn0.e30."] {
        refused(look_up(&w, by_token(other)), Reason::NotFound);
    }
    refused(look_up(&w, pb::lookup_token_request::By::Sha256(vec![1; 32].into())), Reason::NotFound);
    bad(look_up(&w, by_token("")), "token");
    bad(look_up(&w, by_token(&"a".repeat(200_000))), "token");
    bad(look_up(&w, pb::lookup_token_request::By::Sha256(vec![1; 31].into())), "sha256");
    bad(w.run(service(&w).lookup_token(ask(&ROOT, pb::LookupTokenRequest { by: None }))), "by");
    let request = pb::LookupTokenRequest { by: Some(by_token("x")) };
    refused(w.run(service(&w).lookup_token(ask(&w.workload("/agent/a"), request.clone()))), Reason::NotAuthenticated);
    refused(w.run(service(&w).lookup_token(ask(&w.admin("/agent/a"), request))), Reason::DeniedByPolicy);
}
