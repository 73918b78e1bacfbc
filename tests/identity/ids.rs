//! standards.md, "SPIFFE ID".

use mayfly::identity::spiffe_id::{IdDefect, SpiffeId, SpiffePrefix, TrustDomain};
use proptest::prelude::*;

fn refused(text: &str) -> IdDefect {
    SpiffeId::parse(text).unwrap_err()
}

#[test]
fn an_id_is_scheme_trust_domain_and_path() {
    let id = SpiffeId::parse("spiffe://example.org/ns/a/sa/b").unwrap();
    assert_eq!((id.trust_domain(), id.path()), ("example.org", "/ns/a/sa/b"));
    assert_eq!(id.segments().collect::<Vec<_>>(), ["ns", "a", "sa", "b"]);
    let root = SpiffeId::parse("spiffe://example.org").unwrap();
    assert_eq!((root.trust_domain(), root.path(), root.segments().count()), ("example.org", "", 0));
}

#[test]
fn an_id_has_no_userinfo_port_query_fragment_or_percent_encoding() {
    assert_eq!(refused("spiffe://user@example.org/a"), IdDefect::Userinfo);
    assert_eq!(refused("spiffe://example.org:443/a"), IdDefect::Port);
    assert_eq!(refused("spiffe://example.org/a?b"), IdDefect::Query);
    assert_eq!(refused("spiffe://example.org/a#b"), IdDefect::Fragment);
    assert_eq!(refused("spiffe://example.org/%61"), IdDefect::BadPathChar);
    assert_eq!(refused("spiffe://example%2eorg/a"), IdDefect::BadTrustDomainChar);
}

#[test]
fn a_trust_domain_has_1_to_255_bytes_of_its_alphabet() {
    assert_eq!(TrustDomain::parse(""), Err(IdDefect::MissingTrustDomain));
    assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
    assert_eq!(TrustDomain::parse(&"a".repeat(256)), Err(IdDefect::TrustDomainTooLong));
    assert_eq!(TrustDomain::parse("Example.org"), Err(IdDefect::UppercaseTrustDomain));
    assert_eq!(TrustDomain::parse("exämple.org"), Err(IdDefect::BadTrustDomainChar));
    assert_eq!(TrustDomain::parse("a.b-c_1").unwrap().as_str(), "a.b-c_1");
}

#[test]
fn a_path_segment_is_not_empty_nor_dots_and_no_slash_ends_the_path() {
    assert_eq!(refused("spiffe://example.org//a"), IdDefect::EmptySegment);
    assert_eq!(refused("spiffe://example.org/a/../b"), IdDefect::DotSegment);
    assert_eq!(refused("spiffe://example.org/."), IdDefect::DotSegment);
    assert_eq!(refused("spiffe://example.org/a/"), IdDefect::TrailingSlash);
    assert_eq!(refused("spiffe://example.org/"), IdDefect::TrailingSlash);
    assert!(SpiffeId::parse("spiffe://example.org/.../a").is_ok());
}

#[test]
fn an_id_of_2048_bytes_is_accepted_and_of_one_more_refused() {
    let of = |n: usize| format!("spiffe://example.org/{}", "a".repeat(n - 21));
    assert_eq!(SpiffeId::parse(&of(2048)).unwrap().as_str().len(), 2048);
    assert_eq!(refused(&of(2049)), IdDefect::TooLong);
}

#[test]
fn what_is_not_canonical_is_refused_and_not_repaired() {
    for text in [
        "SPIFFE://example.org/a",
        "spiffe://EXAMPLE.org/a",
        " spiffe://example.org/a",
        "spiffe:/example.org/a",
        "spiffe://example.org/a ",
    ] {
        assert!(SpiffeId::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_prefix_matches_whole_segments() {
    let rule = SpiffePrefix::parse("spiffe://example.org/ci").unwrap();
    let covers = |text: &str| rule.covers(&SpiffeId::parse(text).unwrap());
    assert!(covers("spiffe://example.org/ci"));
    assert!(covers("spiffe://example.org/ci/x"));
    assert!(!covers("spiffe://example.org/cid"));
    assert!(!covers("spiffe://example.org/c"));
    assert!(!covers("spiffe://example.org"));
    let domain = SpiffePrefix::parse("spiffe://example.org").unwrap();
    assert!(domain.covers(&SpiffeId::parse("spiffe://example.org/ci").unwrap()));
    assert!(!domain.covers(&SpiffeId::parse("spiffe://example.org.evil/ci").unwrap()));
}

#[test]
fn prefixes_go_from_the_trust_domain_to_the_whole_id() {
    let id = SpiffeId::parse("spiffe://example.org/a/bc/d").unwrap();
    let all: Vec<_> = id.prefixes().collect();
    assert_eq!(
        all,
        ["spiffe://example.org", "spiffe://example.org/a", "spiffe://example.org/a/bc", "spiffe://example.org/a/bc/d"]
    );
    let root = SpiffeId::parse("spiffe://example.org").unwrap();
    assert_eq!(root.prefixes().collect::<Vec<_>>(), ["spiffe://example.org"]);
}

#[test]
fn ids_are_text_in_json_and_refused_there_too() {
    let id: SpiffeId = serde_json::from_str("\"spiffe://example.org/a\"").unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), "\"spiffe://example.org/a\"");
    assert!(serde_json::from_str::<SpiffeId>("\"spiffe://example.org/a/\"").is_err());
    assert!(serde_json::from_str::<TrustDomain>("\"spiffe://example.org\"").is_err());
    let bytes = postcard::to_stdvec(&id).unwrap();
    assert_eq!(postcard::from_bytes::<SpiffeId>(&bytes).unwrap(), id);
}

proptest! {
    #[test]
    fn parsing_never_panics_and_what_it_accepts_is_canonical(text in any::<String>()) {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), text);
        }
    }

    #[test]
    fn near_ids_are_accepted_exactly_where_their_parts_are(
        domain in "[a-zA-Z0-9._@:%-]{0,12}",
        segments in prop::collection::vec("[a-z./%?#-]{0,4}", 0..5),
    ) {
        let text = format!("spiffe://{domain}{}", segments.iter().map(|s| format!("/{s}")).collect::<String>());
        let good_domain = !domain.is_empty() && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        let path: Vec<&str> = text.strip_prefix(&format!("spiffe://{domain}")).unwrap().split('/').skip(1).collect();
        let good_path = path.iter().all(|s| !s.is_empty() && *s != "." && *s != ".." && !s.contains(['%', '?', '#']));
        match SpiffeId::parse(&text) {
            Ok(id) => {
                prop_assert!(good_domain && good_path, "{}", text);
                prop_assert_eq!(id.segments().collect::<Vec<_>>(), path);
                prop_assert_eq!(SpiffeId::parse(id.as_str()).unwrap(), id.clone());
                prop_assert_eq!(SpiffeId::from_segments(&id.trust_domain_owned(), &id.segments().collect::<Vec<_>>()).unwrap(), id);
            }
            Err(_) => prop_assert!(!(good_domain && good_path), "{}", text),
        }
    }

    #[test]
    fn each_prefix_covers_the_id_and_nothing_beside_it_does(a in "(/[a-z]{1,2}){0,5}", b in "(/[a-z]{1,2}){0,5}") {
        let id = SpiffeId::parse(&format!("spiffe://td{a}")).unwrap();
        let other = SpiffePrefix::parse(&format!("spiffe://td{b}")).unwrap();
        let prefixes: Vec<&str> = id.prefixes().collect();
        prop_assert_eq!(prefixes.len(), id.segments().count() + 1);
        prop_assert!(prefixes.is_sorted_by_key(|p| p.len()));
        prop_assert_eq!(prefixes.contains(&other.as_str()), other.covers(&id));
    }
}
