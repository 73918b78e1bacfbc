//! Public keys in OpenSSH's form: one line with a type, the key's blob in base64, and a comment, which is ignored.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::Reader;
use mayfly_base::limits;

/// Why a public key is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SshKeyDefect {
    /// Larger than `limits::SSH_KEY_BYTES`.
    #[error("has more than {} bytes", limits::SSH_KEY_BYTES)]
    TooLong,
    /// Not one line of type and base64.
    #[error("is not one public key in OpenSSH's form, like the line of id_ed25519.pub")]
    Malformed,
    /// Not a key's type that is certified.
    #[error(
        "has a type that is not certified; certified are ssh-ed25519, ecdsa-sha2-nistp256/384/521, ssh-rsa, and their sk- forms"
    )]
    Type,
    /// The blob is not a key of the type.
    #[error("is not a valid key of its type")]
    Key,
    /// An RSA key that is too short, too long, or has an unusual exponent.
    #[error("is an RSA key that is not of {} to 16384 bits with an exponent from 65537", limits::RSA_KEY_BITS)]
    Rsa,
}

/// The type of a public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SshKeyType {
    /// Ed25519 (RFC 8709).
    Ed25519,
    /// ECDSA on P-256 (RFC 5656).
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// RSA of at least `limits::RSA_KEY_BITS`.
    Rsa,
    /// Ed25519 in a security key (PROTOCOL.u2f of OpenSSH).
    SkEd25519,
    /// ECDSA on P-256 in a security key.
    SkEcdsaP256,
}

impl SshKeyType {
    /// The types of keys, with their names in registrations.
    pub const NAMES: &'static [(&'static str, SshKeyType)] = &[
        ("ed25519", SshKeyType::Ed25519),
        ("ecdsa-p256", SshKeyType::EcdsaP256),
        ("ecdsa-p384", SshKeyType::EcdsaP384),
        ("ecdsa-p521", SshKeyType::EcdsaP521),
        ("rsa", SshKeyType::Rsa),
        ("sk-ed25519", SshKeyType::SkEd25519),
        ("sk-ecdsa-p256", SshKeyType::SkEcdsaP256),
    ];

    /// The name of the type in registrations.
    pub fn name(self) -> &'static str {
        SshKeyType::NAMES.iter().find(|(_, of)| *of == self).map_or("", |(name, _)| name)
    }

    /// The name of the type in a key's blob.
    pub const fn key_name(self) -> &'static str {
        match self {
            SshKeyType::Ed25519 => "ssh-ed25519",
            SshKeyType::EcdsaP256 => "ecdsa-sha2-nistp256",
            SshKeyType::EcdsaP384 => "ecdsa-sha2-nistp384",
            SshKeyType::EcdsaP521 => "ecdsa-sha2-nistp521",
            SshKeyType::Rsa => "ssh-rsa",
            SshKeyType::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            SshKeyType::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The name of the type in a certificate.
    pub const fn certificate_name(self) -> &'static str {
        match self {
            SshKeyType::Ed25519 => "ssh-ed25519-cert-v01@openssh.com",
            SshKeyType::EcdsaP256 => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            SshKeyType::EcdsaP384 => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            SshKeyType::EcdsaP521 => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            SshKeyType::Rsa => "ssh-rsa-cert-v01@openssh.com",
            SshKeyType::SkEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
            SshKeyType::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
        }
    }
}

/// A public key that can be certified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SshPublicKey {
    key_type: SshKeyType,
    blob: Vec<u8>,
}

impl SshPublicKey {
    /// Reads one line of OpenSSH's form.
    pub fn parse(text: &str) -> Result<SshPublicKey, SshKeyDefect> {
        if text.len() > limits::SSH_KEY_BYTES {
            return Err(SshKeyDefect::TooLong);
        }
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SshKeyDefect::Malformed);
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let (Some(name), Some(base64)) = (words.next(), words.next()) else { return Err(SshKeyDefect::Malformed) };
        let blob = STANDARD.decode(base64).map_err(|_| SshKeyDefect::Malformed)?;
        let key = SshPublicKey::from_blob(blob)?;
        match key.key_type.key_name() == name {
            true => Ok(key),
            false => Err(SshKeyDefect::Malformed),
        }
    }

    /// Reads the blob of a key (RFC 4253, section 6.6).
    pub fn from_blob(blob: Vec<u8>) -> Result<SshPublicKey, SshKeyDefect> {
        let mut fields = Reader::of(&blob);
        let name = fields.string().ok_or(SshKeyDefect::Malformed)?;
        let mut types = SshKeyType::NAMES.iter().map(|(_, of)| *of);
        let key_type = types.find(|of| of.key_name().as_bytes() == name).ok_or(SshKeyDefect::Type)?;
        match key_type {
            SshKeyType::Ed25519 => ed25519(&mut fields)?,
            SshKeyType::EcdsaP256 => ecdsa(&mut fields, "nistp256", &ECDSA_P256_SHA256_ASN1)?,
            SshKeyType::EcdsaP384 => ecdsa(&mut fields, "nistp384", &ECDSA_P384_SHA384_ASN1)?,
            SshKeyType::EcdsaP521 => ecdsa(&mut fields, "nistp521", &ECDSA_P521_SHA512_ASN1)?,
            SshKeyType::Rsa => rsa(&mut fields)?,
            SshKeyType::SkEd25519 => {
                ed25519(&mut fields)?;
                application(&mut fields)?;
            }
            SshKeyType::SkEcdsaP256 => {
                ecdsa(&mut fields, "nistp256", &ECDSA_P256_SHA256_ASN1)?;
                application(&mut fields)?;
            }
        }
        if !fields.rest().is_empty() {
            return Err(SshKeyDefect::Key);
        }
        Ok(SshPublicKey { key_type, blob })
    }

    /// The type.
    pub fn key_type(&self) -> SshKeyType {
        self.key_type
    }

    /// The blob.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The fields of the blob after the type, as they stand in a certificate.
    pub(super) fn fields(&self) -> &[u8] {
        let mut fields = Reader::of(&self.blob);
        fields.string();
        fields.rest()
    }
}

fn valid(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> Result<(), SshKeyDefect> {
    ParsedPublicKey::new(algorithm, key).map(|_| ()).map_err(|_| SshKeyDefect::Key)
}

fn ed25519(fields: &mut Reader<'_>) -> Result<(), SshKeyDefect> {
    let key = fields.string().filter(|key| key.len() == 32).ok_or(SshKeyDefect::Key)?;
    valid(&ED25519, key)
}

/// An uncompressed point of the curve (RFC 5656, section 3.1).
fn ecdsa(fields: &mut Reader<'_>, curve: &str, algorithm: &'static dyn VerificationAlgorithm) -> Result<(), SshKeyDefect> {
    if fields.string() != Some(curve.as_bytes()) {
        return Err(SshKeyDefect::Key);
    }
    let point = fields.string().filter(|point| point.first() == Some(&4)).ok_or(SshKeyDefect::Key)?;
    valid(algorithm, point)
}

fn rsa(fields: &mut Reader<'_>) -> Result<(), SshKeyDefect> {
    let exponent = fields.positive_mpint().ok_or(SshKeyDefect::Key)?;
    let modulus = fields.positive_mpint().ok_or(SshKeyDefect::Key)?;
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let bits = |number: &[u8]| number.len() * 8 - number.first().map_or(0, |first| first.leading_zeros() as usize);
    // FIPS 186-5, A.1.1: an odd exponent above 2^16; OpenSSL refuses one of more than 64 bits with a long modulus.
    let usual = odd(exponent) && (17..=33).contains(&bits(exponent));
    match usual && odd(modulus) && (limits::RSA_KEY_BITS..=16_384).contains(&bits(modulus)) {
        true => Ok(()),
        false => Err(SshKeyDefect::Rsa),
    }
}

/// The application of a security key, like `ssh:`.
fn application(fields: &mut Reader<'_>) -> Result<(), SshKeyDefect> {
    let name = fields.string().ok_or(SshKeyDefect::Key)?;
    match !name.is_empty() && name.len() <= limits::NAME_BYTES && name.iter().all(u8::is_ascii_graphic) {
        true => Ok(()),
        false => Err(SshKeyDefect::Key),
    }
}
