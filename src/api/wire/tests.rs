//! Encoding and decoding returns the same value; malformed input is refused with its field.

use super::*;
use mayfly_base::refusal::Reason;
use mayfly_ledger::revocation::{Target, TargetKind};

#[test]
fn every_target_comes_back_as_it_went() {
    let hash = "ab".repeat(32);
    let pairs = "subject:https://idp.example ada|upstream-scope:github repo:write|subject-token:https://idp.example t-1|policy-below:prod 7";
    let more = format!(
        "credential:{}|task:{}|caller:spiffe://a.example/ci/x|prefix:spiffe://a.example/ci|trust-domain:a.example|\
        trust-anchor:{hash}|svid:a.example {hash} 0506|upstream:github|binding:b|tool:t|environment:prod|signing-key:k1|everything",
        mayfly_verify::seq::CredentialId::from_bytes([1; 16]),
        mayfly_verify::seq::TaskId::from_bytes([2; 16])
    );
    let all: Vec<Target> = pairs.split('|').chain(more.split('|')).map(|t| Target::parse(t).unwrap()).collect();
    assert!(TargetKind::ALL.iter().all(|sort| all.iter().any(|t| t.sort() == *sort)), "one of each sort");
    for target in all {
        assert_eq!(target_from_pb("targets", &target_to_pb(&target)), Ok(target));
    }
}

#[test]
fn a_workload_as_subject_is_found_under_either_form_of_its_issuer() {
    let subject = |issuer: &str| pb::Target {
        target: Some(pb::target::Target::Subject(pb::Subject { issuer: issuer.into(), sub: "spiffe://a.example/x".into() })),
    };
    let bare = target_from_pb("targets", &subject("a.example")).unwrap();
    assert_eq!(target_from_pb("targets", &subject("spiffe://a.example")).unwrap(), bare);
    // The fold matches the bare name: any other form would revoke nothing.
    assert_eq!(bare, mayfly_ledger::revocation::Target::Subject("a.example".into(), "spiffe://a.example/x".into()));
}

#[test]
fn a_malformed_target_is_refused_with_its_field() {
    use pb::target::Target as T;
    let bad = [
        None,
        Some(T::CredentialId("task_x".into())),
        Some(T::TaskId(String::new())),
        Some(T::Caller("agent".into())),
        Some(T::SpiffeIdPrefix("spiffe://a.example/".into())),
        Some(T::TrustDomain("A".into())),
        Some(T::TrustAnchor(pb::TrustAnchorTarget { sha256: vec![1; 31].into(), ..Default::default() })),
        Some(T::Subject(pb::Subject { issuer: String::new(), sub: "x".into() })),
        Some(T::Upstream(String::new())),
        Some(T::Upstream("a".repeat(3000))),
        Some(T::Tool("a\nb".into())),
        Some(T::Svid(pb::SvidTarget { trust_domain: "a".into(), issuing_key_sha256: vec![1; 32].into(), serial: vec![].into() })),
    ];
    for target in bad {
        let no = target_from_pb("targets", &pb::Target { target: target.clone() }).unwrap_err();
        assert_eq!((no.reason, no.field), (Reason::InvalidField, Some("targets")), "{target:?}");
    }
}

#[test]
fn moments_come_back_and_what_is_none_is_refused() {
    for at in [Millis(0), Millis(1), Millis(1_795_132_800_999)] {
        assert_eq!(millis(&timestamp(at)), Some(at));
    }
    let bad = [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)];
    for (seconds, nanos) in bad {
        assert_eq!(millis(&prost_types::Timestamp { seconds, nanos }), None);
    }
    assert_eq!(duration(1_500), prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    assert_eq!(duration(u64::MAX).seconds, i64::try_from(u64::MAX / 1000).unwrap());
}
