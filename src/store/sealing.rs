//! Sealing of values that the store keeps but must not reveal: signing keys, secrets, arguments that await approval.
//!
//! AES-256-GCM under one key that lies outside the data directory, so a copied disk or backup reveals nothing. A sealed value is bound to
//! its store, environment, purpose, name and version: if it is moved elsewhere, or put back after it was replaced, it does not open. If the
//! key is lost, the sealed values are lost: docs/operations.md says what remains ("When the sealing key is lost").

mod key_file;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

pub use key_file::KeyFileError;

use crate::{Precondition, Store, StoreError, StoreId};
use mayfly_base::system::System;

/// First byte of every sealed value. Frozen: another algorithm or layout gets another number.
const FORMAT: u8 = 1;
/// The named value that shows whether the key is the right one.
const CHECK_NAME: &str = "sealing/check";
const CHECK_TEXT: &[u8] = b"mayfly sealing key check";
const FINGERPRINT_TEXT: &[u8] = b"mayfly sealing key fingerprint 1";
const DIGEST_KEY_TEXT: &[u8] = b"mayfly sealing key digests 1";

/// The context to which a sealed value is bound. All fields must be equal to open the value.
#[derive(Clone, Copy, Debug)]
pub struct SealingContext<'a> {
    /// The store that holds the value.
    pub store: StoreId,
    /// The environment, empty for values that belong to none.
    pub environment: &'a str,
    /// The purpose: `signing-key`, `secret`, … Each key has one purpose.
    pub purpose: &'a str,
    /// The named value that holds the sealed value.
    pub name: &'a str,
    /// Incremented each time the value is replaced.
    pub version: u64,
}

impl SealingContext<'_> {
    /// Each part is preceded by its length, so that no two contexts give the same bytes.
    fn encode(&self) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        let parts: [&[u8]; 6] = [
            b"mayfly sealed value",
            self.store.as_bytes(),
            self.environment.as_bytes(),
            self.purpose.as_bytes(),
            self.name.as_bytes(),
            &version,
        ];
        let mut out = Vec::with_capacity(128);
        for part in parts {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }
}

/// Why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The value is too short, or of a format that this version does not know.
    #[error("{0} is no sealed value of this version")]
    Malformed(String),
    /// The key, the bytes or the context differ from those at sealing; which of them cannot be told.
    #[error("{0} does not open: it was changed, moved from elsewhere, or sealed with another key")]
    NotOpened(String),
    /// The check value was sealed with another key. No other value was tried.
    #[error(
        "the sealing key is not the one that this store was made with; start with the right key: \
         what was sealed cannot be opened without it"
    )]
    WrongKey,
    /// The store has commits but no check value: the check value was deleted.
    #[error("the store has no check value for its sealing key ({CHECK_NAME}) though it is in use; restore it from a backup")]
    NoCheck,
    /// The cipher failed: the value is longer than the cipher accepts.
    #[error("{0} could not be sealed")]
    NotSealed(String),
    /// The store failed to read or write the check value.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sealing key. It cannot be printed or copied, and its bytes are wiped when it is dropped.
///
/// ```compile_fail,E0277
/// fn print<T: std::fmt::Debug>() {}
/// print::<mayfly_store::sealing::SealingKey>();
/// ```
pub struct SealingKey {
    key: LessSafeKey,
    fingerprint: [u8; 32],
    digests: hmac::Key,
}

impl SealingKey {
    fn from_bytes(bytes: &[u8; 32]) -> Option<SealingKey> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?);
        let of = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let tag = hmac::sign(&of, FINGERPRINT_TEXT);
        let digests = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&of, DIGEST_KEY_TEXT).as_ref());
        Some(SealingKey { key, fingerprint: tag.as_ref().try_into().ok()?, digests })
    }

    /// Tells this key from others without revealing anything of it: an HMAC of a fixed text.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// HMAC-SHA256 of a secret in a store, under a key that is derived from this one: tells equal secrets from different ones, and does not help
    /// anybody to guess a short one.
    pub fn digest(&self, store: StoreId, secret: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.digests);
        context.update(store.as_bytes());
        context.update(secret);
        context.sign().as_ref().try_into().unwrap_or_default()
    }

    /// Seals `plain` for its context: a format byte, a random nonce, the ciphertext, the tag; 29 bytes more than `plain`.
    pub fn seal(&self, context: &SealingContext<'_>, plain: &[u8], system: &System) -> Result<Vec<u8>, SealError> {
        let random = system.random16();
        let mut nonce = [0u8; NONCE_LEN];
        nonce.copy_from_slice(&random[..NONCE_LEN]);
        let mut out = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        out.push(FORMAT);
        out.extend_from_slice(&nonce);
        // Capacity is reserved above, so the plaintext is never left behind in a smaller buffer.
        out.extend_from_slice(plain);
        let body = out.get_mut(1 + NONCE_LEN..).unwrap_or_default();
        let tag = self.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context.encode()), body);
        let tag = tag.map_err(|_| SealError::NotSealed(context.name.to_owned()))?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens a value that was sealed for exactly this context.
    pub fn open(&self, context: &SealingContext<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let malformed = || SealError::Malformed(context.name.to_owned());
        let (&format, rest) = sealed.split_first().ok_or_else(malformed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(malformed)?;
        if format != FORMAT || body.len() < AES_256_GCM.tag_len() {
            return Err(malformed());
        }
        let mut plain = Zeroizing::new(body.to_vec());
        let opened = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context.encode()), &mut plain);
        let len = opened.map_err(|_| SealError::NotOpened(context.name.to_owned()))?.len();
        plain.truncate(len);
        Ok(plain)
    }

    /// Checks that this is the store's key, before anything is sealed or opened with it.
    ///
    /// A store without a commit gets its check value here; call this before the first append.
    pub fn check(&self, store: &dyn Store, system: &System) -> Result<(), SealError> {
        let context = SealingContext { store: store.id(), environment: "", purpose: "key-check", name: CHECK_NAME, version: 1 };
        if let Some(sealed) = store.named(CHECK_NAME)? {
            return match self.open(&context, &sealed) {
                Ok(text) if *text == CHECK_TEXT => Ok(()),
                Err(e @ SealError::Malformed(_)) => Err(e),
                _ => Err(SealError::WrongKey),
            };
        }
        if store.head()? > 0 {
            return Err(SealError::NoCheck);
        }
        let sealed = self.seal(&context, CHECK_TEXT, system)?;
        Ok(store.put(CHECK_NAME, &sealed, Precondition::Absent)?)
    }
}

#[cfg(test)]
mod tests;
