//! Reference tokens: a credential id and a MAC, meaningful only to introspection.
//!
//! A token is `mfr_` followed by base64url of the credential id (16 bytes) and of the id's HMAC-SHA256 under the day's key (32 bytes). The
//! MAC keeps guessed tokens from causing ledger lookups; the rights of a token are in the ledger alone. A token can be computed again from
//! its id, so a retry gets the same token.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::keyring::LoadedKey;
use mayfly_base::refusal::Fault;
use mayfly_verify::seq::CredentialId;

/// The prefix of every reference token, by which scanners find leaked tokens.
pub const PREFIX: &str = "mfr_";

const MAC_BYTES: usize = 32;
const BYTES: usize = 16 + MAC_BYTES;
/// 48 bytes are exactly 64 characters without padding, so each id and MAC has one text.
const CHARACTERS: usize = 64;

/// The token of a credential, given the MAC of the credential's id.
pub fn token(id: CredentialId, mac: &[u8; MAC_BYTES]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    bytes[..16].copy_from_slice(id.as_bytes());
    bytes[16..].copy_from_slice(mac);
    let mut out = Zeroizing::new(String::with_capacity(PREFIX.len() + CHARACTERS));
    out.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(&bytes[..], &mut out);
    out
}

/// The token of a credential under a key.
pub(super) fn make(key: &LoadedKey, id: CredentialId) -> Result<Zeroizing<String>, Fault> {
    let mac = key.mac().ok_or_else(|| Fault::new(format!("key {} derives nothing", key.id())))?;
    let tag = hmac::sign(mac, id.as_bytes());
    let tag = tag.as_ref().try_into().map_err(|_| Fault::new("HMAC-SHA256 is 32 bytes"))?;
    Ok(token(id, tag))
}

/// A text in the form of a reference token. Its claims are unverified until [`made_by`](Shown::made_by).
pub struct ReferenceToken {
    id: CredentialId,
    mac: Zeroizing<[u8; MAC_BYTES]>,
}

impl ReferenceToken {
    /// Parses a token; `None` unless it has exactly the right form.
    pub fn parse(token: &str) -> Option<ReferenceToken> {
        let rest = token.strip_prefix(PREFIX).filter(|r| r.len() == CHARACTERS)?;
        let mut bytes = Zeroizing::new([0; BYTES]);
        URL_SAFE_NO_PAD.decode_slice(rest, &mut bytes[..]).ok().filter(|n| *n == BYTES)?;
        let id = CredentialId::from_slice(&bytes[..16])?;
        let mut mac = Zeroizing::new([0; MAC_BYTES]);
        mac.copy_from_slice(&bytes[16..]);
        Some(ReferenceToken { id, mac })
    }

    /// The credential id in the token. The credential's record names the key for [`made_by`](Shown::made_by).
    pub fn id(&self) -> CredentialId {
        self.id
    }

    /// Whether this key made the token. Takes the same time for every wrong MAC.
    pub fn made_by(&self, key: &LoadedKey) -> bool {
        key.mac().is_some_and(|mac| hmac::verify(mac, self.id.as_bytes(), &self.mac[..]).is_ok())
    }
}
