//! standards.md, "JWT in and out" for JWT-SVIDs: one defect for each clause, and its refusal.

use crate::jwt_kit::{AUDIENCE, ID, Signer, bundles_of, claims, expect, verify};
use crate::kit::pki::{Authority, NOW, trust_domain};
use data_encoding::BASE64URL_NOPAD;
use mayfly::identity::bundle::{Bundle, Bundles};
use mayfly::identity::jwk::{Algorithm, KeyDefect};
use mayfly::identity::jwt_svid::{self, Audiences, JwtSvidDefect as No, JwtSvidRequirements};
use mayfly::identity::spiffe_id::IdDefect;
use mayfly::limits;
use serde_json::{Value, json};
use std::sync::Arc;

const ES: &str = "ES256";

/// The refusal of a valid token with a changed header.
fn header(change: impl FnOnce(&mut Value)) -> Option<No> {
    let signer = Signer::new(ES);
    verify(&signer.with_header(change), &signer.bundles()).err()
}

/// The refusal of a valid token with a changed claim.
fn claim(name: &str, value: Value) -> Option<No> {
    let signer = Signer::new(ES);
    let token = signer.with_claims(|claims| match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    });
    verify(&token, &signer.bundles()).err()
}

/// The refusal of a valid token when the key in the bundle is changed, and the defect that the bundle reports for that key.
fn key(alg: &'static str, change: impl FnOnce(&mut Value)) -> (Option<No>, Option<KeyDefect>) {
    let signer = Signer::new(alg);
    let bundles = signer.bundles_with(change);
    let defect = bundles.get("example.org").unwrap().jwt_authority("authority1").unwrap().key().err();
    (verify(&signer.good(), &bundles).err(), defect)
}

#[test]
fn a_good_one_is_accepted_with_all_that_it_says() {
    let signer = Signer::new(ES);
    let svid = verify(&signer.with_claims(|c| c["jti"] = "one".into()), &signer.bundles()).unwrap();
    assert_eq!((svid.id().as_str(), svid.audiences()), (ID, &[AUDIENCE.to_owned()][..]));
    assert_eq!((svid.expires_at(), svid.issued_at()), (NOW.plus(240_000), Some(NOW.minus(60_000))));
    assert_eq!((svid.kid(), svid.token_id()), ("authority1", Some("one")));
    assert_eq!(svid.claims()["sub"], ID);
    let bare = verify(&signer.with_claims(|c| drop(c.as_object_mut().unwrap().remove("iat"))), &signer.bundles()).unwrap();
    assert_eq!((bare.issued_at(), bare.token_id()), (None, None));
}

#[test]
fn every_algorithm_of_the_list_verifies_and_no_other_key_of_its_type() {
    assert_eq!(Algorithm::ALL.len(), 9);
    for alg in Algorithm::ALL.iter().map(|a| a.name()) {
        let (signer, other) = (Signer::new(alg), Signer::new(alg));
        assert_eq!(verify(&signer.good(), &signer.bundles()).unwrap().id().as_str(), ID, "{alg}");
        assert_eq!(verify(&signer.good(), &other.bundles()), Err(No::BadSignature), "{alg}");
    }
}

#[test]
fn it_is_one_jws_in_compact_form() {
    let signer = Signer::new(ES);
    let (good, bundles) = (signer.good(), signer.bundles());
    let parts: Vec<&str> = good.split('.').collect();
    let in_json = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string();
    let cut = good[..good.rfind('.').unwrap()].to_owned();
    for malformed in ["", ".", "..", "invalid token", &in_json, &cut, &format!("{good}."), &format!("{good}=")] {
        assert_eq!(verify(malformed, &bundles), Err(No::Malformed), "{malformed}");
    }
    // Standard base64 and padding are other texts for the same bytes.
    for (at, part) in parts.iter().enumerate() {
        let mut spoilt: Vec<String> = parts.iter().map(|p| (*p).to_owned()).collect();
        spoilt[at] = format!("{part}+");
        assert_eq!(verify(&spoilt.join("."), &bundles), Err(No::Malformed), "part {at}");
    }
    for (header, claims) in
        [("[]", claims().to_string()), ("{", claims().to_string()), (&signer.header().to_string(), "3".into())]
    {
        assert_eq!(verify(&signer.raw(header, &claims), &bundles), Err(No::Malformed), "{header}");
    }
}

#[test]
fn no_name_stands_twice() {
    let signer = Signer::new(ES);
    let header = format!(r#"{{"alg":"ES256","kid":"authority1","kid":"{}"}}"#, "authority1");
    assert_eq!(verify(&signer.raw(&header, &claims().to_string()), &signer.bundles()), Err(No::Malformed));
    let twice = claims().to_string().replacen('{', r#"{"sub":"spiffe://example.org/admin","#, 1);
    assert_eq!(verify(&signer.raw(&signer.header().to_string(), &twice), &signer.bundles()), Err(No::Malformed));
    let deep = claims().to_string().replacen('{', r#"{"x":{"a":1,"a":2},"#, 1);
    assert_eq!(verify(&signer.raw(&signer.header().to_string(), &deep), &signer.bundles()), Err(No::Malformed));
}

#[test]
fn alg_is_of_the_list() {
    for alg in
        [json!("none"), json!("HS256"), json!("HS384"), json!("HS512"), json!("EdDSA"), json!("ES256K"), json!("es256"), json!(1)]
    {
        assert_eq!(header(|h| h["alg"] = alg.clone()), Some(No::UnsupportedAlgorithm), "{alg}");
    }
    assert_eq!(header(|h| drop(h.as_object_mut().unwrap().remove("alg"))), Some(No::UnsupportedAlgorithm));
    let signer = Signer::new(ES);
    let good = signer.with_header(|h| h["alg"] = "none".into());
    let unsigned = format!("{}.", &good[..good.rfind('.').unwrap()]);
    assert_eq!(verify(&unsigned, &signer.bundles()), Err(No::UnsupportedAlgorithm));
}

/// An RSA or EC public key that is used as the secret of a MAC.
#[test]
fn a_public_key_is_no_secret() {
    let signer = Signer::new("RS256");
    let header = BASE64URL_NOPAD.encode(json!({"alg": "HS256", "kid": "authority1"}).to_string().as_bytes());
    let input = format!("{header}.{}", BASE64URL_NOPAD.encode(claims().to_string().as_bytes()));
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, signer.jwk()["n"].as_str().unwrap().as_bytes());
    let mac = BASE64URL_NOPAD.encode(aws_lc_rs::hmac::sign(&secret, input.as_bytes()).as_ref());
    assert_eq!(verify(&format!("{input}.{mac}"), &signer.bundles()), Err(No::UnsupportedAlgorithm));
}

#[test]
fn typ_is_absent_jwt_or_jose() {
    assert_eq!(header(|h| drop(h.as_object_mut().unwrap().remove("typ"))), None);
    assert_eq!(header(|h| h["typ"] = "JWT".into()), None);
    assert_eq!(header(|h| h["typ"] = "JOSE".into()), None);
    for typ in [json!("at+jwt"), json!("jwt"), json!("invalid"), json!(""), json!(null), json!(["JWT"])] {
        assert_eq!(header(|h| h["typ"] = typ.clone()), Some(No::BadTyp), "{typ}");
    }
}

#[test]
fn kid_names_the_key() {
    assert_eq!(header(|h| drop(h.as_object_mut().unwrap().remove("kid"))), Some(No::MissingKid));
    assert_eq!(header(|h| h["kid"] = "".into()), Some(No::MissingKid));
    assert_eq!(header(|h| h["kid"] = json!(["authority1"])), Some(No::MissingKid));
    assert_eq!(header(|h| h["kid"] = "authority2".into()), Some(No::UnknownKid));
}

#[test]
fn nothing_else_stands_in_the_header() {
    let own = Signer::new(ES).jwk();
    for (name, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("jwk", own),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        assert_eq!(header(|h| h[name] = value.clone()), Some(No::HeaderParameter), "{name}");
    }
}

#[test]
fn sub_is_a_workloads_spiffe_id() {
    assert_eq!(claim("sub", Value::Null), Some(No::MissingSub));
    assert_eq!(claim("sub", json!(1)), Some(No::MissingSub));
    assert_eq!(claim("sub", json!("workload")), Some(No::Id(IdDefect::WrongScheme)));
    assert_eq!(claim("sub", json!("spiffe://Example.org/a")), Some(No::Id(IdDefect::UppercaseTrustDomain)));
    assert_eq!(claim("sub", json!("spiffe://example.org/a/")), Some(No::Id(IdDefect::TrailingSlash)));
    assert_eq!(claim("sub", json!("spiffe://example.org")), Some(No::IdWithoutPath));
    let segments = |n: usize| json!(format!("spiffe://example.org{}", "/a".repeat(n)));
    assert_eq!(claim("sub", segments(limits::SPIFFE_ID_SEGMENTS)), None);
    assert_eq!(claim("sub", segments(limits::SPIFFE_ID_SEGMENTS + 1)), Some(No::TooManySegments));
}

#[test]
fn aud_has_the_value_that_we_are_known_by() {
    assert_eq!(claim("aud", Value::Null), Some(No::MissingAud));
    assert_eq!(claim("aud", json!("")), Some(No::MissingAud));
    assert_eq!(claim("aud", json!([])), Some(No::MissingAud));
    assert_eq!(claim("aud", json!({"0": AUDIENCE})), Some(No::AudNotText));
    assert_eq!(claim("aud", json!([AUDIENCE, 1])), Some(No::AudNotText));
    assert_eq!(claim("aud", json!("https://somebody.example")), Some(No::Audience));
    assert_eq!(claim("aud", json!(format!("{AUDIENCE}/"))), Some(No::Audience), "exactly");
    assert_eq!(claim("aud", json!(AUDIENCE.to_uppercase())), Some(No::Audience), "exactly");
    // SPIRE writes a list with one entry.
    assert_eq!(claim("aud", json!([AUDIENCE])), None);
    assert_eq!(claim("aud", json!(["https://somebody.example", AUDIENCE])), None);
    let many = |n: usize| json!(vec![AUDIENCE; n]);
    assert_eq!(claim("aud", many(limits::JWT_SVID_AUDIENCES)), None);
    assert_eq!(claim("aud", many(limits::JWT_SVID_AUDIENCES + 1)), Some(No::TooManyAudiences));
}

#[test]
fn where_it_logs_in_aud_has_no_other_value() {
    let signer = Signer::new(ES);
    let expect = JwtSvidRequirements { audiences: Audiences::Only(AUDIENCE), ..expect() };
    let check = |aud: Value| jwt_svid::verify(&signer.with_claims(|c| c["aud"] = aud), &signer.bundles(), &expect).err();
    assert_eq!(check(json!(AUDIENCE)), None);
    assert_eq!(check(json!([AUDIENCE])), None);
    assert_eq!(check(json!([AUDIENCE, "https://somebody.example"])), Some(No::OtherAudiences));
    assert_eq!(check(json!("https://somebody.example")), Some(No::Audience));
    let nobody = JwtSvidRequirements { audiences: Audiences::Any(&[]), ..expect };
    assert_eq!(jwt_svid::verify(&signer.good(), &signer.bundles(), &nobody), Err(No::Audience));
}

#[test]
fn exp_is_there_and_has_not_come() {
    let now = NOW.seconds();
    assert_eq!(claim("exp", Value::Null), Some(No::MissingExp));
    for exp in [json!("1795132900"), json!(-1), json!(1.5), json!(true), json!([now + 60])] {
        assert_eq!(claim("exp", exp.clone()), Some(No::NotATime), "{exp}");
    }
    assert_eq!(claim("exp", json!(now + 1)), None);
    assert_eq!(claim("exp", json!(now)), Some(No::Expired), "leeway puts off no end");
    assert_eq!(claim("exp", json!(0)), Some(No::Expired));
}

#[test]
fn what_begins_later_is_not_taken_yet() {
    let (now, leeway) = (NOW.seconds(), limits::CLOCK_SKEW_MS / 1000);
    for name in ["nbf", "iat"] {
        assert_eq!(claim(name, json!(now + leeway)), None, "{name}");
        assert_eq!(claim(name, json!(now + leeway + 1)), Some(No::NotYetValid), "{name}");
        assert_eq!(claim(name, json!("now")), Some(No::NotATime), "{name}");
    }
}

#[test]
fn what_has_too_much_life_left_is_refused() {
    let longest = NOW.seconds() + limits::SVID_MAX_TTL_MS / 1000;
    assert_eq!(claim("exp", json!(longest)), None);
    assert_eq!(claim("exp", json!(longest + 1)), Some(No::LivesTooLong));
    assert_eq!(claim("exp", json!(u64::MAX)), Some(No::LivesTooLong), "no time is too large to compare");
}

#[test]
fn the_trust_domain_of_sub_picks_the_bundle_and_no_other_is_used() {
    let (signer, other) = (Signer::new(ES), Signer::new(ES));
    let in_other = signer.with_claims(|c| c["sub"] = "spiffe://partner.test/workload".into());
    assert_eq!(verify(&in_other, &signer.bundles()), Err(No::NoBundle));
    // The partner has a bundle of its own, with another key of the same name.
    let mut jwk = other.jwk();
    (jwk["use"], jwk["kid"]) = ("jwt-svid".into(), "authority1".into());
    let partner = Bundle::from_jwks(trust_domain("partner.test"), json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    let both = signer.bundles().with(Arc::new(partner)).unwrap();
    assert_eq!(verify(&in_other, &both), Err(No::BadSignature));
    assert!(verify(&signer.good(), &both).is_ok());
    assert_eq!(verify(&signer.good(), &Bundles::default()), Err(No::NoBundle));
}

#[test]
fn the_signature_covers_header_and_claims_as_they_were_sent() {
    let signer = Signer::new(ES);
    let (good, bundles) = (signer.good(), signer.bundles());
    let parts: Vec<&str> = good.split('.').collect();
    let other = signer.with_claims(|c| c["sub"] = "spiffe://example.org/admin".into());
    let swapped = format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2]);
    assert_eq!(verify(&swapped, &bundles), Err(No::BadSignature));
    assert_eq!(verify(&format!("{}.{}.", parts[0], parts[1]), &bundles), Err(No::BadSignature));
    // ASN.1 is another text for the same signature.
    let raw = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
    let der = p256::ecdsa::Signature::from_slice(&raw).unwrap().to_der();
    let der = format!("{}.{}.{}", parts[0], parts[1], BASE64URL_NOPAD.encode(der.as_bytes()));
    assert_eq!(verify(&der, &bundles), Err(No::BadSignature));
}

#[test]
fn only_a_jwt_svid_key_of_the_bundle_vouches() {
    let signer = Signer::new(ES);
    for purpose in [json!("x509"), json!("wit-svid"), json!("sig"), json!(null)] {
        let bundles = signer.bundles_with(|jwk| jwk["use"] = purpose.clone());
        assert_eq!(bundles.get("example.org").unwrap().ignored_keys(), 1);
        assert_eq!(verify(&signer.good(), &bundles), Err(No::UnknownKid), "{purpose}");
    }
    // The key of an X.509 authority signs no JWT-SVID.
    let root = Authority::root("example.org");
    let x509 = json!({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [data_encoding::BASE64.encode(&root.certificate)]}]});
    assert_eq!(verify(&signer.good(), &bundles_of(&x509)), Err(No::UnknownKid));
}

#[test]
fn the_algorithm_is_of_the_keys_type_curve_and_alg() {
    for (own, asked) in [("ES256", "ES384"), ("ES256", "RS256"), ("ES384", "ES256"), ("RS256", "ES256")] {
        let signer = Signer::new(own);
        let token = signer.with_header(|h| h["alg"] = asked.into());
        assert_eq!(verify(&token, &signer.bundles()), Err(No::OtherKeyType), "{asked} with a key for {own}");
    }
    // An RSA key serves all six algorithms, unless its JWK names one in `alg`.
    let signer = Signer::new("RS256").by("PS384");
    assert!(verify(&signer.good(), &signer.bundles()).is_ok());
    assert!(verify(&signer.good(), &signer.bundles_with(|jwk| jwk["alg"] = "PS384".into())).is_ok());
    assert_eq!(verify(&signer.good(), &signer.bundles_with(|jwk| jwk["alg"] = "RS256".into())), Err(No::OtherKeyType));
}

#[test]
fn a_key_that_cannot_be_used_vouches_for_nothing_and_the_bundle_says_why() {
    let unusable = |alg, defect, change: &dyn Fn(&mut Value)| {
        assert_eq!(key(alg, change), (Some(No::UnusableKey), Some(defect)), "{defect}");
    };
    let set = |name: &'static str, value: Value| move |jwk: &mut Value| jwk[name] = value.clone();
    assert_eq!(key(ES, |_| {}), (None, None));
    unusable(ES, KeyDefect::Type, &set("kty", json!("OKP")));
    unusable(ES, KeyDefect::Type, &set("kty", json!("oct")));
    unusable(ES, KeyDefect::Curve, &set("crv", json!("secp256k1")));
    unusable(ES, KeyDefect::Curve, &set("crv", json!(256)));
    unusable(ES, KeyDefect::Point, &set("x", json!("")));
    unusable(ES, KeyDefect::Point, &set("y", json!("!")));
    unusable(ES, KeyDefect::Point, &set("crv", json!("P-384")));
    // Not a point of the curve: (1, 1).
    let one = BASE64URL_NOPAD.encode(&[&[0; 31][..], &[1]].concat());
    unusable(ES, KeyDefect::Point, &|jwk| (jwk["x"], jwk["y"]) = (json!(one), json!(one)));
    unusable(ES, KeyDefect::Private, &set("d", json!(one)));
    unusable(ES, KeyDefect::Purpose, &set("alg", json!("EdDSA")));
    unusable(ES, KeyDefect::Purpose, &set("alg", json!("ES384")));
    unusable(ES, KeyDefect::Purpose, &set("key_ops", json!(["sign"])));
    unusable(ES, KeyDefect::Purpose, &set("key_ops", json!("verify")));
    let number = |bytes: &[u8]| json!(BASE64URL_NOPAD.encode(bytes));
    unusable("RS256", KeyDefect::Modulus, &set("n", number(&[0xff; 255])));
    unusable("RS256", KeyDefect::Modulus, &set("n", number(&[0xff; 1025])));
    unusable("RS256", KeyDefect::Modulus, &set("n", number(&[&[0][..], &[0xff; 256]].concat())));
    unusable("RS256", KeyDefect::Exponent, &set("e", number(&[1])));
    unusable("RS256", KeyDefect::Exponent, &set("e", number(&[1, 0, 0])));
    unusable("RS256", KeyDefect::Exponent, &set("e", number(&[1; 6])));
    unusable("RS256", KeyDefect::Private, &set("p", number(&[3])));
    assert_eq!(key(ES, set("key_ops", json!(["verify"]))), (None, None));
}

#[test]
fn a_plain_set_of_keys_is_a_jwt_bundle_and_no_x509_bundle() {
    let signer = Signer::new(ES);
    let mut jwk = signer.jwk();
    jwk["kid"] = "authority1".into();
    let read = |document: &Value| Bundle::from_jwt_bundle(trust_domain("example.org"), document.to_string().as_bytes());
    let root = Authority::root("example.org");
    let x509 = json!({"use": "x509-svid", "kty": "EC", "x5c": [data_encoding::BASE64.encode(&root.certificate)]});
    let bundle = read(&json!({"keys": [jwk, x509]})).unwrap();
    assert_eq!((bundle.jwt_authorities().len(), bundle.x509_authorities().len(), bundle.ignored_keys()), (1, 0, 1));
    assert!(verify(&signer.good(), &Bundles::new([Arc::new(bundle)]).unwrap()).is_ok());
    assert_eq!(bundles_of(&json!({"keys": [jwk]})).get("example.org").unwrap().jwt_authorities().len(), 0, "without its use");
}

#[test]
fn a_token_is_bounded() {
    let signer = Signer::new(ES);
    // The length of a token by the length of one claim: base64url adds a third.
    let padded = |n: usize| signer.with_claims(|c| c["x"] = "x".repeat(n).into());
    let room = (limits::JWT_SVID_BYTES - padded(0).len()) * 3 / 4;
    let longest = (0..).map(|less| padded(room - less)).find(|t| t.len() <= limits::JWT_SVID_BYTES).unwrap();
    assert!(limits::JWT_SVID_BYTES - longest.len() < 3, "{}", longest.len());
    assert!(verify(&longest, &signer.bundles()).is_ok());
    assert_eq!(verify(&padded(room + 4), &signer.bundles()), Err(No::TooLong));
    let deep = format!("{}{}{}", r#"{"x":"#, "[".repeat(4000), "]".repeat(4000));
    assert_eq!(verify(&signer.raw(&signer.header().to_string(), &deep), &signer.bundles()), Err(No::Malformed));
}

#[test]
fn every_defect_has_a_code_and_a_clause_of_its_own() {
    let codes: std::collections::BTreeSet<_> = No::ALL.iter().map(|d| d.code()).chain(["invalid_sub"]).collect();
    assert_eq!(codes.len(), No::ALL.len() + 1);
    assert!(No::ALL.iter().all(|d| d.clause().contains('(') && d.to_string() == d.clause()));
    assert_eq!(No::Id(IdDefect::Empty).code(), "invalid_sub");
    assert!(No::TooLong.clause().contains(&limits::JWT_SVID_BYTES.to_string()));
    assert!(No::TooManyAudiences.clause().contains(&limits::JWT_SVID_AUDIENCES.to_string()));
    assert!(No::TooManySegments.clause().contains(&limits::SPIFFE_ID_SEGMENTS.to_string()));
}
