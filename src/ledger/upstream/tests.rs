//! Tests of registrations: required fields, and clashes between registrations.

use super::file::parse;
use super::registry::{Alg, Approver, BlastRadius, Kind, Privilege, ProofOfPossession, Registry, Upstream};
use super::target::target_url;
use mayfly_base::document::SourceFile;
use mayfly_verify::seq::Millis;

const WHOLE: &str = r#"
name = "tickets"
owner = "team-support"
purpose = "the tracker"
environment = "prod"
audience = "https://tickets.example.org"
target = "https://Tickets.example.org:443/api/"
servers = ["spiffe://example.org/tickets"]
approvers = ["spiffe://example.org/boss", { issuer = "https://idp.example.org", subject = "42" }]
kinds = ["jwt", "reference"]
scopes = ["read", { name = "delete", sensitive = true }]
expires = 2030-01-01
[classification]
system = "tracker"
privilege = "write"
blast_radius = "medium"
[ttl]
min = "30s"
default = "5m"
max = "1h"
[jwt]
proof_of_possession = "x5t"
"#;

fn said(text: &str) -> String {
    match parse(&SourceFile::new("u.toml", text), &[]) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(wrong) => wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

fn whole() -> Upstream {
    parse(&SourceFile::new("u.toml", WHOLE), &[]).unwrap_or_else(|wrong| panic!("{wrong:#?}"))
}

#[test]
fn a_whole_registration_is_read_as_written() {
    let up = whole();
    assert_eq!((up.name.as_str(), up.environment.as_str(), up.owner.as_str()), ("tickets", "prod", "team-support"));
    assert_eq!(up.target, "https://tickets.example.org/api");
    assert_eq!((up.ttl.min, up.ttl.default, up.ttl.max), (30, 300, 3600));
    assert_eq!((up.classification.privilege, up.classification.blast_radius), (Privilege::Write, BlastRadius::Medium));
    assert_eq!((up.alg, up.proof_of_possession, up.rotation), (Alg::Es256, ProofOfPossession::X5t, None));
    assert_eq!(up.expires, Millis(1_893_456_000_000));
    assert!(up.issues(Kind::Jwt) && up.issues(Kind::Reference) && !up.issues(Kind::Ssh));
    assert!(matches!(&up.approvers[1], Approver::Person { subject, .. } if subject == "42"));
    assert_eq!(up.scope("delete").map(|s| s.sensitive), Some(true));
    assert_eq!(up.scope("read").map(|s| s.sensitive), Some(false));
    assert!(up.served_by(&up.servers[0]) && up.scope("write").is_none());
}

#[test]
fn an_empty_file_is_told_all_that_is_missing() {
    let said = said("");
    for field in [
        "name",
        "owner",
        "purpose",
        "environment",
        "audience",
        "target",
        "servers",
        "approvers",
        "kinds",
        "scopes",
        "expires",
        "classification",
        "ttl",
    ] {
        assert!(said.contains(field), "{field} in {said}");
    }
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn each_field_that_is_left_out_is_missed_by_its_name() {
    for line in WHOLE.lines().filter(|l| l.contains(" = ") && !l.starts_with("proof")) {
        let field = line.split(' ').next().unwrap_or_default();
        let said = said(&WHOLE.replacen(line, "", 1));
        assert!(said.contains("lacks") && said.contains(field), "{field}: {said}");
    }
}

#[test]
fn each_mistake_is_named_with_line_and_remedy() {
    for (from, to, parts) in [
        ("owner =", "ownr =", &["u.toml:3:1", "unknown key ownr", "did you mean owner?", "lacks owner"][..]),
        ("privilege = \"write\"", "privilege = \"root\"", &[":15:", "classification.privilege", "read, write, admin"]),
        ("\"jwt\", \"reference\"", "\"jwt\", \"ssh\"", &[":10:", "kinds[1] is ssh", "not served by this version"]),
        ("\"jwt\", \"reference\"", "\"jwt\", \"jtw\"", &[":10:", "one of jwt, reference, x509"]),
        ("\"jwt\", \"reference\"", "\"jwt\", \"jwt\"", &[":10:", "twice"]),
        ("\"jwt\", \"reference\"", "\"reference\"", &[":21:", "jwt is for kind jwt"]),
        ("[\"jwt\", \"reference\"]", "[]", &[":10:", "kinds is empty"]),
        ("\"read\",", "\"delete\",", &[":11:", "scopes has delete twice"]),
        ("\"read\",", "\"re ad\",", &[":11:", "scopes[0]", "RFC 6749"]),
        ("sensitive = true", "sensitive = 1", &[":11:", "scopes[1].sensitive is a number", "true or false"]),
        ("sensitive = true", "sensitiv = true", &[":11:", "did you mean sensitive?"]),
        ("min = \"30s\"", "min = \"10m\"", &[":19:", "ttl.default", "min ≤ default ≤ max"]),
        ("max = \"1h\"", "max = \"2h\"", &[":20:", "ttl.max is 2h", "to 1h"]),
        ("max = \"1h\"", "max = 3600", &[":20:", "ttl.max is a number", "1h30m"]),
        ("min = \"30s\"", "min = \"30s500ms\"", &[":18:", "whole seconds"]),
        ("\"spiffe://example.org/tickets\"", "\"spiffe://Example.org/t\"", &[":8:", "servers[0]", "lower case"]),
        ("subject = \"42\"", "sub = \"42\"", &[":9:", "unknown key approvers[1].sub", "lacks approvers[1].subject"]),
        ("2030-01-01", "\"soon\"", &[":12:", "expires is soon", "2027-06-30"]),
        ("https://Tickets", "https://me@tickets", &[":7:", "target", "without user"]),
        ("= \"https://tickets.example.org\"", "= \"two words\"", &[":6:", "audience", "without spaces"]),
        ("name = \"tickets\"", "name = \"tick ets\"", &[":2:", "name", "letters, digits"]),
        ("[jwt]", "[jwt]\nalg = \"RS256\"", &[":22:", "RS256", "not served by this version"]),
        ("[jwt]", "[more]", &[":21:", "unknown section more"]),
        ("= \"x5t\"", "= \"dpop\"", &[":22:", "none, x5t"]),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let said = said(&WHOLE.replacen(from, to, 1));
        for part in parts {
            assert!(said.contains(part), "{to}\nwants {part} in\n{said}");
        }
    }
}

#[test]
fn the_text_of_a_record_gives_the_same_registration() {
    let up = whole();
    let again = Upstream::from_text(&up.to_text()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((&again, again.digest()), (&up, up.digest()));
    let mut other = up.clone();
    other.owner.push('x');
    assert_ne!(other.digest(), up.digest());
    let text = up.to_text();
    for bad in
        ["", &text.replacen(":1", ":2", 1), &text.replacen("\"owner\"", "\"ower\"", 1), &text.replacen('{', "{\"x\":1,", 1)]
    {
        assert!(Upstream::from_text(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_stored_registration_of_this_version_still_reads() {
    let text = include_str!("../../../tests/samples/upstream.v1.json").trim_end();
    assert_eq!(Upstream::from_text(text), Ok(whole()));
    assert_eq!(whole().to_text(), text);
}

#[test]
fn persisted_numbers_are_frozen() {
    let kinds = ["jwt", "reference", "x509", "ssh", "postgres", "oauth", "aws", "github", "secret", "mysql", "redis"];
    for (place, name) in kinds.iter().enumerate() {
        let kind = u8::try_from(place + 1).ok().and_then(Kind::from_tag);
        assert_eq!(kind.map(Kind::as_str), Some(*name));
    }
    assert_eq!((Kind::ALL.len(), Kind::from_tag(0), Kind::from_tag(12)), (11, None, None));
    assert_eq!(Kind::ALL.iter().filter(|k| k.served()).count(), 2);
    assert_eq!((Alg::Es256.tag(), Alg::Rs256.tag(), ProofOfPossession::None.tag(), ProofOfPossession::X5t.tag()), (1, 2, 1, 2));
}

#[test]
fn one_target_has_one_spelling() {
    for (text, normal) in [
        ("https://API.github.com", Some("https://api.github.com")),
        ("https://api.github.com:443/", Some("https://api.github.com")),
        ("https://api.github.com./", Some("https://api.github.com")),
        ("HTTPS://api.github.com//v1//", Some("https://api.github.com/v1")),
        ("https://api.github.com:8443/v1", Some("https://api.github.com:8443/v1")),
        ("http://api.github.com:443", Some("http://api.github.com:443")),
        ("postgres://db.internal:5432/app", Some("postgres://db.internal/app")),
        ("https://[::1]:8443", Some("https://[::1]:8443")),
        ("https://api.github.com/a/../b", None),
        ("https://api.github.com/%61", None),
        ("https://user@api.github.com", None),
        ("https://api.github.com?x=1", None),
        ("https://api.github.com#x", None),
        ("https://api.github.com:99999", None),
        ("api.github.com", None),
        ("https://", None),
        ("https://./", None),
        ("/v1", None),
        ("", None),
    ] {
        assert_eq!(target_url(text).as_deref(), normal, "{text}");
    }
}

#[test]
fn name_audience_and_target_are_unique_across_kinds_and_environments() {
    let first = whole();
    let mut second = whole();
    second.name = "other".into();
    second.environment = "dev".into();
    second.kinds = vec![Kind::Reference];
    let clashes = Registry::new([first.clone(), second.clone()]).unwrap_err();
    assert_eq!(clashes.iter().map(|c| c.what).collect::<Vec<_>>(), ["audience", "target"]);
    assert!(clashes[0].to_string().contains("upstream other has the same audience as upstream tickets"));
    second.audience.push_str("/2");
    assert_eq!(Registry::new([first.clone(), second.clone()]).unwrap_err().len(), 1);
    second.target.push_str("/2");
    let registry = Registry::new([first.clone(), second.clone()]).unwrap();
    assert_eq!((registry.len(), registry.get("other").map(|u| u.name.as_str())), (2, Some("other")));
    assert_eq!(Registry::new([first.clone(), first.clone()]).unwrap_err()[0].what, "name");

    let mut changed = first.clone();
    changed.purpose = "new".into();
    assert_eq!(registry.clash(&changed), None);
    changed.target = second.target.clone();
    assert_eq!(registry.clash(&changed).map(|c| (c.what, c.with)), Some(("target", "other".to_owned())));
    changed.audience = second.audience.clone();
    assert_eq!(registry.clash(&changed).map(|c| c.what), Some("audience"));
}
