//! Cases about the token alone: its form, header, signature, claims, lifetime and proof of possession, and the requirements of the use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer as _;
use serde_json::{Value, json};

use super::kit::*;

pub fn cases() -> Vec<Value> {
    [form(), header_cases(), signatures(), claim_cases(), lives(), possession(), uses()].concat()
}

fn form() -> Vec<Value> {
    let good = with(|_| ());
    let why = "a compact JWS is three parts of base64url without padding, a dot between them (RFC 7515, 7.1)";
    let strict = "no name stands twice in an object: two readers could each believe another value";
    let (head, rest) = good.split_once('.').unwrap();
    let padded = format!("{}.{rest}", base64::engine::general_purpose::URL_SAFE.encode(header().to_string() + "  "));
    assert!(padded.contains('='));
    let twice = header().to_string().replacen('{', r#"{"alg":"none","#, 1);
    let escaped = header().to_string().replacen('{', r#"{"\u0061lg":"none","#, 1);
    vec![
        one("a_good_token_is_accepted", "everything is right", &good, "accepted"),
        one(
            "a_token_that_is_too_long",
            "at most 131072 bytes are read; longer is refused unread",
            &"a".repeat(131_073),
            "too_long",
        ),
        one("a_token_as_long_as_may_be", "131072 bytes are read", &"a".repeat(131_072), "malformed"),
        one("an_empty_token", why, "", "malformed"),
        one("a_token_of_two_parts", why, &format!("{head}.e30"), "malformed"),
        one("a_token_of_four_parts", why, &format!("{good}.e30"), "malformed"),
        one("a_header_with_padding", why, &padded, "malformed"),
        one("a_header_that_is_not_base64url", why, &format!("a+/{good}"), "malformed"),
        one("a_header_that_is_not_json", why, &sign(1, &input("alg", &claims().to_string())), "malformed"),
        one("a_header_that_is_a_list", why, &sign(1, &input(r#"["ES256","at+jwt","k1"]"#, &claims().to_string())), "malformed"),
        one("a_header_with_a_name_twice", strict, &sign(1, &input(&twice, &claims().to_string())), "malformed"),
        one("a_header_with_a_name_twice_once_escaped", strict, &sign(1, &input(&escaped, &claims().to_string())), "malformed"),
        one(
            "a_header_with_more_after_it",
            why,
            &sign(1, &input(&format!("{}{{}}", header()), &claims().to_string())),
            "malformed",
        ),
        one("a_key_id_that_is_no_text", why, &with_header(|h| h["kid"] = json!(["k1"])), "malformed"),
        one(
            "a_payload_that_is_not_base64url",
            "it is looked at after the signature only, which is good here",
            &sign(1, &format!("{head}.a+b")),
            "malformed",
        ),
    ]
}

fn header_cases() -> Vec<Value> {
    let alg = "ES256 is what this issuer signs with: nothing else, whatever the header says, and never none or a MAC";
    let typ = "another kind of token by the same issuer is no access token (RFC 9068)";
    let foreign = "a header parameter that the issuer never writes is refused: jku, x5u, jwk and x5c bring a key, crit a meaning";
    let mut out = Vec::new();
    for name in ["none", "None", "NONE", "", "es256", "ES384", "ES256K", "RS256", "PS256", "EdDSA", "HS256"] {
        let case = format!("alg_{}", if name.is_empty() { "empty" } else { name });
        out.push(one(&case, alg, &with_header(|h| h["alg"] = json!(name)), "algorithm"));
    }
    let unsigned = with_header(|h| h["alg"] = json!("none"));
    out.push(one("alg_none_without_a_signature", alg, &unsigned[..=unsigned.rfind('.').unwrap()], "algorithm"));
    out.push(one("alg_missing", alg, &with_header(|h| drop(h.as_object_mut().unwrap().remove("alg"))), "algorithm"));
    // An HMAC whose secret is the public key, as PEM and as in the JWKS.
    out.push(one("alg_hs256_with_the_public_key_as_its_secret", alg, &hmac(), "algorithm"));
    for name in ["JWT", "AT+JWT", "application/at+jwt", "statuslist+jwt", "dpop+jwt", ""] {
        out.push(one(
            &format!("typ_{}", if name.is_empty() { "empty" } else { name }),
            typ,
            &with_header(|h| h["typ"] = json!(name)),
            "typ",
        ));
    }
    out.push(one("typ_missing", typ, &with_header(|h| drop(h.as_object_mut().unwrap().remove("typ"))), "typ"));
    let parameters = [
        ("crit", json!(["exp"])),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/chain")),
        ("jwk", jwk(2, KID)),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("unheard-of", json!(null)),
    ];
    for (name, value) in parameters {
        out.push(one(&format!("header_parameter_{name}"), foreign, &with_header(|h| h[name] = value), "header_parameter"));
    }
    out
}

/// A token signed by HS256 with the public key's point as secret, as in an algorithm confusion attack.
fn hmac() -> String {
    let input = input(&json!({"alg": "HS256", "typ": "at+jwt", "kid": KID}).to_string(), &claims().to_string());
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key(1).verifying_key().to_sec1_point(false).as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, input.as_bytes())))
}

fn signatures() -> Vec<Value> {
    let why = "the signature is 64 bytes, r and s, by the key with that id, over the parts as they were sent";
    let good = with(|_| ());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let der: Signature = key(1).sign(signed.as_bytes());
    let der = URL_SAFE_NO_PAD.encode(der.to_der().as_bytes());
    // The last character carries four bits only: another character decodes to the same bytes.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let twin = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let twin = format!("{signed}.{}{twin}", &signature[..signature.len() - 1]);
    let other = sign(1, &input(&header().to_string(), &with_claims(|c| c["scope"] = json!("admin"))));
    let swapped = format!("{signed}.{}", other.rsplit_once('.').unwrap().1);
    let unknown = "a key that the issuer does not publish signs nothing";
    let none = |h: &mut Value| drop(h.as_object_mut().unwrap().remove("kid"));
    let only = |jwk: Value| json!({"keys": [jwk]});
    let changed = |name: &str, value: Value| {
        let mut key = jwk(1, KID);
        key[name] = value;
        only(key)
    };
    let keys = |name: &str, jwks: Value, expect: &str| {
        Case::new(name, "a key serves for what its JWK says (RFC 7517): others of a set are left out, and it is no set of ours")
            .keys(jwks)
            .check(&good, expect)
            .done()
    };
    vec![
        one("signed_by_another_key_of_the_same_id", why, &sign(2, signed), "signature"),
        one("without_a_signature", why, &format!("{signed}."), "signature"),
        one("a_signature_that_is_cut", why, &good[..good.len() - 4], "signature"),
        one("a_signature_of_zeros", why, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64])), "signature"),
        one("a_signature_in_der", why, &format!("{signed}.{der}"), "signature"),
        one("a_signature_written_another_way", "base64url has one way to write bytes: spare bits are 0", &twin, "signature"),
        one("a_signature_with_padding", why, &format!("{good}=="), "signature"),
        one("a_signature_with_a_line_end", why, &format!("{good}\n"), "signature"),
        one("the_signature_of_another_token", why, &swapped, "signature"),
        one("a_key_that_is_not_there", unknown, &with_header(|h| h["kid"] = json!("k2")), "unknown_key"),
        one("no_key_id", unknown, &with_header(none), "unknown_key"),
        Case::new("a_key_that_came_and_one_that_went", "the keys are those that were read last")
            .check(&sign(2, signed), "signature")
            .keys(json!({"keys": [jwk(2, KID), jwk(3, "k3")]}))
            .check(&good, "signature")
            .check(&sign(2, signed), "accepted")
            .keys(json!({"keys": []}))
            .check(&sign(2, signed), "unknown_key")
            .done(),
        keys("a_key_for_encryption", changed("use", json!("enc")), "unknown_key"),
        keys("a_key_for_another_algorithm", changed("alg", json!("ES384")), "unknown_key"),
        keys("a_key_that_does_not_verify", changed("key_ops", json!(["sign"])), "unknown_key"),
        keys("a_key_that_verifies_by_key_ops", changed("key_ops", json!(["verify"])), "accepted"),
        keys("a_symmetric_key", only(json!({"kty": "oct", "kid": KID, "k": "AAAA"})), "unknown_key"),
        keys(
            "a_key_beside_others",
            json!({"keys": [{"kty": "RSA", "kid": "r", "n": "AQ", "e": "AQAB"}, jwk(1, KID)]}),
            "accepted",
        ),
    ]
}

fn with_claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims();
    change(&mut claims);
    claims.to_string()
}

fn claim_cases() -> Vec<Value> {
    let form = "the claims are those of a token of ours, in the form that the issuer writes them";
    let mut out = vec![
        one("iss_of_another_path", "iss is the very text", &with(|c| c["iss"] = json!("https://mayfly.example/dev")), "issuer"),
        one("iss_with_a_slash", "iss is the very text", &with(|c| c["iss"] = json!(format!("{ISSUER}/"))), "issuer"),
        one(
            "aud_of_another",
            "aud is one text, the very text",
            &with(|c| c["aud"] = json!("https://gitlab.example")),
            "audience",
        ),
        one(
            "aud_with_a_slash",
            "aud is one text, the very text",
            &with(|c| c["aud"] = json!(format!("{AUDIENCE}/"))),
            "audience",
        ),
        one("aud_as_a_list", "aud is one text, the very text", &with(|c| c["aud"] = json!([AUDIENCE])), "claims"),
        one(
            "claims_of_a_newer_version",
            "a newer version means that who does not know it must refuse",
            &with(|c| c[OWN]["v"] = json!(3)),
            "newer_version",
        ),
        one(
            "claims_of_other_names",
            "they mean nothing and are passed over (RFC 7519, 4)",
            &with(|c| c["unheard-of"] = json!({"a": [1]})),
            "accepted",
        ),
        one("a_payload_that_is_not_json", form, &sign(1, &input(&header().to_string(), "claims")), "claims"),
        one("a_payload_that_is_a_list", form, &sign(1, &input(&header().to_string(), "[]")), "claims"),
        one("a_payload_with_more_after_it", form, &sign(1, &input(&header().to_string(), &format!("{}1", claims()))), "claims"),
    ];
    let strict = "no name stands twice in an object, ours or not: two readers could each believe another value";
    let text = claims().to_string();
    let twice = [
        ("aud_twice", text.replacen('{', r#"{"aud":"https://gitlab.example","#, 1)),
        ("aud_twice_once_escaped", text.replacen('{', r#"{"\u0061ud":"https://gitlab.example","#, 1)),
        ("r_twice", text.replacen(r#""r":"#, r#""r":1,"r":"#, 1)),
        ("twice_in_an_object_that_is_not_ours", text.replacen('{', r#"{"other":{"a":1,"a":2},"#, 1)),
    ];
    for (name, payload) in twice {
        assert_ne!(payload, text, "{name}");
        out.push(one(name, strict, &sign(1, &input(&header().to_string(), &payload)), "claims"));
    }
    for name in ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", OWN] {
        let case = format!("without_{}", if name == OWN { "our_own_claims" } else { name });
        out.push(one(&case, form, &with(|c| drop(c.as_object_mut().unwrap().remove(name))), "claims"));
    }
    for name in ["v", "r", "environment", "policy_version", "upstream", "trust_domain", "tasks"] {
        let missing = with(|c| drop(c[OWN].as_object_mut().unwrap().remove(name)));
        out.push(one(&format!("without_own_{name}"), form, &missing, "claims"));
    }
    type Change = fn(&mut Value);
    let malformed: [(&str, Change); 16] = [
        ("exp_as_a_text", |c| c["exp"] = json!(EXP.to_string())),
        ("exp_with_a_fraction", |c| c["exp"] = json!(1_800_000_300.5)),
        ("iat_that_is_negative", |c| c["iat"] = json!(-1)),
        ("sub_as_a_number", |c| c["sub"] = json!(7)),
        ("scope_as_a_list", |c| c["scope"] = json!(["issues:write"])),
        ("jti_that_is_no_credential_id", |c| c["jti"] = json!(task(1))),
        ("jti_in_upper_case", |c| c["jti"] = json!(cred(1).to_uppercase())),
        ("r_of_2_to_the_53", |c| c[OWN]["r"] = json!(1u64 << 53)),
        ("r_as_a_text", |c| c[OWN]["r"] = json!(seq(R).to_string())),
        ("r_that_is_negative", |c| c[OWN]["r"] = json!(-1)),
        ("a_task_id_that_is_none", |c| c[OWN]["tasks"][0]["id"] = json!("task_1")),
        ("an_ancestor_without_a_caller", |c| c[OWN]["ancestors"][0] = json!({"id": cred(6)})),
        ("bytes_in_upper_case", |c| c[OWN]["svid"]["serial"] = json!("0A")),
        ("more_tasks_than_there_can_be", |c| c[OWN]["tasks"] = vec![c[OWN]["tasks"][0].clone(); 9].into()),
        ("more_ancestors_than_there_can_be", |c| c[OWN]["ancestors"] = vec![c[OWN]["ancestors"][0].clone(); 9].into()),
        ("more_actors_than_there_can_be", |c| {
            c["act"] = (0..9).fold(Value::Null, |act, _| json!({"sub": CALLER, "iss": "a.example", "act": act}));
        }),
    ];
    for (name, change) in malformed {
        out.push(one(name, form, &with(change), "claims"));
    }
    out
}

fn lives() -> Vec<Value> {
    let life = "nothing lives longer than the maximum: a key rule may take that long to come";
    let begin = "skew is given where a token waits for its beginning";
    let end = "and never where it would put off an end";
    let lived = |exp: u64| with(|c| c["exp"] = json!(exp));
    let later = |name: &str, s: u64| with(|c| c[name] = json!(s));
    let late = (T0 + 30_000) / 1000;
    vec![
        one("a_life_of_the_maximum", life, &lived(IAT + 3600), "accepted"),
        one("a_life_above_the_maximum", life, &lived(IAT + 3601), "life"),
        one("a_life_of_nothing", life, &lived(IAT), "life"),
        one("a_life_that_ends_before_it_began", life, &lived(IAT - 10), "life"),
        one(
            "a_life_above_the_maximum_that_is_over",
            life,
            &with(|c| (c["iat"], c["exp"]) = (json!(IAT - 4000), json!(IAT - 10))),
            "life",
        ),
        one("a_token_that_has_ended", end, &with(|c| (c["iat"], c["exp"]) = (json!(IAT - 60), json!(IAT))), "expired"),
        Case::new("the_last_moment_of_a_life", end)
            .clocks(EXP * 1000 - 1, S0 + 299_499)
            .feed(heartbeat(seq(HEAD), seq(HEAD), EXP * 1000 - 1), "taken")
            .check(&with(|_| ()), "accepted")
            .after(1)
            .check(&with(|_| ()), "expired")
            .done(),
        one("nbf_within_the_skew", begin, &later("nbf", late), "accepted"),
        one("nbf_beyond_the_skew", begin, &later("nbf", late + 1), "not_yet"),
        one("iat_within_the_skew", begin, &with(|c| (c["iat"], c["nbf"]) = (json!(late), json!(IAT))), "accepted"),
        one("iat_beyond_the_skew", begin, &later("iat", late + 1), "not_yet"),
    ]
}

fn possession() -> Vec<Value> {
    let why = "a bound token is good with the certificate of the TLS session only, never with one that a header names (RFC 8705)";
    let bound = |cnf: Value| with(|c| c["cnf"] = cnf);
    let by = |certificate: u8| Ask { certificate: hex(&[certificate; 32]), ..Ask::default() };
    let x5t = URL_SAFE_NO_PAD.encode([0xcd; 32]);
    let token = bound(json!({"x5t#S256": x5t}));
    vec![
        Case::new("a_bound_token", why)
            .ask(&token, by(0xcd), "accepted")
            .ask(&token, by(0xce), "possession")
            .check(&token, "possession")
            .done(),
        Case::new("a_free_token_with_a_certificate", "who needs no proof may show one")
            .ask(&with(|_| ()), by(0xcd), "accepted")
            .done(),
        Case::new("bound_to_a_key_of_another_sort", "a binding that is not understood is one that is not proven")
            .ask(&bound(json!({"jkt": x5t})), by(0xcd), "possession")
            .ask(&bound(json!({"kid": "x"})), by(0xcd), "possession")
            .ask(&bound(json!({})), by(0xcd), "possession")
            .ask(&bound(json!({"jkt": x5t, "x5t#S256": x5t})), by(0xcd), "possession")
            .done(),
        Case::new("bound_to_half_a_digest", why)
            .ask(&bound(json!({"x5t#S256": URL_SAFE_NO_PAD.encode([0xcd; 16])})), by(0xcd), "possession")
            .ask(&bound(json!({"x5t#S256": ""})), by(0xcd), "possession")
            .done(),
    ]
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn uses() -> Vec<Value> {
    let scope = "the scope is one of the token's, whole";
    let tool = "a token that names a tool serves for that one; who does not know the tool does not compare it";
    let arguments = "a token that names arguments serves for those; who does not know the arguments gives none, and they are not compared, \
                     as with the tool; a token that names none serves for any";
    let of = |scope| Ask { scope, ..Ask::default() };
    let by = |tool| Ask { tool, ..Ask::default() };
    let given = |byte: u8| Ask { arguments: hex(&[byte; 32]), ..Ask::default() };
    let good = with(|_| ());
    let any_tool = with(|c| drop(c[OWN].as_object_mut().unwrap().remove("tool")));
    let bound = with(|c| c[OWN]["arguments"] = json!("ab".repeat(32)));
    let short = with(|c| c[OWN]["arguments"] = json!("ab".repeat(16)));
    let all = Ask { scope: "repo:read", tool: "create_issue", arguments: hex(&[0xab; 32]), ..Ask::default() };
    let order = "what the feed says comes before what the use needs, scope before tool, tool before arguments";
    vec![
        Case::new("the_scope_that_is_needed", scope)
            .ask(&good, of("issues:write"), "accepted")
            .ask(&good, of("repo:read"), "accepted")
            .ask(&good, of("repo:write"), "scope")
            .ask(&good, of("issues"), "scope")
            .ask(&good, of("issues:write repo:read"), "scope")
            .ask(&with(|c| c["scope"] = json!("")), of("issues:write"), "scope")
            .done(),
        Case::new("the_tool_that_calls", tool)
            .ask(&good, by("create_issue"), "accepted")
            .ask(&good, by("delete_repo"), "tool")
            .ask(&good, by(""), "accepted")
            .ask(&any_tool, by("delete_repo"), "accepted")
            .done(),
        Case::new("the_arguments_of_the_call", arguments)
            .ask(&bound, given(0xab), "accepted")
            .ask(&bound, given(0xac), "arguments")
            .check(&bound, "accepted")
            .ask(&good, given(0xac), "accepted")
            .ask(&short, given(0xab), "arguments")
            .done(),
        Case::new("everything_that_is_needed_at_once", order)
            .ask(&bound, all.clone(), "accepted")
            .ask(&bound, Ask { scope: "x", tool: "x", ..given(0) }, "scope")
            .ask(&bound, Ask { tool: "x", ..given(0) }, "tool")
            .feed(rule(seq(R + 1), seq(HEAD), json!([{"everything": {}}])), "taken")
            .ask(&bound, Ask { scope: "x", ..all }, "revoked")
            .done(),
    ]
}
