//! User certificates (PROTOCOL.certkeys of OpenSSH). A certificate is a function of its record, the registration and the CA's key.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::public_key::SshPublicKey;
use super::settings::{CertificateRights, SshSettings};
use super::wire::{Reader, Writer};
use super::{authority_blob, sign};
use crate::keyring::LoadedKey;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Refusal};
use mayfly_identity::sha256;
use mayfly_ledger::record::{CredentialIssued, upstream_path};
use mayfly_verify::seq::{CredentialId, Millis};

/// SSH2_CERT_TYPE_USER.
const USER: u32 = 1;

/// A signed certificate of kind `ssh`.
pub struct UserCertificate {
    /// The certificate, as in a `-cert.pub` file.
    pub line: String,
    /// The names that the holder may log in as.
    pub principals: Vec<String>,
    /// SHA-256 of its signed part. The same for the same record: the signature itself is not.
    pub signed_part: [u8; 32],
}

/// The serial number of a credential's certificate, which is not 0. It hashes the whole id, since a caller that chooses a request id also
/// chooses the beginning of the credential's id.
pub fn serial(id: CredentialId) -> u64 {
    let digest = tagged("mayfly ssh serial", id);
    let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first).max(1)
}

fn tagged(tag: &str, id: CredentialId) -> [u8; 32] {
    let text = [tag.as_bytes(), b"\0", id.as_bytes()].concat();
    let digest = digest(&SHA256, &text);
    digest.as_ref().try_into().unwrap_or([0; 32])
}

/// Makes the certificate of an issuance record, whose key is the CA's. Refused where the scopes give rights that do not fit into one
/// certificate, and for a type of key that the registration leaves out.
pub fn make(
    ca: &LoadedKey,
    id: CredentialId,
    issued: &CredentialIssued,
    settings: &SshSettings,
) -> Result<UserCertificate, Error> {
    let CertificateRights { principals, options, extensions } = settings.rights(&issued.scopes)?;
    if upstream_path(&issued.environment, &issued.upstream).as_deref() != Some(ca.environment()) {
        return Err(Fault::new(format!("key {} is not of upstream {}", ca.id(), issued.upstream)).into());
    }
    let key =
        SshPublicKey::from_blob(issued.certified_key.clone()).map_err(|no| Fault::new(format!("a recorded SSH key {no}")))?;
    if !settings.key_types.contains(&key.key_type()) {
        let all: Vec<&str> = settings.key_types.iter().map(|of| of.name()).collect();
        let what = format!("is of type {}, and upstream {} takes {}", key.key_type().name(), issued.upstream, all.join(", "));
        return Err(Error::Refusal(Refusal::field("ssh_public_key", what)));
    }
    let point = ca.public().ok_or_else(|| Fault::new(format!("key {} signs nothing", ca.id())))?;
    let name = key.key_type().certificate_name();
    let mut names = Writer::default();
    for principal in &principals {
        names.string(principal.as_bytes());
    }
    let after = Millis(issued.issued_at).minus(limits::SVID_BACKDATED_MS).seconds();
    let mut out = Writer::default();
    out.string(name.as_bytes())
        // The nonce keeps a requester from preparing a collision of the signed part; the id has bytes that only mayfly chooses.
        .string(&tagged("mayfly ssh nonce", id))
        .raw(key.fields())
        .uint64(serial(id))
        .uint32(USER)
        .string(id.to_string().as_bytes())
        .string(names.bytes())
        .uint64(after)
        .uint64(Millis(issued.expires_at).seconds())
        .string(&map(&options))
        .string(&map(&extensions))
        .string(b"")
        .string(&authority_blob(point));
    let signed_part = sha256(out.bytes());
    let signature = sign(ca, out.bytes())?;
    out.string(&signature);
    let line = format!("{name} {} {id}", STANDARD.encode(out.bytes()));
    Ok(UserCertificate { line, principals, signed_part })
}

/// Options or extensions: names in order, each with its value as a string within a string; a flag has an empty value.
fn map(entries: &[(&'static str, String)]) -> Vec<u8> {
    let mut out = Writer::default();
    for (name, value) in entries {
        let mut data = Writer::default();
        if !value.is_empty() {
            data.string(value.as_bytes());
        }
        out.string(name.as_bytes()).string(data.bytes());
    }
    out.into_bytes()
}

/// Verifies that a certificate is signed by this CA. `point`: the CA's public key.
pub(crate) fn signed_by(line: &str, point: &[u8]) -> Result<(), &'static str> {
    let blob = line.split(' ').nth(1).and_then(|base64| STANDARD.decode(base64).ok()).ok_or("it is no line of base64")?;
    // The signature is the last string, so its length is known: it is read from the end, and everything before it is signed.
    let authority = authority_blob(point);
    let mut tail = Writer::default();
    tail.string(&authority);
    let at = blob.windows(tail.bytes().len()).rposition(|window| window == tail.bytes()).ok_or("it names another CA")?;
    let (signed, rest) = blob.split_at_checked(at + tail.bytes().len()).ok_or("it is cut")?;
    let mut after = Reader::of(rest);
    let signature = after.string().ok_or("it has no signature")?;
    if !after.rest().is_empty() {
        return Err("something follows its signature");
    }
    verify(point, signed, signature).ok_or("its CA did not sign it")
}

/// Verifies a signature blob of a CA.
pub(super) fn verify(point: &[u8], signed: &[u8], signature: &[u8]) -> Option<()> {
    let mut parts = Reader::of(signature);
    parts.string().filter(|name| *name == super::AUTHORITY_TYPE.as_bytes())?;
    let mut numbers = Reader::of(parts.string()?);
    let mut fixed = [0; 64];
    for half in fixed.chunks_exact_mut(32) {
        let number = numbers.positive_mpint()?;
        let at = half.len().checked_sub(number.len())?;
        half.get_mut(at..)?.copy_from_slice(number);
    }
    let whole = parts.rest().is_empty() && numbers.rest().is_empty();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    (whole && key.verify(signed, &fixed).is_ok()).then_some(())
}
