//! The keys that sign and derive. Each key has one purpose and one environment.
//!
//! The ledger says which keys exist and in which state. Their private parts are sealed in the store's named values (`key/<kid>`) and are
//! written before the record, so that no record names a key that is not stored. A key is parsed once, when it is loaded.

mod jwks;
mod make;
mod rotation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use parking_lot::Mutex;
use x509_parser::asn1_rs::{FromDer, Integer, Sequence};
use zeroize::Zeroizing;

pub use jwks::{jwk, jwks, jwks_of, jwks_of_path};
pub use make::{NewKey, generate, generate_with};
pub use rotation::{
    AssertionKeys, RotationPlan, RotationSchedule, assertions_due, authorities_due, compromise, due, retire, rotate,
};

use super::x509::CaCertificate;
use super::{assertion, jwt};
use mayfly_base::refusal::Fault;
use mayfly_ledger::record::{KeyPurpose, KeyState};
use mayfly_ledger::state::ManagedKey;
use mayfly_store::{Precondition, Store};

/// Seals values for the store. A sealed value opens only under the same purpose, environment and name.
pub trait Sealer: Send + Sync {
    /// Seals a value.
    fn seal(&self, purpose: &str, environment: &str, name: &str, plain: &[u8]) -> Result<Vec<u8>, Fault>;
    /// Opens a sealed value.
    fn open(&self, purpose: &str, environment: &str, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault>;
    /// A digest of a secret under a key that is derived from the sealing key: equal for equal secrets, and no help in guessing one. Empty if
    /// there is no such key.
    fn digest(&self, _secret: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    /// Tells the sealing key from others without revealing anything of it, if there is such a key.
    fn fingerprint(&self) -> Option<[u8; 32]> {
        None
    }
}

pub use mayfly_verify::token::ES256;
/// The JOSE name of the one deriving algorithm.
pub const HS256: &str = "HS256";

/// The JOSE name of RSA PKCS #1 v1.5 with SHA-256 (RFC 7518, section 3.3), for assertions only.
pub const RS256: &str = "RS256";

/// How keys of a purpose work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyOperation {
    Signs,
    Derives,
}

impl KeyOperation {
    /// `None` for a purpose that no key has.
    const fn of(purpose: KeyPurpose) -> Option<KeyOperation> {
        match purpose {
            KeyPurpose::AccessToken
            | KeyPurpose::StatusList
            | KeyPurpose::Checkpoint
            | KeyPurpose::X509Ca
            | KeyPurpose::UpstreamCa
            | KeyPurpose::SshCa
            | KeyPurpose::Federation => Some(KeyOperation::Signs),
            KeyPurpose::Reference | KeyPurpose::Password => Some(KeyOperation::Derives),
            KeyPurpose::Unspecified => None,
        }
    }
}

/// The name of a purpose in sealed values, messages and on the command line.
pub const fn purpose_name(purpose: KeyPurpose) -> &'static str {
    match purpose {
        KeyPurpose::Unspecified => "unspecified",
        KeyPurpose::AccessToken => "access-token",
        KeyPurpose::Reference => "reference",
        KeyPurpose::StatusList => "status-list",
        KeyPurpose::Checkpoint => "checkpoint",
        KeyPurpose::X509Ca => "x509-ca",
        KeyPurpose::SshCa => "ssh-ca",
        KeyPurpose::Password => "password",
        KeyPurpose::Federation => "federation",
        KeyPurpose::UpstreamCa => "upstream-ca",
    }
}

/// The name of the stored value that holds the certificate of a CA's key. It is public, and not sealed: whoever alters it can only make the key
/// unusable, since the certificate is signed with the key.
fn certificate_name(kid: &str) -> String {
    format!("ca/{kid}")
}

/// The name of the stored value that holds a key's private part.
pub fn value_name(kid: &str) -> String {
    format!("key/{kid}")
}

enum KeyMaterial {
    Ec(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Mac(Box<hmac::Key>),
}

/// A key with its private part. The private part never leaves the process unsealed.
pub struct LoadedKey {
    id: Box<str>,
    purpose: KeyPurpose,
    environment: Box<str>,
    private: KeyMaterial,
    /// The JWS header in base64url with the dot after it.
    header: Box<str>,
    /// The certificate of a key of purpose `UpstreamCa`.
    certificate: Option<CaCertificate>,
}

impl LoadedKey {
    pub(super) fn parse(id: &str, key: &ManagedKey, plain: &[u8]) -> Result<LoadedKey, Fault> {
        let bad = |what: &str| Fault::new(format!("key {id}: {what}"));
        let private = match (KeyOperation::of(key.purpose), &*key.algorithm) {
            (Some(KeyOperation::Signs), ES256) => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, plain)
                    .map_err(|_| bad("its sealed value is no P-256 key"))?;
                if pair.public_key().as_ref() != &*key.public {
                    return Err(bad("its sealed value does not belong to the public key in its record"));
                }
                KeyMaterial::Ec(pair)
            }
            (Some(KeyOperation::Signs), RS256) if key.purpose == KeyPurpose::Federation => {
                let pair = RsaKeyPair::from_pkcs8(plain).map_err(|_| bad("its sealed value is no RSA key"))?;
                if pair.public_key().as_ref() != &*key.public {
                    return Err(bad("its sealed value does not belong to the public key in its record"));
                }
                KeyMaterial::Rsa(Box::new(pair))
            }
            (Some(KeyOperation::Derives), HS256) if plain.len() == 32 => {
                KeyMaterial::Mac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, plain)))
            }
            _ => return Err(bad("this version knows no such purpose and algorithm")),
        };
        let header = match key.purpose {
            KeyPurpose::Federation => assertion::header(id, &key.algorithm).into(),
            _ => jwt::header(id).into(),
        };
        Ok(LoadedKey {
            id: id.into(),
            purpose: key.purpose,
            environment: key.environment.clone(),
            private,
            header,
            certificate: None,
        })
    }

    /// The key's id, `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The certificate, for a key of purpose `UpstreamCa`.
    pub fn certificate(&self) -> Option<&CaCertificate> {
        self.certificate.as_ref()
    }

    /// The key's purpose.
    pub fn purpose(&self) -> KeyPurpose {
        self.purpose
    }

    /// The environment that the key serves.
    pub fn environment(&self) -> &str {
        &self.environment
    }

    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// Signs a SHA-256 digest with ES256. Returns r and s, 32 bytes each (RFC 7518, section 3.4).
    pub(super) fn sign(&self, digest: &Digest) -> Result<[u8; 64], Fault> {
        let failed = || Fault::new(format!("key {} could not sign", self.id));
        let KeyMaterial::Ec(pair) = &self.private else { return Err(failed()) };
        // Matched by reference: the type has room for the longest signature of all algorithms, 4.6 KB, and each move would copy that.
        match &pair.sign_digest(digest) {
            Ok(signature) => fixed(signature.as_ref()).ok_or_else(failed),
            Err(_) => Err(failed()),
        }
    }

    /// The algorithm by its JOSE name.
    pub fn algorithm(&self) -> &'static str {
        match &self.private {
            KeyMaterial::Ec(_) => ES256,
            KeyMaterial::Rsa(_) => RS256,
            KeyMaterial::Mac(_) => HS256,
        }
    }

    /// Signs the input of a JWS with the algorithm of the key (RFC 7515, section 5.1).
    pub(super) fn sign_jws(&self, input: &[u8]) -> Result<Vec<u8>, Fault> {
        let failed = || Fault::new(format!("key {} could not sign", self.id));
        match &self.private {
            KeyMaterial::Ec(_) => Ok(self.sign(&digest::digest(&digest::SHA256, input))?.to_vec()),
            KeyMaterial::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let digest = digest::digest(&digest::SHA256, input);
                pair.sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature).map_err(|_| failed())?;
                Ok(signature)
            }
            KeyMaterial::Mac(_) => Err(failed()),
        }
    }

    /// Signs a SHA-256 digest with ES256, in DER (RFC 3279, section 2.2.3) as signed notes need it.
    pub fn sign_der(&self, digest: &Digest) -> Result<Vec<u8>, Fault> {
        let failed = || Fault::new(format!("key {} could not sign", self.id));
        let KeyMaterial::Ec(pair) = &self.private else { return Err(failed()) };
        pair.sign_digest(digest).map(|signature| signature.as_ref().to_vec()).map_err(|_| failed())
    }

    /// The public part: an uncompressed point (SEC 1, section 2.3.3) or an `RSAPublicKey` (RFC 8017, A.1.1); `None` for a key that derives.
    pub fn public(&self) -> Option<&[u8]> {
        match &self.private {
            KeyMaterial::Ec(pair) => Some(pair.public_key().as_ref()),
            KeyMaterial::Rsa(pair) => Some(pair.public_key().as_ref()),
            KeyMaterial::Mac(_) => None,
        }
    }

    pub(super) fn mac(&self) -> Option<&hmac::Key> {
        match &self.private {
            KeyMaterial::Mac(key) => Some(key),
            KeyMaterial::Ec(_) | KeyMaterial::Rsa(_) => None,
        }
    }
}

/// r and s, 32 bytes each, of a P-256 signature in DER (RFC 3279, section 2.2.3). The library's own conversion allocates both numbers,
/// which costs a fiftieth of a signature.
fn fixed(der: &[u8]) -> Option<[u8; 64]> {
    let (after, pair) = Sequence::from_der(der).ok()?;
    let (rest, r) = Integer::from_der(&pair.content).ok()?;
    let (end, s) = Integer::from_der(rest).ok()?;
    let mut out = [0; 64];
    for (number, out) in [r, s].iter().zip(out.chunks_exact_mut(32)) {
        let number = number.as_ref();
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        let at = out.len().checked_sub(number.len())?;
        out.get_mut(at..)?.copy_from_slice(number);
    }
    (after.is_empty() && end.is_empty()).then_some(out)
}

type ByEnvironment = HashMap<Box<str>, Arc<LoadedKey>>;

#[derive(Default)]
struct LoadedKeys {
    by_id: BTreeMap<Box<str>, (KeyState, Arc<LoadedKey>)>,
    active: BTreeMap<KeyPurpose, ByEnvironment>,
}

/// The loaded keys. Reading takes no lock.
#[derive(Default)]
pub struct Keyring {
    held: ArcSwap<LoadedKeys>,
    changing: Mutex<()>,
}

impl Keyring {
    /// Loads new keys, updates the states of all keys, and drops keys that were removed or compromised. A loaded key is not read again.
    ///
    /// A key that cannot be loaded is left out and the others are loaded; the fault names the first such key.
    pub fn sync(&self, keys: &BTreeMap<Box<str>, ManagedKey>, store: &dyn Store, sealer: &dyn Sealer) -> Result<(), Fault> {
        let _one = self.changing.lock();
        let before = self.held.load_full();
        let mut held = LoadedKeys::default();
        let mut fault = None;
        for (id, key) in keys {
            if !matches!(key.state, KeyState::Next | KeyState::Active | KeyState::Retired) {
                continue;
            }
            let loaded = match before.by_id.get(id) {
                Some((_, loaded)) => Ok(loaded.clone()),
                None => load(id, key, store, sealer).map(Arc::new),
            };
            match loaded {
                Ok(own) => {
                    if key.state == KeyState::Active {
                        held.active.entry(key.purpose).or_default().insert(key.environment.clone(), own.clone());
                    }
                    held.by_id.insert(id.clone(), (key.state, own));
                }
                Err(e) => fault = fault.or(Some(e)),
            }
        }
        self.held.store(Arc::new(held));
        fault.map_or(Ok(()), Err)
    }

    /// The active key of a purpose in an environment.
    pub fn active(&self, purpose: KeyPurpose, environment: &str) -> Option<Arc<LoadedKey>> {
        self.held.load().active.get(&purpose)?.get(environment).cloned()
    }

    /// A key by id, if it has this purpose.
    pub fn get(&self, purpose: KeyPurpose, id: &str) -> Option<Arc<LoadedKey>> {
        self.held.load().by_id.get(id).map(|(_, key)| key).filter(|key| key.purpose == purpose).cloned()
    }

    /// Deletes the private parts of keys that are recorded as removed or compromised. A stored key without a record is kept, since its
    /// record may be on its way.
    pub fn shred(keys: &BTreeMap<Box<str>, ManagedKey>, store: &dyn Store) -> Result<(), Fault> {
        let gone = keys.iter().filter(|(_, k)| matches!(k.state, KeyState::Removed | KeyState::Compromised));
        for (id, _) in gone {
            // The private part last: as long as it is there, a deletion that was cut short is repeated.
            for name in [certificate_name(id), value_name(id)] {
                store.delete(&name, Precondition::Any).map_err(|e| Fault::new(format!("deleting key {id}: {e}")))?;
            }
        }
        Ok(())
    }
}

fn load(id: &str, key: &ManagedKey, store: &dyn Store, sealer: &dyn Sealer) -> Result<LoadedKey, Fault> {
    let name = value_name(id);
    let sealed = store.named(&name).map_err(|e| Fault::new(format!("reading {name}: {e}")))?;
    let sealed = sealed.ok_or_else(|| Fault::new(format!("the private part of key {id} is not in the store")))?;
    let plain = sealer.open(purpose_name(key.purpose), &key.environment, &name, &sealed)?;
    let mut loaded = LoadedKey::parse(id, key, &plain)?;
    if key.purpose == KeyPurpose::UpstreamCa {
        let name = certificate_name(id);
        let der = store.named(&name).map_err(|e| Fault::new(format!("reading {name}: {e}")))?;
        let der = der.ok_or_else(|| Fault::new(format!("the certificate of key {id} is not in the store")))?;
        loaded.certificate = Some(CaCertificate::read(&der, &key.public)?);
    }
    Ok(loaded)
}
