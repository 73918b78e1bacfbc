//! Kind `ssh`: user certificates of OpenSSH, under a CA of each upstream, and its key revocation list (standards.md, "SSH out").
//!
//! - [`wire`]: the strings and numbers of RFC 4251, section 5, written and read within bounds.
//! - [`public_key`]: public keys of requests. [`certificate`]: PROTOCOL.certkeys of OpenSSH. [`krl`]: PROTOCOL.krl.
//! - [`settings`]: the section `[ssh]` of a registration.

pub mod certificate;
pub mod krl;
mod public_key;
pub mod settings;
#[cfg(test)]
mod tests;
mod wire;

pub use public_key::{SshKeyDefect, SshKeyType, SshPublicKey};
pub use settings::SshSettings;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use self::wire::Writer;
use crate::keyring::LoadedKey;
use crate::x509::lists_url;
use mayfly_base::refusal::Fault;
use mayfly_base::system::System;

/// The type of a CA's key.
const AUTHORITY_TYPE: &str = "ecdsa-sha2-nistp256";
/// The curve of a CA's key.
const AUTHORITY_CURVE: &str = "nistp256";

/// The blob of a CA's public key (RFC 5656, section 3.1). `point`: uncompressed.
pub fn authority_blob(point: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.string(AUTHORITY_TYPE.as_bytes()).string(AUTHORITY_CURVE.as_bytes()).string(point);
    out.into_bytes()
}

/// The public key of a CA, as in `authorized_keys` and `TrustedUserCAKeys`.
pub fn authority_line(ca: &LoadedKey) -> Result<String, Fault> {
    let point = ca.public().ok_or_else(|| Fault::new(format!("key {} signs nothing", ca.id())))?;
    Ok(format!("{AUTHORITY_TYPE} {} mayfly:{}:{}", STANDARD.encode(authority_blob(point)), ca.environment(), ca.id()))
}

/// The URL of the KRL of an upstream. `issuer`: the issuer of the environment.
pub fn krl_url(issuer: &str, upstream: &str) -> String {
    format!("{}/krl", lists_url(issuer, upstream))
}

/// Signs a message with a CA's key: the signature blob of RFC 5656, section 3.1.2.
fn sign(ca: &LoadedKey, message: &[u8]) -> Result<Vec<u8>, Fault> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
    let signature = ca.sign(&digest)?;
    let (r, s) = signature.split_at(32);
    let mut numbers = Writer::default();
    numbers.mpint(r).mpint(s);
    let mut out = Writer::default();
    out.string(AUTHORITY_TYPE.as_bytes()).string(&numbers.into_bytes());
    Ok(out.into_bytes())
}

/// A new Ed25519 key in the files of OpenSSH: the private key, which has no passphrase, and the public key. For clients of `mayfly get` that
/// have no key.
pub fn new_key(system: &System, comment: &str) -> Result<(Zeroizing<String>, String), Fault> {
    const KIND: &[u8] = b"ssh-ed25519";
    let seed = Zeroizing::new(system.random32());
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| Fault::new("an Ed25519 key could not be made"))?;
    let public = pair.public_key().as_ref();
    let mut blob = Writer::default();
    blob.string(KIND).string(public);
    // PROTOCOL.key of OpenSSH. The buffers are long enough from the start, so that no part of the key is left behind in memory.
    let mut private = Writer::with_room(512 + comment.len());
    let check = system.random16();
    let check = check.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
    let whole = Zeroizing::new([&seed[..], public].concat());
    private.uint32(check).uint32(check).string(KIND).string(public).string(&whole).string(comment.as_bytes());
    (1..=8u8).take((8 - private.bytes().len() % 8) % 8).for_each(|pad| {
        private.byte(pad);
    });
    let private = Zeroizing::new(private.into_bytes());
    let mut out = Writer::with_room(1024 + comment.len());
    out.raw(b"openssh-key-v1\0").string(b"none").string(b"none").string(b"").uint32(1).string(blob.bytes()).string(&private);
    let out = Zeroizing::new(out.into_bytes());
    let mut base64 = Zeroizing::new(String::with_capacity(out.len() * 2));
    STANDARD.encode_string(&*out, &mut base64);
    let mut text = Zeroizing::new(String::with_capacity(base64.len() * 2 + 128));
    text.push_str("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for line in base64.as_bytes().chunks(70) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    Ok((text, format!("ssh-ed25519 {} {comment}\n", STANDARD.encode(blob.bytes()))))
}
