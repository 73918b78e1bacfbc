//! Tests each defect of a token separately.

use super::*;

#[test]
fn the_key_rule_comes_before_all_else() {
    let c = case();
    let (token, _) = mint(&c.ring, full(T0, Seq::ZERO));
    let mut rules = Rules::default();
    rules.add(&Target::SigningKey(c.kid().into()), Some(Seq::from_u64(1).unwrap()), None, T0);
    let revoked = |kid: &str| rules.get(&Target::SigningKey(kid.into())).is_some();
    let wrong = TokenRequirements { issuer: "https://other.example", now: Millis(0), ..expect() };
    for token in [token.clone(), token[..token.len() - 4].to_owned()] {
        assert_eq!(verify(&token, &Jwks::default(), &wrong, revoked).unwrap_err(), TokenDefect::KeyRevoked(c.kid()));
    }
    assert_eq!(peek_kid(&token), Some(c.kid()));
}

#[test]
fn each_defect_of_a_header_has_its_refusal() {
    let c = case();
    let claims = decoded(&mint(&c.ring, full(T0, Seq::ZERO)).0);
    let header = |change: fn(&mut Value)| {
        let mut h = c.header();
        change(&mut h);
        c.check(&c.forge(&h, &claims)).map(|_| ())
    };
    assert_eq!(header(|_| ()), Ok(()));
    for alg in ["none", "None", "HS256", "RS256", "ES384", "es256", ""] {
        let mut h = c.header();
        h["alg"] = json!(alg);
        assert_eq!(c.check(&c.forge(&h, &claims)).unwrap_err(), TokenDefect::Algorithm(alg.into()));
        let unsigned = c.forge(&h, &claims);
        assert!(c.check(&unsigned[..=unsigned.rfind('.').unwrap()]).is_err(), "no signature");
    }
    assert_eq!(header(|h| h["alg"] = Value::Null), Err(TokenDefect::Algorithm(String::new())));
    assert_eq!(header(|h| h["typ"] = json!("JWT")), Err(TokenDefect::Typ("JWT".into())));
    assert_eq!(header(|h| h["typ"] = json!("statuslist+jwt")), Err(TokenDefect::Typ("statuslist+jwt".into())));
    assert_eq!(header(|h| drop(h.as_object_mut().unwrap().remove("typ"))), Err(TokenDefect::Typ(String::new())));
    assert_eq!(header(|h| h["crit"] = json!(["exp"])), Err(TokenDefect::HeaderParameter("crit".into())));
    assert_eq!(header(|h| h["jku"] = json!("https://evil.example")), Err(TokenDefect::HeaderParameter("jku".into())));
    assert_eq!(header(|h| h["x5u"] = json!("https://evil.example")), Err(TokenDefect::HeaderParameter("x5u".into())));
    assert_eq!(header(|h| h["jwk"] = json!({"kty": "EC"})), Err(TokenDefect::HeaderParameter("jwk".into())));
    assert_eq!(header(|h| h["kid"] = json!("other")), Err(TokenDefect::UnknownKey("other".into())));
    assert_eq!(header(|h| drop(h.as_object_mut().unwrap().remove("kid"))), Err(TokenDefect::UnknownKey(String::new())));
    assert!(matches!(header(|h| h["kid"] = json!(["a"])), Err(TokenDefect::Malformed(_))));
}

#[test]
fn each_defect_of_the_claims_has_its_refusal() {
    let c = case();
    let good = decoded(&mint(&c.ring, full(T0, Seq::ZERO)).0);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        c.check(&c.forge(&c.header(), &claims)).map(|_| ())
    };
    assert_eq!(with(&|_| ()), Ok(()));
    assert_eq!(with(&|v| v["unheard-of"] = json!(1)), Ok(()), "RFC 7519, section 4: claims of other names are ignored");
    assert_eq!(
        with(&|v| v["iss"] = json!("https://mayfly.example/prod")),
        Err(TokenDefect::Issuer("https://mayfly.example/prod".into()))
    );
    assert_eq!(with(&|v| v["aud"] = json!("https://echo.example/")), Err(TokenDefect::Audience("https://echo.example/".into())));
    assert_eq!(with(&|v| v["exp"] = json!(1_700_000_005)), Err(TokenDefect::Expired), "skew does not lengthen a life");
    assert_eq!(with(&|v| v["exp"] = json!(1_700_003_601u64)), Err(TokenDefect::Life(3_601)));
    assert_eq!(with(&|v| v["exp"] = v["iat"].clone()), Err(TokenDefect::Life(0)));
    assert_eq!(with(&|v| v["exp"] = json!(u64::MAX)), Err(TokenDefect::Life(u64::MAX - 1_700_000_000)));
    assert_eq!(with(&|v| v["nbf"] = json!(1_700_000_006)), Ok(()), "within the skew");
    assert_eq!(with(&|v| v["nbf"] = json!(1_700_000_008)), Err(TokenDefect::NotYet));
    assert_eq!(with(&|v| v["iat"] = json!(1_700_000_008)), Err(TokenDefect::NotYet));
    assert_eq!(with(&|v| v[OWN_CLAIMS]["v"] = json!(3)), Err(TokenDefect::Newer(3)));
    type Change<'a> = &'a dyn Fn(&mut Value);
    let malformed: [(&str, Change<'_>); 9] = [
        ("aud is one string", &|v| v["aud"] = json!(["https://echo.example"])),
        ("a seq is below 2^53", &|v| v[OWN_CLAIMS]["r"] = json!(1u64 << 53)),
        ("times are whole", &|v| v["exp"] = json!(1_700_000_300.5)),
        ("times are not negative", &|v| v["iat"] = json!(-1)),
        ("jti is a credential id", &|v| v["jti"] = json!("task_aaaaaaaaaaaaaaaaaaaaaaaaaa")),
        ("our own claims are there", &|v| drop(v.as_object_mut().unwrap().remove(OWN_CLAIMS))),
        ("client_id is there", &|v| drop(v.as_object_mut().unwrap().remove("client_id"))),
        ("bytes are lower-case hexadecimal", &|v| v[OWN_CLAIMS]["svid"]["serial"] = json!("0A")),
        ("no more tasks than there can be", &|v| v[OWN_CLAIMS]["tasks"] = vec![good[OWN_CLAIMS]["tasks"][0].clone(); 9].into()),
    ];
    for (clause, change) in malformed {
        assert!(matches!(with(change), Err(TokenDefect::Claims(_))), "{clause}: {:?}", with(change));
    }
    let twice = |from: &str, to: &str| {
        let text = good.to_string().replacen(from, to, 1);
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(c.header().to_string()), URL_SAFE_NO_PAD.encode(text));
        let key = c.ring.active(KeyPurpose::AccessToken, "dev").unwrap();
        let signature = key.sign(&digest::digest(&digest::SHA256, input.as_bytes())).unwrap();
        c.check(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    };
    assert!(matches!(twice("{", r#"{"aud":"https://other.example","#), Err(TokenDefect::Claims(_))), "a name that stands twice");
}

#[test]
fn a_bound_token_needs_its_key() {
    let c = case();
    let bound = mint(&c.ring, full(T0, Seq::ZERO)).0;
    let mut parts = plain(1, T0, Seq::ZERO);
    let free = mint(&c.ring, parts.clone()).0;
    parts.draft.jkt = vec![0xee; 32];
    let dpop = mint(&c.ring, parts).0;
    let check =
        |token: &str, possession| verify(token, &c.keys, &TokenRequirements { possession, ..expect() }, |_| false).map(|_| ());
    let no = Err(TokenDefect::Possession);
    assert_eq!(check(&bound, Possession::Certificate(&[0xcd; 32])), Ok(()));
    assert_eq!(check(&bound, Possession::Certificate(&[0xce; 32])), no);
    assert_eq!(check(&bound, Possession::Jwk(&[0xcd; 32])), no);
    assert_eq!(check(&bound, Possession::None), no);
    assert_eq!(check(&dpop, Possession::Jwk(&[0xee; 32])), Ok(()));
    assert_eq!(check(&dpop, Possession::Certificate(&[0xee; 32])), no);
    assert_eq!(check(&free, Possession::None), Ok(()));
    let mut claims = decoded(&bound);
    claims["cnf"] = json!({"kid": "x"});
    assert_eq!(c.check(&c.forge(&c.header(), &claims)).map(|_| ()), no, "a confirmation that is not understood");
}

#[test]
fn every_changed_character_of_a_token_is_refused() {
    let c = case();
    let (token, _) = mint(&c.ring, plain(1, T0, Seq::ZERO));
    assert!(c.check(&token).is_ok());
    for at in 0..token.len() {
        let mut bad = token.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        assert!(c.check(&String::from_utf8(bad).unwrap()).is_err(), "character {at}");
    }
    for bad in ["", ".", "..", "...", &format!("{token}."), &format!(".{token}"), &token.replace('.', ""), &format!("{token}=")] {
        assert!(c.check(bad).is_err(), "{bad}");
    }
    assert_eq!(c.check(&"a".repeat(mayfly_base::limits::TOKEN_BYTES + 1)).unwrap_err(), TokenDefect::TooLong);
}
