//! The assertion by which an app logs in at GitHub: a JWT, signed with RS256 by the private key of the app.

use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::{Zeroize as _, Zeroizing};

use mayfly_base::system::signing_random;
use mayfly_verify::seq::Millis;

/// How far `iat` lies back, seconds: GitHub recommends 60, for clocks that are behind it.
const BACK_S: u64 = 60;
/// How long after now an assertion ends, seconds. GitHub accepts at most 600; half of it leaves room for a clock that is ahead.
const LIFE_S: u64 = 300;

/// An assertion of the app `issuer`. `pem`: the private key in PEM, as GitHub gives it (PKCS #1), or as PKCS #8. The error says what is wrong
/// with the key, and holds nothing of it.
pub fn sign(issuer: &str, pem: &str, now: Millis) -> Result<Zeroizing<String>, String> {
    let key = key_of(pem)?;
    let now = now.seconds();
    let claims = serde_json::json!({ "iat": now.saturating_sub(BACK_S), "exp": now.saturating_add(LIFE_S), "iss": issuer });
    let mut text = Zeroizing::new(String::with_capacity(2048));
    URL_SAFE_NO_PAD.encode_string(r#"{"alg":"RS256","typ":"JWT"}"#, &mut text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut text);
    let mut signature = Zeroizing::new(vec![0; key.public_modulus_len()]);
    key.sign(&RSA_PKCS1_SHA256, &signing_random(), text.as_bytes(), &mut signature)
        .map_err(|_| "private_key could not sign".to_owned())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(&*signature, &mut text);
    Ok(text)
}

fn key_of(pem: &str) -> Result<RsaKeyPair, String> {
    let wrong = |what: &str| format!("private_key {what}; it is the text of the .pem file that GitHub gives for the app");
    let mut der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong("is no private key in PEM"))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        _ => return Err(wrong("is no RSA key")),
    };
    der.zeroize();
    let pair = pair.map_err(|_| wrong("is no RSA key"))?;
    // GitHub's own keys have 2048 bits.
    match pair.public_key().modulus().big_endian_without_leading_zero().len() >= 256 {
        true => Ok(pair),
        false => Err(wrong("has fewer than 2048 bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    #[test]
    fn an_assertion_has_the_claims_that_github_wants_and_verifies() {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
        let pem = pem("PRIVATE KEY", pkcs8.as_ref());
        let text = sign("Iv23liX", &pem, Millis(1_000_000_000)).unwrap();
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let json = |part: &str| serde_json::from_slice::<serde_json::Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(json(header), serde_json::json!({"alg": "RS256", "typ": "JWT"}));
        assert_eq!(json(claims), serde_json::json!({"iss": "Iv23liX", "iat": 999_940, "exp": 1_000_300}));
    }

    #[test]
    fn another_key_is_told_without_a_part_of_it() {
        let ec = rcgen::KeyPair::generate().unwrap();
        for (text, said) in [("marker".to_owned(), "no private key in PEM"), (ec.serialize_pem(), "no RSA key")] {
            let no = sign("app", &text, Millis(0)).unwrap_err();
            assert!(no.contains(said) && !no.contains("marker"), "{no}");
        }
    }
}
