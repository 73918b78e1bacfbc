//! Tests of the names under which records are found.

use super::*;

fn all_of(record: &Record) -> Vec<(Sort, String)> {
    let mut found = Vec::new();
    names(record, &mut |sort, text| found.push((sort, text.to_owned())));
    found
}

#[test]
fn an_issuance_is_found_by_all_that_it_names() {
    let issued = Issued {
        credential: vec![1; 16],
        task: vec![2; 16],
        caller: "spiffe://a.example/x".into(),
        upstream: "github".into(),
        tool: "search".into(),
        environment: "dev".into(),
        subject: Some(Identity { issuer: "https://idp.example".into(), sub: "alice".into() }),
        token_digest: vec![3; 32],
        ..Issued::default()
    };
    let request = Request { caller: "spiffe://a.example/x".into(), id: "r-1".into(), digest: Vec::new() };
    let record = Record::new(Who::SpiffeId("spiffe://a.example/x".into()), Event::Issued(Box::new(issued)));
    let found = all_of(&record.for_request(Some(request)));
    let has = |sort, text: &str| assert!(found.contains(&(sort, text.to_owned())), "{text}: {found:?}");
    has(Sort::Event, "credential issued");
    has(Sort::Task, &TaskId::from_bytes([2; 16]).to_string());
    has(Sort::Other, &CredentialId::from_bytes([1; 16]).to_string());
    has(Sort::Workload, "spiffe://a.example/x");
    has(Sort::Upstream, "github");
    has(Sort::Tool, "search");
    has(Sort::Environment, "dev");
    has(Sort::Other, "alice");
    has(Sort::Other, "https://idp.example#alice");
    has(Sort::Other, &"03".repeat(32));
    has(Sort::Other, "r-1");
    assert!(found.iter().all(|(_, text)| !text.is_empty()));
}

#[test]
fn a_revocation_is_found_by_what_it_aims_at() {
    let aims = [Aim::Upstream("github".into()), Aim::Tool("search".into()), Aim::SigningKey("k1".into())];
    let targets = aims.map(|aim| TargetRecord { aim: Some(aim) }).to_vec();
    let revoked = Event::Revoked(Revoked { targets, ..Revoked::default() });
    let found = all_of(&Record::new(Who::LocalUid(7), revoked));
    let expected = [
        (Sort::Other, "local-uid:7"),
        (Sort::Event, "revoked"),
        (Sort::Upstream, "github"),
        (Sort::Tool, "search"),
        (Sort::Other, "k1"),
        (Sort::About, "rule Upstream github"),
        (Sort::About, "rule Tool search"),
        (Sort::About, "rule SigningKey k1"),
    ];
    assert_eq!(found, expected.map(|(sort, text)| (sort, text.to_owned())));
}

#[test]
fn break_glass_is_found_by_its_task_its_people_and_its_rights() {
    let person = |sub: &str| Identity { issuer: "https://idp.example".into(), sub: sub.into() };
    let glass = BreakGlass {
        task: vec![2; 16],
        people: vec![person("ada"), person("grace")],
        rights: "orders-down".into(),
        caller: "spiffe://a.example/x".into(),
        environment: "prod".into(),
        ancestor: vec![4; 16],
        ..BreakGlass::default()
    };
    let found = all_of(&Record::new(Who::Person(person("grace")), Event::BreakGlass(glass)));
    let has = |sort, text: &str| assert!(found.contains(&(sort, text.to_owned())), "{text}: {found:?}");
    has(Sort::Task, &TaskId::from_bytes([2; 16]).to_string());
    has(Sort::Other, "https://idp.example#ada");
    has(Sort::Other, "orders-down");
    has(Sort::Workload, "spiffe://a.example/x");
    has(Sort::Environment, "prod");
    has(Sort::Other, &CredentialId::from_bytes([4; 16]).to_string());
}
