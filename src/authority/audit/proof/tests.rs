//! Tests of keys and notes: what is accepted, and what is refused.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::key::NoteKey;
use super::note::{Checkpoint, NoteError, SignedNote, signed};

fn key(name: &str) -> (EcdsaKeyPair, NoteKey) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public = NoteKey::from_point(name, pair.public_key().as_ref()).unwrap();
    (pair, public)
}

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: "mayfly.ledger/store_a".into(), size: 42, root: [7; 32], more: vec!["seq 99".into()] }
}

#[test]
fn a_note_is_believed_when_a_known_key_signed_it_and_only_then() {
    let (pair, public) = key("k1");
    let (_, other) = key("k2");
    let text = checkpoint().text();
    let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
    let note = signed(&text, "mayfly.ledger/store_a", &public, signature.as_ref());
    let read = SignedNote::parse(&note).unwrap();
    assert_eq!(Checkpoint::parse(&read.text), Ok(checkpoint()));
    assert_eq!(read.signer(&[other.clone(), public.clone()]).map(|k| k.name.as_str()), Ok("k1"));
    assert_eq!(read.signer(std::slice::from_ref(&other)), Err(NoteError::NotSigned));
    for at in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let believed = SignedNote::parse(&text).ok().filter(|n| n.signer(std::slice::from_ref(&public)).is_ok());
        // The name on a signature line is not signed; a key is identified by its id.
        let name = note.rfind('\u{2014}').unwrap() + 4..note.rfind(' ').unwrap();
        assert!(believed.is_none() || name.contains(&at), "byte {at}");
    }
    assert!(
        Checkpoint::parse("a\n042\n").is_err() && Checkpoint::parse("a\n1\nAAAA\n").is_err() && Checkpoint::parse("").is_err()
    );
    assert_eq!(checkpoint().said("seq"), Some("99"));
}

#[test]
fn keys_are_read_from_a_set_from_one_and_from_pem() {
    let (_, public) = key("");
    let base64 = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let spki: Vec<u8> = {
        let head = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        data_encoding::HEXLOWER.decode(head.as_bytes()).unwrap()
    };
    let (pair, named) = key("k1");
    let point = pair.public_key().as_ref();
    let jwk = format!(
        "{{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"k1\",\"x\":\"{}\",\"y\":\"{}\"}}",
        base64(&point[1..33]),
        base64(&point[33..])
    );
    assert_eq!(NoteKey::read(&jwk), Ok(vec![named.clone()]));
    let set = format!("{{\"keys\":[{{\"kty\":\"RSA\",\"n\":\"AA\",\"e\":\"AQAB\"}},{jwk}]}}");
    assert_eq!(NoteKey::read(&set), Ok(vec![named.clone()]));
    let pem = data_encoding::BASE64.encode(&[&spki[..], point].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n");
    assert_eq!(NoteKey::read(&pem).map(|k| k[0].id()), Ok(named.id()));
    assert_ne!(public.id(), named.id());
    for wrong in ["", "{}", "{\"keys\":[]}", &jwk.replace("\"y\":\"", "\"y\":\"A"), "-----BEGIN PUBLIC KEY-----\n"] {
        assert!(NoteKey::read(wrong).is_err(), "{wrong}");
    }
}
