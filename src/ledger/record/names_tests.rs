//! Tests of the names under which records are found.

use super::*;

fn all_of(record: &Record) -> Vec<(NameKind, String)> {
    let mut found = Vec::new();
    names(record, &mut |sort, text| found.push((sort, text.to_owned())));
    found
}

#[test]
fn an_issuance_is_found_by_all_that_it_names() {
    let issued = CredentialIssued {
        credential: vec![1; 16],
        task: vec![2; 16],
        caller: "spiffe://a.example/x".into(),
        upstream: "github".into(),
        tool: "search".into(),
        environment: "dev".into(),
        subject: Some(Principal { issuer: "https://idp.example".into(), sub: "alice".into() }),
        token_digest: vec![3; 32],
        ..CredentialIssued::default()
    };
    let request = RequestRecord { caller: "spiffe://a.example/x".into(), id: "r-1".into(), digest: Vec::new() };
    let record = Record::new(Author::SpiffeId("spiffe://a.example/x".into()), Event::Issued(Box::new(issued)));
    let found = all_of(&record.for_request(Some(request)));
    let has = |sort, text: &str| assert!(found.contains(&(sort, text.to_owned())), "{text}: {found:?}");
    has(NameKind::Event, "credential issued");
    has(NameKind::Task, &TaskId::from_bytes([2; 16]).to_string());
    has(NameKind::Other, &CredentialId::from_bytes([1; 16]).to_string());
    has(NameKind::Workload, "spiffe://a.example/x");
    has(NameKind::Upstream, "github");
    has(NameKind::Tool, "search");
    has(NameKind::Environment, "dev");
    has(NameKind::Other, "alice");
    has(NameKind::Other, "https://idp.example#alice");
    has(NameKind::Other, &"03".repeat(32));
    has(NameKind::Other, "r-1");
    assert!(found.iter().all(|(_, text)| !text.is_empty()));
}

#[test]
fn a_revocation_is_found_by_what_it_aims_at() {
    let aims = [
        RecordedTarget::Upstream("github".into()),
        RecordedTarget::Tool("search".into()),
        RecordedTarget::SigningKey("k1".into()),
    ];
    let targets = aims.map(|aim| TargetRecord { aim: Some(aim) }).to_vec();
    let revoked = Event::Revoked(TargetsRevoked { targets, ..TargetsRevoked::default() });
    let found = all_of(&Record::new(Author::LocalUid(7), revoked));
    let expected = [
        (NameKind::Other, "local-uid:7"),
        (NameKind::Event, "revoked"),
        (NameKind::Upstream, "github"),
        (NameKind::Tool, "search"),
        (NameKind::Other, "k1"),
        (NameKind::About, "rule Upstream github"),
        (NameKind::About, "rule Tool search"),
        (NameKind::About, "rule SigningKey k1"),
    ];
    assert_eq!(found, expected.map(|(sort, text)| (sort, text.to_owned())));
}

#[test]
fn break_glass_is_found_by_its_task_its_people_and_its_rights() {
    let person = |sub: &str| Principal { issuer: "https://idp.example".into(), sub: sub.into() };
    let break_glass = BreakGlassStepTaken {
        task: vec![2; 16],
        people: vec![person("ada"), person("grace")],
        rights: "orders-down".into(),
        caller: "spiffe://a.example/x".into(),
        environment: "prod".into(),
        ancestor: vec![4; 16],
        ..BreakGlassStepTaken::default()
    };
    let found = all_of(&Record::new(Author::Person(person("grace")), Event::BreakGlass(break_glass)));
    let has = |sort, text: &str| assert!(found.contains(&(sort, text.to_owned())), "{text}: {found:?}");
    has(NameKind::Task, &TaskId::from_bytes([2; 16]).to_string());
    has(NameKind::Other, "https://idp.example#ada");
    has(NameKind::Other, "orders-down");
    has(NameKind::Workload, "spiffe://a.example/x");
    has(NameKind::Environment, "prod");
    has(NameKind::Other, &CredentialId::from_bytes([4; 16]).to_string());
}
