//! standards.md, "JWT in and out" for tokens of OIDC issuers: one defect for each clause, and its refusal.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use mayfly::identity::jwk::Algorithm;
use mayfly::identity::oidc::discovery::{Discovery, DiscoveryDefect, document_url, issuer_url};
use mayfly::identity::oidc::keys::KeysDefect;
use mayfly::identity::oidc::{self, Issuer, IssuerKeys, IssuerUse, OidcDefect as No, OidcTokenRequirements, VerifiedOidc};
use mayfly::limits;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::kit::pki::NOW;
use crate::kit::signer::Signer;

const ISS: &str = "https://idp.example.org";
const AUD: &str = "https://warehouse.example.org";

fn issuer() -> Issuer {
    Issuer {
        name: "idp".into(),
        issuer: ISS.into(),
        environments: vec!["dev".into()],
        audience: None,
        audiences: None,
        algorithms: vec![Algorithm::Es256, Algorithm::Rs256],
        uses: vec![IssuerUse::Subject],
        max_life_ms: 3_600_000,
        scopes_claim: None,
        groups_claim: None,
        rights: Vec::new(),
        jobs: None,
    }
}

fn keys(signer: &Signer) -> IssuerKeys {
    let mut jwk = signer.jwk();
    (jwk["kid"], jwk["use"]) = ("k1".into(), "sig".into());
    IssuerKeys::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k1", "typ": "JWT"})
}

fn claims() -> Value {
    let now = NOW.seconds();
    json!({"iss": ISS, "sub": "ada", "aud": AUD, "iat": now - 60, "exp": now + 240})
}

fn expect() -> OidcTokenRequirements<'static> {
    OidcTokenRequirements { audiences: &[AUD], now: NOW, leeway_ms: limits::CLOCK_SKEW_MS }
}

fn verify(token: &str, signer: &Signer) -> Result<VerifiedOidc, No> {
    oidc::verify(token, &issuer(), &keys(signer), &expect())
}

/// The refusal of a valid token with a changed header or changed claims.
fn spoilt(change: impl FnOnce(&mut Value, &mut Value)) -> Option<No> {
    let signer = Signer::new("ES256");
    let (mut header, mut claims) = (header(), claims());
    change(&mut header, &mut claims);
    verify(&signer.token(&header, &claims), &signer).err()
}

fn without(object: &mut Value, name: &str) {
    object.as_object_mut().unwrap().remove(name);
}

#[test]
fn a_good_one_is_accepted_with_all_that_it_says() {
    let signer = Signer::new("ES256");
    let mut claims = claims();
    (claims["jti"], claims["groups"], claims["scope"]) = ("t-1".into(), json!(["b", "a", "b"]), "x:read y:read".into());
    let token = verify(&signer.token(&header(), &claims), &signer).unwrap();
    assert_eq!((token.issuer(), token.sub(), token.audience(), token.token_id()), (ISS, "ada", AUD, "t-1"));
    assert_eq!((token.issued_at(), token.expires_at()), (NOW.minus(60_000), NOW.plus(240_000)));
    assert_eq!(token.values("groups").unwrap(), ["a", "b"]);
    assert_eq!(token.values("scope").unwrap(), ["x:read", "y:read"]);
    assert_eq!(token.values("roles").unwrap(), Vec::<String>::new());
}

#[test]
fn a_token_without_jti_is_named_by_what_was_signed() {
    let signer = Signer::new("ES256");
    let one = verify(&signer.token(&header(), &claims()), &signer).unwrap();
    let again = verify(&signer.token(&header(), &claims()), &signer).unwrap();
    assert!(one.token_id().starts_with("sha256:") && one.token_id().len() == 7 + 64);
    assert_eq!(one.token_id(), again.token_id(), "another signature over the same is the same token");
}

#[test]
fn each_defect_of_header_and_claims_is_refused_by_its_clause() {
    let now = NOW.seconds();
    let cases: Vec<(Option<No>, No)> = vec![
        (spoilt(|h, _| h["alg"] = "none".into()), No::Algorithm),
        (spoilt(|h, _| h["alg"] = "HS256".into()), No::Algorithm),
        (spoilt(|h, _| h["alg"] = "EdDSA".into()), No::Algorithm),
        (spoilt(|h, _| h["alg"] = "ES384".into()), No::Algorithm),
        (spoilt(|h, _| h["alg"] = "RS256".into()), No::OtherKeyType),
        (spoilt(|h, _| h["typ"] = "logout+jwt".into()), No::Typ),
        (spoilt(|h, _| h["typ"] = "dpop+jwt".into()), No::Typ),
        (spoilt(|h, _| h["typ"] = json!(["JWT"])), No::Typ),
        (spoilt(|h, _| without(h, "kid")), No::MissingKid),
        (spoilt(|h, _| h["kid"] = "k2".into()), No::UnknownKid),
        (spoilt(|h, _| h["jku"] = "https://evil.example/keys".into()), No::HeaderParameter),
        (spoilt(|h, _| h["x5u"] = "https://evil.example/cert".into()), No::HeaderParameter),
        (spoilt(|h, _| h["jwk"] = Signer::new("ES256").jwk()), No::HeaderParameter),
        (spoilt(|h, _| h["x5c"] = json!(["AA=="])), No::HeaderParameter),
        (spoilt(|h, _| h["crit"] = json!(["exp"])), No::HeaderParameter),
        (spoilt(|h, _| h["zip"] = "DEF".into()), No::HeaderParameter),
        (spoilt(|h, _| h["b64"] = false.into()), No::HeaderParameter),
        (spoilt(|_, c| c["iss"] = "https://idp.example.org/".into()), No::Issuer),
        (spoilt(|_, c| without(c, "iss")), No::Issuer),
        (spoilt(|_, c| c["aud"] = json!([AUD])), No::AudNotOneText),
        (spoilt(|_, c| without(c, "aud")), No::AudNotOneText),
        (spoilt(|_, c| c["aud"] = "https://github.example.org".into()), No::Audience),
        (spoilt(|_, c| c["aud"] = format!("{AUD}/").into()), No::Audience),
        (spoilt(|_, c| without(c, "exp")), No::MissingExp),
        (spoilt(|_, c| without(c, "iat")), No::MissingIat),
        (spoilt(|_, c| c["exp"] = json!(-1)), No::NotATime),
        (spoilt(|_, c| c["exp"] = json!(-0.5)), No::NotATime),
        (spoilt(|_, c| c["exp"] = json!(1e300)), No::NotATime),
        (spoilt(|_, c| c["iat"] = json!("1700000000")), No::NotATime),
        (spoilt(|_, c| c["exp"] = json!(now as f64 + 0.0004)), No::Expired),
        (spoilt(|_, c| c["nbf"] = json!(now as f64 + 30.0004)), No::NotYetValid),
        (spoilt(|_, c| c["nbf"] = "soon".into()), No::NotATime),
        (spoilt(|_, c| c["exp"] = now.into()), No::Expired),
        (spoilt(|_, c| c["nbf"] = (now + 31).into()), No::NotYetValid),
        (spoilt(|_, c| c["iat"] = (now + 31).into()), No::NotYetValid),
        (spoilt(|_, c| c["exp"] = (now + 3600).into()), No::LivesTooLong),
        (spoilt(|_, c| without(c, "sub")), No::Sub),
        (spoilt(|_, c| c["sub"] = "".into()), No::Sub),
        (spoilt(|_, c| c["sub"] = "a\u{7}".into()), No::Sub),
        (spoilt(|_, c| c["sub"] = "x".repeat(limits::OIDC_SUB_BYTES + 1).into()), No::Sub),
        (spoilt(|_, c| c["sub"] = "spiffe://dev.mayfly.internal/admin".into()), No::SpiffeSub),
        (spoilt(|_, c| c["sub"] = "SPIFFE://dev.mayfly.internal/admin".into()), No::SpiffeSub),
        (spoilt(|_, c| c["sub"] = ISS.into()), No::Assertion),
        (spoilt(|_, c| c["jti"] = 7.into()), No::Jti),
        (spoilt(|_, c| c["jti"] = "x".repeat(257).into()), No::Jti),
    ];
    for (n, (found, expected)) in cases.iter().enumerate() {
        assert_eq!(*found, Some(*expected), "case {n}");
    }
    assert_eq!(spoilt(|h, _| h["typ"] = "at+jwt".into()), None);
    assert_eq!(spoilt(|h, _| h["x5t"] = "AA".into()), None, "a thumbprint brings no key");
    assert_eq!(
        spoilt(|h, _| h["https://example.org/version"] = json!({"n": 2})),
        None,
        "a private member is ignored (RFC 7515, 4)"
    );
    assert_eq!(spoilt(|_, c| c["exp"] = json!(now as f64 + 240.5)), None, "a fraction of a second (RFC 7519, 2)");
    assert_eq!(spoilt(|_, c| c["iat"] = json!(now as f64 - 60.25)), None);
    assert_eq!(spoilt(|_, c| c["sub"] = "x".repeat(limits::OIDC_SUB_BYTES).into()), None);
    assert_eq!(spoilt(|h, _| without(h, "typ")), None);
    assert_eq!(spoilt(|_, c| c["nbf"] = (now + 29).into()), None, "within the skew");
}

#[test]
fn a_list_of_audiences_is_taken_where_the_section_says_what_may_stand_beside_ours() {
    let signer = Signer::new("ES256");
    let with = |audiences: Option<&[&str]>, aud: Value| {
        let audiences = audiences.map(|all| all.iter().map(|aud| (*aud).to_owned()).collect());
        let issuer = Issuer { audiences, ..issuer() };
        let mut claims = claims();
        claims["aud"] = aud;
        oidc::verify(&signer.token(&header(), &claims), &issuer, &keys(&signer), &expect())
            .map(|token| token.audience().to_owned())
    };
    let (ours, other) = (Ok(AUD.to_owned()), "https://api.example.org");
    assert_eq!(with(Some(&[other]), json!([AUD])), ours);
    assert_eq!(with(Some(&[other]), json!([other, AUD])), ours);
    assert_eq!(with(Some(&[]), json!([AUD])), ours);
    assert_eq!(with(Some(&[other]), json!(AUD)), ours, "one text is one audience");
    assert_eq!(with(None, json!([AUD])), Err(No::AudNotOneText));
    assert_eq!(with(Some(&[other]), json!([other])), Err(No::Audience), "ours is not among them");
    assert_eq!(with(Some(&[]), json!([AUD, other])), Err(No::Audience), "somebody whom the section does not name");
    assert_eq!(with(Some(&[other]), json!([AUD, "https://eve.example.org"])), Err(No::Audience));
    assert_eq!(with(Some(&[other]), json!([AUD, 7])), Err(No::AudNotOneText));
    assert_eq!(with(Some(&[other]), json!([])), Err(No::AudNotOneText));
    assert_eq!(with(Some(&[other]), json!(vec![AUD; limits::OIDC_AUDIENCES + 1])), Err(No::AudNotOneText));
}

#[test]
fn keys_of_one_name_are_told_apart_by_the_algorithm() {
    let (ec, rsa) = (Signer::new("ES256"), Signer::new("RS256"));
    let named = |signer: &Signer| {
        let mut jwk = signer.jwk();
        jwk["kid"] = "k1".into();
        jwk
    };
    let set = json!({"keys": [named(&ec), named(&rsa)]});
    let keys = IssuerKeys::parse(set.to_string().as_bytes()).unwrap();
    let verify = |token: String| oidc::verify(&token, &issuer(), &keys, &expect()).map(|token| token.sub().to_owned());
    assert_eq!(verify(ec.token(&header(), &claims())), Ok("ada".to_owned()));
    let mut rs = header();
    rs["alg"] = "RS256".into();
    assert_eq!(verify(rsa.token(&rs, &claims())), Ok("ada".to_owned()));
    // Each token is checked with its own key only.
    assert_eq!(verify(ec.token(&rs, &claims())), Err(No::BadSignature));
    let twice = json!({"keys": [named(&ec), named(&rsa), named(&Signer::new("ES256"))]});
    assert_eq!(IssuerKeys::parse(twice.to_string().as_bytes()), Err(KeysDefect::KidTwice(2)));
}

#[test]
fn a_signature_of_anybody_else_is_none() {
    let (signer, other) = (Signer::new("ES256"), Signer::new("ES256"));
    assert_eq!(verify(&other.token(&header(), &claims()), &signer), Err(No::BadSignature));
    // The oldest attack: the public key, which everybody has, as the secret of an HMAC.
    let input = |header: &Value| {
        format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
            BASE64URL_NOPAD.encode(claims().to_string().as_bytes())
        )
    };
    let public = signer.jwk().to_string();
    let hs = input(&json!({"alg": "HS256", "kid": "k1", "typ": "JWT"}));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), hs.as_bytes());
    assert_eq!(verify(&format!("{hs}.{}", BASE64URL_NOPAD.encode(tag.as_ref())), &signer), Err(No::Algorithm));
    let none = input(&json!({"alg": "none", "kid": "k1"}));
    assert_eq!(verify(&format!("{none}."), &signer), Err(No::Algorithm));
    let es = input(&header());
    assert_eq!(verify(&format!("{es}."), &signer), Err(No::BadSignature));
    assert_eq!(verify(&format!("{es}.{}", BASE64URL_NOPAD.encode(tag.as_ref())), &signer), Err(No::BadSignature));
}

#[test]
fn a_name_that_stands_twice_and_what_is_too_long_are_refused() {
    let signer = Signer::new("ES256");
    let twice = claims().to_string().replace("{", "{\"sub\":\"eve\",");
    assert_eq!(verify(&signer.raw(&header().to_string(), &twice), &signer), Err(No::Malformed));
    assert_eq!(verify("a.b", &signer), Err(No::Malformed));
    let long = signer.token(&header(), &json!({"iss": ISS, "pad": "x".repeat(limits::OIDC_TOKEN_BYTES)}));
    assert_eq!(verify(&long, &signer), Err(No::TooLong));
    assert_eq!(oidc::peek_issuer(&long), None);
}

#[test]
fn claims_of_groups_are_whole_or_refused() {
    let signer = Signer::new("ES256");
    let values = |value: Value| {
        let mut claims = claims();
        claims["groups"] = value;
        verify(&signer.token(&header(), &claims), &signer).unwrap().values("groups")
    };
    for bad in [json!(7), json!({"a": 1}), json!(["a", 7]), json!(["a\n"]), json!(vec!["g"; limits::OIDC_GROUPS + 1])] {
        assert_eq!(values(bad), Err(No::BadValues));
    }
    assert_eq!(values(Value::Null).unwrap(), Vec::<String>::new());
}

#[test]
fn every_defect_has_a_code_of_its_own() {
    let codes: BTreeSet<_> = No::ALL.iter().map(|no| no.code()).collect();
    assert_eq!(codes.len(), No::ALL.len());
    assert!(No::ALL.iter().all(|no| no.clause().len() < 256));
}

#[test]
fn a_key_set_gives_what_verifies_and_passes_by_the_rest() {
    let parse = |set: Value| IssuerKeys::parse(set.to_string().as_bytes());
    let key = |kid: &str| {
        let mut jwk = Signer::new("ES256").jwk();
        jwk["kid"] = kid.into();
        jwk
    };
    let mut encryption = key("enc");
    encryption["use"] = "enc".into();
    let secret = json!({"kty": "oct", "kid": "hs", "k": "c2VjcmV0"});
    let mut nameless = key("");
    without(&mut nameless, "kid");
    let keys = parse(json!({"keys": [key("a"), encryption, secret, nameless, key("b")]})).unwrap();
    assert_eq!(keys.kids().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(parse(json!({"keys": [key("a"), key("a")]})), Err(KeysDefect::KidTwice(1)));
    assert_eq!(parse(json!({"keys": []})), Err(KeysDefect::NoneUsable));
    assert_eq!(parse(json!({"keys": {}})), Err(KeysDefect::NoKeys));
    assert_eq!(parse(json!({"keys": [7]})), Err(KeysDefect::NotAKey(0)));
    assert_eq!(parse(json!({"keys": vec![key("a"); limits::OIDC_KEYS + 1]})), Err(KeysDefect::TooMany));
    assert!(matches!(IssuerKeys::parse(b"{\"keys\":[],\"keys\":[]}"), Err(KeysDefect::NotJson(_))));
}

#[test]
fn a_discovery_document_is_of_that_issuer_and_sends_nowhere_else_for_keys() {
    let parse = |change: fn(&mut Value)| {
        let mut document =
            json!({"issuer": ISS, "jwks_uri": format!("{ISS}/keys"), "token_endpoint": "https://other.example.org/token"});
        change(&mut document);
        Discovery::parse(document.to_string().as_bytes(), ISS)
    };
    let good = parse(|_| {}).unwrap();
    assert_eq!(
        (&*good.jwks_uri, good.token_endpoint.as_deref()),
        ("https://idp.example.org/keys", Some("https://other.example.org/token"))
    );
    assert_eq!(
        parse(|d| d["issuer"] = "https://idp.example.org/".into()),
        Err(DiscoveryDefect::Issuer("https://idp.example.org/".into()))
    );
    assert_eq!(parse(|d| without(d, "jwks_uri")), Err(DiscoveryDefect::NoKeys));
    for elsewhere in
        ["https://169.254.169.254/latest", "https://idp.example.org:8443/keys", "https://idp.example.org.evil.example/keys"]
    {
        let mut document = json!({"issuer": ISS});
        document["jwks_uri"] = elsewhere.into();
        assert_eq!(Discovery::parse(document.to_string().as_bytes(), ISS), Err(DiscoveryDefect::OtherOrigin), "{elsewhere}");
    }
    for unsafe_url in
        ["http://idp.example.org/keys", "http://127.0.0.1/keys", "file:///etc/passwd", "https://a@idp.example.org/keys", "keys"]
    {
        let mut document = json!({"issuer": ISS});
        document["jwks_uri"] = unsafe_url.into();
        assert_eq!(Discovery::parse(document.to_string().as_bytes(), ISS), Err(DiscoveryDefect::Url("jwks_uri")), "{unsafe_url}");
    }
    assert_eq!(
        document_url("https://idp.example.org/tenant/"),
        "https://idp.example.org/tenant/.well-known/openid-configuration"
    );
}

#[test]
fn an_issuer_is_an_https_url_or_on_loopback() {
    for good in [
        "https://idp.example.org",
        "https://idp.example.org/",
        "https://idp.example.org:8443/t/1",
        "http://127.0.0.1:80",
        "http://localhost:8080/realms/x",
        "http://[::1]:1",
    ] {
        assert!(issuer_url(good), "{good}");
    }
    for bad in [
        "http://idp.example.org",
        "https://",
        "https://a b",
        "https://idp.example.org?x=1",
        "https://idp.example.org#x",
        "ftp://x",
        "https://u@x",
        "https://x:99999",
        "http://127.0.0.1.evil.example",
    ] {
        assert!(!issuer_url(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn whatever_a_text_is_no_token_is_accepted_that_the_key_did_not_make(text in ".{0,200}", header in ".{0,60}", claims in ".{0,120}") {
        let (signer, other) = (Signer::new("ES256"), Signer::new("ES256"));
        prop_assert!(verify(&text, &signer).is_err());
        prop_assert!(verify(&other.raw(&header, &claims), &signer).is_err());
        prop_assert!(verify(&signer.raw(&header, &claims), &signer).is_err());
    }
}
